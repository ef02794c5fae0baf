"""How matrix units make one product: at which precision, in which tiles.

The rates are those of an NVIDIA H100 for products of 4096 x 4096, as shares of `tiling.RATE`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from rumus.gpu.device.array import GPUArray
from rumus.gpu.device.device import Gpu
from rumus.gpu.device.limits import DeviceLimits
from rumus.gpu.device.matrix_units import Units
from rumus.gpu.products.unit_product import UnitTile
from rumus.tensor.memory.recording import depends_on

Tiles = Sequence[tuple[UnitTile, float]]
LARGE: Final = UnitTile(128, 256, 32, 64, 32)
SMALLER: Final = (
    (UnitTile(128, 128, 32, 32, 64), 2.6),
    (UnitTile(64, 128, 32, 32, 64), 2.0),
    (UnitTile(64, 64, 32, 32, 32), 1.55),
)
HALF: Final[Tiles] = ((LARGE, 5.2), *SMALLER)  # float16 in memory: nothing to scale
MEDIUM: Final[Tiles] = ((LARGE, 4.6), *SMALLER)
HIGH: Final[Tiles] = (
    (UnitTile(128, 128, 16, 64, 32), 1.6),
    (UnitTile(64, 64, 16, 32, 32), 0.9),
)


@dataclass(frozen=True, slots=True)
class Level:
    """How units make a product. is_high: of numbers in two float16 each."""

    units: Units
    is_high: bool
    tiles: Tiles


def level_of(gpu: Gpu, a: GPUArray, b: GPUArray) -> Level | None:
    """Return how units make the product of a and b; None where float32 arithmetic does.

    float16 operands are multiplied exactly by units, whatever the precision is.
    """
    if gpu.units is None:
        return None
    if a.stored.name == b.stored.name == "f16":
        return _level(gpu.units, False, HALF, gpu.limits)
    depends_on(gpu, "precision")
    if gpu.precision == "highest":
        return None
    if gpu.precision == "high":
        return _level(gpu.units, True, HIGH, gpu.limits)
    return _level(gpu.units, False, MEDIUM, gpu.limits)


@lru_cache(maxsize=64)
def _level(units: Units, is_high: bool, tiles: Tiles, limits: DeviceLimits) -> Level | None:
    """With the tiles that the device has workgroup memory and invocations for."""
    fitting = tuple(
        (tile, rate)
        for tile, rate in tiles
        if tile.bytes(units, is_high) <= limits.workgroup_memory
        and tile.lanes <= limits.workgroup_size
        and not tile.part_rows % units.shape.rows
        and not tile.part_columns % units.shape.columns
        and not tile.depth % units.shape.depth
    )
    return Level(units, is_high, fitting) if fitting else None
