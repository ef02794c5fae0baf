"""WGSL of attention that never holds the weights: Dao et al., arXiv:2205.14135.

A workgroup owns some rows and walks the others in tiles: queries own the forward pass and their
gradient, keys own the gradients of keys and values. Rows go through workgroup memory, four elements
in one; an invocation computes the scores of a block of own and other rows in named variables, turns
them into weights, passes these to its neighbours through workgroup memory, and adds up its columns
of the products. No two workgroups write the same element, so nothing is atomic, and the order of
additions depends on the shape alone.

Of a forward row only log(sum(exp(scores))) is kept. With it the backward kernels compute the
weights P once more, and with delta = rowsum(gradient * out): dS = P * (gradient V^T - delta).
Scores are in units of log(2), for the built-in power of two. Its error grows with the distance to
the row's largest score, but the weight shrinks faster: 4 units in the last place of 1 at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, TypeAlias

from rumus.gpu.pipelines import Program
from rumus.gpu.shaders import prelude
from rumus.gpu.storage import Stored, vector

_PARTS: Final = "xyzw"
_AHEAD: Final = 8  # loads under way before the first is stored
_LOG_2: Final = "0.69314718"
_PER_LOG_2: Final = "1.44269504"

Stage: TypeAlias = Literal["forward", "query", "key"]


@dataclass(frozen=True, slots=True)
class Tile:
    """Lanes along the other and the own rows, and how many own and other rows each has.

    across: 8 or 16. rows: 1, 2, 4 or 8. is_shared: arrays that are not needed at the same time lie
    in the same workgroup memory; some are then loaded again for each turn.
    """

    across: int
    down: int
    rows: int
    others: int
    is_shared: bool = False

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
        """The other rows of one turn."""
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
        """The vectors of a row of `size` elements, with the zeros behind it."""
        return -(-size // (4 * self.across)) * self.across


# Array -> the workgroup memory in which it lies, apart and shared. p: weights; s: gradients of
# scores; parts: what the lanes of a row tell each other.
_MEMORY: Final[dict[tuple[Stage, bool], dict[str, str]]] = {
    ("forward", False): {"Q": "Q", "K": "K", "V": "V", "p": "K", "parts": "parts"},
    ("forward", True): {"Q": "Q", "K": "K", "V": "K", "p": "p", "parts": "p"},
    ("query", False): {"Q": "Q", "G": "G", "K": "K", "V": "V", "s": "V", "parts": "V"},
    ("query", True): {"Q": "Q", "G": "Q", "K": "K", "V": "V", "s": "Q", "parts": "V"},
    ("key", False): {"Q": "Q", "G": "G", "K": "K", "V": "V", "p": "p", "s": "s"},
    ("key", True): {"Q": "Q", "G": "G", "K": "K", "V": "K", "p": "K", "s": "K"},
}


@dataclass(frozen=True, slots=True)
class Variant:
    """What a pipeline is made for.

    stored: how the rows lie in memory; all that is computed is float32. size, value_size: vec4s of
    a row of queries and keys, and of values, with the zeros behind it; multiples of tile.across.
    in_fours: rows are read and written four elements at a time. is_exact: they are, no row has
    zeros behind it, and no tile reaches over an end. unroll: steps of an inner loop that are
    written out.
    """

    stage: Stage
    tile: Tile
    stored: Stored
    size: int
    value_size: int
    in_fours: bool
    is_exact: bool
    is_causal: bool
    unroll: int

    @property
    def bytes(self) -> int:
        """The workgroup memory."""
        return 16 * sum(self.memory().values())

    @property
    def registers(self) -> int:
        """The floats that an invocation adds up: columns of the results, and scores."""
        columns = {
            "forward": self.value_size,
            "query": self.size,
            "key": self.size + self.value_size,
        }
        tile = self.tile
        scores = tile.rows * tile.others * (1 if self.stage == "forward" else 2)
        return 4 * tile.rows * columns[self.stage] // tile.across + scores

    def width(self, name: str) -> int:
        """The vec4s of a row of an array."""
        return self.value_size if name in _OF_VALUES else self.size

    def place(self, name: str) -> str:
        """The workgroup memory in which an array lies."""
        return "tile_" + _MEMORY[self.stage, self.tile.is_shared][name]

    def memory(self) -> dict[str, int]:
        """The workgroup memory, in vec4s."""
        tile, found = self.tile, dict[str, int]()
        for name in _MEMORY[self.stage, tile.is_shared]:
            if name in ("p", "s", "parts"):
                length = tile.line * (tile.across if name == "parts" else tile.other)
            else:
                is_own = (name in _OF_QUERIES) != (self.stage == "key")
                length = (tile.own if is_own else tile.other) * self.width(name)
            found[self.place(name)] = max(length, found.get(self.place(name), 0))
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
    yield "const LOWEST = -1e38;"  # twice it is finite
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
    # With a causal mask, the rows that see most come first: the last workgroups are the short ones.
    yield "let owners = k.groups / k.tiles;"
    order = "linear / owners"
    is_reversed = variant.is_causal and variant.stage != "key"
    yield f"let first = ({f'k.tiles - 1u - {order}' if is_reversed else order}) * {tile.own}u;"
    count = "(k.heads / k.members)" if variant.stage == "key" else "k.heads"
    yield f"let owner = linear % owners % {count};"
    yield f"let batch = linear % owners / {count};"
    yield "let size = k.sizes & 0xffffu;"
    yield "let value_size = k.sizes >> 16u;"
    # Eight lanes with the same own rows are neighbours, so that a subgroup reads few rows of both.
    yield f"let x = local % 8u + local / {8 * tile.down}u * 8u;"
    yield f"let y = local / 8u % {tile.down}u;"
    yield "let low_x = x & 7u;"
    for low in sorted({r * tile.down % 8 for r in range(tile.rows)}):
        yield f"let low_y{low} = (y + {low}u) & 7u;"
    yield from (f"let row{r} = first + y + {r * tile.down}u;" for r in range(tile.rows))
    for name in strided(variant.stage):
        head = "owner"
        if variant.stage != "key" and name in ("K", "V"):
            head = "owner / k.members"
        if variant.stage == "key" and name in _OF_QUERIES:
            head = "owner * k.members"
        yield (f"let base_{name} = k.{name}_start + batch * k.{name}_batch"
               f" + {head} * k.{name}_head;")  # fmt: skip


def _length(name: str) -> str:
    return "k.queries" if name in _OF_QUERIES else "k.keys"


def _four(variant: Variant, name: str, base: str, row: str, part: str) -> str:
    """The vec4 `part` of a row; 0 where either is outside."""
    length, load = _length(name), variant.stored.load
    size = "value_size" if name in _OF_VALUES else "size"
    if variant.is_exact:
        return load(f"{name}[({base} + {row} * k.{name}_row) / 4u + {part}]", 4)
    start = f"{base} + min({row}, {length} - 1u) * k.{name}_row"
    if variant.in_fours:
        value = load(f"{name}[({start} + min({part} * 4u, {size} - 4u)) / 4u]", 4)
        inside = f"{row} < {length} && {part} * 4u < {size}"
        return f"select(vec4<f32>(0.0), {value}, {inside})"
    parts = []
    for c in range(4):
        at = f"{part} * 4u + {c}u"
        value = load(f"{name}[{start} + min({at}, {size} - 1u)]", 1)
        parts.append(f"select(0.0, {value}, {row} < {length} && {at} < {size})")
    return f"vec4<f32>({', '.join(parts)})"


def _load(variant: Variant, name: str, first: str, count: int, base: str = "") -> Iterator[str]:
    """Bring `count` rows to workgroup memory; queries are multiplied by the scale.

    Part p of row r lies at p ^ r % 8, against bank conflicts.
    """
    width, lanes = variant.width(name), variant.tile.lanes
    turns, rest = divmod(count * width, lanes)
    value = _four(variant, name, base or f"base_{name}", f"({first} + row)", "part")
    value += f" * (k.scale * {_PER_LOG_2})" if name == "Q" else ""
    split = [f"let row = i / {width}u;", f"let part = i % {width}u;"]
    store = f"{variant.place(name)}[row * {width}u + (part ^ (row & 7u))] = "
    if variant.unroll == 1 or rest:
        yield f"for (var i = local; i < {count * width}u; i += {lanes}u) {{"
        yield from (*split, f"{store}{value};", "}")
        return
    for begin in range(0, turns, _AHEAD):
        chunk = range(begin, min(turns, begin + _AHEAD))
        yield "{"
        yield from (f"var next{turn}: vec4<f32>;" for turn in chunk)
        for turn in chunk:
            yield from ("{", *_turn(turn, lanes, width), f"next{turn} = {value};", "}")
        for turn in chunk:
            yield from ("{", *_turn(turn, lanes, width), f"{store}next{turn};", "}")
        yield "}"


def _turn(turn: int, lanes: int, width: int) -> Iterator[str]:
    """The row and the part of it that a lane loads in one turn."""
    if lanes % width:
        yield f"let i = local + {turn * lanes}u;"
        yield f"let row = i / {width}u;"
        yield f"let part = i % {width}u;"
        return
    yield f"let row = local / {width}u + {turn * lanes // width}u;"
    yield f"let part = local % {width}u;"


def _repeat(variant: Variant, name: str, count: str, body: list[str]) -> Iterator[str]:
    """A loop over `count` steps, several of them written out; it may do up to 7 more of zeros.

    In `body`, low_{name} is {name} % 8. The count is no constant, so that a driver does not unroll
    it further.
    """
    yield f"for (var {name}_ = 0u; {name}_ < {count}; {name}_ += {variant.unroll}u) {{"
    for step in range(variant.unroll):
        low = f"{name} & 7u" if variant.unroll % 8 else f"{step % 8}u"
        yield from ("{", f"let {name} = {name}_ + {step}u;", f"let low_{name} = {low};")
        yield from (*body, "}")
    yield "}"


def _scores(variant: Variant, result: str, own: str, other: str) -> Iterator[str]:
    """result{r}_{j} = own row r times other row x + across j."""
    tile, width = variant.tile, variant.width(own)
    pairs = _pairs(tile)
    yield from (f"var {result}{r}_{j} = 0.0;" for r, j in pairs)
    body = [f"let b{j} = {variant.place(other)}[(x + {j * tile.across}u) * {width}u + (d ^ low_x)];"
            for j in range(tile.others)]  # fmt: skip
    for r in range(tile.rows):
        place = f"(y + {r * tile.down}u) * {width}u + (d ^ low_y{r * tile.down % 8})"
        body.append(f"let a{r} = {variant.place(own)}[{place}];")
        for j in range(tile.others):
            total = f"{result}{r}_{j}"
            for part in _PARTS:
                total = f"fma(a{r}.{part}, b{j}.{part}, {total})"
            body.append(f"{result}{r}_{j} = {total};")
    count = "value_size" if own in _OF_VALUES else "size"
    yield from _repeat(variant, "d", f"({count} + 3u) / 4u", body)


def _pairs(tile: Tile) -> list[tuple[int, int]]:
    return [(r, j) for r in range(tile.rows) for j in range(tile.others)]


def _four_rows(tile: Tile, g: int, name: str) -> str:
    """The vec4 over own rows 4 g to 4 g + 3 of the invocation; {r} in `name` is the row."""
    rows = range(4 * g, 4 * g + 4)
    return f"vec4<f32>({', '.join(name.format(r=r) if r < tile.rows else '0.0' for r in rows)})"


def _hide(variant: Variant, names: Sequence[str], hidden: str) -> Iterator[str]:
    """Give the variables the value `hidden` where own and other row do not see one another.

    Only at the diagonal of a causal mask and in the last tile there are such.
    """
    tile, at_edge, unseen = variant.tile, list[str](), list[str]()
    others = "k.queries" if variant.stage == "key" else "k.keys"
    if variant.is_causal and variant.stage == "key":
        at_edge.append(f"at < first + {tile.own - 1}u")
        unseen.append("other < row{r}")
    elif variant.is_causal:
        at_edge.append(f"at + {tile.other - 1}u > first")
        unseen.append("other > row{r}")
    if not variant.is_exact:
        at_edge.append(f"at + {tile.other}u > {others}")
        unseen.append(f"other >= {others}")
    if not at_edge:
        return
    yield f"if ({' || '.join(at_edge)}) {{"
    for j in range(tile.others):
        yield from ("{", f"let other = at + x + {j * tile.across}u;")
        for r in range(tile.rows):
            test = " || ".join(unseen).format(r=r)
            for name in names:
                yield f"{name}{r}_{j} = select({name}{r}_{j}, {hidden}, {test});"
        yield "}"
    yield "}"


def _across(tile: Tile, i: str, low: str, g: int) -> str:
    """Where number 4 g to 4 g + 3 of the invocation's own rows lie in line i; `low` is i % 8."""
    mask = min(8, tile.line) - 1
    low = low if mask == 7 else f"({low} & {mask}u)"
    if tile.down % (mask + 1):
        return f"{i} * {tile.line}u + ((y + {g * tile.down}u) ^ {low})"
    return f"{i} * {tile.line}u + (y ^ {low}) + {g * tile.down}u"


