"""`CsvDataset`: the columns of a CSV file, read into arrays once and checked cell by cell."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.choice import check_choice
from rumus.tensor.expression.declared_type import shown
from rumus.tensor.expression.user_warning import warn_user
from rumus.train.base.class_names import (
    checked_classes,
    class_numbers,
    unknown_category,
    unknown_class,
    warn_of_text_order,
)
from rumus.train.base.other_names import CSV, DATASET
from rumus.train.base.printable import printable
from rumus.train.data.dataset import Batch, Indices, RowsOfFiles, Sample, as_index, as_indices
from rumus.train.data.npy import PathLike
from rumus.train.tables.answers import warn_of_answers
from rumus.train.tables.csv_cell import (
    Days,
    IsoText,
    MixedZones,
    Spelling,
    Written,
    as_truth,
    spelling_of_numbers,
)
from rumus.train.tables.csv_number import advice, first_that_is_none, is_number, numbers_of
from rumus.train.tables.csv_table import CsvTable, Row, about_comment_line, about_comments
from rumus.train.tables.doubts import (
    warn_of_divisions,
    warn_of_one_class,
    warn_of_one_target,
    warn_of_second_header,
    warn_of_sentinels,
    warn_of_summary,
)
from rumus.train.tables.feature_encoding import (
    MISSING,
    FeatureEncoding,
    Missing,
    as_booleans,
    as_categories,
    as_columns,
    as_dates,
    as_missing_cells,
    as_targets,
    dtype_of,
    number_dtype,
    refuse_both,
    refuse_many,
    typical_sizes,
)
from rumus.train.tables.rounding import Roundings, is_off
from rumus.train.tables.row_names import (
    row_names,
    warn_of_counting,
    warn_of_new,
    warn_of_row_names,
)

CHUNK: Final = 1 << 18  # cells kept as text at a time
_CODE: Final = re.compile(r"\s*0[0-9]{2,30}\s*")  # not a month, a day or an hour
_OF_ZERO: Final = "+-0. \t"  # letters of a cell that is 0
_MANY_ZEROS: Final = "0" * 36  # behind the point of a number below 1e-37 without an exponent


@DATASET.of_instances
class CsvDataset(RowsOfFiles):
    r"""Columns of a CSV file with a header line: samples (features,) or (features, target).

    path: a text file, comma-separated by default.
    columns: the names of the features, in order. By default all columns except the target and
        columns of row names, as written by pandas and R: a first one without a name, and those
        named "Unnamed: 0", "...1", "rownames" or the like. A UserWarning reports such omitted
        columns, an included column named "id", "index" or the like that merely numbers the rows,
        and a header line that consists of numbers.
    dtype: the dtype of the features, one array of shape (columns,).
    target: the name of the target column, or a list of several, which form one array.
    target_dtype: the target's dtype; with `str`, cells are class names and the target is the
        class's index in `classes`.
    classes: the class names in the order of their indices, to share them among splits:
        `classes=train.classes`. By default the sorted names of this file.
    categories: columns of texts, one-hot encoded: each text becomes a feature of 0 and 1;
        `features` names them. A mapping lists the texts of each column; by default they are those
        of the file, sorted.
    booleans: columns of booleans (true, false, t, f, yes, no, y, n), converted to 1 and 0.
    dates: columns of dates, converted to days since 1970; ISO 8601, unless a mapping gives their
        `datetime.strptime` formats. Years of two digits need their century, as 19%y or 20%y.
    missing: the value for a feature whose cell is empty, NA, N/A, #N/A, null, None, - or ?; "mean"
        takes the mean of the column. By default such a cell raises. A missing category is 0 for
        every text.
    missing_cells: other texts of such cells, such as ["-999"], which is -999.0 as well. A
        UserWarning tells of a column with -999 or the like, far from all its other numbers, if this
        is not given; [] confirms that they are numbers.
    missing_target: "error" raises for a line with a missing target, "drop" skips it.
    standardize: subtract the mean of each feature and divide by its standard deviation; categories
        stay 0 and 1.
    decimal, thousands: the decimal mark and the thousands separator of numbers.
    header: the column names, if the file's first line is data.
    delimiter: the separator of cells.
    encoding: the text's encoding. Blank lines are skipped.

    Raises ValueError, with file and line, for a cell that is not a number or does not fit the
    dtype, for a class that is not in `classes`, and for a line with too many or too few cells; for
    an unknown column, suggesting the closest name; and for a target that is also in `columns`.
    Raises OSError for anything but a regular file, TypeError for a dtype that is neither integer
    nor floating.

    A number consists of decimal digits, with a point and an exponent if it is floating; nan and inf
    are spelled as by NumPy, pandas and R. Other spellings that Python accepts raise. `like` reads
    another file with the same columns, and `encode` converts rows of a program; both use the
    classes, categories, means and deviations of this dataset.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from rumus.train import CsvDataset
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "flowers.csv").write_text("length,color,kind\n5.1,red,rose\n"
    ...                                                "4.9,blue,iris\n")
    ...     dataset = CsvDataset(f"{folder}/flowers.csv", target="kind", target_dtype=str,
    ...                          categories=["color"])
    >>> dataset.classes, dataset.features
    (['iris', 'rose'], ['length', 'color=blue', 'color=red'])
    >>> dataset[1][0].tolist(), int(dataset[0][1])
    ([4.900000095367432, 1.0, 0.0], 1)
    >>> dataset.encode([{"length": 5, "color": "red"}]).tolist()
    [[5.0, 0.0, 1.0]]
    """

    @CSV.as_keywords
    def __init__(
        self,
        path: PathLike,
        *,
        columns: Sequence[str] | None = None,
        dtype: DTypeLike = np.float32,
        target: str | Sequence[str] | None = None,
        target_dtype: DTypeLike | type[str] = np.float32,
        classes: Sequence[str] | None = None,
        categories: Sequence[str] | Mapping[str, Sequence[str]] = (),
        booleans: Sequence[str] = (),
        dates: Sequence[str] | Mapping[str, str] = (),
        missing: Missing = None,
        missing_cells: Sequence[str] | None = None,
        missing_target: Literal["error", "drop"] = "error",
        standardize: bool = False,
        decimal: str = ".",
        thousands: str | None = None,
        header: Sequence[str] | None = None,
        delimiter: str = ",",
        encoding: str = "utf-8-sig",
    ) -> None:
        self.path = Path(path)
        self.classes: list[str] = [] if classes is None else checked_classes(classes)
        is_text = classes is not None or dtype_of("target_dtype", target_dtype).kind == "U"
        if is_text and not isinstance(target, str) and (target or classes is not None):
            raise ValueError("class names need a single target: give target='its column'")
        spelling = spelling_of_numbers(decimal, thousands)
        absent = as_missing_cells(missing_cells or ())
        self._file = _File(header, delimiter, encoding, spelling, absent)
        if not isinstance(encoding, str):
            raise TypeError(f"encoding must be text such as 'utf-8', not {shown(encoding)}")
        check_choice("missing_target", missing_target, ("error", "drop"))
        self._target, self._drops = target, missing_target == "drop"
        self.has_all_rows = not self._drops
        self._dtype = number_dtype("dtype", dtype)
        self._target_dtype = None if is_text else number_dtype("target_dtype", target_dtype)
        with self._file.open(self.path) as table:
            self._names = table.names
            kinds = as_categories(categories), as_booleans(booleans), as_dates(dates)
            self.columns = _features(table, columns, as_targets(target), {*chain(*kinds)})
            self._encoding = FeatureEncoding(self.columns, *kinds, missing, standardize)
            self._encoding.warn_of_missing(self._dtype)
            numbers = self._read(table, learns=True, tells_codes=columns is None)
        if columns is None:
            warn_of_counting(table.shown, self._encoding.numbers, numbers)
            warn_of_divisions(table.shown, self._encoding.numbers, numbers)
            if is_text and table.is_headed_by_numbers(headed := self._encoding.numbers):
                if target in self.classes:
                    _warn_of_header(table.shown, f"numbers and {printable(repr(target))}, a class")
                elif sorted(headed, key=float) not in (headed, headed[::-1]):  # as of wavelengths
                    _warn_of_header(table.shown, "numbers in no order")
            if len(self._arrays) > 1:
                features, found = self._arrays
                warn_of_answers(table.shown, self._encoding, numbers, features, found, is_text)
        measured = self._measured(numbers)
        self._encoding.sizes = typical_sizes(*measured)
        if missing_cells is None:
            self._warn_of_sentinels(table.shown, *measured)
        warn_of_summary(table.shown, f":{self._lines[-1]}", numbers)
        if len(self._arrays) > 1 and not is_text:
            warn_of_one_target(table.shown, self._arrays[1])
        if is_text and classes is None:
            instead = "target_dtype={number} takes them for numbers, classes=[...]"
            warn_of_text_order(table.shown, "text", self.classes, instead)
            warn_of_one_class(table.shown, self.classes, len(self))

    @property
    def features(self) -> list[str]:
        """The names of the features: of their columns, or "column=text"."""
        return self._encoding.names

    @checked_arguments
    def like(self, path: PathLike) -> Self:
        """Read another file the same way; targets are skipped if it has none.

        A UserWarning tells of a column that this table lacks, which may be the target by another
        name.

        It uses the classes, categories, means and deviations of this dataset, and raises like the
        class.

        path: a file with the same columns.
        """
        other = object.__new__(type(self))
        other.__dict__ |= self.__dict__ | {"path": Path(path)}
        with self._file.open(other.path) as table:
            if not set(as_targets(self._target)) & set(table.names):
                known = {*self._names}
                new = (name for name in table.names if name not in known)
                warn_of_new(table.shown, as_targets(self._target), new)
                other._target = None
            numbers = other._read(table, learns=False)
        self._encoding.warn_of_sizes(table.shown, typical_sizes(*other._measured(numbers)))
        return other

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> NDArray[Any]:
        """Return the features of in-memory rows, ready for the model.

        rows: each with a value for each of `columns`; None for one that is missing. A number in a
            text is written as in the file, with its decimal marks and thousands separators.

        Raises ValueError with the row's number for a value that is missing or does not fit.
        """
        if isinstance(rows, Mapping):
            raise TypeError("encode takes a list of rows; for a single one, write encode([row])")
        rows = list(rows)  # which may be an iterator
        for at, row in enumerate(rows):
            if not hasattr(row, "keys"):
                raise TypeError(
                    f"row {at} must be a dict of values by column, not {shown(row)}; a data frame "
                    "of pandas has them as encode(frame.to_dict('records'))"
                )
        where = {name: number for number, name in enumerate(self.columns)}
        of_file = self._file.spelling
        spelling = None if of_file is None else _of_texts(of_file)
        roundings = Roundings("row")
        reader = _Features(roundings, self._encoding, spelling, self._dtype, where, between=" ")
        whole = {*self._encoding.numbers} if self._dtype.kind in "iu" else self._encoding.booleans
        cells = (
            [_cell(row, name, at, name in whole) for name in self.columns]
            for at, row in enumerate(rows)
        )
        reader.take([(at, self._file.without_absent(row)) for at, row in enumerate(cells)])
        features = reader.arrays(learns=False)[0]
        roundings.tell()
        return features

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int, /) -> Sample:
        place = as_index(index)
        return tuple(array.take(place, 0) for array in self._arrays)

    def batch(self, indices: Indices) -> Batch:
        """Return copies of the rows of these indices.

        indices: numbers of samples.
        """
        places = as_indices(indices)
        return tuple([array.take(places, 0) for array in self._arrays])

    def describe(self, index: int) -> str:
        """Return the file and line of a sample.

        index: the number of a sample.
        """
        return f"{self.path}:{self._lines[index]}"

    def _read(self, table: CsvTable, learns: bool, *, tells_codes: bool = False) -> NDArray[Any]:
        """Read the lines of a table; return the contents of its numeric columns."""
        where = {name: table.index(name) for name in self.columns}
        spelling = self._file.spelling
        roundings = Roundings(table.shown)
        reader = _Features(roundings, self._encoding, spelling, self._dtype, where)
        target = self._reader_of_target(table, roundings)
        reader.numbers.tells_codes = tells_codes
        if isinstance(target, _Numbers):
            target.tells_codes = tells_codes
        needed = [table.index(name) for name in as_targets(self._target)] if self._drops else []
        fields = [reader, *([] if target is None else [target])]
        self._lines = _lines(table, fields, needed, self._file.without_absent)
        table.warn_of_open_end()
        if learns:
            texts = reader.new_texts() | (target.new_texts() if isinstance(target, _Texts) else {})
            warn_of_second_header(table.shown, int(self._lines[0]), texts)
        features, numbers = reader.arrays(learns)
        self._arrays = [features]
        if target is not None:
            found = target.array()
            self._arrays.append(found.reshape(-1) if isinstance(self._target, str) else found)
        roundings.tell()
        return numbers

    def _measured(self, numbers: NDArray[Any]) -> tuple[list[str], NDArray[Any]]:
        """The names and the contents of the numeric columns, including targets."""
        names = list(self._encoding.numbers)
        if len(self._arrays) == 1 or self._target_dtype is None:
            return names, numbers
        targets = self._arrays[1].reshape(len(numbers), -1)
        return names + as_targets(self._target), np.concatenate([numbers, targets], axis=1)

    def _warn_of_sentinels(self, shown: str, names: Sequence[str], numbers: NDArray[Any]) -> None:
        warn_of_sentinels(
            shown,
            names,
            numbers,
            self._encoding.missing,
            "missing_cells=['{0}'] says so, and missing_cells=[] that it is none",
            self._encoding.dates,
        )

    def _reader_of_target(self, table: CsvTable, roundings: Roundings) -> _Numbers | _Texts | None:
        names = as_targets(self._target)
        if not names:
            return None
        if self._target_dtype is None:
            return _Texts(table, names[0], self.classes)
        indices = [table.index(name) for name in names]
        spellings = [self._file.spelling] * len(names)
        kind = self._target_dtype
        return _Numbers(roundings, names, indices, spellings, kind, None, is_target=True)


@dataclass(frozen=True)
class _File:
    """The format of a file."""

    header: Sequence[str] | None
    delimiter: str
    encoding: str
    spelling: Spelling | None
    absent: frozenset[str]  # other texts of missing cells

    def without_absent(self, cells: list[str]) -> list[str]:
        """Return cells with those that are missing empty."""
        return ["" if self._is_absent(c.strip()) else c for c in cells] if self.absent else cells

    def _is_absent(self, cell: str) -> bool:
        """Whether a cell is one of the texts, or the number of one in another spelling."""
        if cell in self.absent or not is_number(cell):
            return cell in self.absent
        return any(is_number(each) and float(each) == float(cell) for each in self.absent)

    def open(self, path: Path) -> CsvTable:
        return CsvTable(path, self.header, self.delimiter, self.encoding)


def _of_texts(spelling: Spelling) -> Spelling:
    """The spelling of a program's texts; its numbers have decimal points."""
    return lambda cell: spelling(cell) if isinstance(cell, Written) else cell


