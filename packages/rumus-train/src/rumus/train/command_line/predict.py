"""`rumus predict`: predictions of a run's model on new data."""

from __future__ import annotations

import csv
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from rumus.train.base.datasets import datasets_of
from rumus.train.checkpoints.saved_model import WhichStep
from rumus.train.command_line.exit_codes import ExitCode, UsageError
from rumus.train.command_line.run_folders import existing_run
from rumus.train.command_line.saved_model import model_of, training_of
from rumus.train.data.loader import DataLoader
from rumus.train.data.npy import NpyDataset
from rumus.train.loop.prediction import predict as predict_all
from rumus.train.loop.training import Training

BATCH = 64  # samples, if the run's loader does not say


def predict(arguments: Namespace) -> int:
    """Run `rumus predict`: rebuild the model, read the data as in training, write the
    predictions."""
    run = existing_run(arguments.folder).absolute()
    data = arguments.data.absolute()
    if not data.exists():
        raise UsageError(f"there is no file or folder {arguments.data}")
    training = training_of(run)
    loader = loader_of(training, data)
    model = model_of(training, run, step=_step(arguments.step))
    found = predict_all(model, loader, training.predict_fn)
    if not isinstance(found, np.ndarray):
        raise UsageError("the model returns several arrays: give Training(..., predict_fn=...)")
    if arguments.output is not None and arguments.output.suffix == ".npy":
        np.save(arguments.output, found)
    else:
        with _opened(arguments.output) as file:
            write_table(file, found, classes_of(training))
    return ExitCode.OK


def loader_of(training: Training, data: Path) -> Iterable[Any]:
    """Return the batches of new data, read as in training.

    Raises UsageError if it is unclear how.
    """
    if training.read is not None:
        return training.read(data)
    dataset = dataset_of(training.loader)
    size = getattr(training.loader, "batch_size", BATCH)
    if hasattr(dataset, "like"):
        return DataLoader(dataset.like(data), size)
    if data.suffix == ".npy":
        return DataLoader(NpyDataset(data), size)
    raise UsageError(
        f"{data.name}: nothing tells rumus how to read it: give Training(..., read=lambda path: "
        "DataLoader(...)) in the script. Known formats are .npy, and those of a CsvDataset, a "
        "ParquetDataset or an ImageFolder that the run was trained on"
    )


def dataset_of(loader: object) -> Any:
    """Return the full dataset of a loader, or None."""
    return next(reversed([*datasets_of(loader)]), None)


def classes_of(training: Training) -> list[str]:
    """Return the class names of a training, if its data has them."""
    return list(getattr(dataset_of(training.loader), "classes", []))


def write_table(file: TextIO, found: NDArray[Any], classes: list[str]) -> None:
    """Write predictions as CSV; for class scores, also the best class."""
    rows = found.reshape(len(found), -1)
    names = [f"prediction {i}" for i in range(rows.shape[1])]
    if rows.shape[1] == 1:
        names = ["prediction"]
    is_scores = len(classes) == rows.shape[1] > 1
    writer = csv.writer(file)
    writer.writerow(["prediction", *classes] if is_scores else names)
    for row in rows:
        told = [f"{value:.9g}" for value in row.tolist()]
        writer.writerow([classes[int(row.argmax())], *told] if is_scores else told)


def _step(text: str) -> WhichStep:
    if text in ("best", "latest"):
        return "best" if text == "best" else "latest"
    if not text.isdecimal():
        raise UsageError(f"--step takes best, latest or a number, not {text}")
    return int(text)


@contextmanager
def _opened(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        yield file
