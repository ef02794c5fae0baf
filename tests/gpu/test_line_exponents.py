"""The exponents of arrays, and of their rows and columns: found once, and again after a write."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.gpu import GpuBackend
from rumus.gpu.comparison import compare
from rumus.gpu.device.device import Gpu
from rumus.gpu.device.matrix_units import PlainLoops, UnitShape
from rumus.gpu.products.line_exponents import LineExponents, Lines, line_exponents
from rumus.tensor import GradientStore, Parameter, convolution, tensor
from rumus.tensor.graph.tensor import Tensor

Array = NDArray[Any]


@pytest.fixture(scope="module")
def loops() -> GpuBackend:
    backend = GpuBackend(Gpu(precision="medium"))
    backend.gpu.units = backend.gpu.units or PlainLoops(UnitShape(16, 16, 16))
    return backend


def magnitudes(*shape: int) -> Array:
    """Numbers of all sizes, some of them zero or not finite."""
    random = np.random.default_rng(sum(shape))
    values = random.standard_normal(shape) * np.exp2(random.integers(-140, 120, shape))
    for special in (0.0, np.inf, -np.inf, np.nan):
        values[random.random(shape) < 0.1] = special
    return values.astype(np.float32)


def largest(values: Array, axis: int) -> Array:
    exponents = values.view(np.uint32) >> 23 & 255
    found: Array = np.where(exponents == 255, 0, exponents).max(axis)
    return found


def read(backend: GpuBackend, found: LineExponents, lines: int) -> Array:
    words: Array = backend.download(found.array)
    result: Array = words.astype("<i4").view(np.uint8).max(1)[:, :lines]
    return result


# Whole blocks and parts, ragged ones, one element at a time, one row, one column; every width.
@pytest.mark.parametrize(
    "shape",
    [(64, 256), (100, 132), (33, 65), (1, 700), (130, 1), (9, 2052), (5, 4100), (3, 8200),
     (7, 701), (2, 1501), (1100, 2049)],
)  # fmt: skip
def test_exponents_of_rows_and_columns(loops: GpuBackend, shape: tuple[int, int]) -> None:
    values = magnitudes(*shape)
    array = loops.upload(values)
    of = [
        Lines(array, along_k, shape[1], lines, depth, (1, 0), (1, 0))
        for along_k, lines, depth in ((True, *shape), (False, *shape[::-1]))
    ]
    rows, columns = line_exponents(loops.gpu, of)
    np.testing.assert_array_equal(read(loops, rows, shape[0]), largest(values, 1)[None])
    np.testing.assert_array_equal(read(loops, columns, shape[1]), largest(values, 0)[None])


def test_batches_parts_and_two_operands(loops: GpuBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a view with other rows between its own, and of an operand that broadcasts."""
    values, other = magnitudes(3, 2, 200, 40), magnitudes(130, 24)
    a, b = loops.upload(values)[:, :, 8:, 4:36], loops.upload(other)
    found = line_exponents(
        loops.gpu,
        [
            Lines(a, True, 40, 192, 32, (3, 16_000), (2, 8_000)),
            Lines(b, False, 24, 24, 130, (3, 0), (2, 0)),
        ],
    )
    wanted = largest(np.ascontiguousarray(values[:, :, 8:, 4:36]), 3).reshape(6, 192)
    np.testing.assert_array_equal(read(loops, found[0], 192), wanted)
    np.testing.assert_array_equal(read(loops, found[1], 24), largest(other, 0)[None])
    assert found[0].outer == 2 * found[0].inner == 2 * found[0].parts * 192 // 4
    assert found[1].outer == found[1].inner == 0


def kernels(backend: GpuBackend, loss: Any, kernel: str = "exponents") -> list[str]:
    with backend.profile() as profile:
        loss()
    return [event.kernel for event in profile.events if event.kernel == kernel]


def test_a_matrix_is_read_once_for_a_product_and_its_gradients(loops: GpuBackend) -> None:
    x = tensor(np.ones((40, 24), np.float32), backend=loops)
    w = Parameter(np.ones((24, 32), np.float32), name="w", backend=loops)
    g = tensor(np.ones((40, 32), np.float32), backend=loops)
    inner = Parameter(np.ones((24, 24), np.float32), name="inner", backend=loops)

    def both() -> None:
        ((x @ inner) @ w * g).sum().backward()

    # x with inner, x inner with w; then g, and the gradient of x inner.
    assert len(kernels(loops, both)) == 4
    assert len(kernels(loops, lambda: x @ x.T)) == 0  # known from before
    y = tensor(np.ones((40, 24), np.float32), backend=loops)
    assert len(kernels(loops, lambda: y @ y.T)) == 1


