"""Values for an optimizer's `clip=`: how its update limits the gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from rumus.optim.options.hyperparameter import check
from rumus.tensor.expression.arguments import checked_fields
from rumus.tensor.expression.choice import check_choice
from rumus.tensor.expression.decided import fixed
from rumus.tensor.expression.whole_number import whole_number


@checked_fields
@fixed
@dataclass(frozen=True, slots=True)
class ClipNorm:
    """Scale the gradients so that their 2-norm is at most `max_norm`.

    They are multiplied by max_norm / (norm + eps) if that is below 1, within the update: their
    memory is read once for the norm and once for the update, and never written.
    Pascanu, Mikolov, Bengio: arXiv:1211.5063, section 3.2.

    With nonfinite="propagate", a norm counts even if its square overflows; a GPU then reads the
    gradients once more. An infinite norm makes the gradients 0, as in PyTorch; a NaN norm limits
    nothing, and shows only in `grad_norm`.

    max_norm: above 0; infinity only measures.
    per: limit the norm of all gradients together ("all"), of each group ("group"), or of each
        parameter ("tensor").
    eps: at least 0.

    Raises ValueError for a value out of range.

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
        check_choice("per", self.per, ("all", "group", "tensor"))


@checked_fields
@fixed
@dataclass(frozen=True, slots=True)
class ClipValue:
    """Limit each element of the gradients to [-max_value, max_value]; NaN stays NaN.

    max_value: the limit, finite and positive.

    Raises ValueError for another limit.
    """

    max_value: float

    def __post_init__(self) -> None:
        check_limit("max_value", self.max_value)


@checked_fields
@fixed
@dataclass(frozen=True, slots=True)
class AGC:
    """Adaptive gradient clipping: limit each unit's gradient by the size of its weights.

    A unit is selected by one index of the first axis, such as a matrix's row; a vector or a number
    is one unit. Its gradient is multiplied by clipping max(|W|, eps) / |G| if that is below 1.
    Brock, De, Smith, Simonyan: arXiv:2102.06171, equation 3, with the authors' defaults. They
    exclude the last layer: give it to a separate optimizer.

    clipping: above 0.
    eps: above 0; smaller norms of weights count as eps.

    Raises ValueError for a value out of range.
    """

    clipping: float = 0.01
    eps: float = 1e-3

    def __post_init__(self) -> None:
        check_limit("clipping", self.clipping)
        check_limit("eps", self.eps)


@checked_fields
@fixed
@dataclass(frozen=True, slots=True)
class ZClip:
    """Clip the norm of all gradients if it is far above those of previous steps.

    With the mean and the deviation of the norm so far, z = (norm - mean) / (deviation + eps). If z
    exceeds `z_thresh`, the norm becomes mean + z_thresh^2 deviation / z: the farther out, the
    smaller. Then mean = alpha mean + (1 - alpha) norm, and the variance likewise, with the clipped
    norm. The first `warmup_steps` steps clip nothing and initialize the averages. Kumar, Owen,
    Chowdhury, Guera: arXiv:2504.02507, algorithm 1; the defaults are those of the authors' code.

    The averages are part of the optimizer's state: saved, loaded, and unchanged by a skipped step.
    They stay on a GPU, and nothing is read.

    alpha: the decay of the averages, in [0, 1).
    z_thresh: the threshold in deviations, above 0.
    max_norm: above 0, a limit of the norm at every step, even in the warmup; infinity for none. The
        averages use the norms before this limit.
    eps: at least 0, added to the deviation and to the norm that gradients are divided by.
    warmup_steps: at least 2.

    Raises ValueError for a value out of range.

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


@checked_fields
@fixed
@dataclass(frozen=True, slots=True)
class AdaGC:
    """Clip each parameter's gradient if its norm is far above those of previous steps.

    The gradient g of a parameter is multiplied by h = min(1, lambda_rel gamma / |g|), and gamma,
    the average of its norms, becomes beta gamma + (1 - beta) h |g|. In the first `warmup_steps` - 1
    steps h is min(1, lambda_abs / the norm of all gradients), and gamma becomes the smallest of
    h |g| so far. Wang et al.: arXiv:2502.11034, algorithm 1, and its defaults.

    Unlike there, a norm of 0 is not a limit: gamma begins at the first norm above 0. Otherwise a
    parameter without a gradient at first, such as the input half of an adapter, would never get
    one.

    gamma is part of the optimizer's state: saved, loaded, and unchanged by a skipped step. It stays
    on a GPU, and nothing is read.

    lambda_rel: the limit of a norm relative to its average, above 0.
    lambda_abs: above 0, the limit of the norm of all gradients in the warmup.
    beta: the decay of the average, in [0, 1).
    warmup_steps: at least 1.

    Raises ValueError for a value out of range.

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
    """Raise ValueError for a number outside [0, 1), TypeError for anything else."""
    if not 0 <= check(name, share) < 1:
        raise ValueError(f"{name} must be in [0, 1), not {share}")


def check_steps(steps: int, least: int) -> None:
    """Raise ValueError for fewer warmup steps than `least`, TypeError unless it is an integer."""
    if not least <= whole_number("warmup_steps", steps) < 2**24:
        raise ValueError(f"warmup_steps must be at least {least}, not {steps}")


def check_limit(name: str, limit: float) -> None:
    """Raise ValueError unless a limit is finite and positive, TypeError if it is not a number."""
    if check(name, limit) <= 0:
        raise ValueError(f"{name} must be finite and positive, not {limit}")
