"""`RunCheckpoints`: what a run restores at its start, saves on its way, and restores at its end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.memory.uninterrupted import is_of_handler
from rumus.train.base.every import Every
from rumus.train.base.position import Position
from rumus.train.base.printable import printable
from rumus.train.base.random_sources import restore_program, states_of_program
from rumus.train.checkpoints.checkpoint_errors import CheckpointWarning
from rumus.train.checkpoints.checkpoint_store import Resume, Saved, Store, checkpoint_to_resume
from rumus.train.checkpoints.checkpoints import Checkpoints
from rumus.train.checkpoints.snapshot import average_of, restore, take, taking
from rumus.train.checkpoints.state_tree import split
from rumus.train.loop.continuation import forget_changed
from rumus.train.loop.events import CheckpointSaved
from rumus.train.loop.rollback import Rollback
from rumus.train.loop.spikes import SpikeWatch

if TYPE_CHECKING:
    from rumus.train.loop.run import Run


class _Progress:
    """The position of a run, with the program's generators, which nothing else holds.

    position: of the run.
    restores_random: whether loading it sets the generators.
    """

    def __init__(self, position: Position, restores_random: bool) -> None:
        self._position, self._restores_random = position, restores_random

    def state_dict(self) -> dict[str, Any]:
        """Return the position, and the states of the generators."""
        self._position.random = states_of_program()
        return self._position.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the position and set the generators. ValueError for what is no state of them."""
        self._position.load_state_dict(state)
        if self._restores_random:
            restore_program(self._position.random)


