"""The exponent of the largest finite magnitude in each head of attention.

One dispatch covers all arrays. Heads of queries that share keys share an exponent, so that their
gradients can be added up. A head is split into parts; readers of the result take their maximum.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from rumus.gpu.attention.attention_arrays import OF_QUERIES, OF_VALUES, Stage, four
from rumus.gpu.device.pipelines import Program
from rumus.gpu.device.stored import Stored, enabling, vector
from rumus.gpu.products.entry import entry, workgroup_number
from rumus.gpu.products.line_exponents import EXPONENTS

LANES: Final = 256  # invocations of a workgroup
LOADS: Final = 4  # that an invocation has in flight at once
FOURS: Final = 2048  # minimum vec4s per workgroup
PARTS: Final = 32  # maximum parts per head
_NUMBERS: Final = ("queries", "keys", "kv_heads", "members", "sizes", "owners", "parts", "groups")


@dataclass(frozen=True, slots=True)
class HeadExponents:
    """The key of a pipeline. names: the arrays. wide: the vec4s of a row of each.

    is_shared: several heads of queries share keys.
    """

    names: str
    wide: tuple[int, ...]
    stored: Stored
    in_fours: bool
    is_shared: bool
    stage: Stage = "forward"
    is_causal: bool = False
    own: int = 1

    @property
    def is_exact(self) -> bool:
        """Whether reads need no checks: rows past an end are never read."""
        return self.in_fours


def head_exponents_program(variant: HeadExponents) -> Program:
    """Return the WGSL that writes exponents [array, head of keys, part]."""
    text = "\n".join([enabling(variant.stored), *_lines(variant), ""])
    scalars = "I" * (len(_NUMBERS) + 4 * len(variant.names))
    return Program("head_exponents", text, "r" * len(variant.names) + "w", scalars, 4 * LANES)


def _lines(variant: HeadExponents) -> Iterator[str]:
    yield "struct Scalars {"
    yield from (f"{name}: u32," for name in _NUMBERS)
    for n in variant.names:
        yield f"{n}_start: u32, {n}_batch: u32, {n}_head: u32, {n}_row: u32,"
    yield "}"
    yield "var<immediate> k: Scalars;"
    kind = vector(variant.stored.wgsl, 4 if variant.in_fours else 1)
    for number, n in enumerate(variant.names):
        yield f"@group(0) @binding({number}) var<storage, read> {n}: array<{kind}>;"
    count = len(variant.names)
    yield f"@group(0) @binding({count}) var<storage, read_write> found: array<u32>;"
    yield f"var<workgroup> tops: array<u32, {LANES}>;"
    yield EXPONENTS
    yield from entry(LANES)
    yield from workgroup_number()
    yield "let owner = linear / k.parts % k.owners;"
    yield "let part = linear % k.parts;"
    yield "let batch = owner / k.kv_heads;"
    yield "let size = k.sizes & 0xffffu;"
    yield "let value_size = k.sizes >> 16u;"
    yield "var top = vec4<u32>();"
    for number, n in enumerate(variant.names):
        yield f"if (linear / k.parts / k.owners == {number}u) {{"
        yield from _look(variant, n, variant.wide[number])
        yield "}"
    yield "tops[local] = max(max(top.x, top.y), max(top.z, top.w));"
    yield f"for (var half = {LANES // 2}u; half >= 1u; half /= 2u) {{"
    yield "workgroupBarrier();"
    yield "if (local < half) {"
    yield "tops[local] = max(tops[local], tops[local + half]);"
    yield "}"
    yield "}"
    yield "if (local == 0u) {"
    yield "found[linear] = tops[0];"
    yield "}"
    yield "}"


def _look(variant: HeadExponents, n: str, wide: int) -> Iterator[str]:
    """Scan the part of a head; past its end, the last vec4 is read again."""
    of_queries = n in OF_QUERIES
    yield f"let rows = {'k.queries * k.members' if of_queries else 'k.keys'};"
    yield f"let count = rows * {wide}u;"
    yield "let chunk = (count + k.parts - 1u) / k.parts;"
    yield "let stop = min((part + 1u) * chunk, count);"
    head = "owner % k.kv_heads" + (" * k.members" if of_queries else "")
    yield f"let base = k.{n}_start + batch * k.{n}_batch + {head} * k.{n}_head;"
    yield f"for (var i = part * chunk + local; i < stop; i += {LOADS * LANES}u) {{"
    for load in range(LOADS):
        yield f"let at{load} = min(i + {load * LANES}u, count - 1u);"
        yield f"let line{load} = at{load} / {wide}u;"
        start, row = "base", f"line{load}"
        if of_queries and variant.is_shared:
            yield f"let start{load} = base + line{load} / k.queries * k.{n}_head;"
            start, row = f"start{load}", f"(line{load} % k.queries)"
        value = four(variant, n, start, row, f"(at{load} % {wide}u)")
        yield f"let x{load} = {value};"
    yield from (f"top = max(top, exponents(x{load}));" for load in range(LOADS))
    yield "}"


def parts_of(rows: int, wide: int) -> int:
    """Return the number of parts that a head is split into."""
    return max(1, min(PARTS, rows * wide // FOURS))


def wide_of(name: str, sizes: tuple[int, int]) -> int:
    """Return the vec4s of a row. sizes: of queries and keys, and of values."""
    return -(-sizes[name in OF_VALUES] // 4)
