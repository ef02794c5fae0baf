"""`Checkpoints`: the checkpoints of one run; a valid one always remains.

A checkpoint is written under a name that ends in .tmp, synced to disk, and renamed. A folder with
its final name is complete; any other is left from an interrupted save, and the next save removes
it.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, Self

from rumus.tensor.expression.arguments import checked_first, place_arguments
from rumus.tensor.expression.choice import check_choice
from rumus.tensor.expression.decided import check_of_class, decided, is_decided
from rumus.tensor.expression.declared_type import shown, wanted
from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.memory.late_array import LateArray
from rumus.tensor.memory.uninterrupted import is_of_handler, suppressed
from rumus.train.base.other_names import CHECKPOINTS, CHECKPOINTS_OPTIONS
from rumus.train.base.printable import printable
from rumus.train.checkpoints.checkpoint_errors import (
    CheckpointError,
    CheckpointWarning,
    InvalidCheckpointError,
    NoCheckpointError,
)
from rumus.train.checkpoints.checkpoint_folder import Draft, Manifest, read_folder, read_manifest
from rumus.train.checkpoints.file_system import (
    FileSystem,
    LocalFileSystem,
    make_folders,
    remove_tree,
)
from rumus.train.checkpoints.folder_lock import FolderLock
from rumus.train.checkpoints.keep_policy import Best, KeepPolicy, best_of
from rumus.train.checkpoints.saving_thread import SavingThread
from rumus.train.checkpoints.state_tree import arrived, split

# A checkpoint that is being replaced stays valid under this name until the new one exists.
_NAME: Final = re.compile(r"step-(\d{8,})(\.replaced)?")
_RUBBISH: Final = re.compile(r"step-\d{8,}(\.replaced)?\.tmp")
_ROOM: Final = 1.2  # free space needed before writing a checkpoint, relative to its size


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    step: the number of steps that were applied.
    state: by name, as it was saved.
    path: of the file or folder.
    metric: its value at that step, None if there is none.
    skipped: newer ones that could not be loaded, with reasons.
    """

    step: int
    state: dict[str, Any]
    path: Path
    metric: float | None = None
    skipped: tuple[tuple[Path, str], ...] = ()


def warn_of_skipped(found: object) -> None:
    """Warn that a loaded checkpoint is older than others, which cannot be loaded."""
    if skipped := getattr(found, "skipped", ()):
        others = f", and {len(skipped) - 1} more" if len(skipped) > 1 else ""
        path, reason = skipped[0]
        warn_user(
            f"{printable(path)} cannot be loaded ({printable(reason)}){others}: the newest that "
            f"can, of step {getattr(found, 'step', '?')}, is taken instead",
            CheckpointWarning,
        )


@dataclass(frozen=True)
class SavedCheckpoint:
    """A summary of a checkpoint.

    step: the number of steps that were applied.
    path: of the file or folder.
    metric: its value at that step, None if there is none.
    size: in bytes.
    problem: why its manifest cannot be read, None if it can.
    """

    step: int
    path: Path
    metric: float | None = None
    size: int = 0
    problem: str | None = None


@dataclass(frozen=True)
class _Outcome:
    """The location of a save, if any, and what failed."""

    path: Path | None
    failed: str = ""
    error: OSError | None = None


