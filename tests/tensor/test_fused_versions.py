"""A backend's own kernels, on arrays large enough for them, against primitives.

The reference is float64 in NumPy, where convolution, pooling, attention and batch norm consist of
primitives.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.tensor import (
    Backend,
    NumpyBackend,
    Parameter,
    Tensor,
    avg_pool,
    batch_norm,
    convolution,
    convolution_transpose,
    cross_entropy,
    gather,
    gelu,
    layer_norm,
    max_pool,
    scaled_dot_product_attention,
    softmax,
    tensor,
)


def lookup(table: Tensor) -> Tensor:
    """Rows of a table, some of them repeated."""
    index = np.random.default_rng(1).integers(0, 40, 400).astype(np.int32)
    return gather(table, tensor(index, backend=table.backend))


def loss_of_rows(x: Tensor) -> Tensor:
    """The cross entropy of 300 rows."""
    return cross_entropy(x, tensor(np.arange(len(x)) % x.shape[1], backend=x.backend))


def weighted_loss(x: Tensor, smoothing: float) -> Tensor:
    """The cross entropy of rows, or of places, with class weights; some targets are ignored."""
    shape = (x.shape[0], *x.shape[2:])
    index = (np.arange(math.prod(shape)) * 7 % x.shape[1]).reshape(shape).astype(np.int32)
    weight = tensor(np.linspace(0.0, 2.0, x.shape[1]), dtype=x.dtype, backend=x.backend)
    return cross_entropy(x, tensor(index, backend=x.backend), smoothing, 3, weight)


Function = Callable[..., Tensor]
CASES: dict[str, tuple[Function, list[tuple[int, ...]]]] = {
    "gelu": (gelu, [(300, 64)]),
    "tanh, exp and sigmoid": (lambda x: x.tanh() * (x * x).exp() + x.sigmoid(), [(300, 64)]),
    "softmax": (softmax, [(300, 64)]),
    "cross entropy": (loss_of_rows, [(300, 64)]),
    "cross entropy, weighted": (lambda x: weighted_loss(x, 0.0), [(300, 64)]),
    "cross entropy, weighted and smoothed": (lambda x: weighted_loss(x, 0.2), [(300, 64)]),
    "cross entropy of places": (lambda x: weighted_loss(x, 0.2), [(5, 30, 130)]),
    "layer norm": (layer_norm, [(300, 64), (64,), (64,)]),
    "layer norm alone": (layer_norm, [(3, 100, 64)]),
    "gather": (lookup, [(40, 9)]),
    "batch norm": (lambda *a: batch_norm(*a)[0], [(7, 9, 16, 17), (9,), (9,)]),
    "batch norm of rows": (lambda x: batch_norm(x)[0], [(300, 64)]),
    "attention": (scaled_dot_product_attention, [(2, 4, 33, 8)] * 3),
    "causal, shared heads": (
        lambda q, k, v: scaled_dot_product_attention(q, k, v, causal=True, scale=0.5),
        [(2, 6, 33, 8), (2, 2, 33, 8), (2, 2, 33, 5)],
    ),
    "attention of one head": (scaled_dot_product_attention, [(21, 8), (9, 8), (9, 3)]),
    "convolution": (lambda x, w: convolution(x, w, padding=1), [(9, 4, 12, 11), (6, 4, 3, 3)]),
    "convolution with bias, dilated": (
        lambda x, w, b: convolution(x, w, b, padding=(2, 1), dilation=(2, 1)),
        [(19, 5, 9, 10), (6, 5, 3, 2), (6,)],
    ),
    "convolution of one axis": (
        lambda x, w: convolution(x, w, stride=3, padding=2, dilation=2),
        [(5, 4, 50), (6, 4, 3)],
    ),
    "convolution in groups": (
        lambda x, w: convolution(x, w, stride=(2, 1), padding=(0, 2), dilation=(1, 3), groups=2),
        [(3, 4, 12, 11), (6, 2, 3, 2)],
    ),
    "mostly padding": (lambda x, w: convolution(x, w, padding=4), [(2, 3, 2, 2), (4, 3, 3, 3)]),
    "convolution transposed": (
        lambda x, w: convolution_transpose(x, w, stride=2, padding=1, output_padding=1),
        [(3, 4, 7, 6), (4, 5, 3, 3)],
    ),
    "max pool": (lambda x: max_pool(x, 3, stride=2, padding=1), [(3, 4, 13, 12)]),
    "max pool of one axis": (lambda x: max_pool(x, 2, dilation=2), [(3, 4, 13)]),
    "max pool with gaps": (
        lambda x: max_pool(x, (2, 3), stride=(4, 1), padding=(0, 1), dilation=(1, 2)),
        [(2, 3, 15, 12)],
    ),
    "max pool of equal elements": (lambda x: max_pool(x.sign(), 3, stride=1), [(2, 3, 9, 8)]),
    "average pool": (lambda x: avg_pool(x, 4, stride=2, padding=2), [(3, 4, 13, 12)]),
    "average pool with gaps": (lambda x: avg_pool(x, (2, 1), stride=3), [(2, 3, 13, 11)]),
    "average pool of one axis": (lambda x: avg_pool(x, 5, stride=1), [(3, 4, 13)]),
    "average pool of three axes": (lambda x: avg_pool(x, 2), [(2, 2, 4, 5, 6)]),
}


def found(name: str, backend: Backend, dtype: type) -> list[NDArray[Any]]:
    """The result and the gradient of each input."""
    function, shapes = CASES[name]
    normal = np.random.default_rng(7).standard_normal
    inputs = [Parameter(normal(shape), dtype=dtype, backend=backend) for shape in shapes]
    y = function(*inputs)
    cosines = np.cos(np.arange(y.size)).reshape(y.shape)
    weights = tensor(cosines, dtype=dtype, backend=backend)
    grads = (y * weights).sum().backward()
    return [array.numpy() for array in (y, *(grads[x] for x in inputs))]


@pytest.mark.parametrize("name", CASES)
def test_own_kernels_are_the_primitives(name: str, backend: Backend) -> None:
    expected = found(name, NumpyBackend(), np.float64)
    first, second = (found(name, backend, np.float32) for _ in range(2))
    for a, b, exact in zip(first, second, expected, strict=True):
        assert a.tobytes() == b.tobytes()
        size = math.sqrt(np.square(exact).mean())
        np.testing.assert_allclose(a, exact, rtol=3e-5, atol=3e-5 * max(size, 1e-3))


def test_max_pool_of_non_finite_values(backend: Backend) -> None:
    """NaN is the largest, and the first gets NaN; of infinities the first gets the gradient."""
    inf, nan = math.inf, math.nan
    rows = [[1, nan, 2, nan], [-inf, -inf, -inf, -inf], [inf, 0, inf, inf], [0.0, -0.0, -0.0, 0.0]]
    x = Parameter(np.array(rows)[None], dtype=np.float32, backend=backend)
    y = max_pool(x, 4)
    weights = tensor(np.arange(1, 5)[None, :, None], dtype=np.float32, backend=backend)
    gradient = (y * weights).sum().backward()[x].numpy()[0]
    np.testing.assert_array_equal(y.numpy()[0, :, 0], [nan, -inf, inf, 0])
    expected = np.zeros((4, 4))
    expected[1:, 0] = 2, 3, 4
    expected[0, 1] = nan
    np.testing.assert_array_equal(gradient, expected)


def test_batch_norm_gives_its_sums(backend: Backend) -> None:
    x = np.random.default_rng(2).normal(3, 1, (8, 3, 5)).astype(np.float32)
    _, total, squares = batch_norm(tensor(x, backend=backend))
    np.testing.assert_allclose(total.numpy(), x.sum((0, 2)), rtol=1e-5)
    np.testing.assert_allclose(squares.numpy(), x.var((0, 2)) * 40, rtol=1e-5)


@pytest.mark.parametrize("shape", [(4,), (0, 3)])
def test_batch_norm_refuses_input_without_a_batch(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"batch_norm: expected \(batch, channels"):
        batch_norm(tensor(np.ones(shape)))


def test_batch_norm_refuses_a_weight_alone() -> None:
    with pytest.raises(ValueError, match="both weight and bias, or neither"):
        batch_norm(tensor(np.ones((4, 3))), tensor(np.ones(3)))


if find_spec("numba") is not None:

    @pytest.mark.parametrize("name", ["exp", "tanh", "sigmoid", "erf"])
    def test_vector_functions_far_out(name: str) -> None:
        from rumus.tensor import NumbaBackend
        from rumus.tensor.expression.expr import Expr
        from rumus.tensor.expression.kernel import Kernel

        x = Expr.array("x")
        kernel = Kernel(name, {"out": x._apply(name, x) * 1.0}, ("x",))
        odd = [np.nan, np.inf, -np.inf, 0.0, -0.0, 88.7, -87.0, 200.0, -200.0, 1e-30]
        values = np.tile(np.array(odd, np.float32), 2000)
        results = []
        for backend in (NumbaBackend(), NumpyBackend()):
            out = np.empty_like(values)
            backend.elementwise(kernel, (values,), (), (out,))
            results.append(out[: len(odd)])
        np.testing.assert_allclose(results[0], results[1], rtol=2e-6, atol=1e-37)
