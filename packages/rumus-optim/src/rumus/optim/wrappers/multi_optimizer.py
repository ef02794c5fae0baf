"""`MultiOptimizer`: several optimizers as one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from rumus.optim.engine.evaluated import EvaluatedOptimizer
from rumus.optim.engine.followed import FollowedOptimizer
from rumus.optim.engine.footprint import Memory
from rumus.optim.engine.loss_scale import Scaling
from rumus.optim.engine.optimizer import called_from
from rumus.optim.engine.segments import Segment
from rumus.optim.engine.stage import Stage
from rumus.optim.engine.stepped import SteppedOptimizer
from rumus.optim.fused.fused import FusedOptimizer
from rumus.optim.options.group import M_co
from rumus.optim.options.hyperparameter import Hyper
from rumus.tensor import Backend, NonFiniteGradientError, OwnershipError, ParamId
from rumus.tensor.expression.declared_type import is_ordered
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.uninterrupted import Uninterrupted


class MultiOptimizer(SteppedOptimizer[M_co]):
    """Steps several optimizers together: all of them or, with an error or a bad gradient, none.

    optimizers: two or more rule-based optimizers. Each keeps its parameters, hyperparameters and
        options: `set` them there, and clip there, by the norm of its gradients. From then on they
        step only together, with this object's `step`, `move` and `release`. The saved state has the
        form of a single optimizer's: every parameter by name, so names must differ.

    Raises TypeError for other optimizers, such as wrappers or those that need a closure;
    OwnershipError for one that was released or is part of another; ValueError for fewer than two,
    different `nonfinite`, or one that already has a loss scale or a divided state.

    >>> from rumus.optim import SGD, AdamW, MultiOptimizer
    >>> from rumus.tensor import Parameter
    >>> body, head = Parameter([1.0], name="body"), Parameter([1.0], name="head")
    >>> optimizer = MultiOptimizer([AdamW([body], 0.5, weight_decay=0.0), SGD([head], 0.25)])
    >>> optimizer.step((body * head).sum().backward())
    >>> body.tolist(), head.tolist(), optimizer.kind
    ([0.5], [0.75], 'AdamW+SGD')
    """

    def __init__(self, optimizers: Sequence[FusedOptimizer[M_co]]) -> None:
        given: Any = optimizers
        if not is_ordered(given):
            raise TypeError(
                f"MultiOptimizer takes a list of optimizers, not {type(given).__name__}: "
                "MultiOptimizer([first, second])"
            )
        self.optimizers = tuple(optimizers)
        _check(self.optimizers)
        for optimizer in self.optimizers:
            optimizer._settle()
        self._begin(self.optimizers[0].nonfinite)
        self.made_at = called_from()
        self.outcome = self.optimizers[0].outcome
        self.groups = tuple([group for each in self.optimizers for group in each.groups])
        self.kernel = self.optimizers[0].kernel
        self._steps = max(each._steps for each in self.optimizers)
        self._skipped = max(each._skipped for each in self.optimizers)
        with Uninterrupted():
            self._gather()
            for each in self.optimizers:
                each._within = self
            self._own()

    def _gather(self) -> None:
        """Step the current segments of the optimizers."""
        self.segments = [segment for each in self.optimizers for segment in each.segments]
        self._homes = [(each, n) for each in self.optimizers for n in range(len(each.segments))]

    @property
    def kind(self) -> str:
        """Its name in saved states: the kinds of its optimizers."""
        return "+".join(each.kind for each in self.optimizers)

    @property
    def stages(self) -> list[Stage]:  # type: ignore[override]
        """Everything its optimizers do besides their rules."""
        return [stage for each in self.optimizers for stage in each.stages]

    @property
    def hyper(self) -> Mapping[str, Hyper]:  # type: ignore[override]
        """The hyperparameters of its optimizers, prefixed with the optimizer's index; to read."""
        found: dict[str, Hyper] = {}
        for number, each in enumerate(self.optimizers):
            found |= {f"{number}.{name}": value for name, value in each.hyper.items()}
        return MappingProxyType(found)

    @property
    def packs(self) -> bool:
        """Whether large parameters have state in 8 bits."""
        return any(each.packs for each in self.optimizers)

    # The step

    def _prepare(self, gradients: Mapping[int, Array]) -> None:
        for each in self.optimizers:
            own = {self._homes[n][1]: g for n, g in gradients.items() if self._homes[n][0] is each}
            if own:
                each._prepare(own)

    def _scalars_at(self, number: int, steps: Iterable[int]) -> Iterator[tuple[float, ...]]:
        optimizer, own = self._homes[number]
        return optimizer._scalars_at(own, steps)

    def _follow(self, number: int) -> None:
        optimizer, own = self._homes[number]
        optimizer._follow(own)

    def _learned(self) -> NonFiniteGradientError | None:
        before = self._steps, self._skipped
        error = super()._learned()
        for each in self.optimizers:
            each._steps += self._steps - before[0]
            each._skipped += self._skipped - before[1]
            each._blamed, each.outcome = self._blamed, self.outcome
        return error

    def _set_counts(self, steps: int, skipped: int) -> None:
        super()._set_counts(steps, skipped)
        for each in self.optimizers:
            each._set_counts(steps, skipped)

    def _check_scalable(self) -> None:
        for each in self.optimizers:
            each._check_scalable()

    def _scale_by(self, scaling: Scaling) -> None:
        for each in self.optimizers:
            each._scale_by(scaling)
        self.scaling = scaling

    def answer_nonfinite(self, nonfinite: Any) -> None:
        """Set the handling of non-finite gradients in all of them, from the next step on.

        nonfinite: "raise", "skip" or "propagate", see `FusedOptimizer`.
        """
        super().answer_nonfinite(nonfinite)
        for each in self.optimizers:
            each.nonfinite = nonfinite

    # Memory

    def _laid_out(self, places: Mapping[ParamId, Backend]) -> list[Segment]:
        found = [each._laid_out(places) for each in self.optimizers]
        self._lengths = [len(segments) for segments in found]
        return [segment for segments in found for segment in segments]

    def _take(self, segments: list[Segment]) -> None:
        rest = list(segments)
        for each, length in zip(self.optimizers, self._lengths, strict=True):
            own, rest = rest[:length], rest[length:]
            each._take(own)
        self._gather()

    def _uneven(self, saved: Mapping[str, Any]) -> list[str]:
        return [line for each in self.optimizers for line in each._uneven(saved)]

    def release(self) -> None:
        """Release the parameters of all of them."""
        self._check_training("release()")
        try:
            self._settle()
        finally:
            with Uninterrupted():
                for each in self.optimizers:
                    each._within = None
                    each.release()
                self.segments, self.groups = [], ()

    def memory(self) -> Memory:
        """Return the total bytes of all of them."""
        first, *others = (each.memory() for each in self.optimizers)
        for other in others:
            first += other
        return first

    def describe(self) -> str:
        """Return the tables of its optimizers."""
        return "\n".join(each.describe() for each in self.optimizers)

    # Averages

    @property
    def has_average(self) -> bool:
        """Whether one of them keeps an average of its parameters."""
        return any(each.has_average for each in self.optimizers)

    @property
    def _evaluating(self) -> bool:  # type: ignore[override]
        return any(each._evaluating for each in self.optimizers)

    @property
    def _averaging(self) -> Sequence[EvaluatedOptimizer[M_co]]:
        return [each for each in self.optimizers if each.has_average]


def _check(optimizers: Sequence[FusedOptimizer[Any]]) -> None:
    given: Sequence[object] = optimizers
    for each in given:
        if not isinstance(each, FusedOptimizer):
            raise TypeError(
                f"MultiOptimizer takes rule-based optimizers such as AdamW and Muon, not {each}"
            )
    if len(optimizers) < 2:
        raise ValueError(f"MultiOptimizer takes two or more optimizers, not {len(optimizers)}")
    for each in optimizers:
        each.check_owning()
        within: FollowedOptimizer[Any] | None = each._within
        if within is not None:
            raise OwnershipError(f"{each} is already part of {within}")
        if each.scaling is not None:
            raise ValueError(f"{each} already has a loss scale: scale the MultiOptimizer instead")
        if any(segment.division is not None for segment in each.segments):
            raise ValueError(f"the state of {each} is divided: it cannot be stepped with others")
    if len(kinds := {each.nonfinite for each in optimizers}) > 1:
        raise ValueError(
            f"nonfinite: {', '.join(sorted(kinds))}: either all of them apply a step or none, so "
            "give them the same"
        )
    if len(set(map(id, optimizers))) < len(optimizers):
        raise OwnershipError(f"{optimizers[0]} is given twice")
