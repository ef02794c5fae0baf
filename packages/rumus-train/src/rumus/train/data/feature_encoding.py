"""`FeatureEncoding`: what the columns of a table become as features, the same for each table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rumus.train.base.class_names import checked_classes
from rumus.train.base.datasets import datasets_of
from rumus.train.base.printable import printable

Missing: TypeAlias = float | Literal["mean"] | None
MISSING: Final = frozenset(
    {"", "NA", "N/A", "n/a", "<NA>", "NaN", "nan", "null", "NULL", "None", "-", "?"}
)


@dataclass
class FeatureEncoding:
    """How columns become features; what has to be learned is learned of the first table.

    columns: their names, in order.
    categories: of the columns that hold texts: the texts of each, as given or, if there are none,
    as found, sorted. A column becomes one feature for each text, 1 where it stands and 0 elsewhere.
    booleans: columns that hold booleans.
    dates: columns that hold dates, with how they are written, None for ISO 8601; they become days
    since 1970.
    missing: what stands for a number that is missing: itself a number, or "mean", that of the
    column.
    standardise: subtract a column's mean and divide by its standard deviation; not of categories.

    ValueError for a column that is named for two kinds, or is not among `columns`.
    """

    columns: list[str]
    categories: dict[str, list[str]] = field(default_factory=dict)
    booleans: frozenset[str] = frozenset()
    dates: dict[str, str | None] = field(default_factory=dict)
    missing: Missing = None
    standardise: bool = False
    means: NDArray[Any] | None = None  # of the columns that are numbers
    deviations: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.missing, str) and self.missing != "mean":
            raise ValueError(f'missing must be a number or "mean", not {self.missing!r}')
        kinds = [*self.categories, *self.booleans, *self.dates]
        if twice := {name for name in kinds if kinds.count(name) > 1}:
            raise ValueError(f"{sorted(twice)} cannot be of two kinds: categories, booleans, dates")
        if unknown := [name for name in kinds if name not in self.columns]:
            raise ValueError(f"{unknown} are none of the features {self.columns}")

    @property
    def numbers(self) -> list[str]:
        """The columns that are numbers, booleans and dates included."""
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
        """What a missing number is while a table is read."""
        return float("nan") if self.missing == "mean" else self.missing

    @property
    def has_means(self) -> bool:
        """Whether means of columns are learned."""
        return self.missing == "mean" or self.standardise

    def dtype_of_numbers(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """Return what numbers are kept in until they are features of `dtype`.

        TypeError for one that has no room for means.
        """
        if not self.has_means:
            return dtype
        if dtype.kind != "f":
            raise TypeError(f"means need a floating dtype, not {dtype}")
        return np.dtype(np.float64)

    def difference(self, other: FeatureEncoding) -> str | None:
        """Say what makes other features of the same table, or None if nothing does."""
        if self.names != other.names:
            pairs = zip(self.names, other.names, strict=False)
            alike = min(len(self.names), len(other.names))
            place = next((i for i, (a, b) in enumerate(pairs) if a != b), alike)
            ours, theirs = (printable(e.names[place : place + 3]) for e in (self, other))
            return (
                f"the features of training and validation differ from {place} on: {ours}, {theirs}"
            )
        for what in ("means", "deviations"):
            one, another = getattr(self, what), getattr(other, what)
            if not np.array_equal(np.asarray(one), np.asarray(another)):
                return f"the features of training and validation have {what} of their own"
        return None

    def learn(self, numbers: NDArray[Any], texts: Mapping[str, Sequence[str]]) -> None:
        """Take the texts, means and deviations from a table, where they were not given.

        ValueError for a column that has nothing but missing values, and is to be filled with them.
        """
        for name, found in texts.items():
            if not self.categories[name]:
                there = sorted(set(found) - {""})
                self.categories[name] = checked_classes(there)
        if not self.has_means:
            return
        known = np.isfinite(numbers)
        counts = known.sum(0)
        if not counts.all():
            name = self.numbers[int(np.flatnonzero(counts == 0)[0])]
            raise ValueError(f"column {name!r} has no number at all; leave it out")
        values = np.where(known, numbers, 0.0).astype(np.float64)
        self.means = values.sum(0) / counts
        spread = np.where(known, values - self.means, 0.0)
        found_deviations = np.sqrt((spread**2).sum(0) / counts)
        self.deviations = np.where(found_deviations > 0, found_deviations, 1.0)

    def features(
        self, numbers: NDArray[Any], texts: Mapping[str, Sequence[str]], dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        """Return one row of features for each row of the table.

        numbers: of the columns that are numbers. texts: of the others, "" where one is missing.
        KeyError, with column and text, for one that is no category.
        """
        if self.missing == "mean":
            assert self.means is not None
            numbers = np.where(np.isnan(numbers), self.means, numbers)
        if self.standardise:
            numbers = (numbers - self.means) / self.deviations
        if not texts:
            return numbers.astype(dtype, copy=False)
        place = {name: number for number, name in enumerate(self.numbers)}
        blocks = [
            self._one_hot(name, texts[name], dtype)
            if name in texts
            else numbers[:, place[name], None].astype(dtype)
            for name in self.columns
        ]
        return np.concatenate(blocks, axis=1)

    def _one_hot(self, name: str, found: Sequence[str], dtype: np.dtype[Any]) -> NDArray[Any]:
        place = {text: number for number, text in enumerate(self.categories[name])}
        out = np.zeros((len(found), len(place)), dtype)
        for row, text in enumerate(found):
            if text:
                out[row, place[text]] = 1
        return out


def require_same_features(training: object, validation: object) -> None:
    """Refuse two loaders whose tables make other features of the same columns.

    ValueError with the first difference. Loaders of anything but tables are let through.
    """
    ours, theirs = _encoding_of(training), _encoding_of(validation)
    if ours is None or theirs is None:
        return
    if (how := ours.difference(theirs)) is not None:
        raise ValueError(f"{how}; read the second table by train.like(path)")


def _encoding_of(loader: object) -> FeatureEncoding | None:
    """How the table of a loader is read, or the one that its dataset is a subset of."""
    kept = (getattr(dataset, "_encoding", None) for dataset in datasets_of(loader))
    return next((encoding for encoding in kept if isinstance(encoding, FeatureEncoding)), None)


def as_targets(given: str | Sequence[str] | None) -> list[str]:
    """Return the columns of the target, of which there may be none."""
    if not isinstance(given, (str, Sequence, type(None))):
        raise TypeError(f"target must be the name of a column, or several, not {given!r}")
    return [given] if isinstance(given, str) else list(given or ())


def refuse_both(shown: str, columns: Iterable[str], targets: Sequence[str]) -> None:
    """Raise ValueError for a column that is feature and target: the answer beside the question."""
    for name in columns:
        if name in targets:
            raise ValueError(
                f"{shown}: {printable(repr(name))} is a target and among columns=[...]: the model "
                "would be shown what it is asked for; leave it out of one of them"
            )


def as_categories(given: Sequence[str] | Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return the texts of each column of categories; none where they are to be found."""
    if isinstance(given, Mapping):
        return {name: checked_classes(texts) for name, texts in given.items()}
    return {name: [] for name in _names("categories", given)}


def as_dates(given: Sequence[str] | Mapping[str, str]) -> dict[str, str | None]:
    """Return how the dates of each column are written, None for ISO 8601."""
    if isinstance(given, Mapping):
        return dict(given)
    return dict.fromkeys(_names("dates", given))


def as_booleans(given: Sequence[str]) -> frozenset[str]:
    """Return the columns of booleans."""
    return frozenset(_names("booleans", given))


def _names(what: str, given: Sequence[str]) -> Sequence[str]:
    if isinstance(given, str):
        raise TypeError(f"{what} must be a list of columns, not the text {given!r}")
    return given
