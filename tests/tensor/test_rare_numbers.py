"""Numbers that are easy to get wrong: long sums, kinks, masks that hide everything."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from rumus.tensor import (
    Backend,
    DType,
    NumbaBackend,
    NumpyBackend,
    Parameter,
    Tensor,
    avg_pool,
    batch_norm,
    celu,
    convolution,
    convolution_transpose,
    elementwise,
    elu,
    gelu_tanh,
    hardtanh,
    layer_norm,
    leaky_relu,
    max_pool,
    ones,
    pad,
    rms_norm,
    scaled_dot_product_attention,
    tensor,
    zeros,
)
from rumus.tensor.backends.numba_convolution import from_columns
from rumus.tensor.backends.numba_small_convolution import (
    small_convolution,
    small_convolution_weight,
)
from rumus.tensor.memory.window import Window

LOWEST = float(np.finfo(np.float32).min)
needs_numba = pytest.mark.skipif(find_spec("numba") is None, reason="numba is not installed")


@pytest.mark.parametrize("hidden", [None, -np.inf, LOWEST, -1e9])
def test_causal_attention_never_looks_ahead(hidden: float | None, backend: Backend) -> None:
    draw = np.random.default_rng(0)
    seen = draw.random((2, 1, 6, 6)) < 0.5
    seen[:, :, :2, :2] = False  # padding on the left
    given = seen if hidden is None else np.where(seen, 0, hidden).astype(np.float32)
    mask = tensor(given, backend=backend)
    arrays = [draw.standard_normal((2, 3, 6, 4)).astype(np.float32) for _ in range(3)]

    def attended(x: list[np.ndarray]) -> np.ndarray:
        q, k, v = (tensor(a, backend=backend) for a in x)
        return scaled_dot_product_attention(q, k, v, mask=mask, causal=True).numpy()

    before = attended(arrays)
    for last in range(1, 6):
        changed = [a.copy() for a in arrays]
        for a in changed:
            a[..., last:, :] += 5
        found = attended(changed)[..., :last, :]
        np.testing.assert_array_equal(found, before[..., :last, :])
    if hidden != -1e9:
        assert not before[..., :2, :].any()  # nothing to attend to


@pytest.mark.parametrize("hidden", [-np.inf, LOWEST])
def test_a_row_hidden_by_a_floating_mask_is_zero(hidden: float, backend: Backend) -> None:
    q = Parameter(np.ones((3, 2), np.float32), backend=backend)
    mask = np.zeros((3, 3), np.float32)
    mask[1] = hidden
    y = scaled_dot_product_attention(q, q, q, mask=tensor(mask, backend=backend))
    np.testing.assert_allclose(y.numpy(), [[1, 1], [0, 0], [1, 1]], rtol=1e-6)
    assert np.isfinite(y.sum().backward()[q].numpy()).all()


# The kinds of sums in layers: biases, batch norm's statistics, several axes, views.
TALL: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "first axis": (lambda x: x.sum(0), (0,)),
    "channels": (lambda x: x.reshape(-1, 2, 5, 1).sum((0, 2, 3)).reshape(1, 2), ()),
    "turned": (lambda x: x.T.sum(1), (0,)),
    "all": (lambda x: x.sum(), (0, 1)),
    "all of a view": (lambda x: x.T.sum(), (0, 1)),
}


@pytest.mark.parametrize("kind", TALL)
@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_tall_sums_keep_their_digits(kind: str, name: str) -> None:
    rows, place = 1_000_005, NumpyBackend() if name == "numpy" else NumbaBackend()
    x = (np.random.default_rng(1).random((rows, 2)) + 100).astype(np.float32)
    function, axes = TALL[kind]
    wide = x.astype(np.float64)
    expected = wide.sum(axes) if axes else wide.reshape(-1, 2, 5).sum((0, 2)).reshape(1, 2)
    np.testing.assert_allclose(function(tensor(x, backend=place)).numpy(), expected, rtol=2e-6)


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_tall_gradients_and_variances_keep_their_digits(name: str) -> None:
    place = NumpyBackend() if name == "numpy" else NumbaBackend()
    x = (np.random.default_rng(1).random((1_000_000, 2)) + 100).astype(np.float32)
    wide, t = x.astype(np.float64), tensor(x, backend=place)
    np.testing.assert_allclose(t.var(0).numpy(), wide.var(0), rtol=2e-6)
    b = Parameter([0.0, 0.0], backend=place)
    shared = ((t * 0 + b) * t).sum().backward()[b].numpy()
    np.testing.assert_allclose(shared, wide.sum(0), rtol=2e-6)


@pytest.mark.parametrize(
    "values",
    [
        [100_000_001, 100_000_003, 100_000_007],
        [2**31 - 1, 2**31 - 3],
        [-(2**31), 2**31 - 1, 5],
        [[1_700_000_001, 3], [1_700_000_004, 7], [1_700_000_009, 9]],
    ],
)
def test_variances_of_integers_beyond_those_of_float32(values: list[Any], backend: Backend) -> None:
    given, x = np.array(values), tensor(values, backend=backend)
    for axis in (None, 0, -1):
        np.testing.assert_allclose(x.var(axis).numpy(), given.var(axis), rtol=1e-6)
        kept = x.std(axis, keepdims=True, ddof=1).numpy()
        np.testing.assert_allclose(kept, given.std(axis, keepdims=True, ddof=1), rtol=1e-6)


@pytest.mark.parametrize(
    "shape", [(1, 700, 3), (700, 1, 3), (130, 3, 131), (3, 200, 200), (65,), (200,)]
)
def test_sums_over_any_axes(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    every_other = np.repeat(x, 2, -1)[..., ::2]
    for view in (x, x[::-1], every_other, np.broadcast_to(x, (2, *shape)), np.asfortranarray(x)):
        for bits in range(1, 1 << view.ndim):
            axes = tuple(a for a in range(view.ndim) if bits >> a & 1)
            out = np.empty([n for a, n in enumerate(view.shape) if a not in axes], np.float32)
            NumpyBackend().reduce("sum", view, axes, out)
            exact = view.astype(np.float64).sum(axes)
            size = np.abs(view).astype(np.float64).sum(axes)
            assert (np.abs(out - exact) <= 1e-6 * size).all(), (view.strides, axes)


@pytest.mark.parametrize("value", [1e-20, 1e-22, 1e-25, 1e15, 1e20])
def test_the_gradient_of_a_quotient_leaves_float32_only_where_it_must(
    value: float, backend: Backend
) -> None:
    b = Parameter(np.float32(value), backend=backend)
    quotient = tensor(np.float32(value), backend=backend) / b
    assert quotient.backward()[b].item() == pytest.approx(-1 / value, rel=1e-5)


def test_a_quotient_of_nothing_by_almost_nothing(backend: Backend) -> None:
    x = Parameter([0.0, 0.0, 0.0], backend=backend)
    found = (x / ((x * x).sum() + 1e-30)).sum().backward()[x].numpy()
    np.testing.assert_allclose(found, [1e30] * 3, rtol=1e-5)


EXTREMES: dict[str, Callable[[Tensor], Tensor]] = {
    "max": lambda x: x.max(0),
    "min": lambda x: x.min(0),
    "maximum": lambda x: x.maximum(0.0).sum(),
    "minimum": lambda x: x.minimum(0.0).sum(),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_the_gradient_of_an_extreme_that_is_nan_is_not_zero(name: str, backend: Backend) -> None:
    w = Parameter([np.nan, 2.0], backend=backend)
    assert np.isnan(EXTREMES[name](w).backward()[w].numpy()[0])


def test_numbers_of_numpy_are_sizes_and_axes() -> None:
    x = ones((2, 3))
    assert x.reshape(np.prod((2, 3))).shape == (6,)  # type: ignore[arg-type]
    assert x.sum(np.int64(1)).tolist() == [3.0, 3.0]  # type: ignore[arg-type]
    first, last = np.int32(0), np.int64(1)
    assert x.transpose(first, last).shape == (3, 2)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        x.sum(1.0)  # type: ignore[arg-type]


@needs_numba
def test_a_transposed_convolution_between_strides_stays_in_its_arrays() -> None:
    draw = np.random.default_rng(0)
    x = draw.standard_normal((3, 2, 5, 4)).astype(np.float32)
    w = draw.standard_normal((2, 4, 3, 3)).astype(np.float32)
    for dilation in (2, 3):
        for extra in range(dilation):
            results = []
            for place in (NumpyBackend(), NumbaBackend()):
                a, b = Parameter(x, backend=place), Parameter(w, backend=place)
                y = convolution_transpose(a, b, dilation=dilation, output_padding=extra)
                store = (y * y).sum().backward()
                results.append((y.numpy(), store[a].numpy(), store[b].numpy()))
            for numpy, numba in zip(*results, strict=True):
                np.testing.assert_allclose(numba, numpy, rtol=1e-4, atol=1e-4)


def guarded(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Zeros of `shape`, and the memory around them, which nothing may write to."""
    size = int(np.prod(shape))
    memory = np.full(size + 2048, 777, np.float32)
    inside = memory[1024 : 1024 + size].reshape(shape)
    inside[...] = 0
    return inside, memory


