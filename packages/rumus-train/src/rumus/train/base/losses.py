"""`Losses`: the losses of an epoch, kept where they were computed until somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from rumus.tensor import Expr, Kernel, Tensor, arange, float32, zeros
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.recording import Capturing, is_capturing
from rumus.tensor.memory.uninterrupted import Uninterrupted
from rumus.tensor.memory.updater import Outcome

LAG: Final = 64  # losses on the CPU, or pages on a device, that may be waiting to be read
PAGE: Final = 256

_IS_HERE = (Expr.array("index") - Expr.scalar("at")).abs() < 0.5
_WRITE = Kernel(
    "note_loss",
    {"page": _IS_HERE.where(Expr.array("loss"), Expr.array("page"))},
    ("page", "index", "loss"),
)


class _Page:
    """Memory for some losses on a device, which is read in one piece."""

    def __init__(self, backend: Capturing, index: Array) -> None:
        self.backend = backend
        self.index = index
        self.values: Array = zeros((PAGE,), backend=backend)._array
        self._write: Callable[[Sequence[float]], None] | None = None
        self._loss: Array = None  # what `_write` takes the loss from
        self.counted: list[tuple[float, Outcome]] = []
        self.done = 0  # how many are in the mean already, or forgotten

    @property
    def is_full(self) -> bool:
        """Whether there is no place left."""
        return len(self.counted) == PAGE

    def write(self, loss: Array) -> Tensor:
        """Put a loss into the next place, and return that place."""
        at = len(self.counted)
        if self._write is None or loss is not self._loss:
            arrays = (self.values, self.index, loss)
            self._write = self.backend.prepare(_WRITE, arrays, (self.values,))
            self._loss = loss
        self._write((float(at),))
        return Tensor(self.values[at], self.backend)


class Losses:
    """A weighted mean, in float64, of losses that may still be on their way.

    On the CPU a few wait to be read. On a device all do: a page of them is one transfer.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[Tensor, float, Outcome]] = []
        self._pages: list[_Page] = []
        self._total = self._weight = 0.0
        self._last: float | None = None  # the mean of the last epoch

    def note(self, loss: Tensor) -> Tensor:
        """Return a loss in memory of its own; it does not count before `count` says so."""
        if not is_capturing(loss.backend):
            return loss
        return self._page(loss.backend).write(loss._array)

    def count(self, noted: Tensor, weight: float, outcome: Outcome) -> None:
        """Let the loss that was noted last enter the mean, if its step turns out to be applied."""
        if is_capturing(noted.backend):
            self._pages[-1].counted.append((weight, outcome))
            return
        self._waiting.append((noted, weight, outcome))
        if len(self._waiting) > LAG:
            self._read()

    def _page(self, backend: Capturing) -> _Page:
        """The last page, or a new one if it is full or elsewhere."""
        last = self._pages[-1] if self._pages else None
        if last is None or last.backend is not backend or last.is_full:
            if last is None or last.backend is not backend:
                index = arange(PAGE, backend=backend).astype(float32)._array
            else:
                index = last.index
            if len(self._pages) >= LAG:
                self._read_page(self._pages.pop(0))
            self._pages.append(last := _Page(backend, index))
        return last

    def close(self) -> float | None:
        """Return the mean since the last call, or what that returned if no loss has counted since.

        None if none ever did. Waits for the device.
        """
        self._read_all()
        if self._weight:
            self._last = self._total / self._weight
        self._total = self._weight = 0.0
        return self._last

    def clear(self) -> None:
        """Forget everything."""
        self._total = self._weight = 0.0
        self._last = None
        self._waiting.clear()
        for page in self._pages:
            page.done = len(page.counted)
        del self._pages[:-1]

    def state_dict(self) -> dict[str, float | None]:
        """Return the sums so far; it waits for the device, and closes nothing."""
        self._read_all()
        return {"total": self._total, "weight": self._weight, "last": self._last}

    def load_state_dict(self, state: Mapping[str, float | None]) -> None:
        """Go on from saved sums. KeyError or TypeError, with nothing changed, for bad ones."""
        total, weight = (float(state[name] or 0.0) for name in ("total", "weight"))
        last = state["last"] if state["last"] is None else float(state["last"])
        self.clear()
        self._total, self._weight, self._last = total, weight, last

    def _read_all(self) -> None:
        self._read()
        for page in self._pages:
            self._read_page(page)
        del self._pages[:-1]

    def _read(self) -> None:
        with Uninterrupted():
            for loss, weight, outcome in self._waiting:
                self._add(float(loss), weight, outcome)
            self._waiting.clear()

    def _read_page(self, page: _Page) -> None:
        if page.done == len(page.counted):
            return
        values = page.backend.download(page.values).tolist()
        counted = list(zip(values, page.counted, strict=False))[page.done :]
        with Uninterrupted():
            for loss, (weight, outcome) in counted:
                self._add(loss, weight, outcome)
            page.done = len(page.counted)

    def _add(self, loss: float, weight: float, outcome: Outcome) -> None:
        if outcome.applied is not False:
            self._total += weight * loss
            self._weight += weight
