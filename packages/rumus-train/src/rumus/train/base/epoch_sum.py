"""`EpochSum`: a sum over an epoch's steps, of values that stay where they were computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, SupportsFloat

import numpy as np
from numpy.typing import NDArray

from rumus.tensor import Backend, Expr, Kernel, Tensor, arange, float32, zeros
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.recording import Capturing
from rumus.tensor.memory.uninterrupted import Uninterrupted
from rumus.tensor.memory.updater import Outcome

LAG: Final = 64  # values on the CPU, or pages on a device, that may wait to be read
PAGE: Final = 256  # one-element values per page
ELEMENTS: Final = 1 << 16  # elements per page for larger values

_IS_HERE = (Expr.array("index") - Expr.scalar("at")).abs() < 0.5
_WRITE = Kernel(
    "note_value",
    {"page": _IS_HERE.where(Expr.array("value"), Expr.array("page"))},
    ("page", "index", "value"),
)


class _Page:
    """Memory for several values on a device, read in one transfer: (places, elements).

    before: the full page, whose index of places this one reuses.
    """

    def __init__(
        self, backend: Capturing, shape: tuple[int, ...], before: _Page | None = None
    ) -> None:
        self.backend = backend
        size = math.prod(shape)
        self.places = PAGE if size <= 1 else max(1, min(PAGE, ELEMENTS // size))
        self.values: Array = zeros((self.places, size), backend=backend)._array
        self._places = self.values.reshape((self.places, *shape))
        self._index: Array
        if before is not None and before.backend is backend:
            self._index = before._index
        else:
            index = arange(self.places, backend=backend).astype(float32)
            self._index = index.reshape((self.places, 1))._array
        self._write: Callable[[Sequence[float]], None] | None = None
        self._value: Array = None  # the source of `_write`
        self.counted: list[tuple[SupportsFloat, Outcome]] = []
        self.done = 0  # the number already summed or dropped

    @property
    def is_full(self) -> bool:
        """Whether there is no place left."""
        return len(self.counted) == self.places

    def write(self, value: Tensor) -> Tensor:
        """Put a value into the next place, and return that place."""
        at = len(self.counted)
        if self._write is None or value._array is not self._value:
            self._value = value._array
            flat = value.reshape((1, self.values.shape[1]))._array  # the same memory
            arrays = (self.values, self._index, flat)
            self._write = self.backend.prepare(_WRITE, arrays, (self.values,))
        self._write((float(at),))
        return Tensor(self._places[at], self.backend)


class LateWeight:
    """A step's weight that only the device knows: becomes a number when it is read."""

    def __init__(self, page: _Page, at: int, host: list[NDArray[Any]]) -> None:
        self._page, self._at, self._host = page, at, host

    def __float__(self) -> float:
        if not self._host or self._page.done != len(self._page.counted):
            self._host[:] = [self._page.backend.download(self._page.values)]
            self._page.done = len(self._page.counted)
        return float(self._host[0][self._at, 0])


class LateWeights:
    """Copies of weights on a device, read a page at a time."""

    def __init__(self) -> None:
        self._page: _Page | None = None
        self._host: list[NDArray[Any]] = []  # the part of the page read last, if any

    def note(self, weight: Tensor) -> LateWeight:
        """Copy a weight, without reading it."""
        backend: Any = weight._backend
        page = self._page
        if page is None or page.backend is not backend or page.is_full:
            self._page = page = _Page(backend, (), page)
            self._host = []
        page.write(weight.detach().astype(float32))
        page.counted.append((1.0, Outcome()))
        return LateWeight(page, len(page.counted) - 1, self._host)


class EpochSum:
    """sum of weight * value, in float64, of values that may still be on their way.

    On the CPU a few wait to be read. On a device all do: a page of them is one transfer. A value
    counts once its step turns out to be applied.

    shape: of each value.

    >>> from rumus.tensor import tensor
    >>> found = EpochSum()
    >>> for loss in (1.0, 2.0):
    ...     found.count(found.note(tensor(loss)), 3.0, Outcome(True))
    >>> float(found.read()), found.weight
    (9.0, 6.0)
    """

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self.shape = shape
        self.weight = 0.0  # of what was read
        self.values = 0  # that were added since `start`
        self._total: Any = np.zeros(shape)
        self._waiting: list[tuple[Tensor, SupportsFloat, Outcome]] = []
        self._pages: list[_Page] = []
        self._is_remote: tuple[Backend | None, bool] = None, False  # of the last backend

    def note(self, value: Tensor) -> Tensor:
        """Return a copy of a value; it counts only after `count`."""
        backend = value._backend
        if backend is not self._is_remote[0]:
            self._is_remote = backend, backend.runs_ahead
        if self._is_remote[1]:
            return self._page(backend).write(value)
        return Tensor(value._array.copy(), backend)

    def count(self, noted: Tensor, weight: SupportsFloat, outcome: Outcome) -> None:
        """Add the last noted value to the sum, if its step turns out to be applied."""
        if self._is_remote[1]:
            self._pages[-1].counted.append((weight, outcome))
            return
        self._waiting.append((noted, weight, outcome))
        if len(self._waiting) > LAG:
            self._read()

    def read(self) -> NDArray[np.float64]:
        """Return the sum so far; it waits for the device. `weight` is the sum of the weights."""
        self._read()
        for page in self._pages:
            self._read_page(page)
        del self._pages[:-1]
        return np.array(self._total)

    def add(self, sum: NDArray[np.float64], weight: float) -> None:
        """Add the sum of several values, and their weight."""
        self._total += sum
        self.weight += weight

    def start(self, total: Any = 0.0, weight: float = 0.0) -> None:
        """Restart from a sum that was read."""
        self._total = np.zeros(self.shape) + total
        self.weight, self.values = weight, 0

    def clear(self) -> None:
        """Reset."""
        self.start()
        self._waiting.clear()
        for page in self._pages:
            page.done = len(page.counted)
        del self._pages[:-1]

    def _page(self, backend: Any) -> _Page:
        """The last page, or a new one if it is full or elsewhere."""
        last = self._pages[-1] if self._pages else None
        if last is None or last.backend is not backend or last.is_full:
            if len(self._pages) >= LAG:
                self._read_page(self._pages.pop(0))
            self._pages.append(last := _Page(backend, self.shape, last))
        return last

    def _read(self) -> None:
        with Uninterrupted():
            for value, weight, outcome in self._waiting:
                self._add(value._array, weight, outcome)
            self._waiting.clear()

    def _read_page(self, page: _Page) -> None:
        if page.done == len(page.counted):
            return
        values = page.backend.download(page.values).reshape((page.places, *self.shape))
        counted = list(zip(values, page.counted, strict=False))[page.done :]
        with Uninterrupted():
            for value, (weight, outcome) in counted:
                self._add(value, weight, outcome)
            page.done = len(page.counted)

    def _add(self, value: Any, weight: SupportsFloat, outcome: Outcome) -> None:
        if outcome.applied is False:
            return
        weight = float(weight)
        if not self.shape:  # the same number, several times faster
            self._total = float(self._total) + weight * value.item()
        else:
            self._total += value if weight == 1 else weight * np.asarray(value, np.float64)
        self.weight += weight
        self.values += 1
