"""WGSL of attention that never holds the weights: Dao et al., arXiv:2205.14135.

A workgroup owns some rows and walks the other rows in tiles: it owns queries in the forward pass
and for their gradient, keys for the gradients of keys and values. Rows pass through workgroup
memory in small pieces, so that several workgroups fit a multiprocessor. An invocation computes the
scores of a block of own and other rows in named variables, turns them into weights, passes these to
other lanes through workgroup memory, and adds up its columns of the products. No two workgroups
write the same element, so nothing is atomic, and the order of additions depends only on the shape.

The forward pass keeps only log2(sum(exp(scores))) of each row. From it the backward kernels
recompute the weights P, and with delta = rowsum(gradient * out): dS = P * (gradient V^T - delta).
Scores and what is kept are in units of log(2), for the built-in power of two; a change of units
would round a large score once more, and P with it. The error of the power grows with the distance
to the row's largest score, but the weight shrinks faster: 3 units in the last place of 1 at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from rumus.gpu.attention.attention_arrays import (
    BOUND,
    LOG_2,
    NAMES,
    NAN,
    NUMBERS,
    OF_VALUES,
    PER_LOG_2,
    Stage,
    at_edge,
    bindings,
    four,
    length,
    place,
    scalars,
    strided,
)
from rumus.gpu.device.pipelines import Program
from rumus.gpu.device.shaders import prelude
from rumus.gpu.device.stored import Stored, enabling
from rumus.gpu.products.entry import entry

_PARTS: Final = "xyzw"
Bases: TypeAlias = Mapping[str, str]  # the start of an array, if not base_{name}


@dataclass(frozen=True, slots=True)
class AttentionTile:
    """Lanes along the other and the own rows, and the own and other rows of each lane.

    across: 8 or 16. rows: 1, 2, 4 or 8. depth: vectors of a row in workgroup memory at a time for
    the scores; 2, 4 or 8. steps: whole rows in workgroup memory at a time for the products.
    """

    across: int
    down: int
    rows: int
    others: int
    depth: int = 4
    steps: int = 16

    @property
    def lanes(self) -> int:
        """The invocations of a workgroup."""
        return self.across * self.down

    @property
    def own(self) -> int:
        """The own rows of a workgroup."""
        return self.down * self.rows

    @property
    def other(self) -> int:
        """The other rows of one iteration."""
        return self.across * self.others

    @property
    def fours(self) -> int:
        """The vectors that hold one number for each own row of an invocation."""
        return -(-self.rows // 4)

    @property
    def line(self) -> int:
        """The vectors that hold one number for each own row of the workgroup."""
        return self.down * self.fours

    def wide(self, size: int) -> int:
        """The vectors of a row of `size` elements, padded with zeros."""
        return -(-size // (4 * self.across)) * self.across


@dataclass(frozen=True, slots=True)
class AttentionVariant:
    """The key of a pipeline.

    stored: how rows are stored; all arithmetic is float32. size, value_size: the vec4s of a row of
    queries and keys, and of values, padded with zeros to multiples of tile.across. in_fours: rows
    are read and written four elements at a time. is_exact: in_fours holds, rows need no padding,
    and no tile extends beyond an end. is_unrolled: loops over workgroup memory are unrolled, and
    the next data is read while they run.
    """

    stage: Stage
    tile: AttentionTile
    stored: Stored
    size: int
    value_size: int
    in_fours: bool
    is_exact: bool
    is_causal: bool
    is_unrolled: bool

    @property
    def own(self) -> int:
        """The rows of a workgroup."""
        return self.tile.own

    @property
    def bytes(self) -> int:
        """The workgroup memory."""
        return 16 * self.vectors

    @property
    def vectors(self) -> int:
        """The workgroup memory in vec4s: two pieces of rows, or weights and some rows."""
        tile = self.tile
        widest = max(self.size, self.value_size)
        return max(
            (tile.own + tile.other) * tile.depth,
            tile.across * tile.line,
            tile.other * tile.line + min(tile.steps, tile.other) * widest,
        )

    def width(self, name: str) -> int:
        """The vec4s of a row of an array."""
        return self.value_size if name in OF_VALUES else self.size


def attention_program(variant: AttentionVariant) -> Program:
    """Return the WGSL of one stage."""
    writer = {"forward": _forward, "query": _query_gradient, "key": _key_gradient}[variant.stage]
    body = "\n".join(
        [*_header(variant), *place(variant), *_lanes(variant.tile), *writer(variant), "}", ""]
    )
    access = "".join(mode for _, mode in BOUND[variant.stage])
    packed = "I" * len(NUMBERS) + "f" + "IIII" * len(strided(variant.stage))
    text = enabling(variant.stored) + prelude(body) + "\n" + body
    return Program(NAMES[variant.stage], text, access, packed, variant.bytes)


def _header(variant: AttentionVariant) -> Iterator[str]:
    yield from (*scalars(variant), *bindings(variant))
    yield f"var<workgroup> tile: array<vec4<f32>, {variant.vectors}>;"
    yield from entry(variant.tile.lanes)


def _lanes(tile: AttentionTile) -> Iterator[str]:
    """The rows of the invocation."""
    # Eight lanes with the same own rows are adjacent, so that a subgroup reads few rows of each.
    yield f"let x = local % 8u + local / {8 * tile.down}u * 8u;"
    yield f"let y = local / 8u % {tile.down}u;"
    yield "let low_x = x & 7u;"
    yield f"let turned_x = {_turned(tile, 'x')};"
    for low in sorted({r * tile.down % 8 for r in range(tile.rows)}):
        yield f"let turned_y{low} = {_turned(tile, f'(y + {low}u)')};"
    yield from (f"let row{r} = first + y + {r * tile.down}u;" for r in range(tile.rows))


def _turned(tile: AttentionTile, row: str) -> str:
    """The value XORed into the positions of a row's pieces, against bank conflicts."""
    return f"(({row} / {8 // tile.depth}u) & {tile.depth - 1}u)"


