"""`LateArray`: a copy of a device's array that comes to the host while others go on.

A state is a tree of NumPy arrays. Within a block of `copying_late` the states of modules and
optimizers hold these instead, where a backend can copy on the device and be read from another
thread: what they hold is decided at once, and comes over when somebody looks, or when `known` is
called, as by a thread that writes a checkpoint.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeGuard

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rumus.tensor.memory.backend import Array, Backend
from rumus.tensor.memory.uninterrupted import displacing


class LateArray(np.lib.mixins.NDArrayOperatorsMixin):
    """Stands for a NumPy array in whatever looks at its elements, which waits for them then.

    shape: of the array.
    dtype: of its elements.
    fetch: returns the array, called once.

    >>> late = LateArray((2,), np.dtype(np.float32), lambda: np.ones(2, np.float32))
    >>> late.shape, (late + 1).tolist(), np.asarray(late)[0]
    ((2,), [2.0, 2.0], np.float32(1.0))
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], fetch: Callable[[], NDArray[Any]]
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self._fetch: Callable[[], NDArray[Any]] | None = fetch
        self._known: NDArray[Any] | None = None
        self._lock = threading.Lock()

    def known(self) -> NDArray[Any]:
        """Return the array; waits for it. What it was copied to on the device is given up then."""
        with self._lock:
            if self._known is None:
                assert self._fetch is not None
                self._known, self._fetch = self._fetch(), None
            return self._known

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.known(), dtype, copy=copy)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        return getattr(ufunc, method)(*map(as_known, inputs), **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.known(), name)

    def __getitem__(self, key: Any) -> Any:
        return self.known()[key]

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.known())

    def __float__(self) -> float:
        return float(self.known())

    def __repr__(self) -> str:
        return f"LateArray(shape={self.shape}, dtype={self.dtype})"


def as_known(value: Any) -> Any:
    """Return the array that a `LateArray` stands for, and anything else as it is."""
    return value.known() if isinstance(value, LateArray) else value


class Snapshotting(Backend, Protocol):
    """A backend that can copy an array for a host that reads it later, from any thread."""

    def snapshot(self, array: Array) -> LateArray | None:
        """Return what `array` holds after all that was asked for; None where there is no room."""
        ...


def _is_snapshotting(backend: Backend) -> TypeGuard[Snapshotting]:
    return hasattr(backend, "snapshot")


class _Mode(threading.local):
    is_late = False


_mode = _Mode()


@contextmanager
def copying_late() -> Iterator[bool]:
    """Within the block `host_copy` need not wait on this thread."""
    yield from displacing(_mode, "is_late", True)


def is_copying_late(backend: Backend) -> bool:
    """Whether `host_copy` returns a `LateArray` where there is room for one."""
    return _mode.is_late and _is_snapshotting(backend)


def host_copy(array: Array, backend: Backend) -> Any:
    """Return a NumPy copy of an array, or what stands for one within `copying_late`."""
    if _mode.is_late and _is_snapshotting(backend):
        late = backend.snapshot(array)
        if late is not None:
            return late
    return backend.download(array)
