"""WGSL of attention that never holds the weights: Dao et al., arXiv:2205.14135.

A workgroup owns some rows and walks the others in tiles: queries own the forward pass and their
gradient, keys own the gradients of keys and values. Rows go through workgroup memory, four elements
in one; an invocation computes the scores of a block of own and other rows in named variables, turns
them into weights, passes these to its neighbours through workgroup memory, and adds up its columns
of the products. No two workgroups write the same element, so nothing is atomic, and the order of
additions depends on the shape alone.

Of a forward row only log(sum(exp(scores))) is kept. With it the backward kernels compute the
weights P once more, and with delta = rowsum(gradient * out): dS = P * (gradient V^T - delta).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from rumus.gpu.pipelines import Program
from rumus.gpu.shaders import prelude
from rumus.gpu.storage import Stored, vector

ACROSS: Final = 8  # lanes that share an own row
GRAIN: Final = 4 * ACROSS  # elements of a row are padded to a multiple of it
REGISTERS: Final = 128  # floats of sums that an invocation may hold
_PARTS: Final = "xyzw"

Stage: TypeAlias = Literal["forward", "query", "key"]


@dataclass(frozen=True, slots=True)
class Tile:
    """Lanes along the own rows, own rows of a lane (1, 2 or 4), and its other rows."""

    down: int
    rows: int
    others: int

    @property
    def lanes(self) -> int:
        """The invocations of a workgroup."""
        return ACROSS * self.down

    @property
    def own(self) -> int:
        """The own rows of a workgroup."""
        return self.down * self.rows

    @property
    def other(self) -> int:
        """The other rows of one turn."""
        return ACROSS * self.others


# From the fastest to what fits small workgroup memory with heads of 256.
TILES: Final = (
    Tile(8, 4, 4), Tile(8, 4, 2), Tile(8, 2, 2), Tile(8, 2, 1), Tile(8, 1, 1), Tile(4, 1, 1),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Variant:
    """What a pipeline is made for.

    stored: how the rows lie in memory; all that is computed is float32. size, value_size: vec4s of
    a row of queries and keys, and of values; multiples of 8. in_fours: rows are read and written
    four elements at a time. unroll: steps of an inner loop that are written out.
    """

    stage: Stage
    tile: Tile
    stored: Stored
    size: int
    value_size: int
    in_fours: bool
    is_causal: bool
    unroll: int

    @property
    def bytes(self) -> int:
        """The workgroup memory."""
        return 16 * sum(self.memory().values())

    @property
    def sums(self) -> int:
        """The floats that an invocation adds up."""
        columns = {
            "forward": self.value_size,
            "query": self.size,
            "key": self.size + self.value_size,
        }
        return 4 * self.tile.rows * columns[self.stage] // ACROSS

    def memory(self) -> dict[str, int]:
        """The arrays of workgroup memory, in vec4s. A row is one longer, against bank conflicts."""
        tile = self.tile
        queries, keys = (tile.other, tile.own) if self.stage == "key" else (tile.own, tile.other)
        found = {
            "tile_Q": queries * (self.size + 1),
            "tile_K": keys * (self.size + 1),
            "tile_V": keys * (self.value_size + 1),
            "tile_s": tile.other * tile.down,
        }
        if self.stage != "forward":
            found["tile_G"] = queries * (self.value_size + 1)
        found["tile_p" if self.stage == "key" else "parts"] = (
            tile.other * tile.down if self.stage == "key" else ACROSS * tile.down
        )
        return found


# Name -> what is bound, in order, and how. o: the result; g: its gradient.
BOUND: Final[dict[Stage, tuple[tuple[str, str], ...]]] = {
    "forward": (("Q", "r"), ("K", "r"), ("V", "r"), ("O", "w"), ("total", "w")),
    "query": (("Q", "r"), ("K", "r"), ("V", "r"), ("O", "r"), ("G", "r"), ("dQ", "w"),
              ("total", "r"), ("delta", "w")),
    "key": (("Q", "r"), ("K", "r"), ("V", "r"), ("G", "r"), ("dK", "w"), ("dV", "w"),
            ("total", "r"), ("delta", "r")),
}  # fmt: skip
_NAMES: Final[dict[Stage, str]] = {
    "forward": "attention",
    "query": "attention_gradient_query",
    "key": "attention_gradient_key",
}
_OF_QUERIES: Final = ("Q", "O", "G", "dQ")
_OF_VALUES: Final = ("V", "O", "G", "dV")
NUMBERED: Final = ("total", "delta")  # one number for each row of queries, dense
NUMBERS: Final = ("queries", "keys", "heads", "members", "sizes", "tiles", "groups")


def strided(stage: Stage) -> tuple[str, ...]:
    """Return the names of the arrays that are walked by strides: start, batch, head and row."""
    return tuple(name for name, _ in BOUND[stage] if name not in NUMBERED)


def attention_program(variant: Variant) -> Program:
    """Return the WGSL of one stage."""
    writer = {"forward": _forward, "query": _query_gradient, "key": _key_gradient}[variant.stage]
    body = "\n".join([*_header(variant), *_place(variant), *writer(variant), "}", ""])
    access = "".join(mode for _, mode in BOUND[variant.stage])
    scalars = "I" * len(NUMBERS) + "f" + "IIII" * len(strided(variant.stage))
    half = "enable f16;\n" if variant.stored.wgsl == "f16" else ""
    text = half + prelude(body) + "\n" + body
    return Program(_NAMES[variant.stage], text, access, scalars, variant.bytes)


def _header(variant: Variant) -> Iterator[str]:
    names = [*NUMBERS, "scale"]
    for name in strided(variant.stage):
        names += [f"{name}_start", f"{name}_batch", f"{name}_head", f"{name}_row"]
    yield "const LOWEST = -3.4028234e38;"
    yield "struct Scalars {"
    yield from (f"{name}: {'f32' if name == 'scale' else 'u32'}," for name in names)
    yield "}"
    yield "var<immediate> k: Scalars;"
    for number, (name, mode) in enumerate(BOUND[variant.stage]):
        kind = "f32"
        if name not in NUMBERED:
            kind = vector(variant.stored.wgsl, 4 if variant.in_fours else 1)
        how = "read" if mode == "r" else "read_write"
        yield f"@group(0) @binding({number}) var<storage, {how}> {name}: array<{kind}>;"
    for name, length in variant.memory().items():
        yield f"var<workgroup> {name}: array<vec4<f32>, {length}>;"
    yield f"@compute @workgroup_size({variant.tile.lanes})"
    yield "fn main("
    yield "    @builtin(workgroup_id) group: vec3<u32>,"
    yield "    @builtin(num_workgroups) groups: vec3<u32>,"
    yield "    @builtin(local_invocation_index) local: u32,"
    yield ") {"


def _place(variant: Variant) -> Iterator[str]:
    """Which rows the workgroup owns, and which of them the invocation."""
    tile = variant.tile
    yield "let linear = group.y * groups.x + group.x;"
    yield "if (linear >= k.groups) {"
    yield "return;"
    yield "}"
    # Of a causal head, the rows that see most come first: the last workgroups are the short ones.
    order = "linear % k.tiles"
    is_reversed = variant.is_causal and variant.stage != "key"
    yield f"let first = ({f'k.tiles - 1u - {order}' if is_reversed else order}) * {tile.own}u;"
    count = "(k.heads / k.members)" if variant.stage == "key" else "k.heads"
    yield f"let owner = linear / k.tiles % {count};"
    yield f"let batch = linear / k.tiles / {count};"
    yield "let size = k.sizes & 0xffffu;"
    yield "let value_size = k.sizes >> 16u;"
    yield f"let x = local % {ACROSS}u;"
    yield f"let y = local / {ACROSS}u;"
    down = ", ".join(f"{r * tile.down}u" for r in range(4))
    yield f"let rows = vec4<u32>(first + y) + vec4<u32>({down});"
    for name in strided(variant.stage):
        head = "owner"
        if variant.stage != "key" and name in ("K", "V"):
            head = "owner / k.members"
        if variant.stage == "key" and name in _OF_QUERIES:
            head = "owner * k.members"
        yield (f"let base_{name} = k.{name}_start + batch * k.{name}_batch"
               f" + {head} * k.{name}_head;")  # fmt: skip


def _four(variant: Variant, name: str, base: str, row: str, part: str) -> str:
    """The vec4 `part` of a row; 0 where either is outside."""
    length = "k.queries" if name in _OF_QUERIES else "k.keys"
    size = "value_size" if name in _OF_VALUES else "size"
    start = f"{base} + min({row}, {length} - 1u) * k.{name}_row"
    if variant.in_fours:
        held = f"{name}[({start} + min({part} * 4u, {size} - 4u)) / 4u]"
        value = variant.stored.load(held, 4)
        inside = f"{row} < {length} && {part} * 4u < {size}"
        return f"select(vec4<f32>(0.0), {value}, {inside})"
    parts = []
    for c in range(4):
        at = f"{part} * 4u + {c}u"
        value = variant.stored.load(f"{name}[{start} + min({at}, {size} - 1u)]", 1)
        parts.append(f"select(0.0, {value}, {row} < {length} && {at} < {size})")
    return f"vec4<f32>({', '.join(parts)})"


def _line(variant: Variant, name: str) -> int:
    return (variant.value_size if name in _OF_VALUES else variant.size) + 1


def _load(variant: Variant, name: str, first: str, count: int, base: str = "") -> Iterator[str]:
    """Bring `count` rows to workgroup memory; queries are multiplied by the scale."""
    width, lanes = _line(variant, name) - 1, variant.tile.lanes
    value = _four(variant, name, base or f"base_{name}", f"({first} + row)", "part")
    turns = -(-count * width // lanes)
    block = [
        f"let row = i / {width}u;",
        f"let part = i % {width}u;",
        f"tile_{name}[row * {width + 1}u + part] = {value}{' * k.scale' if name == 'Q' else ''};",
    ]
    if count * width % lanes:
        block = [f"if (i < {count * width}u) {{", *block, "}"]
    if variant.unroll == 1:
        yield f"for (var i = local; i < {turns * lanes}u; i += {lanes}u) {{"
        yield from block
        yield "}"
        return
    for turn in range(turns):
        yield from ("{", f"let i = local + {turn * lanes}u;", *block, "}")


def _repeat(variant: Variant, name: str, count: str, body: list[str]) -> Iterator[str]:
    """A loop over `count` steps, several of them written out; it may do up to 7 more of zeros.

    The count is no constant, so that a driver does not unroll it further.
    """
    yield f"for (var {name}_ = 0u; {name}_ < {count}; {name}_ += {variant.unroll}u) {{"
    for step in range(variant.unroll):
        yield from ("{", f"let {name} = {name}_ + {step}u;", *body, "}")
    yield "}"


def _scores(variant: Variant, result: str, own: str, other: str) -> Iterator[str]:
    """result{j} = own rows times other row x + 8 j, as a vec4 over own rows."""
    tile, line = variant.tile, _line(variant, own)
    pairs = [(r, j) for r in range(tile.rows) for j in range(tile.others)]
    yield from (f"var {result}{r}_{j} = 0.0;" for r, j in pairs)
    body = [f"let a{r} = tile_{own}[(y + {r * tile.down}u) * {line}u + d];"
            for r in range(tile.rows)]  # fmt: skip
    body += [f"let b{j} = tile_{other}[(x + {j * ACROSS}u) * {line}u + d];"
             for j in range(tile.others)]  # fmt: skip
    for r, j in pairs:
        total = f"{result}{r}_{j}"
        for part in _PARTS:
            total = f"fma(a{r}.{part}, b{j}.{part}, {total})"
        body.append(f"{result}{r}_{j} = {total};")
    count = "value_size" if own in _OF_VALUES else "size"
    yield from _repeat(variant, "d", f"({count} + 3u) / 4u", body)
    for j in range(tile.others):
        column = [f"{result}{r}_{j}" if r < tile.rows else "0.0" for r in range(4)]
        yield f"let {result}{j} = vec4<f32>({', '.join(column)});"


def _seen(variant: Variant, others: str) -> Iterator[str]:
    """Which of the own rows and each other row see one another."""
    for j in range(variant.tile.others):
        yield f"let other{j} = at + x + {j * ACROSS}u;"
        inside = f"vec4<bool>(other{j} < k.{others})"
        if variant.is_causal:
            inside += f" & (vec4<u32>(other{j}) {'>=' if others == 'queries' else '<='} rows)"
        yield f"let seen{j} = {inside};"


def _products(variant: Variant, sums: tuple[tuple[str, str, str], ...]) -> Iterator[str]:
    """result{r}_{c} += weight of own and other row * column c of the other row, for each of `sums`.

    sums: (result, weights, rows).
    """
    tile, body = variant.tile, []
    for result, weights, rows in sums:
        line = _line(variant, rows)
        body.append(f"let w_{result} = {weights}[i * {tile.down}u + y];")
        for c in range((line - 1) // ACROSS):
            body.append(f"let {result}_{c} = tile_{rows}[i * {line}u + x + {c * ACROSS}u];")
            body += [f"{result}{r}_{c} += w_{result}.{_PARTS[r]} * {result}_{c};"
                     for r in range(tile.rows)]  # fmt: skip
    length = "k.queries" if variant.stage == "key" else "k.keys"
    yield from _repeat(variant, "i", f"min({tile.other}u, {length} - at)", body)


def _zeros(variant: Variant, result: str, columns: int) -> Iterator[str]:
    for r in range(variant.tile.rows):
        for c in range(columns // ACROSS):
            yield f"var {result}{r}_{c} = vec4<f32>(0.0);"


def _sum_across(result: str, down: int) -> Iterator[str]:
    """The sum of `result` over the lanes of a row, in their order."""
    yield f"parts[x * {down}u + y] = {result};"
    yield "workgroupBarrier();"
    yield f"{result} = parts[y];"
    yield f"for (var i = 1u; i < {ACROSS}u; i++) {{"
    yield f"{result} += parts[i * {down}u + y];"
    yield "}"


def _store(variant: Variant, name: str, result: str, factor: str = "") -> Iterator[str]:
    """Write the own rows of `result`; in `factor` {part} stands for the row."""
    length = "k.queries" if name in _OF_QUERIES else "k.keys"
    size = "value_size" if name in _OF_VALUES else "size"
    for r in range(variant.tile.rows):
        row = f"rows.{_PARTS[r]}"
        yield f"if ({row} < {length}) {{"
        yield f"let start = base_{name} + {row} * k.{name}_row;"
        for c in range((_line(variant, name) - 1) // ACROSS):
            value = f"{result}{r}_{c}" + factor.format(part=_PARTS[r])
            column = f"(x + {c * ACROSS}u) * 4u"
            if variant.in_fours:
                yield f"if ({column} < {size}) {{"
                yield f"{name}[(start + {column}) / 4u] = {variant.stored.store(value, 4)};"
                yield "}"
                continue
            for number, part in enumerate(_PARTS):
                yield f"if ({column} + {number}u < {size}) {{"
                one = variant.stored.store(f"({value}).{part}", 1)
                yield f"{name}[start + {column} + {number}u] = {one};"
                yield "}"
        yield "}"


def _store_numbers(variant: Variant, name: str, values: str) -> Iterator[str]:
    """Write one number for each own row."""
    yield "if (x == 0u) {"
    for part in _PARTS[: variant.tile.rows]:
        yield f"if (rows.{part} < k.queries) {{"
        yield f"{name}[row_start + rows.{part}] = {values}.{part};"
        yield "}"
    yield "}"


def _over_keys(variant: Variant) -> Iterator[str]:
    """The opening of the loop over all keys that own queries may see, with a tile of them."""
    tile = variant.tile
    stop = f"min(k.keys, first + {tile.own}u)" if variant.is_causal else "k.keys"
    yield f"let stop = {stop};"
    yield f"for (var at = 0u; at < stop; at += {tile.other}u) {{"
    yield from _load(variant, "K", "at", tile.other)
    yield from _load(variant, "V", "at", tile.other)
    yield "workgroupBarrier();"
    yield from _seen(variant, "keys")


def _forward(variant: Variant) -> Iterator[str]:
    tile, others = variant.tile, range(variant.tile.others)
    columns = range(variant.value_size // ACROSS)
    yield from _load(variant, "Q", "first", tile.own)
    yield from _zeros(variant, "o", variant.value_size)
    yield "var largest = vec4<f32>(LOWEST);"
    yield "var sum = vec4<f32>(0.0);"
    yield from _over_keys(variant)
    yield from _scores(variant, "s", "Q", "K")
    yield "var now = largest;"
    for j in others:
        yield f"let masked{j} = select(vec4<f32>(LOWEST), s{j}, seen{j});"
        yield f"now = max(now, masked{j});"  # NaN may be lost here; the sum has it
    yield f"parts[x * {tile.down}u + y] = now;"
    yield "workgroupBarrier();"
    yield f"for (var i = 0u; i < {ACROSS}u; i++) {{"
    yield f"now = max(now, parts[i * {tile.down}u + y]);"
    yield "}"
    yield "let shrink = exponential(largest - now);"
    yield "largest = now;"
    yield "sum *= shrink;"
    for j in others:
        yield f"let p{j} = select(vec4<f32>(0.0), exponential(masked{j} - now), seen{j});"
        yield f"sum += p{j};"
        yield f"tile_s[(x + {j * ACROSS}u) * {tile.down}u + y] = p{j};"
    yield from (f"o{r}_{c} *= shrink.{_PARTS[r]};" for r in range(tile.rows) for c in columns)
    yield "workgroupBarrier();"
    yield from _products(variant, (("o", "tile_s", "V"),))
    yield "workgroupBarrier();"
    yield "}"
    yield from _sum_across("sum", tile.down)
    yield from _store(variant, "O", "o", " / sum.{part}")
    yield "let row_start = (batch * k.heads + owner) * k.queries;"
    yield "let logarithms = largest + logarithm(sum);"
    yield from _store_numbers(variant, "total", "logarithms")


def _query_gradient(variant: Variant) -> Iterator[str]:
    tile = variant.tile
    yield from _load(variant, "Q", "first", tile.own)
    yield from _load(variant, "G", "first", tile.own)
    yield "workgroupBarrier();"
    yield "var difference = vec4<f32>(0.0);"
    for r, part in enumerate(_PARTS[: tile.rows]):
        row, line = f"(y + {r * tile.down}u)", _line(variant, "G")
        for c in range(variant.value_size // ACROSS):
            column = f"(x + {c * ACROSS}u)"
            value = _four(variant, "O", "base_O", f"(first + {row})", column)
            yield f"difference.{part} += dot(tile_G[{row} * {line}u + {column}], {value});"
    yield from _sum_across("difference", tile.down)
    yield "let row_start = (batch * k.heads + owner) * k.queries;"
    yield from _store_numbers(variant, "delta", "difference")
    totals = (f"total[row_start + min(rows.{part}, k.queries - 1u)]" for part in _PARTS)
    yield f"let totals = vec4<f32>({', '.join(totals)});"
    yield from _zeros(variant, "dq", variant.size)
    yield from _over_keys(variant)
    yield from _scores(variant, "s", "Q", "K")
    yield from _scores(variant, "t", "G", "V")
    for j in range(tile.others):
        yield f"let ds{j} = exponential(s{j} - totals) * (t{j} - difference);"
        masked = f"select(vec4<f32>(0.0), ds{j}, seen{j})"
        yield f"tile_s[(x + {j * ACROSS}u) * {tile.down}u + y] = {masked};"
    yield "workgroupBarrier();"
    yield from _products(variant, (("dq", "tile_s", "K"),))
    yield "workgroupBarrier();"
    yield "}"
    yield from _store(variant, "dQ", "dq", " * k.scale")


def _key_gradient(variant: Variant) -> Iterator[str]:
    tile = variant.tile
    yield from _load(variant, "K", "first", tile.own)
    yield from _load(variant, "V", "first", tile.own)
    yield from _zeros(variant, "dk", variant.size)
    yield from _zeros(variant, "dv", variant.value_size)
    begin = f"first / {tile.other}u * {tile.other}u" if variant.is_causal else "0u"
    yield "for (var member = 0u; member < k.members; member++) {"
    yield "let row_start = (batch * k.heads + owner * k.members + member) * k.queries;"
    yield f"for (var at = {begin}; at < k.queries; at += {tile.other}u) {{"
    yield from _load(variant, "Q", "at", tile.other, "base_Q + member * k.Q_head")
    yield from _load(variant, "G", "at", tile.other, "base_G + member * k.G_head")
    yield "workgroupBarrier();"
    yield from _seen(variant, "queries")
    yield from _scores(variant, "s", "K", "Q")
    yield from _scores(variant, "t", "V", "G")
    for j in range(tile.others):
        place = f"(x + {j * ACROSS}u) * {tile.down}u + y"
        yield f"let query{j} = row_start + min(other{j}, k.queries - 1u);"
        yield f"let p{j} = select(vec4<f32>(0.0), exponential(s{j} - total[query{j}]), seen{j});"
        yield f"tile_p[{place}] = p{j};"
        yield f"let ds{j} = p{j} * (t{j} - delta[query{j}]);"
        yield f"tile_s[{place}] = select(vec4<f32>(0.0), ds{j}, seen{j});"
    yield "workgroupBarrier();"
    yield from _products(variant, (("dv", "tile_p", "G"), ("dk", "tile_s", "Q")))
    yield "workgroupBarrier();"
    yield "}"
    yield "}"
    yield from _store(variant, "dK", "dk")
    yield from _store(variant, "dV", "dv")
