"""The `Dataset` protocol, and datasets of arrays in memory."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rumus.tensor.expression.declared_type import shown
from rumus.tensor.expression.masked import unmasked
from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.memory.uninterrupted import is_of_handler
from rumus.train.base.exact_joining import column_names, refuse_rounded
from rumus.train.base.other_names import DATASET, FIELDS
from rumus.train.base.row_labels import check_row_order, labels_of, refuse_labels

Sample: TypeAlias = tuple[Any, ...]
Batch: TypeAlias = tuple[NDArray[Any], ...]
AnyBatch: TypeAlias = Batch | dict[str, NDArray[Any]]
Indices: TypeAlias = NDArray[np.intp]


class Dataset(Protocol):
    """Samples by index: a length, and a tuple or dict of NumPy arrays and numbers for each index.

    Anything with these two methods is a dataset. Two more are optional:

    - `batch(indices) -> tuple or dict of arrays`: the samples of an array of indices at once,
      stacked along a new first axis, as a copy. Faster for samples stored in arrays. A class that
      derives from one with it and has a `__getitem__` of its own is read by that.
    - `describe(index) -> str`: where a sample comes from (its file, say), for error messages.
    """

    def __len__(self) -> int:
        """The number of samples."""
        ...

    def __getitem__(self, index: int, /) -> Sample | Mapping[str, Any]:
        """Return a copy of one sample: a transform may write into it."""
        ...


def check_dataset(of: str, dataset: object) -> None:
    """Raise TypeError for what has no length and no samples by index."""
    if isinstance(dataset, type):
        raise TypeError(f"{of}: dataset must be made: {dataset.__name__}(...), and not the class")
    has_both = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    is_single = getattr(dataset, "ndim", 1) == 0
    if not has_both or is_single or isinstance(dataset, (str, bytes)):
        raise TypeError(f"{of}: dataset must have len() and dataset[i], unlike {shown(dataset)}")
    refuse_table(dataset)


def as_indices(indices: Indices) -> Indices:
    """Return the indices of several samples. TypeError unless they are whole numbers.

    >>> as_indices(np.array([True, False]))
    Traceback (most recent call last):
    ...
    TypeError: indices must be integers, not bool: numpy.flatnonzero(mask) gives them
    """
    found = np.asarray(indices)
    if found.size and found.dtype.kind not in "iu":
        hint = ": numpy.flatnonzero(mask) gives them" if found.dtype.kind == "b" else ""
        raise TypeError(f"indices must be integers, not {found.dtype}{hint}")
    return found


def warn_of_mask(of: str, indices: Indices, samples: int) -> None:
    """Warn of a mask of zeros and ones, which as indices would be two samples many times over.

    One of ones alone, or of zeros, may be a single sample, as often as there are samples.

    >>> warn_of_mask("Subset", np.array([1, 0, 2]), 3)
    """
    is_as_long = samples > 2 and indices.shape == (samples,)
    if is_as_long and indices.max() == 1 and indices.min() == 0:
        warn_user(
            f"{of}: indices are {samples} zeros and ones for {samples} samples, which takes "
            "samples 0 and 1 many times over: numpy.flatnonzero(mask) gives the indices of a mask"
        )


def refuse_table(dataset: object) -> None:
    """Raise TypeError for a table, such as a data frame, whose items are columns."""
    if hasattr(dataset, "__dataframe__") or hasattr(dataset, "iloc"):
        raise TypeError(
            f"dataset[i] is not row i of a {type(dataset).__name__}: give ArrayDataset(x, y) of "
            "columns of pandas, or ParquetDataset(table) of a table of pyarrow"
        )


def as_index(index: object) -> int:
    """Return the index of a sample. TypeError for anything but a whole number.

    >>> as_index(1.5)
    Traceback (most recent call last):
    ...
    TypeError: a dataset has a sample for each whole number, not for 1.5: \
