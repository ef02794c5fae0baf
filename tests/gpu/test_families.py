"""Every family of kernels against NumPy, over awkward shapes, layouts and dtypes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.gpu import GPUArray, GpuBackend
from rumus.tensor import NumpyBackend, avg_pool, bool_, float16, float32, int32, tensor
from rumus.tensor.memory.fused import GRADIENTS, FusedName
from rumus.tensor.memory.slot_table import SlotTable

NUMPY = NumpyBackend()
SIZES = [1, 3, 63, 65, 127, 1023, 4097]


def normal(*shape: int, seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def assert_close(got: Any, want: NDArray[Any], rtol: float = 1e-5, atol: float = 1e-6) -> None:
    np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)


def row_kernel(backend: GpuBackend | NumpyBackend, name: FusedName) -> Callable[..., None]:
    kernel = backend.fused(name)
    assert kernel is not None
    return kernel


def new(gpu: GpuBackend, like: NDArray[Any]) -> GPUArray:
    """Memory for a result, filled with a value that must not survive."""
    array = gpu.allocate(like.shape, like.dtype)
    gpu.fill(77, array)
    return array


@pytest.mark.parametrize("dtype", [float32, float16, int32, bool_])
@pytest.mark.parametrize("shape", [(), (1,), (0,), (7,), (3, 5), (4, 1, 6), (2, 0, 3)])
def test_upload_and_download(gpu: GpuBackend, shape: tuple[int, ...], dtype: Any) -> None:
    host = (np.random.default_rng(1).standard_normal(shape) * 3).astype(dtype)
    back = gpu.download(gpu.upload(host))
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, host)


VIEWS = [
    (slice(1, None),),
    (slice(None, None, 2), 1),
    (..., slice(None, None, -1)),
    (2, None, slice(3, 1, -1)),
    (slice(None), slice(2, 2)),
    (-1, -1, -1),
    (Ellipsis, None, 0),
]


@pytest.mark.parametrize("key", VIEWS)
def test_views_match_numpy(gpu: GpuBackend, key: Any) -> None:
    host = normal(4, 5, 6)
    array = gpu.upload(host)
    np.testing.assert_array_equal(gpu.download(array[key]), host[key])
    np.testing.assert_array_equal(gpu.download(array.transpose()[key]), host.transpose()[key])


def test_writing_to_a_view_leaves_the_rest(gpu: GpuBackend) -> None:
    for key in VIEWS:
        host, source = normal(4, 5, 6), normal(4, 5, 6, seed=2)
        array = gpu.upload(host)
        gpu.copy(gpu.upload(source)[key], array[key])
        host[key] = source[key]
        np.testing.assert_array_equal(gpu.download(array), host)


def test_reshape_gives_a_view_where_numpy_does(gpu: GpuBackend) -> None:
    host = normal(4, 6, 5)
    array = gpu.upload(host)
    for shape in [(24, 5), (2, 2, 30), (-1,), (4, 2, 3, 5), (1, 120, 1)]:
        np.testing.assert_array_equal(gpu.download(array.reshape(shape)), host.reshape(shape))
        assert array.reshape(shape).storage is array.storage
    turned, host_turned = array.transpose(1, 0, 2), host.transpose(1, 0, 2)
    for shape in [(6, 2, 2, 5), (3, 2, 4, 5), (6, 1, 4, 5)]:
        assert turned.reshape(shape).storage is array.storage
        np.testing.assert_array_equal(
            gpu.download(turned.reshape(shape)), host_turned.reshape(shape)
        )
    copied = turned.reshape(24, 5)
    assert copied.storage is not array.storage
    np.testing.assert_array_equal(gpu.download(copied), host_turned.reshape(24, 5))


def test_a_copy_that_overlaps_itself(gpu: GpuBackend) -> None:
    host = normal(100)
    array = gpu.upload(host)
    gpu.copy(array[:-1], array[1:])
    host[1:] = host[:-1].copy()
    np.testing.assert_array_equal(gpu.download(array), host)


@pytest.mark.parametrize("rank", [9, 11])
def test_copies_of_many_axes(gpu: GpuBackend, rank: int) -> None:
    host = normal(*(2,) * rank)
    order = tuple(np.random.default_rng(0).permutation(rank))
    out = gpu.allocate(host.shape, float32)
    gpu.copy(gpu.upload(host).transpose(order), out)
    np.testing.assert_array_equal(gpu.download(out), host.transpose(order))


@pytest.mark.parametrize("source", [float32, float16, int32, bool_])
@pytest.mark.parametrize("target", [float32, float16, int32, bool_])
@pytest.mark.parametrize("turned", [False, True])
def test_casts(gpu: GpuBackend, source: Any, target: Any, turned: bool) -> None:
    host = np.array([[0, 1, 2.5], [-3.75, 100, -0.0]]).astype(source)
    array, host = gpu.upload(host), host.T if turned else host
    out = gpu.allocate(host.shape, target)
    gpu.copy(array.transpose() if turned else array, out)
    np.testing.assert_array_equal(gpu.download(out), host.astype(target))


@pytest.mark.parametrize("dtype", [float32, float16, int32, bool_])
def test_fill(gpu: GpuBackend, dtype: Any) -> None:
    for value in (0, 1, 3):
        out = gpu.allocate((5, 13), dtype)
        gpu.fill(2, out)
        gpu.fill(value, out[1:3, 2:])
        want = np.full((5, 13), 2, dtype)
        want[1:3, 2:] = value
        np.testing.assert_array_equal(gpu.download(out), want)
    large = gpu.allocate((3,), int32)
    gpu.fill(2**24 + 1, large)
    assert gpu.download(large).tolist() == [2**24 + 1] * 3


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("operation", ["sum", "max", "min", "argmax"])
def test_reductions_of_every_size(gpu: GpuBackend, operation: Any, size: int) -> None:
    host = normal(size)
    want = np.empty((), np.int32 if operation == "argmax" else np.float32)
    NUMPY.reduce(operation, host, (0,), want)
    out = new(gpu, want)
    gpu.reduce(operation, gpu.upload(host), (0,), out)
    assert_close(gpu.download(out), want, atol=1e-4)


@pytest.mark.parametrize("operation", ["sum", "max", "min"])
@pytest.mark.parametrize("axes", [(), (0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("dtype", [float32, float16, int32, bool_])
def test_reductions_over_axes(gpu: GpuBackend, operation: Any, axes: Any, dtype: Any) -> None:
    if dtype == bool_ and operation == "sum":
        return  # a sum of booleans is a sum of integers
    host = (normal(5, 70, 9) * 10).astype(dtype)
    want = np.asarray(getattr(np, operation)(host.astype(np.float64), axes)).astype(dtype)
    for view, order in (
        (host, (0, 1, 2)),
        (np.ascontiguousarray(host.transpose(2, 1, 0)), (2, 1, 0)),
    ):
        out = new(gpu, want)
        gpu.reduce(operation, gpu.upload(view).transpose(order), axes, out)
        rtol = 2e-3 if dtype == float16 else 1e-5
        assert_close(gpu.download(out).astype(float), want.astype(float), rtol, 1e-3)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((300_000,), (0,)), ((5000, 3), (0,)), ((3, 40_000), (1,)), ((2, 9000, 4), (1,)),
     ((70_000, 2), (1,))],
)  # fmt: skip
def test_reductions_in_two_stages(gpu: GpuBackend, shape: Any, axes: Any) -> None:
    host = normal(*shape)
    for operation in ("sum", "max", "argmax"):
        want = getattr(np, operation)(host, axes[0])
        want = np.asarray(want, np.int32 if operation == "argmax" else np.float32)
        results = []
        for _ in range(2):
            out = new(gpu, want)
            gpu.reduce(operation, gpu.upload(host), axes, out)
            results.append(gpu.download(out))
        np.testing.assert_array_equal(results[0], results[1])
        assert_close(results[0], want, atol=2e-3)


def test_nan_propagates_through_a_reduction(gpu: GpuBackend) -> None:
    host = np.array([[1, np.nan, 3], [-np.inf, -5, -0.0], [np.inf, 2, 1], [-2, -2, -9]], np.float32)
    for operation, want in (
        ("max", [np.nan, -0.0, np.inf, -2]),
        ("min", [np.nan, -np.inf, 1, -9]),
        ("argmax", [1, 2, 0, 0]),
    ):
        out = new(gpu, np.zeros(4, np.int32 if operation == "argmax" else np.float32))
        gpu.reduce(operation, gpu.upload(host), (1,), out)  # type: ignore[arg-type]
        np.testing.assert_array_equal(gpu.download(out), np.array(want, np.float32))


MATRICES = [
    (1, 1, 1),
    (2, 3, 4),
    (33, 65, 17),
    (64, 32, 128),
    (100, 1, 7),
    (1, 200, 5),
    (3, 129, 40),
]


@pytest.mark.parametrize(("rows", "columns", "depth"), MATRICES)
@pytest.mark.parametrize("layout", ["nn", "nt", "tn", "tt"])
def test_matmul(gpu: GpuBackend, rows: int, columns: int, depth: int, layout: str) -> None:
    a, b, bias = normal(rows, depth), normal(depth, columns, seed=1), normal(columns, seed=2)
    left, right = gpu.upload(a), gpu.upload(b)
    if layout[0] == "t":
        left = gpu.upload(np.ascontiguousarray(a.T)).transpose()
    if layout[1] == "t":
        right = gpu.upload(np.ascontiguousarray(b.T)).transpose()
    for added in (None, bias):
        want = a.astype(float) @ b + (0 if added is None else added)
        out = new(gpu, np.empty((rows, columns), np.float32))
        gpu.matmul(left, right, out, None if added is None else gpu.upload(added))
        assert_close(gpu.download(out), want, atol=4e-7 * np.sqrt(depth) * 10)


@pytest.mark.parametrize(
    ("first", "second"),
    [((3, 4, 5), (3, 5, 6)), ((3, 4, 5), (5, 6)), ((4, 5), (2, 5, 6)), ((2, 1, 4, 5), (3, 5, 6)),
     ((2, 3, 4, 5), (2, 1, 5, 6)), ((2, 1, 2, 1, 4, 5), (1, 3, 1, 2, 5, 6)), ((0, 4, 5), (5, 6)),
     ((3, 4, 0), (3, 0, 6))],
)  # fmt: skip
def test_batches_of_matrices_broadcast(gpu: GpuBackend, first: Any, second: Any) -> None:
    a, b = normal(*first), normal(*second, seed=1)
    out = new(gpu, a @ b)
    gpu.matmul(gpu.upload(a), gpu.upload(b), out)
    assert_close(gpu.download(out), a @ b)


def test_matmul_of_views_and_into_views(gpu: GpuBackend) -> None:
    a, b = normal(9, 14), normal(14, 11, seed=1)
    want = normal(20, 30, seed=2)
    out = gpu.upload(want)
    gpu.matmul(gpu.upload(a)[1:8, ::2], gpu.upload(b)[::2, 3:], out[2:9, 4:20:2])
    want[2:9, 4:20:2] = a[1:8, ::2] @ b[::2, 3:]
    assert_close(gpu.download(out), want)


def test_float16_matrices(gpu: GpuBackend) -> None:
    a, b = normal(33, 100).astype(np.float16), normal(100, 20, seed=1).astype(np.float16)
    out = gpu.allocate((33, 20), float16)
    gpu.matmul(gpu.upload(a), gpu.upload(b), out)
    want = (a.astype(np.float32) @ b.astype(np.float32)).astype(np.float16)
    assert_close(gpu.download(out).astype(float), want.astype(float), 2e-3, 1e-3)


@pytest.mark.parametrize("width", [(), (1,), (4,), (6, 2), (0,)])
@pytest.mark.parametrize("dtype", [float32, float16, int32])
def test_gather_and_scatter_add(gpu: GpuBackend, width: tuple[int, ...], dtype: Any) -> None:
    rng = np.random.default_rng(3)
    table = rng.integers(-9, 9, (13, *width)).astype(dtype)
    index = rng.integers(0, 13, (5, 40)).astype(np.int32)
    out = new(gpu, np.empty((5, 40, *width), dtype))
    gpu.gather(gpu.upload(table), gpu.upload(index), out)
    np.testing.assert_array_equal(gpu.download(out), table[index])
    source = rng.integers(-9, 9, (5, 40, *width)).astype(dtype)
    total = gpu.upload(table)
    gpu.scatter_add(gpu.upload(source), gpu.upload(index), total)
    NUMPY.scatter_add(source, index, table)
    np.testing.assert_array_equal(gpu.download(total), table)


@pytest.mark.parametrize("bad", [[0, 13], [-1, 2]])
def test_an_index_out_of_range_is_refused_before_anything_is_written(
    gpu: GpuBackend, bad: list[int]
) -> None:
    table = gpu.upload(normal(13, 2))
    uploaded = gpu.upload(np.array(bad, np.int32))
    computed = gpu.allocate((2,), int32)
    gpu.copy(uploaded, computed)
    for index in (uploaded, computed):
        out = gpu.upload(np.ones((2, 2), np.float32))
        with pytest.raises(IndexError, match=r"outside \[0, 13\)"):
            gpu.gather(table, index, out)
        with pytest.raises(IndexError, match=r"outside \[0, 13\)"):
            gpu.scatter_add(out, index, table)
        assert (gpu.download(out) == 1).all()


def test_an_uploaded_index_is_checked_without_reading_it(gpu: GpuBackend) -> None:
    index = gpu.upload(np.array([3, 1, 2, 40], np.int32))
    out = gpu.allocate((3, 2), float32)
    before = gpu.stats.bytes_down
    gpu.gather(gpu.upload(normal(41, 2)), index[:3], out)
    assert gpu.stats.bytes_down == before
    gpu.gather(gpu.upload(normal(5, 2)), index[:3], out)  # in range, but only a read can tell
    assert gpu.stats.bytes_down == before + 8
    gpu.fill(9, index)
    with pytest.raises(IndexError):
        gpu.gather(gpu.upload(normal(5, 2)), index[:3], out)


@pytest.mark.parametrize("counter", [0, 4, 2**34 - 8, 2**40])
def test_random_words_match_the_cpu(gpu: GpuBackend, counter: int) -> None:
    want, out = np.empty(1001, np.int32), gpu.allocate((1001,), int32)
    for key in (0, 2**64 - 1, 123456789 << 32 | 42):
        NUMPY.random_words(key, counter, want)
        gpu.random_words(key, counter, out)
        np.testing.assert_array_equal(gpu.download(out), want)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_first_not_finite(gpu: GpuBackend, bad: float) -> None:
    host = np.full((60, 100), 3e38, np.float32)
    assert gpu.first_not_finite(gpu.upload(host)) is None
    assert gpu.first_not_finite(gpu.upload(host[:0])) is None
    host[40, 7] = host[59, 1] = bad
    assert gpu.first_not_finite(gpu.upload(host)) == 4007
    half = gpu.upload(np.array([1, bad], np.float16))
    assert gpu.first_not_finite(half) == 1


def test_sum_of_squares(gpu: GpuBackend) -> None:
    host = normal(100_000)
    assert gpu.download(gpu.sum_of_squares(gpu.upload(host))) == pytest.approx(
        float(host.astype(float) @ host), 1e-6
    )
    assert gpu.download(gpu.sum_of_squares(gpu.upload(host[:0]))) == 0


ROWS = [(1, 1), (7, 3), (130, 10), (3, 65), (5, 600), (2, 5000)]


@pytest.mark.parametrize("shape", ROWS)
@pytest.mark.parametrize("dtype", [float32, float16])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmaxes(gpu: GpuBackend, name: FusedName, dtype: Any, shape: tuple[int, int]) -> None:
    x, g = (normal(*shape) * 5).astype(dtype), normal(*shape, seed=1).astype(dtype)
    y, back = row_kernel(NUMPY, name), row_kernel(NUMPY, GRADIENTS[name])
    forward, gradient = row_kernel(gpu, name), row_kernel(gpu, GRADIENTS[name])
    want, want_gradient = np.empty_like(x, np.float64), np.empty_like(x, np.float64)
    y(x.astype(float), want)
    out, into = new(gpu, x), new(gpu, x)
    forward(gpu.upload(x), out)
    tolerance = (1e-5, 1e-6) if dtype == float32 else (2e-3, 1e-3)
    assert_close(gpu.download(out).astype(float), want, *tolerance)
    back(gpu.download(out).astype(float), g.astype(float), want_gradient)
    gradient(out, gpu.upload(g), into)
    assert_close(
        gpu.download(into).astype(float), want_gradient, tolerance[0] * 5, tolerance[1] * 5
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("shape", ROWS)
@pytest.mark.parametrize("dtype", [float32, float16])
def test_cross_entropy(
    gpu: GpuBackend, dtype: Any, shape: tuple[int, int], smoothing: float
) -> None:
    x, g = (normal(*shape) * 5).astype(dtype), normal(shape[0], seed=1)
    targets = np.random.default_rng(2).integers(0, shape[1], shape[0]).astype(np.int32)
    loss, kept, want = np.empty(shape[0]), np.empty((shape[0], 2)), np.empty(shape)
    row_kernel(NUMPY, "cross_entropy")(x.astype(float), targets, loss, kept, smoothing)
    back = row_kernel(NUMPY, "cross_entropy_gradient")
    back(x.astype(float), targets, kept, g.astype(float), want, smoothing)
    logits, index, given = gpu.upload(x), gpu.upload(targets), gpu.upload(g)
    out, ours, apart = new(gpu, g), gpu.allocate((shape[0], 2), float32), new(gpu, x)
    row_kernel(gpu, "cross_entropy")(logits, index, out, ours, smoothing)
    assert_close(gpu.download(out), loss)
    assert_close(gpu.download(ours), kept)
    gradient = row_kernel(gpu, "cross_entropy_gradient")
    gradient(logits, index, ours, given, apart, smoothing)
    np.testing.assert_array_equal(gpu.download(logits), x)
    tolerance = (1e-5, 1e-6) if dtype == float32 else (2e-3, 1e-3)
    assert_close(gpu.download(apart).astype(float), want, *tolerance)
    gradient(logits, index, ours, given, logits, smoothing)  # over the logits
    np.testing.assert_array_equal(gpu.download(logits), gpu.download(apart))


@pytest.mark.parametrize("start", [0, 1, 6])
@pytest.mark.parametrize("columns", [1024, 1025, 1026, 1027])
@pytest.mark.parametrize("dtype", [float32, float16])
def test_cross_entropy_of_rows_that_begin_within_a_vector(
    gpu: GpuBackend, dtype: Any, columns: int, start: int
) -> None:
    """Rows are read and written in vectors of four; what lies beside them stays as it is."""
    shape = (5, columns)
    around = (normal(start + 5 * columns + 3) * 5).astype(dtype)
    x = around[start : start + 5 * columns].reshape(shape)
    x[1, 7] = -np.inf
    targets = np.array([0, columns - 1, 17, 2, 1])
    weight = np.random.default_rng(3).random(columns)
    losses, kept, want = np.empty(5), np.empty((5, 3)), np.empty(shape)
    g, options = np.ones(5), (0.1, 2, weight)
    row_kernel(NUMPY, "cross_entropy")(x.astype(float), targets, losses, kept, *options)
    back = row_kernel(NUMPY, "cross_entropy_gradient")
    back(x.astype(float), targets, kept, g, want, *options)
    whole, index = gpu.upload(around), gpu.upload(targets.astype(np.int32))
    logits = whole.view(shape, (columns, 1), whole.offset + start)
    out, ours = gpu.allocate((5,), float32), gpu.allocate((5, 3), float32)
    weights = gpu.upload(weight.astype(np.float32))
    row_kernel(gpu, "cross_entropy")(logits, index, out, ours, 0.1, 2, weights)
    assert_close(gpu.download(out), losses, 1e-5, 1e-5)
    gradient = row_kernel(gpu, "cross_entropy_gradient")
    given = gpu.upload(g.astype(np.float32))
    gradient(logits, index, ours, given, logits, 0.1, 2, weights)
    found = gpu.download(whole)
    tolerance = (1e-5, 1e-6) if dtype == float32 else (2e-3, 1e-3)
    inside = found[start : start + 5 * columns].reshape(shape)
    assert_close(inside.astype(float), want, *tolerance)
    assert (inside[3] == 0).all()  # ignored
    np.testing.assert_array_equal(found[:start], around[:start])
    np.testing.assert_array_equal(found[start + 5 * columns :], around[start + 5 * columns :])


@pytest.mark.parametrize("shape", [(5, 3), (2, 4, 3)])
def test_one_gradient_of_all_losses(gpu: GpuBackend, shape: tuple[int, ...]) -> None:
    """One number times a factor gives the same bits as an array of their product."""
    x = normal(*shape)
    others = (shape[0], *shape[2:])
    targets = np.random.default_rng(2).integers(0, shape[1], others).astype(np.int32)
    index, kept = gpu.upload(targets), gpu.allocate((*others, 2), float32)
    losses = gpu.allocate(others, float32)
    row_kernel(gpu, "cross_entropy")(gpu.upload(x), index, losses, kept)
    number, factor = np.float32(1.7), 1 / targets.size
    found = []
    one, each = np.array(number), np.full(others, number * np.float32(factor))
    for name, given in (
        ("cross_entropy_gradient", (gpu.upload(each),)),
        ("cross_entropy_spread", (gpu.upload(one), factor)),
    ):
        out = new(gpu, x)
        row_kernel(gpu, name)(gpu.upload(x), index, kept, *given, out)  # type: ignore[arg-type]
        found.append(gpu.download(out).tobytes())
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("shape", "axes"), [((33, 7), (0, 1)), ((33, 7), (1,)), ((70_000,), (0,)), ((3, 0), (1,))]
)
def test_a_scaled_sum_is_the_sum_scaled(
    gpu: GpuBackend, shape: tuple[int, ...], axes: tuple[int, ...]
) -> None:
    x = gpu.upload(normal(*shape))
    without = tuple(n for axis, n in enumerate(shape) if axis not in axes)
    sums, scaled = (gpu.allocate(without, float32) for _ in range(2))
    gpu.reduce("sum", x, axes, sums)
    row_kernel(gpu, "scaled_sum")(x, axes, 1 / 7, scaled)
    assert gpu.download(scaled).tobytes() == (gpu.download(sums) * np.float32(1 / 7)).tobytes()


NORM_SHAPES = [*ROWS, (33, 64), (70_000, 5), (9000, 130)]


@pytest.mark.parametrize("shape", NORM_SHAPES)
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_norms(gpu: GpuBackend, name: FusedName, shape: tuple[int, int]) -> None:
    x, g = normal(*shape) + 3, normal(*shape, seed=1)
    weight, bias = normal(shape[1], seed=2), normal(shape[1], seed=3)
    added = bias if name == "layer_norm" else None
    want, statistics = np.empty(shape), np.empty((shape[0], 2))
    row_kernel(NUMPY, name)(x.astype(float), weight, added, want, statistics, 1e-5)
    out, ours = new(gpu, x), gpu.allocate((shape[0], 2), float32)
    on_gpu = [None if a is None else gpu.upload(a) for a in (weight, added)]
    row_kernel(gpu, name)(gpu.upload(x), *on_gpu, out, ours, 1e-5)
    assert_close(gpu.download(out), want, atol=1e-5)
    back = np.empty(shape), np.empty(shape[1]), None if added is None else np.empty(shape[1])
    row_kernel(NUMPY, GRADIENTS[name])(x.astype(float), weight, statistics, g, *back)
    results = []
    for _ in range(2):
        into = [None if a is None else new(gpu, a.astype(np.float32)) for a in back]
        given = gpu.upload(x), on_gpu[0], ours, gpu.upload(g)
        row_kernel(gpu, GRADIENTS[name])(*given, *into)
        results.append([gpu.download(a) for a in into if a is not None])
    for first, second, exact in zip(*results, [a for a in back if a is not None], strict=True):
        np.testing.assert_array_equal(first, second)
        # For one element, or two equal ones, the gradient of a layer norm is only rounding error.
        assert_close(first, exact, 2e-5, 2e-6 * np.sqrt(shape[0]) + 2e-5)


def test_a_norm_of_rows_with_a_large_mean_keeps_its_precision(gpu: GpuBackend) -> None:
    x = np.tile(np.array([10000, 10001, 10002], np.float32), (2, 200))
    out, statistics = new(gpu, x), gpu.allocate((2, 2), float32)
    row_kernel(gpu, "layer_norm")(gpu.upload(x), None, None, out, statistics, 1e-5)
    assert_close(gpu.download(out), (x - 10001) / np.sqrt(2 / 3 + 1e-5), 1e-3, 1e-3)


def test_cross_entropy_refuses_a_target_out_of_range(gpu: GpuBackend) -> None:
    ours = row_kernel(gpu, "cross_entropy")
    out, kept = gpu.allocate((2,), float32), gpu.allocate((2, 2), float32)
    with pytest.raises(IndexError):
        ours(gpu.upload(normal(2, 3)), gpu.upload(np.array([0, 3], np.int32)), out, kept, 0.0)


def test_infinite_and_undefined_rows(gpu: GpuBackend) -> None:
    inf, nan = np.inf, np.nan
    x = np.array([[1, nan, 2], [-inf, 0, 0], [inf, 1, 2], [-inf, -inf, -inf]], np.float32)
    ours, numpy = row_kernel(gpu, "softmax"), row_kernel(NUMPY, "softmax")
    want, out = np.empty_like(x), new(gpu, x)
    numpy(x, want)
    ours(gpu.upload(x), out)
    assert_close(gpu.download(out), want)


def test_more_rows_than_a_grid_is_wide(gpu: GpuBackend) -> None:
    host = normal(70_000, 260)
    out = gpu.allocate((70_000,), float32)
    gpu.reduce("sum", gpu.upload(host), (1,), out)
    assert_close(gpu.download(out), host.sum(1), atol=1e-4)
    table = gpu.allocate(host.shape, float32)
    gpu.copy(gpu.upload(host), table)  # 71,094 workgroups
    np.testing.assert_array_equal(gpu.download(table), host)


def test_a_padding_wider_than_a_pool_is_refused_before_it_reaches_the_device(
    gpu: GpuBackend,
) -> None:
    x = tensor(np.ones((1, 1, 4, 4)), dtype="float32", backend=gpu)
    with pytest.raises(ValueError, match="more than half of the kernel"):
        avg_pool(x, 1, stride=2**30, padding=2**30)


@pytest.mark.parametrize("sizes", [[1], [1000] * 148, [3] * 10_000, [8_500_000, 3]])
def test_slot_squares_are_two_dispatches(gpu: GpuBackend, sizes: list[int]) -> None:
    """The large slot has parts larger than usual."""
    table = SlotTable(sizes)
    host = normal(table.size)
    array, out = gpu.upload(host), gpu.allocate((table.rows, 1), float32)
    gpu.cut(table)
    before = gpu.stats.dispatches
    gpu.slot_sums(array, table, out, squared=True)
    assert gpu.stats.dispatches - before == 2
    want = np.empty((table.rows, 1))
    NUMPY.slot_sums(host, table, want, squared=True)
    assert_close(gpu.download(out), want, rtol=2e-6)


@pytest.mark.parametrize("at", [0, 1])
def test_slot_squares_of_float16_and_of_a_view(gpu: GpuBackend, at: int) -> None:
    table = SlotTable([65, 3])
    host = normal(table.size + at).astype(float16)
    out = gpu.allocate((table.rows, 1), float32)
    gpu.slot_sums(gpu.upload(host)[at:], table, out, squared=True)
    want = np.empty((table.rows, 1), np.float32)
    NUMPY.slot_sums(host[at:], table, want, squared=True)
    assert_close(gpu.download(out), want, rtol=2e-6)
