"""Kernels as ONNX nodes: another reader of `Expr`, like NumPy and WGSL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np

from rumus.nn.onnx_graph import Graph, Value
from rumus.tensor import DType, Expr, Kernel, NumpyBackend, bool_
from rumus.tensor.expression.dtype import is_floating
from rumus.tensor.expression.expr import postorder
from rumus.tensor.expression.kernel import COMPARISONS, Types

_Row: TypeAlias = "Callable[[_Writer, Sequence[Value]], Value]"


def cast(graph: Graph, value: Value, dtype: DType) -> Value:
    """Return a value in another dtype."""
    if value.dtype == dtype:
        return value
    if value.constant is not None:
        return graph.constant(value.constant.astype(dtype))
    return graph.emit("Cast", [value], value.shape, dtype, to=dtype.name)


def write_kernel(
    graph: Graph, kernel: Kernel, values: Sequence[Value], scalars: Sequence[float]
) -> list[Value]:
    """Write a kernel and return its outputs, which may still have to broadcast.

    values: in the order of `kernel.arrays`. scalars: `kernel.bind(...)`.
    """
    types = kernel.types(tuple(value.dtype for value in values))
    writer = _Writer(graph, kernel, types, dict(zip(kernel.arrays, values, strict=True)), scalars)
    results = zip(kernel.outputs.values(), types.results, strict=True)
    return [cast(graph, writer.value(node), dtype) for node, dtype in results]


class _Writer:
    """The nodes of one kernel."""

    def __init__(
        self,
        graph: Graph,
        kernel: Kernel,
        types: Types,
        arrays: Mapping[str, Value],
        scalars: Sequence[float],
    ) -> None:
        self.graph, self.dtype, self._types = graph, types.compute, types
        self._uniforms = dict(zip(kernel.uniforms, scalars, strict=True))
        self._done: dict[Expr, Value] = {}
        for node in postorder(kernel.outputs.values(), is_leaf=lambda node: node.uniform):
            self._done[node] = self._of(node, arrays)

    def value(self, node: Expr) -> Value:
        """Return the value of a node of the kernel."""
        return self._done[node]

    def number(self, value: float) -> Value:
        """Return a constant of the dtype in which the kernel computes."""
        return self.graph.constant(np.array(value, self.dtype))

    def emit(self, operation: str, *operands: Value, dtype: DType | None = None) -> Value:
        """Write an ONNX operation whose operands broadcast."""
        shape = np.broadcast_shapes(*(operand.shape for operand in operands))
        return self.graph.emit(operation, operands, shape, dtype or self.dtype)

    def _of(self, node: Expr, arrays: Mapping[str, Value]) -> Value:
        if node.operation == "array":
            return cast(self.graph, arrays[node.name], self._types.of(node))
        if node.operation == "constant":
            return self.number(node.value)
        if node.uniform:
            return self.number(self._uniforms[node])
        operands = [self._done[operand] for operand in node.operands]
        if node in self._types.masks and node.operation in _OF_MASKS:
            operands = [cast(self.graph, operand, np.dtype(bool_)) for operand in operands]
            return self.emit(_OF_MASKS[node.operation], *operands, dtype=np.dtype(bool_))
        if node.operation == "where":
            condition = cast(self.graph, operands[0], np.dtype(bool_))
            dtype = self._types.of(node)
            choices = [cast(self.graph, operand, dtype) for operand in operands[1:]]
            return self.emit("Where", condition, *choices, dtype=dtype)
        operands = [cast(self.graph, operand, self.dtype) for operand in operands]
        if all(operand.constant is not None for operand in operands):
            return self._computed(node.operation, operands)
        return ROWS[node.operation](self, operands)

    def _computed(self, operation: str, operands: Sequence[Value]) -> Value:
        """Compute values that depend on no input."""
        leaves = [Expr.array(name) for name in "ab"[: len(operands)]]
        kernel = Kernel(operation, {"out": leaves[0]._apply(operation, *leaves)})
        arrays = [operand.constant for operand in operands]
        shape = np.broadcast_shapes(*(operand.shape for operand in operands))
        out = np.empty(shape, bool_ if operation in COMPARISONS else self.dtype)
        NumpyBackend().elementwise(kernel, arrays, (), (out,))
        return self.graph.constant(out)


# Two booleans give one.
_OF_MASKS: Final = {"maximum": "Or", "minimum": "And"}


def _plain(operation: str) -> _Row:
    return lambda w, operands: w.emit(operation, *operands)


def _comparison(operation: str) -> _Row:
    return lambda w, operands: w.emit(operation, *operands, dtype=np.dtype(bool_))


def _log1p(w: _Writer, operands: Sequence[Value]) -> Value:
    return w.emit("Log", w.emit("Add", operands[0], w.number(1)))


def _expm1(w: _Writer, operands: Sequence[Value]) -> Value:
    """exp(x) - 1 as 2 sinh(x / 2) exp(x / 2), which keeps the digits of a small x."""
    half = w.emit("Mul", operands[0], w.number(0.5))
    product = w.emit("Mul", w.emit("Sinh", half), w.emit("Exp", half))
    return w.emit("Mul", product, w.number(2))


def _mod(w: _Writer, operands: Sequence[Value]) -> Value:
    """The remainder with the sign of the divisor, as in Python."""
    if not is_floating(w.dtype):
        return w.emit("Mod", *operands)
    a, b = operands
    return w.emit("Sub", a, w.emit("Mul", b, w.emit("Floor", w.emit("Div", a, b))))


def _floor_divide(w: _Writer, operands: Sequence[Value]) -> Value:
    a, b = operands
    if is_floating(w.dtype):
        return w.emit("Floor", w.emit("Div", a, b))
    return w.emit("Div", w.emit("Sub", a, _mod(w, operands)), b)


# The ONNX form of every operation of an `Expr` but `where`.
ROWS: Final[Mapping[str, _Row]] = {
    "add": _plain("Add"),
    "sub": _plain("Sub"),
    "mul": _plain("Mul"),
    "div": _plain("Div"),
    "pow": _plain("Pow"),
    "abs": _plain("Abs"),
    "sign": _plain("Sign"),
    "exp": _plain("Exp"),
    "log": _plain("Log"),
    "log1p": _log1p,
    "expm1": _expm1,
    "sqrt": _plain("Sqrt"),
    "sin": _plain("Sin"),
    "cos": _plain("Cos"),
    "tanh": _plain("Tanh"),
    "erf": _plain("Erf"),
    "sigmoid": _plain("Sigmoid"),
    "softplus": _plain("Softplus"),
    "relu": _plain("Relu"),
    "floor": _plain("Floor"),
    "floor_divide": _floor_divide,
    "mod": _mod,
    "maximum": _plain("Max"),
    "minimum": _plain("Min"),
    "lt": _comparison("Less"),
    "le": _comparison("LessOrEqual"),
    "eq": _comparison("Equal"),
}
