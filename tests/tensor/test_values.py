"""Elementwise functions, reductions and products: values against float64 formulas in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus import tensor as rt
from rumus.tensor import Backend, DType, Tensor, float32, tensor

Real = NDArray[Any]
RNG = np.random.default_rng(0)

ANY = np.array([[-30.0, -3.1, -1.0, -0.5], [-1e-3, 0.0, 1e-3, 0.4], [0.9, 1.0, 2.7, 30.0]])
POSITIVE = np.array([1e-6, 0.3, 1.0, 1.5, 40.0])
SMALL = np.array([-0.9, -1e-5, 0.0, 1e-5, 3.0])
erf = np.vectorize(math.erf, otypes=[float])

UNARY: list[tuple[str, Callable[[Any], Any], Callable[[Real], Real], Real]] = [
    ("neg", lambda x: -x, lambda x: -x, ANY),
    ("pos", lambda x: +x, lambda x: x, ANY),
    ("abs", abs, np.abs, ANY),
    ("method abs", lambda x: x.abs(), np.abs, ANY),
    ("sign", rt.sign, np.sign, ANY),
    ("exp", rt.exp, np.exp, ANY),
    ("log", rt.log, np.log, POSITIVE),
    ("log1p", rt.log1p, np.log1p, SMALL),
    ("expm1", rt.expm1, np.expm1, SMALL),
    ("sqrt", rt.sqrt, np.sqrt, POSITIVE),
    ("sin", rt.sin, np.sin, ANY),
    ("cos", rt.cos, np.cos, ANY),
    ("tanh", rt.tanh, np.tanh, ANY),
    ("erf", rt.erf, erf, ANY),
    ("sigmoid", rt.sigmoid, lambda x: 1 / (1 + np.exp(-x)), ANY),
    ("softplus", rt.softplus, lambda x: np.logaddexp(0, x), ANY),
    ("relu", rt.relu, lambda x: np.maximum(x, 0), ANY),
    ("square", lambda x: x**2, np.square, ANY),
    ("cube", lambda x: x**3, lambda x: x**3, ANY),
    ("root", lambda x: x**0.5, np.sqrt, POSITIVE),
    ("power of 2", lambda x: 2**x, np.exp2, ANY),
    ("reciprocal", lambda x: 1 / x, lambda x: 1 / x, POSITIVE),
    ("1 - x", lambda x: 1 - x, lambda x: 1 - x, ANY),
    ("clip", lambda x: rt.clip(x, -1, 2), lambda x: np.clip(x, -1, 2), ANY),
    ("clip below", lambda x: x.clip(low=0.5), lambda x: np.clip(x, 0.5, None), ANY),
    ("clip above", lambda x: x.clip(high=0.5), lambda x: np.clip(x, None, 0.5), ANY),
    ("silu", rt.silu, lambda x: x / (1 + np.exp(-x)), ANY),
    ("gelu", rt.gelu, lambda x: x * 0.5 * (1 + erf(x / math.sqrt(2))), ANY),
    (
        "gelu_tanh",
        rt.gelu_tanh,
        lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        ANY,
    ),
    ("leaky_relu", rt.leaky_relu, lambda x: np.where(x < 0, 0.01 * x, x), ANY),
    ("slope", lambda x: rt.leaky_relu(x, slope=0.3), lambda x: np.where(x < 0, 0.3 * x, x), ANY),
    ("elu", rt.elu, lambda x: np.where(x < 0, np.expm1(np.minimum(x, 0)), x), ANY),
    (
        "alpha",
        lambda x: rt.elu(x, alpha=2.0),
        lambda x: np.where(x < 0, 2 * np.expm1(np.minimum(x, 0)), x),
        ANY,
    ),
]


def check(result: Tensor, expected: Real, dtype: DType, ulps: float = 16) -> None:
    """Compare to a few units in the last place, or relative to 1 where terms cancel."""
    eps = float(np.finfo(dtype).eps)
    assert result.dtype == dtype
    np.testing.assert_allclose(result.numpy(), expected, rtol=ulps * eps, atol=2 * eps)


@pytest.mark.parametrize("case", UNARY, ids=lambda case: case[0])
def test_functions_of_one_tensor(
    case: tuple[Any, Callable[[Any], Any], Callable[[Real], Real], Real],
    backend: Backend,
    widest: DType,
) -> None:
    _, function, formula, x = case
    check(function(tensor(x, dtype=widest, backend=backend)), formula(x), widest, 64)
    single = x.astype(np.float32)
    result = function(tensor(single, backend=backend))
    check(result, formula(single.astype(np.float64)), float32)


BINARY: list[tuple[str, Callable[[Any, Any], Any], Callable[[Real, Real], Real]]] = [
    ("add", lambda a, b: a + b, np.add),
    ("sub", lambda a, b: a - b, np.subtract),
    ("mul", lambda a, b: a * b, np.multiply),
    ("div", lambda a, b: a / b, np.divide),
    ("pow", lambda a, b: abs(a) ** b, lambda a, b: np.abs(a) ** b),
    ("maximum", rt.maximum, np.maximum),
    ("minimum", rt.minimum, np.minimum),
    ("where", lambda a, b: rt.where(a < b, a, b), np.minimum),
]
SHAPES = [((3, 4), (3, 4)), ((3, 4), (4,)), ((3, 1), (1, 4)), ((), (2, 3)), ((5, 1, 2), (3, 1))]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("case", BINARY, ids=lambda case: case[0])
def test_functions_of_two_tensors_broadcast(
    case: tuple[str, Callable[[Any, Any], Any], Callable[[Real, Real], Real]],
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    backend: Backend,
) -> None:
    _, function, formula = case
    a, b = (RNG.normal(size=shape).astype(np.float32) for shape in shapes)
    result = function(tensor(a, backend=backend), tensor(b, backend=backend))
    check(result, formula(a.astype(np.float64), b.astype(np.float64)), float32)


@pytest.mark.parametrize(
    ("function", "formula"),
    [
        (lambda a, b: a < b, np.less),
        (lambda a, b: a <= b, np.less_equal),
        (lambda a, b: a > b, np.greater),
        (lambda a, b: a >= b, np.greater_equal),
        (lambda a, b: a == b, np.equal),
        (lambda a, b: a != b, np.not_equal),
        (lambda a, b: (a < b) & (b < 2), lambda a, b: (a < b) & (b < 2)),
        (lambda a, b: (a < b) | (b < 2), lambda a, b: (a < b) | (b < 2)),
        (lambda a, b: ~(a < b), lambda a, b: ~(a < b)),
    ],
)
def test_comparisons(
    function: Callable[[Any, Any], Any], formula: Callable[[Any, Any], Any], backend: Backend
) -> None:
    a, b = np.array([1.0, 2.0, 3.0, np.nan]), np.array([2.0, 2.0, 2.0, 2.0])
    result = function(tensor(a, backend=backend), tensor(b, backend=backend))
    assert result.dtype == rt.bool_
    assert result.tolist() == formula(a, b).tolist()


X = RNG.normal(size=(3, 4, 5))
AXES = [None, 0, -1, (0, 2), (1, 2), ()]


@pytest.mark.parametrize("axis", AXES, ids=str)
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "var"])
def test_reductions(name: str, axis: Any, keepdims: bool, backend: Backend) -> None:
    x = tensor(X, backend=backend)
    expected = getattr(np, name)(x.numpy().astype(np.float64), axis=axis, keepdims=keepdims)
    result = getattr(x, name)(axis, keepdims=keepdims)
    assert result.shape == expected.shape
    check(result, expected, float32)


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_argmax_is_the_first_of_equals(axis: int | None, backend: Backend) -> None:
    x = np.array([[1, 3, 3], [3, 2, 1]])
    result = tensor(x, backend=backend).argmax(axis)
    assert result.dtype == rt.int32
    assert result.tolist() == np.argmax(x, axis).tolist()


def test_variance_with_ddof(backend: Backend) -> None:
    result = tensor(X, backend=backend).var(1, ddof=1)
    check(result, np.var(X.astype(np.float32).astype(np.float64), 1, ddof=1), float32)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((3, 4), (4, 5)),
        ((4,), (4, 5)),
        ((3, 4), (4,)),
        ((4,), (4,)),
        ((2, 3, 4), (4, 5)),
        ((3, 4), (2, 4, 5)),
        ((4,), (2, 4, 5)),
        ((2, 3, 4), (4,)),
        ((6, 1, 3, 4), (2, 4, 1)),
        ((0, 4), (4, 5)),
        ((3, 0), (0, 5)),
    ],
    ids=str,
)
def test_matmul(first: tuple[int, ...], second: tuple[int, ...], backend: Backend) -> None:
    a, b = (RNG.normal(size=s).astype(np.float32).astype(np.float64) for s in (first, second))
    expected = np.matmul(a, b)
    result = tensor(a, backend=backend) @ tensor(b, backend=backend)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_linear_is_a_product_and_a_sum(backend: Backend) -> None:
    x, w, b = (RNG.normal(size=s).astype(np.float32) for s in ((2, 3, 4), (5, 4), (5,)))
    x_, w_, b_ = (tensor(a, backend=backend) for a in (x, w, b))
    np.testing.assert_allclose(rt.linear(x_, w_, b_).numpy(), x @ w.T + b, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(rt.linear(x_, w_).numpy(), x @ w.T, rtol=1e-5, atol=1e-5)


I = np.arange(60).reshape(3, 4, 5)  # noqa: E741
SHAPING: list[tuple[str, Callable[[Tensor], Tensor], Callable[[Real], Real]]] = [
    ("reshape", lambda x: x.reshape(5, -1), lambda x: x.reshape(5, -1)),
    ("reshape of a transposed", lambda x: x.T.reshape(15, 4), lambda x: x.mT.reshape(15, 4)),
    ("reshape by a list", lambda x: x.reshape([60]), lambda x: x.reshape(60)),
    ("flatten", lambda x: x.flatten(), lambda x: x.reshape(-1)),
    ("flatten from 1", lambda x: x.flatten(1), lambda x: x.reshape(3, 20)),
    ("permute", lambda x: x.permute(2, 0, -2), lambda x: x.transpose(2, 0, 1)),
    ("transpose", lambda x: x.transpose(0, -1), lambda x: x.swapaxes(0, -1)),
    ("T", lambda x: x.T, lambda x: x.mT),
    ("broadcast_to", lambda x: x.broadcast_to((2, 3, 4, 5)), lambda x: np.stack([x, x])),
    ("unsqueeze", lambda x: x.unsqueeze(-1), lambda x: x[..., None]),
    ("squeeze", lambda x: x[:1].squeeze(), lambda x: x[0]),
    ("squeeze an axis", lambda x: x[:, :1].squeeze(-2), lambda x: x[:, 0]),
    ("number", lambda x: x[-1], lambda x: x[-1]),
    ("slices", lambda x: x[1:, ::2, ::-1], lambda x: x[1:, ::2, ::-1]),
    ("ellipsis", lambda x: x[..., 1], lambda x: x[..., 1]),
    ("new axis", lambda x: x[:, None, 2], lambda x: x[:, None, 2]),
    ("one element", lambda x: x[1, 2, 3], lambda x: x[1, 2, 3]),
    ("list", lambda x: x[[2, 0, -1]], lambda x: x[[2, 0, -1]]),
    ("array", lambda x: x[np.array([[0, 1], [2, 2]])], lambda x: x[[[0, 1], [2, 2]]]),
    ("two lists", lambda x: x[[0, 2], [-1, 1]], lambda x: x[[0, 2], [-1, 1]]),
    ("list and number", lambda x: x[[0, 2], 1], lambda x: x[[0, 2], 1]),
    ("empty list", lambda x: x[[]], lambda x: x[[]]),
    ("concat", lambda x: rt.concat([x, x[:, :1]], 1), lambda x: np.concatenate([x, x[:, :1]], 1)),
    ("stack", lambda x: rt.stack([x, x], -1), lambda x: np.stack([x, x], -1)),
    (
        "pad",
        lambda x: rt.pad(x, [(1, 0), (0, 2), (0, 0)], 7),
        lambda x: np.pad(x, [(1, 0), (0, 2), (0, 0)], constant_values=7),
    ),
]


@pytest.mark.parametrize("case", SHAPING, ids=lambda case: case[0])
def test_shaping_and_indexing(
    case: tuple[str, Callable[[Tensor], Tensor], Callable[[Real], Real]], backend: Backend
) -> None:
    _, function, formula = case
    expected = formula(I)
    result = function(tensor(I, backend=backend))
    assert result.shape == np.shape(expected)
    assert result.dtype == rt.int32
    assert result.tolist() == expected.tolist()


def test_a_number_of_python() -> None:
    x = tensor(2.567)
    assert (round(x), round(x, 1), round(tensor([7]), -1)) == (3, 2.6, 10)
    assert isinstance(round(x), int)


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (float, r"^float\(x\) needs a tensor with one element; this one has shape \(2,\)$"),
        (int, r"^int\(x\) needs"),
        (round, r"^round\(x\) needs .*: \(x \+ 0.5\).floor\(\) rounds each$"),
        (bool, r"^a truth value, as of if, .* needs .*: write x.any\(\) or x.all\(\), and a & b"),
        (lambda x: 1.0 in x.reshape(1, 2), "^a truth value, .*, in, needs"),
        (lambda x: x.item(), r"^item\(\) needs"),
    ],
)
def test_several_elements_are_no_number(act: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        act(tensor([1.0, 2.0]))
