"""`RunFolder`: everything worth keeping about a training, in one folder.

config.toml              what was asked for
env.json                 what each start of it ran on
metrics.jsonl            what was measured: `read_metrics`
events.out.tfevents.*    the same for TensorBoard
checkpoints/             for `fit(checkpoints=folder.checkpoints)`
report.html              the same for a person: `write_report`
DONE                     why it ended, if it was not interrupted
"""

from __future__ import annotations

import json
import math
import os
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.tensor import NonFiniteGradientError, Tensor
from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.declared_type import shown
from rumus.tensor.expression.printable import PrintableError
from rumus.tensor.expression.state_names import check_names
from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.memory.uninterrupted import is_of_handler
from rumus.train.base.append_file import AppendFile, RunFolderWarning
from rumus.train.base.class_names import classes_of
from rumus.train.base.configuration import configuration_table
from rumus.train.base.every import Every
from rumus.train.base.late_values import late_values
from rumus.train.base.printable import printable
from rumus.train.base.regular_file import require_regular_file
from rumus.train.base.sealed import fault_of_seal, sealed_json, sealed_toml
from rumus.train.base.strict_json import parse
from rumus.train.base.toml_text import parse_toml, to_toml
from rumus.train.checkpoints.checkpoint_errors import FolderInUseError
from rumus.train.checkpoints.file_system import LocalFileSystem
from rumus.train.checkpoints.folder_lock import FolderLock
from rumus.train.loop.callback import Callback
from rumus.train.loop.environment import environment
from rumus.train.loop.events import (
    CheckpointSaved,
    EpochEnd,
    Failed,
    StepEnd,
    TrainEnd,
    TrainStart,
    ValidationEnd,
)
from rumus.train.views.metrics_file import append_metrics, open_metrics
from rumus.train.views.tensorboard_file import TensorBoardFile

CONFIG, ENVIRONMENT, METRICS, DONE = "config.toml", "env.json", "metrics.jsonl", "DONE"
_DENSE: Final = 250  # steps that are all written down; later ones ever more sparsely
_SPARSE: Final = 1.0  # seconds, after which there is a line in any case
_FLUSH: Final = 1.0  # seconds that lines wait at most for others, to be read and written together
_WAITING: Final = 1024  # lines that wait at most
_RATE: Final = 0.2  # seconds over which a throughput is measured at least
_CLASSES: Final = 100  # of a confusion matrix that is kept, at most
_STARTS: Final = 100  # that env.json tells of, the last ones


class RunFolderError(PrintableError, RuntimeError):
    """A run folder cannot be written, or holds another run."""


