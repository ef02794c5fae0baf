"""WGSL of matrix products at the speed of float32 arithmetic: generated and unrolled.

A workgroup computes a tile of the result, an invocation a block of it in named variables. An
operand may be dense along k or across it, in float32 or float16; only its loader differs. All
arithmetic is float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rumus.gpu.device.pipelines import Program
from rumus.gpu.device.stored import Stored, enabling, vector
from rumus.gpu.products.epilogue import Finish
from rumus.gpu.products.product import Staged, opening, product, summed_rows
from rumus.gpu.products.tiling import Tile, Tiled, square_of

SUM_GROUP: Final = 64  # invocations of a workgroup that adds up parts
_BAND: Final = 8


@dataclass(frozen=True, slots=True)
class Kinds:
    """How each array is stored; the last two may be missing."""

    a: Stored
    b: Stored
    c: Stored
    bias: Stored | None
    sums: Stored | None

    @property
    def enabling(self) -> str:
        """The directives of a program that reads or writes them."""
        return enabling(self.a, self.b, self.c, self.bias, self.sums)


@dataclass(frozen=True, slots=True)
class TiledVariant:
    """The key of a pipeline."""

    tile: Tiled
    kinds: Kinds
    a_along_k: bool
    b_along_k: bool
    in_fours: tuple[bool, bool, bool]  # whether a, b and the result can be accessed four at a time
    exact: tuple[bool, bool, bool]  # whether no tile extends beyond the last row, column, step
    finish: Finish | None
    mirrors: bool = False  # the result equals its transpose, see `square_of`

    @property
    def has_sums(self) -> bool:
        """Whether the rows of a are summed as well."""
        return self.kinds.sums is not None


class _Operand(Staged):
    """A matrix that is dense along k or across it."""

    def __init__(self, name: str, length: int, along_k: bool, variant: TiledVariant) -> None:
        super().__init__(name, length, along_k, variant.tile)
        number = "ab".index(name)
        self.in_fours = variant.in_fours[number]
        self.is_exact, self.is_deep = variant.exact[number], variant.exact[2]
        self.stored = variant.kinds.a if name == "a" else variant.kinds.b

    def declare(self) -> Iterator[str]:
        """See `Staged`."""
        n = self.name
        for i in range(self.loads):
            along, depth = self.place(i)
            yield f"let {n}_along{i} = {along};"
            yield f"let {n}_depth{i} = {depth};"
            yield f"var {n}_next{i} = vec4<f32>(0.0);"
            if self._is_stepped(i):
                continue
            yield f"let {n}_index{i} = first_{n} + {n}_along{i};"
            if self.in_fours and not self.is_exact:
                last = f"k.{n}_length - {1 if self.along_k else 4}u"
                yield f"let {n}_held{i} = min({n}_index{i}, {last});"

        if self._is_stepped(0):
            begin = self._element(f"(first_{n} + {n}_along0)", f"{n}_depth0")
            yield f"let {n}_lane = (base_{n} + {begin}) / 4u;"
            yield f"let {n}_line = k.{n}_stride / 4u;"

    def _is_stepped(self, i: int) -> bool:
        """Whether vec4 `i` of a lane is a fixed number of lines after its first, never outside.

        One position and one multiplication per load then suffice, which saves registers.
        """
        is_inside = self.is_exact and self.is_deep and self.lanes_of(i) is None
        return self.in_fours and is_inside and self.step is not None

    def fetch(self, at: str) -> Iterator[str]:
        """See `Staged`."""
        for i in range(self.loads):
            if self._is_stepped(i):
                value = self._stepped(i, at)
            else:
                value = self._four(i, at) if self.in_fours else self._ones(i, at)
            if (lanes := self.lanes_of(i)) is not None:
                value = f"select(vec4<f32>(0.0), {value}, local < {lanes}u)"
            yield f"{self.name}_next{i} = {value};"

    def _stepped(self, i: int, at: str) -> str:
        n, lines = self.name, i * (self.step or 0)
        far, near = (f"{lines}u", f" + {at} / 4u") if self.along_k else (f"({at} + {lines}u)", "")
        return self.stored.load(f"{n}[{n}_lane + {far} * {n}_line{near}]", 4)

    def _four(self, i: int, at: str) -> str:
        """One load of four elements; 0 where they are outside."""
        n, depth = self.name, f"{at} + {self.name}_depth{i}"
        index = f"{n}_index{i}" if self.is_exact else f"{n}_held{i}"
        held = depth if self.is_deep else f"min({depth}, k.depth - {4 if self.along_k else 1}u)"
        value = self.stored.load(f"{n}[(base_{n} + {self._element(index, held)}) / 4u]", 4)
        inside = [] if self.is_exact else [f"{n}_index{i} < k.{n}_length"]
        inside += [] if self.is_deep else [f"{depth} < end"]
        return f"select(vec4<f32>(0.0), {value}, {' && '.join(inside)})" if inside else value

    def _ones(self, i: int, at: str) -> str:
        """Four loads of one element each; 0 where one is outside."""
        n, parts = self.name, []
        for c in range(4):
            depth = f"{at} + {n}_depth{i}" + (f" + {c}u" if self.along_k else "")
            index = f"{n}_index{i}" + ("" if self.along_k else f" + {c}u")
            place = self._element(f"min({index}, k.{n}_length - 1u)", f"min({depth}, k.depth - 1u)")
            inside = f"{index} < k.{n}_length && {depth} < end"
            value = self.stored.load(f"{n}[base_{n} + {place}]", 1)
            parts.append(f"select(0.0, {value}, {inside})")
        return f"vec4<f32>({', '.join(parts)})"

    def _element(self, index: str, depth: str) -> str:
        """The offset of an element from the start of the matrix."""
        n = self.name
        far, near = (index, depth) if self.along_k else (depth, index)
        return f"({far}) * k.{n}_stride + {near}"


_SCALARS: Final = (
    "a_length", "b_length", "depth", "a_start", "a_stride", "a_outer", "a_inner",
    "b_start", "b_stride", "b_outer", "b_inner", "c_start", "bias_start", "inner",
    "tile_columns", "tiles", "splits", "split_depth", "groups", "sums_start",
)  # fmt: skip


def tiled_program(variant: TiledVariant) -> Program:
    """Return the WGSL of a product in this variant."""
    tile = variant.tile
    assert isinstance(tile, Tile)
    a, b = operands(variant)
    text = [*header(variant), *opening(tile, a.memory, b.memory), *place(variant)]
    text += _body(variant, tile, a, b)
    return program("tiled_matmul", variant, text, tile.bytes)


def operands(variant: TiledVariant) -> tuple[Staged, Staged]:
    """The loaders of the tiles of a and of b."""
    tile = variant.tile
    a = _Operand("a", tile.rows, variant.a_along_k, variant)
    return a, _Operand("b", tile.columns, variant.b_along_k, variant)


def program(
    name: str,
    variant: TiledVariant,
    lines: Sequence[str],
    workgroup_bytes: int,
    scaled: Sequence[str] = (),
) -> Program:
    """The program of these lines, which lack the last bracket; scaled: see `header`."""
    finish = variant.finish
    access = "rrw" + "r" * (variant.kinds.bias is not None) + "w" * variant.has_sums
    access += "r" * len(scaled) + (finish.access if finish else "")
    whole = len(_SCALARS) + 3 * len(scaled)
    scalars = "I" * whole + "f" * (len(finish.members) if finish else 0)
    return Program(name, "\n".join([*lines, "}", ""]), access, scalars, workgroup_bytes)


def header(variant: TiledVariant, scaled: Sequence[str] = ()) -> Iterator[str]:
    """Scalars, bindings, and the function of the epilogue.

    scaled: the operands that come with `LineExponents`.
    """
    finish, kinds = variant.finish, variant.kinds
    yield kinds.enabling
    yield "struct Scalars {"
    yield from (f"    {name}: u32," for name in _SCALARS)
    for n in scaled:
        yield f"    {n}_parts: u32, {n}_parts_outer: u32, {n}_parts_inner: u32,"
    yield from finish.members if finish else ()
    yield "}"
    yield "var<immediate> k: Scalars;"
    widths = [4 if fours else 1 for fours in variant.in_fours]
    bound = [
        ("read", "a", vector(kinds.a.wgsl, widths[0])),
        ("read", "b", vector(kinds.b.wgsl, widths[1])),
        ("read_write", "c", vector(kinds.c.wgsl, widths[2])),
    ]
    bound += [("read", "bias", vector(kinds.bias.wgsl, widths[2]))] if kinds.bias else []
    bound += [("read_write", "sums", kinds.sums.wgsl)] if kinds.sums else []
    bound += [("read", f"exponents_{n}", "u32") for n in scaled]
    yield from _bindings(bound)
    if finish:
        yield from finish.declare(len(bound), widths[2])
        yield finish.function


def _bindings(bound: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    """Declare arrays, each given as (access, name, element)."""
    for number, (mode, name, element) in enumerate(bound):
        yield f"@group(0) @binding({number}) var<storage, {mode}> {name}: array<{element}>;"


def place(variant: TiledVariant) -> Iterator[str]:
    """The starts of the workgroup's operands, and the steps of k that it adds up."""
    tile = variant.tile
    yield "let split = linear % k.splits;"
    yield "let tile = (linear / k.splits) % k.tiles;"
    yield "let batch = linear / k.splits / k.tiles;"
    # Column by column through bands of rows: concurrent workgroups share operands in the cache.
    yield f"let band = tile / ({_BAND}u * k.tile_columns) * {_BAND}u;"
    yield "let in_band = tile - band * k.tile_columns;"
    yield f"let high = min({_BAND}u, k.tiles / k.tile_columns - band);"
    yield f"let first_a = (band + in_band % high) * {tile.rows}u;"
    yield f"let first_b = in_band / high * {tile.columns}u;"
    if variant.mirrors:
        side = square_of(tile)
        yield f"let square_a = first_a / {side}u;"
        yield f"let square_b = first_b / {side}u;"
        yield "if (square_a < square_b) {"
        yield "return;"
        yield "}"
    for n in "ab":
        yield (f"let base_{n} = k.{n}_start + batch / k.inner * k.{n}_outer"
               f" + batch % k.inner * k.{n}_inner;")  # fmt: skip
    yield "let begin = split * k.split_depth;"
    yield "let end = min(begin + k.split_depth, k.depth);"
    yield "let base_c = (batch * k.splits + split) * k.a_length * k.b_length;"
    if variant.has_sums:
        yield "let sums_up = first_b == 0u;"


