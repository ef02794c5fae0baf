"""Blocks of numbers to 8-bit codes and back, with NumPy; see `quantization`."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.quantization import BLOCK, FINITE, FLOOR, BlockTable, Code, Piece
from rumus.tensor.memory.slot_table import slot_size

ROWS: Final = 256  # blocks at a time, so that intermediate values stay in cache
INFINITE: Final = np.uint32(0x7F800000)
LARGEST: Final = FINITE.view(np.uint32)
TINY: Final = np.uint32(1).view(np.float32)


@lru_cache(maxsize=8)
def upper(code: Code) -> NDArray[np.float32]:
    """Return the upper bound of each rank: values at or above it have a higher rank."""
    return np.append(code.bounds[1:], np.float32(np.inf))


def as_bytes(codes: Array) -> NDArray[np.uint8]:
    """Return flat int32 words as bytes, in element order."""
    found: NDArray[np.uint8] = codes.view(np.uint8)
    return found


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
    packed = as_bytes(codes)
    for first, start, stop in table.runs(piece):
        full = (stop - start) // BLOCK
        x, c = values[start - piece.start : stop - piece.start], packed[start:stop]
        s = scales[first : first + full]
        rows, own = x[: full * BLOCK].reshape(full, BLOCK), c[: full * BLOCK].reshape(full, BLOCK)

        def work(a: int, b: int, rows: Array = rows, own: Array = own, s: Array = s) -> None:
            for cut in range(a, b, ROWS):
                part = slice(cut, min(cut + ROWS, b))
                _quantize_rows(rows[part], code, own[part], s[part])

        share(work, full)
        if rest := x[full * BLOCK :].size:
            row = np.zeros((1, BLOCK), np.float32)
            row[0, :rest] = x[full * BLOCK :]
            found = np.empty((1, BLOCK), np.uint8)
            _quantize_rows(row, code, found, scales[first + full : first + full + 1])
            c[full * BLOCK :] = found[0, :rest]


def _quantize_rows(x: Array, code: Code, codes: Array, scales: Array) -> None:
    """Quantize whole blocks: x and codes are [rows, BLOCK], scales [rows]."""
    raw = x.view(np.uint32)
    bits = raw & np.uint32(0x7FFFFFFF)
    if not code.is_signed and (raw > bits).any():
        bits[(raw > bits) & (bits <= INFINITE)] = 0  # squares are never negative
    top = bits.max(1)
    is_nan = top > INFINITE
    if (top >= INFINITE).any():
        np.minimum(bits, LARGEST, out=bits)
    scale = np.minimum(top, LARGEST).view(np.float32)
    scale[scale < FLOOR] = 0
    dead = is_nan | (scale == 0)
    scales[...] = scale
    scales[is_nan] = np.nan
    scale[dead] = 1
    size, wide = bits.view(np.float32), scale[:, None]
    rank = code.coarse.take((size / wide).view(np.uint32) >> np.uint32(15))
    bound = upper(code).take(rank)
    bound *= wide
    if not code.is_signed:
        np.maximum(bound, TINY, out=bound)
    rank += (size >= bound).view(np.uint8)
    if code.is_signed:
        sign = (raw >> np.uint32(24)).astype(np.uint8) & np.uint8(0x80)
        rank |= sign * (rank > 0).view(np.uint8)
    rank[dead] = 0
    codes[...] = rank


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
    packed = as_bytes(codes)
    for first, start, stop in table.runs(piece):
        full = (stop - start) // BLOCK
        x, c = out[start - piece.start :][: stop - start], packed[start:stop]
        s = scales[first : first + full, None]
        rows, own = x[: full * BLOCK].reshape(full, BLOCK), c[: full * BLOCK].reshape(full, BLOCK)

        def work(a: int, b: int, rows: Array = rows, own: Array = own, s: Array = s) -> None:
            for cut in range(a, b, ROWS):
                part = slice(cut, min(cut + ROWS, b))
                np.take(code.levels, own[part], 0, rows[part], "clip")
                rows[part] *= s[part]

        share(work, full)
        if rest := x[full * BLOCK :].size:
            x[full * BLOCK :] = code.levels[c[full * BLOCK :]] * scales[first + full]
            gap = stop - piece.start
            out[gap : gap + slot_size(rest) - rest] = 0