@dataclass(slots=True)
class _Noted:
    """A step whose numbers have not been read yet."""

    time: float
    epoch: int
    step: int
    rate: float | None
    loss: Tensor
    norm: Tensor | None
    logged: Mapping[str, Tensor]

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors to read."""
        norm = [] if self.norm is None else [self.norm]
        return [self.loss, *norm, *self.logged.values()]

    def row(self, values: Iterator[float]) -> dict[str, Any]:
        """Return its fields; `values` are those of `tensors`."""
        loss = next(values)
        norm = None if self.norm is None else next(values)
        logged = {name: next(values) for name in self.logged}
        row: dict[str, Any] = {"loss": loss, "lr": self.rate, "grad_norm": norm}
        return {**row, "logged": logged} if logged else row


class RunFolder(Callback):
    """Records a training in a folder: pass it to `fit` as a callback.

    path: the folder, created if missing.
    config: written to config.toml: a dataclass, or a mapping of bool, numbers, text, lists and
        mappings.
    seed: written to env.json.
    log_every: which steps get a line in metrics.jsonl; by default each of the first 250, then at
        growing intervals, and one per second.
    tensorboard, report: whether to write event files, and a report.html at the end.

    Between two reads a step costs less than a microsecond. Losses and norms are read once a second,
    at the ends of epochs, and before a checkpoint or a validation is recorded.

    At the start, raises RunFolderError if the folder cannot be written, holds a complete run or one
    with another configuration, or if the resumed checkpoint belongs to another run;
    FolderInUseError while another process writes there. Later, a full disk causes a
    RunFolderWarning and training continues. A resume removes lines newer than its checkpoint. A
    forked child of the program writes nothing.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from rumus.optim import SGD
    >>> from rumus.tensor import Parameter
    >>> from rumus.train import RunFolder, Trainer, read_metrics
    >>> weight = Parameter([4.0], name="weight")
    >>> folder = RunFolder(Path(tempfile.mkdtemp()) / "run", config={"lr": 0.25})
    >>> result = Trainer(SGD([weight], 0.25)).fit(
    ...     [()] * 2, lambda: (weight * weight).sum(), epochs=1, callbacks=[folder],
    ...     checkpoints=folder.checkpoints, weight_of=lambda: 1.0)
    >>> [line["loss"] for line in read_metrics(folder.metrics) if line["split"] == "train"]
    [16.0, 4.0]
    """

    order = 10
    speaks = True

    @checked_arguments
    def __init__(
        self,
        path: str | Path,
        *,
        config: object = None,
        seed: int | None = None,
        log_every: Every | None = None,
        tensorboard: bool = True,
        report: bool = True,
    ) -> None:
        Every.check("log_every", log_every)
        self.path = Path(path).absolute()  # whatever the program's folder is later
        self.seed, self.log_every = seed, log_every
        if config is not None and not isinstance(config, Mapping):
            config = configuration_table(config)
        self._config = sealed_toml(to_toml(config or {}))
        self._tensorboard, self._report = tensorboard, report
        self._lock = FolderLock(LocalFileSystem(), self.path)
        self._id: str | None = None  # of the run, in its checkpoints and in env.json
        self._lines: AppendFile | None = None
        self._events: TensorBoardFile | None = None
        self._noted: list[_Noted] = []
        self._next_step = self._next_time = 0.0
        self._flushed = self._rate_since = 0.0
        self._samples = 0.0
        _run_folders.add(self)

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """The file of measurements."""
        return self.path / METRICS

    def prepare(self) -> None:
        """Create the folder and lock it; the start of a training does so too.

        Raises RunFolderError if it cannot be written, FolderInUseError if another process holds it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except FolderInUseError:
            raise
        except OSError as error:
            if is_of_handler(error):
                raise
            raise self._unwritable(error) from error

    def state_dict(self) -> dict[str, Any]:
        """Return the run's identity, so that no other run continues here."""
        return {"run": self._id}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the run's identity."""
        check_names(self, state, ("run",))
        if not isinstance(state["run"], str | None):
            raise ValueError(f"run: saved {shown(state['run'])}, which is not a run's name")
        self._id = state["run"]

    # Events

    def on_train_start(self, event: TrainStart) -> None:
        """Open the files; see the class for the errors."""
        self.prepare()
        try:
            self._begin(event)
        except BaseException:  # whatever it is: its traceback may be kept, and would keep the lock
            self._close()
            raise

    def _begin(self, event: TrainStart) -> None:
        starts = self._check_run(event)
        self._id = self._id or os.urandom(8).hex()
        try:
            (self.path / DONE).unlink(missing_ok=True)
            self._replace(CONFIG, self._config)
            starts = [*starts, environment(event.run, self.seed)][-_STARTS:]
            content = {"version": 1, "run": self._id, "starts": starts}
            self._replace(ENVIRONMENT, sealed_json(json.dumps(content, indent=2)))
            self._lines = open_metrics(self.metrics, _before(event))
            if self._tensorboard:
                self._events = TensorBoardFile(self.path, event.step)
        except OSError as error:
            if is_of_handler(error):
                raise
            raise self._unwritable(error) from error
        resumed = None if event.resumed_from is None else event.resumed_from.name
        started = {"resumed_from": resumed, "classes": _classes(event)}
        self._write("start", event.epoch, event.step, started)
        self._flushed = self._rate_since = time.perf_counter()
        self._next_step = self._next_time = self._samples = 0.0

    def on_step_end(self, event: StepEnd) -> None:
        """Note a step that is due."""
        self._samples += event.samples
        now = time.perf_counter()
        if self._lines is None:
            return
        if event.step < self._next_step and now < self._next_time:
            return
        rate, norm = event.learning_rate, event.gradient_norm()
        self._noted.append(
            _Noted(time.time(), event.epoch, event.step, rate, event.loss, norm, event.logged)
        )
        self._next_step, self._next_time = self._after(event.step, now)
        if now - self._flushed >= _FLUSH or len(self._noted) >= _WAITING:
            self.flush()

    def on_validation_end(self, event: ValidationEnd) -> None:
        """Write a validation's metrics."""
        self._rate_since += event.seconds
        self.flush()
        metrics = {name: float(value) for name, value in event.metrics.items()}
        found: dict[str, Any] = {"metrics": metrics, "best": event.is_best}
        found["seconds"] = event.seconds
        if confusion := kept_matrices(event.confusion):
            found["confusion"] = confusion
        self._write("validation", event.epoch, event.step, found, metrics)

    def on_epoch_end(self, event: EpochEnd) -> None:
        """Write the mean loss of an epoch, and the time of its parts."""
        self.flush()
        found = {"loss": event.loss, "samples": event.samples, "seconds": event.seconds}
        spans = {} if event.spans is None else {"spans": asdict(event.spans)}
        logged = {"logged": dict(event.logged)} if event.logged else {}
        shown = {"loss": event.loss, **event.logged}
        self._write("epoch", event.epoch, event.step, {**found, **spans, **logged}, shown)

    def on_checkpoint(self, event: CheckpointSaved) -> None:
        """Write the path of a checkpoint, or that it could not be saved."""
        self._rate_since += event.seconds
        self.flush()
        found = {"path": None if event.path is None else event.path.name, "seconds": event.seconds}
        self._write("checkpoint", event.epoch, event.step, found)

    def on_train_end(self, event: TrainEnd) -> None:
        """Write why it ended, and the report; DONE, unless a signal has ended it."""
        if self._lines is None:
            return
        self.flush()
        ended = {"reason": event.reason, "seconds": event.seconds}
        self._write("end", event.epoch, event.step, ended)
        if event.run.signals.received is None:
            done = {"reason": event.reason, "epoch": event.epoch, "step": event.step}
            with self._said(DONE):
                self._replace(DONE, json.dumps(done) + "\n")
        self._finish()

    def on_error(self, event: Failed) -> None:
        """Write the known steps before an error, and the error."""
        if self._lines is None:
            return
        for _ in range(2):  # the first look at a device may be what tells of the error
            with suppress(NonFiniteGradientError):
                self.flush()
                break
        error = f"{type(event.error).__name__}: {event.error}"
        self._write("end", event.epoch, event.step, {"reason": "error", "error": error[:2000]})
        self._finish()

    # Lines

    def flush(self) -> None:
        """Read the numbers of the noted steps, and write their lines."""
        if not self._noted or self._lines is None:
            return
        noted, self._noted = self._noted, []
        read = iter(late_values([value for at in noted for value in at.tensors]))
        rows = [at.row(read) for at in noted]
        rows[-1]["samples_s"] = self._throughput()
        append_metrics(
            self._lines,
            (
                _line("train", at.epoch, at.step, row, at.time)
                for at, row in zip(noted, rows, strict=True)
            ),
        )
        if self._events is not None:
            self._events.append(
                (at.time, at.step, _tagged("train", row))
                for at, row in zip(noted, rows, strict=True)
            )

    def _throughput(self) -> float | None:
        """Samples per second since the last time; the device has finished all of them."""
        self._flushed = now = time.perf_counter()
        seconds = now - self._rate_since
        if seconds < _RATE:
            return None
        found = self._samples / seconds
        self._rate_since, self._samples = now, 0.0
        return found

    def _after(self, step: int, now: float) -> tuple[float, float]:
        """The step of the next line after this one."""
        every = self.log_every
        if every is None:
            stride = 1 << (step // _DENSE).bit_length()
            return step - step % stride + stride, now + _SPARSE
        steps = math.inf if every.steps is None else step - step % every.steps + every.steps
        return steps, now + (math.inf if every.seconds is None else every.seconds)

    def _write(
        self,
        split: str,
        epoch: int,
        step: int,
        found: Mapping[str, Any],
        shown: Mapping[str, float] | None = None,
    ) -> None:
        now = time.time()
        if self._lines is not None:
            append_metrics(self._lines, [_line(split, epoch, step, found, now)])
        if self._events is not None and shown:
            self._events.append([(now, step, _tagged(split, shown))])

    # The folder

    def _check_run(self, event: TrainStart) -> list[Any]:
        """Raise for the folder of another run; return the earlier starts from its env.json."""
        if event.resumed_from is None:
            self._id = None
            self._check_fresh()
            return []
        environment = self.path / ENVIRONMENT
        there = (read_record(environment) if environment.exists() else None) or {}
        other = there.get("run")
        if other is not None and other != self._id:
            raise RunFolderError(
                f"{self.path} holds a different run from the one that {event.resumed_from} "
                "belongs to; choose another folder"
            )
        starts = there.get("starts")
        return starts if isinstance(starts, list) else []

    def _check_fresh(self) -> None:
        done = self.path / DONE
        if done.exists():
            told = printable(_text_of(done).strip())
            raise RunFolderError(
                f"{self.path} holds a complete run ({told}), and nothing is resumed; choose "
                "another folder"
            )
        config = self.path / CONFIG
        if not config.exists() or not self.metrics.exists():
            return
        now, before = parse_toml(self._config), read_record(config)
        if before is None:
            raise RunFolderError(
                f"{self.path} holds a run with a damaged {CONFIG}, and nothing is resumed; choose "
                "another folder"
            )
        names = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
        if names:
            raise RunFolderError(
                f"{self.path} holds a run with another configuration (of {', '.join(names)}), "
                "and nothing is resumed; choose another folder"
            )

    def _replace(self, name: str, text: str) -> None:
        beside = self.path / f"{name}.tmp"
        beside.unlink(missing_ok=True)  # whatever it is: a pipe would wait for a reader
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, self.path / name)

    def _unwritable(self, error: OSError) -> RunFolderError:
        return RunFolderError(
            f"the run folder {self.path} cannot be written ({error}); choose another, or make it "
            "writable"
        )

    def _said(self, what: str, kind: type[Exception] = OSError) -> _Said:
        return _Said(self.path / what, kind)

    def _finish(self) -> None:
        self._close()
        if self._report:
            from rumus.train.views.report import write_report

            with self._said("report.html", Exception):
                write_report(self.path)

    def _close(self) -> None:
        self.forget()
        self._lock.release()

    def forget(self) -> None:
        """Close the files, as in a forked child: they are its parent's."""
        for file in (self._lines, self._events):
            if file is not None:
                file.close()
        self._lines = self._events = None
        self._noted.clear()


