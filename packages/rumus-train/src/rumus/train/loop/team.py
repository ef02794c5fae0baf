"""`Team`: what a run asks of the processes that train together; `Alone` is one process.

What a process decides by itself (the time, a signal, what a file says) it decides for all there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from rumus.tensor import Tensor
from rumus.train.base.ranks import Ranks
from rumus.train.loop.accumulation import accumulated_step
from rumus.train.loop.capture import LossFunction
from rumus.train.loop.validation import Measurement, Validate, measure
from rumus.train.loop.weighing import MeanLoss, Weighing

if TYPE_CHECKING:
    from rumus.train.loop.run import Run
    from rumus.train.loop.trainer import Trainer

T = TypeVar("T")
# The batches of a step, each with what it counts: asked for one by one.
Window: TypeAlias = Iterable[tuple[tuple[Any, ...], float]]


class Team(Protocol):
    """A run's side of the ranks. Every rank calls each method, at the same places of its program.

    size: how many ranks there are. speaks: whether this one writes files and shows progress.
    """

    size: int
    speaks: bool

    def begin(self, run: Run) -> None:
        """Hear of a run before it looks for a checkpoint; refuse one that differs between ranks."""
        ...

    def started(self) -> None:
        """Hear that the run has its state, from a checkpoint or new, and goes on to train."""
        ...

    def step(self, loss_fn: LossFunction, window: Window) -> Tensor:
        """Do one step over the batches of a window; return the loss."""
        ...

    def clock(self) -> float:
        """Return seconds: the same on every rank, as what is due is decided by them."""
        ...

    def once(self, what: str, act: Callable[[], T]) -> T:
        """Return what `act` returns to the rank that speaks, or raise there what it raises.

        what: names the place in the program, for messages.
        """
        ...

    def measure(self, validate: Validate, weight_of: Callable[..., float] | None) -> Measurement:
        """Return what a validation finds, of all batches together."""
        ...

    def end(self) -> None:
        """Hear that the run is over in good order."""
        ...

    def fail(self, error: BaseException) -> None:
        """Hear that the run ends here with an error, and tell it to the others."""
        ...


class TrainingRanks(Ranks, Protocol):
    """Ranks that a trainer can step with."""

    def team(self, trainer: Trainer[Any], *, zero: bool) -> Team:
        """Return what the runs of a trainer ask. zero: each rank keeps a part of the state."""
        ...


class Alone:
    """The team of one process."""

    size = 1
    speaks = True

    def __init__(self, trainer: Trainer[Any]) -> None:
        self.trainer = trainer

    def begin(self, run: Run) -> None:
        """Take note of how the run steps."""
        self._accumulates = run.accumulate > 1
        self._has_weights = run.batches.weight_of is not None
        self._mean_loss = MeanLoss()

    def started(self) -> None:
        """Nothing is to be agreed upon."""

    def step(self, loss_fn: LossFunction, window: Window) -> Tensor:
        """Do a step of the trainer."""
        if self._accumulates:
            weighing = None if self._has_weights else Weighing()
            return accumulated_step(self.trainer, loss_fn, window, weighing)
        ((batch, weight),) = window
        if self._has_weights:
            return self.trainer.train_step(loss_fn, *batch, weight=weight)
        weigh = self._mean_loss.weigh
        return self.trainer.weighed_step(
            loss_fn, batch, lambda loss, means: weigh(loss, means, weight)
        )

    def clock(self) -> float:
        """Return this process's time."""
        return perf_counter()

    def once(self, what: str, act: Callable[[], T]) -> T:
        """Do it."""
        return act()

    def measure(self, validate: Validate, weight_of: Callable[..., float] | None) -> Measurement:
        """Measure all of it here."""
        return measure(validate, self.trainer.backend, weight_of)

    def end(self) -> None:
        """There is nobody to tell."""

    def fail(self, error: BaseException) -> None:
        """There is nobody to tell."""
