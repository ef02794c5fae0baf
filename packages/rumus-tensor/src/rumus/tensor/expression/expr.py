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
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias

import numpy as np

from rumus.tensor.expression.arithmetic import Arithmetic
from rumus.tensor.expression.other_names import OtherNames

Number: TypeAlias = "Expr | float"


def _ieee(function: Callable[..., float], ufunc: Callable[..., float]) -> Callable[..., float]:
    """Wrap `function` to return the infinity or NaN of IEEE 754 where Python raises."""

    def call(*operands: float) -> float:
        try:
            return function(*operands)
        except (ArithmeticError, ValueError):
            with np.errstate(all="ignore"):
                return float(ufunc(*map(float, operands)))

    call.raising = function  # type: ignore[attr-defined]
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

# NumPy's functions of other names than the operation; `_SWAPPED` take their operands in turn.
_OF_NUMPY: Final = {
    "absolute": "abs", "subtract": "sub", "multiply": "mul", "divide": "div", "power": "pow",
    "remainder": "mod", "less": "lt", "less_equal": "le", "greater": "lt", "greater_equal": "le",
}  # fmt: skip
_SWAPPED: Final = frozenset({"greater", "greater_equal"})

_ONE_ELEMENT: Final = "nothing: an expression stands for one element, without a shape"
EXPR: Final = OtherNames(
    "an Expr",
    {
        "norm": "x.tensor_norm(), in an optimizer's rule",
        "sum": "x.tensor_sum(), in an optimizer's rule",
        "mean": "x.tensor_mean(), in an optimizer's rule",
        "clamp": "x.maximum(low).minimum(high)",
        "clip": "x.maximum(low).minimum(high)",
        "max": "x.maximum(y)",
        "min": "x.minimum(y)",
        "pow": "x ** y",
        "square": "x * x",
        "rsqrt": "1 / x.sqrt()",
        "add": "x + y",
        "sub": "x - y",
        "mul": "x * y",
        "div": "x / y",
        "add_": "x + y, a new expression",
        "sub_": "x - y, a new expression",
        "mul_": "x * y, a new expression",
        "div_": "x / y, a new expression",
        "lerp": "x + weight * (y - x)",
        "shape": _ONE_ELEMENT,
        "ndim": _ONE_ELEMENT,
        "numel": _ONE_ELEMENT,
        "item": _ONE_ELEMENT,
        "numpy": _ONE_ELEMENT,
    },
)


@dataclass(frozen=True, slots=True, eq=False)
class Expr(Arithmetic["Expr"]):
    """One node: an operation on other nodes, or a leaf (`array`, `scalar`, `constant`).

    Arithmetic on an `Expr` builds a larger one, and so do NumPy's functions with a counterpart
    here: `np.sign(x)` is `x.sign()`. `==` compares identity; `eq(a, b)` is the operation.
    Operations on constants alone are folded immediately.

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

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        name = ufunc.__name__
        if name in ("equal", "not_equal"):
            return (inputs[0] is inputs[1]) == (name == "equal")
        operation = _OF_NUMPY.get(name, name)
        if operation not in OPERATIONS or method != "__call__" or options:
            raise TypeError(
                f"np.{name} does not take an Expr; see the methods of Expr for what does"
            )
        operands = [i.item() if isinstance(i, np.ndarray) and i.ndim == 0 else i for i in inputs]
        return self._apply(operation, *(reversed(operands) if name in _SWAPPED else operands))

    if not TYPE_CHECKING:  # so that type checkers see every method

        def __getattr__(self, name: str) -> NoReturn:
            EXPR.refuse(name)

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