_run_folders: weakref.WeakSet[RunFolder] = weakref.WeakSet()


def _forget_run_folders() -> None:
    for folder in list(_run_folders):
        folder.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_run_folders)


class _Said(suppress):
    """Within its block, errors of a kind become warnings: the training is already done."""

    def __init__(self, path: Path, kind: type[Exception]) -> None:
        super().__init__(kind)
        self._path = path

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        if error is not None and is_of_handler(error):
            return False
        held = bool(super().__exit__(kind, error, trace))
        if error is not None and held:
            warn_user(f"{self._path} was not written: {error}", RunFolderWarning)
        return held


def read_record(path: Path) -> dict[str, Any] | None:
    """Return the table in a file of a run folder; None if it has none.

    A RunFolderWarning says that it is damaged.
    """
    try:
        require_regular_file(path)
        text = path.read_text("utf-8")
        found = parse_toml(text) if path.suffix == ".toml" else parse(text.encode())
        fault = fault_of_seal(text) if isinstance(found, dict) else "it holds no table"
        fault = fault if text.strip() else "it is empty"
    except (OSError, ValueError) as error:
        if is_of_handler(error):
            raise
        found, fault = None, str(error)
    if fault is not None:
        warn_user(f"{path} is damaged: {fault}", RunFolderWarning)
    return found if isinstance(found, dict) else None


