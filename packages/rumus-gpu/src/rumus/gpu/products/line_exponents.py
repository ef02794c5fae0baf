"""The exponent of the largest finite magnitude in each line of an operand.

A line contributes to one row or column of the result: it is a row of a, or a column of b. Products
on matrix units scale each line by a power of two, so that it fits float16. One dispatch reads each
element of both operands once; a long line is split into parts, and readers of the result take their
maximum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from rumus.gpu.device.array import GPUArray
from rumus.gpu.device.device import Gpu
from rumus.gpu.device.pipelines import Program
from rumus.gpu.device.stored import in_fours, vector
from rumus.gpu.products.entry import entry
from rumus.tensor import int32

LANES: Final = 256  # invocations of a workgroup
ALONG: Final = 32  # invocations that share a line that is dense along k
ACROSS: Final = 64  # adjacent lines per workgroup, if lines are strided along k
LOADS: Final = 4  # that an invocation has in flight at once
WORKGROUPS: Final = 1024  # enough to fill a device
_SCALARS: Final = (
    "lines", "depth", "start", "stride", "outer", "inner", "inner_length", "parts", "part_depth",
    "blocks", "groups",
)  # fmt: skip

# 0 for elements that are not finite. By bits, since drivers may assume that everything is finite.
EXPONENTS: Final = """
fn exponents(x: vec4<f32>) -> vec4<u32> {
    let found = (bitcast<vec4<u32>>(x) >> vec4<u32>(23u)) & vec4<u32>(255u);
    return select(found, vec4<u32>(0u), found == vec4<u32>(255u));
}
"""


@dataclass(frozen=True, slots=True)
class Lines:
    """The layout of an operand's lines: from one to the next, and from batch to batch.

    outer, inner: the length of a batch axis, and the stride along it.
    """

    array: GPUArray
    along_k: bool
    stride: int
    number: int
    depth: int
    outer: tuple[int, int]
    inner: tuple[int, int]


@dataclass(frozen=True, slots=True)
class LineExponents:
    """Biased exponents [batch, part, line], 0 for nothing but zeros.

    outer, inner: the strides along the batch axes, in elements; 0 along an axis that broadcasts.
    """

    array: GPUArray
    parts: int
    outer: int
    inner: int

    @property
    def values(self) -> tuple[int, ...]:
        """Their scalars in the kernel that reads them."""
        return self.parts, self.outer, self.inner


@dataclass(frozen=True, slots=True)
class ExponentsVariant:
    """The key of a pipeline."""

    along_k: bool
    width: int  # elements that are read at a time

    @property
    def lines(self) -> int:
        """The lines of a workgroup."""
        return LANES // ALONG if self.along_k else ACROSS

    @property
    def beside(self) -> int:
        """The invocations that read adjacent lines at the same step of k."""
        return ACROSS // self.width

    @property
    def steps(self) -> int:
        """The steps of k that a workgroup reads at a time."""
        return ALONG * self.width if self.along_k else LANES // self.beside


def line_exponents(gpu: Gpu, operands: Sequence[Lines]) -> Sequence[LineExponents]:
    """Return the exponents of one or two operands in float32."""
    variants: list[ExponentsVariant] = []
    results: list[LineExponents] = []
    arrays: list[GPUArray] = []
    values: list[int] = []
    groups = 0
    for lines in operands:
        outer = 1 if lines.outer[1] == 0 else lines.outer[0]
        inner = 1 if lines.inner[1] == 0 else lines.inner[0]
        start, edge = lines.array.rest, lines.depth if lines.along_k else lines.number
        is_wide = in_fours(start, lines.stride, lines.outer[1], lines.inner[1], edge)
        variant = ExponentsVariant(lines.along_k, 4 if is_wide else 1)
        blocks = -(-lines.number // variant.lines)
        batches = outer * inner
        least = LOADS * variant.steps
        most = max(1, min(-(-lines.depth // least), WORKGROUPS // (blocks * batches)))
        part_depth = -(-lines.depth // most // variant.steps) * variant.steps
        parts = -(-lines.depth // part_depth)
        found = lines.array.backend.allocate((batches, parts, lines.number), int32)
        own = batches * parts * blocks
        groups += own
        variants.append(variant)
        arrays += lines.array, found
        values += (lines.number, lines.depth, start, lines.stride, lines.outer[1], lines.inner[1],
                   inner, parts, part_depth, blocks, own)  # fmt: skip
        step = parts * lines.number
        results.append(LineExponents(found, parts, step * inner * (outer > 1), step * (inner > 1)))
    key = tuple(variants)
    pipeline = gpu.pipeline(("exponents", key), partial(exponents_program, key))
    gpu.dispatch(pipeline, arrays, tuple(values), groups)
    return results


def exponents_program(variants: Sequence[ExponentsVariant]) -> Program:
    """Return the WGSL for operands of these variants."""
    text = "\n".join([*_declarations(variants), *_main(variants), ""])
    count = len(variants)
    return Program("exponents", text, "rw" * count, "I" * len(_SCALARS) * count, 16 * LANES)


def _declarations(variants: Sequence[ExponentsVariant]) -> Iterator[str]:
    yield "struct Scalars {"
    for n in range(len(variants)):
        yield from (f"    {name}{n}: u32," for name in _SCALARS)
    yield "}"
    yield "var<immediate> k: Scalars;"
    for n, variant in enumerate(variants):
        kind = vector("f32", variant.width)
        yield f"@group(0) @binding({2 * n}) var<storage, read> source{n}: array<{kind}>;"
        yield f"@group(0) @binding({2 * n + 1}) var<storage, read_write> found{n}: array<u32>;"
    yield f"var<workgroup> tops: array<vec4<u32>, {LANES}>;"
    yield EXPONENTS


def _main(variants: Sequence[ExponentsVariant]) -> Iterator[str]:
    """The kernel: the workgroups of one operand, then those of the other."""
    yield from entry(LANES)
    yield "var linear = group.y * groups.x + group.x;"
    for n, variant in enumerate(variants):
        yield f"if (linear < k.groups{n}) {{"
        yield from _look(n, variant)
        yield "return;"
        yield "}"
        yield f"linear -= k.groups{n};"
    yield "}"


def _look(n: int, variant: ExponentsVariant) -> Iterator[str]:
    """The work of a workgroup of operand n."""
    width, lines, steps = variant.width, variant.lines, variant.steps
    yield f"let part = linear % k.parts{n};"
    yield f"let first = linear / k.parts{n} % k.blocks{n} * {lines}u;"
    yield f"let batch = linear / k.parts{n} / k.blocks{n};"
    yield f"let outer = batch / k.inner_length{n} * k.outer{n};"
    yield f"let base = k.start{n} + outer + batch % k.inner_length{n} * k.inner{n};"
    if variant.along_k:
        yield f"let line = first + local / {ALONG}u;"
        yield f"let step = local % {ALONG}u * {width}u;"
        place = f"held * k.stride{n} + at{{}}"
    else:
        yield f"let line = first + local % {variant.beside}u * {width}u;"
        yield f"let step = local / {variant.beside}u;"
        place = f"at{{}} * k.stride{n} + held"
    yield f"let held = min(line, k.lines{n} - {1 if variant.along_k else width}u);"
    yield f"let stop = min((part + 1u) * k.part_depth{n}, k.depth{n});"
    yield "var top = vec4<u32>();"
    # Past the end the last element is read again, which changes nothing.
    yield f"let last = k.depth{n} - {width if variant.along_k else 1}u;"
    yield f"for (var at = part * k.part_depth{n} + step; at < stop; at += {LOADS * steps}u) {{"
    for i in range(LOADS):
        yield f"let at{i} = min(at + {i * steps}u, last);"
        yield f"let x{i} = vec4<f32>(source{n}[(base + {place.format(i)}) / {width}u]);"
    yield from (f"top = max(top, exponents(x{i}));" for i in range(LOADS))
    yield "}"
    yield "tops[local] = top;"
    yield from _combine(variant)
    yield f"let to = (batch * k.parts{n} + part) * k.lines{n} + line;"
    if variant.along_k:
        yield f"if (local % {ALONG}u == 0u && line < k.lines{n}) {{"
        yield "let pair = max(tops[local].xy, tops[local].zw);"
        yield f"found{n}[to] = max(pair.x, pair.y);"
        yield "}"
        return
    yield f"if (local < {variant.beside}u && line < k.lines{n}) {{"
    yield from (f"found{n}[to + {c}u] = tops[local][{c}];" for c in range(width))
    yield "}"


def _combine(variant: ExponentsVariant) -> Iterator[str]:
    """Reduce the results of a line's lanes to the first of them."""
    if variant.along_k:
        distance, last, is_first = ALONG // 2, 1, f"local % {ALONG}u < half"
    else:
        distance, last, is_first = LANES // 2, variant.beside, "local < half"
    yield f"for (var half = {distance}u; half >= {last}u; half /= 2u) {{"
    yield "workgroupBarrier();"
    yield f"if ({is_first}) {{"
    yield "tops[local] = max(tops[local], tops[local + half]);"
    yield "}"
    yield "}"
    yield "workgroupBarrier();"