@place_arguments
class Checkpoints:
    """Saves the state of a run to a folder, and finds the newest valid one.

    folder: made by the first save. keep_last: the number of newest checkpoints to keep. keep_best:
        also keep the one with the smallest ("min") or largest ("max") metric. keep_every: also keep
        those at steps divisible by it. The only checkpoint, and the loaded one, are never removed.
    on_error: whether a failed save warns (CheckpointWarning) and returns None, or raises.
    asynchronous: `save` copies the arrays, and a thread writes them; errors are reported by the
        next call, and at the end of the program. In `fit`, what is on a GPU is copied there, which
        takes as much memory as parameters and optimizer state, and the thread reads it while the
        next steps run; what there is no memory for is read at once.

    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from rumus.train import Checkpoints
    >>> checkpoints = Checkpoints(Path(tempfile.mkdtemp()) / "checkpoints")
    >>> state = {"model": {"weight": np.ones(2)}, "trainer": {"epoch": 3}}
    >>> checkpoints.save(120, state).name
    'step-00000120'
    >>> checkpoints.load().state
    {'model': {'weight': array([1., 1.])}, 'trainer': {'epoch': 3}}
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        keep_last: int = 3,
        keep_best: Best | None = None,
        keep_every: int | None = None,
        on_error: Literal["warn", "raise"] = "warn",
        asynchronous: bool = False,
        file_system: FileSystem | None = None,
    ) -> None:
        check_choice("on_error", on_error, ("warn", "raise"))
        if asked := wanted("FileSystem | None", globals(), file_system):
            raise TypeError(f"file_system must be {asked}, not {shown(file_system)}")
        self.folder = Path(folder)
        self.on_error = on_error
        self._keep = KeepPolicy(keep_last, keep_best, keep_every)
        self._fs = LocalFileSystem() if file_system is None else file_system
        self._lock = FolderLock(self._fs, self.folder)
        self._thread = SavingThread(_unheard) if asynchronous else None
        self._loaded: int | None = None  # the step that training continues from
        self._spared: int | None = None
        self._branched = False  # whether newer ones belong to an abandoned training
        self._metrics: dict[Path, float | None] = {}

    if not TYPE_CHECKING:  # so that type checkers see every method

        def __new__(cls, *args: object, **given: object) -> Self:  # noqa: D102
            CHECKPOINTS_OPTIONS.check_constructor(cls, args, given)
            return super().__new__(cls)

        def __getattr__(self, name: str) -> NoReturn:
            CHECKPOINTS.refuse(name)

        def __setattr__(self, name: str, value: object) -> None:
            CHECKPOINTS.check_assignment(self, name)
            check_of_class(self, name, value)
            if name in vars(self) and is_decided(name):
                raise decided(self, name)
            object.__setattr__(self, name, value)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def acquire(self) -> None:
        """Create and lock the folder; the first save does so too.

        FolderInUseError, with pid and host, if another process holds the lock. OSError if it cannot
        be made.
        """
        make_folders(self._fs, self.folder)
        self._lock.acquire()

    def close(self) -> None:
        """Wait for a running save, report its errors, and release the lock."""
        try:
            self._join()
        finally:
            self._lock.release()

    @checked_first
    def save(self, step: int, state: Mapping[str, Any], metric: float | None = None) -> Path | None:
        """Save `state` as the checkpoint of `step`; return its path, or None if it failed.

        step: the number of steps that were applied.
        state: mappings with str keys, and lists, of str, int, float, bool, None and NumPy arrays.
            The arrays below each top-level key become one file. Saving the last step again replaces
            it; an earlier step is an error. After `load`, checkpoints newer than the loaded one
            belong to an abandoned training: they are renamed to end in .aside.
        metric: its value at that step, None if there is none.

        Raises TypeError and ValueError for a state that cannot be saved, FolderInUseError if
        another process saves here, and with on_error="raise" OSError for disk errors. The earlier
        checkpoints stay, and the next save tries again.
        """
        self._join()
        if type(step) is not int or step < 0:
            raise ValueError(f"a step must be an int, 0 or more, not {step!r}")
        arrays, rest = split(state, copy=self._thread is not None)
        number = None if metric is None else float(metric)
        if self._thread is None:
            arrays = arrived(arrays)
        is_late = any(isinstance(a, LateArray) for group in arrays.values() for a in group.values())
        draft = None if is_late else Draft(step, number, arrays, rest)
        try:
            self.acquire()
            self._check_step(step)
        except OSError as error:
            if is_of_handler(error):
                raise
            return self._heard(_Outcome(None, _not_saved(step), error))
        if self._thread is None:
            assert draft is not None
            return self._heard(self._save(draft))
        self._thread.start(lambda: self._save(draft or Draft(step, number, arrived(arrays), rest)))
        return self._path(step)

    @checked_first
    def load(self, step: int | None = None) -> Checkpoint:
        """Return the newest valid checkpoint, or that of `step`, with every byte verified.

        step: None for the newest valid one.

        NoCheckpointError if there is none, with what is wrong with each. A program that resumes
        from here saves only later steps; the checkpoint is kept while it runs.
        """
        self._join()
        skipped: list[tuple[Path, str]] = []
        for found, path in self._candidates():
            if step not in (None, found):
                continue
            try:
                manifest, state = self._read(path, found)
            except InvalidCheckpointError as error:
                skipped.append((path, str(error)))
                continue
            self._loaded, self._branched = found, True
            return Checkpoint(found, state, path, manifest.metric, tuple(skipped))
        wanted = "" if step is None else f" of step {step}"
        none = "holds no checkpoint" if not skipped else "holds no checkpoint that can be loaded"
        raise NoCheckpointError(f"{self.folder} {none}{wanted}", skipped)

    @checked_first
    def verify(self, path: str | Path) -> SavedCheckpoint:
        """Read a whole checkpoint; InvalidCheckpointError if it differs from what was saved.

        path: of one checkpoint.
        """
        path = Path(path)
        name = _NAME.fullmatch(path.name)
        manifest, _ = self._read(path, int(name[1]) if name else None)
        return SavedCheckpoint(manifest.step, path, manifest.metric, manifest.size)

    def list(self) -> tuple[SavedCheckpoint, ...]:
        """Return summaries of the checkpoints, from their manifests, in step order."""
        self._join()
        return tuple(self._described(step, path) for step, path in self._newest_first()[::-1])

    @checked_first
    def remove(self, step: int) -> None:
        """Remove the checkpoint of a step; NoCheckpointError if there is none.

        step: of the checkpoint.

        CheckpointError if it is the only one; FolderInUseError while another process saves here.
        """
        self._join()
        self.acquire()
        steps = {found for found, _ in self._candidates()}
        if step not in steps:
            raise NoCheckpointError(f"{self.folder} holds no checkpoint of step {step}")
        if len(steps) == 1:
            raise CheckpointError(
                f"step {step} is the only checkpoint in {self.folder}, so it is not removed"
            )
        for found, path in self._candidates():
            if found == step:
                self._remove(path)

    @property
    def latest(self) -> int | None:
        """The step of the newest checkpoint, unverified; None if there is none."""
        self._join()
        return next((step for step, _ in self._candidates()), None)

    @property
    def takes_late(self) -> bool:
        """Whether `save` takes arrays that are still on their way to the host."""
        return self._thread is not None

    @property
    def keep_best(self) -> Best | None:
        """Whether the checkpoint with the smallest or largest metric is kept; None if neither."""
        return self._keep.best

    def spare(self, step: int) -> None:
        """Keep the checkpoint of a step, if it exists, whatever is saved later.

        For a run that continues without looking for a better one.

        step: of the checkpoint to keep, regardless of the policy.
        """
        self._spared = step

    @property
    def best(self) -> int | None:
        """The step of the best checkpoint, by `keep_best`; None if none has a metric.

        ValueError without `keep_best`, which says whether less or more is better.
        """
        return self._best(None)

    @checked_first
    def load_best(self, mode: Best | None = None) -> Checkpoint:
        """Return the checkpoint with the best metric, with every byte verified.

        mode: "min" or "max"; by default `keep_best`, ValueError if there is neither.

        NoCheckpointError if none has a metric, or if the best is damaged.

        >>> import tempfile
        >>> from rumus.train import Checkpoints
        >>> checkpoints = Checkpoints(tempfile.mkdtemp(), keep_best="min")
        >>> for step, metric in ((1, 0.5), (2, 0.3), (3, 0.4)):
        ...     path = checkpoints.save(step, {"model": {"step": step}}, metric=metric)
        >>> checkpoints.best, checkpoints.load_best().state
        (2, {'model': {'step': 2}})
        """
        step = self._best(mode)
        if step is None:
            raise NoCheckpointError(f"no checkpoint in {self.folder} has a metric", [])
        return self.load(step)

    def _best(self, mode: Best | None) -> int | None:
        check_choice("mode", mode, ("min", "max", None))
        order = mode or self.keep_best
        if order is None:
            raise ValueError('mode must be "min" or "max" if keep_best is None')
        return best_of({saved.step: saved.metric for saved in self.list()}, order)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def _candidates(self) -> Sequence[tuple[int, Path]]:
        """Return folders named like checkpoints, newest first, replaced ones after new ones."""
        try:
            names = self._fs.names(self.folder)
        except FileNotFoundError:
            return []
        matches = [match for name in names if (match := _NAME.fullmatch(name))]
        order = sorted(matches, key=lambda match: (-int(match[1]), match[0]))
        return [(int(match[1]), self.folder / match[0]) for match in order]

    def _newest_first(self) -> Sequence[tuple[int, Path]]:
        """Return the candidates, one for each step."""
        found: dict[int, Path] = {}
        for step, path in self._candidates():
            found.setdefault(step, path)
        return [*found.items()]

    def _read(self, path: Path, step: int | None) -> tuple[Manifest, dict[str, Any]]:
        manifest, state = read_folder(self._fs, path)
        if step not in (None, manifest.step):
            raise InvalidCheckpointError(f"its name says step {step}, its content {manifest.step}")
        return manifest, state

    def _described(self, step: int, path: Path) -> SavedCheckpoint:
        try:
            manifest = read_manifest(self._fs, path)
        except InvalidCheckpointError as error:
            return SavedCheckpoint(step, path, problem=str(error))
        return SavedCheckpoint(step, path, manifest.metric, manifest.size)

    def _join(self) -> None:
        """Wait for the thread, and report its errors."""
        outcome = None if self._thread is None else self._thread.join()
        if outcome is not None:
            self._heard(outcome)

    def _heard(self, outcome: _Outcome) -> Path | None:
        """Warn of a failure, or raise it; return the checkpoint's path."""
        if outcome.error is not None and self.on_error == "raise":
            raise outcome.error
        if told := _unheard(outcome):
            warn_user(told, CheckpointWarning)
        return outcome.path

    def _save(self, draft: Draft) -> _Outcome:
        """Write a checkpoint, then remove those that the policy does not keep."""
        path = self._path(draft.step)
        try:
            self._check_room(draft.size)
            self._write(draft, path)
        except OSError as error:
            if is_of_handler(error):
                raise
            return _Outcome(None, _not_saved(draft.step), error)
        self._branched = False
        self._metrics[path] = draft.metric
        try:
            self._prune(draft.step)
        except OSError as error:
            if is_of_handler(error):
                raise
            failed = f"step {draft.step} was saved, but an older checkpoint was not removed"
            return _Outcome(path, failed, error)
        return _Outcome(path)

    def _write(self, draft: Draft, path: Path) -> None:
        """Write a checkpoint under a temporary name, and rename it once it is on disk."""
        self._clear_rubbish()
        draft_path = path.with_name(f"{path.name}.tmp")
        try:
            draft.write(self._fs, draft_path)
            self._make_way(draft.step)
            self._fs.rename(draft_path, path)
        except OSError:
            with suppressed(OSError):
                remove_tree(self._fs, draft_path)
            raise
        self._fs.sync_folder(self.folder)

    def _make_way(self, step: int) -> None:
        """Rename the checkpoint that this step replaces, and those of an abandoned training."""
        path = self._path(step)
        replaced = path.with_name(f"{path.name}.replaced")
        floor = self._loaded if self._branched and self._loaded is not None else step
        here = self._candidates()
        moves = [(old, self._aside(old)) for found, old in here if found > floor]
        if (step, path) in here and step <= floor:
            taken = (step, replaced) in here
            moves.append((path, self._aside(path) if taken else replaced))
        for old, new in moves:
            self._fs.rename(old, new)
            self._fs.sync_folder(self.folder)

    def _aside(self, path: Path) -> Path:
        """Return a free name for a checkpoint that is no longer used, but not removed."""
        names, name, count = set(self._fs.names(self.folder)), f"{path.name}.aside", 1
        while name in names:
            count += 1
            name = f"{path.name}.aside-{count}"
        return path.with_name(name)

    def _prune(self, saved: int) -> None:
        """Remove replaced checkpoints, and those that the policy does not keep."""
        newest_first = self._newest_first()
        kept = {path for _, path in newest_first}
        steps = {step: self._metric(path) for step, path in newest_first}
        stay = self._keep.kept(steps) | {saved, self._loaded, self._spared}
        for step, path in self._candidates():
            if path not in kept or step not in stay:
                self._remove(path)

    def _metric(self, path: Path) -> float | None:
        if path not in self._metrics:
            self._metrics[path] = self._described(0, path).metric
        return self._metrics[path]

    def _remove(self, path: Path) -> None:
        """Remove a checkpoint so that no part of it is ever visible, even after a power failure."""
        rubbish = path.with_name(f"{path.name}.tmp")
        self._fs.rename(path, rubbish)
        self._metrics.pop(path, None)
        self._fs.sync_folder(self.folder)
        remove_tree(self._fs, rubbish)

    def _clear_rubbish(self) -> None:
        """Remove leftovers of interrupted saves and removals; any that stay are harmless."""
        for name in self._fs.names(self.folder):
            if _RUBBISH.fullmatch(name):
                with suppressed(OSError):
                    remove_tree(self._fs, self.folder / name)

    def _check_step(self, step: int) -> None:
        """Refuse an earlier step: its checkpoint would not be the newest."""
        floor = self._loaded if self._branched else None
        if floor is None:
            floor = next((found for found, _ in self._candidates()), 0)
        if step < floor:
            raise ValueError(
                f"step {step} comes after step {floor} of {self.folder}, so it would not be the "
                "newest checkpoint: load() one to continue from, or choose another folder"
            )

    def _check_room(self, size: int) -> None:
        free = self._fs.free(self.folder)
        if free < _ROOM * size:
            raise OSError(errno.ENOSPC, f"{size} bytes to save, but only {free} are free")


def _not_saved(step: int) -> str:
    return f"the checkpoint of step {step} was not saved"


def _unheard(outcome: _Outcome) -> str | None:
    """Return the warning, if any."""
    if outcome.error is None:
        return None
    rest = "The earlier ones are as they were, and the next save tries again"
    return f"{outcome.failed}: {outcome.error}. {rest}"
