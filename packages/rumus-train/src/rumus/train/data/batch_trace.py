"""`BatchTrace`: a short fingerprint of an epoch's batches, checked on resume."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from rumus.tensor import NumpyBackend, Tensor
from rumus.tensor.expression.printable import abridged
from rumus.train.base.calling import values_of

_ENDS: Final = 256  # elements read from the first and the last row of an array
_NUMBERS: Final = frozenset("biufc")  # kinds of dtypes
_AXES: Final = 64  # the most that NumPy has
# The indices of these rows, by the number of axes.
_FIRST: Final = tuple((0,) * max(0, axes - 1) for axes in range(_AXES + 1))
_LAST: Final = tuple((-1,) * max(0, axes - 1) for axes in range(_AXES + 1))


class BatchTrace:
    """A checksum of both ends of all arrays of the batches so far.

    Reading the ends takes a microsecond, and reordered batches have different ends. Of an array on
    a device, only the shape counts.

    >>> one, other = BatchTrace(), BatchTrace()
    >>> one.add((np.arange(4.0),))
    >>> other.add((np.arange(4.0)[::-1],))
    >>> one.value == other.value
    False
    """

    def __init__(self, value: int = 0) -> None:
        self.value = value

    def add(self, batch: tuple[Any, ...]) -> None:
        """Add the next batch."""
        self.add_values(values_of(batch))

    def add_values(self, values: Sequence[Any]) -> None:
        """Add the fields of the next batch."""
        found = self.value
        for value in values:
            axes = value.ndim if isinstance(value, np.ndarray) else 0
            # Numbers, one after another; asked here, since it is asked of each batch.
            if not axes or value.dtype.kind not in _NUMBERS or not value.flags.c_contiguous:
                found = zlib.crc32(_ends(value), found)
            elif value.size:
                first, last = value[_FIRST[axes]], value[_LAST[axes]]
                if value.shape[-1] > _ENDS:
                    first, last = first[:_ENDS], last[-_ENDS:]
                found = zlib.crc32(last, zlib.crc32(first, found))
        self.value = found


def _ends(value: Any) -> bytes:
    """The bytes of both ends, of whatever is not a dense array."""
    if isinstance(value, Tensor) and isinstance(value.backend, NumpyBackend):
        value = value.numpy() if value.size <= _ENDS else value._array
    if not isinstance(value, np.ndarray):
        what = getattr(value, "shape", value)
        try:
            return repr(what).encode()
        except RecursionError:
            return abridged(what).encode()
    if value.ndim == 0 or value.size == 0:
        return value.tobytes()
    first, last = value, value
    while first.ndim > 1:
        first, last = first[0], last[-1]
    return first[:_ENDS].tobytes() + last[-_ENDS:].tobytes()
