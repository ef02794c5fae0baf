"""Finding a run folder and its checkpoints."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryFile

from rumus.train.checkpoints.checkpoints import Checkpoints
from rumus.train.command_line.exit_codes import UsageError


def existing_run(folder: Path) -> Path:
    """Return an existing folder; otherwise raise a UsageError that suggests the closest name."""
    if folder.is_dir():
        return folder
    if folder.exists():
        raise UsageError(f"{folder} is not a folder")
    parent = folder.absolute().parent
    there = [each.name for each in parent.iterdir() if each.is_dir()] if parent.is_dir() else []
    near = get_close_matches(folder.absolute().name, there, n=1)
    hint = f"; did you mean {folder.with_name(near[0])}?" if near else ""
    raise UsageError(f"there is no run folder {folder}{hint}")


def writable_place(folder: Path) -> Path:
    """Return a folder or its nearest existing parent; UsageError if it is not writable."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    try:
        with TemporaryFile(dir=place):
            return place
    except OSError as error:
        raise UsageError(f"runs cannot be kept in {folder}: {error}") from error


def checkpoints_of(folder: Path) -> Checkpoints:
    """Return the checkpoints of a run folder, or of a folder of checkpoints."""
    inner = existing_run(folder) / "checkpoints"
    return Checkpoints(inner if inner.is_dir() else folder)