@needs_numba
def test_compiled_convolutions_write_inside_their_arrays_or_refuse() -> None:
    draw = np.random.default_rng(4)
    ran = refused = 0
    for _ in range(300):
        kernel, padding = (tuple(map(int, draw.integers(*r, 2))) for r in ((1, 4), (0, 3)))
        window = Window(kernel, (1, 1), padding, tuple(map(int, draw.integers(1, 4, 2))))
        batch, inputs, outputs = map(int, draw.integers(1, 4, 3))
        lengths = tuple(map(int, draw.integers(1, 9, 2)))
        places = window.places(lengths)
        if 0 in places:
            continue
        off = tuple(map(int, draw.integers(0, 2, 2)))  # what an output_padding would add
        x = np.ones((batch, inputs, *lengths), np.float32)
        shape = (batch, outputs, *(n + o for n, o in zip(places, off, strict=True)))
        weight = np.ones((outputs, inputs, *kernel), np.float32)
        columns = np.ones((inputs, *kernel, batch, *places), np.float32)
        gradient = np.ones(shape, np.float32)
        loops: list[tuple[Callable[[np.ndarray], None], tuple[int, ...]]] = [
            (partial(small_convolution, window, x, weight, None), shape),
            (partial(small_convolution_weight, window, x, gradient), weight.shape),
            (partial(from_columns, window, columns), x.shape),
        ]
        for run, into in loops:
            out, memory = guarded(into)
            try:
                run(out)
                ran += 1
            except ValueError:
                refused += 1
            assert (memory[:1024] == 777).all()
            assert (memory[1024 + out.size :] == 777).all()
    assert ran > 200
    assert refused > 100


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    ("first", "second"),
    [((0, 0, 3), (3, 2)), ((2, 0, 3), (3, 2)), ((0, 2, 0), (0, 3)), ((2, 3, 0), (0, 4)),
     ((1, 3, 0), (0,)), ((3, 3, 0, 33), (33, 0)), ((0,), (0,)), ((0, 4), (4, 0))],
)  # fmt: skip
def test_products_of_nothing(first: tuple[int, ...], second: tuple[int, ...], dtype: type) -> None:
    a: Any = np.ones(first, dtype)
    b: Any = np.ones(second, dtype)
    places = [NumpyBackend(), *([NumbaBackend()] if find_spec("numba") else [])]
    for place in places:
        x, y = Parameter(a, backend=place), Parameter(b, backend=place)
        product = x @ y
        np.testing.assert_array_equal(product.numpy(), np.matmul(a, b))
        gradients = product.sum().backward()
        assert not gradients[x].numpy().any()
        assert not gradients[y].numpy().any()