def _body(variant: TiledVariant, tile: Tile, a: Staged, b: Staged) -> Iterator[str]:
    across, down = tile.columns // tile.block_columns, tile.rows // tile.block_rows
    yield f"let x = local % {across}u;"
    yield f"let y = local / {across}u;"
    yield from product(tile, a, b, variant.has_sums)
    yield from store_sums(variant)
    yield from _store(variant, tile, across, down)


def store_sums(variant: TiledVariant) -> Iterator[str]:
    """Write the sums of rows; with several splits, to this split's sums."""
    tile, sums = variant.tile, variant.kinds.sums
    for total, row in summed_rows(tile) if sums else ():
        yield f"if (sums_up && {row} < {tile.rows}u && first_a + {row} < k.a_length) {{"
        stored = sums.store(total, 1) if sums else total
        yield f"sums[k.sums_start + split * k.a_length + first_a + {row}] = {stored};"
        yield "}"


def _store(variant: TiledVariant, tile: Tile, across: int, down: int) -> Iterator[str]:
    """Write the block; with several splits, to this split's matrix."""
    for i in range(tile.block_rows):
        yield f"let row{i} = first_a + y * 4u + {i // 4 * down * 4 + i % 4}u;"
    for j in range(tile.block_columns // 4):
        yield f"let column{j} = first_b + x * 4u + {j * across * 4}u;"
    for i in range(tile.block_rows):
        for j in range(tile.block_columns // 4):
            four = Four(f"row{i}", f"column{j}", f"{i}_{j}")
            yield from load_four(variant, four)
            yield from store_four(variant, four, f"c{i}_{j}")


@dataclass(frozen=True, slots=True)
class Four:
    """Four elements of the result in an invocation: adjacent in a row, or `apart` rows in a column.

    row, column: variables with the position of the first. name: what is declared for them ends so.
    """

    row: str
    column: str
    name: str
    apart: int = 0

    def at(self, c: int) -> tuple[str, str]:
        """The row and column of element c."""
        if self.apart:
            return f"({self.row} + {c * self.apart}u)" if c else self.row, self.column
        return self.row, f"({self.column} + {c}u)" if c else self.column


def load_four(variant: TiledVariant, four: Four) -> Iterator[str]:
    """Declare what is read to finish four elements: the bias, and the inputs of the epilogue.

    Beyond the edges of the result the last ones are read.
    """
    in_fours, bias, finish = variant.in_fours[2], variant.kinds.bias, variant.finish
    read: dict[str, list[str]] = {}
    for c in range(1 if in_fours else 4):
        row, column = four.at(c)
        row = row if variant.exact[0] else f"min({row}, k.a_length - 1u)"
        last = f"k.b_length - {4 if in_fours else 1}u"
        column = column if variant.exact[1] else f"min({column}, {last})"
        if bias:
            at = f"k.bias_start + {column}"
            place, width = (f"({at}) / 4u", 4) if in_fours else (at, 1)
            read.setdefault("bias", []).append(bias.load(f"bias[{place}]", width))
        given = finish.given(f"base_c + {row} * k.b_length + {column}", in_fours) if finish else ()
        for number, value in enumerate(given):
            read.setdefault(f"given{number}", []).append(value)
    for array, values in read.items():
        value = values[0] if in_fours else f"vec4<f32>({', '.join(values)})"
        yield f"let {array}_{four.name} = {value};"


def store_four(variant: TiledVariant, four: Four, value: str) -> Iterator[str]:
    """Write four elements for which `load_four` has read. value: a variable."""
    in_fours, inputs = variant.in_fours[2], variant.finish.inputs if variant.finish else 0
    for c, part in enumerate(("",) if in_fours else (".x", ".y", ".z", ".w")):
        row, column = four.at(c)
        place = f"base_c + {row} * k.b_length + {column}"
        own = f"{value}{part}" + (f" + bias_{four.name}{part}" if variant.kinds.bias else "")
        given = [f"given{number}_{four.name}{part}" for number in range(inputs)]
        is_inside = in_fours and variant.exact[0] and variant.exact[1]
        yield "{" if is_inside else f"if ({row} < k.a_length && {column} < k.b_length) {{"
        yield from _written(variant, place, own, given, in_fours)
        if variant.mirrors and not in_fours:
            yield "if (square_a > square_b) {"
            mirrored = f"base_c + {column} * k.b_length + {row}"
            there = variant.finish.given(mirrored, in_fours) if variant.finish else ()
            yield from _written(variant, mirrored, own, there, in_fours)
            yield "}"
        yield "}"


def _written(
    variant: TiledVariant | Addition, place: str, value: str, given: Sequence[str], in_fours: bool
) -> Iterator[str]:
    """Write elements at offset `place` of the result, through the epilogue if there is one."""
    at = f"(k.c_start + {place}) / 4u" if in_fours else f"k.c_start + {place}"
    if variant.finish is None:
        yield f"c[{at}] = {variant.kinds.c.store(value, 4 if in_fours else 1)};"
    else:
        yield from variant.finish.store(place, at, value, given, in_fours)


@dataclass(frozen=True, slots=True)
class Addition:
    """The key of a pipeline that adds up the parts of a split product."""

    kinds: Kinds
    in_fours: bool
    finish: Finish | None


_ADDED: Final = ("size", "splits", "c_start", "columns", "bias_start", "rows", "sums_start")


def sum_program(variant: Addition) -> Program:
    """Return the WGSL that adds up the parts of a split product, with its bias and epilogue."""
    finish, kinds, width = variant.finish, variant.kinds, 4 if variant.in_fours else 1
    bias, sums, value = kinds.bias, kinds.sums, "total"
    if bias:
        at = f"bias[(k.bias_start + (i * {width}u) % k.columns) / {width}u]"
        value += f" + {bias.load(at, width)}"
    wide = vector("f32", width)
    bound = [("read", "parts", wide), ("read_write", "c", vector(kinds.c.wgsl, width))]
    bound += [("read", "part_sums", "f32")] if sums else []
    bound += [("read", "bias", vector(bias.wgsl, width))] if bias else []
    bound += [("read_write", "sums", sums.wgsl)] if sums else []
    lines = list(_bindings(bound))
    members = [f"{name}: u32," for name in _ADDED]
    if finish:
        lines += [*finish.declare(len(bound), width), finish.function]
        members += finish.members
    first = f"i * {width}u"
    given = finish.given(first, variant.in_fours) if finish else ()
    store = _written(variant, first, value, given, variant.in_fours)
    text = _SUM.format(
        enable=kinds.enabling,
        members="\n    ".join(members),
        declarations="\n".join(lines),
        group=SUM_GROUP,
        rows=_SUM_ROWS.replace("of_row;", f"{sums.store('of_row', 1)};") if sums else "",
        store="\n    ".join(store),
    )
    access = "".join("w" if mode == "read_write" else "r" for mode, _, _ in bound)
    access += finish.access if finish else ""
    scalars = "I" * len(_ADDED) + "f" * (len(finish.members) if finish else 0)
    return Program("add_splits", text, access, scalars)


_SUM: Final = """{enable}
struct Scalars {{
    {members}
}}
var<immediate> k: Scalars;
{declarations}
@compute @workgroup_size({group})
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {{
    let i = (group.y * groups.x + group.x) * {group}u + local;
    if (i >= k.size) {{
        {rows}
        return;
    }}
    var total = parts[i];
    for (var part = 1u; part < k.splits; part++) {{
        total += parts[part * k.size + i];
    }}
    {store}
}}
"""

_SUM_ROWS: Final = """let row = i - k.size;
        if (row < k.rows) {
            var of_row = part_sums[row];
            for (var part = 1u; part < k.splits; part++) {
                of_row += part_sums[part * k.rows + row];
            }
            sums[k.sums_start + row] = of_row;
        }"""
