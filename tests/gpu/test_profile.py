"""`gpu.profile()`: which kernels ran, how often and how long."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rumus.gpu import GpuBackend, Profile
from rumus.gpu.device import profile
from rumus.gpu.device.profile import Event
from rumus.tensor import tensor


def work(gpu: GpuBackend, times: int = 3) -> None:
    a = tensor(np.ones((64, 64)), backend=gpu)
    for _ in range(times):
        (a * a).relu().sum()


def test_every_dispatch_is_an_event(gpu: GpuBackend) -> None:
    before = gpu.stats.dispatches
    with gpu.profile() as found:
        work(gpu)
    assert gpu.stats.dispatches - before - len(found.events) in (0, 1)  # a probe of the clock
    rows = {row.kernel: row for row in found.rows()}
    assert rows["mul"].calls == rows["relu"].calls == 3
    assert all(row.total > 0 and row.mean == row.total / row.calls for row in rows.values())
    assert [row.total for row in found.rows()] == sorted(r.total for r in rows.values())[::-1]
    starts = [event.start for event in found.events]
    assert starts == sorted(starts)


def test_more_dispatches_than_one_submission_holds(gpu: GpuBackend) -> None:
    with gpu.profile() as found:
        work(gpu, 100)
    assert sum(row.calls for row in found.rows()) == len(found.events) >= 300


def test_results_are_the_same_without_a_profile(gpu: GpuBackend) -> None:
    x = tensor(np.arange(12.0).reshape(3, 4), backend=gpu)
    wanted = (x.exp() @ x.T).numpy()
    with gpu.profile():
        found = (x.exp() @ x.T).numpy()
    assert (found == wanted).all()
    assert ((x.exp() @ x.T).numpy() == wanted).all()


def test_the_host_clock_without_timestamps(
    gpu: GpuBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Like a driver whose timestamps are all 0."""
    monkeypatch.setattr(profile.Timestamps, "_note", lambda self, names, ticks: None)
    with gpu.profile() as found:
        work(gpu)
    assert found.clock == "wall"
    assert {row.kernel: row.calls for row in found.rows()}["mul"] == 3
    assert all(event.duration > 0 for event in found.events)


def test_the_table() -> None:
    found = Profile("timestamps")
    found.events = [Event("a", 0.0, 1e-6), Event("matmul", 2e-6, 8e-6), Event("a", 1e-5, 1e-6)]
    assert str(found).splitlines() == [
        "kernel    calls    total ms     mean us      %",
        "matmul        1       0.008        8.00   80.0",
        "a             2       0.002        1.00   20.0",
        "(timestamps)",
    ]
    assert str(Profile("wall")).splitlines()[1:] == ["(wall)"]


def test_the_trace(gpu: GpuBackend, tmp_path: Path) -> None:
    with gpu.profile() as found:
        work(gpu)
    found.save(tmp_path / "trace.json")
    trace = json.loads((tmp_path / "trace.json").read_text("utf-8"))
    events = trace["traceEvents"]
    assert [event["name"] for event in events] == [event.kernel for event in found.events]
    assert all(event["ph"] == "X" and event["dur"] >= 0 and event["ts"] >= 0 for event in events)


def test_a_profile_in_a_profile(gpu: GpuBackend) -> None:
    with gpu.profile(), pytest.raises(RuntimeError, match="already being profiled"), gpu.profile():
        pass
    with gpu.profile() as found:
        work(gpu)
    assert found.events


def test_an_error_inside_ends_the_profile(gpu: GpuBackend) -> None:
    with pytest.raises(LookupError), gpu.profile():
        raise LookupError
    work(gpu)
    with gpu.profile() as found:
        work(gpu)
    assert found.events
