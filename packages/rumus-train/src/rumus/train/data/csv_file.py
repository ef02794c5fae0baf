"""`CsvDataset`: the columns of a CSV file, read into arrays once, each cell checked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rumus.train.data.dataset import Batch, Indices, Sample
from rumus.train.data.npy import PathLike

CHUNK: Final = 4096  # rows that are kept as text at a time


class CsvDataset:
    """Columns of a CSV file with a header line: samples (features,) or (features, target).

    columns: the names of the features, in this order; by default all but the target. dtype: of the
    features, which are one array of shape (columns,). target: the name of the target's column, and
    target_dtype its dtype; with `str` the cells are class names, and the target is the number of
    the class in the sorted list `classes`. header: the names of the columns, if the file's first
    line is data. Blank lines are skipped.

    ValueError with file and line for a cell that is no number or does not fit the dtype, and for a
    line with too many or too few cells; with the nearest name for a column that is not there;
    TypeError for a dtype that is not integer or floating.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "flowers.csv").write_text("length,width,kind\\n5.1,3.5,rose\\n"
    ...                                                "4.9,3.0,iris\\n")
    ...     dataset = CsvDataset(f"{folder}/flowers.csv", target="kind", target_dtype=str)
    >>> dataset.classes, dataset[1][0].tolist(), int(dataset[0][1])
    (['iris', 'rose'], [4.900000095367432, 3.0], 1)
    """

    def __init__(
        self,
        path: PathLike,
        *,
        columns: Sequence[str] | None = None,
        dtype: DTypeLike = np.float32,
        target: str | None = None,
        target_dtype: DTypeLike | type[str] = np.float32,
        header: Sequence[str] | None = None,
        delimiter: str = ",",
        encoding: str = "utf-8-sig",
    ) -> None:
        self.path = Path(path)
        self.classes: list[str] = []
        self._lines, self._arrays = self._read(
            _Table(self.path, header, delimiter, encoding), columns, _number(dtype), target,
            None if np.dtype(target_dtype).kind == "U" else _number(target_dtype),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int, /) -> Sample:
        return tuple(array.take(index, 0) for array in self._arrays)

    def batch(self, indices: Indices) -> Batch:
        """Return copies of the rows of these indices."""
        return tuple([array.take(indices, 0) for array in self._arrays])

    def describe(self, index: int) -> str:
        """Return file and line of a sample."""
        return f"{self.path}:{self._lines[index]}"

    def _read(
        self,
        table: _Table,
        columns: Sequence[str] | None,
        dtype: np.dtype[Any],
        target: str | None,
        target_dtype: np.dtype[Any] | None,
    ) -> tuple[NDArray[np.intp], Batch]:
        """The line of each sample, and the fields."""
        features, targets, lines = [], [], []
        with table.open() as rows:
            chosen = [name for name in table.names if name != target]
            self.columns = chosen if columns is None else list(columns)
            where = [table.index(name) for name in self.columns]
            at = None if target is None else table.index(target)
            if not where:
                raise ValueError(f"{self.path} has no columns for the features")
            while chunk := list(islice(rows, CHUNK)):
                features.append(np.stack([table.numbers(chunk, i, dtype) for i in where], axis=1))
                lines.append(np.array([line for line, _ in chunk]))
                if at is not None:
                    targets.append(_column(table, chunk, at, target_dtype))
        if not lines:
            raise ValueError(f"{self.path} has no lines of data")
        fields = [np.concatenate(features)]
        if targets:
            fields.append(self._numbered(np.concatenate(targets)))
        return np.concatenate(lines), tuple(fields)

    def _numbered(self, target: NDArray[Any]) -> NDArray[Any]:
        """Class names as their numbers in `classes`; numbers as they are."""
        if target.dtype.kind != "U":
            return target
        names, numbers = np.unique(target, return_inverse=True)
        self.classes = names.tolist()
        return numbers.reshape(-1).astype(np.int64)


def _column(
    table: _Table, chunk: list[_Row], index: int, dtype: np.dtype[Any] | None
) -> NDArray[Any]:
    """The cells of one column: numbers, or text where there is no dtype."""
    if dtype is not None:
        return table.numbers(chunk, index, dtype)
    empty = [line for line, row in chunk if not row[index].strip()]
    if empty:
        raise ValueError(f"{table.path}:{empty[0]}: no class in column {table.names[index]!r}")
    return np.array([row[index].strip() for _, row in chunk])


def _number(dtype: DTypeLike) -> np.dtype[Any]:
    found = np.dtype(dtype)
    if found.kind not in "iuf":
        raise TypeError(f"the dtype of a column must be integer or floating, not {found}")
    return found


_Row = tuple[int, list[str]]  # the line that it ends in, and its cells


class _Table:
    """The file as lines of cells."""

    def __init__(
        self, path: Path, header: Sequence[str] | None, delimiter: str, encoding: str
    ) -> None:
        self.path = path
        self.names = list(header or ())
        self._delimiter, self._encoding = delimiter, encoding

    def open(self) -> _Lines:
        """Return the rows after the header; `names` are known then."""
        lines = _Lines(self.path, self._delimiter, self._encoding)
        try:
            if not self.names:
                _, names = next(lines, (0, []))
                self.names = [name.strip() for name in names]
                if not names:
                    raise ValueError(f"{self.path} is empty; its first line must name the columns")
            twice = sorted({name for name in self.names if self.names.count(name) > 1})
            if twice:
                raise ValueError(f"{self.path} has several columns of the name {twice[0]!r}")
        except BaseException:
            lines.close()
            raise
        lines.cells = len(self.names)
        return lines

    def index(self, name: str) -> int:
        """Return the number of a column. ValueError with the nearest name if it is not there."""
        if name in self.names:
            return self.names.index(name)
        from difflib import get_close_matches

        near = get_close_matches(name, self.names, 1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(self.names)}"
        raise ValueError(f"{self.path} has no column {name!r}{hint}")

    def numbers(self, rows: list[_Row], index: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return one column of some rows. ValueError with the line of the first bad cell."""
        try:
            if dtype.kind != "f":  # NumPy refuses what does not fit
                return np.array([int(row[index]) for _, row in rows], dtype)
            values = np.array([float(row[index]) for _, row in rows])
        except (ValueError, OverflowError) as error:
            raise self._bad_cell(rows, index, dtype) from error
        with np.errstate(over="ignore"):
            column = values.astype(dtype)
        if (np.isinf(column) & np.isfinite(values)).any():
            raise self._bad_cell(rows, index, dtype)
        return column

    def _bad_cell(self, rows: list[_Row], index: int, dtype: np.dtype[Any]) -> ValueError:
        line, row = next(found for found in rows if not _fits(found[1][index], dtype))
        return ValueError(
            f"{self.path}:{line}: {row[index]!r} in column {self.names[index]!r} is no {dtype}"
        )


