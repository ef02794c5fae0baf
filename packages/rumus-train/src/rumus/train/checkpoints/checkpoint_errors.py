"""What can be wrong with checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rumus.tensor.expression.printable import PrintableError


class CheckpointError(PrintableError):
    """Something about the checkpoints of a run; the message says what, and what to do."""


class InvalidCheckpointError(CheckpointError):
    """A checkpoint that is damaged, incomplete, or of a format that is not read here."""


class FolderInUseError(CheckpointError):
    """Another process saves to the folder."""


class NoCheckpointError(CheckpointError):
    """There is no checkpoint that can be loaded; `skipped` has each one's path and reason.

    message: what is told.
    skipped: checkpoints that were damaged, with the reasons.
    """

    def __init__(self, message: str, skipped: Sequence[tuple[Path, str]] = ()) -> None:
        reasons = "".join(f"\n  {path.name}: {reason}" for path, reason in skipped)
        super().__init__(message + reasons)
        self.skipped = tuple(skipped)


class CheckpointWarning(UserWarning):
    """A checkpoint could not be saved, or an old one not removed; training continues."""
