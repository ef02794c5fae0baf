"""A kernel, printed as a Python function of NumPy calls.

The function evaluates one block. Its arguments are the kernel's arrays, its scalars, its outputs
and scratch arrays for what lies between. A scratch array is used again as soon as its value is no
longer needed, and an output that replaces an input is one as long as neither is there: a block of a
long kernel still fits the cache, and a call that writes where it reads moves a third less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.backends.numpy_integers import convert
from rumus.tensor.compiled import special
from rumus.tensor.expression.dtype import DType, bool_
from rumus.tensor.expression.expr import Expr
from rumus.tensor.expression.kernel import Kernel, Types

FUNCTIONS: Final[Mapping[str, Callable[..., object]]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.true_divide,
    "pow": np.power,
    "abs": np.absolute,
    "sign": np.sign,
    "exp": np.exp,
    "log": np.log,
    "log1p": np.log1p,
    "expm1": np.expm1,
    "sqrt": np.sqrt,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "erf": special.erf,
    "sigmoid": special.sigmoid,
    "softplus": special.softplus,
    "relu": special.relu,
    "floor": np.floor,
    "floor_divide": np.floor_divide,
    "mod": np.remainder,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "lt": np.less,
    "le": np.less_equal,
    "eq": np.equal,
    "where": special.where,
}


@dataclass(frozen=True, slots=True)
class NumpyProgram:
    """A compiled kernel: `run(*arrays, *scalars, *outputs, *scratch)`."""

    run: Callable[..., None]
    scratch: tuple[DType, ...]  # the dtypes of the scratch arrays
    source: str
    compute: DType

    def numbers(self, scalars: Sequence[float]) -> Sequence[Any]:
        """Return the scalars as `run` is faster with: arrays of what it computes in.

        NumPy would convert a Python number in each call, and go over the arrays in pieces then.
        Callers have its warnings turned off.

        scalars: in the order of the kernel's.
        """
        if self.compute.kind != "f":
            return scalars
        return [np.array(scalar, self.compute) for scalar in scalars]


def _copy(source: Any, out: NDArray[Any]) -> None:
    convert(np.asarray(source), out)


def compile_program(kernel: Kernel, dtypes: tuple[DType, ...]) -> NumpyProgram:
    """Return the function of NumPy calls that evaluates `kernel` for inputs of `dtypes`."""
    printer = _Printer(kernel, kernel.types(dtypes), dict(zip(kernel.arrays, dtypes, strict=True)))
    source = printer.source()
    namespace: dict[str, Any] = {**FUNCTIONS, "copy": _copy, "inf": np.inf, "nan": np.nan}
    compute = printer.types.compute
    with np.errstate(all="ignore"):
        for text, name in printer.constants.items():
            namespace[name] = np.array(float(text), compute)
    exec(source, namespace)  # generated from the kernel's nodes, with nothing a caller wrote
    return NumpyProgram(namespace["run"], tuple(printer.scratch), source, compute)


class _Printer:
    """Visits the nodes in order, and decides where each value is stored."""

    def __init__(self, kernel: Kernel, types: Types, given: Mapping[str, DType]) -> None:
        self.kernel, self.types, self.given = kernel, types, given
        self.scratch: list[DType] = []
        self.free: list[int] = []
        self.lent: set[int] = set()  # outputs that hold a value in between
        self.home: dict[Expr, str] = {}
        self.constants: dict[str, str] = {}  # the names of numbers, as arrays, by their text
        self.lines: list[str] = []
        self.number = {node: step for step, node in enumerate(kernel.nodes)}
        self.last_use, self.last_read = self._lifetimes()

    def _lifetimes(self) -> tuple[dict[Expr, int], dict[str, int]]:
        """For each node, and for each input array by name, the step that reads it last."""
        last_use: dict[Expr, int] = {}
        last_read: dict[str, int] = {}
        for step, node in enumerate(self.kernel.nodes):
            for operand in node.operands:
                last_use[operand] = step
                if operand.operation == "array":
                    last_read[operand.name] = step
        end = len(self.kernel.nodes)
        for output in self.kernel.outputs.values():
            last_use[output] = end
            if output.operation == "array":
                last_read[output.name] = end
        return last_use, last_read

    def source(self) -> str:
        """The text of the function `run`."""
        for index, uniform in enumerate(self.kernel.uniforms):
            self.home[uniform] = f"s{index}"
        for step, node in enumerate(self.kernel.nodes):
            operands = self._operands(node)
            for operand in dict.fromkeys(node.operands):
                self._release(operand, step)
            self.home[node] = self._destination(node, step)
            self.lines.append(f"{node.operation}({', '.join(operands)}, out={self.home[node]})")
        self._copy_outputs()
        counts = (
            (len(self.kernel.arrays), "a"),
            (len(self.kernel.uniforms), "s"),
            (len(self.kernel.outputs), "out"),
            (len(self.scratch), "t"),
        )
        arguments = ", ".join(f"{letter}{i}" for count, letter in counts for i in range(count))
        return f"def run({arguments}):\n    " + "\n    ".join(self.lines or ["pass"]) + "\n"

    def _operands(self, node: Expr) -> list[str]:
        """The names of a node's operands; masks in arithmetic become numbers first."""
        values = [self._value(operand) for operand in node.operands]
        if node.operation != "where" and self.types.compute.kind == "f":
            for position, operand in enumerate(node.operands):
                if operand.operation == "constant":
                    text = values[position]
                    values[position] = self.constants.setdefault(text, f"c{len(self.constants)}")
        masks = self.types.masks
        arrays = [operand for operand in node.operands if not operand.uniform]
        if node in masks or node.operation == "where" or any(a not in masks for a in arrays):
            return values
        # NumPy would stay in booleans, where True + True is True.
        numbers = {mask: self._new(self.types.compute) for mask in dict.fromkeys(arrays)}
        for mask, number in numbers.items():
            self.lines.append(f"copy({self._value(mask)}, out={number})")
            self.free.append(int(number[1:]))
        pairs = zip(node.operands, values, strict=True)
        return [numbers.get(operand, value) for operand, value in pairs]

    def _copy_outputs(self) -> None:
        """Write values not yet in their outputs, first saving inputs that this would overwrite."""
        replaced: list[str] = []  # arguments that share memory with an output
        values = []
        for name, output in self.kernel.outputs.items():
            value = self._value(output)
            if value in replaced:
                saved = self._new(self.types.of(output))
                self.lines.append(f"copy({value}, out={saved})")
                value = saved
            values.append(value)
            is_input = name in self.kernel.arrays
            replaced.append(f"a{self.kernel.arrays.index(name)}" if is_input else "")
        for index, value in enumerate(values):
            if value not in (f"out{index}", replaced[index]):
                self.lines.append(f"copy({value}, out=out{index})")

    def _value(self, node: Expr) -> str:
        """The name of a value, after converting an input of another dtype."""
        if node.operation == "constant":
            whole = self.types.compute.kind == "i" and float(node.value).is_integer()
            return repr(int(node.value) if whole else float(node.value))
        if node.operation == "array" and node not in self.home:
            argument = f"a{self.kernel.arrays.index(node.name)}"
            if self.given[node.name] in (self.types.compute, bool_):
                return argument
            self.home[node] = self._new(self.types.compute)
            self.lines.append(f"copy({argument}, out={self.home[node]})")
        return self.home[node]

    def _destination(self, node: Expr, step: int) -> str:
        """The output's own array if nothing still reads what it replaces, else scratch."""
        for index, (name, output) in enumerate(self.kernel.outputs.items()):
            replaced = self.last_read.get(name, -1) > step
            if output is node and not replaced and self.types.results[index] == self.types.of(node):
                return f"out{index}"
        return self._borrowed(node, step) or self._new(self.types.of(node))

    def _borrowed(self, node: Expr, step: int) -> str | None:
        """An output that replaces an input nobody reads any more, until its own value is there."""
        for index, (name, output) in enumerate(self.kernel.outputs.items()):
            last = self.last_read.get(name)
            if (
                last is not None
                and last <= step
                and index not in self.lent
                and self.types.results[index] == self.types.of(node)
                and output in self.number
                and step < self.number[output]
                and self.last_use[node] <= self.number[output]
            ):
                self.lent.add(index)
                return f"out{index}"
        return None

    def _new(self, dtype: DType) -> str:
        for index in reversed(self.free):  # the one freed last is most likely in cache
            if self.scratch[index] == dtype:
                self.free.remove(index)
                return f"t{index}"
        self.scratch.append(dtype)
        return f"t{len(self.scratch) - 1}"

    def _release(self, node: Expr, step: int) -> None:
        home = self.home.get(node, "")
        if self.last_use[node] != step:
            return
        if home.startswith("t"):
            self.free.append(int(home[1:]))
        elif home.startswith("out"):
            self.lent.discard(int(home[3:]))
