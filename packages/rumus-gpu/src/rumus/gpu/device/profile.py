"""`gpu.profile()`: how long each kernel takes on the device.

Each dispatch gets its own pass with a timestamp before and after it. If the driver has no
timestamps, or returns zeros, the host's clock is used, waiting for the device around each dispatch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from rumus.gpu.device.pipelines import Program
from rumus.gpu.device.staging import MappedStaging, take
from rumus.gpu.engine.protocol import Recorder, Usage
from rumus.tensor.memory.uninterrupted import displaced

if TYPE_CHECKING:
    from rumus.gpu.device.device import Gpu

_CAPACITY: Final = 128  # dispatches of one submission that can be timed
_PROBE: Final = """
@group(0) @binding(0) var<storage, read_write> out_: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) i: u32) {
    var x = f32(i);
    for (var n = 0u; n < 4096u; n++) {
        x = x * 0.999 + 1.0;
    }
    out_[i] = x;
}
"""


@dataclass(frozen=True, slots=True)
class Event:
    """One dispatch: its start, relative to the first one, and its duration, in seconds."""

    kernel: str
    start: float
    duration: float


@dataclass(frozen=True, slots=True)
class Row:
    """All dispatches of one kernel, in seconds."""

    kernel: str
    calls: int
    total: float

    @property
    def mean(self) -> float:
        """The time of one dispatch."""
        return self.total / self.calls


class Profile:
    """The dispatches of the block, in order. `print` shows them by kernel, `save` writes a trace.

    clock: "timestamps" of the device, or "wall", the host's clock, which includes submission.
    """

    def __init__(self, clock: Literal["timestamps", "wall"]) -> None:
        self.clock = clock
        self.events: list[Event] = []

    def rows(self) -> list[Row]:
        """Return the kernels, the slowest first."""
        times: dict[str, list[float]] = {}
        for event in self.events:
            times.setdefault(event.kernel, []).append(event.duration)
        rows = [Row(name, len(found), sum(found)) for name, found in times.items()]
        return sorted(rows, key=lambda row: -row.total)

    def __str__(self) -> str:
        rows = self.rows()
        total = sum(row.total for row in rows) or 1.0
        width = max([len("kernel"), *(len(row.kernel) for row in rows)])
        lines = [f"{'kernel':<{width}}  {'calls':>7}  {'total ms':>10}  {'mean us':>10}  {'%':>5}"]
        for row in rows:
            lines.append(
                f"{row.kernel:<{width}}  {row.calls:>7}  {1e3 * row.total:>10.3f}"
                f"  {1e6 * row.mean:>10.2f}  {100 * row.total / total:>5.1f}"
            )
        return "\n".join([*lines, f"({self.clock})"])

    def save(self, path: str | Path) -> None:
        """Write a trace for chrome://tracing and Perfetto.

        path: of a JSON file, for Perfetto or chrome://tracing.
        """
        events = [
            {"name": e.kernel, "ph": "X", "ts": 1e6 * e.start, "dur": 1e6 * e.duration,
             "pid": 0, "tid": 0}
            for e in self.events
        ]  # fmt: skip
        Path(path).write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ns"}), "utf-8")


class WallClock:
    """Times dispatches by waiting for each."""

    def __init__(self, gpu: Gpu, profile: Profile) -> None:
        self.gpu = gpu
        self.profile = profile
        self._began = time.perf_counter()

    def around(self, name: str, record: Callable[[], None]) -> None:
        """Record a dispatch, and time it."""
        self.gpu.synchronize()
        start = time.perf_counter()
        record()
        self.gpu.synchronize()
        duration = time.perf_counter() - start
        self.profile.events.append(Event(name, start - self._began, duration))

    def before_submit(self, recorder: Recorder) -> None:
        """Do nothing."""

    def after_submit(self, index: int) -> None:
        """Do nothing."""


class Timestamps:
    """Times dispatches by the device's timestamps, read after each submission."""

    def __init__(self, gpu: Gpu, profile: Profile) -> None:
        self.gpu = gpu
        self.profile = profile
        device = gpu.device
        self._names: list[str] = []
        self._queries = device.queries(2 * _CAPACITY)
        self._passes = [self._queries.timed(2 * n) for n in range(_CAPACITY)]
        size = 16 * _CAPACITY
        self._resolved = device.buffer(size, Usage.QUERY_RESOLVE | Usage.COPY_SRC)
        self._staging = MappedStaging(device, size)
        self._first: int | None = None

    def around(self, name: str, record: Callable[[], None]) -> None:
        """Record a dispatch in a pass with timestamps."""
        with self.gpu.timed_pass(self._passes[len(self._names)]):
            record()
        self._names.append(name)
        if len(self._names) == _CAPACITY:
            self.gpu.flush()

    def before_submit(self, recorder: Recorder) -> None:
        """Record copying the timestamps to where the host can read them."""
        if self._names:
            count = 2 * len(self._names)
            recorder.resolve(self._queries, count, self._resolved, self._staging.buffer)

    def after_submit(self, index: int) -> None:
        """Read the timestamps of a submission."""
        names, self._names = self._names, []
        if names:
            ticks = np.empty((len(names), 2), np.uint64)
            self._staging.expect(index, ticks.nbytes)
            take(self._staging, ticks)
            self._note(names, ticks.tolist())

    def _note(self, names: Sequence[str], ticks: Sequence[Sequence[int]]) -> None:
        if self._first is None:
            self._first = ticks[0][0]
        unit = 1e-9 * self.gpu.device.tick
        for name, (start, end) in zip(names, ticks, strict=True):
            event = Event(name, unit * (start - self._first), unit * max(0, end - start))
            self.profile.events.append(event)


Clock = WallClock | Timestamps


@contextmanager
def profiling(gpu: Gpu) -> Iterator[Profile]:
    """Time the dispatches in a `with` block; see `Gpu.profile`."""
    if gpu.clock is not None:
        raise RuntimeError("this GPU is already being profiled; profiles cannot be nested")
    profile = Profile("timestamps" if _has_timestamps(gpu) else "wall")
    gpu.synchronize()
    clock = Timestamps(gpu, profile) if profile.clock == "timestamps" else WallClock(gpu, profile)
    with displaced(gpu, "clock", clock):
        yield profile
        gpu.synchronize()


def _has_timestamps(gpu: Gpu) -> bool:
    """Whether the device can time a pass, with times other than 0."""
    if not gpu.has("timestamp-query"):
        return False
    probe = Profile("timestamps")
    gpu.synchronize()
    with displaced(gpu, "clock", Timestamps(gpu, probe)):
        _run_probe(gpu)
        gpu.synchronize()
    return any(event.duration > 0 for event in probe.events)


def _run_probe(gpu: Gpu) -> None:
    pipeline = gpu.pipeline("probe", lambda: Program("probe", _PROBE, "w", ""))
    gpu.dispatch(pipeline, (_Scratch(gpu),), (), 1)  # type: ignore[arg-type]


class _Scratch:
    """The attributes of an array that a dispatch uses."""

    def __init__(self, gpu: Gpu) -> None:
        self.storage: Any = gpu.allocate(256, "probe")
        self.base = 0
