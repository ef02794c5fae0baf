"""WGSL of convolutions on matrix units: `convolution_program.py` with another main loop.

The operand that taps gather has no rows in memory to find exponents of, so each float32 array has
one power of two for all of its elements.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from rumus.gpu.convolutions.convolution_loaders import ConvolutionVariant
from rumus.gpu.convolutions.convolution_program import (
    SCALARS,
    destinations,
    header,
    load_bias,
    operands,
    place,
    store_four,
)
from rumus.gpu.device.matrix_units import Units
from rumus.gpu.device.pipelines import Program
from rumus.gpu.device.stored import enabling
from rumus.gpu.products.product import opening
from rumus.gpu.products.unit_product import Halves, UnitProduct, UnitTile


@dataclass(frozen=True, slots=True)
class UnitConvolution:
    """The key of a pipeline. convolution: the variant whose tile is `tile`."""

    convolution: ConvolutionVariant
    tile: UnitTile
    units: Units
    is_high: bool

    @property
    def scaled(self) -> tuple[str, ...]:
        """The operands that come with an exponent."""
        stored = zip("ab", self.convolution.stored, strict=False)
        return tuple(name for name, each in stored if each.name != "f16")


def unit_convolution_program(variant: UnitConvolution) -> Program:
    """Return the WGSL of a convolution on matrix units in this variant."""
    convolution, tile, units = variant.convolution, variant.tile, variant.units
    a, b = (
        Halves(staged, units, variant.is_high, staged.name in variant.scaled, by_line=False)
        for staged in operands(convolution)
    )
    multiplied = UnitProduct(tile, units, a, b)
    half = "enable f16;\n" if units.half == "f16" else ""
    lines = [half or enabling(*convolution.stored), *header(convolution, convolution.fours)]
    for number, n in enumerate(variant.scaled, len(convolution.stored)):
        kind = f"var<storage, read> exponents_{n}: array<u32>;"
        lines.append(f"@group(0) @binding({number}) {kind}")
    lines += [*opening(tile, *multiplied.memory), *place(convolution), *multiplied.multiply()]
    lines += [*_store(convolution, multiplied), "}", ""]
    access = "rrw" + "r" * (len(convolution.stored) - 3 + len(variant.scaled))
    scalars, size = "I" * len(SCALARS[convolution.kind]), tile.bytes(units, variant.is_high)
    written = Program("unit_convolution", "\n".join(lines), access, scalars, size)
    return replace(written, features=units.features)


def _store(variant: ConvolutionVariant, multiplied: UnitProduct) -> Iterator[str]:
    for number in range(len(multiplied.matrices)):
        yield from multiplied.hand_over(number)
        for held in multiplied.held(number):
            yield "{"
            yield from (*held.place, *held.scaling)
            yield f"let row0 = first_a + place_row_{held.name};"
            yield f"let column0 = first_b + place_column_{held.name};"
            yield from load_bias(variant, 0)
            yield f"let c0_0 = {held.value};"
            yield from destinations(variant, 0)
            yield from store_four(variant, 0, 0)
            yield "}"
