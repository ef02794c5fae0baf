"""The training loop, and the checkpoints of a run."""

from rumus.train.checkpoint_errors import (
    CheckpointError,
    CheckpointWarning,
    FolderInUseError,
    InvalidCheckpointError,
    NoCheckpointError,
)
from rumus.train.checkpoints import Checkpoint, Checkpoints, SavedCheckpoint
from rumus.train.file_system import FileSystem, LocalFileSystem
from rumus.train.trainer import Trainer

__version__ = "0.1.0"

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "CheckpointWarning",
    "Checkpoints",
    "FileSystem",
    "FolderInUseError",
    "InvalidCheckpointError",
    "LocalFileSystem",
    "NoCheckpointError",
    "SavedCheckpoint",
    "Trainer",
]
