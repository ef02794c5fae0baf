"""Which tiles a product is made of.

The times are a model of an NVIDIA data-centre GPU, fitted to products of many shapes there. Other
devices get the same choice: it depends on the shape alone, and so do the bits of the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

PAD: Final = 4  # floats behind each line of a tile, so that lanes that store along k do not collide
MULTIPROCESSORS: Final = 132
BUSY: Final = 192  # invocations that keep a multiprocessor busy
RATE: Final = 170e3  # multiply-adds of a multiprocessor in a microsecond
START: Final = 100  # how much deeper a tile seems than it is: the first loads and the last stores
DISPATCH: Final = 2.5  # microseconds for one more, which waits for the one before
TRAFFIC: Final = 0.75e6  # floats of memory in a microsecond
SPLITS: Final = (1, 2, 4, 8, 16)
LEAST: Final = 64  # depth of a part


class Tiled(Protocol):
    """What a loader must know of the part of a product that a workgroup computes."""

    @property
    def rows(self) -> int:
        """Of the result."""

    @property
    def columns(self) -> int:
        """Of the result."""

    @property
    def depth(self) -> int:
        """Steps of k at a time."""

    @property
    def lanes(self) -> int:
        """The invocations of a workgroup."""


@dataclass(frozen=True, slots=True)
class Tile:
    """The part of the result of a workgroup, how deep at a time, and the block of an invocation."""

    rows: int
    columns: int
    depth: int
    block_rows: int
    block_columns: int

    @property
    def lanes(self) -> int:
        """The invocations of a workgroup."""
        return (self.rows // self.block_rows) * (self.columns // self.block_columns)

    @property
    def bytes(self) -> int:
        """The workgroup memory of a pair of tiles."""
        return 4 * self.depth * (self.rows + self.columns + 2 * PAD)


LARGE: Final = Tile(128, 64, 16, 8, 8)
MIDDLE: Final = Tile(64, 64, 16, 8, 8)
SMALL: Final = Tile(32, 32, 16, 4, 4)
# With the share of `RATE` that each reaches. All are small in workgroup memory, of which drivers
# give little: so several workgroups wait for memory and for one another's barriers at once.
TILES: Final = (
    (LARGE, 1.0),
    (MIDDLE, 0.97),
    (Tile(64, 64, 16, 4, 8), 0.8),
    (SMALL, 0.45),
)


T = TypeVar("T", bound=Tiled)


def square_of(tile: Tiled) -> int | None:
    """The side of the smallest square that tiles fill, None if no few of them do.

    A result that equals its transpose is made of squares on its diagonal and below.
    """
    short, long = sorted((tile.rows, tile.columns))
    return None if long % short else long


def choose(
    rows: int,
    columns: int,
    depth: int,
    batches: int = 1,
    tiles: Sequence[tuple[T, float]] = TILES,  # type: ignore[assignment]  # T is Tile then
    splits: Sequence[int] | None = None,
    start: int = START,
    symmetric: bool = False,
) -> tuple[T, int, int]:
    """The tile, the number of parts that the depth is split into, and the depth of each.

    splits: the numbers of parts to choose from; by default there are parts of a single product.
    start: how much deeper a tile seems than it is.
    symmetric: the result equals its transpose.

    >>> choose(4096, 4096, 4096)
    (Tile(rows=128, columns=64, depth=16, block_rows=8, block_columns=8), 1, 4096)
    >>> choose(128, 512, 784)
    (Tile(rows=64, columns=64, depth=16, block_rows=4, block_columns=8), 7, 112)
    """
    best = math.inf, tiles[0][0], 1, depth
    for tile, share in tiles:
        down, across = -(-rows // tile.rows), -(-columns // tile.columns)
        for wanted in splits or (SPLITS if batches == 1 else (1,)):
            part = -(-depth // wanted // tile.depth) * tile.depth
            parts = -(-depth // part)
            if wanted > 1 and (part < LEAST or parts < 2):
                continue
            groups = batches * down * across
            if symmetric and parts == 1 and (side := square_of(tile)) is not None:
                squares = -(-rows // side)
                groups = -(-groups * (squares + 1) // (2 * squares))
            turns = max(-(-groups * parts // MULTIPROCESSORS), BUSY / tile.lanes)
            time = turns * tile.rows * tile.columns * (part + start) / (share * RATE)
            if parts > 1:
                time += DISPATCH + (parts + 1) * batches * rows * columns / TRAFFIC
            if time < best[0]:
                best = time, tile, parts, part if parts > 1 else depth
    return best[1:]
