"""Modules that compute nothing: `Identity` and `Flatten`."""

from __future__ import annotations

import math

from rumus.nn.module import Module, check_tensor
from rumus.tensor import Tensor


class Identity(Module):
    """Returns what it is given: a place in a model where something else may stand."""

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` itself.

        x: of any shape and dtype.
        """
        check_tensor("Identity", x)
        return x


class Flatten(Module):
    """Joins the axes from `start` on into one; by default all but the first, the batch.

    start: the first of the axes that are joined; negative ones count from the end.

    IndexError for an input without that axis.

    >>> from rumus.nn import Flatten
    >>> from rumus.tensor import zeros
    >>> Flatten()(zeros((5, 2, 3))).shape
    (5, 6)
    """

    def __init__(self, start: int = 1) -> None:
        self.start = start

    def forward(self, x: Tensor) -> Tensor:
        """Join the axes.

        x: of more than `start` axes.
        """
        check_tensor("Flatten", x)
        if not -x.ndim <= self.start < x.ndim:
            raise IndexError(f"Flatten: a tensor of shape {x.shape} has no axis {self.start}")
        kept, joined = x.shape[: self.start % x.ndim], x.shape[self.start :]
        return x.reshape(*kept, math.prod(joined))
