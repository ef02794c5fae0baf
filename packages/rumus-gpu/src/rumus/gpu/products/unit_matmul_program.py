"""WGSL of matrix products on matrix units: `tiled_matmul_program.py` with another main loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rumus.gpu.device.matrix_units import Units
from rumus.gpu.device.pipelines import Program
from rumus.gpu.products.product import opening
from rumus.gpu.products.tiled_matmul_program import (
    TiledVariant,
    header,
    operands,
    place,
    program,
    store_four,
    store_sums,
)
from rumus.gpu.products.unit_product import Halves, UnitProduct, UnitTile


@dataclass(frozen=True, slots=True)
class UnitVariant:
    """The key of a pipeline. product: the variant whose tile is `tile`."""

    product: TiledVariant
    tile: UnitTile
    units: Units
    is_high: bool


def unit_program(variant: UnitVariant) -> Program:
    """Return the WGSL of a product on matrix units in this variant."""
    product, tile, units = variant.product, variant.tile, variant.units
    kinds = product.kinds
    a, b = (
        Halves(staged, units, variant.is_high, is_scaled=stored.name != "f16")
        for staged, stored in zip(operands(product), (kinds.a, kinds.b), strict=True)
    )
    multiplied = UnitProduct(tile, units, a, b, product.has_sums)
    enabling = "enable f16;\n" if units.half == "f16" else ""
    scaled = [each.staged.name for each in (a, b) if each.is_scaled]
    text = [enabling, *header(product, scaled), *opening(tile, *multiplied.memory)]
    text += [*place(product), *_exponents_bases(scaled), *multiplied.multiply()]
    text += [*store_sums(product), *_store(product, multiplied)]
    written = program("unit_matmul", product, text, tile.bytes(units, variant.is_high), scaled)
    return replace(written, features=units.features)


def _exponents_bases(scaled: Sequence[str]) -> Iterator[str]:
    """The start of the batch's exponents."""
    for n in scaled:
        yield (f"let exponents_base_{n} = batch / k.inner * k.{n}_parts_outer"
               f" + batch % k.inner * k.{n}_parts_inner;")  # fmt: skip


def _store(variant: TiledVariant, multiplied: UnitProduct) -> Iterator[str]:
    number = -1
    for lines, value in multiplied.values():
        if value:
            yield from _store_four(variant, lines, value, "ab")
            continue
        yield from lines
        number += 1
        if variant.mirrors and variant.in_fours[2]:  # also to the transposed position
            yield "if (square_a > square_b) {"
            for turned, four in multiplied.turned(number):
                yield from _store_four(variant, turned, four, "ba")
            yield "}"


def _store_four(
    variant: TiledVariant, lines: Sequence[str], value: str, sides: str
) -> Iterator[str]:
    """Write four adjacent elements of a row. sides: the operands that give its row and column."""
    yield "{"
    yield from lines
    yield f"let row = first_{sides[0]} + place_row;"
    yield f"let column = first_{sides[1]} + place_column;"
    yield f"let four = {value};"
    yield from store_four(variant, "row", "column", "four")
    yield "}"
