"""`Expr`: what folds, what is uniform, and its derivative against finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rumus.tensor import Expr, Kernel, NumpyBackend
from rumus.tensor.backends.numpy_program import FUNCTIONS
from rumus.tensor.compiled import numba_loops
from rumus.tensor.expression.derivative import DERIVATIVES
from rumus.tensor.expression.expr import EXPR, OPERATIONS, postorder

A, B, S = Expr.array("a"), Expr.array("b"), Expr.scalar("s")
INF, NAN = math.inf, math.nan


def evaluate(expr: Expr, leaves: dict[str, float]) -> float:
    """The value of an expression for one element, in Python floats."""
    values: dict[Expr, float] = {}
    for node in postorder([expr]):
        if node.operation == "constant":
            values[node] = node.value
        elif node.name:
            values[node] = leaves[node.name]
        else:
            operands = (values[operand] for operand in node.operands)
            values[node] = OPERATIONS[node.operation](*operands)
    return values[expr]


UNARY = ["neg", "tanh", "sin", "cos", "erf", "sigmoid", "softplus", "square", "bounded exp", "log"]


def unary(name: str, x: Expr) -> Expr:
    if name == "neg":
        return -x
    if name == "square":
        return x**2
    if name == "bounded exp":
        return x.tanh().exp()
    if name == "log":
        return (x * x + 0.5).log()
    result: Expr = getattr(x, name)()
    return result


def binary(name: str, x: Expr, y: Expr) -> Expr:
    return {
        "add": lambda: x + y,
        "sub": lambda: x - y,
        "mul": lambda: x.tanh() * y,
        "div": lambda: x / (1 + y * y),
        "pow": lambda: (x * x + 0.5) ** y.tanh(),
        "where": lambda: (x < y).where(x * y.sin(), y),
        "maximum": lambda: x.maximum(y),
        "minimum": lambda: x.minimum(y),
    }[name]()


BINARY = ["add", "sub", "mul", "div", "pow", "where", "maximum", "minimum"]
LEAVES = st.sampled_from([A, B, S]) | st.sampled_from([-1.5, 0.5, 2.0]).map(Expr.constant)
EXPRS = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(unary, st.sampled_from(UNARY), inner)
        | st.builds(binary, st.sampled_from(BINARY), inner, inner)
    ),
    max_leaves=12,
)
NUMBERS = st.floats(-2, 2).map(lambda x: round(x, 3) + 1e-4)


@settings(max_examples=150, deadline=None)
@given(EXPRS, NUMBERS, NUMBERS, NUMBERS)
def test_the_derivative_is_that_of_finite_differences(
    expr: Expr, a: float, b: float, s: float
) -> None:
    step = 1e-6
    kernel = Kernel("random", {"out": expr}, ("a", "b"))
    leaves = {"a": a, "b": b, "s": s}
    for node in postorder([expr]):
        if node.operation in ("maximum", "minimum"):  # equal operands share the gradient
            first, second = (evaluate(operand, leaves) for operand in node.operands)
            assume(first != second)

    def at(x: float) -> float:
        return evaluate(expr, {"a": x, "b": b, "s": s})

    left, right = (at(a) - at(a - step)) / step, (at(a + step) - at(a)) / step
    # Away from kinks, even those so slight that only the tolerance below would show them.
    assume(abs(left - right) < 1e-5 * (1 + abs(left)))
    derivative = kernel.gradient(("a",))
    out = evaluate(derivative.outputs["d_a"], {"a": a, "b": b, "s": s, "gradient": 1.0})
    assert out == pytest.approx((left + right) / 2, rel=1e-4, abs=1e-5)


@settings(max_examples=100, deadline=None)
@given(EXPRS, st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=5), NUMBERS)
def test_the_numpy_backend_agrees_with_python_floats(
    expr: Expr, elements: list[tuple[float, float]], s: float
) -> None:
    kernel = Kernel("random", {"out": expr}, ("a", "b"))
    a, b = np.array(elements, np.float64).T
    out = np.empty_like(a)
    scalars = {"s": s} if "s" in kernel.scalars else {}
    NumpyBackend().elementwise(kernel, (a, b), kernel.bind(scalars), (out,))
    expected = [evaluate(expr, {"a": x, "b": y, "s": s}) for x, y in elements]
    np.testing.assert_allclose(out, expected, rtol=1e-11, atol=1e-12)


def test_every_operation_has_a_derivative_and_a_meaning() -> None:
    assert set(DERIVATIVES) == set(OPERATIONS)


def test_every_operation_is_known_to_numpy_and_no_other_to_numba() -> None:
    """numba lacks those that NumPy vectorizes and it does not: their kernels stay on NumPy."""
    assert set(FUNCTIONS) == set(OPERATIONS)
    assert set(numba_loops.TEXT) < set(OPERATIONS)


def test_constants_fold() -> None:
    folded = (Expr.constant(2) * 3 + 1).sqrt()
    assert (folded.operation, folded.value) == ("constant", math.sqrt(7))


@pytest.mark.parametrize(
    ("operation", "operands", "expected"),
    [
        ("exp", (1000.0,), INF),
        ("exp", (-INF,), 0.0),
        ("expm1", (1000.0,), INF),
        ("log", (0.0,), -INF),
        ("log", (-1.0,), NAN),
        ("log1p", (-1.0,), -INF),
        ("log1p", (-2.0,), NAN),
        ("sqrt", (-1.0,), NAN),
        ("sin", (INF,), NAN),
        ("cos", (INF,), NAN),
        ("div", (1.0, 0.0), INF),
        ("div", (-1.0, 0.0), -INF),
        ("div", (0.0, 0.0), NAN),
        ("pow", (0.0, -1.0), INF),
        ("pow", (-8.0, 1 / 3), NAN),
        ("pow", (10.0, 400.0), INF),
        ("sign", (NAN,), NAN),
        ("sign", (-0.0,), 0.0),
        ("relu", (NAN,), NAN),
        ("maximum", (1.0, NAN), NAN),
        ("minimum", (NAN, 1.0), NAN),
        ("softplus", (1000.0,), 1000.0),
        ("sigmoid", (-1000.0,), 0.0),
    ],
)
def test_scalars_follow_ieee_as_arrays_do(
    operation: str, operands: tuple[float, ...], expected: float
) -> None:
    names = "xyz"[: len(operands)]
    scalars = dict(zip(names, operands, strict=True))
    leaves = [Expr.scalar(name) for name in names]
    on_the_host = Kernel(operation, {"out": leaves[0]._apply(operation, *leaves)})
    np.testing.assert_equal(on_the_host.bind(scalars), (expected,))
    arrays = [np.array([value]) for value in operands]
    named = [Expr.array(name) for name in names]
    out = np.empty(1)
    kernel = Kernel(operation, {"out": named[0]._apply(operation, *named)})
    NumpyBackend().elementwise(kernel, arrays, (), (out,))
    np.testing.assert_equal(out.item(), expected)


def test_scalar_subexpressions_are_computed_on_the_host() -> None:
    t = Expr.scalar("t")
    kernel = Kernel("corrected", {"out": A / (1 - S**t)})
    assert [node.operation for node in kernel.nodes] == ["div"]
    assert kernel.bind({"s": 0.9, "t": 3}) == (1 - 0.9**3,)


def test_equal_mathematics_has_an_equal_key() -> None:
    one, other = (Kernel("k", {"out": (A + 1) * S}) for _ in range(2))
    assert one.key == other.key != Kernel("k", {"out": (A + 2) * S}).key


@pytest.mark.parametrize("wrong", ["x", None, [1.0]])
def test_an_expr_combines_with_numbers_only(wrong: Any) -> None:
    with pytest.raises(TypeError, match="an Expr combines with Exprs and numbers, not with"):
        A + wrong


def test_an_expr_has_no_truth_value() -> None:
    with pytest.raises(TypeError, match=r"where\(\)"):
        abs(A) if A > 0 else A


def test_numpy_numbers_are_numbers() -> None:
    kernel = Kernel("scaled", {"out": A * np.float64(0.5) + Expr.of(np.float32(2))})  # type: ignore[arg-type]
    assert kernel.key == Kernel("scaled", {"out": A * 0.5 + 2.0}).key


@pytest.mark.parametrize(
    ("of_numpy", "ours"),
    [
        (lambda a, b: np.sign(a), A.sign()),
        (lambda a, b: np.abs(a), abs(A)),
        (lambda a, b: np.maximum(a, 0.0), A.maximum(0.0)),
        (lambda a, b: np.float64(2) - a, 2.0 - A),
        (lambda a, b: np.float32(2) > a, A < 2.0),
        (lambda a, b: np.less_equal(a, b), A <= B),
    ],
)
def test_functions_of_numpy_build_expressions(
    of_numpy: Callable[[Any, Any], Any], ours: Expr
) -> None:
    assert Kernel("k", {"out": of_numpy(A, B)}).key == Kernel("k", {"out": ours}).key


def test_numpy_does_not_fill_arrays_with_expressions() -> None:
    a: Any = A
    with pytest.raises(TypeError, match="not with ndarray"):
        np.ones(2) * a
    with pytest.raises(TypeError, match=r"np\.arctan does not take an Expr"):
        np.arctan(a)
    with pytest.raises(TypeError, match=r"np\.add does not take an Expr"):
        np.add.reduce(a)
    assert np.float64(1) != a


@pytest.mark.parametrize("name", EXPR.rows)
def test_names_of_an_expression(name: str) -> None:
    with pytest.raises(AttributeError, match=rf"an Expr has no attribute '{name}'; here it is "):
        getattr(A, name)


def test_a_kernel_declares_what_it_reads() -> None:
    with pytest.raises(ValueError, match=r"reads arrays it does not declare: \['b'\]"):
        Kernel("k", {"out": A + B}, ("a",))
    with pytest.raises(ValueError, match="2 outputs, not one"):
        Kernel("k", {"x": A, "y": B}).gradient(("a",))
    with pytest.raises(KeyError, match="s"):
        Kernel("k", {"out": A * S}).bind({})
