"""`ParquetDataset`: the columns of a Parquet or Arrow file, or of a table of pyarrow."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, Final, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.declared_type import shown as described
from rumus.tensor.expression.nearest_name import nearest_name
from rumus.tensor.memory.uninterrupted import Uninterrupted, is_of_handler
from rumus.train.base.class_names import (
    checked_classes,
    class_numbers,
    unknown_category,
    unknown_class,
    warn_of_text_order,
)
from rumus.train.base.file_kind import kind_of_file
from rumus.train.base.other_names import DATASET
from rumus.train.base.printable import printable
from rumus.train.base.regular_file import require_regular_file
from rumus.train.data.dataset import Batch, Indices, RowsOfFiles, Sample, as_index, as_indices
from rumus.train.data.npy import PathLike
from rumus.train.tables.answers import warn_of_answers
from rumus.train.tables.doubts import (
    warn_of_divisions,
    warn_of_one_class,
    warn_of_one_target,
    warn_of_sentinels,
    warn_of_summary,
)
from rumus.train.tables.feature_encoding import (
    FeatureEncoding,
    Missing,
    as_categories,
    as_columns,
    as_dates,
    as_targets,
    dtype_of,
    number_dtype,
    refuse_both,
    refuse_many,
    typical_sizes,
)
from rumus.train.tables.rounding import Roundings, holding
from rumus.train.tables.row_names import (
    row_names,
    warn_of_counting,
    warn_of_new,
    warn_of_row_names,
)

_IPC: Final = frozenset((".arrow", ".feather", ".ipc"))
_TEXTS: Final = frozenset((".csv", ".tsv", ".txt"))
_TOGETHER: Final = 32  # columns held twice while they become rows
_BLOCK: Final = 4096  # rows of these
_DAY: Final = 86_400 * 10**6  # microseconds


@DATASET.of_instances
class ParquetDataset(RowsOfFiles):
    """Columns of a Parquet or Arrow file: samples (features,) or (features, target).

    table: a `pyarrow.Table` or a file; an Arrow file if its name ends in .arrow, .feather or .ipc,
        otherwise Parquet, unless it begins like the other. Only the needed columns are read.
    columns, dtype, target, target_dtype, classes, categories, missing, standardize: as in
        `CsvDataset`; an index of pandas, named or not, is not a feature. Booleans become 1 and 0.
        Categories of pandas, which a dictionary lists, are those of the column, in their order if
        they have one, even if no row has one of them.
    dates: columns of dates and times, converted to days since 1970.

    Raises ValueError for a damaged file; for an unknown column, suggesting the closest name; for a
    column of lists or structures, of texts or dates not declared as such, or with missing values
    but no `missing=`; and for a target that is also in `columns`. Raises TypeError for means of
    features that are not floating-point, OSError for anything but a regular file.

    Needs pyarrow; the ImportError says how to install it.

    >>> import pyarrow
    >>> from rumus.train import ParquetDataset
    >>> table = pyarrow.table({"length": [5.1, None], "color": ["red", "blue"], "kind": [1, 0]})
    >>> dataset = ParquetDataset(table, target="kind", categories=["color"], missing="mean")
    >>> dataset.features, dataset[1][0].tolist()
    (['length', 'color=blue', 'color=red'], [5.099999904632568, 1.0, 0.0])
    """

    @checked_arguments
    def __init__(
        self,
        table: PathLike | Any,
        *,
        columns: Sequence[str] | None = None,
        dtype: DTypeLike = np.float32,
        target: str | Sequence[str] | None = None,
        target_dtype: DTypeLike | type[str] = np.float32,
        classes: Sequence[str] | None = None,
        categories: Sequence[str] | Mapping[str, Sequence[str]] = (),
        dates: Sequence[str] = (),
        missing: Missing = None,
        standardize: bool = False,
    ) -> None:
        self._source = _Source(table)
        self._names = self._source.names
        self.classes: list[str] = [] if classes is None else checked_classes(classes)
        self._is_text = classes is not None or dtype_of("target_dtype", target_dtype).kind == "U"
        self._target = target
        if self._is_text and not isinstance(target, str):
            raise ValueError("class names need a single target: give target='its column'")
        self._dtype = number_dtype("dtype", dtype, "biuf")
        self._target_dtype = np.dtype(np.int64)
        if not self._is_text:
            self._target_dtype = number_dtype("target_dtype", target_dtype, "biuf")
        targets = as_targets(target)
        kinds = as_categories(categories), frozenset[str](), as_dates(dates)
        named = {*targets, *kinds[0], *kinds[2]}
        left_out = row_names(self._source.names, named, self._source.index_names)
        is_other = {*targets, *left_out}
        others = [name for name in self._source.names if name not in is_other]
        if columns is None:
            warn_of_row_names(self._source.shown, left_out)
        self.columns = others if columns is None else as_columns(columns)
        refuse_both(self._source.shown, self.columns, targets)
        if not self.columns:
            raise ValueError(f"{self._source.shown} has no columns for the features")
        self._encoding = FeatureEncoding(self.columns, *kinds, missing, standardize)
        numbers = self._read(learns=True)
        self._encoding.sizes = self._sizes(numbers)
        if columns is None:
            names = self._encoding.numbers
            warn_of_counting(self._source.shown, names, numbers)
            warn_of_divisions(self._source.shown, names, numbers)
            warn_of_sentinels(
                self._source.shown,
                names,
                numbers,
                missing,
                "make it null in the table, and columns=[...] says that it is none",
                self._encoding.dates,
            )
            if targets:
                (features, found), shown = self._arrays, self._source.shown
                warn_of_answers(shown, self._encoding, numbers, features, found, self._is_text)
        if self._is_text and classes is None:
            instead = "target_dtype={number} takes them for numbers, classes=[...]"
            warn_of_text_order(self._source.shown, "text", self.classes, instead)
            warn_of_one_class(self._source.shown, self.classes, len(self))
        elif targets and not self._is_text:
            warn_of_one_target(self._source.shown, self._arrays[1])
        warn_of_summary(self._source.shown, f", row {len(self) - 1}", numbers)

    @property
    def features(self) -> list[str]:
        """The names of the features: their columns, or "column=text"."""
        return self._encoding.names

    @checked_arguments
    def like(self, table: PathLike | Any) -> Self:
        """Read another table the same way; targets are skipped if it has none.

        A UserWarning tells of a column that this table lacks, which may be the target by another
        name.

        It uses the classes, categories, means and deviations of this dataset.

        table: with the same columns.
        """
        other = object.__new__(type(self))
        other.__dict__ |= self.__dict__ | {"_source": _Source(table)}
        if not set(as_targets(self._target)) & set(other._source.names):
            source, known = other._source, {*self._names}
            new = (name for name in source.names if name not in known)
            warn_of_new(source.shown, as_targets(self._target), new)
            other._target = None
        sizes = other._sizes(other._read(learns=False))
        self._encoding.warn_of_sizes(other._source.shown, sizes)
        return other

    def __len__(self) -> int:
        return len(self._arrays[0])

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
        """Return the file and the row of a sample.

        index: the number of a sample.
        """
        return f"{self._source.shown}, row {index}"

    def _read(self, learns: bool) -> NDArray[Any]:
        """Read the rows of the table; return the contents of its numeric columns."""
        source, encoding = self._source, self._encoding
        targets = as_targets(self._target)
        source.read([*self.columns, *targets])
        kept = encoding.dtype_of_numbers(self._dtype)
        names = encoding.numbers
        numbers = np.empty((source.rows, len(names)), kept)
        for first in range(0, len(names), _TOGETHER):
            place = slice(first, first + _TOGETHER)
            _fill(numbers[:, place], [self._column(name) for name in names[place]])
        for name in encoding.categories:
            refuse_many(name, source.different(name), source.rows, self._dtype)
        texts = {
            name: source.texts(
                name, known, unknown_category, allows_missing=encoding.missing is not None
            )
            for name, known in encoding.categories.items()
        }
        if learns:
            encoding.learn(numbers, texts, {name: source.declared(name) for name in texts})
        self._arrays = [encoding.features(numbers, texts, self._dtype, source.roundings)]
        if targets:
            self._arrays.append(self._targets(targets))
        if not source.rows:
            raise ValueError(f"{source.shown} has no rows")
        source.forget()
        source.roundings.tell()
        return numbers

    def _sizes(self, numbers: NDArray[Any]) -> dict[str, float]:
        """The sizes of the numbers of each column, including targets."""
        found = typical_sizes(self._encoding.numbers, numbers)
        if len(self._arrays) > 1 and not self._is_text:
            targets = self._arrays[1].reshape(len(numbers), -1)
            found |= typical_sizes(as_targets(self._target), targets)
        return found

    def _column(self, name: str) -> NDArray[Any]:
        encoding, roundings = self._encoding, self._source.roundings
        found = self._source.numbers(name, encoding.fill, name in encoding.dates)
        if name in encoding.dates:
            encoding.check_zone(self._source.shown, name, self._source.has_zone(name, found))
        if encoding.has_means:
            roundings.note_numbers(name, found, found.astype(np.float64, copy=False))
        else:
            self._source.require_exact(name, found, self._dtype)
            if name in encoding.dates and self._dtype.kind == "f":
                roundings.note_times(name, found, found.astype(self._dtype))
        return found

    def _targets(self, names: Sequence[str]) -> NDArray[Any]:
        if self._is_text:
            if not self.classes:
                self.classes = self._source.declared(names[0])
            found = self._source.texts(names[0], self.classes, unknown_class, allows_missing=False)
            return class_numbers(found, self.classes)
        columns = [self._source.targets(name) for name in names]
        for name, column in zip(names, columns, strict=True):
            self._source.require_exact(name, column, self._target_dtype)
        stacked = np.stack([each.astype(self._target_dtype) for each in columns], axis=1)
        return stacked[:, 0] if isinstance(self._target, str) else stacked


class _Source:
    """A pyarrow table: given, or read from a file on demand."""

    def __init__(self, given: PathLike | Any) -> None:
        _check_pyarrow()
        import pyarrow

        if not isinstance(given, (pyarrow.Table, str, PurePath)) and hasattr(given, "columns"):
            raise TypeError(
                f"table must be a file or a pyarrow.Table, not {type(given).__name__}: "
                "pyarrow.Table.from_pandas(frame) makes one of a data frame of pandas"
            )
        if not isinstance(given, (pyarrow.Table, str, os.PathLike)):
            raise TypeError(f"table must be a file or a pyarrow.Table, not {described(given)}")
        self._given = given if isinstance(given, pyarrow.Table) else Path(given)
        self.shown = "the table" if isinstance(given, pyarrow.Table) else printable(given)
        self.roundings = Roundings(self.shown)
        self._table: Any = None
        schema = self._schema()
        self.names: list[str] = list(schema.names)
        self.index_names = _index_names(schema)

    @property
    def rows(self) -> int:
        """The number of rows."""
        return int(self._table.num_rows)

    def _schema(self) -> Any:
        from pyarrow import ipc, parquet

        if not isinstance(self._given, Path):
            return self._given.schema
        require_regular_file(self._given)
        try:
            if _is_arrow(self._given):
                with ipc.open_file(self._given) as reader:
                    return reader.schema
            return parquet.read_schema(self._given)
        except (ValueError, OSError) as error:  # pyarrow's, for another kind of file
            if is_of_handler(error) or (isinstance(error, OSError) and error.errno is not None):
                raise  # the system's
            raise self._no_table(error) from error
        except Exception as error:  # of damage that pyarrow does not expect
            if is_of_handler(error):
                raise
            raise self._no_table(error) from error

    def _no_table(self, error: Exception) -> ValueError:
        told = f"{self.shown} is not a Parquet or Arrow file: {printable(error)}"
        path = self._given
        if isinstance(path, Path) and (kind := kind_of_file(path, "ParquetDataset")) is not None:
            return ValueError(f"{told}; it is {kind}")
        if isinstance(path, Path) and path.suffix in _TEXTS:
            told += "; CsvDataset reads text"
        if isinstance(path, Path) and path.suffix in _IPC:
            told += "; if it is a stream, give pyarrow.ipc.open_stream(path).read_all()"
        return ValueError(told)

    def read(self, names: Sequence[str]) -> None:
        """Read these columns. Raises ValueError for an unknown one, suggesting the closest name."""
        from pyarrow import feather, parquet

        counts = Counter(self.names)
        for name in names:
            if name not in counts:
                near = nearest_name(name, self.names)
                there = printable(", ".join(self.names[:20]))
                hint = f"did you mean {near!r}?" if near else f"it has {there}"
                raise ValueError(f"{self.shown} has no column {name!r}; {hint}")
            if counts[name] > 1:
                raise ValueError(
                    f"{self.shown} has {counts[name]} columns called {name!r}: rename "
                    "them, or leave them out with columns=[...]"
                )
        chosen = list(dict.fromkeys(names))
        if not isinstance(self._given, Path):
            self._table = self._given.select(chosen)
            return
        read = feather.read_table if _is_arrow(self._given) else parquet.read_table
        try:
            self._table = read(self._given, columns=chosen)
            self._table.validate(full=True)  # or offsets that are damaged would lead anywhere
        except MemoryError as error:  # of a size that is damaged, most likely
            raise ValueError(
                f"{self.shown} is damaged, or takes more memory than there is: {printable(error)}"
            ) from error
        except Exception as error:  # of damage behind the schema, of whatever kind
            if is_of_handler(error) or (isinstance(error, OSError) and error.errno is not None):
                raise  # the system's
            raise self._no_table(error) from error

    def forget(self) -> None:
        """Release what was read."""
        self._table = None

    def numbers(self, name: str, fill: float | None, is_date: bool) -> NDArray[Any]:
        """Return a column of numbers. fill: the value of a missing one; None raises."""
        from pyarrow import compute, types

        column = self._table.column(name)
        kind = column.type
        if column.null_count and fill is None:
            raise ValueError(
                f"{self.shown}: column {name!r} has {column.null_count} missing values; "
                "missing=0.0 replaces them with that number, missing='mean' with the mean of the "
                "column"
            )
        if is_date and _is_day(kind):
            return _with(self._microseconds(name, column), fill) / _DAY
        if types.is_boolean(kind):
            column = compute.cast(column, "uint8")
        elif types.is_decimal(kind):
            column = self._undecimal(name, column)
        elif not (types.is_integer(kind) or types.is_floating(kind)):
            raise ValueError(f"{self.shown}: column {name!r} holds {kind}; {_advice(kind, name)}")
        if is_date:
            raise ValueError(
                f"{self.shown}: column {name!r} holds {self._table.column(name).type}, not dates: "
                "leave it out of dates=, or cast it to dates in the table"
            )
        return self._filled(name, column, fill)

    def has_zone(self, name: str, days: NDArray[Any]) -> bool | None:
        """Return whether times have a zone; None for days, which pandas writes as times, too."""
        if getattr(self._table.column(name).type, "tz", None) is not None:
            return True
        has_times = bool((days[np.isfinite(days)] % 1 != 0).any())
        return False if has_times else None

    def _undecimal(self, name: str, column: Any) -> Any:
        """Decimals as integers where all are whole, and exact then, otherwise as floats."""
        from pyarrow import ArrowInvalid, compute

        for kind in ("int64", "uint64"):
            try:
                return compute.cast(column, kind)
            except ArrowInvalid:
                pass
        found = compute.cast(column, "float64")
        numbers = found.to_numpy()
        for place in np.flatnonzero(np.abs(numbers) >= 2.0**53).tolist():
            cell = column[place].as_py()
            if abs(int(cell) - int(numbers[place])) > (cell != int(cell)):
                self.roundings.note_rounded(name, f"{cell:f}", numbers[place])
                break
        return found

    def _microseconds(self, name: str, column: Any) -> Any:
        """A column of dates, as microseconds since 1970."""
        from pyarrow import ArrowInvalid, compute

        kind = column.type
        try:
            # Only digits below a microsecond may go: float64 has none of them for days since 1970.
            safe = getattr(kind, "unit", "us") != "ns"
            return compute.cast(compute.cast(column, "timestamp[us]", safe=safe), "int64")
        except ArrowInvalid as error:
            raise ValueError(
                f"{self.shown}: column {name!r} has a date further away than microseconds can "
                f"count: {printable(error)}"
            ) from error

    def _filled(self, name: str, column: Any, fill: float | None) -> NDArray[Any]:
        """A column as an array, with missing values filled; whole numbers stay so if they can."""
        from pyarrow import compute, types

        if column.null_count and fill is not None and types.is_integer(column.type):
            whole = compute.drop_null(column).to_numpy()
            limits = np.iinfo(whole.dtype)
            if limits.min <= fill <= limits.max and float(fill).is_integer():
                column = column.fill_null(int(fill))
            else:
                self.roundings.note_numbers(name, whole, whole.astype(np.float64))
        return _with(column, fill)

    def targets(self, name: str) -> NDArray[Any]:
        """Return a column of numeric targets."""
        from pyarrow import types

        column = self._table.column(name)
        if column.null_count:
            raise ValueError(
                f"{self.shown}: the target {name!r} is missing in {column.null_count} rows: "
                "remove these rows from the table"
            )
        if types.is_temporal(column.type):
            raise ValueError(
                f"{self.shown}: the target {name!r} holds {column.type}: convert it to numbers in "
                "the table"
            )
        return self.numbers(name, None, is_date=False)

    def declared(self, name: str) -> list[str]:
        """Return the values of a dictionary, such as pandas' categories: rows may lack some.

        In their order, if it says that they have one, otherwise sorted.
        """
        from pyarrow import types

        column = self._table.column(name)
        if not (types.is_dictionary(column.type) and column.num_chunks):
            return []
        values = column.unify_dictionaries().chunk(0).dictionary.to_pylist()
        found = [str(each) for each in dict.fromkeys(values) if each not in (None, "")]
        return found if column.type.ordered else sorted(found)

    def require_exact(self, name: str, numbers: NDArray[Any], dtype: DTypeLike) -> None:
        """Raise ValueError for a number outside `dtype`, or a fraction for an integer dtype.

        Note whole numbers that a floating dtype rounds.
        """
        kind = np.dtype(dtype)
        is_long = numbers.dtype.kind in "iu" and numbers.dtype.itemsize == 8  # for any float
        if np.can_cast(numbers.dtype, kind, "safe") and not (is_long and kind.kind == "f"):
            return
        with np.errstate(over="ignore", invalid="ignore"):
            cast = numbers.astype(kind)
        if kind.kind == "f":
            bad = np.isfinite(numbers) & ~np.isfinite(cast)
        else:
            bad = cast != numbers
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise ValueError(
                f"{self.shown}, row {row}: {numbers[row]} in column {name!r} is not {kind}; "
                f"{holding(numbers[row], kind)}"
            )
        self.roundings.note_numbers(name, numbers, cast)

    def different(self, name: str) -> int:
        """Return how many different values a column has; 0 if that is not counted."""
        from pyarrow import compute, types

        column = self._table.column(name)
        if types.is_dictionary(column.type):
            return 0
        try:
            return int(compute.count_distinct(column).as_py())
        except NotImplementedError:  # of a few types
            return 0

    def texts(
        self,
        name: str,
        known: Sequence[str],
        unknown: Callable[[str, str, Sequence[str]], ValueError],
        *,
        allows_missing: bool,
    ) -> list[str]:
        """Return a column of texts; "" where one is missing."""
        from pyarrow import compute, types

        column = self._table.column(name)
        if types.is_dictionary(column.type):
            column = compute.cast(column, column.type.value_type)
        if not _is_text(column.type):
            raise ValueError(
                f"{self.shown}: column {name!r} holds {column.type}, not texts; "
                f"{_advice(column.type, name)}"
            )
        if column.null_count and not allows_missing:
            raise ValueError(
                f"{self.shown}: column {name!r} has {column.null_count} missing values: remove "
                "these rows from the table, or set missing=0.0 for a category"
            )
        found = ["" if text is None else str(text) for text in column.to_pylist()]
        if not allows_missing and "" in found and "" not in known:
            raise ValueError(
                f"{self.shown}, row {found.index('')}: an empty text in column {name!r} is none of "
                "its texts; missing=0.0 or another number takes it for none, in a category"
            )
        if known and (others := set(found) - {*known, ""}):
            row = next(i for i, text in enumerate(found) if text in others)
            where = f"{self.shown}, row {row}: column {name!r}"
            raise unknown(where, found[row], known)
        return found


def _is_arrow(path: Path) -> bool:
    """Whether a file is an Arrow file by its beginning, or else by its name."""
    with path.open("rb") as file:
        start = file.read(6)
    return start == b"ARROW1" or (path.suffix in _IPC and not start.startswith(b"PAR1"))


def _index_names(schema: Any) -> frozenset[str]:
    """The columns that were the index of a data frame of pandas, as its note in a schema says."""
    try:
        noted = (schema.pandas_metadata or {}).get("index_columns", [])
        return frozenset(each for each in noted if isinstance(each, str))  # others are ranges
    except (ValueError, AttributeError, TypeError):  # damaged, or of another program
        return frozenset()


def _fill(rows: NDArray[Any], columns: Sequence[NDArray[Any]]) -> None:
    """Write columns into an array of (rows, columns), in blocks that fit the cache."""
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        for place, column in enumerate(columns):
            block[:, place] = column[start : start + _BLOCK]


def _with(column: Any, fill: float | None) -> NDArray[Any]:
    """A column as an array, with missing values filled."""
    missing = column.null_count
    found: NDArray[Any] = column.to_numpy()
    if missing and fill is not None:
        found = found.astype(np.float64)
        found[np.asarray(column.is_null())] = fill
    if fill is not None and found.dtype.kind == "f":
        found = np.where(np.isnan(found), found.dtype.type(fill), found)  # as in a text file
    return found


def _is_text(kind: Any) -> bool:
    """Whether a column's values are texts, or are written in one way only.

    Not numbers with a fraction; not bytes, of which Python would write b'...'.
    """
    from pyarrow import types

    is_bytes = any(
        test(kind)
        for test in (
            types.is_binary,
            types.is_large_binary,
            types.is_fixed_size_binary,
            types.is_binary_view,
        )
    )
    return not (types.is_nested(kind) or types.is_floating(kind) or is_bytes)


def _is_day(kind: Any) -> bool:
    """Whether a column's values are points in time; times of day and durations are not."""
    from pyarrow import types

    return bool(types.is_date(kind) or types.is_timestamp(kind))


def _advice(kind: Any, name: str) -> str:
    from pyarrow import types

    if _is_day(kind):
        return f"dates=[{name!r}] reads it as days since 1970"
    if types.is_string(kind) or types.is_large_string(kind) or types.is_dictionary(kind):
        return (
            f"categories=[{name!r}] reads it as texts, with one feature for each; "
            f"target={name!r}, target_dtype=str reads it as the target's class names"
        )
    if types.is_nested(kind):
        return (
            "a feature is a single number: leave the column out with columns=[...], or use a "
            "Hugging Face dataset with collate=Pad(), which take lists"
        )
    if types.is_binary(kind) or types.is_large_binary(kind):
        return "cast it to strings in the table, or leave it out with columns=[...]"
    return "columns=[...] leaves it out"


def _check_pyarrow() -> None:
    """Import all of it in one piece: a half imported one stays without its parts."""
    try:
        with Uninterrupted():
            from pyarrow import compute, feather, ipc, parquet, types  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "ParquetDataset needs pyarrow, the extra `parquet`: pip install 'rumus-train[parquet]'"
        ) from error
