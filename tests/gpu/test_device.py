"""The device: choice, statistics, batches, threads, and clear messages for refusals."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from functools import partial

import numpy as np
import pytest

from rumus.gpu import (
    DeviceLostError,
    Gpu,
    GpuBackend,
    LimitError,
    NoAdapterError,
    ShaderError,
    default_backend,
    devices,
)
from rumus.gpu.device.device import BATCH
from rumus.gpu.device.pipelines import Program
from rumus.gpu.engine.engines import ENGINES
from rumus.gpu.engine.protocol import EngineName
from rumus.tensor import Expr, Kernel, Parameter, float32, tensor
from rumus.tensor.gpu import gpu_backend


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own, so that its effects stay there."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_devices_are_listed_best_first() -> None:
    order = ["DiscreteGPU", "IntegratedGPU", "VirtualGPU", "CPU", "Unknown"]
    found = devices()
    assert [info.index for info in found] == list(range(len(found)))
    assert [info.kind for info in found] == sorted((i.kind for i in found), key=order.index)
    assert all(info.interface != "OpenGL" for info in found)


@pytest.mark.needs_gpu
def test_a_device_is_chosen_by_index_or_name() -> None:
    first = devices()[0]
    assert Gpu(0).name == first.name
    assert Gpu(first.name[:5].upper()).name == first.name
    with pytest.raises(NoAdapterError, match=r"no GPU 'no such card'.*" + first.name[:5]):
        Gpu("no such card")
    with pytest.raises(NoAdapterError, match="no GPU 99"):
        Gpu(99)


def test_the_default_backend_is_one_object() -> None:
    assert default_backend() is default_backend()
    assert gpu_backend() is default_backend()
    assert tensor([1.0]).to_gpu().backend is default_backend()


NO_DRIVER = {"VK_DRIVER_FILES": "/nowhere", "VK_ICD_FILENAMES": "/nowhere"}


def test_without_a_driver_the_message_says_what_to_install() -> None:
    code = "from rumus.tensor import tensor; x = tensor([1.0]); print(x.sum().item()); x.to_gpu()"
    done = python(code, **NO_DRIVER)
    assert done.stdout == "1.0\n"
    assert "NoAdapterError" in done.stderr
    assert "mesa-vulkan-drivers" in done.stderr
    main = "import runpy; runpy.run_module('rumus.gpu', run_name='__main__')"
    listed = python(main, **NO_DRIVER)
    assert (listed.returncode, listed.stdout) == (2, "")
    assert "mesa-vulkan-drivers" in listed.stderr
    assert "Traceback" not in listed.stderr


def test_stats_count_transfers(gpu: GpuBackend) -> None:
    x = gpu.upload(np.ones(1000, np.float32))
    out = gpu.allocate((1000,), float32)
    gpu.copy(x, out)
    gpu.download(out)
    stats = gpu.stats
    before = stats.dispatches, stats.bytes_up, stats.bytes_down, stats.pipelines
    for _ in range(5):
        gpu.copy(x, out)
    assert stats.dispatches == before[0] + 5
    gpu.upload(np.ones(10, np.int32))
    assert stats.bytes_up == before[1] + 40
    gpu.download(out[:3])
    assert stats.bytes_down == before[2] + 12
    assert stats.pipelines == before[3]  # nothing new was compiled


def test_dispatches_are_submitted_in_batches(gpu: GpuBackend) -> None:
    out = gpu.allocate((10,), float32)
    gpu.fill(0, out)
    gpu.gpu.synchronize()
    before = gpu.stats.submits
    for _ in range(10 * BATCH):
        gpu.fill(1, out)
    assert gpu.stats.submits == before + 10


def test_a_large_product_is_submitted_at_once(
    gpu: GpuBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, out = gpu.upload(np.ones((64, 64), np.float32)), gpu.allocate((64, 64), float32)
    gpu.gpu.synchronize()
    before = gpu.stats.submits
    gpu.matmul(a, a, out)
    assert gpu.stats.submits == before
    monkeypatch.setattr("rumus.gpu.device.device.AS_LONG", 1)  # 64 counts as large
    gpu.matmul(a, a, out)
    assert gpu.stats.submits == before + 1
    assert (gpu.download(out) == 64).all()


def test_new_scalars_and_sizes_compile_nothing(gpu: GpuBackend) -> None:
    kernel = Kernel("scaled", {"out": Expr.array("a") * Expr.scalar("s")})
    made = set()
    for size, scalar in ((8, 1.0), (8, 2.0), (5, 3.0), (100_000, 4.0)):
        x = gpu.upload(np.full(size, 2, np.float32))
        out = gpu.allocate((size,), float32)
        gpu.elementwise(kernel, (x,), (scalar,), (out,))
        assert (gpu.download(out) == 2 * scalar).all()
        made.add(gpu.stats.pipelines)
    assert len(made) == 1


def test_a_training_step_reads_nothing(gpu: GpuBackend) -> None:
    weight = Parameter(np.ones((5, 3), np.float32), backend=gpu)
    x = tensor(np.ones((4, 5), np.float32), backend=gpu)
    before = gpu.stats.bytes_down
    for _ in range(3):
        grads = ((x @ weight).relu() ** 2).mean().backward()
        weight.assign(weight.detach() - grads.take(weight) * 0.1)
    assert gpu.stats.bytes_down == before


def test_a_write_waits_for_recorded_commands(gpu: GpuBackend) -> None:
    """The block of an upload may still be read by commands that are not submitted yet."""
    sums = []
    for value in range(200):
        x = tensor(np.full(300, value, np.float32), backend=gpu)
        sums.append(x.sum())
        del x
    assert [s.item() for s in sums] == [300 * value for value in range(200)]


def test_threads_share_a_device(gpu: GpuBackend) -> None:
    failures: list[str] = []

    def work(seed: int) -> None:
        host = np.random.default_rng(seed).standard_normal((40, 30)).astype(np.float32)
        x = tensor(host, backend=gpu)
        for _ in range(30):
            found = ((x @ x.T).sum(axis=1) * 2).numpy()
            if not np.allclose(found, (host @ host.T).sum(1) * 2, rtol=1e-4, atol=1e-4):
                failures.append(f"thread {seed}")

    threads = [threading.Thread(target=partial(work, seed)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_an_error_in_wgsl_shows_the_kernel_and_the_line(gpu: GpuBackend) -> None:
    source = "@compute @workgroup_size(1)\nfn main() {\n    let x: u32 = 1.5;\n}\n"
    with pytest.raises(ShaderError, match=r"(?s)'wrong'.*3\s+let x: u32 = 1.5;|3 │") as caught:
        gpu.gpu.pipeline("wrong", lambda: Program("wrong", source, "", ""))
    assert "   3     let x: u32 = 1.5;" in str(caught.value)
    assert gpu.download(gpu.upload(np.ones(3, np.float32))).tolist() == [1, 1, 1]


def test_a_program_over_the_limits_is_refused(gpu: GpuBackend) -> None:
    limits = gpu.gpu.limits
    text = "@compute @workgroup_size(1) fn main() {}"
    memory = limits.workgroup_memory + 4
    for program, message in (
        (Program("wide", text, "r" * (limits.bindings + 1), ""), "'wide' needs .* buffers"),
        (Program("deep", text, "w", "", memory), f"'deep' needs {memory} bytes of workgroup"),
        (Program("many", text, "w", "f" * 1000), "'many' needs 4000 bytes of scalars"),
    ):
        with pytest.raises(LimitError, match=message):
            gpu.gpu.pipeline(program.name, lambda program=program: program)  # type: ignore[misc]


def test_a_kernel_with_too_many_arrays_is_refused_by_name(gpu: GpuBackend) -> None:
    names = [f"x{i}" for i in range(gpu.gpu.limits.bindings + 1)]
    total = Expr.array(names[0])
    for name in names[1:]:
        total = total + Expr.array(name)
    kernel = Kernel("everything", {"out": total})
    arrays = [gpu.upload(np.ones(4, np.float32)) for _ in names]
    with pytest.raises(LimitError, match="'everything'"):
        gpu.elementwise(kernel, arrays, (), (gpu.allocate((4,), float32),))


def test_float64_is_refused(gpu: GpuBackend) -> None:
    with pytest.raises(TypeError, match=r"no float64.*float32"):
        tensor([1.0], dtype="float64", backend=gpu)


def test_checked_modules_give_the_same_bits() -> None:
    x = np.random.default_rng(0).standard_normal((50, 40)).astype(np.float32)
    results = []
    for trusted in (True, False):
        t = tensor(x, backend=GpuBackend(Gpu(trusted=trusted)))
        results.append(((t @ t.T).softmax().log() * t.sum()).numpy())
    np.testing.assert_array_equal(results[0], results[1])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_lost_device_raises(engine: EngineName) -> None:
    if not any(engine in info.engines for info in devices()):
        pytest.skip(f"{engine} is not installed, or finds no GPU")
    backend = GpuBackend(Gpu(engine=engine))
    x = backend.upload(np.ones(3, np.float32))
    y = backend.allocate((3,), float32)
    backend.copy(x, y)
    backend.gpu.device.destroy()
    with pytest.raises(DeviceLostError, match="checkpoint"):
        backend.download(x)
    with pytest.raises(DeviceLostError):
        backend.allocate((10_000,), float32)
    backend.copy(x, y)  # recorded only
    with pytest.raises(DeviceLostError):
        backend.gpu.flush()
    with pytest.raises(DeviceLostError):
        backend.upload(np.ones(3, np.float32))


@pytest.mark.parametrize(("seconds", "submissions"), [(1e-4, 0), (1.0, 3)])
def test_small_steps_in_quick_succession_share_a_submission(
    gpu: GpuBackend, monkeypatch: pytest.MonkeyPatch, seconds: float, submissions: int
) -> None:
    clock = itertools.count(100.0, seconds)
    monkeypatch.setattr("rumus.gpu.device.device.time.perf_counter", lambda: next(clock))
    x = tensor(np.zeros(64, np.float32), backend=gpu)
    gpu.step_finished()
    found = 0
    for _ in range(3):
        gpu.gpu.synchronize()
        x.assign(x + 1.0)
        before = gpu.stats.submits
        gpu.step_finished()
        found += gpu.stats.submits - before
    assert found == submissions
    assert (x.numpy() == 3).all()
