"""`GPUArray`: elements on the device, with a shape and strides as in NumPy."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from rumus.gpu.device.memory import Storage
from rumus.gpu.device.stored import Stored
from rumus.tensor import DType

if TYPE_CHECKING:
    from rumus.gpu.device.array_backend import ArrayBackend

Shape: TypeAlias = tuple[int, ...]


@lru_cache(maxsize=4096)
def contiguous_strides(shape: Shape) -> Shape:
    """Return the strides, in elements, of an array whose last axis is densest.

    >>> contiguous_strides((2, 3, 4))
    (12, 4, 1)
    """
    strides, step = [], 1
    for length in reversed(shape):
        strides.append(step)
        step *= length
    return tuple(reversed(strides))


class GPUArray:
    """A view of device memory. Views share it; `reshape` copies if no view is possible.

    Strides and the offset are in elements. `base` and `rest` split the offset: the bytes at which
    the buffer is bound, and the elements from there. `bounds` is the known range of the elements
    after a number of writes to the memory, so that an uploaded index is checked without reading it.
    `origin` is the memory it was copied from, if any.

    backend: the owner of the memory.
    storage: the block that holds it.
    stored: the dtype in memory.
    shape: of the array.
    strides: in elements.
    offset: in elements, from the start of the block.
    """

    __slots__ = ("__weakref__", "backend", "base", "bounds", "dtype", "is_contiguous", "key",
                 "offset", "origin", "rest", "shape", "size", "storage", "stored",
                 "strides")  # fmt: skip

    def __init__(
        self,
        backend: ArrayBackend,
        storage: Storage,
        stored: Stored,
        shape: Shape,
        strides: Shape,
        offset: int = 0,
    ) -> None:
        self.backend = backend
        self.storage = storage
        self.stored = stored
        self.dtype: DType = stored.dtype
        self.shape = shape
        self.strides = strides
        self.offset = offset
        self.size, self.is_contiguous, is_backward = _facts(shape, strides)
        itemsize = stored.itemsize
        start = offset * itemsize
        # A reversed axis reaches memory before the first element.
        self.base = 0 if is_backward else start - start % backend.alignment
        self.rest = (start - self.base) // itemsize
        self.bounds: tuple[int, int, int] | None = None  # writes, lowest, highest
        self.origin: weakref.ref[Storage] | None = None
        self.key = (shape, strides, self.rest, stored.name)  # everything that a kernel depends on

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """The size of the elements on the device, in bytes."""
        return self.size * self.stored.itemsize

    @property
    def is_flat(self) -> bool:
        """Whether a kernel can walk it as one row of elements from the start of a binding."""
        return self.is_contiguous and not self.rest

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"GPUArray(shape={self.shape}, dtype={self.dtype})"

    def view(self, shape: Shape, strides: Shape, offset: int | None = None) -> GPUArray:
        """Return another view of the same memory. The caller ensures that it fits.

        shape: of the view.
        strides: in elements.
        offset: in elements, from the start of the block.
        """
        at = self.offset if offset is None else offset
        result = GPUArray(self.backend, self.storage, self.stored, shape, strides, at)
        result.bounds, result.origin = self.bounds, self.origin
        return result

    def known_bounds(self) -> tuple[int, int] | None:
        """Return bounds of the elements, or None if unknown."""
        if self.bounds is None or self.bounds[0] != self.storage.writes:
            return None
        if not self.backend.gpu.counts_writes(self.storage):
            return None
        return self.bounds[1:]

    def was_copied_from(self, source: GPUArray) -> None:
        """Copy the known bounds of the elements just written here.

        source: the copied array.
        """
        bounds = source.known_bounds()
        if bounds is not None and source.dtype == self.dtype:
            self.bounds = self.storage.writes, *bounds
            self.origin = source.origin or weakref.ref(source.storage)

    def reshape(self, *shape: int | Sequence[int]) -> GPUArray:
        """Return the elements in another shape, in their order; one length may be -1.

        shape: of as many elements.

        Raises ValueError if the number of elements differs.
        """
        given = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        wanted = _complete(tuple(given), self)  # type: ignore[arg-type]
        if self.is_contiguous:
            return self.view(wanted, contiguous_strides(wanted))
        strides = _reshaped_strides(self.shape, self.strides, wanted)
        if strides is not None:
            return self.view(wanted, strides)
        return self.backend.contiguous(self).reshape(wanted)

    def transpose(self, *axes: int | Sequence[int]) -> GPUArray:
        """Return the axes in another order, reversed by default; the same memory.

        axes: in the new order.
        """
        given = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
        order: Sequence[int] = tuple(given) or range(self.ndim)[::-1]  # type: ignore[arg-type]
        shape = tuple([self.shape[axis] for axis in order])
        return self.view(shape, tuple([self.strides[axis] for axis in order]))

    def __getitem__(self, key: Any) -> GPUArray:
        """Return the view that a basic index selects: numbers, slices, None and `...`."""
        if type(key) is int and self.shape:
            offset = self.offset + _position(key, self.shape[0], 0) * self.strides[0]
            return self.view(self.shape[1:], self.strides[1:], offset)
        shape, strides, offset = _select(self, key if isinstance(key, tuple) else (key,))
        return self.view(shape, strides, offset)


@lru_cache(maxsize=4096)
def _facts(shape: Shape, strides: Shape) -> tuple[int, bool, bool]:
    """The number of elements, whether they are contiguous, and whether an axis is reversed."""
    return math.prod(shape), _is_contiguous(shape, strides), min(strides, default=0) < 0


def _is_contiguous(shape: Shape, strides: Shape) -> bool:
    step = 1
    for length, stride in zip(reversed(shape), reversed(strides), strict=True):
        if length != 1 and stride != step:
            return 0 in shape
        step *= length
    return True


def _complete(shape: Shape, array: GPUArray) -> Shape:
    """Work out a length of -1, and check the number of elements."""
    if shape.count(-1) == 1:
        known = -math.prod(shape)
        if known and array.size % known == 0:
            shape = tuple([array.size // known if n == -1 else int(n) for n in shape])
    if math.prod(shape) != array.size or min(shape, default=0) < 0:
        raise ValueError(f"cannot reshape {array.size} elements of {array.shape} into {shape}")
    return shape


@lru_cache(maxsize=4096)
def merged(shape: Shape, *strides: Shape) -> tuple[tuple[int, ...], ...]:
    """Merge axes that are contiguous for all strides: (length, stride, stride ...) of each.

    Axes of length 1 are dropped.

    >>> merged((2, 3, 4), (12, 4, 1), (0, 4, 1))
    ((2, 12, 0), (12, 1, 1))
    """
    found: list[tuple[int, ...]] = []
    for length, *steps in zip(shape, *strides, strict=True):
        if length == 1:
            continue
        if found and all(
            outer == inner * length for outer, inner in zip(found[-1][1:], steps, strict=True)
        ):
            found[-1] = (found[-1][0] * length, *steps)
        else:
            found.append((length, *steps))
    return tuple(found)


def _reshaped_strides(shape: Shape, strides: Shape, wanted: Shape) -> Shape | None:
    """The strides that give the same memory another shape, or None."""
    runs = list(merged(shape, strides))
    result: list[int] = []
    rest = 1  # the rest of the run being split
    for length in reversed(wanted):
        if length == 1:
            result.append(0)
            continue
        if rest == 1 and runs:
            rest, step = runs.pop()
        if rest % length:
            return None
        result.append(step)
        step *= length
        rest //= length
    return tuple(reversed(result))


def _select(array: GPUArray, parts: tuple[Any, ...]) -> tuple[Shape, Shape, int]:
    """The shape, strides and offset of a basic index. Raises IndexError if it is out of range."""
    shape: list[int] = []
    strides: list[int] = []
    offset, axis = array.offset, 0
    for part in _without_ellipsis(parts, array.ndim):
        if part is None:
            shape.append(1)
            strides.append(0)
            continue
        length, stride = array.shape[axis], array.strides[axis]
        axis += 1
        if isinstance(part, slice):
            start, stop, step = part.indices(length)
            count = len(range(start, stop, step))
            shape.append(count)
            # A single element has no direction.
            strides.append(stride * step if count > 1 else abs(stride))
            offset += start * stride if count else 0
        else:
            offset += _position(part, length, axis - 1) * stride
    return tuple(shape), tuple(strides), offset


def _without_ellipsis(parts: tuple[Any, ...], ndim: int) -> tuple[Any, ...]:
    """An index with a part for every axis: `...`, or a missing end, stands for whole axes."""
    used = sum(part is not None and part is not Ellipsis for part in parts)
    dots = [number for number, part in enumerate(parts) if part is Ellipsis] or [len(parts)]
    if used > ndim or len(dots) > 1:
        raise IndexError(f"an index {parts!r} does not fit an array of {ndim} axes")
    return (*parts[: dots[0]], *(slice(None),) * (ndim - used), *parts[dots[0] + 1 :])


def _position(part: Any, length: int, axis: int) -> int:
    if not isinstance(part, (int, np.integer)) or isinstance(part, (bool, np.bool_)):
        raise TypeError(f"cannot index a GPU array with {part!r}; use numbers, slices, None, ...")
    if not -length <= part < length:
        raise IndexError(f"index {part} is out of bounds for axis {axis} of length {length}")
    return int(part) % length
