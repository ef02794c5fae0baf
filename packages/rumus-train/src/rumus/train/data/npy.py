"""`NpyDataset`: arrays in `.npy` files, read on demand."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.expression.declared_type import shown
from rumus.tensor.memory.uninterrupted import is_of_handler
from rumus.train.base.file_kind import kind_of_file
from rumus.train.base.other_names import DATASET, FIELDS
from rumus.train.base.printable import printable
from rumus.train.base.regular_file import require_regular_file
from rumus.train.data.dataset import Batch, Indices, RowsOfFiles, Sample, as_index, as_indices

PathLike: TypeAlias = str | os.PathLike[str]


class _Column:
    """One field of the samples: the rows of one or several files."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self.files = [_mapped(path) for path in paths]
        first = self.files[0]
        for path, file in zip(paths, self.files, strict=True):
            if (file.shape[1:], file.dtype) != (first.shape[1:], first.dtype):
                raise ValueError(
                    f"the rows of {printable(path)} have shape {file.shape[1:]} and dtype "
                    f"{file.dtype}, those of {printable(paths[0])} {first.shape[1:]} and "
                    f"{first.dtype}"
                )
        self.starts = np.cumsum([0, *map(len, self.files)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def place(self, index: int) -> tuple[int, int]:
        """Return the index of a sample's file, and its row there."""
        number = int(np.searchsorted(self.starts, index, side="right")) - 1
        return number, index - int(self.starts[number])

    def rows(self, indices: Indices) -> NDArray[Any]:
        """Return copies of rows."""
        if len(self.files) == 1:
            return self.files[0].take(indices, 0)
        first = self.files[0]
        out = np.empty((len(indices), *first.shape[1:]), first.dtype)
        numbers = np.searchsorted(self.starts, indices, side="right") - 1
        for number in np.unique(numbers):
            here = numbers == number
            out[here] = self.files[number].take(indices[here] - self.starts[number], 0)
        return out


@DATASET.of_instances
class NpyDataset(RowsOfFiles):
    """Arrays in `.npy` files, memory-mapped and read on demand.

    Each argument is one field of the samples: a file, or several whose rows are concatenated.
    Sample i is the tuple of the fields' i-th rows. Pickled arrays raise.

    fields: for each field, a `.npy` file or several whose rows are concatenated.

    Raises FileNotFoundError, and ValueError for a file that is not a `.npy` file, is truncated, has
    no rows, or does not match the others; each names the file.

    >>> import tempfile
    >>> import numpy as np
    >>> from rumus.train import NpyDataset
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for part in range(2):
    ...         np.save(f"{folder}/x{part}.npy", np.full((3, 2), part))
    ...     dataset = NpyDataset([f"{folder}/x0.npy", f"{folder}/x1.npy"])
    ...     len(dataset), dataset[4][0].tolist()
    (6, [1, 1])
    """

    @FIELDS.before_call
    def __init__(self, *fields: PathLike | Sequence[PathLike]) -> None:
        if not fields:
            raise ValueError("a dataset needs at least one file")
        self._fields = [_paths(field) for field in fields]
        self._columns = self._open()

    def __len__(self) -> int:
        return len(self._columns[0])

    def __getitem__(self, index: int, /) -> Sample:
        at = as_index(index)
        if not 0 <= at < len(self):
            raise IndexError(f"index {index} is outside [0, {len(self)})")
        places = [(column, *column.place(at)) for column in self._columns]
        return tuple(column.files[number].take(row, 0) for column, number, row in places)

    def batch(self, indices: Indices) -> Batch:
        """Return copies of the rows of these indices.

        indices: numbers of samples.
        """
        places = as_indices(indices)
        if (outside := places[(places < 0) | (places >= len(self))]).size:
            raise IndexError(f"index {outside[0]} is outside [0, {len(self)})")
        return tuple([column.rows(places) for column in self._columns])

    def describe(self, index: int) -> str:
        """Return the file and the row of a sample's first field.

        index: the number of a sample.
        """
        number, row = self._columns[0].place(index)
        return f"{self._columns[0].paths[number]}, row {row}"

    def __getstate__(self) -> list[list[Path]]:
        # Only the names: a worker process maps the files itself.
        return self._fields

    def __setstate__(self, fields: list[list[Path]]) -> None:
        self._fields = fields
        self._columns = self._open()

    def _open(self) -> list[_Column]:
        columns = [_Column(paths) for paths in self._fields]
        if len({len(column) for column in columns}) > 1:
            lengths = ", ".join(f"{printable(c.paths[0])}: {len(c)}" for c in columns)
            raise ValueError(f"the fields of a dataset must be equally long, not {lengths}")
        return columns


def _paths(field: PathLike | Sequence[PathLike]) -> list[Path]:
    paths: list[Any] = list(field) if isinstance(field, (list, tuple)) else [field]
    for path in paths:
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"NpyDataset: a file must be text or a Path, not {shown(path)}")
    if not paths:
        raise ValueError("a field of a dataset needs at least one file")
    return [Path(path).absolute() for path in paths]


def _mapped(path: Path) -> NDArray[Any]:
    """The array of a file, read on use."""
    require_regular_file(path)
    try:
        with open(path, "rb") as file:
            start = file.read(6)
        if start.startswith(b"PK"):
            raise ValueError("it is an archive: save each of its arrays with numpy.save")
        if start != b"\x93NUMPY":
            kind = kind_of_file(path, "NpyDataset")
            raise ValueError(f"it is {kind}" if kind else "it does not start like one")
        # A plain array over the memmap's memory, so that its rows are ordinary arrays.
        mapped: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        if rest := path.stat().st_size - mapped.offset - mapped.nbytes:
            raise ValueError(
                f"{rest} bytes follow its array, as of a second numpy.save to the same file: save "
                "each array to a file of its own"
            )
        array: NDArray[Any] = np.asarray(mapped)
    except Exception as error:  # NumPy evaluates the header, and damage can raise anything
        if is_of_handler(error) or (isinstance(error, OSError) and error.errno is not None):
            raise
        raise ValueError(
            f"{printable(path)} cannot be mapped as a .npy file: {printable(error)}"
        ) from error
    if array.ndim and not len(array):
        raise ValueError(f"{printable(path)} holds an array of shape {array.shape}, without rows")
    if array.dtype.names is not None:
        raise ValueError(
            f"{printable(path)} holds an array of structures: save each of its fields to a file of "
            "its own, as numpy.save(path, array[field])"
        )
    if array.dtype.kind not in "biufc" or array.ndim == 0:
        raise ValueError(
            f"{printable(path)} holds an array of dtype {array.dtype} and shape {array.shape}; a "
            "dataset needs numbers, one row per sample"
        )
    return array
