"""State that is stored as 8-bit codes, and unpacked for the kernel that updates it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rumus.tensor.memory.quantization import BlockTable, Code, Piece

if TYPE_CHECKING:
    from rumus.tensor.memory.backend import Array, Backend


@dataclass(frozen=True, slots=True, eq=False)
class PackedPart:
    """One part of the state: flat codes, int32 words, with a scale for each block.

    scratch: flat float32 memory for an unpacked piece; others may share it.
    """

    code: Code
    codes: Array
    scales: Array
    scratch: Array


@dataclass(frozen=True, slots=True, eq=False)
class Packing:
    """The packed parts of a section's state, by their names in its kernel.

    An update processes piece after piece: it unpacks the parts, runs the kernel on the piece, and
    packs them again. Packing unchanged values gives the same codes and scales, so a device that
    decides about a step can always pack.
    """

    table: BlockTable
    pieces: tuple[Piece, ...]
    parts: Mapping[str, PackedPart]

    def unpack(self, backend: Backend, piece: Piece) -> None:
        """Write the values of a piece to the scratch."""
        for part in self.parts.values():
            out = part.scratch[: piece.size]
            backend.dequantize(part.codes, part.scales, part.code, self.table, piece, out)

    def pack(self, backend: Backend, piece: Piece) -> None:
        """Write the codes and scales of the scratch values."""
        for part in self.parts.values():
            values = part.scratch[: piece.size]
            backend.quantize(values, part.code, self.table, piece, part.codes, part.scales)

    def operands(self, arrays: Mapping[str, Array], piece: Piece) -> dict[str, Array]:
        """Return a piece's part of a section's flat arrays and of its scratch."""
        cut = dict(arrays)
        if piece.size != self.table.size:  # one element for all
            for name, array in arrays.items():
                is_long = tuple(array.shape) == (self.table.size,)
                cut[name] = array[piece.start : piece.stop] if is_long else array
        return cut | {name: part.scratch[: piece.size] for name, part in self.parts.items()}
