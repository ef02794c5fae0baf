"""The arrays of attention, and the text that walks them, with or without matrix units.

Rows have any strides; if all starts and strides are multiples of four, four elements are read at a
time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, Protocol, TypeAlias

from rumus.gpu.device.stored import Stored, vector
from rumus.gpu.products.entry import workgroup_number

PER_LOG_2: Final = "1.44269504"
LOG_2: Final = "0.69314718"

Stage: TypeAlias = Literal["forward", "query", "key"]


class Rows(Protocol):
    """The properties of a variant that the text depends on."""

    @property
    def stage(self) -> Stage:
        """Which kernel it is."""

    @property
    def stored(self) -> Stored:
        """How the rows are stored."""

    @property
    def own(self) -> int:
        """The number of rows that a workgroup owns."""

    @property
    def in_fours(self) -> bool:
        """Whether rows are read and written four elements at a time."""

    @property
    def is_exact(self) -> bool:
        """Whether `in_fours` holds, rows need no padding, and no tile extends beyond an end."""

    @property
    def is_causal(self) -> bool:
        """Whether queries see only the keys up to their own position."""


# Stage -> its bindings in order, each with its access. O: the result; G: its gradient.
BOUND: Final[dict[Stage, tuple[tuple[str, str], ...]]] = {
    "forward": (("Q", "r"), ("K", "r"), ("V", "r"), ("O", "w"), ("total", "w")),
    "query": (("Q", "r"), ("K", "r"), ("V", "r"), ("O", "r"), ("G", "r"), ("dQ", "w"),
              ("total", "r"), ("delta", "w")),
    "key": (("Q", "r"), ("K", "r"), ("V", "r"), ("G", "r"), ("dK", "w"), ("dV", "w"),
            ("total", "r"), ("delta", "r")),
}  # fmt: skip
NAMES: Final[dict[Stage, str]] = {
    "forward": "attention",
    "query": "attention_gradient_query",
    "key": "attention_gradient_key",
}
OF_QUERIES: Final = ("Q", "O", "G", "dQ")
OF_VALUES: Final = ("V", "O", "G", "dV")
NAN: Final = "of_bits(0x7fc00000u)"  # a vec4
NUMBERED: Final = ("total", "delta")  # one number for each row of queries, dense
NUMBERS: Final = ("queries", "keys", "heads", "members", "sizes", "tiles", "groups")


def strided(stage: Stage) -> tuple[str, ...]:
    """Return the names of the arrays that are walked by strides: start, batch, head and row."""
    return tuple(name for name, _ in BOUND[stage] if name not in NUMBERED)


def scalars(variant: Rows, *more: str) -> Iterator[str]:
    """The struct of scalars. more: names of further whole numbers."""
    names = [*NUMBERS, "scale"]
    for name in strided(variant.stage):
        names += [f"{name}_start", f"{name}_batch", f"{name}_head", f"{name}_row"]
    yield "const LOWEST = -1e38;"  # twice it is finite
    yield "struct Scalars {"
    yield from (f"{name}: {'f32' if name == 'scale' else 'u32'}," for name in (*names, *more))
    yield "}"
    yield "var<immediate> k: Scalars;"


def bindings(variant: Rows) -> Iterator[str]:
    """The arrays that a stage reads and writes."""
    for number, (name, mode) in enumerate(BOUND[variant.stage]):
        kind = "f32"
        if name not in NUMBERED:
            kind = vector(variant.stored.wgsl, 4 if variant.in_fours else 1)
        how = "read" if mode == "r" else "read_write"
        yield f"@group(0) @binding({number}) var<storage, {how}> {name}: array<{kind}>;"


def place(variant: Rows) -> Iterator[str]:
    """The rows that the workgroup owns."""
    yield from workgroup_number()
    # With a causal mask, rows that see the most come first, so that the last workgroups are short.
    yield "let owners = k.groups / k.tiles;"
    order = "linear / owners"
    is_reversed = variant.is_causal and variant.stage != "key"
    order = f"(k.tiles - 1u - {order})" if is_reversed else f"({order})"
    yield f"let first = {order} * {variant.own}u;"
    count = "(k.heads / k.members)" if variant.stage == "key" else "k.heads"
    yield f"let owner = linear % owners % {count};"
    yield f"let batch = linear % owners / {count};"
    yield "let size = k.sizes & 0xffffu;"
    yield "let value_size = k.sizes >> 16u;"
    yield from bases(variant)


def bases(variant: Rows) -> Iterator[str]:
    """The start of the head in each array."""
    for name in strided(variant.stage):
        head = "owner"
        if variant.stage != "key" and name in ("K", "V"):
            head = "owner / k.members"
        if variant.stage == "key" and name in OF_QUERIES:
            head = "owner * k.members"
        yield (f"let base_{name} = k.{name}_start + batch * k.{name}_batch"
               f" + {head} * k.{name}_head;")  # fmt: skip


def length(name: str) -> str:
    """The number of rows of a head."""
    return "k.queries" if name in OF_QUERIES else "k.keys"


def four(variant: Rows, name: str, base: str, row: str, part: str) -> str:
    """The vec4 `part` of a row; 0 where either is outside."""
    most, load = length(name), variant.stored.load
    size = "value_size" if name in OF_VALUES else "size"
    if variant.is_exact:
        return load(f"{name}[({base} + {row} * k.{name}_row) / 4u + {part}]", 4)
    start = f"{base} + min({row}, {most} - 1u) * k.{name}_row"
    if variant.in_fours:
        value = load(f"{name}[({start} + min({part} * 4u, {size} - 4u)) / 4u]", 4)
        inside = f"{row} < {most} && {part} * 4u < {size}"
        return f"select(vec4<f32>(0.0), {value}, {inside})"
    parts = []
    for c in range(4):
        at = f"{part} * 4u + {c}u"
        value = load(f"{name}[{start} + min({at}, {size} - 1u)]", 1)
        parts.append(f"select(0.0, {value}, {row} < {most} && {at} < {size})")
    return f"vec4<f32>({', '.join(parts)})"


def at_edge(
    stage: Stage, is_causal: bool, is_exact: bool, own: int, other: int
) -> tuple[str, list[tuple[str, str]]]:
    """When a tile may hold hidden pairs of rows, and which pairs are hidden.

    A condition, "" for never; and comparisons with bounds, any of which hides row `other`.
    """
    others = "k.queries" if stage == "key" else "k.keys"
    edges, unseen = list[str](), list[tuple[str, str]]()
    if is_causal and stage == "key":
        edges.append(f"at < first + {own - 1}u")
        unseen.append(("<", "row"))
    elif is_causal:
        edges.append(f"at + {other - 1}u > first")
        unseen.append((">", "row"))
    if not is_exact:
        edges.append(f"at + {other}u > {others}")
        unseen.append((">=", others))
    return " || ".join(edges), unseen
