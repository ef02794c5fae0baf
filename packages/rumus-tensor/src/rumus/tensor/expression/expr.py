"""Elementwise mathematics as a value.

An `Expr` describes what happens to one element. It has no shapes, indices or loops: backends read
it (NumPy calls ufuncs, numba and the GPU print a loop body), and its derivative is again an `Expr`.
Leaves are named arrays and named scalars. Subexpressions of scalars alone (`1 - beta**t`) are
`uniform`: they are never part of a kernel but computed on the host, in float64.
"""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn, TypeAlias

import numpy as np

from rumus.tensor.expression.arithmetic import Arithmetic

Number: TypeAlias = "Expr | float"


def _ieee(function: Callable[..., float], ufunc: Callable[..., float]) -> Callable[..., float]:
    """Wrap `function` to return the infinity or NaN of IEEE 754 where Python raises."""

    def call(*operands: float) -> float:
        try:
            return function(*operands)
        except (ArithmeticError, ValueError):
            with np.errstate(all="ignore"):
                return float(ufunc(*map(float, operands)))

    return call


REDUCTION: Final = "reduction"  # over a parameter, computed before the optimizer's kernel

# All operations, with their meaning for Python floats.
OPERATIONS: Final[Mapping[str, Callable[..., float]]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": _ieee(operator.truediv, np.true_divide),
    "pow": _ieee(math.pow, np.power),
    "abs": abs,
    "sign": lambda a: a if a != a else math.copysign(1, a) if a else 0.0,
    "exp": _ieee(math.exp, np.exp),
    "log": _ieee(math.log, np.log),
    "log1p": _ieee(math.log1p, np.log1p),
    "expm1": _ieee(math.expm1, np.expm1),
    "sqrt": _ieee(math.sqrt, np.sqrt),
    "sin": _ieee(math.sin, np.sin),
    "cos": _ieee(math.cos, np.cos),
    "tanh": math.tanh,
    "erf": math.erf,
    "sigmoid": lambda a: 0.5 * (1 + math.tanh(0.5 * a)),
    "softplus": lambda a: max(a, 0.0) + math.log1p(math.exp(-abs(a))),
    "relu": lambda a: a if a != a else max(a, 0.0),
    "floor": lambda a: float(np.floor(a)),
    "floor_divide": _ieee(operator.floordiv, np.floor_divide),
    "mod": _ieee(operator.mod, np.remainder),
    "maximum": lambda a, b: a if a != a else b if b != b else max(a, b),
    "minimum": lambda a, b: a if a != a else b if b != b else min(a, b),
    "lt": operator.lt,
    "le": operator.le,
    "eq": operator.eq,
    "where": lambda condition, a, b: a if condition else b,
}


@dataclass(frozen=True, slots=True, eq=False)
class Expr(Arithmetic["Expr"]):
    """One node: an operation on other nodes, or a leaf (`array`, `scalar`, `constant`).

    Arithmetic on an `Expr` builds a larger one. `==` compares identity; `eq(a, b)` is the
    operation. Operations on constants alone are folded immediately.

    operation: its name.
    operands: the nodes it is computed from.
    name: of an array or a scalar.
    value: of a constant.
    uniform: whether it is the same for all elements.
    height: of the tree below it.
    """

    operation: str
    operands: tuple[Expr, ...] = ()
    name: str = ""
    value: float = 0.0
    uniform: bool = False
    height: int = 0  # of the tree below: higher operands are computed first, to hold fewer values

    @staticmethod
    def array(name: str) -> Expr:
        """A leaf with its own value for each element.

        name: of an array of the kernel.
        """
        return Expr("array", name=name)

    @staticmethod
    def scalar(name: str) -> Expr:
        """A leaf that is one number for the whole call, passed at each call.

        name: of a scalar of the kernel.
        """
        return Expr("scalar", name=name, uniform=True)

    @staticmethod
    def constant(value: float) -> Expr:
        """A fixed number that becomes part of the kernel's text.

        value: a number.
        """
        return Expr("constant", value=value, uniform=True)

    @staticmethod
    def of(value: Number) -> Expr:
        """Return `value` itself, or the constant of a plain number; TypeError for anything else.

        value: an expression, or a number that becomes one.
        """
        if isinstance(value, Expr):
            return value
        if isinstance(value, numbers.Real):
            return Expr.constant(float(value))
        raise TypeError(f"an Expr combines with Exprs and numbers, not with {type(value).__name__}")

    def _apply(self, operation: str, *operands: Number) -> Expr:
        nodes = tuple(map(Expr.of, operands))
        if all(node.operation == "constant" for node in nodes):
            return Expr.constant(OPERATIONS[operation](*(node.value for node in nodes)))
        height = 1 + max(node.height for node in nodes)
        uniform = all(node.uniform for node in nodes)
        return Expr(operation, nodes, uniform=uniform, height=height)

    def tensor_norm(self) -> Expr:
        """Return the 2-norm over the element's parameter; only for optimizer rules.

        Only an optimizer's rule has parameters; any other kernel of it raises a TypeError.
        """
        return self._reduced("tensor_norm")

    def tensor_sum(self) -> Expr:
        """Return the sum over the element's parameter; see `tensor_norm`."""
        return self._reduced("tensor_sum")

    def tensor_mean(self) -> Expr:
        """Return the mean over the element's parameter; see `tensor_norm`."""
        return self._reduced("tensor_mean")

    def global_sum(self) -> Expr:
        """Return the sum over all parameters that an optimizer steps; see `tensor_norm`."""
        return self._reduced("global_sum")

    def _reduced(self, name: str) -> Expr:
        return Expr(REDUCTION, (self,), name=name, height=self.height + 1)

    def __bool__(self) -> NoReturn:
        raise TypeError(
            "an Expr has no truth value, because it stands for every element: use where() "
            "instead of if, and maximum() or minimum() instead of max() or min()"
        )


def postorder(
    roots: Iterable[Expr], is_leaf: Callable[[Expr], bool] = lambda node: False
) -> list[Expr]:
    """Return every node below `roots` once, operands before their users, without recursion.

    Nodes for which `is_leaf` holds are returned, but not their operands.
    """
    done: dict[Expr, None] = {}
    stack = [(root, False) for root in reversed(list(roots))]
    while stack:
        node, ready = stack.pop()
        if node in done:
            continue
        if ready or is_leaf(node):
            done[node] = None
        else:
            stack.append((node, True))
            highest_first = sorted(node.operands, key=lambda operand: -operand.height)
            stack.extend((operand, False) for operand in reversed(highest_first))
    return list(done)
