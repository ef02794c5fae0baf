"""`Pad`: a batch of samples whose arrays differ in length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.expression.arguments import checked_fields
from rumus.tensor.expression.decided import fixed
from rumus.tensor.expression.nearest_name import nearest_name
from rumus.tensor.expression.real_number import real_number
from rumus.train.base.exact_joining import exact_array
from rumus.train.base.fields import fields_of, names_of, values_in


@fixed
@checked_fields
@dataclass(frozen=True)
class Pad:
    """Pads arrays to the longest of the batch: a loader's `collate=`.

    value: the padding: one value for all fields, or one for each by position or name, such as -100
        for targets that a loss ignores. A field that is not named gets 0.
    multiple: round lengths up to multiples of it, for fewer shapes; each shape is captured
        separately.
    length: always pad to this length.
    mask: add a field that is True for real and False for padded elements of the first padded field;
        it comes last, or is "mask" in a dict.

    Raises ValueError for samples that differ beyond the first axis, or are longer than `length`;
    for values that a field's dtype lacks, such as -100 in uint8 or 0.5 in integers; for values by
    names or positions that are not those of the fields, and for a field "mask" beside `mask`.

    Fields without axes are stacked. An array without elements has the dtype of the others.

    >>> from rumus.train import Pad
    >>> tokens, label, mask = Pad(multiple=4, mask=True)([([5, 6, 7], 0), ([8], 1)])
    >>> tokens.tolist(), label.tolist(), mask.sum(1).tolist()
    ([[5, 6, 7, 0], [8, 0, 0, 0]], [0, 1], [3, 1])
    """

    value: float | Sequence[float] | Mapping[str, float] = 0
    multiple: int = 1
    length: int | None = None
    mask: bool = False

    def __post_init__(self) -> None:
        given: Any = self.value
        several = isinstance(given, Sequence) and not isinstance(given, str)
        values = given.values() if isinstance(given, Mapping) else given if several else [given]
        for value in values:
            real_number("Pad: value", value)
        if self.multiple < 1:
            raise ValueError(f"multiple must be at least 1, not {self.multiple}")
        if self.length is not None and self.length < 0:
            raise ValueError(f"length must be at least 0, not {self.length}")

    def __call__(self, samples: Sequence[Any]) -> Any:
        """Return a batch of samples, which are tuples or dicts."""
        names = names_of(samples[0])
        columns = [[exact_array(v) for v in column]
                   for column in zip(*map(values_in, samples), strict=True)]  # fmt: skip
        fills = self._fills(names, len(columns))
        fields = [self._column(each, fill) for each, fill in zip(columns, fills, strict=True)]
        if self.mask:
            if names is not None and "mask" in names:
                raise ValueError("mask=True adds a field 'mask', and the samples have one")
            fields.append(self._mask(columns))
            names = None if names is None else (*names, "mask")
        return fields_of(names, fields)

    def _fills(self, names: tuple[str, ...] | None, count: int) -> list[float]:
        if isinstance(self.value, Mapping):
            there = names or tuple(map(str, range(count)))
            if unknown := [name for name in self.value if name not in there]:
                near = nearest_name(str(unknown[0]), there)
                hint = f"did you mean {near!r}?" if near else f"they have {', '.join(there)}"
                raise ValueError(f"value: the samples have no field {unknown[0]!r}; {hint}")
            return [self.value.get(name, 0) for name in there]
        if isinstance(self.value, Sequence):
            if len(self.value) != count:
                raise ValueError(f"value: {len(self.value)} values for samples of {count} fields")
            return [*self.value]
        return [self.value] * count

    def _column(self, arrays: Sequence[NDArray[Any]], fill: float) -> NDArray[Any]:
        if not arrays[0].ndim:
            stacked = np.stack(arrays)
            for array in arrays:
                if stacked.dtype.kind == "f" and array.dtype.kind in "iu":
                    _check_exact(array, stacked.dtype)
            return stacked
        shapes = {array.shape[1:] for array in arrays}
        if len(shapes) > 1:
            raise ValueError(
                f"only the first axis may differ in length, but rows have shapes {sorted(shapes)}"
            )
        padded = self._padded(arrays)
        dtype = _common_dtype(arrays)
        _check_fill(fill, dtype)
        out = np.full((len(arrays), padded, *shapes.pop()), fill, dtype)
        for row, array in zip(out, arrays, strict=True):
            row[: len(array)] = array
            if dtype.kind == "f" and array.dtype.kind in "iu":
                _check_exact(array, dtype)
        return out

    def _padded(self, arrays: Sequence[NDArray[Any]]) -> int:
        longest = max(map(len, arrays))
        if self.length is None:
            return max(1, -(-longest // self.multiple)) * self.multiple
        if longest > self.length:
            raise ValueError(f"a sample of length {longest} is longer than length={self.length}")
        return self.length

    def _mask(self, columns: Sequence[Sequence[NDArray[Any]]]) -> NDArray[np.bool_]:
        first = next((each for each in columns if each[0].ndim), None)
        if first is None:
            raise ValueError("mask=True: no field has an axis to pad")
        lengths = np.array([len(array) for array in first])
        found: NDArray[np.bool_] = np.arange(self._padded(first)) < lengths[:, None]
        return found


def _common_dtype(arrays: Sequence[NDArray[Any]]) -> np.dtype[Any]:
    """The dtype of all arrays; an empty list has none of its own."""
    dtypes = {array.dtype for array in arrays if array.size} or {arrays[0].dtype}
    return np.result_type(*dtypes)


def _check_fill(fill: float, dtype: np.dtype[Any]) -> None:
    """Raise ValueError for padding that a dtype does not hold."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = np.asarray(fill).astype(dtype)
    is_held = np.isfinite(found) or not np.isfinite(fill) if dtype.kind in "fc" else found == fill
    if not is_held:
        raise ValueError(f"value={fill} is not {dtype}, which is the dtype of the field it pads")


def _check_exact(array: NDArray[Any], dtype: np.dtype[Any]) -> None:
    """Raise ValueError for whole numbers that a floating dtype rounds."""
    with np.errstate(invalid="ignore"):
        is_same = array.astype(dtype).astype(array.dtype) == array
    if not is_same.all():
        raise ValueError(
            f"a field is {array.dtype} in one sample and floating in another, and {dtype} rounds "
            f"{array[~is_same].flat[0]}: samples must agree in dtypes"
        )
