"""`CsvDataset`: the columns of a CSV file, read into arrays once, each cell checked."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rumus.train.base.class_names import checked_classes, unknown_class
from rumus.train.base.printable import printable
from rumus.train.data.csv_number import advice, first_that_is_none, numbers_of
from rumus.train.data.csv_table import CsvTable, Row
from rumus.train.data.dataset import Batch, Indices, Sample
from rumus.train.data.npy import PathLike

CHUNK: Final = 1 << 18  # cells that are kept as text at a time


class CsvDataset:
    """Columns of a CSV file with a header line: samples (features,) or (features, target).

    columns: the names of the features, in this order; by default all but the target, and but a
    first column of row names, as pandas and R write it: without a name, or called "Unnamed: 0",
    "rownames" or "row.names". A UserWarning says that it was left out.
    dtype: of the features, which are one array of shape (columns,).
    target: the name of the target's column, or a list of several, which are one array.
    target_dtype: the target's dtype; with `str` the cells are class names, and the target is the
    number of the class in `classes`.
    classes: the class names in the order of their numbers, for splits of one data set to agree:
    `classes=train.classes`. By default those of this file, sorted.
    missing: the number of a feature whose cell is empty, NA, N/A, null, None, - or ?; by default
    such a cell is an error.
    header: the names of the columns, if the file's first line is data.
    delimiter: what stands between cells. encoding: of the text. Blank lines are skipped.

    A number is written in decimal digits, with a point and an exponent where it is floating; nan
    and inf are written as NumPy, pandas and R do. Nothing else that Python reads as one is taken.

    ValueError with file and line for a cell that is no number or does not fit the dtype, for a
    class that is not in `classes`, and for a line with too many or too few cells; with the nearest
    name for a column that is not there; OSError for what is no regular file; TypeError for a dtype
    that is not integer or floating.

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
        target: str | Sequence[str] | None = None,
        target_dtype: DTypeLike | type[str] = np.float32,
        classes: Sequence[str] | None = None,
        missing: float | None = None,
        header: Sequence[str] | None = None,
        delimiter: str = ",",
        encoding: str = "utf-8-sig",
    ) -> None:
        self.path = Path(path)
        self.classes: list[str] = [] if classes is None else checked_classes(classes)
        targets = [target] if isinstance(target, str) else list(target or ())
        is_text = classes is not None or np.dtype(target_dtype).kind == "U"
        if is_text and not isinstance(target, str) and (targets or classes is not None):
            raise ValueError("class names are those of one target: give target='its column'")
        with CsvTable(self.path, header, delimiter, encoding) as table:
            self.columns = _features(table, columns, targets)
            fields: list[_Numbers | _Texts] = [_Numbers(table, self.columns, dtype, missing)]
            if isinstance(target, str) and is_text:
                fields.append(_Texts(table, target, self.classes))
            elif targets:
                fields.append(_Numbers(table, targets, target_dtype, None))
            self._lines = _read(table, fields)
        self._arrays = [field.array() for field in fields]
        if isinstance(target, str):
            self._arrays[1] = self._arrays[1].reshape(-1)

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


def _features(table: CsvTable, columns: Sequence[str] | None, targets: Sequence[str]) -> list[str]:
    """The names of the features, as given or as the file has them."""
    for name in targets:
        table.index(name)
    if columns is not None:
        if isinstance(columns, str):
            raise TypeError(f"columns must be a list of names, not the text {columns!r}")
        found = list(columns)
    else:
        found = table.features(targets)
        if table.has_row_names(targets):
            warnings.warn(
                f"{table.shown}: the first column, {printable(repr(table.names[0]))}, is left out "
                "as that of row names; give columns=[...] to choose",
                UserWarning,
                stacklevel=3,
            )
    if not found:
        raise ValueError(f"{table.shown} has no columns for the features")
    return found


def _read(table: CsvTable, fields: Sequence[_Numbers | _Texts]) -> NDArray[np.intp]:
    """Give all rows to the fields; return the line of each."""
    lines: list[int] = []
    while rows := list(islice(table, max(1, CHUNK // len(table.names)))):
        for field in fields:
            field.take(rows)
        lines += [line for line, _ in rows]
    if not lines:
        raise ValueError(f"{table.shown} has no lines of data")
    return np.array(lines, np.intp)


class _Numbers:
    """Columns that become one array of shape (rows, columns)."""

    def __init__(
        self, table: CsvTable, names: Sequence[str], dtype: DTypeLike, missing: float | None
    ) -> None:
        self._table, self._names, self._missing = table, names, missing
        self._dtype = _number(dtype)
        self._where = [table.index(name) for name in names]
        self._parts: list[NDArray[Any]] = []

    def take(self, rows: Sequence[Row]) -> None:
        """Convert some rows. ValueError with the line of the first cell that is no number."""
        cells = [row[index] for _, row in rows for index in self._where]
        try:
            part = numbers_of(cells, self._dtype, self._missing)
        except (ValueError, OverflowError) as error:
            raise self._bad_cell(rows, cells) from error
        self._parts.append(part.reshape(len(rows), len(self._where)))

    def _bad_cell(self, rows: Sequence[Row], cells: Sequence[str]) -> ValueError:
        place = first_that_is_none(cells, self._dtype, self._missing)
        row, column = divmod(place, len(self._names))
        cell, name = cells[place], self._names[column]
        return ValueError(
            f"{self._table.shown}:{rows[row][0]}: {printable(repr(cell))} in column "
            f"{printable(repr(name))} is no {self._dtype}; {advice(cell, name)}"
        )

    def array(self) -> NDArray[Any]:
        """Return all rows."""
        return np.concatenate(self._parts)


class _Texts:
    """One column of class names, which become their numbers in `classes`.

    classes: those that are allowed; if there are none, those that are found are put there.
    """

    def __init__(self, table: CsvTable, name: str, classes: list[str]) -> None:
        self._table, self._name, self._classes = table, name, classes
        self._index = table.index(name)
        self._found: list[str] = []
        self._known = frozenset(classes)

    def take(self, rows: Sequence[Row]) -> None:
        """Read some rows. ValueError with the line of an empty cell or an unknown class."""
        for line, row in rows:
            cell = row[self._index].strip()
            where = f"{self._table.shown}:{line}"
            if not cell:
                raise ValueError(f"{where}: no class in column {printable(repr(self._name))}")
            if self._known and cell not in self._known:
                raise unknown_class(where, cell, self._classes)
            self._found.append(cell)

    def array(self) -> NDArray[Any]:
        """Return the classes' numbers."""
        if not self._classes:
            self._classes += sorted(set(self._found))
        numbers = {name: number for number, name in enumerate(self._classes)}
        return np.array([numbers[name] for name in self._found], np.int64)


def _number(dtype: DTypeLike) -> np.dtype[Any]:
    found = np.dtype(dtype)
    if found.kind not in "iuf":
        raise TypeError(f"the dtype of a column must be integer or floating, not {found}")
    return found
