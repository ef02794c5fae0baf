"""`Run`: one training, from its start or a checkpoint to its end; the work of `Trainer.fit`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from rumus.optim import ClosureOptimizer
from rumus.optim.engine.followed import FollowedOptimizer
from rumus.optim.wrappers.wrapper import unwrapped
from rumus.tensor import NonFiniteGradientError, Tensor
from rumus.tensor.expression.printable import PrintableError
from rumus.tensor.expression.whole_number import whole_number
from rumus.tensor.memory.uninterrupted import displaced
from rumus.train.base.every import Every
from rumus.train.base.limits import Limits
from rumus.train.base.logged import OF_VALIDATION
from rumus.train.base.position import Position
from rumus.train.base.random_sources import restore_program, states_of_program
from rumus.train.base.scaling import scaling_of
from rumus.train.base.spans import Spans
from rumus.train.base.step_clock import StepClock
from rumus.train.checkpoints.checkpoint_store import (
    Resume,
    Saved,
    Store,
    checkpoint_to_resume,
)
from rumus.train.checkpoints.snapshot import (
    average_of,
    check_declared,
    generators_of,
    parts_of_model,
    restore,
    take,
    taking,
)
from rumus.train.data.batches import Batches, batches_of_epoch, require_start
from rumus.train.loop.callback import Callback, Callbacks
from rumus.train.loop.capture import LossFunction
from rumus.train.loop.environment import backend_of
from rumus.train.loop.events import (
    CheckpointSaved,
    EpochEnd,
    EpochStart,
    Failed,
    StepEnd,
    TrainEnd,
    TrainStart,
    ValidationEnd,
)
from rumus.train.loop.feed_plateau import warn_of_unfed
from rumus.train.loop.hyperparameters import changed, hyperparameters
from rumus.train.loop.machine import machine, what_differs
from rumus.train.loop.monitor import Monitor
from rumus.train.loop.spikes import LossSpikeError, Place, Spike, Spikes, SpikeWatch, spikes_of
from rumus.train.loop.stop_signals import Abandoned, Interrupted, StopSignals, shown
from rumus.train.loop.team import Alone, Team
from rumus.train.loop.undeclared import Undeclared
from rumus.train.loop.undeclared_tensors import PUT_BACK, SAVED, UndeclaredTensors
from rumus.train.loop.validation import Validate, evaluating
from rumus.train.tables.meaning import Meaning

if TYPE_CHECKING:
    from rumus.train.loop.trainer import Trainer

OnNonFinite: TypeAlias = Literal["raise", "skip", "rollback"]
MOST_ROLLBACKS: Final = 3  # by default


class NonFiniteLossError(PrintableError, ArithmeticError):
    """A loss is NaN or infinite although the gradients of its step are finite."""


@dataclass(slots=True, repr=False)
class Result:
    """The result of a training.

    reason: why it ended: "epochs", "steps", "seconds", or the argument of `run.stop`.
    epochs, steps: how many are complete, including those before a resume.
    seconds: the duration of the training.
    history: one entry for each epoch and each validation, with "epoch" and "step". An epoch's has
        the mean "loss" of its steps and whatever else they logged, without steps that were skipped
        or undone; NaN if `Spikes` or a loss scale has skipped all. A validation's has its metrics,
        prefixed with "val_".
    metrics: of the last validation, for the weights after step `metrics_step`.
    metrics_step: the step that `metrics` belong to.
    best: the best value of `monitor`, for the weights after `best_step`.
    best_step: the step that `best` belongs to.
    spikes: the steps whose losses were far above the previous ones, if `fit` looked for them.
    """

    reason: str
    epochs: int
    steps: int
    seconds: float
    history: list[dict[str, Any]]
    metrics: dict[str, float]
    metrics_step: int | None
    best: float | None
    best_step: int | None
    spikes: list[Spike] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"Result({', '.join(f'{name} {value}' for name, value in self._told().items())})"

    def _repr_html_(self) -> str:
        """Return it as a table for notebooks."""
        rows = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>"
            for name, value in self._told().items()
        )
        return f"<table>{rows}</table>"

    def _told(self) -> dict[str, str]:
        """The main facts."""
        losses = [entry["loss"] for entry in self.history if "loss" in entry]
        found = {
            "ended by": self.reason,
            "epochs": str(self.epochs),
            "steps": f"{self.steps:,}",
            "seconds": f"{self.seconds:.1f}",
        }
        if losses:
            found["loss"] = f"{losses[-1]:.4g}"
        # Those of other weights than the last ones say so.
        when = "" if self.metrics_step == self.steps else f" after step {self.metrics_step}"
        when = " of weights that were rolled back" if self.metrics_step is None else when
        found |= {f"validation {name}": f"{v:.4g}{when}" for name, v in self.metrics.items()}
        if self.best is not None:
            found["best"] = f"{self.best:.4g} after step {self.best_step}"
        if self.spikes:
            found["loss spikes"] = str(len(self.spikes))
        return found


class Run:
    """One training; see `Trainer.fit` for its arguments.

    Every event holds it. Callbacks may read `trainer`, `position` and `limits`, and call `stop` and
    `save`.

    trainer: see `Training`.
    loader: see `Trainer.fit`.
    loss_fn: see `Trainer.fit`.
    limits: when to end.
    validate: see `Trainer.fit`.
    validate_every: see `Trainer.fit`.
    accumulate: see `Trainer.fit`.
    weight_of: see `Trainer.fit`.
    nonfinite: see `Trainer.fit`.
    spikes: see `Trainer.fit`.
    rollbacks: see `Trainer.fit`.
    callbacks: see `Trainer.fit`.
    store: the store of checkpoints, or None.
    save_every: see `Trainer.fit`.
    monitor: see `Trainer.fit`.
    restore_best: see `Trainer.fit`.
    signals: see `Trainer.fit`.
    profile_steps: see `Trainer.fit`.
    """

    def __init__(
        self,
        trainer: Trainer[Any],
        loader: Iterable[Any],
        loss_fn: LossFunction,
        *,
        limits: Limits,
        validate: Validate | None,
        validate_every: Every,
        accumulate: int,
        weight_of: Callable[..., float] | None,
        nonfinite: OnNonFinite | None,
        spikes: Spikes | None,
        rollbacks: int,
        callbacks: Sequence[Callback],
        store: Store | None,
        save_every: Every,
        monitor: Monitor,
        restore_best: bool,
        signals: bool,
        profile_steps: bool,
    ) -> None:
        self.trainer, self.limits, self.loss_fn = trainer, limits, loss_fn
        self.team: Team = trainer.team or Alone(trainer)
        team = self.team
        self.validate_fn, self.validate_every = validate, validate_every
        self.monitor, self.restore_best = monitor, restore_best
        if validate is not None and validate_every == Every():
            raise ValueError("validate_every=Every() never validates: leave validate= out instead")
        trainer.meaning = Meaning.of(loader)
        if isinstance(validate, tuple):
            require_start(validate[0])
            trainer.meaning.require_same(Meaning.of(validate[0]), "validation")
        self.store, self.save_every = store, save_every
        accumulate = whole_number("accumulate", accumulate)
        if accumulate < 1:
            raise ValueError(f"accumulate must be a number of batches, not {accumulate!r}")
        if weight_of is not None and not callable(weight_of):
            raise TypeError(f"weight_of must be a function of a batch, not {weight_of!r}")
        if accumulate > 1 and isinstance(trainer.optimizer, ClosureOptimizer):
            raise ValueError(
                f"{trainer.optimizer} evaluates a batch several times: use accumulate=1"
            )
        _check_spikes(spikes, trainer)
        goes_back = nonfinite == "rollback" or (spikes is not None and spikes.action == "rollback")
        if rollbacks != MOST_ROLLBACKS and not goes_back:
            raise ValueError(
                f'rollbacks={rollbacks} has no effect without nonfinite="rollback" or '
                'spikes=Spikes("rollback")'
            )
        self.accumulate, self.rollbacks = accumulate, rollbacks
        self.batches = Batches(loader, weight_of)
        heard = [c for c in callbacks if team.speaks or not getattr(c, "speaks", False)]
        self.callbacks = Callbacks(heard)
        monitor.check_callbacks(self.callbacks.all, validate is not None)
        self.signals = StopSignals(signals, shared=team.size > 1)
        self.position = Position()
        self._spikes = None if spikes is None else SpikeWatch(spikes, self.position)
        self._first = 0  # batch of the running step
        self.stopped: str | None = None
        self._clock: StepClock | None = None
        if profile_steps:
            self._clock = StepClock(loss_fn, isinstance(trainer.optimizer, ClosureOptimizer))
        self._computed = loss_fn if self._clock is None else self._clock.loss_fn
        self._of_epoch = Spans()
        self._rolls_back = _prepare(trainer.optimizer, nonfinite) == "rollback"
        self._keeps_good = goes_back
        self._good: dict[str, Any] = {}
        self._good_losses: tuple[list[float], dict[str, Any]] = [], {}
        self._save_asked = False
        self._saved_at: tuple[int, int, bool] | None = None
        self._path: Path | None = None
        self._started = self._saved_time = self._validated_time = team.clock()
        self._epoch_started = perf_counter()

    # What callbacks may ask, and call

    @property
    def spans(self) -> Spans | None:
        """The time taken so far by parts of the running step; None without `profile_steps`."""
        return None if self._clock is None else self._clock.spans

    def stop(self, reason: str) -> None:
        """End the training normally after the running step, or after the epoch if that is done.

        reason: the value of `Result.reason`.
        """
        self.stopped = self.stopped or reason

    def save(self) -> None:
        """Save a checkpoint after the running step."""
        self._save_asked = True

    # The training

    def go(self, resume: Resume) -> Result:
        """Train until a limit is reached or `stop` is called; return the result.

        resume: see `Trainer.fit`.
        """
        position = self.position
        with (
            self._told(),
            self._reported(),
            self.trainer.clocked(self._clock),
            self._watched(),
            self.signals,
        ):
            self.team.begin(self)
            self._begin(resume)
            while self._goes_on():
                self._open_epoch()
                while not position.exhausted and self._goes_on():
                    self._guarded(self._step)
                if position.exhausted and not self.signals.received:
                    self._guarded(self._close_epoch)
            self._guarded(self._look_for_spikes)
            result = self._end()
            self.team.end()
        if self.signals.received is not None:  # it has come since all was done
            raise shown(Interrupted(self.signals.received, position.step, self._path))
        return result

    def _step(self) -> None:
        """Run one step and what is due after it."""
        position, batches = self.position, self.batches
        before, self._first = batches.samples, batches.batch
        if self._clock is not None:
            self._clock.start()
        batch = self._next_batch()
        if batch is None:
            position.exhausted = True
            return
        loss = self._train(*batch)
        position.step += 1
        if self._spikes is not None and self._spikes.rolls_back:
            self._spikes.note(self._here(position.step), loss, self.trainer.optimizer.outcome)
        if batches.is_complete:
            position.exhausted = self._next_batch() is None
        self._after_step(loss, batches.samples - before)

    def _next_batch(self) -> tuple[tuple[Any, ...], float] | None:
        if self._clock is None:
            return self.batches.next(self.position.epoch)
        with self._clock.measuring("data"):
            return self.batches.next(self.position.epoch)

    def _train(self, batch: tuple[Any, ...], weight: float) -> Tensor:
        if self.accumulate == 1:
            return self.team.step(self._computed, ((batch, weight),))

        def window() -> Iterator[tuple[tuple[Any, ...], float]]:
            yield batch, weight
            for _ in range(self.accumulate - 1):
                if (more := self._next_batch()) is None:
                    self.position.exhausted = True
                    return
                yield more

        return self.team.step(self._computed, window())

    def _after_step(self, loss: Tensor, samples: float) -> None:
        position, spans = self.position, self.spans
        if position.step == 1 or spans is not None:
            self._look(loss)
        if self.callbacks.hear(StepEnd):
            per_epoch = self.steps_per_epoch
            logged = self.trainer.losses.logged.last
            self.callbacks.send(
                StepEnd(
                    self, position.epoch, position.step, per_epoch, samples, loss, spans, logged
                )
            )
        if position.exhausted:
            return  # what is due now is done at the end of the epoch
        now = self.team.clock()
        if self.validate_fn is not None and self.validate_every.in_epoch(
            position.step, now - self._validated_time
        ):
            self._validate()
        if self._save_asked or self.save_every.in_epoch(position.step, now - self._saved_time):
            self._save()

    def _here(self, step: int) -> Place:
        """The origin of a step's batches."""
        batches = self.batches
        numbers = tuple(range(self._first, batches.batch))
        return Place(self.position.epoch, step, numbers, batches.samples_from(self._first))

    def _is_left_out(self, loss: Tensor) -> bool:
        """Whether the running step is skipped because of its loss."""
        assert self._spikes is not None
        return self._spikes.leaves_out(self._here(self.position.step + 1), float(loss))

    def _look_for_spikes(self) -> None:
        """Judge all losses so far: what is good now is not known before."""
        if self._spikes is not None:
            self._spikes.look()

    def _look(self, loss: Tensor) -> None:
        """Read a loss. Raises NonFiniteLossError where gradients could not reveal it."""
        start = perf_counter()
        value = float(loss)
        if self.spans is not None:
            self.spans.reading += perf_counter() - start
            self._of_epoch.add(self.spans)
        self._check_loss(value, f"the loss of step {self.position.step}")

    def _check_loss(self, value: float, what: str) -> None:
        optimizer = self.trainer.optimizer
        unchecked = getattr(optimizer, "nonfinite", "raise") == "propagate"
        if not (math.isfinite(value) or unchecked or optimizer.outcome.applied is False):
            raise NonFiniteLossError(
                f"{what} (epoch {self.position.epoch}) is {value}, although its gradients are "
                "finite: a constant in it, or a part that does not depend on a parameter, is not "
                "finite"
            )

    # Epochs

    def _goes_on(self) -> bool:
        if self.stopped is None and not self.position.exhausted:
            position, seconds = self.position, self.team.clock() - self._started
            self.stopped = self.limits.reached(position.epoch, position.step, seconds)
        return self.signals.received is None and (self.stopped is None or self.position.exhausted)

    def _open_epoch(self) -> None:
        position = self.position
        if position.exhausted:
            return
        self.batches.open(position.epoch)
        self._epoch_started, self._of_epoch = perf_counter(), Spans()
        if not self.batches.batch:
            self.trainer.losses.open()
            if position.epoch == 1:
                warn_of_unfed(self.trainer.optimizer, self.callbacks.all)
            if self._keeps_good:
                self._note_good(take(self._of_model))
            self.callbacks.send(
                EpochStart(self, position.epoch, position.step, self.steps_per_epoch)
            )

    def _close_epoch(self) -> None:
        position, step = self.position, self.position.step
        self._look_for_spikes()
        loss = self._mean_loss()
        due = self.validate_every.after_epoch(position.epoch + 1)
        seconds = perf_counter() - self._epoch_started
        if due or self.validate_every.in_epoch(step, self.team.clock() - self._validated_time):
            self._validate()
            if position.validation_due:
                return  # it was cut short by a signal: the end of the epoch is done on resume
        logged = self.trainer.epoch_averages()
        entry = {"epoch": position.epoch, "step": step, "loss": loss, **logged}
        position.history.append(entry)
        samples = self.batches.samples
        spans = None if self.spans is None else self._of_epoch
        epoch = position.epoch
        position.epoch, position.exhausted = epoch + 1, False
        self.batches.end()
        self.callbacks.send(
            EpochEnd(
                self,
                epoch,
                step,
                loss,
                position.metrics,
                samples,
                seconds,
                spans,
                logged,
                position.metrics_step,
            )
        )
        due = self.save_every.after_epoch(epoch + 1) or self._save_asked
        if due or self.save_every.in_epoch(step, self.team.clock() - self._saved_time):
            self._save()

    def _mean_loss(self) -> float:
        epoch, optimizer = self.position.epoch, self.trainer.optimizer
        try:
            loss = self.trainer.epoch_avg_loss()
        except ValueError:
            if self._spikes is not None or self._keeps_good or scaling_of(optimizer) is not None:
                return math.nan  # every step was skipped or undone on purpose
            raise NonFiniteLossError(f"no step of epoch {epoch} was applied") from None
        self._check_loss(loss, "the mean loss")
        return loss

    @property
    def steps_per_epoch(self) -> int | None:
        """The number of steps per epoch, if the loader has a length."""
        batches = self.batches.per_epoch
        return None if batches is None else -(-batches // self.accumulate)

    # Validation

    def _validate(self) -> None:
        if self.validate_fn is None:
            return
        position, start = self.position, perf_counter()
        position.validation_due = True
        objects = list(self.trainer.state.values())
        try:
            with evaluating(objects, self.trainer.optimizer), self.signals.may_be_cut():
                weight_of = self.batches.weight_of
                found = self.team.measure(self.validate_fn, weight_of)
        except Abandoned:
            return
        except NonFiniteGradientError:
            raise  # of a step before
        except Exception:
            if self.team.size == 1:  # another rank may not have failed
                self._save()  # what was trained is not lost to what was to look at it
            raise
        metrics = found.numbers
        self._check_metrics(metrics)
        position.validation_due = False
        position.metrics, position.metrics_step = metrics, position.step
        measured = {f"{OF_VALIDATION}{name}": value for name, value in metrics.items()}
        position.history.append({"epoch": position.epoch, "step": position.step, **measured})
        is_best = self._note_best(metrics)
        self._validated_time = self.team.clock()
        seconds = perf_counter() - start
        at = position.epoch, position.step
        self.callbacks.send(ValidationEnd(self, *at, metrics, is_best, seconds, found.confusion))

    def _check_metrics(self, metrics: Mapping[str, float]) -> None:
        """Raise ValueError for a metric that is missing; what was trained is saved first."""
        try:
            self.monitor.check_metrics(metrics, self.callbacks.all)
        except ValueError:
            self._save()
            raise

    def _note_best(self, metrics: Mapping[str, float]) -> bool:
        position, monitor = self.position, self.monitor
        value = metrics.get(monitor.metric, math.nan)
        if not monitor.is_better(value, position.best):
            return False
        position.best, position.best_step = value, position.step
        position.monitor, position.mode = monitor.metric, monitor.mode
        if self.restore_best or getattr(self.store, "keep_best", None) is not None:
            self._save_asked = True  # or the best weights would be gone by the next save
        return True

    # Steps that are not finite

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except NonFiniteGradientError as error:
            position = self.position
            error.add_note(
                f"in epoch {position.epoch}, reported after step {position.step}, batch "
                f"{self.batches.batch} of the epoch"
            )
            if not self._rolls_back:
                raise
            self._roll_back(error)
        except LossSpikeError as error:
            if self._spikes is None or not self._spikes.rolls_back:
                raise
            self._roll_back(error)

    def _note_good(self, state: dict[str, Any]) -> None:
        """Keep a state to roll back to, with the epoch's losses so far and the recent ones."""
        losses = list(self.position.recent_losses), self.trainer.losses.state_dict()
        self._good, self._good_losses = state, losses

    def _roll_back(self, error: NonFiniteGradientError | LossSpikeError) -> None:
        """Roll back to the last good state, but not in the data: skip the offending batches."""
        self.position.rollbacks += 1
        if self.position.rollbacks > self.rollbacks:
            error.add_note(f"it was rolled back {self.rollbacks} times before: that is the limit")
            raise error
        warnings.warn(
            f"rolled back to the last good state ({self.position.rollbacks} of at most "
            f"{self.rollbacks} times): {error}",
            RuntimeWarning,
            stacklevel=2,
        )
        restore(self._of_model, self._good, "the last good state")
        recent, losses = self._good_losses
        self.position.recent_losses = list(recent)
        self.trainer.losses.load_state_dict(losses)  # without the steps that were undone
        self.position.metrics_step = None  # the weights that were validated are gone

    # Saving

    @property
    def _of_run(self) -> dict[str, Any]:
        return {
            "position": self.position,
            "losses": self.trainer.losses,
            "batches": self.batches,
            "callbacks": self.callbacks,
        }

    def _begin(self, resume: Resume) -> None:
        position, optimizer = self.position, self.trainer.optimizer
        self._of_model: dict[str, Any] = {}
        if self.store is not None or self._keeps_good or resume:
            check_declared(self.loss_fn, self.trainer.state)
            self._of_model = parts_of_model(optimizer, self.trainer.state)
        store, once = self.store, self.team.once
        found = None
        if store is not None or resume not in (False, "auto"):
            found = once("resume", lambda: checkpoint_to_resume(store, resume))
        if store is not None:
            once("acquire", store.acquire)
        self.trainer.reset_epoch()
        if store is not None or resume:
            self._watch()
        if found is not None:
            self._check_monitored(found)
            parts = {**self._of_model, **self._of_run}
            restore(parts, found.state, f"the checkpoint {found.path}")
            if self.team.size == 1:
                restore_program(position.random)
            self._saved_at = self._place
            self._path = found.path
            self._check_best()
            self._spare_best()
            if self._spikes is None:
                position.recent_losses, position.spikes_in_a_row = [], 0  # they grow old unused
        else:
            self._warn_of_partial_epoch()
        if store is not None or self._keeps_good or resume:
            self._watch_tensors()
        self._note_machine()
        self._note_hyperparameters()
        self.team.started()
        if self._keeps_good:
            self._note_good(take(self._of_model))
        path = None if found is None else found.path
        self.callbacks.send(
            TrainStart(self, position.epoch, position.step, self.steps_per_epoch, path)
        )
        if position.validation_due and not position.exhausted:
            self._guarded(self._validate)
            if self._save_asked:
                self._save()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Within the block, let the trainer watch losses."""
        leaves_out = None
        if self._spikes is not None and not self._spikes.rolls_back:
            leaves_out = self._is_left_out
        with (
            displaced(self.trainer, "undeclared", None),
            displaced(self.trainer, "undeclared_tensors", None),
            displaced(self.trainer, "leaves_out", leaves_out),
        ):
            yield

    def _watch(self) -> None:
        """Look for random generators that would not be saved."""
        state = self.trainer.state
        saving = [thing for thing in state.values() if not hasattr(thing, "named_generators")]
        saving += [c for c in self.callbacks.all if hasattr(c, "state_dict")]
        if self.batches.is_same_each_time:
            saving.append(self.batches.loader)
        self.trainer.undeclared = Undeclared(
            generators_of(state).values(), saving, with_program=self.team.size > 1
        )

    def _watch_tensors(self) -> None:
        """Look for buffers and other tensors that would not be saved, or put back by a rollback."""
        things = [*self.trainer.state.values()]
        things += [c for c in self.callbacks.all if hasattr(c, "state_dict")]
        saved = self.store is not None
        found = UndeclaredTensors(things, SAVED if saved else PUT_BACK)
        if saved:
            found.watch(self.loss_fn)
        self.trainer.undeclared_tensors = found

    def _warn_of_partial_epoch(self) -> None:
        """Warn if a fresh run would begin in the middle of a loader's epoch."""
        loader = self.batches.loader
        if (done := batches_of_epoch(loader)) and hasattr(loader, "seek"):
            warnings.warn(
                f"the loader has handed out {done} batches of its epoch, which the first epoch of "
                "this run lacks: loader.seek(loader.epoch) starts the epoch over",
                UserWarning,
                stacklevel=2,
            )

    def _note_machine(self) -> None:
        """Warn if a run continues on a machine where the last bits may differ."""
        before, now = self.position.machine, machine(backend_of(self.trainer.optimizer))
        self.position.machine = now
        differs = what_differs(before, now) if before else None
        if differs is not None and self.team.speaks:
            warnings.warn(
                f"the run continues from {self._path} on another machine, and may differ in the "
                f"last bits from an uninterrupted run ({differs})",
                UserWarning,
                stacklevel=2,
            )

    def _note_hyperparameters(self) -> None:
        """Warn if a run continues with other hyperparameters: the new ones count."""
        before = self.position.hyper
        trainer = self.trainer
        now = hyperparameters(
            trainer.optimizer, self.accumulate, self.batches.loader, trainer.state
        )
        self.position.hyper = now
        what = changed(before, now) if before else None
        if what is not None and self.team.speaks:
            warnings.warn(
                f"the run continues from {self._path} with other hyperparameters than before: "
                f"{what}. The current ones apply; to start over, use another folder",
                UserWarning,
                stacklevel=2,
            )

    def _check_best(self) -> None:
        """Raise, before the training and not after it, if the best weights are not in the store."""
        best, listed = self.position.best_step, getattr(self.store, "list", None)
        if not self.restore_best or best is None or listed is None:
            return
        if best not in self.team.once("list", lambda: [saved.step for saved in listed()]):
            raise ValueError(
                f"restore_best=True: the best validation so far was after step {best}, whose "
                f"checkpoint is not in {getattr(self.store, 'folder', self.store)}: resume in the "
                "folder that has it, or leave restore_best= out"
            )

    def _spare_best(self) -> None:
        """Keep the best checkpoint so far where this run does not say which one is better."""
        best, spare = self.position.best_step, getattr(self.store, "spare", None)
        if best is not None and spare is not None and self.store.keep_best is None:  # type: ignore[union-attr]
            spare(best)

    def _check_monitored(self, saved: Saved) -> None:
        """Raise instead of comparing a metric with the best value of another one."""
        found = saved.state.get("position", {})
        before = found.get("monitor"), found.get("mode")
        now = self.monitor.metric, self.monitor.mode
        if self.validate_fn is not None and before[0] is not None and before != now:
            raise ValueError(
                f"the best value in {saved.path} is for monitor={before[0]!r}, "
                f"mode={before[1]!r}, but here they are {now[0]!r} and {now[1]!r}: continue with "
                "the former, or in a new folder"
            )

    @property
    def _place(self) -> tuple[int, int, bool]:
        return self.position.epoch, self.position.step, self.position.validation_due

    def _save(self) -> None:
        """Save a checkpoint, unless this step has one."""
        self._save_asked = False
        store, metric = self.store, self._metric()
        if store is None or self._place == self._saved_at:
            return
        self._look_for_spikes()
        position, start = self.position, perf_counter()
        if (undeclared := self.trainer.undeclared) is not None:
            undeclared.before_save()
        if self.trainer.undeclared_tensors is not None:
            self.trainer.undeclared_tensors.before_save()
        position.random = states_of_program()
        with taking(store):
            tree = take({**self._of_model, **self._of_run})
            tree |= average_of(self.trainer.optimizer, self._of_model)
        if self._keeps_good:
            self._note_good({name: tree[name] for name in self._of_model})
        path = self.team.once("save", lambda: store.save(position.step, tree, metric=metric))
        self._saved_time = self.team.clock()
        if path is not None:
            self._path, self._saved_at = path, self._place
        seconds = perf_counter() - start
        self.callbacks.send(CheckpointSaved(self, position.epoch, position.step, path, seconds))

    def _metric(self) -> float | None:
        """The monitored metric of the current weights; None if they were not validated."""
        position = self.position
        if position.metrics_step != position.step or position.validation_due:
            return None
        return position.metrics.get(self.monitor.metric)

    # The end

    def _end(self) -> Result:
        position = self.position
        self._save()
        if self.restore_best and self.signals.received is None:
            self._restore_best()
        self._close()
        number = self.signals.received  # only now: one may have arrived while saving
        seconds = self.team.clock() - self._started
        interrupted = number and Interrupted(number, position.step, self._path)
        reason = interrupted.name if interrupted else self.stopped or "epochs"
        self.callbacks.send(TrainEnd(self, position.epoch, position.step, reason, seconds))
        if interrupted:
            raise shown(interrupted)
        return Result(
            reason,
            position.epoch,
            position.step,
            seconds,
            position.history,
            position.metrics,
            position.metrics_step,
            position.best,
            position.best_step,
            spikes_of(position.spikes),
        )

    def _restore_best(self) -> None:
        """Restore parameters and optimizer from the best validation."""
        position, store, best_step = self.position, self.store, self.position.best_step
        assert store is not None
        if best_step is None:
            raise ValueError(
                f"restore_best=True: no validation returned a numeric {self.monitor.metric!r}, so "
                "there is no best one"
            )
        if best_step == position.metrics_step == position.step:
            return
        best = self.team.once("best", lambda: store.load(best_step))
        state = {name: best.state[name] for name in self._of_model}
        restore(self._of_model, state, f"the checkpoint {best.path}")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Report this rank's error to the others."""
        try:
            yield
        except BaseException as error:
            self.team.fail(error)
            raise

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Report the error that ends the training to the callbacks."""
        try:
            yield
        except Exception as error:
            position = self.position
            try:
                self.callbacks.send(Failed(self, position.epoch, position.step, error))
                self._close()
            except Exception as another:
                error.add_note(f"and then: {type(another).__name__}: {another}")
            raise

    def _close(self) -> None:
        self.batches.close()
        if self.store is not None and self.team.speaks:
            self.store.close()


def _check_spikes(spikes: Spikes | None, trainer: Trainer[Any]) -> None:
    """Refuse what cannot be looked for spikes. TypeError or ValueError."""
    if spikes is None:
        return
    if not isinstance(spikes, Spikes):
        raise TypeError(f"spikes must be Spikes(...) or None, not {spikes!r}")
    if trainer.team is not None:
        raise ValueError("spikes= sees only the losses of one process: leave it out with ranks=")
    if spikes.action == "skip" and isinstance(trainer.optimizer, ClosureOptimizer):
        raise ValueError(
            f"{trainer.optimizer} evaluates a batch several times, so its step cannot be skipped: "
            'use spikes=Spikes("rollback")'
        )


def _prepare(optimizer: Any, nonfinite: OnNonFinite | None) -> OnNonFinite | None:
    """Set an optimizer's `nonfinite`. Raises ValueError if it has none."""
    if nonfinite is None:
        return None
    if nonfinite not in ("raise", "skip", "rollback"):
        raise ValueError(f'nonfinite must be "raise", "skip" or "rollback", not {nonfinite!r}')
    optimizer = unwrapped(optimizer)
    wanted: Literal["raise", "skip"] = "skip" if nonfinite == "skip" else "raise"
    if getattr(optimizer, "nonfinite", "raise") == wanted:
        return nonfinite
    if not isinstance(optimizer, FollowedOptimizer):
        raise ValueError(f"{optimizer} cannot switch to nonfinite={wanted!r}; make it with that")
    optimizer.answer_nonfinite(wanted)
    return nonfinite
