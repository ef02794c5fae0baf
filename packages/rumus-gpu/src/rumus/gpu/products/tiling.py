"""The choice of a product's tiles.

The times are a model of an NVIDIA data-center GPU, fitted to products of many shapes there. Other
devices use the same choice: it depends only on the shape, and so do the bits of the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

PAD: Final = 4  # floats after each line of a tile, so that lanes storing along k use other banks
MULTIPROCESSORS: Final = 132
BUSY: Final = 192  # invocations that keep a multiprocessor busy
RATE: Final = 170e3  # multiply-adds per microsecond of a multiprocessor
START: Final = 100  # steps of depth that the first loads and the last stores cost
DISPATCH: Final = 2.5  # microseconds for one more, which waits for the previous one
TRAFFIC: Final = 0.75e6  # floats of memory traffic per microsecond
SPLITS: Final = (1, 2, 4, 8, 16)
LEAST: Final = 64  # minimum depth of a part


class Tiled(Protocol):
    """The part of a product that a workgroup computes, as far as loaders must know."""

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
    """A workgroup's part of the result, the depth of one step, and an invocation's block."""

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
# Each with the share of `RATE` that it reaches. All use little of the scarce workgroup memory, so
# that several workgroups run at once: while some wait for memory or a barrier, others compute.
TILES: Final = (
    (LARGE, 1.0),
    (MIDDLE, 0.97),
    (Tile(64, 64, 16, 4, 8), 0.8),
    (SMALL, 0.45),
)


T = TypeVar("T", bound=Tiled)


def square_of(tile: Tiled) -> int | None:
    """The side of the smallest square that tiles fill; None if one edge does not divide the other.

    A symmetric result is computed in such squares, on and below its diagonal.
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

    splits: the numbers of parts to choose from; by default only single products are split.
    start: see `START`.
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