def _text_of(path: Path) -> str:
    """The contents of a regular file; OSError for a pipe, which would block."""
    require_regular_file(path)
    return path.read_text("utf-8", "replace")


def kept_matrices(confusion: Mapping[str, NDArray[Any]]) -> dict[str, list[list[int]]]:
    """Return the counts of confusion matrices for JSON, without those of many classes."""
    few = {name: counts for name, counts in confusion.items() if len(counts) <= _CLASSES}
    return {name: counts.astype(np.int64).tolist() for name, counts in few.items()}


def _classes(event: TrainStart) -> list[str] | None:
    """The names of the classes of the validation's data, if it has any that are kept."""
    validate = event.run.validate_fn
    found = classes_of(validate[0]) if isinstance(validate, tuple) else []
    return found if 0 < len(found) <= _CLASSES else None


def _line(
    split: str, epoch: int, step: int, found: Mapping[str, Any], when: float
) -> dict[str, Any]:
    return {"t": round(when, 3), "split": split, "epoch": epoch, "step": step, **found}


def _tagged(split: str, values: Mapping[str, Any]) -> dict[str, float]:
    flat = {name: value for name, value in values.items() if name != "logged"}
    flat |= values.get("logged", {})
    return {f"{split}/{name}": value for name, value in flat.items() if value is not None}


def _before(event: TrainStart) -> Any:
    """What says whether a line is of what the checkpoint holds, and will not be written again."""
    position = event.run.position
    again = position.exhausted or position.validation_due  # the validation of this very step

    def keep(line: Mapping[str, Any]) -> bool:
        step = line.get("step", 0)
        if event.resumed_from is None or not isinstance(step, int) or step > event.step:
            return False
        if line.get("split") == "epoch":
            return bool(line.get("epoch", 0) < position.epoch)
        return not (again and line.get("split") == "validation" and step == event.step)

    return keep