def test_flatten_needs_an_existing_axis() -> None:
    x = ones((2, 3, 4))
    assert [x.flatten(start).shape for start in (0, 1, 2, -1, -2)] == [
        (24,), (2, 12), (2, 3, 4), (2, 3, 4), (2, 12),
    ]  # fmt: skip
    assert tensor(2.0).flatten().shape == (1,)
    for start in (3, 5, -4):
        with pytest.raises(IndexError, match=f"flatten: axis {start}"):
            x.flatten(start)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("shape", [(1, 1, 6), (1, 1, 2, 3), (1, 1, 1, 2, 3)])
def test_the_gradient_of_a_pool_that_is_nan_is_nan_at_the_first(
    shape: tuple[int, ...], dtype: type, backend: Backend
) -> None:
    x: Any = np.array([1, np.nan, 2, np.nan, 3, 0], dtype).reshape(shape)
    p = Parameter(x, backend=backend)
    y = max_pool(p, shape[2:])
    assert np.isnan(y.numpy()).all()
    found = y.sum().backward()[p].numpy().reshape(-1)
    np.testing.assert_array_equal(found, [0, np.nan, 0, 0, 0, 0])


def test_an_infinite_gradient_of_a_pool_stays_with_its_element(backend: Backend) -> None:
    for shape in ((1, 1, 4), (1, 1, 1, 1, 4)):
        p = Parameter(np.array([1, 2, 0, 3], np.float32).reshape(shape), backend=backend)
        y = max_pool(p, (1,) * (len(shape) - 3) + (2,))
        found = (y * np.inf).sum().backward()[p].numpy().reshape(-1)
        np.testing.assert_array_equal(found, [0, np.inf, 0, np.inf])


