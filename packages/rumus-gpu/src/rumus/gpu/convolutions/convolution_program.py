"""WGSL of convolutions as matrix products whose second operand is never in memory.

A "map" computes one image from another: out[channel, pixel] is the sum over channels and taps of
weight[channel, (other channel, tap)] times the pixel that the tap meets. Both the convolution and
the gradient of its input are maps. A "weight" product is the gradient of the weight: its depth is
the pixels of the whole batch, in parts that a second kernel adds up.

Addresses are computed while a tile is loaded (`convolution_loaders.py`); the main loop is that of
all products (`product.py`). Software GPUs run the short loops of convolution.wgsl instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rumus.gpu.convolutions.convolution_loaders import (
    ConvolutionVariant,
    Gradients,
    Kind,
    Pixels,
    Taps,
    Weights,
)
from rumus.gpu.device.pipelines import Program
from rumus.gpu.device.shaders import prelude, shader
from rumus.gpu.device.stored import enabling, vector
from rumus.gpu.products.product import Staged, opening, product
from rumus.gpu.products.tiling import Tile

# a: weights of a map, or the gradient of the result. b: the pixels that taps meet. step: from one
# place to the next. first: the pixel that tap 0 of place 0 meets. gap: from one tap to the next.
# Numbers wrap around, so that one comparison detects both edges. area, right: the taps of the
# kernel, in all and across, for the program that does not have them compiled in.
_PIXELS: Final = (
    "b_start", "b_batch", "height", "width", "step_down", "step_right", "first_down",
    "first_right", "gap_down", "gap_right", "places", "across", "area", "right",
)  # fmt: skip
SCALARS: Final[dict[Kind, tuple[str, ...]]] = {
    "map": (
        "rows", "columns", "depth", "a_start", "a_section", "a_row", "a_channel", "a_down",
        "a_right", *_PIXELS, "c_start", "c_batch", "c_plane", "c_down", "c_right", "bias_start",
        "tile_rows", "tiles", "groups",
    ),
    "weight": (
        "rows", "columns", "depth", "a_start", "a_batch", *_PIXELS, "c_start", "sections",
        "split_depth", "tile_rows", "tiles", "groups",
    ),
}  # fmt: skip
ROLLED: Final = Tile(32, 32, 16, 4, 4)  # that of convolution.wgsl
_ROLLED_BYTES: Final = 2 * 576 * 4


def convolution_program(variant: ConvolutionVariant, is_rolled: bool) -> Program:
    """Return the WGSL of a product; is_rolled: in loops, for devices that compile slowly."""
    writer = _rolled if is_rolled else _unrolled
    fours = (False,) * 3 if is_rolled else variant.fours
    body = "\n".join([*header(variant, fours), *writer(variant), ""])
    access = "rrwr" if len(variant.stored) > 3 else "rrw"
    tile = variant.tile
    assert isinstance(tile, Tile)
    size = _ROLLED_BYTES if is_rolled else tile.bytes
    name = {"map": "convolution", "weight": "convolution_weight"}[variant.kind]
    scalars = "I" * len(SCALARS[variant.kind])
    return Program(name, enabling(*variant.stored) + prelude(body) + body, access, scalars, size)


def header(variant: ConvolutionVariant, fours: tuple[bool, ...]) -> Iterator[str]:
    """Scalars and bindings. fours: which of a, b and c are accessed four elements at a time."""
    yield "struct Scalars {"
    yield from (f"    {name}: u32," for name in SCALARS[variant.kind])
    yield "}"
    yield "var<immediate> k: Scalars;"
    modes = "read", "read", "read_write", "read"
    for number, stored in enumerate(variant.stored):
        element = vector(stored.wgsl, 4 if number < 3 and fours[number] else 1)
        yield (f"@group(0) @binding({number}) var<storage, {modes[number]}> {'abcd'[number]}:"
               f" array<{element}>;")  # fmt: skip


def _rolled(variant: ConvolutionVariant) -> Iterator[str]:
    """The text around convolution.wgsl."""
    for n in "ab":
        yield f"fn load_{n}(index: u32) -> f32 {{ return {variant.load(n, 'index')}; }}"
    yield variant.stored[2].writer()
    if variant.kind == "map":
        bias = variant.stored[3].load("d[index]", 1) if len(variant.stored) > 3 else "0.0"
        yield f"fn load_bias(index: u32) -> f32 {{ return {bias}; }}"
    yield shader(f"convolution_{variant.kind}")
    yield shader("convolution")


def _stored(variant: ConvolutionVariant, value: str, width: int) -> str:
    return variant.stored[2].store(value, width)


def _unrolled(variant: ConvolutionVariant) -> Iterator[str]:
    tile = variant.tile
    assert isinstance(tile, Tile)
    a, b = operands(variant)
    yield from opening(tile, a.memory, b.memory)
    yield from place(variant)
    yield f"let x = local % {tile.columns // tile.block_columns}u;"
    yield f"let y = local / {tile.columns // tile.block_columns}u;"
    yield from product(tile, a, b)
    yield from _store(variant, tile)
    yield "}"


def operands(variant: ConvolutionVariant) -> tuple[Staged, Staged]:
    """The loaders of the tiles of a and of b."""
    if variant.kind == "map":
        return Weights(variant), Pixels(variant)
    return Gradients(variant), Taps(variant)


def place(variant: ConvolutionVariant) -> Iterator[str]:
    """The starts of the workgroup's operands, and the steps of k that it adds up."""
    tile = variant.tile
    yield f"let first_a = linear % k.tile_rows * {tile.rows}u;"
    yield f"let first_b = linear / k.tile_rows % k.tiles * {tile.columns}u;"
    yield "let part_of_c = linear / k.tile_rows / k.tiles;"
    yield from _map_place(variant) if variant.kind == "map" else _weight_place(variant)