Subset(dataset, range(0, 2)) has several
    """
    if isinstance(index, bool):
        raise TypeError(f"a dataset has a sample for each whole number, not for {index}")
    try:
        return operator.index(index)  # type: ignore[arg-type]  # which is to be found out
    except TypeError:
        told = "Subset(dataset, range(0, 2)) has several"
        raise TypeError(
            f"a dataset has a sample for each whole number, not for {shown(index)}: {told}"
        ) from None


@DATASET.of_instances
class ArrayDataset:
    """Arrays of equal length: sample i is the tuple of their i-th rows.

    The arrays are not copied.

    arrays: of equal length along the first axis, one for each field.

    Raises TypeError for anything but arrays of numbers or booleans, and for one tuple or list of
    arrays, which may be fields or samples; ValueError for no arrays, an
    array without axes, masked elements, different lengths, and objects of pandas with the same row
    labels in another order, or with those of different rows: rows are paired by position.

    >>> from rumus.train import ArrayDataset
    >>> dataset = ArrayDataset([[1.0, 2.0], [3.0, 4.0]], [0, 1])
    >>> len(dataset), dataset[1][0].tolist(), int(dataset[1][1])
    (2, [3.0, 4.0], 1)
    """

    @FIELDS.before_call
    def __init__(self, *arrays: ArrayLike) -> None:
        first: Any = arrays[0] if len(arrays) == 1 else None
        if isinstance(first, tuple) and any(getattr(each, "ndim", 0) for each in first):
            raise TypeError("ArrayDataset takes arrays one by one, not a tuple: ArrayDataset(x, y)")
        if isinstance(first, list) and any(getattr(each, "ndim", 0) for each in first):
            raise TypeError(
                "ArrayDataset takes arrays one by one, and a list of arrays may be either: write "
                "ArrayDataset(*arrays) if each is a field, ArrayDataset(numpy.stack(arrays)) if "
                "each is a sample"
            )
        check_row_order((f"array {i}", array) for i, array in enumerate(arrays))
        self._labels = next((x for x in map(labels_of, arrays) if x is not None), None)
        self.arrays = tuple(unmasked(array) for array in arrays)
        names = [f"array {i}" for i in range(len(arrays))]
        _check_kinds(names, arrays, self.arrays)
        check_columns(names, self.arrays)
        self.column_names = [column_names(array) for array in arrays]
        for name, value, array in zip(names, arrays, self.arrays, strict=True):
            refuse_rounded(name, value, array)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_labels": None}  # worker processes need none

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: int, /) -> Sample:
        place = as_index(index)
        return tuple(np.take(array, place, axis=0) for array in self.arrays)

    def batch(self, indices: Indices) -> Batch:
        """Return copies of the rows of these indices.

        indices: numbers of samples.
        """
        places = as_indices(indices)
        return tuple([array.take(places, 0) for array in self.arrays])


def _check_kinds(
    names: Sequence[str], given: Sequence[object], arrays: Sequence[NDArray[Any]]
) -> None:
    """Raise TypeError for a DataFrame whose columns are not all numbers, naming them.

    And for a dict of arrays and a sparse matrix, of which NumPy makes an array of one object, and
    for fields of several dtypes.
    """
    for name, value, array in zip(names, given, arrays, strict=True):
        if array.dtype.names is not None:
            raise TypeError(
                f"{name} is an array of structures: give each of its fields, as "
                "ArrayDataset(*(array[field] for field in array.dtype.names))"
            )
        if array.dtype.kind == "O" and array.ndim and isinstance(next(array.flat, None), Mapping):
            raise TypeError(
                f"{name} is a list of dicts, which are samples as they are: give the list itself "
                "to a DataLoader"
            )
        if isinstance(value, Mapping):
            raise TypeError(f"{name} is a dict: give its arrays, as ArrayDataset(*data.values())")
        if hasattr(value, "toarray") and array.dtype.kind == "O":
            raise TypeError(f"{name} is sparse: give an array of all of its numbers, toarray()")
        dtypes: Any = getattr(value, "dtypes", None)
        if array.dtype.kind in "biufc":
            continue
        if not hasattr(dtypes, "items"):
            own = getattr(value, "dtype", array.dtype)
            if own != array.dtype:  # of pandas: NumPy has objects instead
                raise TypeError(
                    f"{name} has dtype {own}; a dataset holds numbers: convert it to those of "
                    "NumPy, without missing ones, as factorize() does"
                )
            continue
        kinds = {str(column): dtype for column, dtype in dtypes.items()}
        texts = [c for c, dtype in kinds.items() if getattr(dtype, "kind", "O") not in "biufc"]
        wrong = texts or [c for c, dtype in kinds.items() if dtype.kind not in "iuf"] or [*kinds]
        told = ", ".join(f"{column!r} ({kinds[column]})" for column in wrong[:5])
        raise TypeError(
            f"{name} has dtype {array.dtype}; a dataset holds numbers: convert the columns {told}, "
            "or leave them out; frame.astype(numpy.float32) converts numbers and booleans"
        )


def check_columns(names: Sequence[str], arrays: Sequence[NDArray[Any]]) -> None:
    """Raise for arrays that cannot be the fields of one dataset; see `ArrayDataset`."""
    if not arrays:
        raise ValueError("a dataset needs at least one array")
    for name, array in zip(names, arrays, strict=True):
        if array.dtype.kind not in "biufc":
            raise TypeError(f"{name} has dtype {array.dtype}; a dataset holds numbers")
        if array.ndim == 0:
            raise ValueError(f"{name} has no axes; a dataset needs one row per sample")
    if len({len(array) for array in arrays}) > 1:
        lengths = ", ".join(f"{n}: {len(a)}" for n, a in zip(names, arrays, strict=True))
        raise ValueError(f"the arrays of a dataset must be equally long, not {lengths}")


@DATASET.of_instances
class Subset:
    """Some samples of a dataset, in the order of `indices`.

    dataset: the dataset to take samples from. A subset of a subset is one of the full dataset.
    indices: the indices of the samples, in their new order.

    Raises IndexError for an index outside [0, len(dataset)), ValueError unless `indices` has one
    axis, and for row labels of pandas that are no positions, TypeError unless they are integers.
    UserWarning for a mask of zeros and ones.

    >>> from rumus.train import ArrayDataset, Subset
    >>> half = Subset(ArrayDataset([10.0, 11.0, 12.0, 13.0]), [3, 1])
    >>> len(half), float(half[0][0])
    (2, 13.0)
    """

    def __init__(self, dataset: Dataset, indices: ArrayLike) -> None:
        check_dataset("Subset", dataset)
        given: Any = indices
        if not hasattr(given, "__len__"):
            raise TypeError(f"Subset: indices must be a list of integers, not {shown(given)}")
        chosen = np.asarray(indices)
        if chosen.ndim != 1:
            raise ValueError(f"indices must have one axis, not shape {chosen.shape}")
        as_indices(chosen)
        if hasattr(given, "get_indexer"):
            refuse_labels(given, row_labels(dataset))
        outside = chosen[(chosen < 0) | (chosen >= len(dataset))]
        if outside.size:
            raise IndexError(f"index {outside[0]} is outside [0, {len(dataset)})")
        warn_of_mask("Subset", chosen, len(dataset))
        own: Indices = chosen.astype(np.intp)
        if isinstance(dataset, Subset) and type(dataset) is Subset:
            # A part of a part is one of the whole: any number of them is one call.
            own, dataset = dataset.indices[own], dataset.dataset
        self.dataset: Dataset = dataset
        self.indices: Indices = own

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> Any:
        return self.dataset[int(self.indices[as_index(index)])]

    def describe(self, index: int) -> str:
        """Return where a sample comes from, or its index in the full dataset.

        index: the number of a sample.
        """
        return describe(self, index)


class RowsOfFiles:
    """A dataset of the rows of files, which pandas labels with their positions as it reads them.

    has_all_rows: whether none of them is left out.
    """

    has_all_rows = True


def row_labels(dataset: object) -> Any | None:
    """Return the labels that pandas gave the samples of a dataset, if there are any."""
    inner: Any = dataset
    parts: list[Indices] = []
    while isinstance(inner, Subset):  # not by recursion: there may be thousands
        parts.append(inner.indices)
        inner = inner.dataset
    labels = inner._labels if isinstance(inner, ArrayDataset) else None
    is_whole_file = isinstance(inner, RowsOfFiles) and inner.has_all_rows
    if is_whole_file:
        labels = np.arange(len(inner))
    if labels is not None:
        for indices in reversed(parts):
            labels = labels.take(indices)
    return labels


def _behind(dataset: Dataset, index: int) -> tuple[Dataset, int]:
    """The full dataset behind subsets in each other, and the index of a sample there."""
    inner: Any = dataset
    while isinstance(inner, Subset) and type(inner).describe is Subset.describe:
        inner, index = inner.dataset, int(inner.indices[index])
    return inner, index


def describe(dataset: Dataset, index: int) -> str:
    """Return the dataset's description of a sample, or ''."""
    if isinstance(dataset, Subset) and type(dataset).describe is Subset.describe:
        whole, index = _behind(dataset, index)
        return describe(whole, index) or f"{index} of the whole dataset"
    told = getattr(dataset, "describe", None)
    try:
        return "" if told is None else str(told(index))
    except Exception as error:  # of the user's, or of something else that is called so
        if is_of_handler(error):
            raise
        return ""


