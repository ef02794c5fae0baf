"""A kernel: named outputs, each an `Expr`, over named arrays and scalars.

Backends read kernels. What all of them need is computed here once: the nodes in execution order,
the uniform parts for the host, the dtypes, and a key that is equal for equal mathematics.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from rumus.tensor.expression.derivative import differentiate
from rumus.tensor.expression.dtype import (
    DType,
    bool_,
    float16,
    float32,
    int32,
    is_floating,
    promote,
)
from rumus.tensor.expression.expr import OPERATIONS, REDUCTION, Expr, postorder
from rumus.tensor.expression.printable import abridged

COMPARISONS: Final = frozenset({"lt", "le", "eq"})
LOGICAL: Final = COMPARISONS | {"where", "maximum", "minimum"}  # of booleans: a boolean
_EXACT: Final = COMPARISONS | {
    "add", "sub", "mul", "pow", "abs", "sign", "relu", "floor_divide", "mod", "maximum",
    "minimum", "where",
}  # fmt: skip
INFIX: Final = {"add": " + ", "sub": " - ", "mul": " * "}  # what Python never raises an error for
GRADIENT: Final = "gradient"  # the name of the incoming gradient in a derivative's arrays


def _plain(value: float) -> float:
    """A Python number: a NumPy scalar would promote the whole computation to its own dtype.

    TypeError for text and None, which NumPy would read as numbers; OverflowError for an integer
    beyond float64. A smaller one is rounded where no dtype of integers holds it.
    """
    found: Any = value.item() if isinstance(value, np.generic) else value
    if found is None or isinstance(found, (str, bytes)):
        raise TypeError(f"a scalar must be a number, not {found!r}")
    if isinstance(found, int) and not -(2**63) <= found < 2**63:
        try:
            return float(found)
        except OverflowError:
            raise OverflowError(f"the number {abridged(found)} is beyond float64") from None
    number: float = found
    return number


@dataclass(frozen=True, slots=True)
class Types:
    """The dtypes of a kernel for given inputs: of the computation and of the results."""

    compute: DType
    results: tuple[DType, ...]
    masks: frozenset[Expr]  # the nodes with boolean values

    def of(self, node: Expr) -> DType:
        """The dtype of `node`'s value while the kernel runs."""
        return bool_ if node in self.masks else self.compute


