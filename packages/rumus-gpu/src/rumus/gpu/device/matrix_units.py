"""Matrix units in WGSL, and the same arithmetic in plain loops.

A matrix unit multiplies small float16 matrices and accumulates in float32; the lanes of a subgroup
share each matrix. No software driver has such units, so every program that uses them can also be
generated with loops over workgroup memory: tests of those cover all but the unit itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

from rumus.gpu.engine.protocol import Adapter

Precision: TypeAlias = Literal["highest", "high", "medium"]  # of products of float32
PRECISIONS: Final[tuple[Precision, ...]] = "highest", "high", "medium"
SUBGROUP: Final = 32  # lanes that share a matrix


@dataclass(frozen=True, slots=True)
class UnitShape:
    """The size of one product: (rows, depth) times (depth, columns)."""

    rows: int
    columns: int
    depth: int


@dataclass(frozen=True, slots=True)
class Operand:
    """A matrix in workgroup memory, one line after the other.

    name: of the variable for a loaded part. memory: the array. line: elements from line to line.
    along_k: whether adjacent elements of a line are adjacent along k.
    """

    name: str
    memory: str
    line: int
    along_k: bool

    @property
    def strides(self) -> tuple[int, int]:
        """The strides across k and along k, in elements."""
        return (self.line, 1) if self.along_k else (1, self.line)


class Units(Protocol):
    """How a program multiplies matrices in workgroup memory; part of a pipeline's key."""

    def __hash__(self) -> int:
        """Equal for equal texts."""

    @property
    def shape(self) -> UnitShape:
        """The size of one product."""

    @property
    def features(self) -> tuple[str, ...]:
        """The features, of `Feature`, that a device must have."""

    @property
    def half(self) -> str:
        """The type of an operand's element in workgroup memory."""

    @property
    def holds(self) -> bool:
        """Whether loaded values survive overwriting the memory they came from."""

    def halves(self, value: str) -> str:
        """Return the expression for a vec4<f32> rounded to float16."""

    def declare(self, name: str) -> str:
        """Declare a result that is 0."""

    def left(self, operand: Operand, at: str) -> str:
        """Load the left operand that begins at element `at`."""

    def right(self, operand: Operand, at: str) -> str:
        """Load the right operand that begins at element `at`."""

    def add(self, result: str, left: Operand, right: Operand) -> Iterator[str]:
        """Add the product of two loaded operands to a result."""

    def clear(self, result: str) -> str:
        """Set a result to 0."""

    def store(self, result: str, memory: str, at: str, line: str) -> str:
        """Write a result row by row to float32 memory, `line` elements apart."""


@dataclass(frozen=True, slots=True)
class MatrixUnits:
    """The device's units, through Dawn's extension of WGSL."""

    shape: UnitShape

    @property
    def features(self) -> tuple[str, ...]:
        """See `Units`."""
        return "shader-f16", "subgroups", "matrix-units"

    @property
    def half(self) -> str:
        """See `Units`."""
        return "f16"

    @property
    def holds(self) -> bool:
        """See `Units`."""
        return True

    def halves(self, value: str) -> str:
        """See `Units`."""
        return f"vec4<f16>({value})"

    def declare(self, name: str) -> str:
        """See `Units`."""
        return f"var {name} = {self._result}();"

    @property
    def _result(self) -> str:
        return f"subgroup_matrix_result<f32, {self.shape.columns}, {self.shape.rows}>"

    def left(self, operand: Operand, at: str) -> str:
        """See `Units`."""
        kind = f"subgroup_matrix_left<f16, {self.shape.depth}, {self.shape.rows}>"
        return _load(operand, kind, at, by_columns=not operand.along_k)

    def right(self, operand: Operand, at: str) -> str:
        """See `Units`."""
        kind = f"subgroup_matrix_right<f16, {self.shape.columns}, {self.shape.depth}>"
        return _load(operand, kind, at, by_columns=operand.along_k)

    def add(self, result: str, left: Operand, right: Operand) -> Iterator[str]:
        """See `Units`."""
        yield f"{result} = subgroupMatrixMultiplyAccumulate({left.name}, {right.name}, {result});"

    def clear(self, result: str) -> str:
        """See `Units`."""
        return f"{result} = {self._result}();"

    def store(self, result: str, memory: str, at: str, line: str) -> str:
        """See `Units`."""
        return f"subgroupMatrixStore(&{memory}, {at}, {result}, false, {line});"


