"""WGSL of attention on matrix units, with the division of work of `attention_program.py`.

Each subgroup owns as many rows as a unit's matrix has. Own rows are loaded into matrices once; the
others pass through workgroup memory as float16, while the next ones are loaded into registers.
Scores pass through workgroup memory to the lanes, which turn them into float32 weights: a lane
holds adjacent elements of one row. Weights go back as float16, over rows that are no longer needed.

Results of units cannot be scaled row by row. So the forward pass accumulates in float32 registers,
which are rescaled when a row meets a larger score; the gradients stay in matrices to the end.

float16 lacks float32's range, so every array is multiplied by a power of two of its head, weights
by 2^WEIGHT, and gradients of scores by a power that follows from their bound:
|dS| <= 2 |row of G| |row of V|. Each number is rounded once. Split into two float16 per number, as
in products at `high`, these kernels were slower than float32 arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from rumus.gpu.attention.attention_arrays import (
    BOUND,
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
from rumus.gpu.device.limits import DeviceLimits
from rumus.gpu.device.matrix_units import SUBGROUP, Operand, Units
from rumus.gpu.device.pipelines import Program
from rumus.gpu.device.shaders import prelude
from rumus.gpu.device.stored import Stored, enabling
from rumus.gpu.products.entry import entry
from rumus.gpu.products.unit_product import FUNCTIONS, PAD, TOP

WEIGHT: Final = 14  # the exponent that a weight of 1 gets
ABREAST: Final = 4  # exponents of an array that are read at once
WIDEST: Final = 128  # maximum elements of a row, which registers hold
LOOKED_AT: Final = ("Q", "K", "V", "G")  # in the order of their exponents
_OWN: Final[dict[Stage, tuple[str, ...]]] = {
    "forward": ("Q",), "query": ("Q", "G"), "key": ("K", "V"),
}  # fmt: skip
_OTHER: Final[dict[Stage, tuple[str, str]]] = {
    "forward": ("K", "V"), "query": ("K", "V"), "key": ("Q", "G"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class UnitAttentionTile:
    """The subgroups of a workgroup, and the other rows of one iteration.

    slots: how many results of a subgroup workgroup memory holds at a time; 1 or 2.
    """

    parts: int
    other: int
    slots: int = 1

    @property
    def lanes(self) -> int:
        """The invocations of a workgroup."""
        return SUBGROUP * self.parts


@dataclass(frozen=True, slots=True)
class UnitAttention:
    """The key of a pipeline.

    stored: how rows are stored. size, value_size: the elements of a row of queries and keys, and of
    values, padded with zeros. is_scaled: the arrays come with exponents.
    """

    stage: Stage
    tile: UnitAttentionTile
    units: Units
    stored: Stored
    size: int
    value_size: int
    in_fours: bool
    is_exact: bool
    is_causal: bool
    is_scaled: bool

    @property
    def own(self) -> int:
        """The rows of a workgroup."""
        return self.tile.parts * self.units.shape.rows

    @property
    def each(self) -> int:
        """The elements of a result that a lane holds."""
        return self.units.shape.rows * self.units.shape.columns // SUBGROUP

    def width(self, name: str) -> int:
        """The elements of a row of an array."""
        return self.value_size if name in OF_VALUES else self.size

    def line(self, name: str) -> int:
        """The halves from one row to the next in workgroup memory. W: weights."""
        return (self.tile.other if name == "W" else self.width(name)) + PAD

    @property
    def places(self) -> dict[str, int]:
        """The starts of arrays in workgroup memory, in halves. end: their total size."""
        first, second = _OTHER[self.stage]
        rows = {name: self.tile.other * self.line(name) for name in (first, second)}
        weights = self.own * self.line("W")
        found = {first: 0}
        if self.stage == "forward":  # keys are read before there are weights
            found |= {"W": 0, second: max(rows[first], weights)}
            end = found[second] + rows[second]
        elif self.stage == "query":  # and so are values
            found |= {second: rows[first], "W": rows[first]}
            end = rows[first] + max(rows[second], weights)
        else:
            found |= {second: rows[first], "W": rows[first] + rows[second]}
            end = found["W"] + weights
        for name in _OWN[self.stage]:
            if self.units.holds:  # only passed through, before anything else is there
                found[name] = 0
                end = max(end, self.own * self.line(name))
            else:
                found[name] = end
                end += self.own * self.line(name)
        return found | {"end": end}

    @property
    def bytes(self) -> int:
        """The workgroup memory."""
        half = 4 if self.units.half == "f32" else 2
        floats = (
            self.tile.slots * self.tile.parts * self.units.shape.rows * self.units.shape.columns
        )
        floats += self.tile.lanes + (2 * self.tile.other if self.stage == "key" else 0)
        return half * self.places["end"] + 4 * floats

    def fits(self, limits: DeviceLimits) -> bool:
        """Whether a device can run it: a lane has elements of one row, in fours."""
        shape = self.units.shape
        return (
            self.bytes <= limits.workgroup_memory
            and self.tile.lanes <= limits.workgroup_size
            and self.each <= shape.columns
            and not self.each % 4
            and not self.tile.other % shape.columns
            and not self.tile.other % shape.depth
            and self.tile.other <= self.tile.lanes
        )


def unit_attention_program(variant: UnitAttention) -> Program:
    """Return the WGSL of one stage."""
    writer = {"forward": _forward, "query": _query_gradient, "key": _key_gradient}[variant.stage]
    lines = [*_header(variant), *place(variant), *_lanes(variant), *_powers(variant)]
    body = "\n".join([*lines, *writer(variant), "}", ""])
    half = "enable f16;\n" if variant.units.half == "f16" else enabling(variant.stored)
    access = "".join(mode for _, mode in BOUND[variant.stage]) + "r" * variant.is_scaled
    packed = "I" * len(NUMBERS) + "f" + "IIII" * len(strided(variant.stage)) + "II"
    text = half + prelude(body) + FUNCTIONS + _FUNCTIONS + body
    written = Program(f"unit_{NAMES[variant.stage]}", text, access, packed, variant.bytes)
    return replace(written, features=variant.units.features)


_FUNCTIONS: Final = """
fn two_to(n: i32) -> f32 {
    return bitcast<f32>(u32(n + 127) << 23u);
}

