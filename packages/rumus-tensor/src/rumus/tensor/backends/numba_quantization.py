"""Blocks of numbers to 8-bit codes and back, as loops that numba compiles; see `quantization`."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from rumus.tensor.backends.numpy_quantization import as_bytes, upper
from rumus.tensor.compiled.numba_shapes import in_float32, reads, writes
from rumus.tensor.compiled.whole_numba import whole_numba
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.quantization import FLOOR, BlockTable, Code, Piece

_FLOOR = int(np.float32(FLOOR).view(np.uint32))


def _quantize(
    values: Any,
    offset: int,
    bounds: Any,
    coarse: Any,
    above: Any,
    is_signed: bool,
    codes: Any,
    scales: Any,
    floor: int,
) -> None:
    """For numba to compile: quantize the blocks of `bounds`, [blocks, 2]."""
    low, infinite = np.uint32(0x7FFFFFFF), np.uint32(0x7F800000)
    tiny, largest = np.uint32(1).view(np.float32), np.uint32(0x7F7FFFFF).view(np.float32)
    for n in range(len(bounds)):
        start, stop = bounds[n, 0], bounds[n, 1]
        x = values[start - offset : stop - offset]
        raw, own = x.view(np.uint32), codes[start:stop]
        top = np.uint32(0)
        for i in range(raw.size):
            bits = raw[i] & low
            is_left_out = not is_signed and raw[i] != bits and bits <= infinite
            top = max(top, np.uint32(0) if is_left_out else bits)
        if top > infinite or top < floor:
            scales[n] = np.nan if top > infinite else 0
            own[:] = 0
            continue
        scale = min(np.uint32(top).view(np.float32), largest)
        scales[n] = scale
        for i in range(raw.size):
            size = min(np.uint32(raw[i] & low).view(np.float32), largest)
            if not is_signed and raw[i] > low:
                size = np.float32(0)
            near = coarse[np.float32(size / scale).view(np.uint32) >> 15]
            bound = np.float32(above[near] * scale)
            if not is_signed:
                bound = max(bound, tiny)
            rank = int(near) + int(size >= bound)
            own[i] = rank | 0x80 if is_signed and raw[i] > low and rank > 0 else rank


def _dequantize(codes: Any, scales: Any, levels: Any, bounds: Any, offset: int, out: Any) -> None:
    """For numba to compile: decode the blocks of `bounds`."""
    for n in range(len(bounds)):
        start, stop, scale = bounds[n, 0], bounds[n, 1], scales[n]
        for i in range(start, stop):
            out[i - offset] = levels[codes[i]] * scale
        for i in range(stop, (stop + 63) // 64 * 64):
            out[i - offset] = 0


def _check(values: Array, table: BlockTable, piece: Piece, codes: Array, scales: Array) -> None:
    """Raise ValueError or TypeError unless the arrays fit the loops."""
    in_float32("quantization", values, scales)
    if codes.dtype != np.int32 or not 0 <= piece.first <= piece.last <= table.number:
        raise ValueError(f"quantization: {codes.dtype} codes, and {piece} of {table.number} blocks")
    own = table.bounds[piece.first : piece.last]
    if len(own) and (own[0, 0] < piece.start or own[-1, 1] > piece.stop):
        raise ValueError(f"quantization: {piece} does not hold its blocks")
    reads("quantization", scales=(scales, (table.number,)))
    writes("quantization", values=(values, (piece.size,)), codes=(codes, (table.size // 4,)))


@lru_cache(maxsize=2)
def _compiled(loop: Callable[..., None]) -> Callable[..., None]:
    numba = whole_numba()

    compiled: Callable[..., None] = numba.njit(nogil=True, cache=True, error_model="numpy")(loop)
    return compiled


def quantize(
    values: Array,
    code: Code,
    table: BlockTable,
    piece: Piece,
    codes: Array,
    scales: Array,
    share: Callable[[Callable[[int, int], None], int], None],
) -> None:
    """Write the codes and scales of one piece. share: runs its argument on parts of [0, length)."""
    _check(values, table, piece, codes, scales)
    loop, packed, above = _compiled(_quantize), as_bytes(codes), upper(code)

    def work(a: int, b: int) -> None:
        own = slice(piece.first + a, piece.first + b)
        bounds, to = table.bounds[own], scales[own]
        signed = code.is_signed
        loop(values, piece.start, bounds, code.coarse, above, signed, packed, to, _FLOOR)

    share(work, piece.last - piece.first)


def dequantize(
    codes: Array,
    scales: Array,
    code: Code,
    table: BlockTable,
    piece: Piece,
    out: Array,
    share: Callable[[Callable[[int, int], None], int], None],
) -> None:
    """Decode one piece."""
    _check(out, table, piece, codes, scales)
    loop, packed = _compiled(_dequantize), as_bytes(codes)

    def work(a: int, b: int) -> None:
        own = slice(piece.first + a, piece.first + b)
        loop(packed, scales[own], code.levels, table.bounds[own], piece.start, out)

    share(work, piece.last - piece.first)
