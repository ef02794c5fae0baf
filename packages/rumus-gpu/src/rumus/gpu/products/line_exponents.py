"""The exponents of the largest finite magnitude in each row and each column of a matrix.

Products on matrix units scale each line of an operand, a row of a or a column of b, by a power of
two, so that it fits float16. Where one product takes the rows of a matrix, another often takes its
columns: that of a gradient. So both are found in one reading, and kept until the matrix changes.
Each is found in parts, whose readers take the maximum.
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
READS: Final = 16  # that an invocation has in flight at once, four packed in a word
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
            found = array.backend.allocate((outer * inner, pieces, lines), int32)
            size = pieces * lines
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
        row = f"min(first + {i * beside}u + beside, stop - 1u)"
        place = f"(from_column + {row} * k.stride{n}) / {width}u"
        yield f"let x{i} = exponents(vec4<f32>(source{n}[{place}]));"
    for i in range(READS):
        yield f"top = max(top, x{i});"
        if width == 4:
            yield f"let pair{i} = max(x{i}.xy, x{i}.zw);"
    for i in range(0, READS, 4):
        tops = (f"max(pair{j}.x, pair{j}.y)" if width == 4 else f"x{j}.x" for j in range(i, i + 4))
        bits = " | ".join(f"({top} << {8 * c}u)" for c, top in enumerate(tops))
        yield f"packed[{i // 4 * LANES}u + local] = {bits};"
    yield from _store_rows(n, variant)
    yield "}"
    yield from _store_columns(n, variant)


def _store_rows(n: int, variant: ExponentsVariant) -> Iterator[str]:
    """Write the exponents of the rows that were packed, four words by each invocation."""
    across, beside = variant.across, variant.beside
    lanes = across // 4  # that share a word of four rows
    yield "workgroupBarrier();"
    yield f"let word = local / {lanes}u;"
    yield f"let lane = local % {lanes}u;"
    yield "var four = vec4<u32>();"
    for i in range(4):
        each = f"vec4<u32>(packed[word * {across}u + lane + {i * lanes}u])"
        yield f"four = max(four, ({each} >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(255u));"
    yield "tops[local] = four;"
    half = lanes // 2
    while half:
        yield "workgroupBarrier();"
        yield f"if (lane < {half}u) {{"
        yield f"tops[local] = max(tops[local], tops[local + {half}u]);"
        yield "}"
        half //= 2
    yield "if (lane == 0u) {"
    yield f"let row = first + word / {beside}u * {4 * beside}u + word % {beside}u;"
    yield f"let to = (batch * k.blocks{n} + block) * k.rows{n} + row;"
    for i in range(4):
        yield f"if (row + {i * beside}u < stop) {{"
        yield f"of_rows{n}[to + {i * beside}u] = tops[local][{i}];"
        yield "}"
    yield "}"


def _store_columns(n: int, variant: ExponentsVariant) -> Iterator[str]:
    """Write the exponents of the columns, after the rows beside each other are combined."""
    yield "workgroupBarrier();"
    yield "tops[local] = top;"
    yield "workgroupBarrier();"
    yield f"if (local < {variant.across}u && column < k.columns{n}) {{"
    for i in range(1, variant.beside):
        yield f"top = max(top, tops[local + {i * variant.across}u]);"
    yield f"let to = (batch * k.parts{n} + part) * k.columns{n} + column;"
    yield from (f"of_columns{n}[to + {c}u] = top[{c}];" for c in range(variant.width))
    yield "}"
