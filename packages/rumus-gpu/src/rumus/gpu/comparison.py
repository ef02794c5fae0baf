"""`Comparison`: runs a recorded step's code again and compares it with the recording.

The code runs normally and its results are used. Its arrays reuse the recorded step's memory, so the
comparison needs no extra; its batch lies where a replay would put it, not where it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from rumus.gpu.capture import (
    Capture,
    Notes,
    course_changed,
    escaped,
    number_changed,
    upload_aside,
)
from rumus.gpu.device.array import GPUArray
from rumus.gpu.device.commands import Dispatched
from rumus.gpu.device.dataflow import Dataflow
from rumus.gpu.device.pipelines import Pipeline
from rumus.tensor import Backend
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.recording import recorded_by


class Comparison(Notes):
    """Compares a running step with its recording.

    difference: the first difference found, or None.
    """

    def __init__(self, capture: Capture) -> None:
        super().__init__()
        self.difference: str | None = None
        self.inputs = capture.inputs
        self._capture = capture
        self._dataflow = Dataflow(self.inputs, capture.region)

    def takes(
        self, pipeline: Pipeline, arrays: Sequence[GPUArray], scalars: bytes, grid: tuple[int, int]
    ) -> bool:
        """Compare a dispatch with the recorded one."""
        number = len(self._dataflow.origins)
        origins = self._dataflow.dispatched(pipeline, arrays)
        recorded = self._capture.dispatches
        if number < len(recorded) and self.difference is None:
            old, new = recorded[number], Dispatched(pipeline, (), scalars, grid, self._is_live)
            self.difference = course_changed(old, new) or number_changed(old, new)
            if self.difference is None and origins != self._capture.dataflow[number]:
                name = pipeline.program.name
                self._differs(f"kernel {name!r} reads or writes different arrays than before")
        return False

    def refuse_transfer(self, what: str, instead: str) -> None:
        """Note a transfer, which no replay can repeat."""
        self._differs(what)

    def refuse(self, what: str) -> None:
        """Note something that no replay can repeat."""
        self._differs(what)

    def feed(
        self, backend: Backend, make: Callable[[], NDArray[Any]], bounds: tuple[int, int] | None
    ) -> Array:
        """Upload the result of `make`, like the recorded step."""
        if backend is not self._capture.backend:
            self._differs(f"it draws random numbers for backend {backend.name!r}")
            return backend.upload(make())
        array = upload_aside(self._capture.backend, make, bounds)
        self._dataflow.fed(array)
        return array

    def keep(self, arrays: Sequence[GPUArray]) -> None:
        """Compare the origins of the step's results; no array may be referenced elsewhere."""
        capture, now = self._capture, len(self._dataflow.origins)
        if now != len(capture.dispatches):
            self._differs(f"it ran {len(capture.dispatches)} kernels before and {now} now")
        if self._dataflow.of(arrays) != capture.results:
            self._differs("its loss or gradients are different arrays than before")
        capture.backend.gpu.forget()
        if held := escaped(capture.region, {array.storage for array in arrays}):
            self._differs(f"an array created in it ({held[0].label}) is still referenced after it")

    def _differs(self, how: str) -> None:
        self.difference = self.difference or how


@contextmanager
def compare(capture: Capture, batch: Sequence[GPUArray]) -> Iterator[Comparison]:
    """Compare this thread's work in the block with a recorded step.

    batch: the arguments of the step's code.
    """
    capture.fill(batch)
    comparison = Comparison(capture)
    capture.region.made.clear()
    with capture.backend.gpu.watched_by(comparison, capture.region), recorded_by(comparison):
        yield comparison
