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

from rumus.tensor.memory.replaced_file import replaced
from rumus.train.base.class_names import classes_of
from rumus.train.checkpoints.saved_model import WhichStep
from rumus.train.command_line.exit_codes import ExitCode, UsageError
from rumus.train.command_line.run_folders import existing_run
from rumus.train.command_line.saved_model import model_of, training_of
from rumus.train.data.dataset import ArrayDataset, Subset
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
        with replaced(arguments.output) as beside:
            np.save(beside, found)
    else:
        with _opened(arguments.output) as file:
            write_table(file, found, classes_of(training.loader))
    return ExitCode.OK


def loader_of(training: Training, data: Path) -> Iterable[Any]:
    """Return the batches of new data, read as in training.

    Raises UsageError if it is unclear how.
    """
    if training.read is not None:
        return training.read(data)
    loader = _evaluated(training)
    dataset = dataset_of(loader)
    size = getattr(loader, "batch_size", BATCH)
    made: dict[str, Any] = {n: getattr(loader, n, None) for n in ("transform", "collate")}
    if loader is training.loader and any(each is not None for each in made.values()):
        raise UsageError(
            "the training transforms its samples, and nothing says what of that predictions need: "
            "Training(..., validate=(loader, function)), whose loader is taken as the example, or "
            "Training(..., read=lambda path: DataLoader(...))"
        )
    if hasattr(dataset, "like"):
        return DataLoader(dataset.like(data), size, **made)
    if data.suffix == ".npy" and (dataset is None or type(dataset) in (ArrayDataset, NpyDataset)):
        return DataLoader(NpyDataset(data), size, **made)
    raise UsageError(
        f"{data.name}: nothing tells rumus how to read it: give Training(..., read=lambda path: "
        "DataLoader(...)) in the script. Known formats are .npy, and those of a CsvDataset, a "
        "ParquetDataset or an ImageFolder that the run was trained on"
    )


def _evaluated(training: Training) -> Any:
    """The loader that reads as predictions need it: that of the validation, if it is one."""
    validate = training.validate
    is_pair = isinstance(validate, tuple) and isinstance(validate[0], DataLoader)
    return validate[0] if is_pair else training.loader  # type: ignore[index]


def dataset_of(loader: object) -> Any:
    """Return the dataset of a loader, or the full one of a subset; None if there is none.

    A dataset of the script that wraps another one is not looked into: it may change samples.
    """
    dataset = getattr(loader, "dataset", None)
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return dataset


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
        told = [_exact(value, rows.dtype) for value in row.tolist()]
        writer.writerow([classes[int(row.argmax())], *told] if is_scores else told)


def _exact(value: Any, dtype: np.dtype[Any]) -> str:
    """A number in as many digits as bring it back."""
    if dtype.kind != "f":
        return str(int(value))
    return f"{value:.17g}" if dtype.itemsize > 4 else f"{value:.9g}"


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
    # Half of a table would look like all of one.
    with replaced(path) as beside, beside.open("w", encoding="utf-8", newline="") as file:
        yield file