def test_numbers_and_rows_of_nothing_have_results(backend: Backend) -> None:
    number = Parameter(2.0, backend=backend)
    assert pad(number, []).tolist() == 2.0
    assert pad(number, []).backward()[number].item() == 1.0
    assert number.softmax().item() == 1.0
    assert number.log_softmax().item() == 0.0
    assert number.softmax().backward()[number].item() == 0.0
    for shape in ((0,), (3, 0), (0, 3)):
        x = Parameter(np.ones(shape, np.float32), backend=backend)
        assert x.softmax(0).shape == x.log_softmax(-1).shape == shape
        assert x.softmax(-1).sum().backward()[x].shape == shape
    line = tensor([1.0, 2.0], backend=backend)
    assert line.T.tolist() == [1.0, 2.0]
    assert number.T.shape == ()


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_convolution_of_no_pictures_has_gradients_of_0(axes: int, backend: Backend) -> None:
    for groups in (1, 2):
        x = Parameter(np.ones((0, 2, *(5,) * axes), np.float32), backend=backend)
        for function, shape in (
            (convolution, (4, 2 // groups)), (convolution_transpose, (2, 4 // groups))
        ):  # fmt: skip
            w = Parameter(np.ones((*shape, *(3,) * axes), np.float32), backend=backend)
            b = Parameter(np.ones(4, np.float32), backend=backend)
            grads = function(x, w, b, groups=groups).sum().backward()
            for parameter in (x, w, b):
                np.testing.assert_array_equal(grads[parameter].numpy(), parameter.numpy() * 0)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (2, 0, 3, 4), (2, 2, 0, 4), (0, 0, 0, 1)])
def test_attention_of_nothing(shape: tuple[int, ...], causal: bool, backend: Backend) -> None:
    x = Parameter(np.ones(shape, np.float32), backend=backend)
    y = scaled_dot_product_attention(x, x, x, causal=causal)
    assert y.shape == shape
    assert y.sum().backward()[x].shape == shape


def test_a_number_beyond_int32_is_refused(backend: Backend) -> None:
    x = tensor([1, 2], backend=backend)
    refused: list[Callable[[], Tensor]] = [lambda: x + 2**31, lambda: 2**40 - x, lambda: x * 2**31]
    for call in refused:
        with pytest.raises(OverflowError, match="does not fit int32; convert the tensor to float"):
            call()
    assert (x / 2**40).tolist() == [2**-40, 2**-39]
    assert (x + (2**31 - 3)).tolist() == [2**31 - 2, 2**31 - 1]
    assert (x * 1e10).tolist() == [np.float32(1e10), np.float32(2e10)]


def test_one_row_the_other_way_round_is_a_row(backend: Backend) -> None:
    x = Parameter([[1.0, 2.0]], backend=backend)
    y = x[::-1] @ tensor([[1.0], [3.0]], backend=backend)
    assert y.tolist() == [[7.0]]
    assert y.sum().backward()[x].tolist() == [[1.0, 3.0]]
    assert (x[::-1, :1] + x[::-1, ::-1]).tolist() == [[3.0, 2.0]]


def test_an_axis_is_an_integer() -> None:
    with pytest.raises(TypeError, match=r"softmax: axis must be a whole number, not \(0, 1\)"):
        ones((2, 3)).softmax((0, 1))  # type: ignore[arg-type]
    with pytest.raises(IndexError, match="softmax: axis 1 does not exist in a tensor with 0 axes"):
        tensor(2.0).softmax(1)


