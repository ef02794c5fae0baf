"""The exponents of the largest finite magnitude in each row and each column of a matrix.

Products on matrix units scale each line of an operand, a row of a or a column of b, by a power of
two, so that it fits float16. Where one product takes the rows of a matrix, another often takes its
columns: that of a gradient. So both are found in one reading, and kept until the matrix changes.
Each is found in parts, whose readers take the maximum. A word holds those of four lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

from rumus.gpu.device.array import GPUArray
from rumus.gpu.device.device import Gpu
from rumus.gpu.device.pipelines import Program
from rumus.gpu.device.stored import in_fours, vector
from rumus.gpu.products.entry import entry
from rumus.tensor import int32

LANES: Final = 256  # invocations of a workgroup
READS: Final = 16  # that an invocation has in flight at once
LEAST: Final = 32  # invocations beside each other in a row, so that whole sectors are read
FEW: Final = 16  # parts of a row, which a product reads at once
PARTS: Final = 32  # of the columns
WORKGROUPS: Final = 256  # for fewer, there are more parts of the columns
_SCALARS: Final = (
    "rows", "columns", "start", "stride", "outer", "inner", "inner_length", "blocks", "parts",
    "part_rows", "groups",
)  # fmt: skip

# 0 for elements that are not finite. By bits, since drivers may assume that everything is finite.
EXPONENTS: Final = """
fn exponents(x: vec4<f32>) -> vec4<u32> {
    let found = (bitcast<vec4<u32>>(x) >> vec4<u32>(23u)) & vec4<u32>(255u);
    return select(found, vec4<u32>(0u), found == vec4<u32>(255u));
}
"""

# The exponents of four lines.
_UNPACKED: Final = """
fn unpacked(word: u32) -> vec4<u32> {
    return (vec4<u32>(word) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(255u);
}
"""

_Axis: TypeAlias = tuple[int, int]  # length and stride


@dataclass(frozen=True, slots=True)
class Matrix:
    """A batch of matrices in memory, dense along their rows.

    offset, stride: of the first element, and from row to row, in elements.
    outer, inner: the length of a batch axis, and the stride along it.
    """

    offset: int
    rows: int
    columns: int
    stride: int
    outer: _Axis
    inner: _Axis

    @property
    def batches(self) -> tuple[int, int]:
        """The lengths of the batch axes, 1 for one that broadcasts."""
        (outer, outer_step), (inner, inner_step) = self.outer, self.inner
        return outer if outer_step else 1, inner if inner_step else 1


@dataclass(frozen=True, slots=True)
class Lines:
    """An operand of a product: lines along k, the rows of a dense matrix, or its columns.

    stride: from one row of the matrix to the next, in elements.
    """

    array: GPUArray
    along_k: bool
    stride: int
    number: int
    depth: int
    outer: _Axis
    inner: _Axis

    @property
    def matrix(self) -> Matrix:
        """The matrix that they are the rows or the columns of."""
        rows, columns = (self.number, self.depth)[:: 1 if self.along_k else -1]
        return Matrix(self.array.offset, rows, columns, self.stride, self.outer, self.inner)


@dataclass(frozen=True, slots=True)
class LineExponents:
    """Biased exponents [batch, part, line], 0 for nothing but zeros, as bytes of words.

    The last word of a part is whole: what it holds past the lines has no meaning.

    outer, inner: the strides along the batch axes, in words; 0 along an axis that broadcasts.
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
    """The key of a pipeline.

    width: columns that are read at a time. across: the invocations that read one row.
    """

    width: int
    across: int

    @property
    def block(self) -> int:
        """The columns of a workgroup."""
        return self.across * self.width

    @property
    def beside(self) -> int:
        """The rows that are read at a time."""
        return LANES // self.across

    @property
    def rows(self) -> int:
        """The rows that a workgroup reads before it writes their results."""
        return READS * self.beside


def variant_for(columns: int, width: int) -> ExponentsVariant:
    """Return the narrowest blocks of which a row has few, or the widest."""
    across = LEAST
    while across < LANES and columns > FEW * across * width:
        across *= 2
    return ExponentsVariant(width, across)


def line_exponents(gpu: Gpu, operands: Sequence[Lines]) -> list[LineExponents]:
    """Return the exponents of one or two operands in float32."""
    known = {lines.array.storage: gpu.known(lines.array.storage) for lines in operands}
    new = {
        (lines.array.storage, lines.matrix): lines.array
        for lines in operands
        if lines.matrix not in known[lines.array.storage]
    }
    if new:
        found = _look(gpu, [(array, matrix) for (_, matrix), array in new.items()])
        for (storage, matrix), both in zip(new, found, strict=True):
            known[storage][matrix] = both
    return [
        known[lines.array.storage][lines.matrix][0 if lines.along_k else 1] for lines in operands
    ]


def _look(
    gpu: Gpu, matrices: Sequence[tuple[GPUArray, Matrix]]
) -> list[tuple[LineExponents, LineExponents]]:
    """The exponents of the rows and of the columns of each matrix."""
    variants: list[ExponentsVariant] = []
    results: list[tuple[LineExponents, LineExponents]] = []
    arrays: list[GPUArray] = []
    values: list[int] = []
    groups = 0
    for array, matrix in matrices:
        rows, columns, (outer, inner) = matrix.rows, matrix.columns, matrix.batches
        steps = matrix.outer[1], matrix.inner[1]
        width = 4 if in_fours(array.rest, matrix.stride, *steps, columns) else 1
        variant = variant_for(columns, width)
        blocks = -(-columns // variant.block)
        most = max(PARTS, WORKGROUPS // (blocks * outer * inner))
        part_rows = -(-rows // (most * variant.rows)) * variant.rows
        parts = -(-rows // part_rows)
        own = outer * inner * blocks * parts
        groups += own
        values += (rows, columns, array.rest, matrix.stride, *steps, inner, blocks, parts,
                   part_rows, own)  # fmt: skip
        both = []
        for pieces, lines in ((blocks, rows), (parts, columns)):
            words = -(-lines // 4)
            found = array.backend.allocate((outer * inner, pieces, words), int32)
            size = pieces * words
            both.append(
                LineExponents(found, pieces, size * inner * (outer > 1), size * (inner > 1))
            )
        variants.append(variant)
        arrays += array, *(each.array for each in both)
        results.append((both[0], both[1]))
    key = tuple(variants)
    pipeline = gpu.pipeline(("exponents", key), partial(exponents_program, key))
    gpu.dispatch(pipeline, arrays, tuple(values), groups)
    return results


def exponents_program(variants: Sequence[ExponentsVariant]) -> Program:
    """Return the WGSL for matrices of these variants."""
    text = "\n".join([*_declarations(variants), *_main(variants), ""])
    count = len(variants)
    memory = (16 + READS) * LANES
    return Program("exponents", text, "rww" * count, "I" * len(_SCALARS) * count, memory)


def _declarations(variants: Sequence[ExponentsVariant]) -> Iterator[str]:
    yield "struct Scalars {"
    for n in range(len(variants)):
        yield from (f"    {name}{n}: u32," for name in _SCALARS)
    yield "}"
    yield "var<immediate> k: Scalars;"
    for n, variant in enumerate(variants):
        kind = vector("f32", variant.width)
        yield f"@group(0) @binding({3 * n}) var<storage, read> source{n}: array<{kind}>;"
        for number, lines in enumerate(("rows", "columns"), 3 * n + 1):
            bound = "var<storage, read_write>"
            yield f"@group(0) @binding({number}) {bound} of_{lines}{n}: array<u32>;"
    yield f"var<workgroup> packed: array<u32, {READS // 4 * LANES}>;"
    yield f"var<workgroup> tops: array<vec4<u32>, {LANES}>;"
    yield EXPONENTS
    yield _UNPACKED


def _main(variants: Sequence[ExponentsVariant]) -> Iterator[str]:
    """The kernel: the workgroups of one matrix, then those of the other."""
    yield from entry(LANES)
    yield "var linear = group.y * groups.x + group.x;"
    for n, variant in enumerate(variants):
        yield f"if (linear < k.groups{n}) {{"
        yield from _part(n, variant)
        yield "return;"
        yield "}"
        yield f"linear -= k.groups{n};"
    yield "}"


def _part(n: int, variant: ExponentsVariant) -> Iterator[str]:
    """The work of a workgroup of matrix n: a block of the columns in a part of the rows.

    Past an edge the last element is read again, which changes nothing.
    """
    width, across, beside = variant.width, variant.across, variant.beside
    yield f"let part = linear % k.parts{n};"
    yield f"let block = linear / k.parts{n} % k.blocks{n};"
    yield f"let batch = linear / k.parts{n} / k.blocks{n};"
    yield f"let outer = batch / k.inner_length{n} * k.outer{n};"
    yield f"let base = k.start{n} + outer + batch % k.inner_length{n} * k.inner{n};"
    yield f"let column = block * {variant.block}u + local % {across}u * {width}u;"
    yield f"let from_column = base + min(column, k.columns{n} - {width}u);"
    yield f"let beside = local / {across}u;"
    yield f"let stop = min((part + 1u) * k.part_rows{n}, k.rows{n});"
    yield "var top = vec4<u32>();"
    yield f"for (var first = part * k.part_rows{n}; first < stop; first += {variant.rows}u) {{"
    for i in range(READS):
        row = f"min(first + {i // 4 * 4 * beside + i % 4}u + 4u * beside, stop - 1u)"
        place = f"(from_column + {row} * k.stride{n}) / {width}u"
        yield f"let x{i} = exponents(vec4<f32>(source{n}[{place}]));"
    for i in range(READS):
        yield f"top = max(top, x{i});"
        if width == 4:
            yield f"let pair{i} = max(x{i}.xy, x{i}.zw);"
    for i in range(0, READS, 4):
        tops = [f"max(pair{j}.x, pair{j}.y)" if width == 4 else f"x{j}.x" for j in range(i, i + 4)]
        yield f"packed[{i // 4 * LANES}u + local] = {_packed(tops)};"
    yield from _store_rows(n, variant)
    yield "}"
    yield from _store_columns(n, variant)


def _store_rows(n: int, variant: ExponentsVariant) -> Iterator[str]:
    """Write the exponents of the rows that were packed, four words by each invocation."""
    across = variant.across
    lanes = across // 4  # that share a word of four rows
    yield "workgroupBarrier();"
    yield f"let word = local / {lanes}u;"
    yield f"let lane = local % {lanes}u;"
    yield "var four = vec4<u32>();"
    for i in range(4):
        yield f"four = max(four, unpacked(packed[word * {across}u + lane + {i * lanes}u]));"
    yield "tops[local] = four;"
    half = lanes // 2
    while half:
        yield "workgroupBarrier();"
        yield f"if (lane < {half}u) {{"
        yield f"tops[local] = max(tops[local], tops[local + {half}u]);"
        yield "}"
        half //= 2
    yield "if (lane == 0u && first + 4u * word < stop) {"
    yield f"let to = (batch * k.blocks{n} + block) * ((k.rows{n} + 3u) / 4u) + first / 4u + word;"
    yield f"of_rows{n}[to] = {_packed([f'tops[local].{c}' for c in 'xyzw'])};"
    yield "}"


def _store_columns(n: int, variant: ExponentsVariant) -> Iterator[str]:
    """Write the exponents of the columns, after the rows beside each other are combined."""
    width, across = variant.width, variant.across
    yield "workgroupBarrier();"
    yield "tops[local] = top;"
    yield "workgroupBarrier();"
    yield f"if (local < {across}u) {{"
    for i in range(1, variant.beside):
        yield f"top = max(top, tops[local + {i * across}u]);"
    if width == 1:
        yield "tops[local] = top;"
    yield "}"
    four, first = [f"top.{c}" for c in "xyzw"], ""
    if width == 1:  # four invocations share a word
        yield "workgroupBarrier();"
        four, first = [f"tops[local + {i}u].x" for i in range(4)], " && local % 4u == 0u"
    yield f"if (local < {across}u && column < k.columns{n}{first}) {{"
    yield f"let to = (batch * k.parts{n} + part) * ((k.columns{n} + 3u) / 4u) + column / 4u;"
    yield f"of_columns{n}[to] = {_packed(four)};"
    yield "}"


def _packed(four: Sequence[str]) -> str:
    """The word of four exponents."""
    return " | ".join(f"({each} << {8 * i}u)" for i, each in enumerate(four))
