"""The training loop, the data that it runs over, and the checkpoints of a run."""

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
from rumus.train.find_lr import LearningRateSweep, find_lr
from rumus.train.image_folder import ImageFolder
from rumus.train.live_view import LiveView
from rumus.train.loader import DataLoader
from rumus.train.metrics_file import read_metrics
from rumus.train.npy import NpyDataset
from rumus.train.plot_runs import plot_runs
from rumus.train.random_split import random_split
from rumus.train.report import write_report
from rumus.train.run import NonFiniteLossError, Result, Run
from rumus.train.run_folder import RunFolder, RunFolderError
from rumus.train.snapshot import Stateful
from rumus.train.spans import Spans
from rumus.train.stop_signals import Interrupted
from rumus.train.time_report import TimeReport
from rumus.train.trainer import Trainer
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
