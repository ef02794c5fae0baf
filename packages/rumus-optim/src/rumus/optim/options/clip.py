"""What an optimizer's `clip=` may be: how its update limits the gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from rumus.optim.options.hyperparameter import check


@dataclass(frozen=True, slots=True)
class ClipNorm:
    """Scale the gradients so that their 2-norm is at most `max_norm`.

    They are multiplied by max_norm / (norm + eps) where that is below 1, within the update: their
    memory is read once for the norm and once for the update, and never written.
    Pascanu, Mikolov, Bengio: arXiv:1211.5063, section 3.2.

    With nonfinite="propagate" a norm counts though its square overflows, for which a GPU reads the
    gradients once more. One that is infinite makes the gradients 0, as in PyTorch; one that is NaN
    limits nothing, and only `grad_norm` tells.

    max_norm: above 0, infinity only measures.
    per: whose norm is limited: that of all gradients together, of each group, or of each parameter
        ("tensor").
    eps: at least 0.

    ValueError for a value out of range.

    >>> from rumus.optim import SGD, ClipNorm
    >>> from rumus.tensor import Parameter
    >>> w = Parameter([3.0, 4.0])
    >>> optimizer = SGD([w], 1.0, clip=ClipNorm(0.5, eps=0))
    >>> optimizer.step((w * w).sum().backward())
    >>> [round(x, 4) for x in w.tolist()], optimizer.grad_norm.item()
    ([2.7, 3.6], 10.0)
    """

    max_norm: float
    per: Literal["all", "group", "tensor"] = "all"
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.max_norm != math.inf:
            check_limit("max_norm", self.max_norm)
        check("eps", self.eps)
        if self.per not in ("all", "group", "tensor"):
            raise ValueError(f'per must be "all", "group" or "tensor", not {self.per!r}')


@dataclass(frozen=True, slots=True)
class ClipValue:
    """Limit each element of the gradients to [-max_value, max_value]; NaN stays NaN.

    ValueError for a limit that is not finite and positive.

    max_value: finite and positive, ValueError otherwise.

    ValueError for a limit that is not finite and positive.
    """

    max_value: float

    def __post_init__(self) -> None:
        check_limit("max_value", self.max_value)


@dataclass(frozen=True, slots=True)
class AGC:
    """Adaptive gradient clipping: limit each unit's gradient by the size of its weights.

    A unit is what one index of the first axis selects, as a matrix's row; a vector or a number is
    one unit. Its gradient is multiplied by clipping max(|W|, eps) / |G| where that is below 1.
    Brock, De, Smith, Simonyan: arXiv:2102.06171, equation 3, with the authors' defaults. They leave
    the last layer out: give it to an optimizer of its own.

    clipping: above 0.
    eps: above 0, norms of weights below it count as it.

    ValueError for others.
    """

    clipping: float = 0.01
    eps: float = 1e-3

    def __post_init__(self) -> None:
        check_limit("clipping", self.clipping)
        check_limit("eps", self.eps)


Clip: TypeAlias = ClipNorm | ClipValue | AGC


def check_limit(name: str, limit: float) -> None:
    """Raise ValueError for a limit that is not finite and positive, TypeError for no number."""
    if check(name, limit) <= 0:
        raise ValueError(f"{name} must be finite and positive, not {limit}")
