"""The elementwise operations: accuracy against float64, odd values, layouts, dtypes, aliases."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rumus.gpu import GpuBackend, default_backend
from rumus.gpu.device.stored import stored_types
from rumus.gpu.elementwise import wgsl
from rumus.tensor import Expr, Kernel, NumpyBackend, bool_, float16, float32, int32, tensor
from rumus.tensor.expression.expr import OPERATIONS

Real = NDArray[Any]
INF, NAN = math.inf, math.nan
ERF = np.vectorize(math.erf)

# Operation -> the same in float64, the interval, and the allowed error in units in the last place.
FUNCTIONS: Final[dict[str, tuple[Callable[[Real], Real], tuple[float, float], float]]] = {
    "exp": (np.exp, (-85, 88), 4),
    "log": (np.log, (1e-30, 1e30), 6),
    "log1p": (np.log1p, (-0.99, 1e6), 8),
    "expm1": (np.expm1, (-20, 80), 8),
    "sqrt": (np.sqrt, (0, 1e30), 4),
    "tanh": (np.tanh, (-30, 30), 8),
    "erf": (lambda x: ERF(x), (-5, 5), 8),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), (-80, 80), 8),
    "softplus": (lambda x: np.logaddexp(x, 0), (-80, 80), 8),
    "sign": (np.sign, (-2, 2), 0),
    "relu": (lambda x: np.maximum(x, 0), (-2, 2), 0),
}


def apply(gpu: GpuBackend, name: str, x: Real) -> Real:
    return tensor(x, backend=gpu)._apply(name, tensor(x, backend=gpu)).numpy().astype(float)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_accuracy(gpu: GpuBackend, name: str) -> None:
    function, (low, high), units = FUNCTIONS[name]
    near = np.geomspace(1e-30, 1, 2000)
    x = np.concatenate([np.linspace(low, high, 20_000), near, -near])
    x = x[(x >= low) & (x <= high)].astype(np.float32)
    want = function(x.astype(float))
    error = np.abs(apply(gpu, name, x) - want)
    scale = np.maximum(np.abs(want), float(np.finfo(np.float32).tiny))
    assert (error / scale).max() <= units * 2.0**-23


@pytest.mark.parametrize(("name", "function"), [("sin", np.sin), ("cos", np.cos)])
def test_sines_are_exact_to_a_unit_of_one(gpu: GpuBackend, name: str, function: Any) -> None:
    x = np.linspace(-10_000, 10_000, 100_001).astype(np.float32)
    assert np.abs(apply(gpu, name, x) - function(x.astype(float))).max() < 4e-7


@pytest.mark.parametrize("exponent", [-3, -1, -0.5, 0, 0.5, 1, 2.5, 3, 7])
def test_powers(gpu: GpuBackend, exponent: float) -> None:
    x = np.concatenate([np.linspace(-8, 8, 1000), [1, -1, 1e-3, 1e3]]).astype(np.float32)
    with np.errstate(invalid="ignore"):
        want = x.astype(float) ** exponent
    found = (tensor(x, backend=gpu) ** exponent).numpy()
    np.testing.assert_allclose(found, want, rtol=3e-6)


ODD = np.array([NAN, INF, -INF, 0.0, -0.0, 3.4e38, -3.4e38, 1.0, -1.0], np.float32)


@pytest.mark.parametrize("name", [*FUNCTIONS, "abs"])
def test_values_at_the_ends(gpu: GpuBackend, name: str) -> None:
    want = np.empty_like(ODD)
    kernel = Kernel(name, {"out": Expr.array("a")._apply(name, Expr.array("a"))})
    NumpyBackend().elementwise(kernel, (ODD,), (), (want,))
    found = apply(gpu, name, ODD)
    np.testing.assert_allclose(found, want, rtol=1e-6)


def test_comparisons_with_nan_are_false(gpu: GpuBackend) -> None:
    pairs = np.array([(a, b) for a in ODD for b in ODD], np.float32)
    a, b = (tensor(pairs[:, i].copy(), backend=gpu) for i in range(2))
    with np.errstate(invalid="ignore"):
        x, y = pairs[:, 0], pairs[:, 1]
        for found, want in (
            (a < b, x < y),
            (a <= b, x <= y),
            (a == b, x == y),
            (a > b, x > y),
            (a != b, x != y),
            (a.maximum(b), np.maximum(x, y)),
            (a.minimum(b), np.minimum(x, y)),
            (a.clip(-1.0, 1.0), np.clip(x, -1, 1)),
            ((a < b).where(a, b), np.where(x < y, x, y)),
            (a.astype("bool"), x.astype(bool)),
        ):
            np.testing.assert_array_equal(found.numpy(), want)


def test_integers(gpu: GpuBackend) -> None:
    draw = np.random.default_rng(0)
    x, y = (draw.integers(-(2**31), 2**31, 1000).astype(np.int32) for _ in range(2))
    a, b = tensor(x, backend=gpu), tensor(y, backend=gpu)
    for found, want in (
        (a + b, x + y),
        (a * b, x * y),
        (a - 7, x - 7),
        (-a, -x),
        (a < b, x < y),
        (a == a, x == x),
        (a.maximum(b), np.maximum(x, y)),
        (a.relu(), np.maximum(x, 0)),
        (a.sign(), np.sign(x)),
        (a**3, x**3),
        ((a < b).where(a, b), np.where(x < y, x, y)),
    ):
        np.testing.assert_array_equal(found.numpy(), want)


SHAPES = st.lists(st.integers(1, 6), min_size=0, max_size=4)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_layouts_and_dtypes_combine(data: st.DataObject) -> None:
    """Inputs of any dtype that broadcast, from views of any kind, into a view of any kind."""
    gpu, numpy = default_backend(), NumpyBackend()
    shape = tuple(data.draw(SHAPES))
    kernel = Kernel("mixed", {"out": Expr.array("a") * 2 + Expr.array("b").maximum(0)}, ("a", "b"))
    hosts, arrays = [], []
    for number in range(2):
        dtype = data.draw(st.sampled_from([float32, float16, int32, bool_]))
        own = [data.draw(st.sampled_from([1, n])) for n in shape][
            data.draw(st.integers(0, len(shape))) :
        ]
        host = np.random.default_rng(number).integers(-9, 9, [n + 1 for n in own]).astype(dtype)
        array = gpu.upload(host)
        key = tuple(
            data.draw(st.sampled_from([slice(0, n), slice(1, n + 1), slice(n, 0, -1)])) for n in own
        )
        order = tuple(data.draw(st.permutations(range(len(own)))))
        inverse = tuple(np.argsort(order).astype(int).tolist())
        turned = gpu.upload(np.ascontiguousarray(host.transpose(order))).transpose(inverse)
        arrays.append(data.draw(st.sampled_from([array, turned]))[key])
        hosts.append(host[key])
    result = kernel.types((hosts[0].dtype, hosts[1].dtype)).results[0]
    want = np.zeros([n + 2 for n in shape], result)
    out = gpu.upload(want)
    inner = tuple(data.draw(st.sampled_from([slice(0, n), slice(2, n + 2)])) for n in shape)
    numpy.elementwise(kernel, hosts, (), (want[inner] if inner else want,))
    gpu.elementwise(kernel, arrays, (), (out[inner] if inner else out,))
    np.testing.assert_array_equal(gpu.download(out), want)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 255, 256, 257, 1023])
def test_memory_after_an_output_is_left_alone(gpu: GpuBackend, size: int) -> None:
    flat = gpu.upload(np.full(2048, 7, np.float32))
    kernel = Kernel("add one", {"a": Expr.array("a") + 1.0}, ("a",))
    part = flat[256 : 256 + size]
    gpu.elementwise(kernel, (part,), (), (part,))
    want = np.full(2048, 7, np.float32)
    want[256 : 256 + size] = 8
    np.testing.assert_array_equal(gpu.download(flat), want)


def test_inputs_and_outputs_in_one_buffer(gpu: GpuBackend) -> None:
    """Slots of one arena: read here, written there."""
    flat = gpu.upload(np.arange(512, dtype=np.float32))
    kernel = Kernel("sum", {"out": Expr.array("a") + Expr.array("b")}, ("a", "b"))
    gpu.elementwise(kernel, (flat[:64], flat[64:128]), (), (flat[256:320],))
    gpu.reduce("sum", flat[:128], (0,), flat[384:385].reshape(()))
    gpu.matmul(flat[:64].reshape(8, 8), flat[64:128].reshape(8, 8), flat[448:].reshape(8, 8))
    host = np.arange(512, dtype=np.float32)
    host[256:320] = host[:64] + host[64:128]
    host[384] = host[:128].sum()
    host[448:] = (host[:64].reshape(8, 8) @ host[64:128].reshape(8, 8)).reshape(-1)
    np.testing.assert_array_equal(gpu.download(flat), host)


def test_every_operation_is_known() -> None:
    assert set(wgsl.OPERATIONS) == set(OPERATIONS)
    assert set(wgsl.INTEGERS) < set(OPERATIONS)


def test_rounding_to_float16_where_it_is_stored_as_float32(gpu: GpuBackend) -> None:
    """To nearest, ties to even, like NumPy, bit for bit, whatever the driver's conversions do."""
    backend = GpuBackend(gpu.gpu)
    backend._stored = stored_types(False)
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = np.sort(every[np.isfinite(every)].astype(np.float32))
    ties = (finite[1:] + finite[:-1]) / 2
    draw = np.random.default_rng(3).integers(1 << 32, size=200_000, dtype=np.uint32)
    others = draw.view(np.float32)  # float32 subnormals are 0 on some devices, and here too
    edges = np.array(
        [65519.9, 65520, 65536, 1e30, INF, -INF, NAN, 2**-25, 2**-26, -0.0], np.float32
    )
    x = np.concatenate([finite, ties, np.nextafter(ties, INF), np.nextafter(ties, -INF),
                        others, edges]).astype(np.float32)  # fmt: skip
    found = tensor(x, backend=backend).astype(float16).numpy()
    with np.errstate(over="ignore"):
        want = x.astype(np.float16)
    assert found.dtype == np.float16
    number = ~np.isnan(want)
    np.testing.assert_array_equal(np.isnan(found), ~number)
    np.testing.assert_array_equal(found[number].view(np.uint16), want[number].view(np.uint16))


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_angles_of_any_size(name: str, gpu: GpuBackend) -> None:
    rng = np.random.default_rng(3)
    bits = rng.integers(0, 2**32, 60_000, np.uint32).view(np.float32)
    zeros = (np.arange(1, 60_000, 7) * (np.pi / 2)).astype(np.float32) * np.float32(2.0**20)
    edges = np.array([1e30, 3.4028235e38, 10_000, 10_001, -1e4, 5.3168e36, np.inf, np.nan], "f")
    x = np.concatenate([bits, zeros, edges])
    with np.errstate(all="ignore"):
        expected = getattr(np, name)(x.astype(np.float64))
        found = getattr(tensor(x, backend=gpu), name)().numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-7)
    far = np.abs(x) > 10_001  # below, numbers close to a multiple of pi / 2 lose digits
    np.testing.assert_allclose(found[far], expected[far], rtol=5e-7)


