"""The main loop of products on matrix units, independent of their loaders.

Tiles pass through workgroup memory as float16 while the next pair is loaded into registers, as in
`product.py`; a subgroup multiplies its part of them in matrices of the unit's shape.

float16 has the 11 significant bits of TF32 but not float32's range. So each row of a and each
column of b in float32 is multiplied by a power of two, which is exact, and the result by its
inverse. The powers come from `line_exponents.py`: they scale the largest magnitude of a line to
[2^13, 2^14), and elements 2^27 times smaller are still normal numbers.

`high` splits each number into two float16, x = hi + lo / 2048, and accumulates hi hi and
(hi lo + lo hi) separately. Units truncate when they add, so after `PIECE` steps of k the results
move to float32 registers, which round.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product as pairs
from typing import Final, Literal, TypeAlias

from rumus.gpu.device.matrix_units import SUBGROUP, Operand, Units
from rumus.gpu.products.product import Staged, summed_rows

Part: TypeAlias = Literal["high", "low"]  # of a number in two float16

PIECE: Final = 512  # steps of k that `high` accumulates in the units
TOP: Final = 13  # the exponent that the largest magnitude of a line is scaled to
PAD: Final = 8  # halves after each line of a tile, so that rows use different banks
ABREAST: Final = 16  # exponents that a lane reads at once
BIAS: Final = 127  # of a float32's exponent
SHIFT: Final = 2048.0  # between hi and lo


@dataclass(frozen=True, slots=True)
class UnitTile:
    """A workgroup's part of the result, the depth of one step, and a subgroup's part."""

    rows: int
    columns: int
    depth: int
    part_rows: int
    part_columns: int

    @property
    def parts(self) -> int:
        """The subgroups of a workgroup."""
        return (self.rows // self.part_rows) * (self.columns // self.part_columns)

    @property
    def lanes(self) -> int:
        """The invocations of a workgroup."""
        return SUBGROUP * self.parts

    @property
    def turns(self) -> int:
        """The number of buffers that a subgroup's results pass through in turn."""
        return 2 if self.parts <= 8 else 1

    def bytes(self, units: Units, is_high: bool) -> int:
        """The most workgroup memory that a pair of tiles and the results' buffers need."""
        edges = self.rows + self.columns
        halves = max(edges * (self.depth + PAD), self.depth * (edges + 2 * PAD))
        size = 4 if units.half == "f32" else 2
        passed = self.turns * self.parts * units.shape.rows * units.shape.columns
        return size * halves * (2 if is_high else 1) + 4 * (passed + edges)


