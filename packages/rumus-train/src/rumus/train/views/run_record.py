"""`RunRecord`: the contents of a run folder, read in one pass and bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rumus.tensor.memory.uninterrupted import is_of_handler
from rumus.train.base.regular_file import require_regular_file
from rumus.train.base.strict_json import parse
from rumus.train.base.toml_text import parse_toml
from rumus.train.checkpoints.checkpoints import Checkpoints, SavedCheckpoint
from rumus.train.views.curve import Curve
from rumus.train.views.metrics_file import read_metrics
from rumus.train.views.run_folder import CONFIG, DONE, ENVIRONMENT, METRICS, RunFolderError

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

    Damaged lines of measurements are said by a RunFolderWarning.
    """
    path = Path(path)
    if not (path / METRICS).is_file():
        raise RunFolderError(f"{path} is not a run folder: there is no {METRICS}")
    record = RunRecord(path)
    for line in read_metrics(path / METRICS):
        record.take(line)
    record.config = _parsed(path / CONFIG, parse_toml)
    starts = _parsed(path / ENVIRONMENT, lambda text: parse(text.encode())).get("starts")
    if isinstance(starts, list):
        record.starts = [start for start in starts if isinstance(start, dict)]
    record.is_done = (path / DONE).exists()
    if (path / "checkpoints").is_dir():
        record.checkpoints = Checkpoints(path / "checkpoints").list()
    return record


def _parsed(path: Path, parse: Any) -> dict[str, Any]:
    try:
        require_regular_file(path)
        found = parse(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        if is_of_handler(error):
            raise
        return {}
    return found if isinstance(found, dict) else {}
