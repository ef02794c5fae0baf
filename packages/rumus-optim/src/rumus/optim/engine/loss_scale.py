"""`LossScale`: enlarges gradients that are too small for float16.

Micikevicius et al.: Mixed precision training, arXiv:1710.03740, section 3.2. All scales are powers
of two: multiplying and dividing by one changes no bits unless a number overflows or underflows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rumus.optim.options.other_names import LOSS_SCALE
from rumus.tensor import Backend, Expr, Kernel, Tensor, float32, maximum, minimum, where
from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.decided import fixed
from rumus.tensor.expression.real_number import real_number
from rumus.tensor.expression.state_names import check_names
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.recording import is_capturing

LARGEST: Final = 2.0**60


@LOSS_SCALE.of_fields
@fixed
@dataclass(frozen=True, slots=True)
class LossScale:
    """How the scale of a loss is chosen and adapted.

    initial: the first scale. A step with non-finite gradients is skipped and multiplies the scale
        by `backoff`; `every` consecutive applied steps multiply it by `growth`. It stays within
        [minimum, maximum]; a step refused at the minimum is not the scale's fault. All but `every`
        are powers of two, from 2^-60 to 2^60.
    growth: the factor after `every` consecutive applied steps.
    backoff: the factor after a refused step.
    every: the number of consecutive applied steps, at least 1.
    minimum: the smallest scale; refusing a step there is an error.
    maximum: the largest scale.

    ValueError otherwise.

    >>> from rumus.optim import LossScale
    >>> LossScale(initial=1024.0, every=100)
    LossScale(initial=1024.0, growth=2.0, backoff=0.5, every=100, minimum=1.0, maximum=16777216.0)
    """

    initial: float = 2.0**16
    growth: float = 2.0
    backoff: float = 0.5
    every: int = 2000
    minimum: float = 1.0
    maximum: float = 2.0**24

    def __post_init__(self) -> None:
        for name in ("initial", "growth", "backoff", "minimum", "maximum"):
            value = getattr(self, name)
            if not _is_power_of_two(value):
                raise ValueError(
                    f"{name} of a loss scale must be a power of two from 2**-60 to 2**60, so that "
                    f"scaling does not round, not {value!r}"
                )
        if not (self.growth > 1 > self.backoff):
            raise ValueError(
                "the growth of a loss scale must be above 1 and its backoff below 1, not "
                f"{self.growth} and {self.backoff}"
            )
        every = real_number("LossScale: every", self.every)
        if not math.isfinite(every) or every != int(every) or not 1 <= self.every < 2**24:
            raise ValueError(f"every must be a number of steps in [1, 2**24), not {self.every}")
        if not self.minimum <= self.initial <= self.maximum:
            raise ValueError(
                f"the initial loss scale {self.initial} must lie within "
                f"[{self.minimum}, {self.maximum}]"
            )


def _is_power_of_two(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return 1 / LARGEST <= value <= LARGEST and math.frexp(value)[0] == 0.5


def _follow_kernel() -> Kernel:
    """The next scale, its inverse and the number of consecutive good steps, after a step."""
    scale, inverse, good = map(Expr.array, ("scale", "inverse", "good"))
    is_applied, counted = Expr.array("applied") > 0.5, good + 1
    is_time = counted >= Expr.scalar("every")
    grown = where(is_time, minimum(scale * Expr.scalar("growth"), Expr.scalar("maximum")), scale)
    shrunk = maximum(scale * Expr.scalar("backoff"), Expr.scalar("minimum"))
    # Only products, which are exact: a device may round a quotient differently.
    less = maximum(inverse * (1 / Expr.scalar("growth")), 1 / Expr.scalar("maximum"))
    more = minimum(inverse * (1 / Expr.scalar("backoff")), 1 / Expr.scalar("minimum"))
    outputs = {
        "scale": where(is_applied, grown, shrunk),
        "inverse": where(is_applied, where(is_time, less, inverse), more),
        "good": where(is_applied, where(is_time, 0.0, counted), 0.0),
        "last": inverse,
    }
    return Kernel("follow_loss_scale", outputs, ("scale", "inverse", "good", "last", "applied"))


_FOLLOW: Final = _follow_kernel()
_SQUARES, _INVERSE = Expr.array("squares"), Expr.array("inverse")
_UNSCALE_SQUARES: Final = Kernel(
    "unscale_squares", {"squares": _SQUARES * _INVERSE * _INVERSE}, ("squares", "inverse")
)


@dataclass(slots=True, eq=False)
class _Place:
    """The numbers on one backend: the scale, its inverse, the good steps, the previous inverse."""

    backend: Backend
    scale: Array
    inverse: Array
    good: Array
    last: Array
    applied: Array = None  # the decision that `follow` reads
    follow: Callable[[Sequence[float]], None] | None = None

    @property
    def arrays(self) -> tuple[Array, Array, Array, Array]:
        """What `follow` updates."""
        return self.scale, self.inverse, self.good, self.last


class Scaling:
    """The current loss scale of an optimizer; `FusedOptimizer.scale_losses` makes it.

    The host knows it as of the last reported step. If a device decides about steps, it keeps its
    own scale, by the same rules and without a read.

    policy: how the scale adapts.
    """

    def __init__(self, policy: LossScale) -> None:
        self._places: dict[int, _Place] = {}
        self._is_by_device = False
        self.is_used = False
        self.restart(policy)

    def restart(self, policy: LossScale) -> None:
        """Restart with another policy.

        policy: used from now on.
        """
        self.policy = policy
        self._scalars = _FOLLOW.bind(
            {name: getattr(policy, name) for name in
             ("growth", "backoff", "every", "minimum", "maximum")}
        )  # fmt: skip
        self._set(policy.initial, 0)

    def _set(self, scale: float, good: int) -> None:
        self._scale, self.good = scale, good
        self._last = 1 / scale
        for place in self._places.values():
            self._write(place)

    def _write(self, place: _Place) -> None:
        values = self._scale, 1 / self._scale, float(self.good), self._last
        for value, array in zip(values, place.arrays, strict=True):
            place.backend.fill(value, array)

    @property
    def is_unknown(self) -> bool:
        """Whether no code multiplies losses by it: it is not 1 or fixed, and none has asked."""
        return not self.is_used and self._scale != 1 and self.policy.minimum < self.policy.maximum

    def is_of_some(self, scales: Sequence[Array | None]) -> bool:
        """Whether some of the scales of losses are this one, and others not.

        scales: those of a `GradientStore`.
        """
        own = [place.scale for place in self._places.values()]
        found = [any(scale is each for each in own) for scale in scales]
        return any(found) and not all(found)

    @property
    def scale(self) -> float:
        """The scale that the host knows."""
        self.is_used = True
        return self._scale

    @property
    def inverse(self) -> float:
        """The factor of gradients in the next step, as the host knows it."""
        return 1 / self._scale

    def _on(self, backend: Backend) -> _Place:
        place = self._places.get(id(backend))
        if place is None:
            place = _Place(backend, *(backend.allocate((), float32) for _ in range(4)))
            self._places[id(backend)] = place
            self._write(place)
        return place

    def on(self, backend: Backend) -> Tensor:
        """Return the scale as a scalar tensor whose memory is always up to date.

        backend: the backend of the loss.
        """
        self.is_used = True
        return Tensor(self._on(backend).scale, backend)

    def inverse_on(self, backend: Backend) -> Array:
        """Return the factor of gradients in the next step.

        backend: the backend of the gradients.
        """
        return self._on(backend).inverse

    def unscaled(self, norm: Tensor) -> Tensor:
        """Convert the norm of the last step's scaled gradients to that of the gradients.

        norm: of scaled gradients, a tensor without axes.
        """
        return norm * Tensor(self._on(norm.backend).last, norm.backend)

    def unscale_squares(self, backend: Backend, squares: Array) -> None:
        """Convert sums of squares of scaled gradients to those of the gradients, in place.

        backend: the backend of `squares`.
        squares: sums of squares, changed in place.
        """
        arrays = squares, self.inverse_on(backend)
        backend.elementwise(_UNSCALE_SQUARES, arrays, (), (squares,))

    # The outcome of steps

    @property
    def is_least(self) -> bool:
        """Whether a smaller scale cannot help a refused step."""
        return self._scale <= self.policy.minimum

    def decided(self, backend: Backend, applied: Array) -> None:
        """Make a device adapt its scale to its decision about the last step.

        backend: of the device that decides.
        applied: one number on the device, 1 if the step was applied.
        """
        place = self._on(backend)
        self._is_by_device = True
        if place.follow is None or place.applied is not applied:
            assert is_capturing(backend)
            arrays = (*place.arrays, applied)
            place.follow = backend.prepare(_FOLLOW, arrays, place.arrays)
            place.applied = applied
        place.follow(self._scalars)

    def hear(self, applied: bool) -> None:
        """Adapt the scale to a decision on the host.

        applied: whether the step was applied.
        """
        policy = self.policy
        self._last = 1 / self._scale
        self.good = self.good + 1 if applied else 0
        if not applied:
            self._scale = max(self._scale * policy.backoff, policy.minimum)
        elif self.good >= policy.every:
            self._scale, self.good = min(self._scale * policy.growth, policy.maximum), 0
        if not self._is_by_device:
            for place in self._places.values():
                self._write(place)

    def settled(self) -> None:
        """Note that the host knows the outcome of every step, so its numbers are current."""
        self._is_by_device = False
        for place in self._places.values():
            self._write(place)

    # Saving

    def state_dict(self) -> dict[str, Any]:
        """Return the scale and the consecutive good steps, as known to the host."""
        return {"scale": self._scale, "good": self.good}

    @checked_arguments
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load saved numbers. ValueError, with nothing changed, for invalid ones.

        state: what `state_dict()` returned.
        """
        check_names(self, state, ("scale", "good"))
        scale, good = state["scale"], state["good"]
        if not _is_power_of_two(scale):
            raise ValueError(f"the saved loss scale {scale!r} is not a power of two")
        if not isinstance(good, int) or isinstance(good, bool) or not 0 <= good < 2**24:
            raise ValueError(f"the saved number of good steps is {good!r}, which is not a count")
        assert isinstance(scale, (int, float))
        self._set(float(scale), good)