class Halves:
    """A tile of one operand as float16 in workgroup memory.

    staged: its loader. is_scaled: whether memory holds float32, which may exceed float16's range.
    by_line: whether each line has its own power of two.
    """

    def __init__(
        self,
        staged: Staged,
        units: Units,
        is_high: bool,
        is_scaled: bool,
        *,
        by_line: bool = True,
    ) -> None:
        self.staged, self.units, self.is_scaled = staged, units, is_scaled
        self.by_line = by_line
        self.is_high = is_high
        depth = staged.tile.depth
        self.line = (depth if staged.along_k else staged.length) + PAD
        self.size = self.line * (staged.length if staged.along_k else depth)

    @property
    def memory(self) -> Iterator[str]:
        """The declarations of its workgroup memory."""
        n, half = self.staged.name, self.units.half
        yield f"var<workgroup> high_{n}: array<{half}, {self.size}>;"
        if self.is_high:
            yield f"var<workgroup> low_{n}: array<{half}, {self.size}>;"
        if self.is_scaled:
            yield f"var<workgroup> powers_{n}: array<vec4<f32>, {self.staged.length // 4}>;"

    def operand(self, name: str, level: Part) -> Operand:
        """An operand that is loaded from it, under this name."""
        memory = f"{level}_{self.staged.name}"
        return Operand(name, memory, self.line, self.staged.along_k)

    def place(self, along: str, step: int) -> str:
        """The start of the matrix at this position along the edge and this step of k."""
        if self.staged.along_k:
            return f"({along}) * {self.line}u + {step}u"
        return f"{step * self.line}u + {along}"

    def declare(self) -> Iterator[str]:
        """Declare the lane's positions for reading and writing."""
        n, along_k = self.staged.name, self.staged.along_k
        yield from self.staged.declare()
        for i in range(self.staged.loads):
            far, near = (f"{n}_along{i}", f"{n}_depth{i}")[:: 1 if along_k else -1]
            # In fours, so that the compiler can merge four adjacent stores.
            yield f"let {n}_place{i} = {far} * {self.line // 4}u + {near} / 4u;"

    def find_powers(self, first: int = 0) -> Iterator[str]:
        """Write the powers of two of the tile's lines to workgroup memory.

        first: the lane that finds that of the first line.
        """
        n, lanes = self.staged.name, self.staged.tile.lanes
        if not self.is_scaled:
            return
        begin = f"(local + {lanes - first}u) % {lanes}u" if first else "local"
        yield f"for (var line = {begin}; line < {self.staged.length}u; line += {lanes}u) {{"
        if self.by_line:
            yield f"let words = (k.{n}_length + 3u) / 4u;"
            yield f"let held = min((first_{n} + line) / 4u, words - 1u);"
            yield "let bits = line % 4u * 8u;"
            yield "var most = 0u;"
            yield f"for (var i = 0u; i < k.{n}_parts; i += {ABREAST}u) {{"
            for j in range(ABREAST):  # past the end the last one again, so that no read waits
                part = f"min(i + {j}u, k.{n}_parts - 1u)"
                yield f"let e{j} = exponents_{n}[exponents_base_{n} + {part} * words + held];"
            yield from (f"most = max(most, (e{j} >> bits) & 255u);" for j in range(ABREAST))
            yield "}"
        else:
            yield f"let most = exponents_{n}[0];"
        yield f"powers_{n}[line / 4u][line % 4u] = power_for(most);"
        yield "}"

    def declare_powers(self) -> Iterator[str]:
        """Declare the lane's factors: of one line per vector, or of the same four lines for all."""
        n, staged = self.staged.name, self.staged
        if self.is_scaled and staged.along_k:
            for i in range(staged.loads):
                yield f"let by_{n}{i} = powers_{n}[{n}_along{i} / 4u][{n}_along{i} % 4u];"
        elif self.is_scaled:
            assert staged.tile.lanes % (staged.length // 4) == 0
            yield f"let by_{n} = powers_{n}[{n}_along0 / 4u];"

    def keep(self) -> Iterator[str]:
        """Write the fetched vectors to workgroup memory."""
        n = self.staged.name
        for i in range(self.staged.loads):
            own = i if self.staged.along_k else ""
            by = f" * by_{n}{own}" if self.is_scaled else ""
            lanes = self.staged.lanes_of(i)
            yield "{" if lanes is None else f"if (local < {lanes}u) {{"
            yield f"let x = {n}_next{i}{by};"
            yield f"let high = {'cut(x)' if self.is_high else 'x'};"
            yield from self._write("high", i, "high")
            if self.is_high:
                yield from self._write("low", i, f"(x - high) * {SHIFT}")
            yield "}"

    def _write(self, level: str, i: int, value: str) -> Iterator[str]:
        n = self.staged.name
        yield f"let {level}_halves = {self.units.halves(value)};"
        for c in range(4):
            yield f"{level}_{n}[{n}_place{i} * 4u + {c}u] = {level}_halves[{c}];"


# By bits, since drivers may assume that nothing is infinite.
FUNCTIONS: Final = f"""
fn power_for(exponent: u32) -> f32 {{ // the power that scales it to TOP; 1 for a line of zeros
    let brought = u32({TOP + 2 * BIAS}) - max(exponent, 16u);
    return bitcast<f32>(select(brought, {BIAS}u, exponent == 0u) << 23u);
}}

fn inverse(power: vec4<f32>) -> vec4<i32> {{ // the exponent of 1 / power
    return vec4<i32>({BIAS}) - vec4<i32>(bitcast<vec4<u32>>(power) >> vec4<u32>(23u));
}}

fn powers(n: vec4<i32>) -> vec4<f32> {{
    return bitcast<vec4<f32>>(vec4<u32>(n + vec4<i32>({BIAS})) << vec4<u32>(23u));
}}

fn cut(x: vec4<f32>) -> vec4<f32> {{ // to the 11 upper bits
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(x) & vec4<u32>(0xffffe000u));
}}

fn is_finite4(x: vec4<f32>) -> vec4<bool> {{
    return (bitcast<vec4<u32>>(x) & vec4<u32>(0x7f800000u)) != vec4<u32>(0x7f800000u);
}}
"""


@dataclass(frozen=True, slots=True)
class Held:
    """Four elements of a matrix of results that a lane holds.

    name: what is declared for them ends so. place: lines that declare place_row and place_column,
    the position of the first in the tile. scaling: lines that `value` needs.
    """

    name: str
    place: Sequence[str]
    scaling: Sequence[str]
    value: str


class UnitProduct:
    """The text that multiplies two operands; `held` then says what a lane holds of the result.

    A lane holds vectors of four elements of each matrix in its subgroup's part of the tile, beside
    those of other lanes, so that memory is written in whole sectors. By default they are adjacent
    in a row; if `apart`, they are in one column, which is better where elements are written one by
    one. With `turns_over`, which needs unscaled operands, it can also read adjacent elements of a
    column.
    """

    def __init__(
        self,
        tile: UnitTile,
        units: Units,
        a: Halves,
        b: Halves,
        *,
        has_sums: bool = False,
        apart: bool = False,
    ) -> None:
        self.tile, self.units, self.a, self.b, self.has_sums = tile, units, a, b, has_sums
        # The rows from one element of a lane to its next, 0 if they are adjacent in a row.
        self.apart = SUBGROUP // units.shape.columns if apart else 0
        self.is_high = a.is_high and b.is_high
        self.is_scaled = a.is_scaled or b.is_scaled
        shape = units.shape
        down, across = tile.part_rows // shape.rows, tile.part_columns // shape.columns
        self.matrices = list(pairs(range(down), range(across)))
        self.down, self.across = down, across
        self.size = shape.rows * shape.columns  # of a result
        self.fours = range(self.size // SUBGROUP // 4)  # a lane's vectors of a result

    @property
    def memory(self) -> Iterator[str]:
        """The functions that it calls, and the declarations of workgroup memory.

        All sizes are multiples of 16 bytes: drivers place variables one after another, and units
        read wrong numbers from unaligned ones.
        """
        yield FUNCTIONS
        yield from self.a.memory
        yield from self.b.memory
        yield f"var<workgroup> passed: array<f32, {self.tile.turns * self.tile.parts * self.size}>;"

    def multiply(self) -> Iterator[str]:
        """Add up the products from k = `begin` to `end`."""
        tile, parts = self.tile, self.tile.columns // self.tile.part_columns
        yield f"let part = local / {SUBGROUP}u;"
        yield f"let part_row = part / {parts}u * {tile.part_rows}u;"
        yield f"let part_column = part % {parts}u * {tile.part_columns}u;"
        yield f"let lane = local % {SUBGROUP}u{'' if self.apart else ' * 4u'};"
        yield f"let lane_row = lane / {self.units.shape.columns}u;"
        yield f"let lane_column = lane % {self.units.shape.columns}u;"
        yield from (*self.a.declare(), *self.b.declare())
        yield f"let last = begin + (end - begin - 1u) / {tile.depth}u * {tile.depth}u;"
        yield from (self.units.declare(f"{kind}{i}_{j}") for kind, i, j in self._results())
        if self.has_sums:
            yield from (f"var sum{i} = vec4<f32>(0.0);" for i in range(self.a.staged.loads))
        if self.is_high:
            for i, j in self.matrices:
                yield from (f"var total{i}_{j}_{v} = vec4<f32>(0.0);" for v in self.fours)
        yield from self._fetch("begin")
        if self.is_scaled:
            # By other lanes, which read at the same time.
            first = self.a.staged.length % tile.lanes if self.a.is_scaled else 0
            yield from (*self.a.find_powers(), *self.b.find_powers(first))
            yield "workgroupBarrier();"
        yield from (*self.a.declare_powers(), *self.b.declare_powers())
        yield from self._add_up()
        if self.has_sums:
            yield from self._row_sums()

    def _results(self) -> Iterator[tuple[str, int, int]]:
        """The kinds and places of the results: c, and d for corrections."""
        yield from (("c", i, j) for i, j in self.matrices)
        yield from (("d", i, j) for i, j in self.matrices if self.is_high)

    def _fetch(self, at: str) -> Iterator[str]:
        yield from (*self.a.staged.fetch(at), *self.b.staged.fetch(at))

    def _add_up(self) -> Iterator[str]:
        yield from (*self._sum("true"), *self.a.keep(), *self.b.keep())
        yield "workgroupBarrier();"
        if not self.is_high:
            yield from self._steps("begin", "end")
            return
        yield f"for (var piece = begin; piece < end; piece += {PIECE}u) {{"
        yield from self._steps("piece", f"min(piece + {PIECE}u, end)")
        yield from self._add_piece()
        yield "}"

    def _steps(self, begin: str, end: str) -> Iterator[str]:
        """Multiply the tiles in workgroup memory while the next ones are fetched."""
        yield f"for (var at = {begin}; at < {end}; at += {self.tile.depth}u) {{"
        yield f"let next = min(at + {self.tile.depth}u, last);"
        yield from (*self._fetch("next"), *self._sum(f"at + {self.tile.depth}u < end"))
        yield from self._multiply()
        yield "workgroupBarrier();"
        yield from (*self.a.keep(), *self.b.keep())
        yield "workgroupBarrier();"
        yield "}"

    def _multiply(self) -> Iterator[str]:
        shape = self.units.shape
        levels: tuple[Part, ...] = ("high", "low") if self.is_high else ("high",)
        for step in range(0, self.tile.depth, shape.depth):
            yield "{"
            left = {}
            for i, level in pairs(range(self.down), levels):
                left[i, level] = self.a.operand(f"{level}_left{i}", level)
                at = self.a.place(f"part_row + {i * shape.rows}u", step)
                yield self.units.left(left[i, level], at)
            for j in range(self.across):
                at = self.b.place(f"part_column + {j * shape.columns}u", step)
                right = {level: self.b.operand(f"{level}_right{j}", level) for level in levels}
                yield from (self.units.right(operand, at) for operand in right.values())
                for i in range(self.down):
                    yield from self.units.add(f"c{i}_{j}", left[i, "high"], right["high"])
                    if self.is_high:
                        yield from self.units.add(f"d{i}_{j}", left[i, "high"], right["low"])
                        yield from self.units.add(f"d{i}_{j}", left[i, "low"], right["high"])
            yield "}"

    def _add_piece(self) -> Iterator[str]:
        """Add the results of a piece to the totals, and clear them."""
        for number, (i, j) in enumerate(self.matrices):
            yield from self._pass(f"c{i}_{j}", 2 * number)
            yield from self._pass(f"d{i}_{j}", 2 * number + 1)
            for v in self.fours:
                main, rest = f"lane_c{i}_{j}_{v}", f"lane_d{i}_{j}_{v}"
                both = f"{main} + {rest} * {1 / SHIFT}"  # NaN where 0 meets infinity
                yield f"total{i}_{j}_{v} += select({main}, {both}, is_finite4({main}));"
        yield from (self.units.clear(f"{kind}{i}_{j}") for kind, i, j in self._results())

    def hand_over(self, number: int) -> Iterator[str]:
        """Pass matrix `number` of the results to the lanes, unless they have it."""
        i, j = self.matrices[number]
        if not self.is_high:
            yield from self._pass(f"c{i}_{j}", number)

    def _pass(self, result: str, number: int) -> Iterator[str]:
        """Pass a result to the lanes through workgroup memory, by the buffers in turn."""
        if self.tile.turns == 1:
            yield "workgroupBarrier();"
        turn = number % self.tile.turns * self.tile.parts
        at = f"(part + {turn}u) * {self.size}u"
        yield self.units.store(result, "passed", at, f"{self.units.shape.columns}u")
        yield "workgroupBarrier();"
        for v in self.fours:
            step = SUBGROUP if self.apart else 1
            elements = (f"passed[{at} + lane + {_first(v) + c * step}u]" for c in range(4))
            yield f"let lane_{result}_{v} = vec4<f32>({', '.join(elements)});"

    @property
    def turns_over(self) -> bool:
        """Whether `turned` can be used."""
        return not (self.is_high or self.is_scaled)

    def turned(self, number: int) -> Iterator[tuple[list[str], str]]:
        """Yield lines and four elements of the transpose of matrix `number` in its buffer.

        The lines declare place_row and place_column, the position of the first in the transposed
        tile.
        """
        assert self.turns_over
        shape, (i, j) = self.units.shape, self.matrices[number]
        at = f"(part + {number % self.tile.turns * self.tile.parts}u) * {self.size}u"
        for v in self.fours:
            elements = (f"passed[{at} + (near + {c}u) * {shape.columns}u + far]" for c in range(4))
            lines = [
                f"let near = (lane + {_first(v)}u) % {shape.rows}u;",
                f"let far = (lane + {_first(v)}u) / {shape.rows}u;",
                f"let place_row = part_column + {j * shape.columns}u + far;",
                f"let place_column = part_row + {i * shape.rows}u + near;",
            ]
            yield lines, f"vec4<f32>({', '.join(elements)})"

    def _sum(self, condition: str) -> Iterator[str]:
        """Add up the fetched vectors of a in float32, but not the last tile's second fetch.

        By select: a branch around the sums made an NVIDIA driver multiply wrong numbers.
        """
        for i in range(self.a.staged.loads if self.has_sums else 0):
            yield f"sum{i} += select(vec4<f32>(0.0), a_next{i}, {condition});"

    def _row_sums(self) -> Iterator[str]:
        """Add up the lanes' sums of each row into total0 ... of `summed_rows`."""
        staged, lanes = self.a.staged, self.tile.lanes
        if staged.along_k:  # vector v of a tile has elements of row v / (depth / 4)
            for i in range(staged.loads):
                yield f"passed[local + {i * lanes}u] = dot(sum{i}, vec4<f32>(1.0));"
            count, far, near = self.tile.depth // 4, self.tile.depth // 4, 1
        else:  # all vectors of a lane have elements of the same four rows
            assert lanes % (staged.length // 4) == 0
            yield f"let of_four = {' + '.join(f'sum{i}' for i in range(staged.loads))};"
            yield from (f"passed[local * 4u + {c}u] = of_four[{c}];" for c in range(4))
            count, far, near = lanes * 4 // staged.length, 1, staged.length
        yield "workgroupBarrier();"
        for total, row in summed_rows(self.tile):
            yield f"var {total} = 0.0;"
            yield f"if ({row} < {self.tile.rows}u) {{"
            yield f"for (var i = 0u; i < {count}u; i++) {{"
            yield f"{total} += passed[{row} * {far}u + i * {near}u];"
            yield "}"
            yield "}"
        yield "workgroupBarrier();"

    def held(self, number: int) -> Iterator[Held]:
        """What a lane holds of matrix `number`, after `hand_over`."""
        shape, (i, j) = self.units.shape, self.matrices[number]
        for v in self.fours:
            name = f"{number}_{v}"
            value = f"total{i}_{j}_{v}" if self.is_high else f"lane_c{i}_{j}_{v}"
            row, column = i * shape.rows + _first(v) // shape.columns, j * shape.columns
            place = (
                f"let place_row_{name} = part_row + {row}u + lane_row;",
                f"let place_column_{name} = part_column + {column}u + lane_column;",
            )
            scaling = tuple(self._exponent(f"place_row_{name}", f"place_column_{name}"))
            if scaling:
                value += " * powers(half) * powers(rest)"
            yield Held(name, place, scaling, value)

    def _exponent(self, row: str, column: str) -> Iterator[str]:
        """The power of two of each element, as two factors that do not overflow on their own."""
        if not self.is_scaled:
            return
        terms = []
        if self.a.is_scaled:
            rows = [f"({row} + {c * self.apart}u)" for c in range(4)] if self.apart else [row]
            terms.append(f"vec4<f32>({', '.join(f'powers_a[{r} / 4u][{r} % 4u]' for r in rows)})")
        if self.b.is_scaled:
            four = f"powers_b[{column} / 4u]"
            terms.append(f"vec4<f32>({four}[{column} % 4u])" if self.apart else four)
        yield f"let exponent = {' + '.join(f'inverse({term})' for term in terms)};"
        yield "let half = exponent >> vec4<u32>(1u);"
        yield "let rest = exponent - half;"


def _first(v: int) -> int:
    """The first element of vector `v` of the lanes."""
    return 4 * SUBGROUP * v