fn moved(x: vec4<f32>, n: i32) -> vec4<f32> { // x times 2^n, which may overflow on its own
    let third = n / 3;
    return x * two_to(third) * two_to(third) * two_to(n - 2 * third);
}
"""


def _header(variant: UnitAttention) -> Iterator[str]:
    tile, count = variant.tile, variant.units.shape.rows * variant.units.shape.columns
    yield from scalars(variant, "parts", "owners")
    yield from bindings(variant)
    if variant.is_scaled:
        number = len(BOUND[variant.stage])
        yield f"@group(0) @binding({number}) var<storage, read> exponents_of: array<u32>;"
    # All sizes are multiples of 16 bytes: units read wrong numbers from unaligned arrays.
    yield f"var<workgroup> rows: array<{variant.units.half}, {variant.places['end']}>;"
    yield f"var<workgroup> passed: array<f32, {tile.slots * tile.parts * count}>;"
    yield f"var<workgroup> beside: array<f32, {tile.lanes}>;"
    if variant.stage == "key":
        yield from (f"var<workgroup> {n}: array<f32, {tile.other}>;" for n in ("totals", "deltas"))
    yield from entry(tile.lanes)


def _lanes(variant: UnitAttention) -> Iterator[str]:
    """The elements of a result that the lane holds: adjacent ones of a row."""
    shape = variant.units.shape
    yield f"let part = local / {SUBGROUP}u;"
    yield f"let lane = local % {SUBGROUP}u * {variant.each}u;"
    yield f"let lane_column = lane % {shape.columns}u;"
    yield f"let own_row = part * {shape.rows}u + lane / {shape.columns}u;"
    yield "let row = first + own_row;"


def _powers(variant: UnitAttention) -> Iterator[str]:
    """The power of two by_{name} of each array, and the exponent of its inverse, n_{name}."""
    owner = "owner" if variant.stage == "key" else "owner / k.members"
    yield f"let of_head = batch * (k.heads / k.members) + {owner};"
    names = LOOKED_AT[: 3 if variant.stage == "forward" else 4]
    if variant.is_scaled:
        yield from (f"var most_{name} = 0u;" for name in names)
        yield f"for (var i = 0u; i < k.parts; i += {ABREAST}u) {{"
        # All reads first, so that none waits for another; the last part is read again.
        for number, name in enumerate(names):
            for j in range(ABREAST):
                part = f"min(i + {j}u, k.parts - 1u)"
                at = f"({number}u * k.owners + of_head) * k.parts + {part}"
                yield f"let {name}{j} = exponents_of[{at}];"
        for name in names:
            yield from (f"most_{name} = max(most_{name}, {name}{j});" for j in range(ABREAST))
        yield "}"
    for name in names:
        yield f"let by_{name} = {f'power_for(most_{name})' if variant.is_scaled else '1.0'};"
        yield f"let n_{name} = 127 - i32(bitcast<u32>(by_{name}) >> 23u);"
    # Scores are in units of log(2). A single factor could overflow.
    yield "let score_half = (n_Q + n_K) >> 1u;"
    yield "let by_score = two_to(score_half);"
    yield f"let by_rest = two_to(n_Q + n_K - score_half) * (k.scale * {PER_LOG_2});"
    if variant.stage != "forward":
        yield f"let n_delta = -(n_G + n_V) - {_shrunk(variant)};"


def _shrunk(variant: UnitAttention) -> int:
    """The exponent that scales gradients of scores down: no sum of products is larger."""
    return 2 * (TOP + 1) + (2 * variant.value_size - 1).bit_length() - 15


class _Rows:
    """Rows of an array being loaded into workgroup memory.

    count: of rows. base: the start of the head.
    """

    def __init__(self, variant: UnitAttention, name: str, count: int, base: str = "") -> None:
        self.variant, self.name, self.count = variant, name, count
        self.base = base or f"base_{name}"
        self.wide = variant.width(name) // 4
        self.lanes = variant.tile.lanes

    @property
    def turns(self) -> range:
        return range(-(-self.count * self.wide // self.lanes))

    def declare(self) -> Iterator[str]:
        """Declare the variables to load, and the lane's start."""
        yield from (f"var next_{self.name}{turn}: vec4<f32>;" for turn in self.turns)
        if self._is_stepped:
            row = f"(local / {self.wide}u) * k.{self.name}_row"
            yield f"let lane_{self.name} = ({self.base} + {row}) / 4u + local % {self.wide}u;"
            yield f"let line_{self.name} = k.{self.name}_row / 4u;"

    @property
    def _is_stepped(self) -> bool:
        return self.variant.is_exact and not self.lanes % self.wide

    def _turn(self, turn: int) -> Iterator[str]:
        """Open a block for the lanes that load something in this turn."""
        left = self.count * self.wide - turn * self.lanes
        yield f"if (local < {left}u) {{" if left < self.lanes else "{"
        if self.lanes % self.wide:
            yield f"let rank = local + {turn * self.lanes}u;"
            yield f"let line = rank / {self.wide}u;"
            yield f"let four = rank % {self.wide}u;"
        else:
            yield f"let line = local / {self.wide}u + {turn * self.lanes // self.wide}u;"
            yield f"let four = local % {self.wide}u;"

    def fetch(self, at: str) -> Iterator[str]:
        """Load what starts at row `at` into the variables."""
        n = self.name
        for turn in self.turns:
            yield from self._turn(turn)
            if self._is_stepped:
                step = turn * self.lanes // self.wide
                place = f"lane_{n} + ({at} + {step}u) * line_{n}"
                value = self.variant.stored.load(f"{n}[{place}]", 4)
            else:
                value = four(self.variant, n, self.base, f"({at} + line)", "four")
            yield from (f"next_{n}{turn} = {value};", "}")

    def keep(self) -> Iterator[str]:
        """Write the variables to workgroup memory."""
        variant, n = self.variant, self.name
        start, line = variant.places[n], variant.line(n)
        for turn in self.turns:
            yield from self._turn(turn)
            yield f"let x = next_{n}{turn} * by_{n};"
            yield from _write(variant, "x", f"({start // 4}u + line * {line // 4}u + four)")
            yield "}"

    def bring(self, at: str) -> Iterator[str]:
        """Load and write at once."""
        yield from (*self.declare(), *self.fetch(at), *self.keep())


