"""A small product that stays in registers: the core of convolutions of small images.

`tile` sums n outer products of a column of a few numbers and a row of a few vectors. A table gives
the place of each, so nothing has to be copied into matrix layout. It is written in LLVM IR, since
the compiler would not keep an array in registers.

Compiled loops in other modules that call it stay in numba's cache until their own file changes:
after changing `tile`, remove the cache or touch those files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import Any, Final

import numpy as np

from rumus.tensor.memory.backend import Array

# Lanes per vector, and the maximum rows of tiles of one, two and four vectors. More rows hide more
# of the latency of a sum, and share the load of a vector.
WIDE: Final = (16, 14, 12, 6)  # with 32 registers
NARROW: Final = (8, 4, 4, 0)  # with 16 registers
LINE: Final = 64  # bytes of a cache line


def aligned(shape: tuple[int, ...]) -> Array:
    """float32 zeros that begin on a cache line: a vector across two lines is read twice."""
    size = 4 * math.prod(shape)
    memory = np.zeros(size + LINE, np.uint8)
    first = -memory.ctypes.data % LINE
    return memory[first : first + size].view(np.float32).reshape(shape)


@cache
def limits() -> tuple[int, int, int, int]:
    """Return `WIDE` or `NARROW`, depending on the processor."""
    from llvmlite import binding

    return WIDE if binding.get_host_cpu_features().get("avx512f") else NARROW


def shapes() -> Iterator[tuple[int, int]]:
    """Rows and vectors of all tiles, whose sums fit into the registers."""
    for vectors, most in zip((1, 2, 4), limits()[1:], strict=True):
        yield from ((rows, vectors) for rows in range(1, most + 1))


def tile(
    a: int, a_places: int, b: int, b_places: int, n: int, out: int, step: int, rows: int,
    vectors: int,
) -> None:  # fmt: skip
    """Add a tile of sums to `out`; for compiled loops to call after `compiled`.

    For i < rows, and j < vectors times the lanes of a vector:
    out[i step + j] += sum over k < n of a[a_places[k] + i] b[b_places[k] + j].
    a, b, out: addresses of float32; a_places and b_places: of int64. rows and vectors: one of
    `shapes`. The sum runs in the order of k, with fused multiply-add if the processor has it.
    """
    raise TypeError("tile: only compiled loops can call it")


def tiles(
    a: int, a_places: int, b: int, b_places: int, n: int, out: int, step: int, rows: int,
    columns: int, limits: Any,
) -> None:  # fmt: skip
    """Like `tile`, for any number of rows, and for columns that are whole vectors.

    For numba to compile, as part of other loops. limits: see `limits`.
    """
    lanes, one, two, four = limits
    j = 0
    while j < columns:
        left = (columns - j) // lanes
        vectors, most = 1, one
        if left >= 4 and rows <= four:
            vectors, most = 4, four
        elif left >= 2:
            vectors, most = 2, two
        blocks = (rows + most - 1) // most
        for block in range(blocks):  # of equal height where possible
            i, end = rows * block // blocks, rows * (block + 1) // blocks
            to = out + 4 * (i * step + j)
            tile(a + 4 * i, a_places, b + 4 * j, b_places, n, to, step, end - i, vectors)
        j += vectors * lanes


@cache
def compiled() -> None:
    """Register `tile` with numba."""
    from llvmlite import ir
    from numba import types

    cgutils: Any = import_module("numba.core.cgutils")
    extending: Any = import_module("numba.extending")
    lanes = limits()[0]
    long, single = ir.IntType(64), ir.FloatType()
    vector = ir.VectorType(single, lanes)
    everywhere = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    zeros = ir.Constant(vector, [0.0] * lanes)
    empty = ir.Constant(vector, ir.Undefined)

    def whole(value: int) -> Any:
        return ir.Constant(long, value)

    def written(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        """The function, with one case for each shape."""
        *given, rows, vectors = arguments
        end = builder.append_basic_block("tiled")
        case = builder.add(builder.mul(rows, whole(8)), vectors)
        choice = builder.switch(case, end)
        for height, width in shapes():
            block = builder.append_basic_block(f"tile_{height}_{width}")
            choice.add_case(whole(8 * height + width), block)
            builder.position_at_end(block)
            one(builder, given, height, width)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    def one(builder: Any, given: Any, rows: int, vectors: int) -> None:
        """The loop over k with its sums in registers, and the code that adds them to `out`."""
        a, a_places, b, b_places, n, out, step = given
        name = f"llvm.fmuladd.v{lanes}f32"
        kind = ir.FunctionType(vector, [vector] * 3)
        fused = cgutils.get_or_insert_function(builder.module, kind, name)

        def at(base: Any, place: Any, kind: Any, size: int = 4) -> Any:
            address = builder.add(base, builder.mul(place, whole(size)))
            return builder.inttoptr(address, ir.PointerType(kind))

        before, loop = builder.block, builder.append_basic_block("sum")
        end = builder.append_basic_block("summed")
        shape = [(i, j) for i in range(rows) for j in range(vectors)]
        builder.cbranch(builder.icmp_signed(">", n, whole(0)), loop, end)
        builder.position_at_end(loop)
        k, sums = builder.phi(long), {place: builder.phi(vector) for place in shape}
        column = builder.load(at(a_places, k, long, 8))
        start = builder.load(at(b_places, k, long, 8))
        places = [at(b, builder.add(start, whole(lanes * j)), vector) for j in range(vectors)]
        row = [builder.load(place, align=4) for place in places]
        more = {}
        for i in range(rows):
            number = builder.load(at(a, builder.add(column, whole(i)), single))
            first = builder.insert_element(empty, number, ir.Constant(ir.IntType(32), 0))
            spread = builder.shuffle_vector(first, empty, everywhere)
            for j in range(vectors):
                more[i, j] = builder.call(fused, [spread, row[j], sums[i, j]])
        following = builder.add(k, whole(1))
        builder.cbranch(builder.icmp_signed("<", following, n), loop, end)
        k.add_incoming(whole(0), before)
        k.add_incoming(following, loop)
        builder.position_at_end(end)
        totals = {place: builder.phi(vector) for place in shape}
        for place in shape:
            for phi, now in ((sums[place], more[place]), (totals[place], more[place])):
                phi.add_incoming(zeros, before)
                phi.add_incoming(now, loop)
        for (i, j), total in totals.items():
            begin = builder.add(builder.mul(step, whole(i)), whole(lanes * j))
            into = at(out, begin, vector)
            builder.store(builder.fadd(builder.load(into, align=4), total), into, align=4)

    integers = [types.int64] * 9
    extending.lower_builtin(tile, *integers)(written)
    result = types.void(*integers)
    extending.type_callable(tile)(lambda context: lambda a, b, c, d, e, f, g, h, i: result)
