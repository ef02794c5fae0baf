"""`Team`: a run's operations over the processes that train together; `Alone` is one process.

A local decision (the time, a signal, a file's contents) is made once for all of them here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from rumus.tensor import Tensor
from rumus.train.base.ranks import Ranks
from rumus.train.capture.captured_steps import LossFunction
from rumus.train.loop.accumulation import accumulated_step
from rumus.train.loop.validation import Measurement, Validate, measure
from rumus.train.loop.weighing import MeanLoss, Weighing

if TYPE_CHECKING:
    from rumus.train.loop.run import Run
    from rumus.train.loop.trainer import Trainer

T = TypeVar("T")
# The batches of a step with their weights, requested one by one.
Window: TypeAlias = Iterable[tuple[tuple[Any, ...], float]]


class Team(Protocol):
    """A run's interface to the ranks.

    Every rank calls each method, at the same places of its program.

    size: the number of ranks. speaks: whether this one writes files and shows progress.
    """

    size: int
    speaks: bool

    def begin(self, run: Run) -> None:
        """Called before a run looks for a checkpoint; raises if the run differs between ranks."""
        ...

    def started(self) -> None:
        """Called when the run has its state, new or from a checkpoint, and starts to train."""
        ...

    def step(self, loss_fn: LossFunction, window: Window) -> Tensor:
        """Run one step over the batches of a window; return the loss."""
        ...

    def clock(self) -> float:
        """Return the seconds, the same on every rank, since they decide what is due."""
        ...

    def once(self, what: str, act: Callable[[], T]) -> T:
        """Run `act` on the rank that speaks; return its result, or raise its error, on every rank.

        what: the place in the program, for messages.
        """
        ...

    def measure(self, validate: Validate, weight_of: Callable[..., float] | None) -> Measurement:
        """Return the results of a validation over all batches."""
        ...

    def end(self) -> None:
        """Called when the run ends normally."""
        ...

    def fail(self, error: BaseException) -> None:
        """Called when the run ends with an error here; reports it to the others."""
        ...


class TrainingRanks(Ranks, Protocol):
    """Ranks that a trainer can step with."""

    def team(self, trainer: Trainer[Any], *, zero: bool) -> Team:
        """Return the team for a trainer's runs. zero: each rank keeps a part of the state."""
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
        return self.trainer.stepper.step(
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
        return measure(validate, self.trainer.backend, weight_of, self.trainer.numbers)

    def end(self) -> None:
        """There is nobody to tell."""

    def fail(self, error: BaseException) -> None:
        """There is nobody to tell."""
