"""8-bit codes for blocks of numbers: the values of the codes, and the layout of the blocks.

A block of up to 256 numbers is stored as one byte each and one float32 scale, the largest magnitude
among them. A byte represents a level between 0 and 1, which the scale multiplies. The levels are
dense near 1 and reach down to 5e-7, like those of Dettmers et al., arXiv:2110.02861.

Every backend gives the same bits: a number is compared with the product of the scale and a bound
between two levels. This is a single multiplication, which rounds correctly everywhere, and the
comparison is between the bit patterns as integers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.memory.slot_table import ALIGNMENT, SlotTable

BLOCK: Final = 256  # elements that share a scale
# A block whose largest magnitude is below this is stored as 0, so that no product of a scale and
# a level is a denormal number, which some devices flush to 0.
FLOOR: Final = 2.0**-80
FINITE: Final = np.float32(np.finfo(np.float32).max)
_BIN: Final = 15  # low bits of a float32 that the coarse lookup ignores
_SURE: Final = 1 + 2.0**-20  # more than the rounding error of a quotient


@dataclass(frozen=True, slots=True, eq=False)
class _Tables:
    """levels: by the byte, float32 [256]. bounds: by rank, its smallest magnitude."""

    levels: NDArray[np.float32]
    bounds: NDArray[np.float32]


class Code:
    """The values that the 256 bytes represent.

    name: for messages and devices. is_signed: the highest bit of a byte is the sign, and the other
    seven are the rank of the magnitude; else all eight are the rank. magnitudes: of each rank, in
    float64, rising from 0 to 1. nearest: the bound between two neighboring magnitudes.

    Rank 0 is 0. A positive unsigned number gets at least rank 1, so that no divisor becomes 0;
    signed numbers below half of the first level become 0.
    """

    def __init__(
        self,
        name: str,
        magnitudes: list[float],
        nearest: Callable[[float, float], float],
        *,
        is_signed: bool,
    ) -> None:
        self.name = name
        self.is_signed = is_signed
        self.ranks = len(magnitudes)
        self._magnitudes = magnitudes
        self._nearest = nearest

    def __repr__(self) -> str:
        return f"Code({self.name!r})"

    @cached_property
    def _tables(self) -> _Tables:
        own = np.array(self._magnitudes, np.float32)
        levels = np.concatenate([own, -own]) if self.is_signed else own
        levels[self.ranks :][:1] = 0  # there is no negative 0
        pairs = zip(self._magnitudes, self._magnitudes[1:], strict=False)
        bounds = np.full(BLOCK, np.inf, np.float32)
        bounds[1 : self.ranks] = [self._nearest(low, high) for low, high in pairs]
        bounds[0] = 0
        if not self.is_signed:
            bounds[1] = 0
        return _Tables(levels, bounds)

    @property
    def levels(self) -> NDArray[np.float32]:
        """The value of each byte, [256]."""
        return self._tables.levels

    @property
    def bounds(self) -> NDArray[np.float32]:
        """The smallest magnitude of each rank, [256]; infinite for unused ranks.

        A bound of 0 means everything above 0.
        """
        return self._tables.bounds

    @cached_property
    def coarse(self) -> NDArray[np.uint8]:
        """The rank for the upper bits of a magnitude, by `bits >> 15`: correct or one less."""
        lowest = (np.arange(1 << (32 - _BIN - 1), dtype=np.uint32) << _BIN).view(np.float32)
        with np.errstate(invalid="ignore"):
            found = np.searchsorted(self.bounds[1 : self.ranks], lowest / _SURE, "right")
        found[~(lowest <= 1)] = self.ranks - 1
        if not self.is_signed:
            found[0] = 0
        return found.astype(np.uint8)


def _tree(fraction: int) -> list[float]:
    """The magnitudes of the dynamic tree: zero bits, a one, and the rest is a fraction.

    After e zero bits, up to 6, there are n = fraction - e bits with the value k. They represent the
    middle of the k-th of 2^n equal parts of [0.1, 1], times 10^-e. The largest is set to 1, so that
    the scale itself has a code.
    """
    found = [0.0]
    for zeros in range(6, -1, -1):
        parts = 2 ** (fraction - zeros)
        found += [10.0**-zeros * (0.1 + 0.9 * (k + 0.5) / parts) for k in range(parts)]
    return found


def _signed() -> Code:
    """For averages of gradients: a sign, and the dynamic tree in seven bits."""
    magnitudes = _tree(6)
    magnitudes[-1] = 1.0
    return Code("signed", magnitudes, lambda a, b: (a + b) / 2, is_signed=True)


def _squares() -> Code:
    """For averages of squares: squares of the tree without a sign, with one more bit of fraction.

    So their roots follow the levels of the paper, and the range is twice as long.
    """
    magnitudes = [x * x for x in [*_tree(7), 1.0]]
    return Code("squares", magnitudes, lambda a, b: ((a**0.5 + b**0.5) / 2) ** 2, is_signed=False)


SIGNED: Final = _signed()
SQUARES: Final = _squares()


@dataclass(frozen=True, slots=True)
class Piece:
    """Neighboring blocks: those from `first` to `last`, elements `start` to `stop`."""

    first: int
    last: int
    start: int
    stop: int

    @property
    def size(self) -> int:
        """The number of elements, including the gaps between slots."""
        return self.stop - self.start


class BlockTable:
    """The blocks of slots in flat memory: each slot is split alone, and its last block is shorter.

    So a tensor's codes do not depend on its neighbors.

    >>> from rumus.tensor.memory.slot_table import SlotTable
    >>> BlockTable(SlotTable([300, 5])).bounds.tolist()
    [[0, 256], [256, 300], [320, 325]]
    """

    def __init__(self, slots: SlotTable) -> None:
        self.size = slots.size
        pairs = [(s, n) for s, n in zip(slots.starts, slots.sizes, strict=True)]
        self.counts = tuple(block_count(n) for _, n in pairs)
        starts = [start + np.arange(0, n, BLOCK) for start, n in pairs]
        stops = [np.minimum(own + BLOCK, s + n) for own, (s, n) in zip(starts, pairs, strict=True)]
        self.bounds: NDArray[Any] = np.stack(
            [np.concatenate(starts), np.concatenate(stops)], 1
        ).astype(np.int64)

    @property
    def number(self) -> int:
        """The number of blocks."""
        return len(self.bounds)

    def whole(self) -> Piece:
        """The whole table as one piece."""
        return Piece(0, self.number, 0, self.size)

    def pieces(self, most: int, step: int) -> tuple[Piece, ...]:
        """Split it into pieces of up to `most` elements that start at multiples of `step`.

        A piece is larger if no block starts at such a multiple.
        """
        starts = self.bounds[:, 0]
        allowed = np.flatnonzero(starts % step == 0)
        found, first = [], 0
        while first < self.number:
            last, stop = self.number, self.size
            if stop - starts[first] > most:
                later = allowed[allowed > first]
                near = later[starts[later] <= starts[first] + most]
                choice = near[-1:] if near.size else later[:1]
                if choice.size:
                    last, stop = int(choice[0]), int(starts[choice[0]])
            found.append(Piece(first, last, int(starts[first]), stop))
            first = last
        return tuple(found)

    def runs(self, piece: Piece) -> list[tuple[int, int, int]]:
        """Runs of adjacent blocks: (first block, start, stop), all full except the last."""
        own = self.bounds[piece.first : piece.last]
        if not len(own):
            return []
        ends = own[:, 1] - own[:, 0] < BLOCK
        ends[:-1] |= own[1:, 0] != own[:-1, 1]
        last = np.flatnonzero(ends | (np.arange(len(own)) == len(own) - 1))
        first = np.concatenate([[0], last[:-1] + 1])
        return [
            (piece.first + int(a), int(own[a, 0]), int(own[b, 1]))
            for a, b in zip(first, last, strict=True)
        ]


def block_count(size: int) -> int:
    """Return the number of blocks of a tensor of `size` elements."""
    return -(-size // BLOCK)


def words(size: int) -> int:
    """Return the number of int32 words for the codes of these elements, a multiple of 64."""
    assert size % ALIGNMENT == 0
    return size // 4
