"""Errors about checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rumus.tensor.expression.printable import PrintableError


class CheckpointError(PrintableError):
    """A problem with the checkpoints of a run; the message says what to do."""


class InvalidCheckpointError(CheckpointError):
    """A checkpoint is damaged, incomplete, or of an unsupported format."""


class FolderInUseError(CheckpointError):
    """Another process saves to the folder."""


class NoCheckpointError(CheckpointError):
    """No checkpoint can be loaded; `skipped` has each one's path and reason.

    message: the text.
    skipped: checkpoints that were damaged, with the reasons.
    """

    def __init__(self, message: str, skipped: Sequence[tuple[Path, str]] = ()) -> None:
        reasons = "".join(f"\n  {path.name}: {reason}" for path, reason in skipped)
        super().__init__(message + reasons)
        self.skipped = tuple(skipped)


class CheckpointWarning(UserWarning):
    """A checkpoint could not be saved, or an old one could not be removed; training continues."""