class Kernel:
    """A name and `{output: Expr}`.

    An output with the name of an input array updates that array in place. Other outputs must not
    share memory with an input.

    name: of the kernel in profiles and generated code.
    outputs: the expressions, by output name.
    arrays: the input arrays in the order of the call; by default, in the order of first use.
    """

    def __init__(
        self, name: str, outputs: Mapping[str, Expr], arrays: Sequence[str] | None = None
    ) -> None:
        self.name = name
        self.outputs = dict(outputs)
        order = postorder(self.outputs.values(), is_leaf=lambda node: node.uniform)
        if reductions := [node.name for node in order if node.operation == REDUCTION]:
            raise TypeError(
                f"kernel {name!r}: {reductions[0]}() works only in optimizer rules; a kernel sees "
                "one element at a time"
            )
        used = list(dict.fromkeys(node.name for node in order if node.operation == "array"))
        self.arrays = tuple(used if arrays is None else arrays)
        self.nodes = tuple(n for n in order if not n.uniform and n.operation != "array")
        self.uniforms = tuple(n for n in order if n.uniform and n.operation != "constant")
        leaves = postorder(self.uniforms)
        self.scalars = frozenset(n.name for n in leaves if n.operation == "scalar")
        self.constants = tuple(n.value for n in order if n.operation == "constant")
        if unknown := set(used) - set(self.arrays):
            raise ValueError(f"kernel {name!r} reads arrays it does not declare: {sorted(unknown)}")
        self._types: dict[tuple[DType, ...], Types] = {}
        self._gradients: dict[tuple[str, ...], Kernel] = {}
        self.key = self._structure(order)
        self._bind = self._compile_uniforms()

    def __repr__(self) -> str:
        return f"Kernel({self.name!r}, {self.key})"

    def _structure(self, order: Sequence[Expr]) -> str:
        """A text that is equal for two kernels exactly if they compute the same."""
        text: dict[Expr, str] = {}
        lines: list[str] = []
        for node in order:
            if node.operation == "array":
                text[node] = node.name
            elif node.operation == "constant":
                text[node] = repr(node.value)
            elif node.uniform:
                text[node] = f"s{self.uniforms.index(node)}"
            else:
                operands = ",".join(text[operand] for operand in node.operands)
                text[node] = f"t{len(lines)}"
                lines.append(f"{node.operation}({operands})")
        outputs = ";".join(f"{name}={text[node]}" for name, node in self.outputs.items())
        return f"{','.join(self.arrays)}|{';'.join(lines)}|{outputs}"

    def bind(self, scalars: Mapping[str, float]) -> tuple[float, ...]:
        """Return the values of `uniforms`, computed in float64. KeyError for a missing scalar.

        scalars: a number for each scalar, by name.
        """
        return self._bind(scalars)

    def _compile_uniforms(self) -> Callable[[Mapping[str, float]], tuple[float, ...]]:
        """Compile the uniform parts to one Python function: walking nodes at each step is slow.

        It runs what raises for an infinity or NaN first, which most numbers are not.
        """
        text: dict[Expr, str] = {}
        lines: list[str] = []
        namespace: dict[str, Any] = {"plain": _plain}
        for node in postorder(self.uniforms):
            if node.operation == "constant":
                text[node] = f"c{len(text)}"
                namespace[text[node]] = float(str(node.value))
            elif node.operation == "scalar":
                text[node] = f"s{len(lines)}"
                name = text[node]
                lines.append(f"{name} = scalars[{node.name!r}]")
                lines.append(f"if type({name}) is not float: {name} = plain({name})")
            else:
                operands = [text[operand] for operand in node.operands]
                sign, text[node] = INFIX.get(node.operation), f"t{len(lines)}"
                called = f"{node.operation}({', '.join(operands)})"
                lines.append(f"{text[node]} = {sign.join(operands) if sign else called}")
        lines.append(f"return ({''.join(f'{text[uniform]}, ' for uniform in self.uniforms)})")
        source = "def bind(scalars):\n    " + "\n    ".join(lines)
        raising = {name: getattr(each, "raising", each) for name, each in OPERATIONS.items()}
        spaces = {**namespace, **raising}, {**namespace, **OPERATIONS}
        for space in spaces:
            exec(source, space)
        quick, careful = (space["bind"] for space in spaces)

        def bind(scalars: Mapping[str, float]) -> tuple[float, ...]:
            found: tuple[float, ...]
            try:
                found = quick(scalars)
            except (ArithmeticError, ValueError):
                found = careful(scalars)
            return found

        return bind

    def types(self, dtypes: tuple[DType, ...]) -> Types:
        """Return the dtypes of computation and results for inputs of `dtypes`.

        dtypes: of the arrays, in the order of `arrays`.
        """
        found = self._types.get(dtypes)
        if found is None:
            found = self._types[dtypes] = self._infer(dtypes)
        return found

    def _infer(self, dtypes: tuple[DType, ...]) -> Types:
        storage = promote(*dtypes) if dtypes else float32
        if not is_floating(storage) and not self._exact():
            storage = float32
        elif storage == bool_ and any(node.operation not in LOGICAL for node in self.nodes):
            storage = int32
        compute = float32 if storage == float16 else storage
        given = dict(zip(self.arrays, dtypes, strict=True))
        masks: set[Expr] = set()
        for node in postorder(self.outputs.values(), is_leaf=lambda node: node.uniform):
            choices = node.operands[-2:]
            is_choice = node.operation in ("where", "maximum", "minimum")
            if (
                (node.operation == "array" and given[node.name] == bool_)
                or node.operation in COMPARISONS
                or (is_choice and all(choice in masks for choice in choices))
            ):
                masks.add(node)
        results = tuple(
            given.get(name, bool_ if node in masks else storage)  # in place: the array's dtype
            for name, node in self.outputs.items()
        )
        return Types(compute, results, frozenset(masks))

    def _exact(self) -> bool:
        """Whether integer inputs give integer outputs."""
        operations = all(node.operation in _EXACT for node in self.nodes)
        return operations and all(float(value).is_integer() for value in self.constants)

    def gradient(self, wrt: tuple[str, ...]) -> Kernel:
        """Return the kernel of the derivative with respect to the arrays named in `wrt`.

        It reads the inputs of this kernel that it needs, and the incoming gradient under the name
        `gradient`; its outputs are named `d_` plus the input's name.

        wrt: the name of an array.

        ValueError for a kernel with several outputs: it has no single incoming gradient.
        """
        found = self._gradients.get(wrt)
        if found is None:
            if len(self.outputs) != 1:
                raise ValueError(f"kernel {self.name!r} has {len(self.outputs)} outputs, not one")
            (output,) = self.outputs.values()
            leaves = [Expr.array(name) for name in wrt]
            derivatives = differentiate(output, Expr.array(GRADIENT), leaves)
            outputs = {f"d_{name}": d for name, d in zip(wrt, derivatives, strict=True)}
            found = self._gradients[wrt] = Kernel(f"{self.name}_gradient", outputs)
        return found


def trace(function: Callable[..., Any], name: str | None = None) -> Kernel:
    """Return the kernel of a function, by calling it once with leaves named like its parameters.

    Positional parameters are arrays, keyword-only ones are scalars. The function returns one `Expr`
    (the output is then called `out`) or a mapping of them. TypeError if it returns anything else.
    """
    parameters = inspect.signature(function).parameters.values()
    arrays = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    scalars = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    name = name or function.__name__
    traced = function(*map(Expr.array, arrays), **{s: Expr.scalar(s) for s in scalars})
    outputs = {"out": traced} if isinstance(traced, (Expr, int, float)) else traced
    if not isinstance(outputs, Mapping):
        raise TypeError(f"{name} must return an Expr or a mapping of them, not {traced!r}")
    return Kernel(name, {key: Expr.of(value) for key, value in outputs.items()}, arrays)