def _fits(cell: str, dtype: np.dtype[Any]) -> bool:
    """Whether a cell is a number of this dtype."""
    try:
        if dtype.kind == "f":
            value = float(cell)
            with np.errstate(over="ignore"):
                return not math.isfinite(value) or bool(
                    np.isfinite(np.float64(value).astype(dtype))
                )
        return np.iinfo(dtype).min <= int(cell) <= np.iinfo(dtype).max
    except ValueError:
        return False


class _Lines(Iterator[_Row]):
    """The lines of a CSV file that are not blank, and what is wrong with them."""

    def __init__(self, path: Path, delimiter: str, encoding: str) -> None:
        import csv

        self.path = path
        self.cells = 0  # how many a line must have, once it is known
        self._file = path.open(newline="", encoding=encoding)
        self._reader = csv.reader(self._file, delimiter=delimiter, strict=True)
        self._error = csv.Error

    def __next__(self) -> _Row:
        try:
            row = next(row for row in self._reader if row)
        except (self._error, UnicodeDecodeError) as error:
            raise ValueError(f"{self.path}:{self._reader.line_num}: {error}") from error
        if self.cells and len(row) != self.cells:
            raise ValueError(
                f"{self.path}:{self._reader.line_num}: {len(row)} cells instead of {self.cells}"
            )
        return self._reader.line_num, row

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