@pytest.mark.parametrize("stride", [None, 2])
def test_pools_of_tiles_are_means(stride: int | None, backend: Backend) -> None:
    """Of a large window, and of the remainder next to the last one."""
    x = np.random.default_rng(5).normal(size=(2, 3, 67, 41)).astype(np.float32)
    p = Parameter(x, backend=backend)
    y = avg_pool(p, (33, 40), stride=None if stride is None else (33, 40))
    exact = x[:, :, :66, :40].reshape(2, 3, 2, 33, 40).mean((3, 4))[..., None]
    np.testing.assert_allclose(y.numpy(), exact, atol=1e-6)
    share = np.zeros_like(x)
    share[:, :, :66, :40] = 1 / (33 * 40)
    np.testing.assert_allclose(y.sum().backward()[p].numpy(), share, rtol=1e-5)


@pytest.mark.parametrize("size", [1e-38, 1e-25, 1e-3, 1e20, 1e37])
def test_a_deviation_is_exact_where_its_square_is_no_number(size: float, backend: Backend) -> None:
    x: Any = (np.random.default_rng(3).standard_normal((4, 9)) * size).astype(np.float32)
    wide = x.astype(np.float64)
    for axis, keepdims in ((None, False), (1, True), ((0, 1), True), (0, False)):
        for ddof in (0, 1):
            p = Parameter(x, backend=backend)
            y = p.std(axis, keepdims, ddof)
            exact = wide.std(axis, ddof=ddof, keepdims=keepdims)
            np.testing.assert_allclose(y.numpy(), exact, rtol=1e-5)
            # The gradient of std: (x - mean) / ((n - ddof) std).
            whole = wide.std(axis, ddof=ddof, keepdims=True)
            count = x.size // whole.size - ddof
            slope = (wide - wide.mean(axis, keepdims=True)) / (count * whole)
            found = y.sum().backward()[p].numpy()
            np.testing.assert_allclose(found, slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 8), (2, 3, 5), (40, 512)])
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm", "batch_norm"])
def test_a_norm_of_squares_that_overflow_is_not_0(
    name: str, shape: tuple[int, ...], backend: Backend
) -> None:
    """NaN is seen by the look for bad gradients; 0 would go on silently, with gradients of 0."""
    x = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    x[1] *= np.float32(1e25)  # the second row; of every channel
    p = Parameter(x, backend=backend)
    channels = shape[1] if name == "batch_norm" else shape[-1]
    weight = Parameter(np.ones(channels, np.float32), backend=backend)
    if name == "batch_norm":
        y, _, _ = batch_norm(p, weight, zeros((channels,), backend=backend))
    else:
        y = (layer_norm if name == "layer_norm" else rms_norm)(p, weight)
    bad = slice(None) if name == "batch_norm" else 1
    assert np.isnan(y.numpy()[bad]).all()
    gradients = (y * y).sum().backward()
    assert np.isnan(gradients[p].numpy()[bad]).all()
    assert np.isnan(gradients[weight].numpy()).all()
    if name != "batch_norm":
        for other in (y, gradients[p]):
            assert np.isfinite(other.numpy()[0]).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_batch_norm_of_half_precision_adds_in_single(
    dtype: type[np.floating[Any]], backend: Backend
) -> None:
    """The sum of 2,000 numbers around 100 leaves float16, and so do their squares."""
    draw = np.random.default_rng(0)
    x = (draw.normal(size=(400, 3, 5)) * 50 + 100).astype(np.float16)
    p = Parameter(x, backend=backend)
    scale = Parameter(np.array([0.5, 1, 2], dtype), backend=backend)
    y, total, squares = batch_norm(p, scale, zeros((3,), dtype=dtype, backend=backend))
    wide = x.astype(np.float64)
    mean, var = (getattr(wide, of)((0, 2), keepdims=True) for of in ("mean", "var"))
    right = (wide - mean) / np.sqrt(var) * np.array([[0.5], [1], [2]])
    np.testing.assert_allclose(y.numpy(), right, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(total.numpy(), wide.sum((0, 2)), rtol=1e-5)
    np.testing.assert_allclose(squares.numpy(), 2000 * var.ravel(), rtol=1e-5)
    assert [str(t.dtype) for t in (y, total, squares)] == ["float16", "float32", "float32"]
    gradients = (y * tensor(right.astype(np.float16), backend=backend)).sum().backward()
    assert gradients[p].dtype == np.float16
    wanted = (right * right).sum((0, 2)) / [0.5, 1, 2]
    np.testing.assert_allclose(gradients[scale].numpy(), wanted, rtol=1e-2)


def test_a_deviation_of_a_fraction_less_is_refused() -> None:
    for ddof in (0.5, float("nan"), None):
        wrong: Any = ddof
        for name in ("var", "std"):
            with pytest.raises(TypeError, match=f"{name}: ddof must be a whole number, not"):
                getattr(ones((3,)), name)(ddof=wrong)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 8, 33])
