"""`Run`: one training, from its start or a checkpoint to its end; the work of `Trainer.fit`."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from rumus.optim import ClosureOptimizer
from rumus.tensor import NonFiniteGradientError, Tensor
from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.expression.whole_number import whole_number
from rumus.tensor.memory.uninterrupted import Uninterrupted, displaced, is_of_handler
from rumus.train.base.every import Every
from rumus.train.base.limits import Limits
from rumus.train.base.logged import OF_VALIDATION
from rumus.train.base.other_names import RUN
from rumus.train.base.position import Position
from rumus.train.base.printable import printable
from rumus.train.base.random_sources import states_of_program
from rumus.train.base.spans import Spans
from rumus.train.base.step_clock import StepClock
from rumus.train.capture.captured_steps import LossFunction
from rumus.train.checkpoints.checkpoint_store import Resume, Store
from rumus.train.checkpoints.snapshot import (
    check_declared,
    generators_of,
    parts_of_model,
    warn_of_evaluation_mode,
    warn_of_strangers,
    whole_models,
)
from rumus.train.data.batch_numbers import BatchNumbers
from rumus.train.data.batches import Batches, require_start
from rumus.train.data.sample_order import warn_of_other_samples
from rumus.train.data.shared_samples import warn_of_shared_samples
from rumus.train.loop.callback import Callback, Callbacks
from rumus.train.loop.continuation import (
    note_hyperparameters,
    note_machine,
    warn_of_partial_epoch,
)
from rumus.train.loop.ended_schedules import warn_of_dead_end
from rumus.train.loop.events import (
    EpochEnd,
    EpochStart,
    Failed,
    StepEnd,
    TrainEnd,
    TrainStart,
    ValidationEnd,
)
from rumus.train.loop.feed_plateau import warn_of_unfed
from rumus.train.loop.last_whole_step import LastWholeStep
from rumus.train.loop.measured_weights import BEST, MeasuredWeights
from rumus.train.loop.monitor import Monitor
from rumus.train.loop.nonfinite_loss import NonFiniteLossError, check_loss, checked_mean_loss
from rumus.train.loop.result import Result
from rumus.train.loop.rollback import OnNonFinite, Rollback
from rumus.train.loop.run_checkpoints import RunCheckpoints
from rumus.train.loop.spikes import (
    LossSpikeError,
    Place,
    Spikes,
    SpikeWatch,
    check_spikes,
    spikes_of,
)
from rumus.train.loop.stop_signals import Abandoned, Interrupted, StopSignals, shown
from rumus.train.loop.team import Alone, Team
from rumus.train.loop.undeclared import Undeclared, UndeclaredError
from rumus.train.loop.undeclared_tensors import PUT_BACK, SAVED, UndeclaredTensors
from rumus.train.loop.validation import Validate, evaluating
from rumus.train.tables.meaning import Meaning

if TYPE_CHECKING:
    from rumus.train.loop.trainer import Trainer


# What ends a run that has nothing to save: its weights, or what no checkpoint holds, are to blame.
_UNSAVED: Final = (NonFiniteGradientError, NonFiniteLossError, LossSpikeError, UndeclaredError)
_OF_VALIDATION: Final = ("metrics", "metrics_step", *BEST)  # what a position says of it


@RUN.of_finished
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
        rollbacks: int | None,
        callbacks: Sequence[Callback],
        store: Store | None,
        save_every: Every,
        monitor: Monitor,
        restore_best: bool,
        signals: bool,
        profile_steps: bool,
    ) -> None:
        if trainer.is_fitting:
            raise RuntimeError(
                "this trainer is within a fit, and another one would end its epoch: give the "
                "inner training a Trainer with an optimizer of its own, or begin it afterwards"
            )
        self.trainer, self.limits, self.loss_fn = trainer, limits, loss_fn
        self.team: Team = trainer.team or Alone(trainer)
        team = self.team
        self.validate_fn, self.validate_every = validate, validate_every
        self.monitor = monitor
        if validate is not None and validate_every == Every():
            raise ValueError("validate_every=Every() never validates: leave validate= out instead")
        trainer.meaning, trainer.numbers = Meaning.of(loader), None
        if isinstance(validate, tuple):
            require_start(validate[0])
            warn_of_other_samples(validate[0], "the validation's loader")
            trainer.meaning.require_same(Meaning.of(validate[0]), "validation")
            warn_of_shared_samples(loader, validate[0])
        accumulate = whole_number("accumulate", accumulate)
        if accumulate < 1:
            raise ValueError(f"accumulate must be a number of batches, not {accumulate!r}")
        if isinstance(weight_of, type) or not (weight_of is None or callable(weight_of)):
            raise TypeError(f"weight_of must be a function of a batch, not {weight_of!r}")
        if accumulate > 1 and isinstance(trainer.optimizer, ClosureOptimizer):
            raise ValueError(
                f"{trainer.optimizer} evaluates a batch several times: use accumulate=1"
            )
        if trainer.team is None and getattr(loader, "ranks", None) is not None:
            raise TypeError(
                "the loader yields this rank's part of each batch, and the trainer would step with "
                "that alone: Trainer(optimizer, ranks=ranks) sums over all ranks"
            )
        check_spikes(spikes, trainer)
        self.accumulate = accumulate
        self.options: dict[str, object] = {
            "accumulate": accumulate,
            "weight_of": weight_of,
            "spikes": spikes,
        }
        if isinstance(nonfinite, str) and nonfinite == "rollback":  # others are the optimizer's
            self.options["nonfinite"] = nonfinite
        self.batches = Batches(loader, weight_of)
        heard = [c for c in callbacks if team.speaks or not getattr(c, "speaks", False)]
        self.callbacks = Callbacks(heard)
        self._steps_are_heard = self.callbacks.hear(StepEnd)
        monitor.check_callbacks(self.callbacks.all, validate is not None)
        self.signals = StopSignals(signals, shared=team.size > 1)
        self.position = Position()
        self._spikes = None if spikes is None else SpikeWatch(spikes, self.position)
        self._first = 0  # batch of the running step
        self._whole = LastWholeStep(self, self._spikes)
        self._process = os.getpid()
        self._is_loading = False
        self.stopped: str | None = None
        self._clock: StepClock | None = None
        if profile_steps:
            self._clock = StepClock(loss_fn, isinstance(trainer.optimizer, ClosureOptimizer))
        self._computed = loss_fn if self._clock is None else self._clock.loss_fn
        self._of_epoch = Spans()
        self._started = self._validated_time = team.clock()
        self._epoch_started = perf_counter()
        self.measured = MeasuredWeights(trainer)
        self.apart = 0.0  # seconds of validations and saves since then
        self._is_told_of_validation = False
        self._has_ended = False  # and the callbacks know
        self._models: list[tuple[str, Any]] = []  # that evaluation mode changes
        self._rollback = Rollback(trainer, self.position, nonfinite, spikes, rollbacks)
        self.checkpoints = RunCheckpoints(
            self,
            store,
            save_every,
            self._rollback,
            self._spikes,
            restores_best=restore_best,
            now=self._started,
        )

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
        self.checkpoints.is_asked = True

    # The training

    def go(self, resume: Resume) -> Result:
        """Train until a limit is reached or `stop` is called; return the result.

        resume: see `Trainer.fit`.
        """
        position = self.position
        with (
            self._told(),
            self._reported(),
            self.trainer.stepper.clocked(self._clock),
            self._watched(),
            self.signals,
        ):
            self.team.begin(self)
            self._begin(resume)
            with self._saved():
                while self._goes_on():
                    self._open_epoch()
                    while not position.exhausted and self._goes_on():
                        self._guarded(self._steps)
                    if position.exhausted and not self.signals.received:
                        self._guarded(self._close_epoch)
                self._guarded(self._look_for_spikes)
                self.checkpoints.save()
            result = self._end()
            self.team.end()
        if self.signals.received is not None:  # it has come since all was done
            raise shown(Interrupted(self.signals.received, position.step, self.checkpoints.path))
        return result

    def _steps(self) -> None:
        """Run a step, and others until the epoch or the training ends."""
        self._step()
        while not self.position.exhausted and self._goes_on():
            self._step()

    def _step(self) -> None:
        """Run one step and what is due after it."""
        position, batches = self.position, self.batches
        self.measured.check(position)
        before, self._first = batches.samples, batches.batch
        is_saved = self.checkpoints.store is not None
        if is_saved:
            self._whole.begin()
        if self._clock is not None:
            self._clock.start()
        batch = self._next_batch()
        if batch is None:
            position.exhausted = True
            self._whole.end()
            return
        loss = self._train(*batch)
        position.step += 1
        if self._spikes is not None and self._spikes.rolls_back:
            self._spikes.note(self._here(position.step), loss, self.trainer.optimizer.outcome)
        if is_saved:
            self._whole.end()
        if batches.is_complete:
            self._first = batches.batch
            if is_saved:
                self._whole.begin()
            position.exhausted = self._next_batch() is None
            self._whole.end()
        self._after_step(loss, batches.samples - before)

    def _next_batch(self) -> tuple[tuple[Any, ...], float] | None:
        self._is_loading = True
        if self._clock is None:
            found = self.batches.next(self.position.epoch)
        else:
            with self._clock.measuring("data"):
                found = self.batches.next(self.position.epoch)
        self._is_loading = False
        if self.trainer.numbers is None and found is not None:
            self.trainer.numbers = BatchNumbers(found[0])
        return found

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
        position = self.position
        spans = None if self._clock is None else self._clock.spans
        if position.step == 1 or spans is not None:
            self._look(loss)
        if self._steps_are_heard:
            per_epoch = self.steps_per_epoch
            logged = self.trainer.stepper.losses.logged.last
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
        self.checkpoints.after_step(now)

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
        position = self.position
        what = f"the loss of step {position.step}"
        check_loss(value, what, position.epoch, self.trainer.optimizer)

    @contextmanager
    def _saved(self) -> Iterator[None]:
        """Save the last whole step before anything ends the block, and tell of the checkpoint.

        A step that was not finished did not happen: its batches are to be trained. After a signal,
        which may have ended what failed, such as a worker, the run ends by that. A second signal
        ends it at once, unless it meets a loader: one whose workers have ended may wait for ever.
        """
        try:
            yield
        except BaseException as error:
            is_second = isinstance(error, Interrupted) and error.step is None
            if self._is_loading or not (is_second or self.signals.are_urgent):
                self._save_for(error)
            is_of_program = isinstance(error, _UNSAVED) or is_of_handler(error)
            if is_of_program or not isinstance(error, Exception):
                raise
            if self.signals.received is None or self.checkpoints.has_unsaved:
                raise
            warn_user(
                f"after the signal came {type(error).__name__}: {error}; what was trained is saved"
            )

    def _save_for(self, error: BaseException) -> None:
        """Save the last whole step, or say in a note of the error why it is not saved."""
        checkpoints = self.checkpoints
        if checkpoints.store is None or os.getpid() != self._process:  # in a child that was forked
            return
        why = self._why_unsaved(error)
        if why is None and self.position.step:
            try:
                checkpoints.save()
            except Exception as another:
                error.add_note(f"and nothing was saved: {type(another).__name__}: {another}")
        elif why:
            error.add_note(f"what was trained since the last checkpoint is not saved: {why}")
        if checkpoints.path is not None:
            error.add_note(f"the last checkpoint is {printable(checkpoints.path)}")

    def _why_unsaved(self, error: BaseException) -> str | None:
        """Go to the last whole step; return why it is not to be saved: '' if the error says so."""
        if isinstance(error, _UNSAVED):
            return ""
        if self.team.size > 1:
            return "other ranks may be within a step"
        before = error.__context__
        while before is not None:
            if isinstance(before, _UNSAVED):
                return f"it came while the run answered {type(before).__name__}: {before}"
            before = before.__context__
        is_cut = not isinstance(error, Exception) or is_of_handler(error)
        return self._whole.go_there(error, is_cut=self._is_loading and is_cut)

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
        self.apart = 0.0
        if not self.batches.batch:
            self.trainer.stepper.losses.open()
            if position.epoch == 1:
                warn_of_unfed(self.trainer.optimizer, self.callbacks.all)
            self._rollback.note_good()
            per_epoch = self.steps_per_epoch
            self.callbacks.send(EpochStart(self, position.epoch, position.step, per_epoch))
            self._warn_of_mode(position.epoch)

    def _warn_of_mode(self, epoch: int | None = None) -> None:
        """Warn once of a model in evaluation mode."""
        if self._models and warn_of_evaluation_mode(self._models, epoch):
            self._models = []

    def _close_epoch(self) -> None:
        position, step = self.position, self.position.step
        self._look_for_spikes()
        may_lack = self._spikes is not None or self._rollback.is_on
        loss = checked_mean_loss(self.trainer, position.epoch, may_lack=may_lack)
        due = self.validate_every.after_epoch(position.epoch + 1)
        seconds = perf_counter() - self._epoch_started - self.apart
        due = due or self.validate_every.in_epoch(step, self.team.clock() - self._validated_time)
        if due and (position.validation_due or position.metrics_step != step):
            self._validate()  # if the end of the epoch was not cut short after it
            if position.validation_due:
                return  # it was cut short by a signal: the end of the epoch is done on resume
        logged = self.trainer.epoch_averages()
        entry = {"epoch": position.epoch, "step": step, "loss": loss, **logged}
        samples = self.batches.samples
        spans = None if self.spans is None else self._of_epoch
        epoch = position.epoch
        with Uninterrupted():
            position.history.append(entry)
            position.epoch, position.exhausted = epoch + 1, False
            self.batches.end()
        self.callbacks.send(
            EpochEnd(
                self,
                epoch,
                step,
                loss,
                dict(position.metrics),
                samples,
                seconds,
                spans,
                logged,
                position.metrics_step,
            )
        )
        self.checkpoints.after_epoch()

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
            with (
                self.measured.measuring(position, self.team.size),
                evaluating(objects, self.trainer.optimizer),
                self.signals.may_be_cut(),
            ):
                weight_of = self.batches.weight_of
                found = self.team.measure(self.validate_fn, weight_of)
        except Abandoned:
            return
        metrics = found.numbers
        self._check_metrics(metrics)
        before = {name: getattr(position, name) for name in _OF_VALIDATION}
        count = len(position.history)
        self._validated_time = self.team.clock()
        seconds = perf_counter() - start
        self.apart += seconds
        at = position.epoch, position.step
        try:
            is_best = self._note_metrics(metrics)
            self.callbacks.send(
                ValidationEnd(self, *at, metrics, is_best, seconds, found.confusion)
            )
        except BaseException as error:
            if not isinstance(error, _UNSAVED):  # which is of a step before
                del position.history[count:]
                for name, value in before.items():
                    setattr(position, name, value)
                position.validation_due = True  # validated again on resume, for all callbacks
            raise

    def _note_metrics(self, metrics: Mapping[str, float]) -> bool:
        """Note what a validation has measured; return whether it is the best."""
        position = self.position
        position.validation_due = False
        is_theirs = not self.measured.are_spoiled
        position.metrics = dict(metrics)  # not a callback's
        position.metrics_step = position.step if is_theirs else None
        measured = {f"{OF_VALIDATION}{name}": value for name, value in metrics.items()}
        position.history.append({"epoch": position.epoch, "step": position.step, **measured})
        return is_theirs and self._note_best(metrics)

    def _check_metrics(self, metrics: Mapping[str, float]) -> None:
        """Raise ValueError for a metric that is missing; what was trained is saved first."""
        try:
            self.monitor.check_metrics(metrics, self.callbacks.all)
        except ValueError:
            self.checkpoints.save()
            raise

    def _note_best(self, metrics: Mapping[str, float]) -> bool:
        position, monitor = self.position, self.monitor
        value = metrics.get(monitor.metric, math.nan)
        if not monitor.is_better(value, position.best):
            return False
        self.measured.best_before = {name: getattr(position, name) for name in BEST}
        position.best, position.best_step = value, position.step
        position.monitor, position.mode = monitor.metric, monitor.mode
        self.checkpoints.note_best()
        return True

    # Steps that are not finite

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
            return
        except NonFiniteGradientError as error:
            position = self.position
            error.add_note(
                f"in epoch {position.epoch}, reported after step {position.step}, batch "
                f"{self.batches.batch} of the epoch"
            )
            self._rollback.answer(error)
        except LossSpikeError as error:
            self._rollback.answer(error)
        self._whole.end()  # the batches of the bad step are not repeated

    # The start

    def _begin(self, resume: Resume) -> None:
        position, checkpoints, rollback = self.position, self.checkpoints, self._rollback
        model: dict[str, Any] = {}
        is_saved = checkpoints.store is not None
        is_restored = is_saved or rollback.is_on or bool(resume)
        if is_restored:
            check_declared(self.loss_fn, self.trainer.state)
            model = parts_of_model(self.trainer.optimizer, self.trainer.state)
        warn_of_strangers(self.trainer.optimizer, self.trainer.state)
        self._models = whole_models(self.trainer.optimizer, self.trainer.state, self.loss_fn)
        self._warn_of_mode()
        position.random = states_of_program()
        found = checkpoints.begin(model, resume)
        self.trainer.reset_epoch()
        if is_saved or resume:
            self._watch()
        if found is None:
            warn_of_partial_epoch(self.batches.loader)
        else:
            checkpoints.restore(found)
            self.measured.note()
            if self._spikes is None:
                position.recent_losses, position.spikes_in_a_row = [], 0  # they grow old unused
        if is_restored:
            self._watch_tensors()
        self._check_validates()
        self._check_rates()
        note_machine(self, checkpoints.path)
        note_hyperparameters(self, checkpoints.path)
        self.team.started()
        rollback.begin(model)
        path = None if found is None else found.path
        self.callbacks.send(
            TrainStart(self, position.epoch, position.step, self.steps_per_epoch, path)
        )
        if position.validation_due and not position.exhausted:
            self._guarded(self._validate)
            checkpoints.save_if_asked()

    def _check_validates(self) -> None:
        """Warn of a validation that is not due before the run ends; ValueError if it needs one."""
        position, every, per_epoch = self.position, self.validate_every, self.steps_per_epoch
        if self.validate_fn is None or position.metrics or position.validation_due:
            return
        steps, epochs = self.limits.ends_after(per_epoch)
        if (steps is not None and steps <= position.step) or every.may_be_due(
            (position.step, steps), (position.epoch, epochs)
        ):
            return
        told = f"validate_every={every} is never due in this run, which ends after "
        told += f"{epochs} epochs" if steps is None else f"{steps} steps"
        if self.checkpoints.restores_best:
            raise ValueError(f"restore_best=True: {told}, so there would be no best one")
        waiting = [type(each).__name__ for each in self.callbacks.all if each.monitors is not None]
        needs = f", and {' and '.join(waiting)} would wait for nothing" if waiting else ""
        end = f"epochs={epochs}" if steps is None else f"steps={steps}"
        warn_user(
            f"{told}, so that it never validates{needs}: validate_every=Every({end}) does at its "
            "end"
        )
        self._is_told_of_validation = True

    def _check_rates(self) -> None:
        """Warn of a learning rate that is 0 before the end."""
        steps, _ = self.limits.ends_after(self.steps_per_epoch)
        left = None if steps is None else steps - self.position.step
        warn_of_dead_end(self.trainer.optimizer, left)

    def _look_for_validation(self) -> None:
        """Warn of a validation that was never due: how far the run gets was not known before."""
        if self.validate_fn is None or self.position.metrics:
            return
        if self.stopped in ("epochs", "steps", "seconds") and not self._is_told_of_validation:
            warn_user(
                f"validate_every={self.validate_every} was never due in {self.position.step} "
                "steps, so that nothing was validated",
            )

    def _look_for_best(self) -> None:
        """Warn that no validation was the best one, since each found NaN."""
        name = f"{OF_VALIDATION}{self.monitor.metric}"
        found = [entry[name] for entry in self.position.history if name in entry]
        if found and all(map(math.isnan, found)) and not self.checkpoints.restores_best:
            warn_user(
                f"{self.monitor.metric!r} was NaN in every validation ({len(found)}): no weights "
                "are the best ones, and Result.best is None",
            )

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Within the block, let the trainer watch losses, and begin no other training."""
        stepper, leaves_out = self.trainer.stepper, None
        if self._spikes is not None and not self._spikes.rolls_back:
            leaves_out = self._is_left_out
        with (
            displaced(self.trainer, "is_fitting", True),
            displaced(stepper, "undeclared", None),
            displaced(stepper, "undeclared_tensors", None),
            displaced(stepper, "leaves_out", leaves_out),
            displaced(stepper, "notes_norm", self._steps_are_heard),
        ):
            yield

    def _watch(self) -> None:
        """Look for random generators that would not be saved."""
        state = self.trainer.state
        saving = [thing for thing in state.values() if not hasattr(thing, "named_generators")]
        saving += [c for c in self.callbacks.all if hasattr(c, "state_dict")]
        if self.batches.is_same_each_time:
            saving.append(self.batches.loader)
        self.trainer.stepper.undeclared = Undeclared(
            generators_of(state).values(), saving, with_program=self.team.size > 1
        )

    def _watch_tensors(self) -> None:
        """Look for buffers and other tensors that would not be saved, or put back by a rollback."""
        things = [*self.trainer.state.values()]
        things += [c for c in self.callbacks.all if hasattr(c, "state_dict")]
        saved = self.checkpoints.store is not None
        found = UndeclaredTensors(things, SAVED if saved else PUT_BACK)
        if saved:
            found.watch(self.loss_fn)
        self.trainer.stepper.undeclared_tensors = found

    # The end

    def _end(self) -> Result:
        position, checkpoints = self.position, self.checkpoints
        self._look_for_validation()
        self._look_for_best()
        self.measured.check(position)
        if self.signals.received is None:
            checkpoints.warn_of_unsaved()
            checkpoints.restore_best()
        self._close()
        number = self.signals.received  # only now: one may have arrived while saving
        seconds = self.team.clock() - self._started
        interrupted = number and Interrupted(number, position.step, checkpoints.path)
        reason = interrupted.name if interrupted else self.stopped or "epochs"
        self._has_ended = True
        with self.measured.ending(
            position, checkpoints.path, are_best=checkpoints.restores_best and not interrupted
        ):
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
        """Report the error that ends the training to the callbacks, and unlock the store.

        Whatever ends it: a traceback that is kept, as by a notebook, would keep the lock.
        """
        try:
            yield
        except BaseException as error:
            position = self.position
            event = Failed(self, position.epoch, position.step, error)
            is_error = isinstance(error, Exception)
            # A loader may wait for ever in what an interrupt has ended.
            acts = [self._close if is_error else self.checkpoints.close]
            if is_error or not (self._has_ended or isinstance(error, Interrupted)):
                acts.insert(0, lambda: self.callbacks.send(event))
            for act in acts:
                try:
                    act()
                except Exception as another:
                    error.add_note(f"and then: {type(another).__name__}: {another}")
            raise

    def _close(self) -> None:
        self.batches.close()
        self.checkpoints.close()