def _map_place(variant: ConvolutionVariant) -> Iterator[str]:
    """A part is one of the convolution's groups."""
    yield "let base_a = k.a_start + part_of_c * k.a_section;"
    yield f"let base_b = k.b_start + part_of_c * (k.depth / {variant.area}u * k.height * k.width);"
    yield "let base_c = k.c_start + part_of_c * k.rows * k.c_plane;"
    yield "let begin = 0u;"
    yield "let end = k.depth;"


def _weight_place(variant: ConvolutionVariant) -> Iterator[str]:
    """A part is one of the convolution's groups, over one part of the depth."""
    yield "let section = part_of_c % k.sections;"
    yield "let base_a = k.a_start + section * k.rows * k.places;"
    yield f"let base_b = k.b_start + section * (k.columns / {variant.area}u * k.height * k.width);"
    yield "let base_c = k.c_start + part_of_c * k.rows * k.columns;"
    yield "let begin = part_of_c / k.sections * k.split_depth;"
    yield "let end = min(begin + k.split_depth, k.depth);"


def _store(variant: ConvolutionVariant, tile: Tile) -> Iterator[str]:
    """Write the block of an invocation."""
    across, down = tile.columns // tile.block_columns, tile.rows // tile.block_rows
    for i in range(tile.block_rows):
        yield f"let row{i} = first_a + y * 4u + {i // 4 * down * 4 + i % 4}u;"
        yield from load_bias(variant, i)
    for j in range(tile.block_columns // 4):
        yield f"let column{j} = first_b + x * 4u + {j * across * 4}u;"
        yield from destinations(variant, j)
        for i in range(tile.block_rows):
            yield from store_four(variant, i, j)


def load_bias(variant: ConvolutionVariant, i: int) -> Iterator[str]:
    """Load the bias of row i, if there is one."""
    if len(variant.stored) > 3:
        value = variant.stored[3].load(f"d[k.bias_start + part_of_c * k.rows + held_row{i}]", 1)
        yield f"let held_row{i} = min(row{i}, k.rows - 1u);"
        yield f"let bias{i} = {value};"


def destinations(variant: ConvolutionVariant, j: int) -> Iterator[str]:
    """The offsets in a row of c of four adjacent elements from column j on."""
    for c in range(1 if variant.fours[2] else 4):
        yield from _destination(variant, f"{j}_{c}", f"column{j} + {c}u")


def _destination(variant: ConvolutionVariant, name: str, column: str) -> Iterator[str]:
    """The offset in a row of c of a column."""
    if variant.kind == "weight":
        yield f"let to{name} = {column};"
        return
    yield f"let image{name} = ({column}) / k.places;"
    yield f"let rest{name} = {column} - image{name} * k.places;"
    if variant.fours[2]:
        yield f"let to{name} = image{name} * k.c_batch + rest{name};"
        return
    yield f"let y{name} = rest{name} / k.across;"
    yield (f"let to{name} = image{name} * k.c_batch + y{name} * k.c_down"
           f" + (rest{name} - y{name} * k.across) * k.c_right;")  # fmt: skip


def store_four(variant: ConvolutionVariant, i: int, j: int) -> Iterator[str]:
    """Write four adjacent elements of row i, at once or one by one."""
    length = "k.c_plane" if variant.kind == "map" else "k.columns"
    base = f"base_c + row{i} * {length}"
    added = f" + bias{i}" if len(variant.stored) > 3 else ""
    if variant.fours[2]:
        value = _stored(variant, f"c{i}_{j}{added}", 4)
        inside = f"row{i} < k.rows && column{j} < k.columns"
        yield f"if ({inside}) {{ c[({base} + to{j}_0) / 4u] = {value}; }}"
        return
    for c, part in enumerate("xyzw"):
        value = _stored(variant, f"c{i}_{j}.{part}{added}", 1)
        inside = f"row{i} < k.rows && column{j} + {c}u < k.columns"
        yield f"if ({inside}) {{ c[{base} + to{j}_{c}] = {value}; }}"