def named(dataset: Dataset, index: int) -> str:
    """Return the name of a sample in messages: its index and, if known, where it comes from."""
    origin = describe(dataset, index)
    return f"sample {index} ({origin})" if origin else f"sample {index}"


def samples_of(dataset: Dataset, indices: Sequence[int]) -> Sequence[Any] | None:
    """Return several samples at once if a dataset has `__getitems__`, as Hugging Face's do."""
    taken = _of_several(dataset, "__getitems__")
    return None if taken is None else list(taken(list(indices)))


def batch_of(dataset: Dataset) -> Callable[[Indices], AnyBatch] | None:
    """Return a function that reads many samples at once, or None to read them one by one."""
    if isinstance(dataset, Subset) and not _has_own_items(type(dataset), Subset):
        inner: Any = dataset
        indices: Indices = np.arange(len(dataset))
        while isinstance(inner, Subset) and not _has_own_items(type(inner), Subset):
            # Not by recursion: there may be thousands.
            indices, inner = inner.indices[indices], inner.dataset
        whole = batch_of(inner)
        return None if whole is None else lambda chosen: whole(indices[chosen])
    if hasattr(type(dataset), "__getitems__"):
        return None  # Hugging Face's, whose `batch` is something else
    return _of_several(dataset, "batch")


def _of_several(dataset: Dataset, name: str) -> Callable[[Any], Any] | None:
    """Return a method that reads several samples, if it reads those of `dataset[i]`.

    It does not if a class derived from its own has another `__getitem__`, or if only `__getattr__`
    finds it, in a dataset that is wrapped.
    """
    cls = type(dataset)
    of = next((base for base in cls.__mro__ if name in vars(base)), None)
    if of is None:
        found: Callable[[Any], Any] | None = getattr(dataset, "__dict__", {}).get(name)
        return found
    method: Callable[[Any], Any] = getattr(dataset, name)
    return None if _has_own_items(cls, of) else method


def _has_own_items(cls: type, base: type) -> bool:
    """Whether a class has another `__getitem__` than its base, whose `batch` does not know it."""
    order = cls.__mro__[: cls.__mro__.index(base)]
    return any("__getitem__" in vars(derived) for derived in order)