def test_the_gradient_of_a_product_is_that_of_the_others(length: int, backend: Backend) -> None:
    x = np.random.default_rng(length).normal(size=(2, length, 3)).astype(np.float32)
    x[0, 0, 0] = x[1, -1, 1] = x[1, 0, 1] = 0
    wide = x.astype(np.float64)
    for axis in (1, (0, 1), (1, 2), 0, None, ()):
        p = Parameter(x, backend=backend)
        found = p.prod(axis).sum().backward()[p].numpy()
        axes = tuple(range(3)) if axis is None else (axis,) if isinstance(axis, int) else axis
        for place in np.ndindex(*x.shape):
            other = wide.copy()
            other[place] = 1
            where = tuple(slice(None) if a in axes else n for a, n in enumerate(place))
            assert found[place] == pytest.approx(other[where].prod(), rel=2e-5, abs=1e-30)


@pytest.mark.parametrize(
    ("factors", "gradient"),
    [
        ([1e20, 1e20, 1e-30, 3], [3e-10, 3e-10, np.inf, 1e10]),
        ([1e20, 1e20, 1e20, 1e-30, 1e-30], [1e-20, 1e-20, 1e-20, 1e30, 1e30]),
        ([1e-30, 1e-30, 1e30, -1e30], [-1e30, -1e30, -1e-30, 1e-30]),
        ([1e30, 1e30, 0, 0], [0, 0, 0, 0]),
        ([1e20, 1e20, 1e-20, 1e-20, 2, 0], [0, 0, 0, 0, 0, 2]),
        ([1e-30] * 40 + [1e30] * 40, [1e30] * 40 + [1e-30] * 40),
        ([np.inf, 1e30, 1e30, 1e-30], [1e30, np.inf, np.inf, np.inf]),
    ],
)
def test_the_gradient_of_a_product_that_leaves_the_dtype_on_the_way(
    factors: list[float], gradient: list[float], backend: Backend
) -> None:
    p = Parameter(np.array([factors, [1.0] * len(factors)], np.float32), backend=backend)
    found = p.prod(1).sum().backward()[p].numpy()
    np.testing.assert_allclose(found, [gradient, [1.0] * len(factors)], rtol=1e-5)


def test_the_gradient_of_a_product_of_float64_that_leaves_it_on_the_way() -> None:
    p = Parameter(tensor(np.array([1e200, 1e200, 1e-300, 3.0]), dtype=np.float64))
    np.testing.assert_allclose(p.prod().backward()[p].numpy(), [3e-100, 3e-100, np.inf, 1e100])


def test_the_gradient_of_a_product_that_is_no_number(backend: Backend) -> None:
    rows = [[1e-30, 1e-30, 1e30], [1e30, 1e30, 1e-30], [np.inf, 1, 2], [0, 1e30, 1e30], [0, 2, 3]]
    p = Parameter(np.array(rows, np.float32), backend=backend)
    found = p.prod(1).sum().backward()[p].numpy()
    exact: Any = [[1, 1, 0], [1, 1, np.inf], [2, np.inf, np.inf], [np.inf, 0, 0], [6, 0, 0]]
    np.testing.assert_allclose(found, exact, rtol=1e-5)


def test_a_norm_that_is_infinite_has_no_gradient_of_0(backend: Backend) -> None:
    for order in (0.5, 2, 3):
        p = Parameter(np.full((2, 3), 3e38, np.float32), backend=backend)
        y = p.norm(order, axis=1)
        assert (y.numpy() == np.inf).all()
        assert np.isnan(y.sum().backward()[p].numpy()).all()


