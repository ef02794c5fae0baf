"""What an optimizer's `clip=` may be: how its update limits the gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from rumus.optim.options.hyperparameter import check
from rumus.tensor.expression.whole_number import whole_number


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
    the last layer out: give it to its own optimizer.

    clipping: above 0.
    eps: above 0, norms of weights below it count as it.

    ValueError for others.
    """

    clipping: float = 0.01
    eps: float = 1e-3

    def __post_init__(self) -> None:
        check_limit("clipping", self.clipping)
        check_limit("eps", self.eps)


@dataclass(frozen=True, slots=True)
class ZClip:
    """Clip the norm of all gradients where it is far above what it was in the steps before.

    With the mean and the deviation of the norm so far, z = (norm - mean) / (deviation + eps). Where
    z is above `z_thresh`, the norm becomes mean + z_thresh^2 deviation / z: the farther out, the
    less is left. Then mean = alpha mean + (1 - alpha) norm, and the variance likewise, by the norm
    as it was clipped so. The first `warmup_steps` steps clip nothing, and the averages begin as
    theirs. Kumar, Owen, Chowdhury, Guera: arXiv:2504.02507, algorithm 1; the defaults are those of
    the authors' code.

    The averages are part of the optimizer's state: saved, loaded, and left alone by a step that is
    skipped. They stay on a GPU, and nothing is read.

    alpha: how slowly the averages forget, in [0, 1).
    z_thresh: above 0, from how many deviations on a norm is clipped.
    max_norm: above 0, a limit of the norm at every step, also in the warmup; infinity for none. The
        averages see norms before it.
    eps: at least 0, added to the deviation and, where gradients are divided by it, to the norm.
    warmup_steps: at least 2.

    ValueError for a value out of range.

    >>> from rumus.optim import SGD, ZClip
    >>> from rumus.tensor import Parameter
    >>> w = Parameter([0.0])
    >>> optimizer = SGD([w], 1.0, clip=ZClip(warmup_steps=2, max_norm=float("inf")))
    >>> for slope in (1.0, 3.0, 100.0):  # the mean of the first two is 2, their deviation 1
    ...     optimizer.step((w * slope).sum().backward())
    >>> round(w.item(), 3)  # less 1, 3, and 2 + 2.5^2 / 98
    -6.064
    """

    alpha: float = 0.97
    z_thresh: float = 2.5
    max_norm: float = 1.0
    eps: float = 1e-6
    warmup_steps: int = 25

    def __post_init__(self) -> None:
        check_share("alpha", self.alpha)
        check_limit("z_thresh", self.z_thresh)
        if self.max_norm != math.inf:
            check_limit("max_norm", self.max_norm)
        check("eps", self.eps)
        check_steps(self.warmup_steps, 2)


@dataclass(frozen=True, slots=True)
class AdaGC:
    """Clip each parameter's gradient where its norm is above what it was in the steps before.

    The gradient g of a parameter is multiplied by h = min(1, lambda_rel gamma / |g|), and gamma,
    the average of its norms, becomes beta gamma + (1 - beta) h |g|. In the first `warmup_steps` - 1
    steps h is min(1, lambda_abs / the norm of all gradients), and gamma becomes the smallest of
    h |g| so far. Wang et al.: arXiv:2502.11034, algorithm 1, and its defaults.

    Other than there, a norm of 0 is no limit: gamma begins at the first norm above it. Else what
    has no gradient at first, as the input's half of an adapter, would never have one.

    gamma is part of the optimizer's state: saved, loaded, and left alone by a step that is skipped.
    It stays on a GPU, and nothing is read.

    lambda_rel: above 0, how much larger than its average a norm may be.
    lambda_abs: above 0, the limit of the norm of all gradients in the warmup.
    beta: how slowly the average forgets, in [0, 1).
    warmup_steps: at least 1.

    ValueError for a value out of range.

    >>> from rumus.optim import SGD, AdaGC
    >>> from rumus.tensor import Parameter
    >>> w = Parameter([0.0])
    >>> optimizer = SGD([w], 1.0, clip=AdaGC(warmup_steps=1))
    >>> for slope in (2.0, 100.0):
    ...     optimizer.step((w * slope).sum().backward())
    >>> round(w.item(), 3)  # less 2 and 1.05 * 2
    -4.1
    """

    lambda_rel: float = 1.05
    lambda_abs: float = 1.0
    beta: float = 0.98
    warmup_steps: int = 100

    def __post_init__(self) -> None:
        check_limit("lambda_rel", self.lambda_rel)
        check_limit("lambda_abs", self.lambda_abs)
        check_share("beta", self.beta)
        check_steps(self.warmup_steps, 1)


Clip: TypeAlias = ClipNorm | ClipValue | AGC | ZClip | AdaGC


def check_share(name: str, share: float) -> None:
    """Raise ValueError for what is not in [0, 1), TypeError for no number."""
    if not 0 <= check(name, share) < 1:
        raise ValueError(f"{name} must be in [0, 1), not {share}")


def check_steps(steps: int, least: int) -> None:
    """Raise ValueError for fewer steps of a warmup than `least`, TypeError for no whole number."""
    if not least <= whole_number("warmup_steps", steps) < 2**24:
        raise ValueError(f"warmup_steps must be at least {least}, not {steps}")


def check_limit(name: str, limit: float) -> None:
    """Raise ValueError for a limit that is not finite and positive, TypeError for no number."""
    if check(name, limit) <= 0:
        raise ValueError(f"{name} must be finite and positive, not {limit}")
