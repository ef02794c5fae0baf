"""`FollowedOptimizer`: an optimizer that learns the outcome of its steps later."""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from rumus.optim.engine.loss_scale import Scaling
from rumus.optim.engine.optimizer import DECIDED, Optimizer
from rumus.optim.engine.segments import Segment
from rumus.optim.options.group import Claimable, M_co
from rumus.tensor import Backend, NonFiniteGradientError, OwnershipError
from rumus.tensor.expression.choice import check_choice
from rumus.tensor.expression.decided import decided
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.uninterrupted import Uninterrupted
from rumus.tensor.memory.updater import NonFinite, Outcome, Updater


class FollowedOptimizer(Optimizer[M_co]):
    """An optimizer that counts steps, which an updater applies or refuses.

    parameters: see `Optimizer`. nonfinite: how non-finite gradients are handled; see
        `FusedOptimizer`. ValueError for another word.
    """

    def __init__(self, parameters: Claimable[M_co], nonfinite: NonFinite) -> None:
        self._begin(nonfinite)
        super().__init__(parameters)

    def _begin(self, nonfinite: NonFinite) -> None:
        """Start without any steps."""
        require_nonfinite(nonfinite)
        self.nonfinite = nonfinite
        self.segments: list[Segment] = []
        self.scaling: Scaling | None = None
        self.norm_is_taken = False  # whether a wrapper computes the norm of all gradients
        self._steps = self._skipped = 0
        self._blamed: tuple[str, ...] = ()
        self._updater: Updater | None = None
        self._pending: deque[Outcome] = deque()
        self._learning = threading.Lock()  # a thread that reads from a GPU also learns of steps
        self._within: FollowedOptimizer[Any] | None = None  # the optimizer that it is part of

    def _check_assigned(self, name: str, value: Any) -> None:
        if name != "nonfinite":
            raise decided(self, name, DECIDED)
        if self._updater is not None:  # and that has read it
            raise AttributeError(
                f"{type(self).__name__}.nonfinite is decided at the first step: call "
                "answer_nonfinite(...)",
                name=name,
                obj=self,
            )
        require_nonfinite(value)

    @property
    def steps(self) -> int:
        """The number of applied steps."""
        self.poll(wait=True)
        return self._steps

    @steps.setter
    def steps(self, value: int) -> None:
        self._steps = value

    @property
    def decision(self) -> tuple[Backend, Array] | None:
        """The device decision about steps, if training continues after a refused one."""
        updater = self._updater
        if updater is None or updater.applied is None:
            return None
        if self.nonfinite != "skip" and self.scaling is None:
            return None
        return self.segments[0].arena.backend, updater.applied

    @property
    def steps_so_far(self) -> int:
        """The number of applied steps, assuming that unreported ones are applied; does not wait."""
        return self._steps + len(self._pending)

    @property
    def skipped(self) -> int:
        """The number of steps skipped because of a non-finite gradient."""
        self.poll(wait=True)
        return self._skipped

    @skipped.setter
    def skipped(self, value: int) -> None:
        self._skipped = value

    @property
    def blamed(self) -> tuple[str, ...]:
        """The parameters whose gradients caused the last skipped step."""
        self.poll(wait=True)
        return self._blamed

    @blamed.setter
    def blamed(self, value: tuple[str, ...]) -> None:
        self._blamed = value

    def answer_nonfinite(self, nonfinite: NonFinite) -> None:
        """Change the handling of non-finite gradients; waits for the outcome of earlier steps.

        nonfinite: see `FusedOptimizer`. ValueError for another word, and the errors of `poll`.
        """
        require_nonfinite(nonfinite)
        self._settle()
        self.nonfinite = nonfinite

    def poll(self, wait: bool = False) -> None:
        """Learn the outcome of earlier steps; with `wait`, of all of them.

        NonFiniteGradientError, with the names, if one was refused and `nonfinite` is "raise".
        """
        if self._within is not None:
            self._within.poll(wait)
        elif self._pending and self._updater is not None:
            self._updater.poll(wait)
            if self._is_told():
                with Uninterrupted():
                    self._learn()

    def _applied_before(self, segment: Segment, matters: Callable[[int], bool]) -> int:
        """How many steps a segment will have had before the next one.

        A device that skips steps on its own may be at any of several counts. If one of those
        `matters`, this waits for the device.
        """
        whole = self._within or self
        updater = whole._updater
        if updater is None:
            return segment.steps
        number = whole.segments.index(segment)
        may_be = range(updater.counts[number], updater.issued[number] + 1)
        leaves_out = whole.nonfinite == "skip" or whole.scaling is not None
        if leaves_out and len(may_be) > 1 and any(map(matters, may_be)):
            whole.poll(wait=True)
        return updater.issued[number]

    def _hear_from(self, updater: Updater) -> None:
        """Step with `updater` from now on, and count steps when it reports their outcome."""
        self._updater = updater
        own = weakref.ref(self)  # the updater must not keep its optimizer alive

        def heard() -> None:
            if (optimizer := own()) is not None:
                optimizer._learn()

        updater.heard = heard

    def _count(self, outcome: Outcome) -> None:
        """Count a committed step as soon as its outcome is known."""
        self._pending.append(outcome)
        vars(self)["outcome"] = outcome  # past `__setattr__`, which looks for misspelled names
        self._learn()

    def _set_counts(self, steps: int, skipped: int) -> None:
        """Set the number of steps."""
        self._steps, self._skipped = steps, skipped

    def _is_told(self) -> bool:
        """Whether the outcome of the oldest uncounted step is known."""
        try:
            return self._pending[0].applied is not None
        except IndexError:  # there is none, perhaps because another thread has counted it
            return False

    def _learn(self) -> None:
        """Count the steps with known outcomes; raise the first error."""
        if not self._is_told():
            return
        error = self._learned()
        if error is None:
            return
        if self.scaling is not None and self._updater is not None:
            self._updater.poll(wait=True)  # the device has continued: one error for all
            self._learned()
        raise error

    def _learned(self) -> NonFiniteGradientError | None:
        pending = self._pending
        error: NonFiniteGradientError | None = None
        with self._learning:
            while pending and pending[0].applied is not None:
                outcome = pending.popleft()
                if outcome.applied:
                    vars(self)["_steps"] += 1
                elif self._raises:
                    error = error or self._error(outcome)
                if not outcome.applied and (self.nonfinite != "raise" or self.scaling is not None):
                    self._skipped += 1
                    self._blamed = self._names(outcome)
                if self.scaling is not None:
                    self.scaling.hear(outcome.applied is True)
                elif error is not None:
                    pending.clear()  # later steps were not applied either
        return error

    @property
    def _raises(self) -> bool:
        """Whether refusing a step is now an error: not if a smaller loss scale may help."""
        return self.nonfinite == "raise" and (self.scaling is None or self.scaling.is_least)

    def _settle(self) -> None:
        """Wait for all outcomes, and drop the updater: the next step makes a new one."""
        if self._within is not None:
            self._within._settle()
            return
        try:
            self.poll(wait=True)
        finally:
            with Uninterrupted():
                updater, self._updater = self._updater, None
                if updater is not None:
                    for segment, count in zip(self.segments, updater.counts, strict=True):
                        segment.steps = count
                    if self.scaling is not None:
                        self.scaling.settled()

    def _check_alone(self, what: str) -> None:
        """Raise OwnershipError if it is part of another optimizer, which must do this for all."""
        if self._within is not None:
            raise OwnershipError(
                f"{self} is part of {self._within}, which steps, moves and owns for all its parts: "
                f"call {what} there instead"
            )

    def _names(self, outcome: Outcome) -> tuple[str, ...]:
        """The parameters whose gradients caused a refused step."""
        bad = {self.segments[n].arena.parameters[at].id for n, at in outcome.blamed}
        return tuple(name for name, p in self.named_parameters() if p.id in bad)

    def _error(self, outcome: Outcome) -> NonFiniteGradientError:
        names = ", ".join(map(repr, self._names(outcome)))
        if self.scaling is not None:
            return NonFiniteGradientError(
                f"the gradients of {names or 'a parameter'} {self._fault()} although the loss "
                f"scale is {1 / self.scaling.inverse}, its minimum; that step was skipped, and "
                'nonfinite="skip" would continue'
            )
        return NonFiniteGradientError(
            f"the gradients of {names} {self._fault()}, "
            'and nothing was updated from that step on; nonfinite="skip" would skip such a batch'
        )

    def _fault(self) -> str:
        """What is wrong with the gradients of a refused step."""
        if self.norm_is_taken:
            return "hold NaN, infinity or numbers whose squares, for the norm, are out of range"
        limit = min((segment.too_large for segment in self.segments), default=math.inf)
        if limit < math.inf:
            return f"hold NaN, infinity or a number of {limit:.3g} or more, which cannot be squared"
        if any(segment.squares is not None for segment in self.segments):
            return "hold NaN, infinity or numbers whose squares, for the norm, overflow float32"
        return "hold NaN or infinity"


def require_nonfinite(nonfinite: Any) -> None:
    """Raise ValueError for an invalid value of nonfinite, TypeError if it is no text."""
    check_choice("nonfinite", nonfinite, ("raise", "skip", "propagate"))
