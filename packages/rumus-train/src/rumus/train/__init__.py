"""The training loop, its data, and the checkpoints of a run.

`Trainer` is imported at once, the rest on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from rumus.train.loop.trainer import Trainer

if TYPE_CHECKING:
    from rumus.train import images, metrics
    from rumus.train.base.append_file import RunFolderWarning
    from rumus.train.base.configuration import (
        ConfigurationError,
        load_configuration,
        save_configuration,
    )
    from rumus.train.base.data_errors import SampleError, WorkerError
    from rumus.train.base.every import Every
    from rumus.train.base.spans import Spans
    from rumus.train.capture.captured_steps import CaptureWarning
    from rumus.train.capture.step_memory import StepMemory
    from rumus.train.checkpoints.checkpoint_errors import (
        CheckpointError,
        CheckpointWarning,
        FolderInUseError,
        InvalidCheckpointError,
        NoCheckpointError,
    )
    from rumus.train.checkpoints.checkpoint_store import Store
    from rumus.train.checkpoints.checkpoints import Checkpoint, Checkpoints, SavedCheckpoint
    from rumus.train.checkpoints.file_system import FileSystem, LocalFileSystem
    from rumus.train.checkpoints.snapshot import Stateful
    from rumus.train.command_line.saved_model import load_model
    from rumus.train.data.dataset import ArrayDataset, Dataset, Subset
    from rumus.train.data.image_folder import ImageFolder
    from rumus.train.data.loader import DataLoader
    from rumus.train.data.mixing import CutMix, Mixup
    from rumus.train.data.npy import NpyDataset
    from rumus.train.data.pad import Pad
    from rumus.train.data.sampler import BalancedSampler, LengthBuckets, Sampler, WeightedSampler
    from rumus.train.data.splitting import random_split
    from rumus.train.data.stream_loader import StreamLoader
    from rumus.train.loop.batch_size import BatchSizeSearch, find_batch_size
    from rumus.train.loop.callback import Callback, CallbackError
    from rumus.train.loop.early_stopping import EarlyStopping
    from rumus.train.loop.events import (
        CheckpointSaved,
        EpochEnd,
        EpochStart,
        Failed,
        StepEnd,
        TrainEnd,
        TrainStart,
        ValidationEnd,
    )
    from rumus.train.loop.feed_plateau import FeedPlateau
    from rumus.train.loop.lr_sweep import LearningRateSweep, find_lr
    from rumus.train.loop.memory_report import MemoryReport
    from rumus.train.loop.nonfinite_loss import NonFiniteLossError
    from rumus.train.loop.prediction import evaluate, predict
    from rumus.train.loop.result import Result
    from rumus.train.loop.run import Run
    from rumus.train.loop.spikes import LossSpikeError, Spike, Spikes
    from rumus.train.loop.stop_signals import Interrupted
    from rumus.train.loop.time_report import TimeReport
    from rumus.train.loop.training import Training
    from rumus.train.tables.arrow_table import ParquetDataset
    from rumus.train.tables.csv_file import CsvDataset
    from rumus.train.views.live_view import LiveView
    from rumus.train.views.logger import Logger, LoggerWarning, LogTo
    from rumus.train.views.metrics_file import read_metrics
    from rumus.train.views.report import write_report
    from rumus.train.views.run_folder import RunFolder, RunFolderError
    from rumus.train.views.runs_picture import plot_runs

__version__ = "0.1.0"

__all__ = [
    "ArrayDataset",
    "BalancedSampler",
    "BatchSizeSearch",
    "Callback",
    "CallbackError",
    "CaptureWarning",
    "Checkpoint",
    "CheckpointError",
    "CheckpointSaved",
    "CheckpointWarning",
    "Checkpoints",
    "ConfigurationError",
    "CsvDataset",
    "CutMix",
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
    "LengthBuckets",
    "LiveView",
    "LocalFileSystem",
    "LogTo",
    "Logger",
    "LoggerWarning",
    "LossSpikeError",
    "MemoryReport",
    "Mixup",
    "NoCheckpointError",
    "NonFiniteLossError",
    "NpyDataset",
    "Pad",
    "ParquetDataset",
    "Result",
    "Run",
    "RunFolder",
    "RunFolderError",
    "RunFolderWarning",
    "SampleError",
    "Sampler",
    "SavedCheckpoint",
    "Spans",
    "Spike",
    "Spikes",
    "Stateful",
    "StepEnd",
    "StepMemory",
    "Store",
    "StreamLoader",
    "Subset",
    "TimeReport",
    "TrainEnd",
    "TrainStart",
    "Trainer",
    "Training",
    "ValidationEnd",
    "WeightedSampler",
    "WorkerError",
    "evaluate",
    "find_batch_size",
    "find_lr",
    "images",
    "load_configuration",
    "load_model",
    "metrics",
    "plot_runs",
    "predict",
    "random_split",
    "read_metrics",
    "save_configuration",
    "write_report",
]

_NAMES: Final = {  # by their module
    "base.append_file": ("RunFolderWarning",),
    "loop.batch_size": ("BatchSizeSearch", "find_batch_size"),
    "loop.callback": (
        "Callback",
        "CallbackError",
    ),
    "capture.captured_steps": ("CaptureWarning",),
    "capture.step_memory": ("StepMemory",),
    "checkpoints.checkpoint_errors": (
        "CheckpointError",
        "CheckpointWarning",
        "FolderInUseError",
        "InvalidCheckpointError",
        "NoCheckpointError",
    ),
    "checkpoints.checkpoint_store": ("Store",),
    "checkpoints.checkpoints": (
        "Checkpoint",
        "Checkpoints",
        "SavedCheckpoint",
    ),
    "base.configuration": (
        "ConfigurationError",
        "load_configuration",
        "save_configuration",
    ),
    "command_line.saved_model": ("load_model",),
    "tables.arrow_table": ("ParquetDataset",),
    "tables.csv_file": ("CsvDataset",),
    "base.data_errors": (
        "SampleError",
        "WorkerError",
    ),
    "data.dataset": (
        "ArrayDataset",
        "Dataset",
        "Subset",
    ),
    "loop.early_stopping": ("EarlyStopping",),
    "loop.events": (
        "CheckpointSaved",
        "EpochEnd",
        "EpochStart",
        "Failed",
        "StepEnd",
        "TrainEnd",
        "TrainStart",
        "ValidationEnd",
    ),
    "base.every": ("Every",),
    "loop.feed_plateau": ("FeedPlateau",),
    "checkpoints.file_system": (
        "FileSystem",
        "LocalFileSystem",
    ),
    "loop.lr_sweep": (
        "LearningRateSweep",
        "find_lr",
    ),
    "data.image_folder": ("ImageFolder",),
    "views.live_view": ("LiveView",),
    "data.loader": ("DataLoader",),
    "loop.memory_report": ("MemoryReport",),
    "views.logger": ("Logger", "LoggerWarning", "LogTo"),
    "views.metrics_file": ("read_metrics",),
    "data.mixing": ("CutMix", "Mixup"),
    "data.pad": ("Pad",),
    "data.sampler": ("BalancedSampler", "LengthBuckets", "Sampler", "WeightedSampler"),
    "data.stream_loader": ("StreamLoader",),
    "data.npy": ("NpyDataset",),
    "views.runs_picture": ("plot_runs",),
    "data.splitting": ("random_split",),
    "views.report": ("write_report",),
    "loop.prediction": ("evaluate", "predict"),
    "loop.nonfinite_loss": ("NonFiniteLossError",),
    "loop.result": ("Result",),
    "loop.run": ("Run",),
    "views.run_folder": (
        "RunFolder",
        "RunFolderError",
    ),
    "loop.spikes": ("LossSpikeError", "Spike", "Spikes"),
    "checkpoints.snapshot": ("Stateful",),
    "base.spans": ("Spans",),
    "loop.stop_signals": ("Interrupted",),
    "loop.time_report": ("TimeReport",),
    "loop.training": ("Training",),
}
_HOMES: Final = {name: module for module, names in _NAMES.items() for name in names}

if not TYPE_CHECKING:  # for type checkers, a module with this function has every attribute

    def __getattr__(name: str) -> Any:
        """Import a name on first use."""
        if name in ("images", "metrics"):
            return import_module(f"rumus.train.{name}")
        if name not in _HOMES:
            from rumus.train.base.other_names import MODULE

            MODULE.refuse(name)
        found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted(__all__)
