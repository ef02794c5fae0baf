"""Quantization of blocks to 8-bit codes and back, one dispatch each.

`rumus.tensor.memory.quantization` defines the codes.
"""

from __future__ import annotations

from functools import partial
from typing import Final
from weakref import WeakKeyDictionary

import numpy as np

from rumus.gpu.device.array import GPUArray
from rumus.gpu.device.array_backend import ArrayBackend
from rumus.gpu.device.commands import Call
from rumus.gpu.device.pipelines import Program
from rumus.gpu.device.shaders import shader
from rumus.tensor.memory.quantization import BLOCK, FLOOR, BlockTable, Code, Piece

_FLOOR: Final = int(np.float32(FLOOR).view(np.uint32))
_WORKGROUP_BYTES: Final = 4 * (BLOCK + BLOCK // 4)


class Quantization:
    """The dispatches on one device, and their lookup tables, uploaded once.

    All arrays are flat and dense, and start at the start of a binding.
    """

    def __init__(self, backend: ArrayBackend) -> None:
        self._backend = backend
        self._blocks: WeakKeyDictionary[BlockTable, GPUArray] = WeakKeyDictionary()
        self._tables: WeakKeyDictionary[Code, tuple[GPUArray, GPUArray]] = WeakKeyDictionary()

    def quantize(
        self,
        values: GPUArray,
        code: Code,
        table: BlockTable,
        piece: Piece,
        codes: GPUArray,
        scales: GPUArray,
    ) -> Call:
        """The dispatch that writes codes and scales of a piece."""
        make = partial(Program, "quantize", shader("quantize"), "rrrww", "IIIIII", _WORKGROUP_BYTES)
        pipeline = self._backend.gpu.pipeline("quantize", make)
        _, bounds = self._levels(code)
        arrays = values, self._bounds(table), bounds, codes, scales
        numbers = piece.first, piece.last, piece.start, code.ranks, code.is_signed, _FLOOR
        return pipeline, arrays, numbers, piece.last - piece.first

    def dequantize(
        self,
        codes: GPUArray,
        scales: GPUArray,
        code: Code,
        table: BlockTable,
        piece: Piece,
        out: GPUArray,
    ) -> Call:
        """The dispatch that writes the values that a piece's codes represent."""
        make = partial(Program, "dequantize", shader("dequantize"), "rrrrw", "III")
        pipeline = self._backend.gpu.pipeline("dequantize", make)
        levels, _ = self._levels(code)
        arrays = codes, scales, self._bounds(table), levels, out
        return pipeline, arrays, (piece.first, piece.last, piece.start), piece.last - piece.first

    def _bounds(self, table: BlockTable) -> GPUArray:
        found = self._blocks.get(table)
        if found is None:
            found = self._blocks[table] = self._backend.upload(table.bounds.astype(np.int32))
        return found

    def _levels(self, code: Code) -> tuple[GPUArray, GPUArray]:
        found = self._tables.get(code)
        if found is None:
            tables = self._backend.upload(code.levels), self._backend.upload(code.bounds)
            found = self._tables[code] = tables
        return found