def _load(operand: Operand, kind: str, at: str, by_columns: bool) -> str:
    order = str(by_columns).lower()
    place = f"&{operand.memory}, {at}, {order}, {operand.line}u"
    return f"let {operand.name} = subgroupMatrixLoad<{kind}>({place});"


@dataclass(frozen=True, slots=True)
class PlainLoops:
    """The same in loops, for devices without units: operands are float32, rounded to float16.

    A lane holds adjacent elements of one row of a result. It reads operands when it multiplies
    them, so loading one only stores its start.
    """

    shape: UnitShape

    @property
    def features(self) -> tuple[str, ...]:
        """See `Units`."""
        return ()

    @property
    def half(self) -> str:
        """See `Units`."""
        return "f32"

    @property
    def holds(self) -> bool:
        """See `Units`."""
        return False

    @property
    def _each(self) -> int:
        """The elements of a result that a lane holds."""
        return self.shape.rows * self.shape.columns // SUBGROUP

    def halves(self, value: str) -> str:
        """See `Units`."""
        pairs = (f"unpack2x16float(pack2x16float(({value}).{pair}))" for pair in ("xy", "zw"))
        return f"vec4<f32>({', '.join(pairs)})"  # software drivers do round

    def declare(self, name: str) -> str:
        """See `Units`."""
        return f"var {name} = array<f32, {self._each}>();"  # in a loop, 0 again in each iteration

    def left(self, operand: Operand, at: str) -> str:
        """See `Units`."""
        row, _ = self._place
        return f"let {operand.name} = {at} + {row} * {operand.strides[0]}u;"

    def right(self, operand: Operand, at: str) -> str:
        """See `Units`."""
        _, column = self._place
        return f"let {operand.name} = {at} + {column} * {operand.strides[0]}u;"

    @property
    def _place(self) -> tuple[str, str]:
        """The row and the first column of the lane's elements."""
        first = f"(local % {SUBGROUP}u * {self._each}u)"
        return f"{first} / {self.shape.columns}u", f"{first} % {self.shape.columns}u"

    def add(self, result: str, left: Operand, right: Operand) -> Iterator[str]:
        """See `Units`."""
        across, along = right.strides
        yield f"for (var s = 0u; s < {self.shape.depth}u; s++) {{"
        yield f"let x = {left.memory}[{left.name} + s * {left.strides[1]}u];"
        yield f"for (var e = 0u; e < {self._each}u; e++) {{"
        yield f"{result}[e] += x * {right.memory}[{right.name} + s * {along}u + e * {across}u];"
        yield "}"
        yield "}"

    def clear(self, result: str) -> str:
        """See `Units`."""
        return f"{result} = array<f32, {self._each}>();"

    def store(self, result: str, memory: str, at: str, line: str) -> str:
        """See `Units`."""
        row, column = self._place
        place = f"{at} + {row} * {line} + {column}"
        loop = f"for (var e = 0u; e < {self._each}u; e++)"
        return f"{loop} {{ {memory}[{place} + e] = {result}[e]; }}"


def units_of(adapter: Adapter) -> MatrixUnits | None:
    """Return the largest float16 units that accumulate in float32, or None."""
    if not adapter.features.issuperset(("shader-f16", "subgroups", "matrix-units")):
        return None
    shapes = [
        UnitShape(unit.m, unit.n, unit.k)
        for unit in adapter.matrix_units
        if (unit.operands, unit.result) == ("f16", "f32")
        and unit.subgroup == (SUBGROUP, SUBGROUP)
        and not any(SUBGROUP % edge for edge in (unit.m, unit.n))
        and unit.m * unit.n % (4 * SUBGROUP) == 0
        and unit.k <= 16
    ]
    if not shapes:
        return None
    return MatrixUnits(max(shapes, key=lambda shape: shape.rows * shape.columns * shape.depth))
