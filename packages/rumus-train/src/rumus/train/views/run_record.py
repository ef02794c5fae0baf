"""`RunRecord`: the contents of a run folder, read in one pass and bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.memory.uninterrupted import is_of_handler
from rumus.train.base.append_file import RunFolderWarning
from rumus.train.checkpoints.checkpoints import Checkpoints, SavedCheckpoint
from rumus.train.views.curve import Curve
from rumus.train.views.metrics_file import read_metrics
from rumus.train.views.run_folder import (
    CONFIG,
    DONE,
    ENVIRONMENT,
    METRICS,
    RunFolderError,
    read_record,
)

_LAST: Final = 12  # epochs and starts listed individually
_NAMES: Final = 64  # curves that are kept
# Fields of a line that are no measurements; a metric of a validation may have any name.
_OF_LINE: Final = frozenset(
    ("v", "t", "split", "epoch", "step", "seconds", "samples", "spans", "logged")
)
_MATRICES: Final = 6  # names of confusion matrices that are kept


@dataclass(slots=True)
class Confusion:
    """A confusion matrix of a validation: its counts by target and prediction."""

    step: int
    is_best: bool
    counts: list[list[int]]


@dataclass(slots=True)
class RunRecord:
    """curves: by name, as "train loss" or "validation accuracy". epochs: the lines of the last.

    seconds: by phase. ended: why, None if it is running or was killed. best: step and metrics of
    the best validation. confusion: by name, the matrices of the best validation and of the last.
    classes: their names, where the data has any.
    """

    path: Path
    config: dict[str, Any] = field(default_factory=dict)
    starts: list[dict[str, Any]] = field(default_factory=list)
    curves: dict[str, Curve] = field(default_factory=dict)
    epochs: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_LAST))
    checkpoints: tuple[SavedCheckpoint, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    epoch_count: int = 0
    step: int = 0
    ended: str | None = None
    error: str | None = None
    is_done: bool = False
    best: dict[str, Any] = field(default_factory=dict)
    confusion: dict[str, list[Confusion]] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its name: that of its folder."""
        return self.path.resolve().name

    def values(self, split: str) -> dict[str, Curve]:
        """The curves of "train", "validation" or "epoch", by the names of their numbers."""
        return {
            name.removeprefix(f"{split} "): curve
            for name, curve in self.curves.items()
            if name.startswith(f"{split} ")
        }

    def take(self, line: Mapping[str, Any]) -> None:
        """Add one line of metrics.jsonl."""
        split, step = str(line.get("split", "")), line.get("step", 0)
        if not isinstance(step, int):
            return
        self.step = max(self.step, step)
        logged = line.get("logged", {})
        found = line.get("metrics", {}) if split == "validation" else {**line, **logged}
        if split in ("train", "validation", "epoch") and isinstance(found, Mapping):
            self._add(split, step, found)
        if split == "validation" and line.get("best"):
            self.best = {**found, "step": step}
        if split == "validation":
            self._confuse(step, line)
        if split == "epoch":
            self.epochs.append(dict(line))
            self.epoch_count += 1
        if split in ("start", "end"):
            self.ended, self.error = line.get("reason"), line.get("error")
            self.classes = line.get("classes", self.classes)
        self._time(split, line)

    def _add(self, split: str, step: int, found: Mapping[str, Any]) -> None:
        for name, value in found.items():
            if split != "validation" and name in _OF_LINE:
                continue
            key = f"{split} {name}"
            if key in self.curves or len(self.curves) < _NAMES:
                try:
                    self.curves.setdefault(key, Curve()).add(step, float(value))
                except (TypeError, ValueError, OverflowError):
                    continue

    def _confuse(self, step: int, line: Mapping[str, Any]) -> None:
        """Keep the matrices of a validation until a better one, or the next."""
        for name, counts in line.get("confusion", {}).items():
            if counts and (name in self.confusion or len(self.confusion) < _MATRICES):
                found = Confusion(step, bool(line.get("best")), counts)
                kept = [] if found.is_best else self.confusion.get(name, [])
                self.confusion[name] = [*[each for each in kept if each.is_best], found]

    def _time(self, split: str, line: Mapping[str, Any]) -> None:
        phases = {
            "epoch": "epochs", "validation": "validation", "checkpoint": "checkpoints", "end": "all"
        }  # fmt: skip
        found = {phases[split]: line.get("seconds")} if split in phases else {}
        spans = line.get("spans")
        if isinstance(spans, Mapping):
            found |= {f"{name} of steps": value for name, value in spans.items() if value}
        for name, value in found.items():
            if isinstance(value, (int, float)):
                self.seconds[name] = self.seconds.get(name, 0.0) + value


def read_run(path: str | Path) -> RunRecord:
    """Read a run folder, skipping missing or damaged parts. Raises RunFolderError.

    Damage is said by a RunFolderWarning.
    """
    path = Path(path)
    if not (path / METRICS).exists():
        raise RunFolderError(f"{path} is not a run folder: there is no {METRICS}")
    record = RunRecord(path)
    try:
        for line in read_metrics(path / METRICS):
            record.take(line)
    except OSError as error:
        if is_of_handler(error):
            raise
        raise RunFolderError(f"{path / METRICS} cannot be read: {error}") from error
    config, environment, done = (_record(path / each) for each in (CONFIG, ENVIRONMENT, DONE))
    if (config is None) != (environment is None):
        lost = ENVIRONMENT if environment is None else CONFIG
        warn_user(f"{path} is damaged: there is no {lost}", RunFolderWarning)
    record.config = config or {}
    starts = (environment or {}).get("starts", [])
    if isinstance(starts, list):
        record.starts = [start for start in starts if isinstance(start, dict)]
    if record.starts != starts:
        warn_user(f"{path / ENVIRONMENT} is damaged: its starts are no tables", RunFolderWarning)
    record.is_done = done is not None
    if record.is_done and record.ended is None:
        warn_user(
            f"{path / METRICS} is damaged: the run has ended, as {DONE} says, and there is no line "
            "of it",
            RunFolderWarning,
        )
    if (path / "checkpoints").is_dir():
        record.checkpoints = Checkpoints(path / "checkpoints").list()
    return record


def _record(path: Path) -> dict[str, Any] | None:
    """The table in a file, empty if it is damaged; None if there is no file."""
    return (read_record(path) or {}) if path.exists() else None