class RunCheckpoints:
    """The checkpoints of one run.

    run: whose they are.
    store: where they are; None for none.
    every: when one is due.
    rollback: of the run; what is saved is good.
    spikes: of the run; losses so far are judged before anything is saved.
    restores_best: whether the run ends with the weights of the best validation.
    now: the time at which the run starts.
    """

    def __init__(
        self,
        run: Run,
        store: Store | None,
        every: Every,
        rollback: Rollback,
        spikes: SpikeWatch | None,
        *,
        restores_best: bool,
        now: float,
    ) -> None:
        self._run, self.store, self.every = run, store, every
        self._rollback, self._spikes, self.restores_best = rollback, spikes, restores_best
        self._model: dict[str, Any] = {}
        self.path: Path | None = None  # of the last one
        self.is_asked = False  # for one after the running step
        self._saved_at: tuple[int, int, bool] | None = None
        self._saved_time = now

    def begin(self, model: dict[str, Any], resume: Resume) -> Saved | None:
        """Return the checkpoint to continue from, if any; from now on the store is this run's.

        model: the parts of the model and its optimizer.
        """
        self._model = model
        store, once = self.store, self._run.team.once
        if isinstance(store, Checkpoints):
            self._check_savable()
        found = None
        if store is not None or resume not in (False, "auto"):
            found = once("resume", lambda: checkpoint_to_resume(store, resume))
        if store is not None:
            once("acquire", store.acquire)
        return found

    def _check_savable(self) -> None:
        """Raise TypeError or ValueError now for what no checkpoint could hold after all the work.

        Parameters and optimizers can be saved; other parts are small.
        """
        for name, part in {**self._model, **self._of_run}.items():
            if hasattr(part, "named_parameters"):
                continue
            try:
                state = part.state_dict()
            except Exception as error:
                if is_of_handler(error):
                    raise
                continue  # a callback may have its state only once the run has begun
            split({name: state})

    def restore(self, found: Saved) -> None:
        """Continue from a checkpoint. Raises ValueError for one that does not fit the run."""
        self._check_monitored(found)
        restore({**self._model, **self._of_run}, found.state, f"the checkpoint {found.path}")
        self._saved_at, self.path = self._place, found.path
        self._check_best()
        self._spare_best()

    def after_step(self, now: float) -> None:
        """Save a checkpoint if one is due within an epoch.

        now: the time.
        """
        step = self._run.position.step
        if self.is_asked or self.every.in_epoch(step, now - self._saved_time):
            self.save()

    def after_epoch(self) -> None:
        """Save a checkpoint if one is due after an epoch."""
        run = self._run
        if self.is_asked or self.every.after_epoch(run.position.epoch):
            self.save()
        else:
            self.after_step(run.team.clock())

    def save_if_asked(self) -> None:
        """Save a checkpoint if a callback, or a best validation, has asked for one."""
        if self.is_asked:
            self.save()

    def save(self) -> None:
        """Save a checkpoint, unless this step has one."""
        self.is_asked = False
        store, run = self.store, self._run
        if store is None or not self.has_unsaved:
            return
        metric = self._metric()
        if self._spikes is not None:
            self._spikes.look()
        position, stepper, start = run.position, run.trainer.stepper, perf_counter()
        if stepper.undeclared is not None:
            stepper.undeclared.before_save()
        if stepper.undeclared_tensors is not None:
            stepper.undeclared_tensors.before_save()
        forget_changed(run)
        with taking(store):
            tree = take({**self._model, **self._of_run})
            tree |= average_of(stepper.optimizer, self._model)
        self._rollback.note_good({name: tree[name] for name in self._model})
        path = run.team.once("save", lambda: store.save(position.step, tree, metric=metric))
        self._saved_time = run.team.clock()
        if path is not None:
            self.path, self._saved_at = path, self._place
        seconds = perf_counter() - start
        run.apart += seconds
        run.callbacks.send(CheckpointSaved(run, position.epoch, position.step, path, seconds))

    @property
    def has_unsaved(self) -> bool:
        """Whether this step has no checkpoint."""
        return self._place != self._saved_at

    def warn_of_unsaved(self) -> None:
        """Warn at the end of a run that its last checkpoint failed: there is no next one."""
        if self.store is not None and self.has_unsaved:
            last = "there is no checkpoint" if self.path is None else f"the last is {self.path}"
            warn_user(
                f"the training has ended after step {self._run.position.step}, which is not saved: "
                f"{printable(last)}. The weights are in memory only: save them elsewhere, as with "
                "model.save_file(path)",
                CheckpointWarning,
            )

    def note_best(self) -> None:
        """Ask for a checkpoint of the best validation, which the next save would overwrite."""
        if self.restores_best or getattr(self.store, "keep_best", None) is not None:
            self.is_asked = True

    def restore_best(self) -> None:
        """Restore parameters and optimizer from the best validation, if the run is to end so."""
        if not self.restores_best:
            return
        run, store = self._run, self.store
        position, best_step = run.position, run.position.best_step
        assert store is not None
        if best_step is None:
            name = run.monitor.metric
            why = f"no validation returned a numeric {name!r}"
            if not math.isnan(position.metrics.get(name, math.nan)):
                why = f"all weights that a validation found a {name!r} for were changed after it"
            raise ValueError(f"restore_best=True: {why}, so there is no best one")
        if best_step == position.metrics_step == position.step:
            return
        best = run.team.once("best", lambda: store.load(best_step))
        state = {name: best.state[name] for name in self._model}
        restore(self._model, state, f"the checkpoint {best.path}")

    def close(self) -> None:
        """Wait for what is being written."""
        if self.store is not None and self._run.team.speaks:
            self.store.close()

    @property
    def _of_run(self) -> dict[str, Any]:
        """What a checkpoint has beside the model and its optimizer."""
        run = self._run
        return {
            "position": _Progress(run.position, run.team.size == 1),
            "losses": run.trainer.stepper.losses,
            "batches": run.batches,
            "callbacks": run.callbacks,
        }

    @property
    def _place(self) -> tuple[int, int, bool]:
        position = self._run.position
        return position.epoch, position.step, position.validation_due

    def _metric(self) -> float | None:
        """The monitored metric of the current weights; None if they were not validated."""
        position = self._run.position
        if not position.validation_due:
            self._run.measured.check(position)
        if position.metrics_step != position.step or position.validation_due:
            return None
        return position.metrics.get(self._run.monitor.metric)

    def _check_monitored(self, saved: Saved) -> None:
        """Raise instead of comparing a metric with the best value of another one."""
        run, found = self._run, saved.state.get("position", {})
        before = found.get("monitor"), found.get("mode")
        now = run.monitor.metric, run.monitor.mode
        if run.validate_fn is not None and before[0] is not None and before != now:
            raise ValueError(
                f"the best value in {saved.path} is for monitor={before[0]!r}, "
                f"mode={before[1]!r}, but here they are {now[0]!r} and {now[1]!r}: continue with "
                "the former, or in a new folder"
            )

    def _check_best(self) -> None:
        """Raise, before the training and not after it, if the best weights are not in the store."""
        best, listed = self._run.position.best_step, getattr(self.store, "list", None)
        if not self.restores_best or best is None or listed is None:
            return
        if best not in self._run.team.once("list", lambda: [saved.step for saved in listed()]):
            raise ValueError(
                f"restore_best=True: the best validation so far was after step {best}, whose "
                f"checkpoint is not in {getattr(self.store, 'folder', self.store)}: resume in the "
                "folder that has it, or leave restore_best= out"
            )

    def _spare_best(self) -> None:
        """Keep the best checkpoint so far where this run does not say which one is better."""
        best, spare = self._run.position.best_step, getattr(self.store, "spare", None)
        if best is not None and spare is not None and self.store.keep_best is None:  # type: ignore[union-attr]
            spare(best)