def _cell(row: Mapping[str, Any], name: str, at: int, is_whole: bool) -> str:
    """A Python value as a cell of a file with decimal points.

    is_whole: whether a whole number is wanted, which may be a float.
    """
    if name not in row:
        raise ValueError(f"row {at} has no {name!r}; give None if it is missing")
    value = row[name]
    if isinstance(value, str):
        return Written(value)
    if value is None or str(value) == "NaT":  # of NumPy or pandas
        return ""
    if isinstance(value, np.datetime64):
        return IsoText(np.datetime_as_string(value, unit="auto"))
    if isinstance(value, date):
        return IsoText(value)
    if is_whole and isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)
    return str(value)


def _features(
    table: CsvTable,
    columns: Sequence[str] | None,
    targets: Sequence[str],
    declared: Collection[str],
) -> list[str]:
    """The names of the features, as given or from the file.

    declared: columns that are features, since their kind is given.
    """
    for name in targets:
        table.index(name)
    if columns is not None:
        found = as_columns(columns)
        refuse_both(table.shown, found, targets)
    else:
        left_out = row_names(table.names, {*targets, *declared})
        found = table.features(targets, left_out)
        warn_of_row_names(table.shown, left_out)
        if table.is_headed_by_numbers(table.names):
            _warn_of_header(table.shown, "only numbers")
    if not found:
        raise ValueError(f"{table.shown} has no columns for the features")
    return found


