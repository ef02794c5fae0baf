"""The pool: reuse, garbage collection, running out of memory, and long runs."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rumus.gpu import Gpu, GpuBackend, LimitError, OutOfMemoryError
from rumus.gpu.engine.errors import EngineError
from rumus.gpu.engine.protocol import Buffer, Usage
from rumus.tensor import Parameter, float32, tensor


@pytest.fixture
def fresh() -> GpuBackend:
    """A backend without other arrays."""
    return GpuBackend(Gpu())


def test_memory_returns_when_python_drops_an_array(fresh: GpuBackend) -> None:
    first = fresh.allocate((1000,), float32)
    view = first[10:20]
    used = fresh.memory_stats().used
    assert used >= 4000
    del first
    assert fresh.memory_stats().used == used  # the view still holds it
    del view
    stats = fresh.memory_stats()
    assert stats.used == 0
    assert stats.cached == used
    second = fresh.allocate((1000,), float32)
    assert second.nbytes == 4000
    assert fresh.memory_stats().blocks == 1
    assert fresh.memory_stats().peak == used


def test_a_reused_block_is_not_read_too_late(fresh: GpuBackend) -> None:
    """Recorded commands read the old contents even if the block has a new owner by then."""
    results = []
    for value in range(50):
        source = fresh.upload(np.full(5000, value, np.float32))
        out = fresh.allocate((5000,), float32)
        fresh.copy(source, out)
        results.append(out)
        del source
    for value, out in enumerate(results):
        assert (fresh.download(out) == value).all()


def test_the_collector_does_not_release_a_buffer_that_the_pool_keeps(fresh: GpuBackend) -> None:
    """An array in a garbage cycle: its buffer is finalized with it, unless others hold it."""
    for _ in range(3):
        cycle: list[Any] = [fresh.allocate((1000,), float32)]
        cycle.append(cycle)
        del cycle
        gc.collect()
    array = fresh.allocate((1000,), float32)
    fresh.fill(3, array)
    assert (fresh.download(array) == 3).all()


def test_trim_gives_memory_back(fresh: GpuBackend) -> None:
    kept = fresh.upload(np.ones(7, np.float32))
    fresh.fill(1, fresh.allocate((10_000,), float32))
    fresh.gpu.trim()
    stats = fresh.memory_stats()
    assert stats.cached == 0
    assert stats.blocks == 1
    assert fresh.download(kept).tolist() == [1] * 7


def full_device(fresh: GpuBackend, monkeypatch: pytest.MonkeyPatch, failures: int) -> list[int]:
    """Have the next `failures` allocations fail as if memory had run out."""
    asked: list[int] = []
    create = fresh.gpu.device.buffer

    def limited(size: int, usage: Usage) -> Buffer:
        asked.append(size)
        if len(asked) <= failures:
            raise EngineError("Not enough memory left.")
        return create(size, usage)

    monkeypatch.setattr(fresh.gpu.device, "buffer", limited)
    return asked


def test_a_full_device_is_drained_and_tried_again(
    fresh: GpuBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh.fill(1, fresh.allocate((10_000,), float32))
    asked = full_device(fresh, monkeypatch, 1)
    array = fresh.allocate((5_000,), float32)
    assert len(asked) == 2
    assert fresh.memory_stats().cached == 0  # memory kept for reuse was released
    fresh.fill(2, array)
    assert (fresh.download(array) == 2).all()


def test_out_of_memory_lists_the_largest_holders(
    fresh: GpuBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = [fresh.allocate((100, 10), float32) for _ in range(3)]
    full_device(fresh, monkeypatch, 100)
    with pytest.raises(OutOfMemoryError, match=r"(?s)20,480 bytes.*f32\[100, 10\].*smaller"):
        fresh.allocate((5_000,), float32)
    monkeypatch.undo()
    fresh.fill(4, weights[0])
    assert (fresh.download(weights[0]) == 4).all()


def test_an_array_larger_than_a_binding_is_refused() -> None:
    backend = GpuBackend(Gpu(max_array_bytes=2**20))
    largest = backend.allocate((2**18,), float32)
    backend.fill(1, largest)
    assert backend.download(largest).sum() == 2**18
    with pytest.raises(LimitError, match=r"f32\[512, 513\].*1,048,576 bytes.*split"):
        backend.allocate((512, 513), float32)
    with pytest.raises(LimitError):
        tensor(np.zeros((10**6, 3), np.float32), backend=backend)
    with pytest.raises(LimitError):
        backend.allocate((2**40,), float32)


def resident_kilobytes() -> int:
    """The memory of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def test_memory_stays_flat_over_many_steps(fresh: GpuBackend) -> None:
    weight = Parameter(np.ones((16, 8), np.float32), backend=fresh)
    x = tensor(np.ones((4, 16), np.float32), backend=fresh)

    def steps(count: int) -> None:
        for step in range(count):
            loss = (x @ weight).tanh().sum()
            gradient = loss.backward().take(weight)
            weight.assign(weight.detach() - gradient * 1e-3)
            if step % 100 == 0:
                loss.item()

    steps(300)
    gc.collect()
    before, resident = fresh.memory_stats(), resident_kilobytes()
    steps(2000)
    gc.collect()
    after = fresh.memory_stats()
    assert (after.used, after.blocks) == (before.used, before.blocks)
    assert resident_kilobytes() - resident < 4096
