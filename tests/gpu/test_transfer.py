"""Arrays sent to the device and back: every size, in order, in memory that nothing else uses."""

from __future__ import annotations

import gc
import mmap
import os
import subprocess
import sys
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.gpu import Gpu, GpuBackend, devices
from rumus.gpu.device.device import LENT, PIECE
from rumus.gpu.device.host_memory import HostMemory, HostPool
from rumus.gpu.device.staging import HostStaging
from rumus.gpu.device.upload import CHUNK, CHUNKS
from rumus.tensor import float16, float32, int32, tensor

SIZES: Final = (
    0,
    1,
    2,
    3,
    5,
    1000,
    LENT // 4 - 1,
    LENT // 4,
    70_001,
    PIECE // 4 + 1,
    CHUNK // 4 + 3,
)


def numbers(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(count, np.float32)


@pytest.mark.parametrize("dtype", [float32, int32, float16])
@pytest.mark.parametrize("size", SIZES)
def test_arrays_come_back_as_sent(gpu: GpuBackend, size: int, dtype: Any) -> None:
    sent = np.random.default_rng(size).integers(-1000, 1000, size).astype(dtype)
    array = gpu.upload(sent)
    back = gpu.download(array)
    assert back.dtype == dtype
    assert back.tobytes() == sent.tobytes()
    back[...] = 0  # it belongs to the caller
    assert gpu.download(array).tobytes() == sent.tobytes()


def test_a_write_follows_earlier_commands(gpu: GpuBackend) -> None:
    x = tensor(np.zeros(3000, np.float32), backend=gpu)
    results = []
    for value in range(100):
        x.assign(np.full(3000, value, np.float32))
        results.append(x * 2.0)
    for value, result in enumerate(results):
        assert (result.numpy() == 2.0 * value).all()


def test_more_than_all_chunks_at_once(gpu: GpuBackend) -> None:
    sent = [numbers(CHUNK // 4, seed) for seed in range(CHUNKS + 2)]
    arrays = [gpu.upload(each) for each in sent]
    for array, each in zip(arrays, sent, strict=True):
        assert (gpu.download(array) == each).all()


def test_the_sender_may_change_its_array_at_once(gpu: GpuBackend) -> None:
    sent = numbers(300_000)
    expected = sent.copy()
    array = gpu.upload(sent)
    sent[:] = 0
    assert (gpu.download(array) == expected).all()


def test_a_view_of_a_read_array_holds_its_memory(gpu: GpuBackend) -> None:
    array, other = gpu.upload(numbers(200_000)), gpu.upload(numbers(200_000, 1))
    view = gpu.download(array)[1000:2000].reshape(10, 100)
    expected = view.copy()
    gc.collect()
    for _ in range(4):
        gpu.download(other)
    assert (view == expected).all()


@pytest.fixture
def host_memory() -> GpuBackend:
    """A separate backend whose device accesses host memory."""
    if not any("dawn" in info.engines for info in devices()):
        pytest.skip("Dawn is not installed, or finds no GPU")
    backend = GpuBackend(Gpu(engine="dawn"))
    if not backend.gpu.has("host-memory"):
        pytest.skip("this device sees no memory of the host")
    return backend


def test_returned_memory_is_reused(host_memory: GpuBackend) -> None:
    array = host_memory.upload(numbers(LENT))
    addresses = set()
    for _ in range(5):
        back = host_memory.download(array)
        addresses.add(back.ctypes.data)
        del back
    assert len(addresses) == 1
    assert isinstance(host_memory.gpu.staging(100), HostStaging)


def test_a_pool_keeps_a_little_and_trims(host_memory: GpuBackend) -> None:
    pool = HostPool(host_memory.gpu.device)
    memory = pool.take(5000)
    assert isinstance(memory, HostMemory)
    lent = pool.lend(memory, (2, 500), np.dtype(np.float32))
    assert lent.shape == (2, 500)
    assert lent.flags.writeable
    assert pool.take(5000) is not memory
    del lent
    assert pool.take(5000) is memory
    pool.returned.append(memory)
    pool.trim()
    assert pool.take(5000) is not memory


FORKING: Final = """
import os
import numpy as np
from rumus.gpu import Gpu, GpuBackend, devices
backend = GpuBackend(Gpu(engine="dawn"))
sent = np.arange(10**6, dtype=np.float32)
array = backend.upload(sent)
before = backend.download(array)
for turn in range(3):
    child = os.fork()
    if child == 0:
        before[:] = -1  # the pages are shared until either process writes
        os._exit(0)
    after = backend.upload(sent + turn)  # while the child has the old pages
    assert (backend.download(after) == sent + turn).all()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (before == sent).all()
    assert (backend.download(after) == sent + turn).all()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_changes_nothing_for_the_parent(host_memory: GpuBackend) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FORKING], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2000:]


def test_program_memory_as_an_array_if_the_engine_supports_it(
    gpu: GpuBackend,
) -> None:
    """Kernels read and write it; it does not return to the pool."""
    alignment = gpu.gpu.device.host_alignment or 65_536
    pages = mmap.mmap(-1, 4 * 65_536)
    memory = memoryview(pages)[: 2 * 65_536]
    shared = gpu.mapped(memory, np.dtype(float32))
    if not gpu.gpu.device.host_alignment:
        assert shared is None  # wgpu-native has none; callers use another way
        return
    assert shared is not None
    host = np.frombuffer(memory, np.float32)
    host[:] = numbers(host.size)
    expected = host.copy()
    array = gpu.allocate(host.shape, np.dtype(float32))
    gpu.copy(shared, array)
    assert gpu.download(array).tobytes() == expected.tobytes()
    gpu.copy(gpu.upload(-expected), shared)
    gpu.gpu.synchronize()
    assert host.tobytes() == (-expected).tobytes()
    held = gpu.gpu.memory_stats()
    del shared
    gc.collect()
    assert gpu.gpu.memory_stats() == held
    assert gpu.mapped(memory[alignment // 2 :], np.dtype(float32)) is None


def test_memory_of_the_device_is_not_exported(gpu: GpuBackend) -> None:
    with pytest.raises(BufferError, match=r"other libraries share: export x\.to\(cpu\(\)\)"):
        np.from_dlpack(tensor([1.0], backend=gpu))