def _warn_of_header(shown: str, has: str) -> None:
    warn_user(
        f"{shown}: the first line is read as column names, but holds {has}; give header=[...] with "
        "names if it is data, or columns=[...] if it is not",
    )


def _lines(
    table: CsvTable,
    fields: Sequence[_Features | _Numbers | _Texts],
    needed: Sequence[int],
    without_absent: Callable[[list[str]], list[str]],
) -> NDArray[np.intp]:
    """Pass rows to the fields, skipping those with a missing target; return each row's line."""
    lines: list[int] = []
    while rows := list(islice(table, max(1, CHUNK // len(table.names)))):
        rows = [(line, without_absent(cells)) for line, cells in rows]
        rows = [row for row in rows if not any(row[1][i].strip() in MISSING for i in needed)]
        for field in fields:
            field.take(rows)
        lines += [line for line, _ in rows]
    if not lines:
        raise ValueError(f"{table.shown} has no data rows")
    return np.array(lines, np.intp)


class _Features:
    """The features: numbers and categories. where: the index of each column.

    between: stands between the table's name and a line's number in messages.
    """

    def __init__(
        self,
        roundings: Roundings,
        encoding: FeatureEncoding,
        spelling: Spelling | None,
        dtype: np.dtype[Any],
        where: Mapping[str, int],
        between: str = ":",
    ) -> None:
        self._encoding, self._dtype, self._where = encoding, dtype, where
        self._roundings, self._place = roundings, roundings.shown + between
        indices = [where[name] for name in encoding.numbers]
        spellings = [self._spelling(name, spelling) for name in encoding.numbers]
        kept = encoding.dtype_of_numbers(dtype)
        names, fill = encoding.numbers, encoding.fill
        self.numbers = _Numbers(roundings, names, indices, spellings, kept, fill, between)
        self._texts: dict[str, list[str]] = {name: [] for name in encoding.categories}
        self._different: dict[str, set[str]] = {name: set() for name in encoding.categories}

    def _spelling(self, name: str, of_numbers: Spelling | None) -> Spelling | None:
        if name in self._encoding.booleans:
            return as_truth
        if name in self._encoding.dates:
            return Days(self._encoding.dates[name])
        return of_numbers

    def take(self, rows: Sequence[Row]) -> None:
        """Read some rows. Raises ValueError with the line of a cell that does not fit."""
        self.numbers.take(rows)
        for name, found in self._texts.items():
            start = len(found)
            found.extend(self._categories(name, rows))
            different = self._different[name]
            different.update(found[start:])
            refuse_many(name, len(different), len(found), self._dtype)

    def _categories(self, name: str, rows: Sequence[Row]) -> Iterator[str]:
        index, texts = self._where[name], self._encoding.categories[name]
        known = frozenset(texts)
        for line, row in rows:
            cell = row[index].strip()
            place = f"{self._place}{line}"
            if cell in MISSING and cell not in known:
                if self._encoding.missing is None:
                    raise ValueError(
                        f"{place}: {printable(repr(cell))} in column {printable(repr(name))} is "
                        "not a category; set missing=0.0, or another number, to read it as none "
                        "of them"
                    )
                cell = ""
            elif known and cell not in known:
                raise unknown_category(f"{place}: column {printable(repr(name))}", cell, texts)
            yield cell

    def new_texts(self) -> dict[str, Sequence[str]]:
        """Return the texts, line by line, of columns whose categories are to be learned."""
        known = self._encoding.categories
        return {name: found for name, found in self._texts.items() if not known[name]}

    def arrays(self, learns: bool) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the features of all rows, and the unscaled numeric columns.

        With `learns`, fit the encoding to them.
        """
        numbers = self.numbers.array()
        encoding = self._encoding
        for name, has_zone in self.numbers.zones():
            encoding.check_zone(self._roundings.shown, name, has_zone)
        if learns:
            encoding.learn(numbers, self._texts, {})
        return encoding.features(numbers, self._texts, self._dtype, self._roundings), numbers


class _Numbers:
    """Columns that form one array of shape (rows, columns). indices: their places in a row."""

    def __init__(
        self,
        roundings: Roundings,
        names: Sequence[str],
        indices: Sequence[int],
        spellings: Sequence[Spelling | None],
        dtype: np.dtype[Any],
        missing: float | None,
        between: str = ":",
        *,
        is_target: bool = False,
    ) -> None:
        self._place, self._is_target = roundings.shown + between, is_target
        self._roundings, self._names, self._missing = roundings, names, missing
        self._indices, self._spellings, self._dtype = indices, spellings, dtype
        self._dates = [at for at, each in enumerate(spellings) if isinstance(each, Days)]
        self._parts: list[NDArray[Any]] = []
        self.tells_codes = False  # whether numbers with leading zeros are told of

    def take(self, rows: Sequence[Row]) -> None:
        """Convert some rows.

        Raises ValueError with the line of the first cell that is not a number.
        """
        cells = [row[index] for _, row in rows for index in self._indices]
        if any(spelling is not None for spelling in self._spellings):
            cells = self._spelled(rows, cells)
        try:
            part = numbers_of(cells, self._dtype, self._missing)
        except (ValueError, OverflowError) as error:
            place = first_that_is_none(cells, self._dtype, self._missing)
            raise self._bad_cell(rows, place, cells[place], is_spelled=True) from error
        if self._dtype.kind == "f":
            self._see_rounded(cells, part)
        if self.tells_codes:
            self._see_codes(cells)
        self._parts.append(part.reshape(len(rows), len(self._indices)))

    def _see_rounded(self, cells: Sequence[str], part: NDArray[Any]) -> None:
        """Note that a column's dtype rounds large numbers, times, or others to 0."""
        count, roundings = len(self._names), self._roundings
        large = np.abs(part) >= 2.0 ** (np.finfo(self._dtype).nmant + 1)
        for place in np.flatnonzero(large).tolist():
            name, cell = self._names[place % count], cells[place].strip()
            whole, _, fraction = cell.lstrip("+-").lstrip("0").partition(".")
            if name in roundings or not (whole + fraction).isdecimal():
                continue  # with an exponent, the digits say how exact it is
            if abs(int(whole or "0") - abs(int(part[place]))) > bool(fraction):
                roundings.note_rounded(name, cell, part[place])
        if _may_vanish(cells):
            for place in np.flatnonzero(part == 0).tolist():
                name, cell = self._names[place % count], cells[place]
                if cell.strip(_OF_ZERO) and name not in roundings and _is_not_zero(cell):
                    roundings.note_vanished(name, cell.strip(), self._dtype)
        dates = [at for at in self._dates if self._names[at] not in roundings]
        if dates and self._dtype.itemsize < 8:
            texts = [cells[row + at] for row in range(0, len(cells), count) for at in dates]
            days = numbers_of(texts, np.dtype(np.float64), self._missing).reshape(-1, len(dates))
            kept = part.reshape(-1, count)[:, dates]
            for at in np.flatnonzero(is_off(days, kept).any(0)).tolist():
                roundings.note_times(self._names[dates[at]], days[:, at], kept[:, at])

    def _see_codes(self, cells: Sequence[str]) -> None:
        """Say once of a table that it has whole numbers with leading zeros, such as zip codes."""
        texts = "," + ",".join(cells)
        if not any(f",0{digit}" in texts for digit in "0123456789"):
            return  # which is a tenth of the time of looking at each
        if (place := next((n for n, cell in enumerate(cells) if _CODE.fullmatch(cell)), -1)) < 0:
            return
        self.tells_codes = False
        cell, name = cells[place].strip(), printable(repr(self._names[place % len(self._names)]))
        keeps = "target_dtype=str" if self._is_target else f"categories=[{name}]"
        warn_user(
            f"{self._roundings.shown}: column {name} has numbers with leading zeros, and {cell} is "
            f"read as {int(cell)}: {keeps} keeps codes as texts, and columns=[...] says that they "
            "are numbers"
        )

    def _spelled(self, rows: Sequence[Row], cells: Sequence[str]) -> list[str]:
        """The cells as plain numbers."""
        found, count = [], len(self._names)
        for place, cell in enumerate(cells):
            spelling = self._spellings[place % count]
            try:
                found.append(cell if spelling is None else spelling(cell))
            except MixedZones as error:
                row, column = divmod(place, count)
                raise ValueError(
                    f"{self._place}{rows[row][0]}: column {printable(repr(self._names[column]))} "
                    f"has times with and without a zone, such as {printable(repr(cell))}: write "
                    "all of them with one, or none"
                ) from error
            except ValueError as error:
                raise self._bad_cell(rows, place, cell, is_spelled=False) from error
        return found

    def _bad_cell(
        self, rows: Sequence[Row], place: int, cell: str, *, is_spelled: bool
    ) -> ValueError:
        row, column = divmod(place, len(self._names))
        name, told = self._names[column], self._advice(cell, column, is_spelled=is_spelled)
        is_first = self._indices[column] == 0
        comment = about_comments(name) or (about_comment_line(cell) if is_first else None)
        told = "; ".join(filter(None, (comment, told)))
        return ValueError(
            f"{self._place}{rows[row][0]}: {printable(repr(cell))} in column "
            f"{printable(repr(name))} is not {self._what(column)}; {told}"
        )

    def _advice(self, cell: str, column: int, *, is_spelled: bool) -> str:
        name, spelling = self._names[column], self._spellings[column]
        if isinstance(spelling, Days) and not is_spelled:
            return spelling.advice(name, cell)
        if is_spelled or spelling is None or not is_number(cell.strip()):
            return advice(cell, name, self._dtype, self._missing, is_target=self._is_target)
        if spelling is as_truth:
            return "of numbers only 1 and 0 are"
        return "its marks are not those of decimal= and thousands="

    def _what(self, column: int) -> str:
        spelling = self._spellings[column]
        if spelling is as_truth:
            return "a boolean"
        return "a date" if isinstance(spelling, Days) else str(self._dtype)

    def zones(self) -> Iterator[tuple[str, bool | None]]:
        """Yield each column of dates, and whether its times have a zone."""
        for name, spelling in zip(self._names, self._spellings, strict=True):
            if isinstance(spelling, Days):
                yield name, spelling.has_zone

    def array(self) -> NDArray[Any]:
        """Return all rows."""
        return np.concatenate(self._parts)


class _Texts:
    """A column of class names, converted to their indices in `classes`.

    classes: the allowed names; if empty, it is filled with those found.
    """

    def __init__(self, table: CsvTable, name: str, classes: list[str]) -> None:
        self._table, self._name, self._classes = table, name, classes
        self._index = table.index(name)
        self._found: list[str] = []
        self._known = frozenset(classes)

    def take(self, rows: Sequence[Row]) -> None:
        """Read some rows. Raises ValueError with the line of an empty cell or an unknown class."""
        for line, row in rows:
            cell = row[self._index].strip()
            where = f"{self._table.shown}:{line}"
            if not cell or (cell in MISSING and cell not in self._known):
                raise ValueError(
                    f"{where}: {printable(repr(cell))} in column {printable(repr(self._name))} is "
                    "not a class; drop such rows with missing_target='drop', or list it in "
                    "classes=[...]"
                )
            if self._known and cell not in self._known:
                raise unknown_class(where, cell, self._classes)
            self._found.append(cell)

    def new_texts(self) -> dict[str, Sequence[str]]:
        """Return the names, line by line, unless the classes are given."""
        return {} if self._known else {self._name: self._found}

    def array(self) -> NDArray[Any]:
        """Return the class indices."""
        return class_numbers(self._found, self._classes)


def _may_vanish(cells: Sequence[str]) -> bool:
    """Whether one of them may be less than the least float32: it has an exponent or many zeros.

    Tables of pictures have millions of zeros, which are not to be looked at one by one.
    """
    texts = ",".join(cells)
    return "e" in texts or "E" in texts or _MANY_ZEROS in texts


def _is_not_zero(cell: str) -> bool:
    """Whether a cell that was read as 0 is a number other than 0, and not a missing one."""
    try:
        return float(cell) != 0
    except ValueError:
        return False
