"""`ShardedTeam`: a trainer's runs over several ranks, or over several shards on one."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from time import perf_counter
from typing import Any, TypeVar

from rumus.distributed.alike import check_alike, give_parameters
from rumus.distributed.buffer_means import buffers_of
from rumus.distributed.errors import RankError
from rumus.distributed.link import Link
from rumus.distributed.rank_division import divided
from rumus.distributed.shard_streams import ShardStreams
from rumus.distributed.sharded_step import Portion, ShardedStep
from rumus.distributed.sharded_validation import joined, measured_parts
from rumus.optim import ClosureOptimizer
from rumus.tensor import Tensor
from rumus.train import Interrupted, Run, Trainer
from rumus.train.capture.captured_steps import LossFunction
from rumus.train.checkpoints.snapshot import generators_of
from rumus.train.loop.team import Alone, Team, Window
from rumus.train.loop.validation import Measurement, Validate

T = TypeVar("T")


class ShardedTeam(Team):
    """The ranks' side of a trainer's runs; see `rumus.train.loop.team.Team`."""

    def __init__(self, trainer: Trainer[Any], link: Link, *, zero: bool) -> None:
        if link.size > 1 and isinstance(trainer.optimizer, ClosureOptimizer):
            raise TypeError(
                f"{trainer.optimizer} evaluates the loss several times per step, and each would "
                "have to be summed over the ranks: it can train only on one"
            )
        self.trainer, self.link = trainer, link
        self.is_zero = zero
        self._zero = divided(trainer.optimizer, link) if zero and link.size > 1 else None
        self.size, self.speaks = link.size, link.rank == 0
        self._alone = Alone(trainer)
        self._time = perf_counter()
        self._steps = 0
        self._run: Run | None = None
        self._step: ShardedStep | None = None

    def begin(self, run: Run) -> None:
        """Raise for a run that differs between ranks."""
        loader = run.batches.loader
        if self.size > 1 and getattr(loader, "ranks", None) is None:
            raise TypeError(
                "training on several ranks needs a loader that distributes its batches to them: "
                "DataLoader(dataset, batch_size, ranks=ranks, shards=8)"
            )
        self._meet("the start of a training")
        check_alike(self.link, run)
        self._alone.begin(run)
        self._run, self._steps, self._step = run, 0, None
        shards = getattr(loader, "shards", 1)
        if shards > 1:
            streams = ShardStreams(generators_of(self.trainer.state), shards)
            buffers = buffers_of(self.trainer.state)
            weight_of = run.batches.weight_of
            self._step = ShardedStep(self.trainer, self.link, streams, buffers, weight_of)

    def started(self) -> None:
        """Copy the parameters from rank 0."""
        self._meet("the first step")
        give_parameters(self.link, self.trainer)

    def step(self, loss_fn: LossFunction, window: Window) -> Tensor:
        """Run a step over the shards of a window."""
        if self._step is None:
            return self._alone.step(loss_fn, window)
        assert self._run is not None
        portions: list[Portion] = []
        for batch, _ in window:
            part = self._run.batches.part
            assert part is not None
            portions.append((batch, part))
        self._steps += 1
        noted = self._step.run(loss_fn, portions, lambda: self._meet("step", self._steps))
        if self._zero is not None:
            optimizer, division = self._zero
            division.put_together(optimizer)
        return noted

    def clock(self) -> float:
        """Return the time of rank 0 at the last roll call."""
        return self._time if self.size > 1 else perf_counter()

    def once(self, what: str, act: Callable[[], T]) -> T:
        """Let rank 0 do it, and share the outcome with the others."""
        if self.size == 1:
            return act()
        self._meet(what, self._steps)
        found: T | None = None
        failed: BaseException | None = None
        if self.speaks:
            try:
                found = act()
            except BaseException as error:
                failed = error
        result, raised = self.link.first((found, _portable(failed)))
        if failed is not None:
            raise failed
        if raised is not None:
            raise raised
        return result  # type: ignore[return-value]

    def measure(self, validate: Validate, weight_of: Callable[..., float] | None) -> Measurement:
        """Split the batches of a validation among the ranks; only rank 0 calls a function."""
        if self.size == 1:
            return self._alone.measure(validate, weight_of)
        if not isinstance(validate, tuple):
            return self.once("validation", lambda: self._alone.measure(validate, weight_of))
        trained = self.trainer.numbers if self.speaks else None
        backend = self.trainer.backend
        own, bases = measured_parts(self.link, backend, validate, weight_of, trained)
        self._meet("validation", self._steps)
        return self.once("what a validation finds", joined(self.link, own, bases))

    def end(self) -> None:
        """Meet the others after the last step."""
        self._meet("the end of a training", self._steps)

    def fail(self, error: BaseException) -> None:
        """Tell the others, except for a signal that all of them obey."""
        if not (isinstance(error, Interrupted) and error.step is not None):
            self.link.fail(error)

    def _meet(self, place: str, number: int = 0) -> None:
        signals = None if self._run is None else self._run.signals
        noted = 0 if signals is None else signals.noted or 0
        call = self.link.meet(place, number, noted)
        self._time = call.clock
        if signals is not None and call.signal and signals.received is None:
            signals.obey(call.signal)


def _portable(error: BaseException | None) -> BaseException | None:
    """An error that can be sent: itself if it pickles, otherwise a description of it."""
    if error is None:
        return None
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RankError(f"rank 0: {type(error).__name__}: {error}")
    return error if isinstance(error, Exception) else RankError(f"rank 0: {error}")
