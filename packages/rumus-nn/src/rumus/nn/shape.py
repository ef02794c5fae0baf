"""Modules without computation: `Identity` and `Flatten`."""

from __future__ import annotations

import math
from typing import ClassVar

from rumus.nn.module import Module, check_tensor
from rumus.nn.setting import Settings, as_declared
from rumus.tensor import Tensor


class Identity(Module):
    """Returns its input: a placeholder for another module."""

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` itself.

        x: of any shape and dtype.
        """
        check_tensor("Identity", x)
        return x


class Flatten(Module):
    """Joins all axes from `start` on; by default all but the first, the batch.

    start: the first axis to join; negative numbers count from the end.

    IndexError for an input without that axis.

    >>> from rumus.nn import Flatten
    >>> from rumus.tensor import zeros
    >>> Flatten()(zeros((5, 2, 3))).shape
    (5, 6)
    """

    _settings: ClassVar[Settings] = {"start": as_declared}

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
