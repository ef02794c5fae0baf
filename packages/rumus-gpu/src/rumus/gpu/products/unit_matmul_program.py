"""WGSL of matrix products on matrix units: `tiled_matmul_program.py` with another main loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rumus.gpu.device.matrix_units import Units
from rumus.gpu.device.pipelines import Program
from rumus.gpu.products.product import opening
from rumus.gpu.products.tiled_matmul_program import (
    Four,
    TiledVariant,
    header,
    load_four,
    operands,
    place,
    program,
    store_four,
    store_sums,
)
from rumus.gpu.products.unit_product import Halves, Held, UnitProduct, UnitTile


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
    apart = not product.in_fours[2]
    multiplied = UnitProduct(tile, units, a, b, has_sums=product.has_sums, apart=apart)
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
    """Write the results, matrix by matrix."""
    for number in range(len(multiplied.matrices)):
        for held in multiplied.held(number):
            yield from held.place
            yield f"let row_{held.name} = first_a + place_row_{held.name};"
            yield f"let column_{held.name} = first_b + place_column_{held.name};"
            yield from load_four(variant, _four(held, multiplied))
        yield from multiplied.hand_over(number)
        for held in multiplied.held(number):
            yield "{"
            yield from held.scaling
            yield f"let value = {held.value};"
            yield from store_four(variant, _four(held, multiplied), "value")
            yield "}"
        if variant.mirrors and variant.in_fours[2]:  # also to the transposed position
            yield "if (square_a > square_b) {"
            yield from _store_turned(variant, multiplied, number)
            yield "}"


def _four(held: Held, multiplied: UnitProduct) -> Four:
    return Four(f"row_{held.name}", f"column_{held.name}", held.name, multiplied.apart)


def _store_turned(variant: TiledVariant, multiplied: UnitProduct, number: int) -> Iterator[str]:
    for lines, value in multiplied.turned(number):
        yield "{"
        yield from lines
        yield "let row = first_b + place_row;"
        yield "let column = first_a + place_column;"
        yield f"let value = {value};"
        four = Four("row", "column", "turned")
        yield from (*load_four(variant, four), *store_four(variant, four, "value"))
        yield "}"