def _write(variant: UnitAttention, value: str, at: str) -> Iterator[str]:
    """Write a vec4<f32> as halves, `at` in fours."""
    yield f"let halves = {variant.units.halves(value)};"
    yield from (f"rows[{at} * 4u + {c}u] = halves[{c}];" for c in range(4))


_BARRIER: Final = "workgroupBarrier();"


def _own(variant: UnitAttention) -> Iterator[str]:
    """Load the own rows into matrices, through workgroup memory."""
    shape = variant.units.shape
    for name in _OWN[variant.stage]:
        yield from ("{", *_Rows(variant, name, variant.own).bring("first"), "}", _BARRIER)
        start = f"{variant.places[name]}u + part * {shape.rows * variant.line(name)}u"
        for step in range(variant.width(name) // shape.depth):
            at = f"{start} + {step * shape.depth}u"
            yield variant.units.left(_left(variant, name, step), at)
        yield _BARRIER


def _left(variant: UnitAttention, name: str, step: int) -> Operand:
    """A matrix of the subgroup's own rows, or of weights."""
    return Operand(f"{name}{step}", "rows", variant.line(name), along_k=True)


def _clear(variant: UnitAttention, result: str, name: str) -> Iterator[str]:
    """Declare the accumulators: a row of matrices as wide as an array."""
    for c in range(variant.width(name) // variant.units.shape.columns):
        yield variant.units.declare(f"{result}{c}")


def _add(
    variant: UnitAttention, result: str, left: tuple[str, int], other: str, at: int, along_k: bool
) -> Iterator[str]:
    """result += left (array and step) * other rows from element `at` on."""
    right = Operand("right", "rows", variant.line(other), along_k)
    yield "{"
    yield variant.units.right(right, f"{variant.places[other] + at}u")
    yield from variant.units.add(result, _left(variant, *left), right)
    yield "}"


def _scores(variant: UnitAttention, result: str, own: str, other: str) -> Iterator[str]:
    """{result}{j} = own rows times other rows j * columns, ... ."""
    shape, line = variant.units.shape, variant.line(other)
    matrices = range(variant.tile.other // shape.columns)
    for j in matrices:
        yield variant.units.declare(f"{result}{j}")
    for step in range(variant.width(own) // shape.depth):
        for j in matrices:
            at = j * shape.columns * line + step * shape.depth
            yield from _add(variant, f"{result}{j}", (own, step), other, at, along_k=True)


def _products(variant: UnitAttention, result: str, other: str) -> Iterator[str]:
    """{result}{c} += weights times columns c * columns, ... of the other rows."""
    shape, line = variant.units.shape, variant.line(other)
    start = f"{variant.places['W']}u + part * {shape.rows * variant.line('W')}u"
    for step in range(variant.tile.other // shape.depth):
        yield "{"
        weights = _left(variant, "W", step)
        yield variant.units.left(weights, f"{start} + {step * shape.depth}u")
        for c in range(variant.width(other) // shape.columns):
            at = step * shape.depth * line + c * shape.columns
            yield from _add(variant, f"{result}{c}", ("W", step), other, at, along_k=False)
        yield "}"


class _Passing:
    """Passes results to the lanes through workgroup memory, by its slots in turn."""

    def __init__(self, variant: UnitAttention) -> None:
        self.variant = variant
        self.number = 0

    def bring(self, result: str, value: str) -> Iterator[str]:
        """Declare {value}_{v}, the lane's elements of a result, four by four."""
        variant, shape = self.variant, self.variant.units.shape
        size, slots = shape.rows * shape.columns, variant.tile.slots
        at = f"(part * {slots}u + {self.number % slots}u) * {size}u"
        self.number += 1
        if slots == 1:
            yield _BARRIER
        yield variant.units.store(result, "passed", at, f"{shape.columns}u")
        yield _BARRIER
        for v in range(variant.each // 4):
            elements = (f"passed[{at} + lane + {4 * v + c}u]" for c in range(4))
            yield f"let {value}_{v} = vec4<f32>({', '.join(elements)});"


def _combine(variant: UnitAttention, name: str, text: str) -> Iterator[str]:
    """Combine a number over the lanes of a row. text: how a `part` is added to it."""
    step = 1
    while step < variant.units.shape.columns // variant.each:
        yield _BARRIER
        yield f"beside[local] = {name};"
        yield _BARRIER
        yield f"{name} = {text.format(part=f'beside[local ^ {step}u]')};"
        step *= 2


def _blocks(variant: UnitAttention) -> list[tuple[int, int, str]]:
    """The lane's fours of a row of scores: matrix, number, and column among the other rows."""
    columns = variant.units.shape.columns
    return [
        (j, v, f"(lane_column + {j * columns + 4 * v}u)")
        for j in range(variant.tile.other // columns)
        for v in range(variant.each // 4)
    ]


def _hide(variant: UnitAttention, name: str, hidden: str) -> Iterator[str]:
    """{name}{j}_{v} = hidden for pairs of rows beyond the diagonal or an end."""
    own, other = variant.own, variant.tile.other
    edge, unseen = at_edge(variant.stage, variant.is_causal, variant.is_exact, own, other)
    if not edge:
        return
    yield f"if ({edge}) {{"
    for j, v, column in _blocks(variant):
        value = f"{name}{j}_{v}"
        yield "{"
        yield f"let other = vec4<u32>(at + {column}) + vec4<u32>(0u, 1u, 2u, 3u);"
        test = " | ".join(f"(other {by} vec4<u32>({bound}))" for by, bound in unseen)
        yield f"{value} = select({value}, vec4<f32>({hidden}), {test});"
        yield "}"
    yield "}"


def _pass_on(variant: UnitAttention, name: str) -> Iterator[str]:
    """Write {name}{j}_{v} as weights."""
    start, line = variant.places["W"], variant.line("W")
    for j, v, column in _blocks(variant):
        at = f"({start // 4}u + own_row * {line // 4}u + {column} / 4u)"
        yield from ("{", *_write(variant, f"{name}{j}_{v}", at), "}")


def _turns(
    variant: UnitAttention,
    begin: str,
    stop: str,
    body: Sequence[str],
    bases: Sequence[str] = ("", ""),
    more: tuple[Sequence[str], Sequence[str], Sequence[str]] = ((), (), ()),
) -> Iterator[str]:
    """Run `body` for each piece of the other rows, from `at` on.

    more: further declarations, loads and writes for a piece; {at} is its start.
    """
    other = variant.tile.other
    rows = [
        _Rows(variant, name, other, base)
        for name, base in zip(_OTHER[variant.stage], bases, strict=True)
    ]
    kept = [line for each in rows for line in each.keep()] + list(more[2])

    def fetched(at: str) -> list[str]:
        lines = [line for each in rows for line in each.fetch(at)]
        return lines + [line.format(at=at) for line in more[1]]

    yield from (line for each in rows for line in each.declare())
    yield from more[0]
    yield f"let last = {begin} + ({stop} - {begin} - 1u) / {other}u * {other}u;"
    yield from (*fetched(begin), *kept, _BARRIER)
    yield f"for (var at = {begin}; at < {stop}; at += {other}u) {{"
    # The last iteration needlessly reads its own rows again: a branch would cost more.
    yield f"let next = min(at + {other}u, last);"
    yield from (*fetched("next"), *body, _BARRIER, *kept, _BARRIER)
    yield "}"


def _over_keys(variant: UnitAttention, body: Sequence[str]) -> Iterator[str]:
    """Run `body` for all keys that own queries may see."""
    stop = f"min(k.keys, first + {variant.own}u)" if variant.is_causal else "k.keys"
    yield f"let stop = {stop};"
    yield from _turns(variant, "0u", "stop", body)


def _store(variant: UnitAttention, name: str, value: Callable[[int, int], str]) -> Iterator[str]:
    """Write the lane's elements of own rows; value(c, v): those of matrix c, fours v."""
    size = "value_size" if name in OF_VALUES else "size"
    columns = variant.units.shape.columns
    yield "{" if variant.is_exact else f"if (row < {length(name)}) {{"
    yield f"let start = base_{name} + row * k.{name}_row;"
    for c in range(variant.width(name) // columns):
        for v in range(variant.each // 4):
            column = f"(lane_column + {c * columns + 4 * v}u)"
            yield "{" if variant.is_exact else f"if ({column} < {size}) {{"
            yield f"let x = {value(c, v)};"
            if variant.in_fours:
                yield f"{name}[(start + {column}) / 4u] = {variant.stored.store('x', 4)};"
            for number, part in enumerate("" if variant.in_fours else "xyzw"):
                yield f"if ({column} + {number}u < {size}) {{"
                one = variant.stored.store(f"x.{part}", 1)
                yield f"{name}[start + {column} + {number}u] = {one};"
                yield "}"
            yield "}"
    yield "}"


def _store_number(name: str, value: str) -> Iterator[str]:
    """Write one number for each own row."""
    yield f"if (lane_column == 0u && row < k.queries) {{ {name}[row_start + row] = {value}; }}"


def _score(value: str) -> str:
    """A raw product of queries and keys as a score, in units of log(2)."""
    return f"{value} * by_score * by_rest"


def _forward(variant: UnitAttention) -> Iterator[str]:
    columns = variant.units.shape.columns
    results = [
        (c, v)
        for c in range(variant.value_size // columns)
        for v in range(variant.each // 4)
    ]  # fmt: skip
    yield from _own(variant)
    yield from (f"var o{c}_{v} = vec4<f32>(0.0);" for c, v in results)
    yield from ("var largest = LOWEST;", "var sum = 0.0;")
    passing, body = _Passing(variant), list[str]()
    body += _scores(variant, "s", "Q", "K")
    for j in range(variant.tile.other // columns):
        body += passing.bring(f"s{j}", f"raw{j}")
    body += [f"var p{j}_{v} = {_score(f'raw{j}_{v}')};" for j, v, _ in _blocks(variant)]
    body += _hide(variant, "p", "LOWEST")
    body += ["var most = vec4<f32>(largest);"]  # NaN may be lost here; the sum keeps it
    body += [f"most = max(most, p{j}_{v});" for j, v, _ in _blocks(variant)]
    body += ["var now = max(max(most.x, most.y), max(most.z, most.w));"]
    body += _combine(variant, "now", "max(now, {part})")
    body += ["let shrink = power_of_two(vec4<f32>(largest - now)).x;", "largest = now;"]
    body += ["var added = vec4<f32>(0.0);"]
    for j, v, _ in _blocks(variant):
        body += [f"p{j}_{v} = power_of_two(p{j}_{v} - vec4<f32>(now));"]
        body += [f"added += p{j}_{v};", f"p{j}_{v} *= {2.0**WEIGHT};"]
    body += ["sum = sum * shrink + (added.x + added.y) + (added.z + added.w);"]
    body += [*_pass_on(variant, "p"), _BARRIER]
    body += [*_clear(variant, "r", "V"), *_products(variant, "r", "V")]
    for c in range(variant.value_size // columns):
        body += passing.bring(f"r{c}", f"value{c}")
        body += [f"o{c}_{v} = o{c}_{v} * shrink + value{c}_{v};" for v in range(variant.each // 4)]
    yield from _over_keys(variant, body)
    yield from _combine(variant, "sum", "sum + {part}")
    yield f"sum = select(sum, {NAN}.x, largest <= LOWEST);"  # as in attention_program.py
    yield from _store(variant, "O", lambda c, v: f"moved(o{c}_{v} / sum, n_V - {WEIGHT})")
    yield "let row_start = (batch * k.heads + owner) * k.queries;"
    yield f"let logarithm_ = largest + logarithm(vec4<f32>(sum)).x * {PER_LOG_2};"
    yield from _store_number("total", "logarithm_")


def _difference(variant: UnitAttention) -> Iterator[str]:
    """`difference`: delta of the lane's row, which is stored; and its total."""
    beside = variant.units.shape.columns // variant.each
    yield "var difference = 0.0;"
    for c in range(0, variant.value_size // 4, beside):
        part = f"(lane_column / {variant.each}u + {c}u)"
        values = (four(variant, name, f"base_{name}", "row", part) for name in "GO")
        yield f"difference += dot({', '.join(values)});"
    yield from _combine(variant, "difference", "difference + {part}")
    yield "let row_start = (batch * k.heads + owner) * k.queries;"
    yield from _store_number("delta", "difference")
    yield "let total_ = total[row_start + min(row, k.queries - 1u)];"


def _added_up(
    variant: UnitAttention, results: Sequence[tuple[str, str]], loop: Sequence[str]
) -> Iterator[str]:
    """The loop; then {result}_sum{c}_{v} are the lane's elements of each result.

    results: each with the array of its width.
    """
    passing = _Passing(variant)
    yield from (line for result, name in results for line in _clear(variant, result, name))
    yield from loop
    for result, name in results:
        for c in range(variant.width(name) // variant.units.shape.columns):
            yield from passing.bring(f"{result}{c}", f"{result}_sum{c}")


def _query_gradient(variant: UnitAttention) -> Iterator[str]:
    columns = variant.units.shape.columns
    yield from _difference(variant)
    yield from _own(variant)
    yield "let delta_ = moved(vec4<f32>(difference), n_delta);"
    passing, body = _Passing(variant), list[str]()
    body += [*_scores(variant, "s", "Q", "K"), *_scores(variant, "t", "G", "V")]
    for j in range(variant.tile.other // columns):
        body += [*passing.bring(f"s{j}", f"raw{j}"), *passing.bring(f"t{j}", f"of{j}")]
        for v in range(variant.each // 4):
            body += [
                f"let p{j}_{v} = power_of_two({_score(f'raw{j}_{v}')} - vec4<f32>(total_));",
                f"var ds{j}_{v} = p{j}_{v} * (of{j}_{v} * {2.0 ** -_shrunk(variant)} - delta_);",
            ]
    body += [*_hide(variant, "ds", "0.0"), *_pass_on(variant, "ds"), _BARRIER]
    body += _products(variant, "dq", "K")
    yield from _added_up(variant, [("dq", "K")], list(_over_keys(variant, body)))
    moved = f"n_G + n_V + n_K + {_shrunk(variant)}"
    yield from _store(variant, "dQ", lambda c, v: f"moved(dq_sum{c}_{v} * k.scale, {moved})")


def _key_gradient(variant: UnitAttention) -> Iterator[str]:
    other, columns = variant.tile.other, variant.units.shape.columns
    yield from _own(variant)
    passing, body = _Passing(variant), list[str]()
    body += [*_scores(variant, "s", "K", "Q"), *_scores(variant, "t", "V", "G")]
    for j in range(other // columns):
        body += passing.bring(f"s{j}", f"raw{j}")
    for j, v, column in _blocks(variant):
        seen = ", ".join(f"totals[{column} + {c}u]" for c in range(4))
        body += [f"var p{j}_{v} = power_of_two({_score(f'raw{j}_{v}')} - vec4<f32>({seen}));"]
    body += _hide(variant, "p", "0.0")
    body += [f"let w{j}_{v} = p{j}_{v} * {2.0**WEIGHT};" for j, v, _ in _blocks(variant)]
    body += [*_pass_on(variant, "w"), _BARRIER, *_products(variant, "dv", "G")]
    for j in range(other // columns):
        body += passing.bring(f"t{j}", f"of{j}")
    for j, v, column in _blocks(variant):
        seen = ", ".join(f"deltas[{column} + {c}u]" for c in range(4))
        value = f"of{j}_{v} * {2.0 ** -_shrunk(variant)} - vec4<f32>({seen})"
        body += [f"var ds{j}_{v} = p{j}_{v} * ({value});"]
    body += _hide(variant, "ds", "0.0")
    body += [*_pass_on(variant, "ds"), _BARRIER, *_products(variant, "dk", "Q")]
    begin = f"(first / {other}u * {other}u)" if variant.is_causal else "0u"
    numbers = (
        ["var next_total = 0.0;", "var next_delta = vec4<f32>(0.0);"],
        [
            f"if (local < {other}u) {{{{",
            "let query = row_start + min({at} + local, k.queries - 1u);",
            "next_total = total[query];",
            "next_delta = vec4<f32>(delta[query]);",
            "}}",
        ],
        [
            f"if (local < {other}u) {{",
            "totals[local] = next_total;",
            "deltas[local] = moved(next_delta, n_delta).x;",
            "}",
        ],
    )
    bases = [f"(base_{name} + member * k.{name}_head)" for name in _OTHER["key"]]
    loop = [
        f"let begin = {begin};",
        "for (var member = 0u; member < k.members; member++) {",
        "let row_start = (batch * k.heads + owner * k.members + member) * k.queries;",
        *_turns(variant, "begin", "k.queries", body, bases, numbers),
        "}",
    ]
    yield from _added_up(variant, [("dv", "V"), ("dk", "K")], loop)
    moved = f"n_G + n_V + n_Q + {_shrunk(variant)}"
    yield from _store(variant, "dK", lambda c, v: f"moved(dk_sum{c}_{v} * k.scale, {moved})")
    yield from _store(variant, "dV", lambda c, v: f"moved(dv_sum{c}_{v}, n_G - {WEIGHT})")
