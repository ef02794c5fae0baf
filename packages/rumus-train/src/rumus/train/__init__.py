"""The training loop, the data that it runs over, and the checkpoints of a run."""

from rumus.train.checkpoint_errors import (
    CheckpointError,
    CheckpointWarning,
    FolderInUseError,
    InvalidCheckpointError,
    NoCheckpointError,
)
from rumus.train.checkpoints import Checkpoint, Checkpoints, SavedCheckpoint
from rumus.train.csv_file import CsvDataset
from rumus.train.data_errors import SampleError, WorkerError
from rumus.train.dataset import ArrayDataset, Dataset, Subset
from rumus.train.file_system import FileSystem, LocalFileSystem
from rumus.train.image_folder import ImageFolder
from rumus.train.loader import DataLoader
from rumus.train.npy import NpyDataset
from rumus.train.random_split import random_split
from rumus.train.trainer import Trainer

__version__ = "0.1.0"

__all__ = [
    "ArrayDataset",
    "Checkpoint",
    "CheckpointError",
    "CheckpointWarning",
    "Checkpoints",
    "CsvDataset",
    "DataLoader",
    "Dataset",
    "FileSystem",
    "FolderInUseError",
    "ImageFolder",
    "InvalidCheckpointError",
    "LocalFileSystem",
    "NoCheckpointError",
    "NpyDataset",
    "SampleError",
    "SavedCheckpoint",
    "Subset",
    "Trainer",
    "WorkerError",
    "random_split",
]
