"""Errors about checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rumus.tensor.expression.printable import PrintableError


class CheckpointError(PrintableError):
    """A problem with the checkpoints of a run; the message says what to do."""


class InvalidCheckpointError(CheckpointError):
    """A checkpoint is damaged, incomplete, or of an unsupported format."""


class FolderInUseError(CheckpointError):
    """Another process saves to the folder."""


_SHOWN: Final = 10  # checkpoints in a message


class NoCheckpointError(CheckpointError):
    """No checkpoint can be loaded; `skipped` has each one's path and reason, the text the first.

    message: the text.
    skipped: checkpoints that were damaged, with the reasons.
    """

    def __init__(self, message: str, skipped: Sequence[tuple[Path, str]] = ()) -> None:
        reasons = "".join(f"\n  {path.name}: {reason}" for path, reason in skipped[:_SHOWN])
        if len(skipped) > _SHOWN:
            reasons += f"\n  and {len(skipped) - _SHOWN:,} more"
        super().__init__(message + reasons)
        self.skipped = tuple(skipped)


class CheckpointWarning(UserWarning):
    """A checkpoint could not be saved, or an old one could not be removed; training continues."""
