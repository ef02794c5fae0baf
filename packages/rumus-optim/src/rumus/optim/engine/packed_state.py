"""State in 8-bit codes: which parts, their layout, and how they are saved per parameter.

A part `m` is two arrays: `m.codes`, a byte per element, and `m.scales`, a float32 per block of 256
elements. Blocks do not cross parameters, so both can be saved by parameter name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.tensor import Arena, Backend, DType, float32, int32
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.on_host import allocate_on_host
from rumus.tensor.memory.packing import PackedPart, Packing
from rumus.tensor.memory.quantization import BlockTable, Code, Piece, block_count, words
from rumus.tensor.memory.slot_table import SlotTable, slot_size

SMALLEST: Final = 4096  # parameters with fewer elements keep their state unpacked
AT_ONCE: Final = 4 * 2**20  # elements unpacked at a time
_BIND: Final = 256  # byte alignment for binding a piece of an array
_BYTE: Final = np.dtype(np.uint8)

Codes = Mapping[str, Code]


def codes_name(part: str) -> str:
    """Return the name of a state part's codes."""
    return f"{part}.codes"


def scales_name(part: str) -> str:
    """Return the name of a state part's scales."""
    return f"{part}.scales"


def pieces_of(table: BlockTable, dtype: DType) -> tuple[Piece, ...]:
    """Split an arena of parameters of `dtype` into pieces to unpack at a time."""
    return table.pieces(AT_ONCE, max(1, _BIND // dtype.itemsize))


def allocated(backend: Backend, shape: tuple[int, ...], dtype: DType, on_host: bool) -> Array:
    """Return a new array for state, perhaps in the memory of the host."""
    if on_host:
        return allocate_on_host(backend, shape, dtype)
    return backend.allocate(shape, dtype)


def pack(arenas: Sequence[Arena], codes: Codes, *, on_host: bool = False) -> list[Packing]:
    """Return packed parts for each arena, all 0, which share their scratch on each backend.

    on_host: whether codes and scales lie in the memory of the host.
    """
    tables = [BlockTable(arena.table) for arena in arenas]
    cut = [pieces_of(t, arena.dtype) for t, arena in zip(tables, arenas, strict=True)]
    sizes = [max(piece.size for piece in pieces) for pieces in cut]
    shared = _scratch([arena.backend for arena in arenas], sizes, codes)
    found = []
    for arena, table, pieces, scratch in zip(arenas, tables, cut, shared, strict=True):
        parts = {n: _part(arena.backend, c, table, scratch[n], on_host) for n, c in codes.items()}
        found.append(Packing(table, pieces, parts))
    return found


def unpacked_whole(packed: Sequence[tuple[Backend, Packing]]) -> list[Packing]:
    """Return the same codes and scales, unpacked in one piece."""
    names = {name for _, packing in packed for name in packing.parts}
    sizes = [packing.table.size for _, packing in packed]
    shared = _scratch([backend for backend, _ in packed], sizes, names)
    found = []
    for (_, packing), scratch in zip(packed, shared, strict=True):
        parts = {n: replace(part, scratch=scratch[n]) for n, part in packing.parts.items()}
        found.append(Packing(packing.table, (packing.table.whole(),), parts))
    return found


def _scratch(
    backends: Sequence[Backend], sizes: Sequence[int], names: Iterable[str]
) -> list[dict[str, Array]]:
    """Arrays of at least the needed size for several users, shared on one backend."""
    largest: dict[int, int] = {}
    for backend, size in zip(backends, sizes, strict=True):
        largest[id(backend)] = max(size, largest.get(id(backend), 0))
    parts = tuple(names)
    made = {
        id(b): {name: b.allocate((largest[id(b)],), float32) for name in parts}
        for b in {id(b): b for b in backends}.values()
    }
    return [made[id(backend)] for backend in backends]


def _part(
    backend: Backend, code: Code, table: BlockTable, scratch: Array, on_host: bool
) -> PackedPart:
    codes = allocated(backend, (words(table.size),), int32, on_host)
    scales = allocated(backend, (table.number,), float32, on_host)
    backend.fill(0, codes)
    backend.fill(0, scales)
    return PackedPart(code, codes, scales, scratch)


def planned_bytes(sizes: Sequence[int], dtype: DType, codes: Codes) -> tuple[int, int]:
    """Return the bytes that codes and scales would take, and the elements of the scratch."""
    table = BlockTable(SlotTable(sizes))
    largest = max(piece.size for piece in pieces_of(table, dtype))
    return len(codes) * (table.size + 4 * table.number), largest


def forms(names: Iterable[str], shape: tuple[int, ...], size: int) -> dict[str, tuple[DType, Any]]:
    """Return the dtype and shape of the arrays saved for a parameter."""
    found: dict[str, tuple[DType, Any]] = {}
    for name in names:
        found[codes_name(name)] = (_BYTE, shape)
        found[scales_name(name)] = (float32, (block_count(size),))
    return found


def _places(arena: Arena, packing: Packing) -> Iterator[tuple[int, slice, slice]]:
    """For each parameter its size, the range of its code words, and of its scales."""
    first = 0
    for slot, count in zip(arena.slots, packing.table.counts, strict=True):
        start = slot.start // 4
        yield (
            slot.size,
            slice(start, start + words(slot_size(slot.size))),
            slice(first, first + count),
        )
        first += count


def host_parts(arena: Arena, packing: Packing) -> list[dict[str, NDArray[Any]]]:
    """Return a copy of the packed state per parameter: two reads for each part."""
    found: list[dict[str, NDArray[Any]]] = [{} for _ in arena.parameters]
    for name, part in packing.parts.items():
        codes, scales = arena.backend.download(part.codes), arena.backend.download(part.scales)
        for number, (size, at, blocks) in enumerate(_places(arena, packing)):
            own = codes[at].view(np.uint8)[:size].reshape(arena.parameters[number].shape)
            found[number][codes_name(name)] = own.copy()
            found[number][scales_name(name)] = scales[blocks].copy()
    return found


def targets(
    arena: Arena, packing: Packing, number: int, saved: Mapping[str, Any]
) -> Iterator[tuple[NDArray[Any], Array]]:
    """Yield, for a parameter number, the saved arrays of each part and their destinations."""
    size, at, blocks = list(_places(arena, packing))[number]
    for name, part in packing.parts.items():
        codes = np.zeros(slot_size(size), np.uint8)
        codes[:size] = np.asarray(saved[codes_name(name)]).reshape(-1)
        yield codes.view(np.int32), part.codes[at]
        yield np.asarray(saved[scales_name(name)]), part.scales[blocks]
