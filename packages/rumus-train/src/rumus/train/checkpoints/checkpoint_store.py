"""`Store`: where a run keeps its checkpoints, and which one it starts from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from rumus.tensor.expression.declared_type import check_path, shown
from rumus.train.checkpoints.checkpoint_errors import CheckpointError
from rumus.train.checkpoints.checkpoints import Checkpoints, warn_of_skipped
from rumus.train.checkpoints.keep_policy import Best

Resume: TypeAlias = bool | str | Path  # the only string that is not a path is "auto"


class Saved(Protocol):
    """A checkpoint that was read."""

    @property
    def state(self) -> Mapping[str, Any]:
        """The saved state."""
        ...

    @property
    def path(self) -> Path:
        """Its location."""
        ...


class Store(Protocol):
    """Keeps the checkpoints of a run; `Checkpoints` does so in a folder."""

    @property
    def latest(self) -> int | None:
        """The step of the newest checkpoint, None if there is none."""
        ...

    def save(self, step: int, state: Mapping[str, Any], metric: float | None = None) -> Path | None:
        """Save a state; return its location, or None if that failed and training should continue.

        step: the number of steps that were applied.
        state: by name.
        metric: its value at that step, None if there is none.
        """
        ...

    def load(self, step: int | None = None) -> Saved:
        """Return the newest valid checkpoint, or that of a step; NoCheckpointError if none.

        step: None for the newest.
        """
        ...

    def acquire(self) -> None:
        """Lock the store for saving; OSError if nothing can be saved."""
        ...

    def close(self) -> None:
        """Wait until everything is saved."""
        ...


def order_of(given: object) -> Best | None:
    """Return the metric by which a store keeps the best checkpoint; a folder follows the run."""
    best: Best | None = None if isinstance(given, type) else getattr(given, "keep_best", None)
    return best


def as_store(given: Store | str | Path | None, best: Best | None) -> Store | None:
    """Return the given store; for a folder, its checkpoints, keeping the best one."""
    is_store = hasattr(given, "save") and not isinstance(given, type)
    if given is not None and not isinstance(given, (str, Path)) and not is_store:
        raise TypeError(f"checkpoints must be a folder or Checkpoints(folder), not {shown(given)}")
    if not isinstance(given, (str, Path)):
        return given
    check_path("checkpoints", given)
    where = Path(given).absolute()  # whatever the program's folder is later
    return Checkpoints(where, keep_best=best)


def check_resume(resume: object) -> None:
    """Raise TypeError for what says neither whether nor from where to resume, ValueError for ""."""
    if not isinstance(resume, (bool, str, Path)):
        raise TypeError(f'resume must be True, False, "auto" or a path, not {shown(resume)}')
    check_path("resume", resume)


def checkpoint_to_resume(store: Store | None, resume: Resume) -> Saved | None:
    """Return the checkpoint that a run starts from, None to start afresh.

    A CheckpointWarning tells of newer ones that cannot be loaded.

    ValueError for a resume without checkpoints. NoCheckpointError if there is nothing to resume.
    CheckpointError for a fresh start among another run's checkpoints.
    """
    if store is None and resume in (False, "auto"):
        return None
    if isinstance(resume, (str, Path)) and resume != "auto":
        path = Path(resume)
        name, _, number = path.name.partition("-")
        step = int(number) if name == "step" and number.isdecimal() else None
        folder = path if step is None else path.parent
        own = getattr(store, "folder", None)
        is_own = store is not None and own is not None and own.resolve() == folder.resolve()
        found = (store if store is not None and is_own else Checkpoints(folder)).load(step)
        warn_of_skipped(found)
        return found
    if store is None:
        raise ValueError("resume=True needs a folder to resume from: give checkpoints=folder")
    latest = store.latest
    if resume is False and latest is not None:
        raise CheckpointError(
            f"the folder holds checkpoints of another run, up to step {latest}: continue it with "
            'resume="auto" (rumus train: --resume auto), or choose another folder'
        )
    newest = store.load() if resume is True or latest is not None else None
    warn_of_skipped(newest)
    return newest
