"""A forward pass recorded as ONNX nodes, without the onnx package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from numpy.typing import NDArray

from rumus.tensor import DType
from rumus.tensor.memory.backend import Shape

OPSET: Final = 18
Attribute: TypeAlias = "int | float | str | tuple[int, ...] | tuple[str, ...]"


class OnnxExportError(ValueError):
    """A model does something that ONNX cannot express; the message says what, and where."""


@dataclass(frozen=True, slots=True)
class Value:
    """The result of a node, an input of the model, or a constant.

    constant: the numbers, if known.
    """

    name: str
    shape: Shape
    dtype: DType
    constant: NDArray[Any] | None = field(default=None, compare=False)


Operand: TypeAlias = "Value | tuple[int, ...] | None"


@dataclass(frozen=True, slots=True)
class Node:
    """One operation. Two traces of a model have equal nodes, except for lengths."""

    operation: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[tuple[str, Attribute], ...]


class Graph:
    """Nodes in order, and the constants that they read.

    lengths: the integers that nodes read, such as the shape for `Reshape`: only these may depend on
        the batch size.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self.lengths: dict[str, tuple[int, ...]] = {}
        self.reshaped: dict[str, Value] = {}  # results of `Reshape`, with its input
        self.made: dict[str, tuple[str, tuple[Operand, ...]]] = {}  # the node that makes each value
        self._known: dict[object, tuple[Value, ...]] = {}
        self._named: dict[object, str] = {}
        self._held: list[NDArray[Any]] = []  # so that an id in `_named` stays valid
        self._count = 0

    def emit(
        self,
        operation: str,
        inputs: Sequence[Operand],
        shape: Shape,
        dtype: DType,
        **attributes: Attribute,
    ) -> Value:
        """Write an operation with one result, or return the result of an equal one."""
        return self.emit_all(operation, inputs, [(shape, dtype)], **attributes)[0]

    def emit_all(
        self,
        operation: str,
        inputs: Sequence[Operand],
        results: Sequence[tuple[Shape, DType]],
        **attributes: Attribute,
    ) -> tuple[Value, ...]:
        """Write an operation; a tuple among the inputs is lengths, None an omitted input."""
        settings = tuple(sorted(attributes.items()))
        read = tuple(value.name if isinstance(value, Value) else value for value in inputs)
        key = (operation, read, settings, tuple(results))
        if key not in self._known:
            numbers = range(self._count, self._count + len(results))
            found = tuple(
                Value(f"t{n}", *result) for n, result in zip(numbers, results, strict=True)
            )
            self._count += len(results)
            names, outputs = tuple(map(self._name, inputs)), tuple(value.name for value in found)
            self.nodes.append(Node(operation, names, outputs, settings))
            self._known[key] = found
            self.made.update((name, (operation, tuple(inputs))) for name in outputs)
        return self._known[key]

    def constant(self, array: NDArray[Any], name: str | None = None) -> Value:
        """Return a constant; unnamed equal small ones are shared."""
        if name is None:
            is_small = array.size <= 64
            key = (array.dtype.str, array.shape, array.tobytes()) if is_small else id(array)
            self._held.append(array)
            name = self._named.setdefault(key, f"c{len(self._named)}")
        return Value(name, array.shape, array.dtype, array)

    def _name(self, value: Operand) -> str:
        if value is None:
            return ""
        if isinstance(value, Value):
            if value.constant is not None:
                self.constants.setdefault(value.name, value.constant)
            return value.name
        name = f"n{len(self.lengths)}"
        self.lengths[name] = value
        return name


def differences(first: Graph, second: Graph) -> str | None:
    """Describe what differs between two traces besides lengths; None if nothing does."""
    for a, b in zip(first.nodes, second.nodes, strict=False):
        if a != b:
            what = f"{a.operation} and {b.operation}" if a.operation != b.operation else a.operation
            return f"its operations depend on the size of the batch ({what})"
    if len(first.nodes) != len(second.nodes):
        return "the number of its operations depends on the size of the batch"
    for name, array in first.constants.items():
        other = second.constants[name]
        if array.shape != other.shape or array.tobytes() != other.tobytes():
            return (
                f"a constant depends on the size of the batch: of shape {array.shape}, then of "
                f"{other.shape}"
            )
    return None


def used(graph: Graph, outputs: Sequence[Value]) -> list[Node]:
    """Return the nodes that the outputs need, in order."""
    wanted = {value.name for value in outputs}
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if wanted.intersection(node.outputs):
            kept.append(node)
            wanted.update(node.inputs)
    return kept[::-1]