def test_an_array_is_read_once_for_a_convolution_and_its_gradients(loops: GpuBackend) -> None:
    random = np.random.default_rng(0)
    x, w = (
        random.standard_normal(shape).astype(np.float32) for shape in ((2, 4, 6, 6), (4, 4, 3, 3))
    )
    images = Parameter(x, name="images", backend=loops)
    weight = Parameter(w, name="weight", backend=loops)
    g = tensor(random.standard_normal((2, 4, 6, 6)).astype(np.float32), backend=loops)
    grads = GradientStore()

    def step() -> None:
        (convolution(images, weight, padding=1) * g).sum().backward(into=grads)

    # The images, the weight and g.
    assert len(kernels(loops, step, "reduce_exponent")) == 3
    by_one = 1e20
    grads = GradientStore()
    images.assign(x * np.float32(by_one))
    assert len(kernels(loops, step, "reduce_exponent")) == 2  # the images, and another g
    wanted = convolution(tensor(x * by_one), tensor(w), padding=1).numpy()
    found = convolution(images, weight, padding=1).numpy()
    np.testing.assert_allclose(found / by_one, wanted / by_one, atol=0.02)


def test_an_interrupted_reading_is_not_kept(
    loops: GpuBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    x, w = (
        random.standard_normal(shape).astype(np.float32) for shape in ((2, 4, 6, 6), (4, 4, 3, 3))
    )
    images, weight = tensor(x, backend=loops), tensor(w, backend=loops)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("rumus.gpu.convolutions.convolution.reduce", interrupted)
        with pytest.raises(KeyboardInterrupt):
            convolution(images, weight, padding=1)
    # The images and the weight, neither of which was read before.
    read = kernels(loops, lambda: convolution(images, weight, padding=1), "reduce_exponent")
    assert len(read) == 2


def test_a_written_matrix_is_read_again(loops: GpuBackend) -> None:
    random = np.random.default_rng(0)
    values, w = (random.standard_normal(shape).astype(np.float32) for shape in ((32, 48), (48, 16)))
    x, other = tensor(values, backend=loops), tensor(w, backend=loops)
    (x @ other).numpy()
    x.assign(values * np.float32(1e30))
    np.testing.assert_allclose((x @ other).numpy() / 1e30, values @ w, atol=0.05)


def test_a_captured_step_reads_each_batch(loops: GpuBackend) -> None:
    """Batches whose magnitudes differ, beside an operand that was known before the recording."""
    random = np.random.default_rng(1)
    outer = tensor(random.standard_normal((16, 16)).astype(np.float32), backend=loops)
    batch = random.standard_normal((32, 16)).astype(np.float32)

    def step(x: Tensor) -> Tensor:
        return (x @ outer) @ outer

    step(tensor(batch, backend=loops))
    arrays = [loops.upload(batch)]
    with loops.observe() as notes:
        step(Tensor(arrays[0], loops))
    with loops.record(arrays, notes) as capture:
        result = step(*(Tensor(a, loops) for a in capture.inputs))
        capture.keep([result._array])
    for power in (0, 20, -20, 15):
        x = tensor(batch * np.float32(10.0**power), backend=loops)
        capture.replay([x._array])
        np.testing.assert_array_equal(result.numpy(), step(x).numpy())
    with compare(capture, [loops.upload(batch)]) as comparison:
        comparison.keep([step(*(Tensor(a, loops) for a in capture.inputs))._array])
    assert comparison.difference is None


def test_what_a_replay_rewrites_is_read_again(loops: GpuBackend) -> None:
    """A result that code outside of the step multiplies, between replays."""
    random = np.random.default_rng(2)
    batch = random.standard_normal((32, 16)).astype(np.float32)
    other = tensor(random.standard_normal((16, 16)).astype(np.float32), backend=loops)
    arrays = [loops.upload(batch)]
    with loops.observe() as notes:
        Tensor(arrays[0], loops) * 2.0
    with loops.record(arrays, notes) as capture:
        result = Tensor(capture.inputs[0], loops) * 2.0
        capture.keep([result._array])
    for power in (0, 20, -20):
        x = batch * np.float32(10.0**power)
        capture.replay([loops.upload(x)])
        wanted = (tensor(2 * x, backend=loops) @ other).numpy()
        np.testing.assert_array_equal((result @ other).numpy(), wanted)
