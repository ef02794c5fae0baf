"""`FeatureEncoding`: how table columns become features, shared by all tables of a data set."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from numbers import Real
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.expression.declared_type import shown
from rumus.tensor.expression.real_number import real_number
from rumus.tensor.expression.user_warning import warn_user
from rumus.train.base.class_names import (
    check_each_once,
    checked_classes,
    ordered_names,
    twins,
)
from rumus.train.base.printable import listed, printable
from rumus.train.data.batch_numbers import FEW, OTHER_SCALE
from rumus.train.tables.rounding import Roundings, require_finite

Missing: TypeAlias = float | Literal["mean"] | None

# What a format of dates has, what gives it its meaning, and what `strptime` makes of it without.
_INCOMPLETE: Final = (
    (
        "", "YyGcxs",
        "no year, so all its dates are those of 1900, which had no February 29: write them with a "
        "year, or in columns of numbers",
    ),
    ("d", "mbBcx", "a day but no month, so all its dates are in January: %M is the minute"),
    ("M", "HIcX", "a minute but no hour: %m is the month"),
    ("I", "p", "an hour of 12 but no %p, so all its times are before noon: %H is that of 24"),
    ("p", "I", "%p but no %I, the hour of 12: with %H, 01 PM is 1 in the morning"),
    ("UW", "aAwu", "a week but no day of the week, so all its dates are January 1"),
)  # fmt: skip
_SHORT_YEAR: Final = re.compile(r"(?<!%)(?:%%)*(?:%x|(?<![0-9]{2})%y)")
_LOOK: Final = 1 << 20  # numbers that tell how large all are
LARGEST: Final = 2**30  # bytes of the features of one column of texts
MISSING: Final = frozenset(
    {"", "NA", "N/A", "#N/A", "n/a", "<NA>", "NaN", "nan", "null", "NULL", "None", "-", "?"}
)


def dtype_of(name: str, dtype: Any) -> np.dtype[Any]:
    """Return the dtype that an argument stands for. TypeError if it is none."""
    try:
        found: np.dtype[Any] = np.dtype(dtype)
    except TypeError:
        told = f"{name} must be a dtype, such as numpy.float32, not {shown(dtype)}"
        raise TypeError(told) from None
    return found


def number_dtype(name: str, dtype: Any, kinds: str = "iuf") -> np.dtype[Any]:
    """Return a dtype of one of these kinds. TypeError for another one.

    name: of the argument.
    """
    found = dtype_of(name, dtype)
    if found.kind not in kinds:
        raise TypeError(f"{name}, of a column, must be integer or floating, not {found}")
    return found


@dataclass
class FeatureEncoding:
    """How columns become features; statistics are learned from the first table.

    columns: their names, in order.
    categories: the texts of each text column; if empty, those found, sorted. Each column is one-hot
        encoded: a feature of 0 and 1 for each text.
    booleans: columns of booleans.
    dates: columns of dates with their formats (None for ISO 8601), converted to days since 1970.
    missing: the value of a missing number; "mean" takes the column's mean.
    standardize: subtract each column's mean and divide by its standard deviation, except for
        categories.

    Raises ValueError for a column of two kinds, or one that is not in `columns`.
    """

    columns: list[str]
    categories: dict[str, list[str]] = field(default_factory=dict)
    booleans: frozenset[str] = frozenset()
    dates: dict[str, str | None] = field(default_factory=dict)
    missing: Missing = None
    standardize: bool = False
    means: NDArray[Any] | None = None  # of the numeric columns
    deviations: NDArray[Any] | None = None
    sizes: dict[str, float] = field(default_factory=dict)  # of columns of numbers and targets
    zones: dict[str, bool] = field(default_factory=dict)  # whether times of a column have one

    def __post_init__(self) -> None:
        if isinstance(self.missing, str) and self.missing != "mean":
            raise ValueError(f'missing must be a number or "mean", not {self.missing!r}')
        if not isinstance(self.missing, str) and self.missing is not None:
            try:
                float(real_number("missing", self.missing))
            except OverflowError:
                raise ValueError("missing is beyond float64: give a smaller number") from None
        kinds = [*self.categories, *self.booleans, *self.dates]
        if twice := {name for name, count in Counter(kinds).items() if count > 1}:
            raise ValueError(
                f"{sorted(twice)} can have only one of the kinds categories, booleans and dates"
            )
        columns = set(self.columns)
        given = {"categories": self.categories, "booleans": self.booleans, "dates": self.dates}
        for option, names in given.items():
            if unknown := [name for name in names if name not in columns]:
                raise ValueError(
                    f"{option}: {unknown} are not among the features {self.columns}; "
                    "target_dtype=str reads texts of a target, such as yes and no, as classes"
                )

    @property
    def numbers(self) -> list[str]:
        """The numeric columns, including booleans and dates."""
        return [name for name in self.columns if name not in self.categories]

    @property
    def names(self) -> list[str]:
        """The features: a column's name, or "column=text"."""
        found: list[str] = []
        for name in self.columns:
            texts = self.categories.get(name)
            found += [name] if texts is None else [f"{name}={text}" for text in texts]
        return found

    @property
    def fill(self) -> float | None:
        """The placeholder of a missing number while a table is read."""
        return float("nan") if self.missing == "mean" else self.missing

    @property
    def has_means(self) -> bool:
        """Whether column means are learned."""
        return self.missing == "mean" or self.standardize

    def dtype_of_numbers(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """Return the dtype of numbers before they become features of `dtype`.

        Raises TypeError if means do not fit.
        """
        if not self.has_means:
            return dtype
        if dtype.kind != "f":
            raise TypeError(f"means need a floating dtype, not {dtype}")
        return np.dtype(np.float64)

    def warn_of_missing(self, dtype: np.dtype[Any]) -> None:
        """Warn of a number for missing ones that the dtype rounds, so that others become it, too.

        Of a whole one, which stands for no measured number, or one that becomes 0.
        """
        kept = self.dtype_of_numbers(dtype)
        if not isinstance(self.missing, Real) or kept.kind != "f":
            return
        given = float(self.missing)
        with np.errstate(over="ignore"):
            found = float(np.float64(given).astype(kept))
        if np.isfinite(found) and found != given and (given.is_integer() or not found):
            warn_user(
                f"missing={self.missing} becomes {found:.9g} in {kept}, as other numbers do: give "
                f"a number that {kept} holds, or a float64 dtype="
            )

    def check_zone(self, shown: str, name: str, has_zone: bool | None) -> None:
        """Raise ValueError for times with a zone where former ones have none, or the reverse.

        has_zone: None for dates without times.
        """
        if has_zone is not None and self.zones.setdefault(name, has_zone) != has_zone:
            raise ValueError(
                f"{shown}: column {printable(repr(name))} has times "
                f"{'with' if has_zone else 'without'} a zone, unlike the table that it is read "
                "like: they would be hours apart, so write all of them with one, or none"
            )

    def warn_of_sizes(self, shown: str, sizes: Mapping[str, float]) -> None:
        """Warn of a column of numbers in another unit than those of the first table, most likely.

        sizes: of columns of another one.
        """
        for name, size in sizes.items():
            own = self.sizes.get(name, size)
            if max(own, size) > OTHER_SCALE * min(own, size):
                warn_user(
                    f"{shown}: column {printable(repr(name))} has numbers of about {size:.2g}, and "
                    f"of {own:.2g} in training: convert one of them if it has another unit"
                )
                return

    def difference(self, other: FeatureEncoding, name: str) -> str | None:
        """Describe a difference that changes the features of a table, or return None.

        name: of the other table.
        """
        if self.names != other.names:
            pairs = zip(self.names, other.names, strict=False)
            alike = min(len(self.names), len(other.names))
            place = next((i for i, (a, b) in enumerate(pairs) if a != b), alike)
            ours, theirs = (printable(e.names[place : place + 3]) for e in (self, other))
            return f"the features of training and {name} differ from {place} on: {ours}, {theirs}"
        fills = {"missing": self.missing}, {"missing": other.missing}
        if None not in (self.missing, other.missing) and repr(fills[0]) != repr(fills[1]):
            return (
                f"missing is {self.missing} for training and {other.missing} for {name}, so "
                "that features differ where cells are missing"
            )
        for column, has_zone in self.zones.items():
            if other.zones.get(column, has_zone) != has_zone:
                return (
                    f"the times of column {printable(repr(column))} have a zone in one of training "
                    f"and {name} only, so that they are hours apart"
                )
        for what in ("means", "deviations"):
            one, another = getattr(self, what), getattr(other, what)
            if not np.array_equal(np.asarray(one), np.asarray(another)):
                return f"the features of training and {name} have {what} of their own"
        return None

    def learn(
        self,
        numbers: NDArray[Any],
        texts: Mapping[str, Sequence[str]],
        declared: Mapping[str, Sequence[str]],
    ) -> None:
        """Learn the texts, means and deviations not given from a table.

        declared: the texts of columns that say which they may have.

        Raises ValueError for a column of missing values only that needs a mean.
        """
        alike: dict[str, str] = {}
        for name, found in texts.items():
            if not self.categories[name]:
                there = declared.get(name) or sorted(set(found) - {""})
                if not there:
                    raise ValueError(f"column {name!r} has no texts at all; leave it out")
                self.categories[name] = checked_classes(there)
                if (both := twins(there)) is not None:
                    alike[name] = both
        _warn_of_twins(alike)
        if not self.has_means:
            return
        known = np.isfinite(numbers)
        counts = known.sum(0)
        if not counts.all():
            name = self.numbers[int(np.flatnonzero(counts == 0)[0])]
            raise ValueError(f"column {name!r} has no numbers at all; leave it out")
        values = np.where(known, numbers, 0.0).astype(np.float64)
        self.means, self.deviations = _moments(values, known, counts)

    def features(
        self,
        numbers: NDArray[Any],
        texts: Mapping[str, Sequence[str]],
        dtype: np.dtype[Any],
        roundings: Roundings,
    ) -> NDArray[Any]:
        """Return one row of features for each row of the table.

        numbers: of the numeric columns.
        texts: of the others, "" where one is missing.
        dtype: of the features.
        roundings: of the table, which notes what the dtype rounds.

        KeyError, with column and text, for an unknown category. ValueError for a column with so
        many different texts that their features would take more than LARGEST bytes, and for a
        number that the dtype has not.
        """
        if self.missing == "mean":
            assert self.means is not None
            numbers = np.where(np.isnan(numbers), self.means, numbers)
        if self.standardize:
            numbers = (numbers - self.means) / self.deviations
        read = numbers
        with np.errstate(over="ignore"):
            numbers = read.astype(dtype, copy=False)
        if self.has_means and dtype.itemsize < 8:  # or else it was checked as it was read
            for name, column, kept in zip(self.numbers, read.T, numbers.T, strict=True):
                self._check(roundings, name, column, kept)
        if not texts:
            return numbers
        place = {name: number for number, name in enumerate(self.numbers)}
        blocks = [
            self._one_hot(name, texts[name], dtype)
            if name in texts
            else numbers[:, place[name], None].astype(dtype)
            for name in self.columns
        ]
        return np.concatenate(blocks, axis=1)

    def _check(
        self, roundings: Roundings, name: str, read: NDArray[Any], kept: NDArray[Any]
    ) -> None:
        require_finite(roundings, name, read, kept)
        if name in self.dates and not self.standardize:
            roundings.note_times(name, read, kept)

    def _one_hot(self, name: str, found: Sequence[str], dtype: np.dtype[Any]) -> NDArray[Any]:
        place = {text: number for number, text in enumerate(self.categories[name])}
        refuse_many(name, len(place), len(found), dtype)
        out = np.zeros((len(found), len(place)), dtype)
        for row, text in enumerate(found):
            if text:
                out[row, place[text]] = 1
        return out


def _warn_of_twins(alike: Mapping[str, str]) -> None:
    """Warn of columns that have two texts each that may be one."""
    if alike:
        name, both = next(iter(alike.items()))
        column = printable(repr(name))
        others = f"; {listed([*alike][1:])} have such texts, too" if len(alike) > 1 else ""
        warn_user(
            f"column {column}: {both} are two categories: write them alike if they are one, or "
            f"give categories={{{column}: [...]}} if they are two{others}"
        )


def typical_sizes(names: Sequence[str], numbers: NDArray[Any]) -> dict[str, float]:
    """Return the median size of the numbers of each column but for 0, unless there are few."""
    rows, columns = numbers.shape
    if rows < FEW or not columns:
        return {}
    step = -(-rows // max(2 * FEW, _LOOK // columns))
    found = np.abs(numbers[::step].astype(np.float64))
    is_known = np.isfinite(found) & (found > 0)
    found[~is_known] = np.inf  # behind all others
    found.sort(0)
    counts = is_known.sum(0)
    middle = np.take_along_axis(found, counts[None] // 2 % len(found), 0)[0]
    many = np.flatnonzero(counts >= FEW).tolist()
    return {names[place]: float(middle[place]) for place in many}


def refuse_many(name: str, texts: int, rows: int, dtype: np.dtype[Any]) -> None:
    """Raise ValueError for a column of texts with more than LARGEST bytes of features.

    texts: how many different ones there are in so many rows, which need not be all.
    """
    if (size := texts * rows * dtype.itemsize) > LARGEST:
        raise ValueError(
            f"column {printable(repr(name))} has {texts:,} different texts in {rows:,} rows, for "
            f"which one feature for each would take {size / 1e9:.1f} GB: leave the column out, or "
            "merge texts"
        )


def _moments(
    values: NDArray[Any], known: NDArray[Any], counts: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The mean and the standard deviation of each column; 1 for a constant one.

    values: 0 where not known. Columns whose squares overflow are scaled first, by a power of two.
    """
    largest = np.abs(values).max(0, initial=1.0)
    scale = np.where(largest > 1e120, 2.0 ** -np.ceil(np.log2(largest)), 1.0)
    values = values * scale
    means = values.sum(0) / counts
    spread = np.where(known, values - means, 0.0)
    deviations = np.sqrt((spread**2).sum(0) / counts)
    return means / scale, np.where(deviations > 0, deviations / scale, 1.0)


def as_columns(given: Sequence[str]) -> list[str]:
    """Return the columns of features."""
    found = ordered_names("columns", _names("columns", given))
    check_each_once("columns", found)
    return found


def as_targets(given: str | Sequence[str] | None) -> list[str]:
    """Return the target columns, if any."""
    if not isinstance(given, (str, Sequence, type(None))):
        raise TypeError(f"target must be one or more column names, not {given!r}")
    found = [given] if isinstance(given, str) else list(given or ())
    check_each_once("target", found)
    return found


def refuse_both(shown: str, columns: Iterable[str], targets: Sequence[str]) -> None:
    """Raise ValueError for a column that is both feature and target."""
    answers = frozenset(targets)
    for name in columns:
        if name in answers:
            raise ValueError(
                f"{shown}: {printable(repr(name))} is both a target and in columns=[...], so the "
                "model would see its answer: remove it from one of them"
            )


def as_categories(given: Sequence[str] | Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return the texts of each category column; empty if they are to be learned."""
    if isinstance(given, Mapping):
        return {
            name: checked_classes(texts, f"categories[{name!r}]") for name, texts in given.items()
        }
    return {name: [] for name in _names("categories", given)}


def as_dates(given: Sequence[str] | Mapping[str, str]) -> dict[str, str | None]:
    """Return the date format of each column, None for ISO 8601; warn of one without a year.

    Raises ValueError for one with years of two digits that does not say of which century, or with
    names of zones.
    """
    if isinstance(given, Mapping):
        incomplete: dict[str, list[tuple[str, str]]] = {}
        for name, written in given.items():
            if _SHORT_YEAR.search(str(written)):
                raise ValueError(
                    f"dates: the format {printable(repr(written))} of {printable(repr(name))} has "
                    "years of two digits, which say no century: give it, as 19%y or 20%y in a "
                    "format such as '%d.%m.19%y', or write years of four digits, as %Y"
                )
            found = {*re.findall("%(.)", str(written))}
            if "Z" in found:
                raise ValueError(
                    f"dates: the format {printable(repr(written))} of {printable(repr(name))} has "
                    "%Z, which reads names of zones and drops them: write UTC itself in the format "
                    "if all times have it, or read offsets as %z"
                )
            _check_format(name, written)
            for part, given_by, told in _INCOMPLETE:
                if (found & {*part} or not part) and not found & {*given_by}:
                    incomplete.setdefault(told, []).append((name, written))
                    break
        for told, columns in incomplete.items():
            warn_user(
                f"dates: the format {printable(repr(columns[0][1]))} of "
                f"{listed(name for name, _ in columns)} has {told}"
            )
        return dict(given)
    return dict.fromkeys(_names("dates", given))


def _check_format(name: str, written: str) -> None:
    """Raise ValueError for a format of dates that `strptime` does not know."""
    try:
        datetime.strptime("", written)
    except re.error:
        wrong = "a part twice"
    except ValueError as error:  # of the empty text, too, which a right one does not fit
        wrong = str(error) if "directive" in str(error) or "stray" in str(error) else ""
    else:
        wrong = "no part of a date"
    if wrong:
        raise ValueError(
            f"dates: the format {printable(repr(written))} of {printable(repr(name))} has {wrong}"
        ) from None


def as_missing_cells(given: Sequence[str]) -> frozenset[str]:
    """Return the texts of missing cells. TypeError for others, such as numbers."""
    for cell in _names("missing_cells", given):
        if not isinstance(cell, str):
            told = f"missing_cells must be texts as in the file, not {shown(cell)}"
            raise TypeError(f"{told}: write {str(cell)!r}")
    return frozenset(cell.strip() for cell in given)


def as_booleans(given: Sequence[str]) -> frozenset[str]:
    """Return the columns of booleans."""
    return frozenset(_names("booleans", given))


def _names(what: str, given: Sequence[str]) -> Sequence[str]:
    if isinstance(given, str):
        raise TypeError(f"{what} must be a list of names, not the text {given!r}")
    return given
