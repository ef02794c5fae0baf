"""Recorded commands, replayed on new data, with new scalars, in their own memory."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.gpu import Gpu, GpuBackend
from rumus.gpu.capture import Capture
from rumus.gpu.device.array import GPUArray
from rumus.tensor import CaptureError, Generator, Tensor, gather, matmul, tensor, zeros
from rumus.tensor.memory.recording import depends_on, live, refuse

Step = Callable[..., Tensor]
Array = GPUArray | NDArray[Any]


def captured(gpu: GpuBackend, step: Step, *batch: NDArray[Any]) -> tuple[Capture, Tensor]:
    """A step that ran twice, and the tensor that holds its result."""
    arrays = [tensor(a).numpy() for a in batch]
    with gpu.observe() as notes:
        step(*(tensor(a, backend=gpu) for a in arrays))
    with gpu.record(arrays, notes) as capture:
        result = step(*(Tensor(a, gpu) for a in capture.inputs))
        capture.keep([result._array])
    return capture, result


def chain(x: Tensor) -> Tensor:
    """Enough kernels to reuse memory, and for two submissions."""
    for _ in range(40):
        x = (x * 0.5 + 1.0).tanh() + x.sum() * 1e-3
    return x


def test_new_data_gives_new_results(gpu: GpuBackend) -> None:
    draw = np.random.default_rng(0)
    capture, result = captured(gpu, chain, draw.normal(size=(5, 7)))
    for number in range(4):
        host = draw.normal(size=(5, 7)).astype(np.float32)
        capture.replay([host if number % 2 else tensor(host, backend=gpu)._array])
        wanted = chain(tensor(host, backend=gpu))
        assert result.numpy().tobytes() == wanted.numpy().tobytes()


def test_a_batch_may_hold_views(gpu: GpuBackend) -> None:
    capture, result = captured(gpu, lambda x: x * 2.0, np.ones((3, 2)))
    whole = tensor(np.arange(24.0).reshape(4, 6), backend=gpu)
    for view in (whole[1:, 2:4], whole.T[3:, :2], whole[:3, ::3]):
        capture.replay([view._array])
        assert (result.numpy() == 2 * view.numpy()).all()


def test_an_array_is_copied_in_only_if_it_has_changed(
    gpu: GpuBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture, result = captured(gpu, lambda x: x * 2.0, np.ones(6))
    copied: list[object] = []
    copy = gpu.gpu.copy

    def counted(source: GPUArray, target: GPUArray) -> None:
        copied.append(source)
        copy(source, target)

    monkeypatch.setattr(gpu.gpu, "copy", counted)
    x = tensor(np.arange(6.0), backend=gpu)
    for number in range(6):
        if number == 3:
            x.assign(x + 1.0)
        if number == 5:
            capture.replay([np.zeros(6, np.float32)])
            assert (result.numpy() == 0).all()
        capture.replay([x._array])
        assert (result.numpy() == 2 * x.numpy()).all()
    assert len(copied) == 3  # first, after a write to it, and after another array
    capture.replay([tensor(np.arange(6.0), backend=gpu)._array])
    assert len(copied) == 4


def test_a_step_that_writes_to_its_batch_gets_a_new_copy(gpu: GpuBackend) -> None:
    def step(x: Tensor) -> Tensor:
        x.assign(x + 1.0)
        return x * 1.0

    capture, result = captured(gpu, step, np.ones(6))
    x = tensor(np.arange(6.0), backend=gpu)
    for _ in range(3):
        capture.replay([x._array])
        assert (result.numpy() == np.arange(1, 7)).all()


def test_memory_is_reused_only_within_a_step(gpu: GpuBackend) -> None:
    before = gpu.memory_stats().used
    capture, result = captured(gpu, chain, np.ones((64, 64)))
    held = gpu.memory_stats().used - before
    assert held < 10 * 64 * 64 * 4  # of some 160 arrays
    others = [zeros((64, 64), backend=gpu) for _ in range(20)]
    x = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    capture.replay([x])
    assert all((other.numpy() == 0).all() for other in others)
    assert result.numpy().tobytes() == chain(tensor(x, backend=gpu)).numpy().tobytes()
    del others, capture, result
    gc.collect()
    assert gpu.memory_stats().used == before


def test_a_result_outlives_its_step(gpu: GpuBackend) -> None:
    """It keeps its memory when the capture is gone, and returns it when it is gone itself."""
    before = gpu.memory_stats().used
    capture, result = captured(gpu, lambda x: x + 1.0, np.zeros(500))
    del capture
    gc.collect()
    others = [zeros((500,), backend=gpu) for _ in range(4)]
    assert (result.numpy() == 1).all()
    del others, result
    assert gpu.memory_stats().used == before


def test_random_numbers_continue(gpu: GpuBackend) -> None:
    here, there = Generator(1), Generator(1)

    def draws(generator: Generator) -> Step:
        return lambda x: (
            generator.keep(0.5, x.shape, backend=gpu).where(x, 0.0)
            + (generator.keep(0.1, x.shape, backend=gpu).where(1.0, x))
        )

    def between(generator: Generator, number: int) -> None:
        if number == 3:
            generator.words((5,), backend=gpu)
        if number == 5:
            generator.restore({"seed": 9, "stream": 2, "position": 2**33})

    x = np.arange(1.0, 31.0)
    capture, result = captured(gpu, draws(here), x)
    for _ in range(2):
        wanted = draws(there)(tensor(x, backend=gpu)).tolist()
    assert result.tolist() == wanted
    for number in range(6):
        between(here, number)
        between(there, number)
        capture.replay([tensor(x).numpy()])
        assert result.tolist() == draws(there)(tensor(x, backend=gpu)).tolist()
        assert here.position == there.position


def test_replays_that_wait_to_be_submitted(gpu: GpuBackend) -> None:
    """Longer than a submission; the last part is still pending when new scalars follow."""
    here, there = Generator(4), Generator(4)

    def drawn(generator: Generator) -> Step:
        def step(x: Tensor) -> Tensor:
            for _ in range(25):
                x = (x * 0.5 + 1.0).tanh()
            return generator.keep(0.5, x.shape, backend=gpu).where(x, 0.0)

        return step

    x = np.arange(20.0) / 20
    capture, result = captured(gpu, drawn(here), x)
    for _ in range(2):
        drawn(there)(tensor(x, backend=gpu))
    given = [tensor(x + number, backend=gpu) for number in range(6)]
    found = []
    for one in given:
        capture.replay([one._array])
        found.append(result * 1.0)
    wanted = [drawn(there)(one) for one in given]
    assert [f.tolist() for f in found] == [w.tolist() for w in wanted]


def test_live_scalars(gpu: GpuBackend) -> None:
    """Code run by `live` gives other numbers each time; everything else stays."""
    rate = [1.0]
    out = zeros((3,), backend=gpu)

    def step(x: Tensor) -> Tensor:
        live(lambda: gpu.fill(rate[0], out._array))
        return out * x

    capture, result = captured(gpu, step, np.ones(3))
    for value in (1.0, 2.0, 7.0):
        rate[0] = value
        capture.replay([np.full(3, 10.0, np.float32)])
        assert result.tolist() == [10 * value] * 3


def test_live_code_that_changes_is_refused(gpu: GpuBackend) -> None:
    out, kind = zeros((3,), backend=gpu), ["fill"]

    def act() -> None:
        if kind[0] == "fill":
            gpu.fill(1.0, out._array)
        elif kind[0] == "copy":
            gpu.copy(tensor([1.0], backend=gpu)._array, out._array)

    def step(x: Tensor) -> Tensor:
        live(act)
        return out * x

    capture, _ = captured(gpu, step, np.ones(3))
    for other in ("copy", "nothing"):
        kind[0] = other
        with pytest.raises(CaptureError, match="captured step ran"):
            capture.replay([np.ones(3, np.float32)])
    kind[0] = "fill"
    capture.replay([np.ones(3, np.float32)])


def test_a_step_is_valid_while_its_memory_exists(gpu: GpuBackend) -> None:
    class Layer:
        weight = tensor(np.eye(3), backend=gpu)
        training = True

    layer = Layer()

    def step(x: Tensor) -> Tensor:
        depends_on(layer, "training")
        return matmul(x, layer.weight)

    capture, _ = captured(gpu, step, np.ones((2, 3)))
    assert capture.is_valid()
    layer.training = False
    assert not capture.is_valid()
    layer.training = True
    assert capture.is_valid()
    Layer.weight = tensor(np.eye(3), backend=gpu)
    assert not capture.is_valid()


def test_indices(gpu: GpuBackend) -> None:
    table = tensor(np.arange(12.0).reshape(4, 3), backend=gpu)
    capture, result = captured(gpu, lambda i: gather(table, i) * 1.0, np.array([0, 3]))
    ok = tensor([1, 2], backend=gpu)
    assert capture.fits([ok._array])
    assert capture.fits([np.array([3, 3], np.int32)])
    for bad in ([4, 0], [-1, 0]):
        assert not capture.fits([np.array(bad, np.int32)])
        assert not capture.fits([tensor(bad, backend=gpu)._array])
    with pytest.raises(CaptureError, match="NumPy"):
        capture.fits([(ok + 1)._array])
    capture.replay([ok._array])
    assert result.tolist() == [[3.0, 4.0, 5.0], [6.0, 7.0, 8.0]]


def test_indices_that_a_step_copies_out_of_its_batch(gpu: GpuBackend) -> None:
    """The inputs and targets of a window of text: nothing is read, and all are checked."""
    table = tensor(np.arange(12.0).reshape(4, 3), backend=gpu)

    def step(window: Tensor) -> Tensor:
        return gather(table, window[:, 1:].reshape(-1).clone()) * 1.0

    window = np.array([[0, 3, 1], [2, 2, 0]], np.int32)
    before = gpu.stats.bytes_down
    capture, result = captured(gpu, step, window)
    assert gpu.stats.bytes_down == before
    assert not capture.fits([np.where(window == 3, 4, window)])
    assert not capture.fits([window - 1])
    assert capture.fits([window[::-1]])
    capture.replay([window[::-1]])
    np.testing.assert_array_equal(result.numpy()[:, 0], [6, 0, 9, 3])


def test_known_bounds_of_a_copy_end_with_its_next_write(gpu: GpuBackend) -> None:
    table = tensor(np.arange(4.0), backend=gpu)
    index = tensor([[0, 1], [3, 2]], backend=gpu)[:, 0].clone()
    assert gather(table, index).tolist() == [0.0, 3.0]
    index.assign(index + 2)
    with pytest.raises(IndexError, match="5"):
        gather(table, index)


@pytest.mark.parametrize("is_read", [False, True], ids=["copied", "read between replays"])
def test_known_bounds_of_a_kept_result_end_with_the_next_replay(
    is_read: bool, gpu: GpuBackend
) -> None:
    table = tensor(np.arange(12.0).reshape(4, 3), backend=gpu)
    step: Step = (lambda i: i + 0) if is_read else (lambda i: i[:, 0].clone())
    capture, index = captured(gpu, step, np.array([[0, 1], [1, 0]]))
    assert gather(table, index).shape == (*index.shape, 3)
    for bad in (4, -1):
        capture.replay([np.full((2, 2), bad, np.int32)])
        with pytest.raises(IndexError, match=str(bad)):
            gather(table, index)
        with pytest.raises(IndexError, match="outside"):
            table[index if bad > 0 else index - 4]
    capture.replay([np.full((2, 2), 3, np.int32)])
    assert gather(table, index).numpy().ravel()[0] == 9.0
    assert table[index - 4].numpy().ravel()[0] == 9.0


def refused(gpu: GpuBackend, step: Step, match: str) -> None:
    with pytest.raises(CaptureError, match=match):
        captured(gpu, step, np.ones(4))
    assert (tensor([1.0], backend=gpu) + 1.0).item() == 2.0  # as if nothing had happened


def odd(x: Tensor) -> Tensor:
    refuse("an odd thing")
    return x


@pytest.mark.parametrize(
    ("step", "match"),
    [
        (lambda x: x * x.sum().item(), "read"),
        (lambda x: x + tensor([1.0], backend=x.backend), "uploads"),
        (lambda x: x * float(Generator(0).permutation(4)[0]), "permutation is drawn on the host"),
        (odd, "an odd thing"),
    ],
    ids=["read", "upload", "a permutation", "refuse"],
)
def test_operations_that_cannot_be_replayed_are_refused(
    gpu: GpuBackend, step: Step, match: str
) -> None:
    refused(gpu, step, match)


def test_a_step_that_differs_from_before_is_refused(gpu: GpuBackend) -> None:
    for kinds, match in (
        ((lambda x: x * 2.0, lambda x: x * 3.0), "2.0 and 3.0"),
        ((lambda x: x * 0.0, lambda x: x * -0.0), "0.0 and -0.0"),
        ((lambda x: x.exp(), lambda x: x.tanh()), "kernel 'exp' ran then, 'tanh' now"),
        ((lambda x: x * 1.0, lambda x: x * 1.0 * 1.0), "1 kernels before and 2"),
    ):
        steps: list[Step] = list(kinds)
        refused(gpu, lambda x, steps=steps: steps.pop(0)(x), match)


def test_an_array_held_after_the_step_is_refused(gpu: GpuBackend) -> None:
    kept: list[Tensor] = []

    def step(x: Tensor) -> Tensor:
        kept.append(x + 1.0)
        return kept[-1] * 2.0

    refused(gpu, step, r"f32\[4\].*still referenced")


def test_an_error_inside_ends_the_recording(gpu: GpuBackend) -> None:
    before = gpu.memory_stats().used
    with gpu.observe() as notes:
        pass

    def fails() -> None:
        with gpu.record([np.ones(4, np.float32)], notes) as capture:
            Tensor(capture.inputs[0], gpu).exp()
            raise LookupError

    with pytest.raises(LookupError):
        fails()
    gc.collect()
    assert gpu.memory_stats().used == before
    assert tensor([1.0, 2.0], backend=gpu).sum().item() == 3.0


def test_empty_arrays(gpu: GpuBackend) -> None:
    capture, result = captured(gpu, lambda x: x.sum(), np.ones((0, 3)))
    capture.replay([np.ones((0, 3), np.float32)])
    assert result.item() == 0.0


def test_other_threads_are_not_recorded() -> None:
    """They continue meanwhile, with their own memory."""
    gpu = GpuBackend(Gpu())
    found: list[Tensor] = []
    x = np.ones(4, np.float32)

    def elsewhere() -> None:
        found.append(tensor([1.0, 2.0, 3.0, 4.0], backend=gpu) * 2.0)
        assert found[-1].sum().item() == 20.0

    def step(x: Tensor) -> Tensor:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        y = x.exp()
        thread.join()
        return y.log()

    capture, result = captured(gpu, step, x)
    for _ in range(3):
        capture.replay([x])
    assert result.tolist() == [1.0] * 4
    assert [tensor.tolist() for tensor in found] == [[2.0, 4.0, 6.0, 8.0]] * 2


def test_replays_from_several_threads(gpu: GpuBackend) -> None:
    captures = [captured(gpu, chain, np.full((4, 4), float(n))) for n in range(3)]
    wanted = [chain(tensor(np.full((4, 4), float(n)), backend=gpu)).numpy() for n in range(3)]

    def run(pair: tuple[Capture, Tensor], value: float) -> None:
        for _ in range(20):
            pair[0].replay([np.full((4, 4), value, np.float32)])

    threads = [threading.Thread(target=run, args=(c, float(n))) for n, c in enumerate(captures)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for (_, result), values in zip(captures, wanted, strict=True):
        assert result.numpy().tobytes() == values.tobytes()


def test_a_profile_sees_the_kernels_of_a_replay(gpu: GpuBackend) -> None:
    capture, result = captured(gpu, chain, np.ones((4, 4)))
    x: Sequence[Array] = [np.full((4, 4), 0.5, np.float32)]
    with gpu.profile() as found:
        capture.replay(x)
    calls = {row.kernel: row.calls for row in found.rows()}
    assert calls["tanh"] == 40
    wanted = chain(tensor(np.full((4, 4), 0.5), backend=gpu))
    assert result.numpy().tobytes() == wanted.numpy().tobytes()