@pytest.mark.parametrize("shape", [(1, 1, 4), (1, 1, 4, 4), (1, 1, 2, 4, 4)])
def test_padding_takes_no_gradient_of_a_pool_of_nothing_but_infinity(
    shape: tuple[int, ...], backend: Backend
) -> None:
    for dtype in (np.float16, np.float32):
        for number in (-np.inf, np.finfo(dtype).min, np.finfo(dtype).max, np.inf):
            x: Any = np.full(shape, number, dtype)
            p = Parameter(x, dtype=dtype, backend=backend)
            y = max_pool(p, 2, padding=1)
            found = y.astype(np.float32).sum().backward()[p].numpy()
            assert found.sum() == np.prod([n // 2 + 1 for n in shape[2:]])


@pytest.mark.parametrize("dtype", ["float16", "float32", "widest"])
@pytest.mark.parametrize("sizes", [(2,), (3,), (40,), (2, 2), (3, 2), (8, 9), (40, 30), (2, 1, 3)])
def test_the_mean_of_a_pool_fits_where_its_numbers_do(
    sizes: tuple[int, ...], dtype: str, backend: Backend, widest: DType
) -> None:
    """Also where their sum does not: each is divided before it is added."""
    kind = widest if dtype == "widest" else np.dtype(dtype)
    largest = float(np.finfo(kind).max) * 0.9
    parts = np.random.default_rng(6).choice([0.5, 1.0], (1, 2, *sizes))
    x = (np.concatenate([parts, -parts], 2) * largest).astype(kind)
    exact = (x.astype(np.longdouble) / math.prod(sizes)).reshape(2, 2, -1).sum(-1)
    for stride, padding in ((None, 0), (1, 0), (1, tuple(n // 2 for n in sizes))):
        p = Parameter(x, dtype=kind, backend=backend)
        y = avg_pool(p, sizes, stride=stride, padding=padding)
        assert np.isfinite(y.numpy()).all()
        if stride is None:
            means = y.numpy().reshape(2, 2).astype(np.longdouble)
            np.testing.assert_allclose(means, exact, rtol=1e-3 if dtype == "float16" else 1e-5)
        given = tensor(np.full(y.shape, largest / 2, kind), dtype=kind, backend=backend)
        assert np.isfinite((y * given).sum().backward()[p].numpy()).all()


def test_integers_of_any_number(backend: Backend, widest: DType) -> None:
    """Without the fraction; the nearest integer beyond int32, and 0 for NaN."""
    last = [2147483647.5, -2147483648.5] if widest == np.float64 else []
    x = np.array(
        [np.nan, np.inf, -np.inf, 3e38, -3e38, 2.0**31, -(2.0**31), 2.0**31 - 128, 4e9, -4e9,
         1.9, -1.9, 0.5, -0.5, 1e-40, -0.0, *last], widest
    )  # fmt: skip
    exact = [0 if v != v else int(max(-(2**31), min(2**31 - 1, v))) for v in x.tolist()]
    for copies in (1, 20_001):
        many = tensor(np.tile(x, copies), dtype=widest, backend=backend)
        assert many.astype(np.int32).numpy()[-len(x) :].tolist() == exact
        across = many.reshape(copies, -1).T.astype(np.int32)  # not in the order of memory
        assert across.numpy()[:, -1].tolist() == exact
    half = tensor(np.array([np.nan, np.inf, -np.inf, 65504, 1.9], np.float16), backend=backend)
    assert half.astype(np.int32).tolist() == [0, 2**31 - 1, -(2**31), 65504, 1]


@pytest.mark.parametrize("number", [2**31, 2**40, 2**2000, -(2**31) - 1, -(2**2000)])
def test_every_integer_is_on_one_side_of_a_number_beyond_them(
    number: int, backend: Backend
) -> None:
    for x in (tensor([2**31 - 1, 0, -(2**31)], backend=backend), tensor([True], backend=backend)):
        below = [number > 0] * x.size
        above = [number < 0] * x.size
        assert (x < number).tolist() == (x <= number).tolist() == (number > x).tolist() == below
        assert (x > number).tolist() == (x >= number).tolist() == (number < x).tolist() == above
        assert not (x == number).numpy().any()
        assert (x != number).numpy().all()


def test_a_negative_power_of_integers_is_refused(backend: Backend) -> None:
    with pytest.raises(ValueError, match=r"pow: int32 to the power of -2 is no int32: use x"):
        tensor([1, 2], backend=backend) ** -2
    assert (tensor([1, 2], backend=backend) ** -2.0).tolist() == [1.0, 0.25]


@pytest.mark.parametrize(
    ("function", "name", "value", "message"),
    [
        (elu, "alpha", np.nan, "elu: alpha must be finite, not nan"),
        (elu, "alpha", np.inf, "elu: alpha must be finite, not inf"),
        (celu, "alpha", np.nan, "celu: alpha must be finite and positive, not nan"),
        (celu, "alpha", 0.0, "celu: alpha must be finite and positive, not 0.0"),
        (leaky_relu, "slope", np.nan, "leaky_relu: slope must be finite, not nan"),
        (leaky_relu, "slope", -np.inf, "leaky_relu: slope must be finite, not -inf"),
        (hardtanh, "low", np.nan, "hardtanh: low must be a number, not nan"),
        (hardtanh, "high", np.nan, "hardtanh: high must be a number, not nan"),
        (elu, "alpha", None, "elu: alpha must be a number, not None"),
        (hardtanh, "high", "1", "hardtanh: high must be a number, not '1'"),
    ],
)
def test_settings_that_are_no_numbers_are_refused(
    function: Callable[..., Tensor], name: str, value: Any, message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        function(ones((2,)), **{name: value})


def test_a_limit_may_be_infinite(backend: Backend) -> None:
    x = tensor([-3.0, 0.5, 3.0], backend=backend)
    assert hardtanh(x, high=np.inf).tolist() == [-1.0, 0.5, 3.0]
    assert hardtanh(x, low=-np.inf).tolist() == [-3.0, 0.5, 1.0]


def test_a_scalar_of_a_kernel_is_not_none() -> None:
    function: Any = elementwise(lambda x, *, s=1.0: x * s)
    with pytest.raises(TypeError, match="s must be a number, not None"):
        function(ones((2,)), s=None)


@pytest.mark.parametrize(
    "data", [1e5, np.float32(1e5), np.float64(1e5), [1e5, 1.0], np.array([1e5, 1.0]), 10**5]
)
def test_data_that_does_not_fit_is_not_assigned(data: Any, backend: Backend) -> None:
    """As docs/numbers.md says; a tensor is a result, which is converted."""
    x = ones((2, 2), dtype=np.float16, backend=backend)
    for write in (lambda: x.__setitem__(0, data), lambda: x.assign(data)):
        with pytest.raises(OverflowError, match=r"a number of magnitude 1.* does not fit float16"):
            write()
    np.testing.assert_array_equal(x.numpy(), np.ones((2, 2)))


def test_a_tensor_that_does_not_fit_is_assigned_as_it_is_cast(backend: Backend) -> None:
    x = ones((2, 2), dtype=np.float16, backend=backend)
    y = tensor([200.0, -1.0], backend=backend) * tensor([500.0, 1.0], backend=backend)
    x[0] = y
    np.testing.assert_array_equal(x.numpy(), [[np.inf, -1], [1, 1]])
    x.assign(-y)
    np.testing.assert_array_equal(x.numpy(), [[-np.inf, 1]] * 2)
    np.testing.assert_array_equal(x[0].numpy(), (-y).astype(np.float16).numpy())
    x[1] = tensor([1e5, 2.0], backend=backend)
    np.testing.assert_array_equal(x[1].numpy(), [np.inf, 2])


def test_the_tail_of_gelu_tanh_keeps_its_digits(backend: Backend) -> None:
    """1 + tanh(u) would cancel: far below 0 it had no correct digit."""
    x = np.linspace(-7, 7, 281).astype(np.float32)
    exact = x.astype(np.float64)
    u = math.sqrt(2 / math.pi) * (exact + 0.044715 * exact**3)
    wanted = exact / (1 + np.exp(-2 * u))
    found = gelu_tanh(tensor(x, backend=backend)).numpy()
    np.testing.assert_allclose(found, wanted, rtol=2e-5)