def test_the_logarithm_of_subnormal_numbers(gpu: GpuBackend) -> None:
    x = np.array([1e-38, 1e-40, 5e-44, 1e-45, 1.1754944e-38, 2e-38, 0.0, -1e-40], np.float32)
    with np.errstate(all="ignore"):
        expected = np.log(x.astype(np.float64))
    np.testing.assert_allclose(tensor(x, backend=gpu).log().numpy(), expected, rtol=1e-6)


def test_roots_and_powers_of_subnormal_numbers(gpu: GpuBackend) -> None:
    x = np.array([1e-38, 1e-40, 5e-44, 1e-45, 1.1754944e-38, 2e-38, 0.0, -0.0], np.float32)
    x = np.concatenate([x, -x])
    wide = x.astype(np.float64)
    with np.errstate(all="ignore"):
        for found, expected in (
            (tensor(x, backend=gpu).sqrt(), np.sqrt(wide)),
            (1 / tensor(x, backend=gpu).sqrt(), 1 / np.sqrt(wide)),
            (tensor(x, backend=gpu) ** 0.5, wide**0.5),
            (tensor(x, backend=gpu) ** -0.5, wide**-0.5),
            (tensor(x, backend=gpu) ** 0.25, wide**0.25),
        ):
            np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_powers_of_integers(gpu: GpuBackend) -> None:
    x, n = [3, -3, 1, -1, -1, 0, 7, 0], [3, 3, -2, -2, -3, 2, -1, -1]
    found = tensor(x, backend=gpu) ** tensor(n, backend=gpu)
    assert found.tolist() == [27, -27, 1, 1, -1, 0, 0, 0]


@pytest.mark.parametrize("number", [2**63, 10**40, -(10**300)])
def test_large_integers_beside_a_tensor(gpu: GpuBackend, number: int) -> None:
    """As on the CPU, where they are rounded; 32 bits do not hold them."""
    for data in ([1.5, -2.0], [1, 2]):
        here, there = tensor(data), tensor(data, backend=gpu)
        assert (there / number).tolist() == (here / number).tolist()
        assert (there < number).tolist() == (here < number).tolist()
        if here.dtype.kind == "f":
            assert (there + number).tolist() == (here + number).tolist()
    with pytest.raises(OverflowError, match="is beyond float64"):
        _ = there / 10**400