@dataclass(frozen=True, slots=True)
class _Staged:
    """Rows of an array being loaded into workgroup memory.

    first: the first row. count: of rows. width: vec4s of a row at a time. start: offset in `tile`.
    by_rows: load whole rows, rather than pieces of the same rows.
    """

    variant: AttentionVariant
    name: str
    first: str
    count: int
    width: int
    start: int
    by_rows: bool
    base: str = ""

    @property
    def turns(self) -> range:
        return range(-(-self.count * self.width // self.variant.tile.lanes))

    def declare(self) -> Iterator[str]:
        """Declare the variables to load."""
        yield from (f"var next_{self.name}{turn}: vec4<f32>;" for turn in self.turns)

    def fetch(self, at: str) -> Iterator[str]:
        """Load what starts at `at` into the variables."""
        for turn in self.turns:
            yield from (*self._turn(turn), f"next_{self.name}{turn} = {self._value(at)};", "}")

    def keep(self) -> Iterator[str]:
        """Write the variables to workgroup memory."""
        for turn in self.turns:
            yield from (*self._turn(turn), f"{self._place()} = next_{self.name}{turn};", "}")

    def bring(self, at: str) -> Iterator[str]:
        """Load and write in a loop, without variables."""
        lanes, width = self.variant.tile.lanes, self.width
        yield f"for (var i = local; i < {self.count * width}u; i += {lanes}u) {{"
        yield f"let row = i / {width}u;"
        yield f"let part = i % {width}u;"
        yield from (f"{self._place()} = {self._value(at)};", "}")

    def _value(self, at: str) -> str:
        """The lane's vec4; queries are multiplied by the scale."""
        row, part = (f"{at} + row", "part") if self.by_rows else ("row", f"({at} + part)")
        base = self.base or f"base_{self.name}"
        value = four(self.variant, self.name, base, f"({self.first} + {row})", part)
        return value + (f" * (k.scale * {PER_LOG_2})" if self.name == "Q" else "")

    def _place(self) -> str:
        part = "part" if self.by_rows else f"(part ^ {_turned(self.variant.tile, 'row')})"
        return f"tile[{self.start}u + row * {self.width}u + {part}]"

    def _turn(self, turn: int) -> Iterator[str]:
        lanes, width = self.variant.tile.lanes, self.width
        i = f"(local + {turn * lanes}u)"
        is_over = (turn + 1) * lanes > self.count * width
        yield f"if ({i} < {self.count * width}u) {{" if is_over else "{"
        if lanes % width:
            yield f"let row = {i} / {width}u;"
            yield f"let part = {i} % {width}u;"
        else:
            yield f"let row = local / {width}u + {turn * lanes // width}u;"
            yield f"let part = local % {width}u;"


def _stream(
    variant: AttentionVariant, staged: Sequence[_Staged], stop: str, step: int, body: Sequence[str]
) -> Iterator[str]:
    """Run `body` for each piece of the arrays. Workgroup memory is free before and after it.

    The last iteration needlessly reads its own piece again: a branch would cost more.
    """
    barrier = "workgroupBarrier();"
    if not variant.is_unrolled:
        yield f"for (var piece = 0u; piece < {stop}; piece += {step}u) {{"
        yield from (line for each in staged for line in each.bring("piece"))
        yield from (barrier, *body, barrier, "}")
        return
    kept = [line for each in staged for line in each.keep()]
    yield from (line for each in staged for line in each.declare())
    yield from (line for each in staged for line in each.fetch("0u"))
    yield from (*kept, barrier)
    yield f"let last_piece = ({stop} - 1u) / {step}u * {step}u;"
    yield f"for (var piece = 0u; piece < {stop}; piece += {step}u) {{"
    yield f"let next_piece = min(piece + {step}u, last_piece);"
    yield from (line for each in staged for line in each.fetch("next_piece"))
    yield from (*body, barrier, *kept, barrier, "}")


def _repeat(variant: AttentionVariant, name: str, count: int, body: list[str]) -> Iterator[str]:
    """A loop over `count` steps. In `body`, low_{name} is {name} % 8."""
    if not variant.is_unrolled:
        yield f"for (var {name} = 0u; {name} < {count}u; {name}++) {{"
        yield from (f"let low_{name} = {name} & 7u;", *body, "}")
        return
    for step in range(count):
        yield from ("{", f"let {name} = {step}u;", f"let low_{name} = {step % 8}u;", *body, "}")


def _scores(
    variant: AttentionVariant, result: str, own: str, other: str, bases: Bases
) -> Iterator[str]:
    """result{r}_{j} = own row r times other row x + across j."""
    tile, depth = variant.tile, variant.tile.depth
    start = tile.own * depth
    pairs = _pairs(tile)
    yield from (f"var {result}{r}_{j} = 0.0;" for r, j in pairs)
    body = [f"let b{j} = tile[{start}u + (x + {j * tile.across}u) * {depth}u + (d ^ turned_x)];"
            for j in range(tile.others)]  # fmt: skip
    for r in range(tile.rows):
        place = f"(y + {r * tile.down}u) * {depth}u + (d ^ turned_y{r * tile.down % 8})"
        body.append(f"let a{r} = tile[{place}];")
        for j in range(tile.others):
            total = f"{result}{r}_{j}"
            for part in _PARTS:
                total = f"fma(a{r}.{part}, b{j}.{part}, {total})"
            body.append(f"{result}{r}_{j} = {total};")
    staged = [
        _Staged(variant, own, "first", tile.own, depth, 0, False),
        _Staged(variant, other, "at", tile.other, depth, start, False, bases.get(other, "")),
    ]
    count = "value_size" if own in OF_VALUES else "size"
    steps = [*_repeat(variant, "d", depth, body)]
    yield "{"
    yield from _stream(variant, staged, f"(({count} + 3u) / 4u)", depth, steps)
    yield "}"


def _pairs(tile: AttentionTile) -> list[tuple[int, int]]:
    return [(r, j) for r in range(tile.rows) for j in range(tile.others)]


def _four_rows(tile: AttentionTile, g: int, name: str) -> str:
    """The vec4 over own rows 4 g to 4 g + 3 of the invocation; {r} in `name` is the row."""
    rows = range(4 * g, 4 * g + 4)
    return f"vec4<f32>({', '.join(name.format(r=r) if r < tile.rows else '0.0' for r in rows)})"


def _hide(variant: AttentionVariant, name: str, hidden: str) -> Iterator[str]:
    """name{r}_{j} = hidden for pairs of rows beyond the diagonal or an end."""
    tile = variant.tile
    edge, unseen = at_edge(variant.stage, variant.is_causal, variant.is_exact, tile.own, tile.other)
    if not edge:
        return
    yield f"if ({edge}) {{"
    for j in range(tile.others):
        yield from ("{", f"let other = at + x + {j * tile.across}u;")
        for r in range(tile.rows):
            bounds = [(by, f"row{r}" if bound == "row" else bound) for by, bound in unseen]
            test = " || ".join(f"other {by} {bound}" for by, bound in bounds)
            yield f"{name}{r}_{j} = select({name}{r}_{j}, {hidden}, {test});"
        yield "}"
    yield "}"


def _across(tile: AttentionTile, i: str, low: str, g: int) -> str:
    """The position in line i of the numbers of own rows 4 g to 4 g + 3; `low` is i % 8."""
    mask = min(8, tile.line) - 1
    low = low if mask == 7 else f"({low} & {mask}u)"
    if tile.down % (mask + 1):
        return f"{i} * {tile.line}u + ((y + {g * tile.down}u) ^ {low})"
    return f"{i} * {tile.line}u + (y ^ {low}) + {g * tile.down}u"


def _pass_on(variant: AttentionVariant, source: str) -> Iterator[str]:
    """Write source{r}_{j} where other lanes read it."""
    tile = variant.tile
    for j in range(tile.others):
        for g in range(tile.fours):
            place = _across(tile, f"(x + {j * tile.across}u)", "low_x", g)
            yield f"tile[{place}] = {_four_rows(tile, g, f'{source}{{r}}_{j}')};"


def _products(variant: AttentionVariant, result: str, rows: str, bases: Bases) -> Iterator[str]:
    """result{r}_{c} += weight of own and other row, as passed on, * column c of the other row."""
    tile, width, body = variant.tile, variant.width(rows), list[str]()
    start, steps = tile.other * tile.line, min(tile.steps, tile.other)
    for g in range(tile.fours):
        body.append(f"let w{g} = tile[{_across(tile, '(piece + i)', 'low_i', g)}];")
    for c in range(width // tile.across):
        body.append(f"let column{c} = tile[{start}u + i * {width}u + x + {c * tile.across}u];")
        body += [f"{result}{r}_{c} += w{r // 4}.{_PARTS[r % 4]} * column{c};"
                 for r in range(tile.rows)]  # fmt: skip
    staged = _Staged(variant, rows, "at", steps, width, start, True, bases.get(rows, ""))
    others = "k.queries" if variant.stage == "key" else "k.keys"
    stop = f"min({tile.other}u, {others} - at)"
    yield "{"
    yield from _stream(variant, [staged], stop, steps, [*_repeat(variant, "i", steps, body)])
    yield "}"


def _zeros(variant: AttentionVariant, result: str, name: str) -> Iterator[str]:
    for r in range(variant.tile.rows):
        for c in range(variant.width(name) // variant.tile.across):
            yield f"var {result}{r}_{c} = vec4<f32>(0.0);"


def _combine(variant: AttentionVariant, name: str, text: str) -> Iterator[str]:
    """Combine name{g} over the lanes of a row, in their order.

    text: how a lane's `part` is added to `{name}`. Workgroup memory is free before and after it.
    """
    tile = variant.tile
    for g in range(tile.fours):
        yield f"tile[{_across(tile, 'x', 'low_x', g)}] = {name}{g};"
    yield "workgroupBarrier();"
    for g in range(tile.fours):
        yield f"{name}{g} = tile[{_across(tile, '0u', '0u', g)}];"
        step = text.format(name=f"{name}{g}", part=f"tile[{_across(tile, 'i', '(i & 7u)', g)}]")
        if variant.is_unrolled:
            yield from (f"{{ let i = {i}u; {step} }}" for i in range(1, tile.across))
        else:
            yield from (f"for (var i = 1u; i < {tile.across}u; i++) {{", step, "}")
    yield "workgroupBarrier();"


def _store(variant: AttentionVariant, name: str, result: str, factor: str = "") -> Iterator[str]:
    """Write the own rows of `result`; in `factor`, {g} and {part} stand for the row."""
    tile, size = variant.tile, "value_size" if name in OF_VALUES else "size"
    for r in range(tile.rows):
        yield "{" if variant.is_exact else f"if (row{r} < {length(name)}) {{"
        yield f"let start = base_{name} + row{r} * k.{name}_row;"
        for c in range(variant.width(name) // tile.across):
            value = f"{result}{r}_{c}" + factor.format(g=r // 4, part=_PARTS[r % 4])
            column = f"(x + {c * tile.across}u) * 4u"
            if variant.in_fours:
                yield "{" if variant.is_exact else f"if ({column} < {size}) {{"
                yield f"{name}[(start + {column}) / 4u] = {variant.stored.store(value, 4)};"
                yield "}"
                continue
            for number, part in enumerate(_PARTS):
                yield f"if ({column} + {number}u < {size}) {{"
                one = variant.stored.store(f"({value}).{part}", 1)
                yield f"{name}[start + {column} + {number}u] = {one};"
                yield "}"
        yield "}"


def _store_numbers(variant: AttentionVariant, name: str, values: str) -> Iterator[str]:
    """Write one number for each own row."""
    yield "if (x == 0u) {"
    for r in range(variant.tile.rows):
        yield f"if (row{r} < k.queries) {{"
        yield f"{name}[row_start + row{r}] = {values}{r // 4}.{_PARTS[r % 4]};"
        yield "}"
    yield "}"


def _over_keys(variant: AttentionVariant) -> Iterator[str]:
    """The start of the loop over all keys that own queries may see."""
    stop = f"min(k.keys, first + {variant.tile.own}u)" if variant.is_causal else "k.keys"
    yield f"let stop = {stop};"
    yield f"for (var at = 0u; at < stop; at += {variant.tile.other}u) {{"


def _forward(variant: AttentionVariant) -> Iterator[str]:
    fours = range(variant.tile.fours)
    yield from _zeros(variant, "o", "V")
    for g in fours:
        yield f"var largest{g} = vec4<f32>(LOWEST);"
        yield f"var sum{g} = vec4<f32>(0.0);"
    yield from _over_keys(variant)
    yield from _scores(variant, "s", "Q", "K", {})
    yield from _hide(variant, "s", "LOWEST")
    yield from _softmax(variant)
    yield from _products(variant, "o", "V", {})
    yield "}"
    yield from _combine(variant, "sum", "{name} += {part};")
    for g in fours:  # all scores are below those of hidden keys, which the sum would count
        yield f"sum{g} = select(sum{g}, {NAN}, largest{g} <= vec4<f32>(LOWEST));"
    yield from _store(variant, "O", "o", " / sum{g}.{part}")
    yield "let row_start = (batch * k.heads + owner) * k.queries;"
    for g in fours:
        yield f"let logarithms{g} = largest{g} + logarithm(sum{g}) * {PER_LOG_2};"
    yield from _store_numbers(variant, "total", "logarithms")


def _softmax(variant: AttentionVariant) -> Iterator[str]:
    """Pass on scores s as weights relative to the largest so far, and rescale the sums."""
    tile, fours = variant.tile, range(variant.tile.fours)
    columns = range(variant.value_size // tile.across)
    for g in fours:
        yield f"var now{g} = largest{g};"
        for j in range(tile.others):  # NaN may be lost here; the sum keeps it
            yield f"now{g} = max(now{g}, {_four_rows(tile, g, f's{{r}}_{j}')});"
    yield from _combine(variant, "now", "{name} = max({name}, {part});")
    for g in fours:
        yield f"let shrink{g} = power_of_two(largest{g} - now{g});"
        yield f"largest{g} = now{g};"
        yield f"sum{g} *= shrink{g};"
    for j in range(tile.others):
        for g in fours:
            yield f"let p{j}_{g} = power_of_two({_four_rows(tile, g, f's{{r}}_{j}')} - now{g});"
            yield f"sum{g} += p{j}_{g};"
            place = _across(tile, f"(x + {j * tile.across}u)", "low_x", g)
            yield f"tile[{place}] = p{j}_{g};"
    for r in range(tile.rows):
        yield from (f"o{r}_{c} *= shrink{r // 4}.{_PARTS[r % 4]};" for c in columns)


def _difference(variant: AttentionVariant) -> Iterator[str]:
    """difference{g} = delta of the own rows, which is stored; and totals{g}."""
    tile, fours = variant.tile, range(variant.tile.fours)
    yield from (f"var difference{g} = vec4<f32>(0.0);" for g in fours)
    for r in range(tile.rows):
        for c in range(variant.value_size // tile.across):
            column = f"(x + {c * tile.across}u)"
            values = (four(variant, name, f"base_{name}", f"row{r}", column) for name in "GO")
            yield f"difference{r // 4}.{_PARTS[r % 4]} += dot({', '.join(values)});"
    yield from _combine(variant, "difference", "{name} += {part};")
    yield "let row_start = (batch * k.heads + owner) * k.queries;"
    yield from _store_numbers(variant, "delta", "difference")
    for g in fours:
        totals = _four_rows(tile, g, "total[row_start + min(row{r}, k.queries - 1u)]")
        yield f"let totals{g} = {totals};"


def _query_gradient(variant: AttentionVariant) -> Iterator[str]:
    tile = variant.tile
    yield from _difference(variant)
    yield from _zeros(variant, "dq", "Q")
    yield from _over_keys(variant)
    yield from _scores(variant, "s", "Q", "K", {})
    yield from _scores(variant, "t", "G", "V", {})
    for j in range(tile.others):
        for g in range(tile.fours):
            yield f"let p{j}_{g} = power_of_two({_four_rows(tile, g, f's{{r}}_{j}')} - totals{g});"
            yield (f"let ds{j}_{g} = p{j}_{g} * "
                   f"({_four_rows(tile, g, f't{{r}}_{j}')} - difference{g});")  # fmt: skip
    yield from (f"t{r}_{j} = ds{j}_{r // 4}.{_PARTS[r % 4]};" for r, j in _pairs(tile))
    yield from _hide(variant, "t", "0.0")
    yield from _pass_on(variant, "t")
    yield from _products(variant, "dq", "K", {})
    yield "}"
    yield from _store(variant, "dQ", "dq", " * k.scale")


def _key_gradient(variant: AttentionVariant) -> Iterator[str]:
    tile = variant.tile
    bases = {name: f"base_{name} + member * k.{name}_head" for name in "QG"}
    yield from (*_zeros(variant, "dk", "K"), *_zeros(variant, "dv", "V"))
    begin = f"first / {tile.other}u * {tile.other}u" if variant.is_causal else "0u"
    yield "for (var member = 0u; member < k.members; member++) {"
    yield "let row_start = (batch * k.heads + owner * k.members + member) * k.queries;"
    yield f"for (var at = {begin}; at < k.queries; at += {tile.other}u) {{"
    yield from _scores(variant, "s", "K", "Q", bases)
    yield from _weights(variant)
    yield from _pass_on(variant, "s")
    yield from _products(variant, "dv", "G", bases)
    yield from _scores(variant, "t", "V", "G", bases)
    yield from _gradients(variant)
    yield from _pass_on(variant, "t")
    yield from _products(variant, "dk", "Q", bases)
    yield "}"
    yield "}"
    yield from _store(variant, "dK", "dk", f" * {LOG_2}")  # the scale is in the queries
    yield from _store(variant, "dV", "dv")


def _weights(variant: AttentionVariant) -> Iterator[str]:
    """Turn scores s of keys and queries into weights."""
    tile = variant.tile
    for j in range(tile.others):
        yield "{"
        yield f"let query = row_start + min(at + x + {j * tile.across}u, k.queries - 1u);"
        yield "let total_ = total[query];"
        for g in range(tile.fours):
            yield f"let p{g} = power_of_two({_four_rows(tile, g, f's{{r}}_{j}')} - total_);"
        yield from (f"s{r}_{j} = p{r // 4}.{_PARTS[r % 4]};" for r in range(tile.rows))
        yield "}"
    yield from _hide(variant, "s", "0.0")


def _gradients(variant: AttentionVariant) -> Iterator[str]:
    """Turn products t of gradients and values into gradients of scores."""
    tile = variant.tile
    for j in range(tile.others):
        yield "{"
        yield f"let query = row_start + min(at + x + {j * tile.across}u, k.queries - 1u);"
        yield "let delta_ = delta[query];"
        yield from (f"t{r}_{j} = s{r}_{j} * (t{r}_{j} - delta_);" for r in range(tile.rows))
        yield "}"
    yield from _hide(variant, "t", "0.0")
