"""`StepClock`: measures the parts of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import perf_counter
from typing import Any, Final, Literal, TypeAlias

from rumus.train.base.spans import Spans

Part: TypeAlias = Literal["data", "passes", "update"]


class TimedFunction:
    """A function that times its calls. It represents `function` in captured steps."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._calls, self._seconds = 0, 0.0

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Call it."""
        start = perf_counter()
        try:
            return self.function(*args, **named)
        finally:
            self._calls += 1
            self._seconds += perf_counter() - start

    def taken(self) -> float | None:
        """Return the seconds of the calls since the last time, None if there were none."""
        seconds = self._seconds if self._calls else None
        self._calls, self._seconds = 0, 0.0
        return seconds


class StepClock:
    """The spans of the running step.

    loss_fn: the loss function; call `self.loss_fn` instead, to separate forward from backward.
        passes_in_update: whether the optimizer computes losses during its update.
    """

    def __init__(self, loss_fn: Callable[..., Any], passes_in_update: bool) -> None:
        self.loss_fn = TimedFunction(loss_fn)
        self.spans = Spans()
        self._passes_in_update = passes_in_update

    def start(self) -> None:
        """Start a step."""
        self.spans = Spans()

    @contextmanager
    def measuring(self, part: Part) -> Iterator[None]:
        """Count the time of the block, however it ends, as part of the step."""
        start = perf_counter()
        try:
            yield
        finally:
            self._count(part, perf_counter() - start)

    def _count(self, part: Part, seconds: float) -> None:
        if part == "data":
            self.spans.data += seconds
        elif part == "update":
            self.spans.optimizer += seconds
        else:
            self._count_passes(seconds)

    def _count_passes(self, seconds: float) -> None:
        """Separate forward and backward; a replayed step has not called the loss function."""
        forward = self.loss_fn.taken()
        if forward is None:
            self.spans.replayed += seconds
        else:
            self.spans.forward += forward
            self.spans.backward += seconds - forward
        if self._passes_in_update:
            self.spans.optimizer -= seconds


_UNMEASURED: Final = nullcontext()


def measured(clock: StepClock | None, part: Part) -> AbstractContextManager[None]:
    """Measure a block as a part of the step, if there is a clock."""
    return _UNMEASURED if clock is None else clock.measuring(part)
