"""The precision and the tiles of products on matrix units.

The rates are shares of `tiling.RATE`. Those of MEDIUM and HIGH are the medians of what the products
of two GPTs, of width 256 and 768, reach on an NVIDIA H200 one by one. Where that and whole steps
differ, steps decide: parts of 64 x 64 make the gradients of weights 15 % faster alone, when their
operands are in the cache, and GPT-2's step 2 % slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from rumus.gpu.device.array import GPUArray
from rumus.gpu.device.device import Gpu
from rumus.gpu.device.limits import DeviceLimits
from rumus.gpu.device.matrix_units import Precision, Units
from rumus.gpu.products.unit_product import UnitTile
from rumus.tensor.memory.recording import depends_on

Tiles = Sequence[tuple[UnitTile, float]]
START: Final = 300  # see `tiling.START`
LARGE: Final = UnitTile(128, 256, 32, 64, 32)
MEDIUM: Final[Tiles] = (
    (LARGE, 5.0),
    (UnitTile(128, 192, 32, 64, 32), 3.8),  # the widths of many models, multiples of 192
    (UnitTile(128, 128, 32, 64, 32), 3.0),
    (UnitTile(64, 128, 32, 32, 64), 2.7),
    (UnitTile(64, 64, 32, 32, 32), 1.85),
    (UnitTile(64, 64, 64, 32, 16), 1.4),
    (UnitTile(32, 64, 32, 16, 32), 1.1),
)
# For float16 operands: without powers of two, smaller tiles do better.
HALF: Final[Tiles] = (
    (LARGE, 5.2),
    (UnitTile(128, 192, 32, 64, 32), 4.6),
    (UnitTile(64, 128, 32, 32, 64), 3.0),
    (UnitTile(64, 64, 32, 32, 32), 2.4),
    (UnitTile(32, 64, 32, 16, 32), 1.4),
)
HIGH: Final[Tiles] = (
    (UnitTile(128, 128, 16, 64, 32), 2.0),
    (UnitTile(64, 128, 32, 32, 32), 1.85),
    (UnitTile(64, 64, 16, 32, 32), 1.2),
)
# Convolutions choose among these and tiles of float32 arithmetic.
CONVOLUTION: Final[Tiles] = (
    (LARGE, 4.6),
    (UnitTile(128, 128, 32, 32, 64), 2.6),
    (UnitTile(64, 128, 32, 32, 64), 2.0),
    (UnitTile(64, 64, 32, 32, 32), 1.55),
)


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """How units compute a product. is_high: each number is split into two float16.

    There is one of each kind, so that what was planned for it is found by its identity.
    """

    units: Units
    is_high: bool
    tiles: Tiles
    of_convolutions: Tiles


def precision_of(gpu: Gpu, *arrays: GPUArray) -> Precision:
    """Return the precision of a product of these arrays; at "highest", no units are used.

    Units multiply float16 exactly, so float16 arrays always use "medium".
    """
    if gpu.units is None:
        return "highest"
    if all(array.stored.name == "f16" for array in arrays):
        return "medium"
    depends_on(gpu, "precision")
    return gpu.precision


def level_of(gpu: Gpu, a: GPUArray, b: GPUArray) -> Level | None:
    """Return how units multiply a and b; None if float32 arithmetic does."""
    precision = precision_of(gpu, a, b)
    if gpu.units is None or precision == "highest":
        return None
    is_high = precision == "high"
    is_half = a.stored.name == b.stored.name == "f16"
    lists = (HIGH, HIGH) if is_high else (HALF if is_half else MEDIUM, CONVOLUTION)
    return _level(gpu.units, is_high, *lists, gpu.limits)


@lru_cache(maxsize=64)
def _level(
    units: Units, is_high: bool, tiles: Tiles, of_convolutions: Tiles, limits: DeviceLimits
) -> Level | None:
    """The level with the tiles that fit the device's limits, or None if none do."""
    fitting, even = (
        tuple([each for each in listed if _fits(each[0], units, is_high, limits)])
        for listed in (tiles, of_convolutions)
    )
    return Level(units, is_high, fitting, even) if fitting and even else None


def _fits(tile: UnitTile, units: Units, is_high: bool, limits: DeviceLimits) -> bool:
    return (
        tile.bytes(units, is_high) <= limits.workgroup_memory
        and tile.lanes <= limits.workgroup_size
        and not tile.part_rows % units.shape.rows
        and not tile.part_columns % units.shape.columns
        and not tile.depth % units.shape.depth
    )