def _pass_on(variant: Variant, name: str, source: str) -> Iterator[str]:
    """Write source{r}_{j} where the neighbours read it."""
    tile = variant.tile
    for j in range(tile.others):
        for g in range(tile.fours):
            place = _across(tile, f"(x + {j * tile.across}u)", "low_x", g)
            value = _four_rows(tile, g, f"{source}{{r}}_{j}")
            yield f"{variant.place(name)}[{place}] = {value};"


def _products(variant: Variant, *sums: tuple[str, str, str]) -> Iterator[str]:
    """result{r}_{c} += weight of own and other row * column c of the other row, for each of `sums`.

    sums: (result, weights, rows).
    """
    tile, body = variant.tile, list[str]()
    for result, weights, rows in sums:
        for g in range(tile.fours):
            place = _across(tile, "i", "low_i", g)
            body.append(f"let w{g}_{result} = {variant.place(weights)}[{place}];")
        width = variant.width(rows)
        for c in range(width // tile.across):
            place = f"i * {width}u + (x ^ low_i) + {c * tile.across}u"
            body.append(f"let {result}_{c} = {variant.place(rows)}[{place}];")
            body += [f"{result}{r}_{c} += w{r // 4}_{result}.{_PARTS[r % 4]} * {result}_{c};"
                     for r in range(tile.rows)]  # fmt: skip
    length = "k.queries" if variant.stage == "key" else "k.keys"
    yield from _repeat(variant, "i", f"min({tile.other}u, {length} - at)", body)


def _zeros(variant: Variant, result: str, name: str) -> Iterator[str]:
    for r in range(variant.tile.rows):
        for c in range(variant.width(name) // variant.tile.across):
            yield f"var {result}{r}_{c} = vec4<f32>(0.0);"


def _combine(variant: Variant, name: str, text: str) -> Iterator[str]:
    """Combine name{g} over the lanes of a row, in their order.

    text: how a lane's `part` is added to `{name}`. What else lies in the memory of the parts has
    been read before, and may be written after a barrier.
    """
    tile, parts = variant.tile, variant.place("parts")
    for g in range(tile.fours):
        yield f"{parts}[{_across(tile, 'x', 'low_x', g)}] = {name}{g};"
    yield "workgroupBarrier();"
    for g in range(tile.fours):
        yield f"{name}{g} = {parts}[{_across(tile, '0u', '0u', g)}];"
        step = text.format(name=f"{name}{g}", part=f"{parts}[{_across(tile, 'i', '(i & 7u)', g)}]")
        if variant.unroll > 1:
            yield from (f"{{ let i = {i}u; {step} }}" for i in range(1, tile.across))
        else:
            yield from (f"for (var i = 1u; i < {tile.across}u; i++) {{", step, "}")


def _store(variant: Variant, name: str, result: str, factor: str = "") -> Iterator[str]:
    """Write the own rows of `result`; in `factor`, {g} and {part} stand for the row."""
    tile, size = variant.tile, "value_size" if name in _OF_VALUES else "size"
    for r in range(tile.rows):
        yield "{" if variant.is_exact else f"if (row{r} < {_length(name)}) {{"
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


def _store_numbers(variant: Variant, name: str, values: str) -> Iterator[str]:
    """Write one number for each own row."""
    yield "if (x == 0u) {"
    for r in range(variant.tile.rows):
        yield f"if (row{r} < k.queries) {{"
        yield f"{name}[row_start + row{r}] = {values}{r // 4}.{_PARTS[r % 4]};"
        yield "}"
    yield "}"


def _over_keys(variant: Variant) -> Iterator[str]:
    """The opening of the loop over all keys that own queries may see."""
    stop = f"min(k.keys, first + {variant.tile.own}u)" if variant.is_causal else "k.keys"
    yield f"let stop = {stop};"
    yield f"for (var at = 0u; at < stop; at += {variant.tile.other}u) {{"


def _forward(variant: Variant) -> Iterator[str]:
    tile, fours = variant.tile, range(variant.tile.fours)
    load = partial(_load, variant, first="at", count=tile.other)
    yield from _load(variant, "Q", "first", tile.own)
    yield from _zeros(variant, "o", "V")
    for g in fours:
        yield f"var largest{g} = vec4<f32>(LOWEST);"
        yield f"var sum{g} = vec4<f32>(0.0);"
    yield from _over_keys(variant)
    yield from load("K")
    yield from () if tile.is_shared else load("V")
    yield "workgroupBarrier();"
    yield from _scores(variant, "s", "Q", "K")
    yield from _hide(variant, "s", "LOWEST")
    yield from _softmax(variant, load("V") if tile.is_shared else ())
    yield "workgroupBarrier();"
    yield from _products(variant, ("o", "p", "V"))
    yield "workgroupBarrier();"
    yield "}"
    yield from _combine(variant, "sum", "{name} += {part};")
    yield from _store(variant, "O", "o", " / sum{g}.{part}")
    yield "let row_start = (batch * k.heads + owner) * k.queries;"
    for g in fours:
        yield f"let logarithms{g} = largest{g} * {_LOG_2} + logarithm(sum{g});"
    yield from _store_numbers(variant, "total", "logarithms")


def _softmax(variant: Variant, load: Iterator[str] | tuple[()]) -> Iterator[str]:
    """Turn scores s into weights p of the largest score so far, and what is added up as well.

    load: what is done once all lanes have read the keys.
    """
    tile, fours = variant.tile, range(variant.tile.fours)
    columns = range(variant.value_size // tile.across)
    for g in fours:
        yield f"var now{g} = largest{g};"
        for j in range(tile.others):  # NaN may be lost here; the sum has it
            yield f"now{g} = max(now{g}, {_four_rows(tile, g, f's{{r}}_{j}')});"
    yield from _combine(variant, "now", "{name} = max({name}, {part});")
    yield from load
    for g in fours:
        yield f"let shrink{g} = power_of_two(largest{g} - now{g});"
        yield f"largest{g} = now{g};"
        yield f"sum{g} *= shrink{g};"
    if tile.is_shared:
        yield "workgroupBarrier();"
    for j in range(tile.others):
        for g in fours:
            yield f"let p{j}_{g} = power_of_two({_four_rows(tile, g, f's{{r}}_{j}')} - now{g});"
            yield f"sum{g} += p{j}_{g};"
            place = _across(tile, f"(x + {j * tile.across}u)", "low_x", g)
            yield f"{variant.place('p')}[{place}] = p{j}_{g};"
    for r in range(tile.rows):
        yield from (f"o{r}_{c} *= shrink{r // 4}.{_PARTS[r % 4]};" for c in columns)


def _difference(variant: Variant) -> Iterator[str]:
    """difference{g} = delta of the own rows, which is stored; and totals{g}, per log(2)."""
    tile, fours = variant.tile, range(variant.tile.fours)
    yield from (f"var difference{g} = vec4<f32>(0.0);" for g in fours)
    for r in range(tile.rows):
        for c in range(variant.value_size // tile.across):
            column = f"(x + {c * tile.across}u)"
            values = (_four(variant, name, f"base_{name}", f"row{r}", column) for name in "GO")
            yield f"difference{r // 4}.{_PARTS[r % 4]} += dot({', '.join(values)});"
    yield from _combine(variant, "difference", "{name} += {part};")
    yield "workgroupBarrier();"
    yield "let row_start = (batch * k.heads + owner) * k.queries;"
    yield from _store_numbers(variant, "delta", "difference")
    for g in fours:
        totals = _four_rows(tile, g, "total[row_start + min(row{r}, k.queries - 1u)]")
        yield f"let totals{g} = {totals} * {_PER_LOG_2};"


def _query_gradient(variant: Variant) -> Iterator[str]:
    tile = variant.tile
    own = partial(_load, variant, first="first", count=tile.own)
    other = partial(_load, variant, first="at", count=tile.other)
    yield from _difference(variant)
    yield from () if tile.is_shared else (*own("Q"), *own("G"))
    yield from _zeros(variant, "dq", "Q")
    yield from _over_keys(variant)
    yield from (*other("K"), *other("V"), *(own("Q") if tile.is_shared else ()))
    yield "workgroupBarrier();"
    yield from _scores(variant, "s", "Q", "K")
    if tile.is_shared:
        yield from ("workgroupBarrier();", *own("G"), "workgroupBarrier();")
    yield from _scores(variant, "t", "G", "V")
    for j in range(tile.others):
        for g in range(tile.fours):
            yield f"let p{j}_{g} = power_of_two({_four_rows(tile, g, f's{{r}}_{j}')} - totals{g});"
            yield (f"let ds{j}_{g} = p{j}_{g} * "
                   f"({_four_rows(tile, g, f't{{r}}_{j}')} - difference{g});")  # fmt: skip
    yield from (f"t{r}_{j} = ds{j}_{r // 4}.{_PARTS[r % 4]};" for r, j in _pairs(tile))
    yield from _hide(variant, "t", "0.0")
    yield "workgroupBarrier();"
    yield from _pass_on(variant, "s", "t")
    yield "workgroupBarrier();"
    yield from _products(variant, ("dq", "s", "K"))
    yield "workgroupBarrier();"
    yield "}"
    yield from _store(variant, "dQ", "dq", " * k.scale")


def _key_gradient(variant: Variant) -> Iterator[str]:
    tile = variant.tile
    own = partial(_load, variant, first="first", count=tile.own)
    yield from () if tile.is_shared else (*own("K"), *own("V"))
    yield from (*_zeros(variant, "dk", "K"), *_zeros(variant, "dv", "V"))
    begin = f"first / {tile.other}u * {tile.other}u" if variant.is_causal else "0u"
    yield "for (var member = 0u; member < k.members; member++) {"
    yield "let row_start = (batch * k.heads + owner * k.members + member) * k.queries;"
    yield f"for (var at = {begin}; at < k.queries; at += {tile.other}u) {{"
    yield from _load(variant, "Q", "at", tile.other, "base_Q + member * k.Q_head")
    yield from _load(variant, "G", "at", tile.other, "base_G + member * k.G_head")
    if tile.is_shared:
        yield from own("K")
    yield "workgroupBarrier();"
    yield from _key_products_shared(variant) if tile.is_shared else _key_products(variant)
    yield "workgroupBarrier();"
    yield "}"
    yield "}"
    yield from _store(variant, "dK", "dk", f" * {_LOG_2}")  # the scale is in the queries
    yield from _store(variant, "dV", "dv")


def _key_products(variant: Variant) -> Iterator[str]:
    yield from _scores(variant, "s", "K", "Q")
    yield from _scores(variant, "t", "V", "G")
    yield from _weights(variant)
    yield from _gradients(variant)
    yield from (*_pass_on(variant, "p", "s"), *_pass_on(variant, "s", "t"))
    yield "workgroupBarrier();"
    yield from _products(variant, ("dv", "p", "G"), ("dk", "s", "Q"))


def _key_products_shared(variant: Variant) -> Iterator[str]:
    """Keys, weights, values and the gradients of scores one after the other in the same memory."""
    barrier = "workgroupBarrier();"
    yield from _scores(variant, "s", "K", "Q")
    yield from _weights(variant)
    yield from (barrier, *_pass_on(variant, "p", "s"), barrier)
    yield from _products(variant, ("dv", "p", "G"))
    yield from (barrier, *_load(variant, "V", "first", variant.tile.own), barrier)
    yield from _scores(variant, "t", "V", "G")
    yield from _gradients(variant)
    yield from (barrier, *_pass_on(variant, "s", "t"), barrier)
    yield from _products(variant, ("dk", "s", "Q"))


def _weights(variant: Variant) -> Iterator[str]:
    """Turn scores s of keys and queries into weights."""
    tile = variant.tile
    for j in range(tile.others):
        yield "{"
        yield f"let query = row_start + min(at + x + {j * tile.across}u, k.queries - 1u);"
        yield f"let total_ = total[query] * {_PER_LOG_2};"
        for g in range(tile.fours):
            yield f"let p{g} = power_of_two({_four_rows(tile, g, f's{{r}}_{j}')} - total_);"
        yield from (f"s{r}_{j} = p{r // 4}.{_PARTS[r % 4]};" for r in range(tile.rows))
        yield "}"
    yield from _hide(variant, "s", "0.0")


def _gradients(variant: Variant) -> Iterator[str]:
    """Turn products t of gradients and values into gradients of scores."""
    tile = variant.tile
    for j in range(tile.others):
        yield "{"
        yield f"let query = row_start + min(at + x + {j * tile.across}u, k.queries - 1u);"
        yield "let delta_ = delta[query];"
        yield from (f"t{r}_{j} = s{r}_{j} * (t{r}_{j} - delta_);" for r in range(tile.rows))
        yield "}"
    yield from _hide(variant, "t", "0.0")
