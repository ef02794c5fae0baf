"""The training loop, the data that it runs over, and the checkpoints of a run.

`Trainer` is there at once, the rest is imported when it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from rumus.train.trainer import Trainer

if TYPE_CHECKING:
    from rumus.train.append_file import RunFolderWarning
    from rumus.train.callback import Callback, CallbackError
    from rumus.train.checkpoint_errors import (
        CheckpointError,
        CheckpointWarning,
        FolderInUseError,
        InvalidCheckpointError,
        NoCheckpointError,
    )
    from rumus.train.checkpoint_store import Store
    from rumus.train.checkpoints import Checkpoint, Checkpoints, SavedCheckpoint
    from rumus.train.configuration import (
        ConfigurationError,
        load_configuration,
        save_configuration,
    )
    from rumus.train.csv_file import CsvDataset
    from rumus.train.data_errors import SampleError, WorkerError
    from rumus.train.dataset import ArrayDataset, Dataset, Subset
    from rumus.train.early_stopping import EarlyStopping
    from rumus.train.events import (
        CheckpointSaved,
        EpochEnd,
        EpochStart,
        Failed,
        StepEnd,
        TrainEnd,
        TrainStart,
        ValidationEnd,
    )
    from rumus.train.every import Every
    from rumus.train.feed_plateau import FeedPlateau
    from rumus.train.file_system import FileSystem, LocalFileSystem
    from rumus.train.image_folder import ImageFolder
    from rumus.train.live_view import LiveView
    from rumus.train.loader import DataLoader
    from rumus.train.lr_sweep import LearningRateSweep, find_lr
    from rumus.train.memory_report import MemoryReport, StepMemory
    from rumus.train.metrics_file import read_metrics
    from rumus.train.npy import NpyDataset
    from rumus.train.report import write_report
    from rumus.train.run import NonFiniteLossError, Result, Run
    from rumus.train.run_folder import RunFolder, RunFolderError
    from rumus.train.runs_picture import plot_runs
    from rumus.train.snapshot import Stateful
    from rumus.train.spans import Spans
    from rumus.train.splitting import random_split
    from rumus.train.stop_signals import Interrupted
    from rumus.train.time_report import TimeReport
    from rumus.train.training import Training

__version__ = "0.1.0"

__all__ = [
    "ArrayDataset",
    "Callback",
    "CallbackError",
    "Checkpoint",
    "CheckpointError",
    "CheckpointSaved",
    "CheckpointWarning",
    "Checkpoints",
    "ConfigurationError",
    "CsvDataset",
    "DataLoader",
    "Dataset",
    "EarlyStopping",
    "EpochEnd",
    "EpochStart",
    "Every",
    "Failed",
    "FeedPlateau",
    "FileSystem",
    "FolderInUseError",
    "ImageFolder",
    "Interrupted",
    "InvalidCheckpointError",
    "LearningRateSweep",
    "LiveView",
    "LocalFileSystem",
    "MemoryReport",
    "NoCheckpointError",
    "NonFiniteLossError",
    "NpyDataset",
    "Result",
    "Run",
    "RunFolder",
    "RunFolderError",
    "RunFolderWarning",
    "SampleError",
    "SavedCheckpoint",
    "Spans",
    "Stateful",
    "StepEnd",
    "StepMemory",
    "Store",
    "Subset",
    "TimeReport",
    "TrainEnd",
    "TrainStart",
    "Trainer",
    "Training",
    "ValidationEnd",
    "WorkerError",
    "find_lr",
    "load_configuration",
    "plot_runs",
    "random_split",
    "read_metrics",
    "save_configuration",
    "write_report",
]

_NAMES: Final = {  # by the module that they are in
    "append_file": ("RunFolderWarning",),
    "callback": (
        "Callback",
        "CallbackError",
    ),
    "checkpoint_errors": (
        "CheckpointError",
        "CheckpointWarning",
        "FolderInUseError",
        "InvalidCheckpointError",
        "NoCheckpointError",
    ),
    "checkpoint_store": ("Store",),
    "checkpoints": (
        "Checkpoint",
        "Checkpoints",
        "SavedCheckpoint",
    ),
    "configuration": (
        "ConfigurationError",
        "load_configuration",
        "save_configuration",
    ),
    "csv_file": ("CsvDataset",),
    "data_errors": (
        "SampleError",
        "WorkerError",
    ),
    "dataset": (
        "ArrayDataset",
        "Dataset",
        "Subset",
    ),
    "early_stopping": ("EarlyStopping",),
    "events": (
        "CheckpointSaved",
        "EpochEnd",
        "EpochStart",
        "Failed",
        "StepEnd",
        "TrainEnd",
        "TrainStart",
        "ValidationEnd",
    ),
    "every": ("Every",),
    "feed_plateau": ("FeedPlateau",),
    "file_system": (
        "FileSystem",
        "LocalFileSystem",
    ),
    "lr_sweep": (
        "LearningRateSweep",
        "find_lr",
    ),
    "image_folder": ("ImageFolder",),
    "live_view": ("LiveView",),
    "loader": ("DataLoader",),
    "memory_report": ("MemoryReport", "StepMemory"),
    "metrics_file": ("read_metrics",),
    "npy": ("NpyDataset",),
    "runs_picture": ("plot_runs",),
    "splitting": ("random_split",),
    "report": ("write_report",),
    "run": (
        "NonFiniteLossError",
        "Result",
        "Run",
    ),
    "run_folder": (
        "RunFolder",
        "RunFolderError",
    ),
    "snapshot": ("Stateful",),
    "spans": ("Spans",),
    "stop_signals": ("Interrupted",),
    "time_report": ("TimeReport",),
    "training": ("Training",),
}
_HOMES: Final = {name: module for module, names in _NAMES.items() for name in names}

if not TYPE_CHECKING:  # to a type checker, a module with this function has every attribute

    def __getattr__(name: str) -> Any:
        """Import what is asked for the first time."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
