"""The loaders of a convolution's operands, which compute where each element lies.

The size of the kernel is compiled in, so that taps are found with divisions by constants;
everything else is a scalar of the dispatch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from rumus.gpu.device.stored import Stored
from rumus.gpu.products.product import Staged
from rumus.gpu.products.tiling import Tiled

Kind: TypeAlias = Literal["map", "weight"]


@dataclass(frozen=True, slots=True)
class ConvolutionVariant:
    """The key of a pipeline.

    kernel: its taps down and across. fours: whether a, b and c can be accessed four elements at a
    time; b can if a tap meets the pixels in their order. is_run: four places from a multiple of
    four are in one row. is_whole: the depth is a multiple of the tile's. is_in_order: a map visits
    all taps of the weight, in memory order.
    """

    kind: Kind
    tile: Tiled
    kernel: tuple[int, int]
    fours: tuple[bool, bool, bool]
    is_run: bool
    is_whole: bool
    is_in_order: bool
    stored: tuple[Stored, ...]  # of a, b, c, and of a bias if there is one

    @property
    def area(self) -> int:
        """The taps of the kernel."""
        return self.kernel[0] * self.kernel[1]

    def load(self, name: str, index: str, width: int = 1) -> str:
        """Return the value of an element of a or b, or of four of them."""
        stored = self.stored["ab".index(name)]
        return stored.load(f"{name}[({index}) / 4u]" if width == 4 else f"{name}[{index}]", width)


class _Loader(Staged):
    """The part that the four loaders share.

    Conditions are joined by `&`, as `&&` may become a branch.
    """

    def __init__(self, name: str, variant: ConvolutionVariant, along_k: bool) -> None:
        length = variant.tile.rows if name == "a" else variant.tile.columns
        super().__init__(name, length, along_k, variant.tile)
        self.variant = variant
        self.in_fours = variant.fours["ab".index(name)]

    def lanes(self) -> Iterator[str]:
        """Declare the positions of the lane's vec4s in the tile, and the variables to load."""
        n = self.name
        for i in range(self.loads):
            along, depth = self.place(i)
            yield f"let {n}_along{i} = {along};"
            yield f"let {n}_depth{i} = {depth};"
            yield f"var {n}_next{i} = vec4<f32>(0.0);"

    def four(self, index: str, inside: str) -> str:
        """Four adjacent elements at once; `index` is always safe to read."""
        value = self.variant.load(self.name, index, 4)
        return value if self.variant.is_whole else f"select(vec4<f32>(0.0), {value}, {inside})"

    def one(self, index: str, inside: str) -> str:
        """One element; 0 if it is outside, and the first element is read instead."""
        value = self.variant.load(self.name, f"select(0u, {index}, {inside})")
        return f"select(0.0, {value}, {inside})"

    def within(self, depth: str) -> str:
        """The test for the end of the depth, to append to another test."""
        return "" if self.variant.is_whole else f" & ({depth} < end)"

    def tap(self, number: str) -> tuple[str, str]:
        """How far down and right of tap 0 a tap is."""
        right = self.variant.kernel[1]
        if self.variant.area == 1:
            return "0u", "0u"
        return f"({number} / {right}u * k.gap_down)", f"({number} % {right}u * k.gap_right)"


class Weights(_Loader):
    """The weights of a map, in any order."""

    def __init__(self, variant: ConvolutionVariant) -> None:
        super().__init__("a", variant, along_k=True)

    def declare(self) -> Iterator[str]:
        """See `Staged`. Rows outside read another row: their results are not stored."""
        yield from self.lanes()
        for i in range(self.loads):
            yield f"let a_at{i} = base_a + min(first_a + a_along{i}, k.rows - 1u) * k.a_row;"

    def fetch(self, at: str) -> Iterator[str]:
        """See `Staged`."""
        for i in range(self.loads):
            depth = f"{at} + a_depth{i}"
            if self.in_fours:
                held = f"a_at{i} + min({depth}, k.depth - 4u)"
                yield f"a_next{i} = {self.four(held, f'{depth} < end')};"
                continue
            yield from self._first(i, at, depth)
            for c in range(1, 4):
                yield from self._following(f"{i}_{at}_{c - 1}", f"{i}_{at}_{c}")
            parts = (self._element(f"{i}_{at}_{c}", f"{depth} + {c}u") for c in range(4))
            yield f"a_next{i} = vec4<f32>({', '.join(parts)});"

    def _first(self, i: int, at: str, depth: str) -> Iterator[str]:
        """The position of the first of four weights, by divisions."""
        area, e = self.variant.area, f"{i}_{at}_0"
        yield f"let a_tap{e} = ({depth}) % {area}u;"
        yield f"let a_channel{e} = a_at{i} + ({depth}) / {area}u * k.a_channel;"

    def _following(self, before: str, now: str) -> Iterator[str]:
        """The position of the next one: the next tap, or the first of the next channel."""
        yield f"let a_is_first{now} = a_tap{before} == {self.variant.area - 1}u;"
        yield f"let a_tap{now} = select(a_tap{before} + 1u, 0u, a_is_first{now});"
        yield f"let a_channel{now} = a_channel{before} + select(0u, k.a_channel, a_is_first{now});"

    def _element(self, e: str, depth: str) -> str:
        index, right = f"a_channel{e}", self.variant.kernel[1]
        if self.variant.is_in_order:
            index += f" + a_tap{e}"
        elif self.variant.area > 1:
            index += f" + a_tap{e} / {right}u * k.a_down + a_tap{e} % {right}u * k.a_right"
        if self.variant.is_whole:
            return self.variant.load("a", index)
        return self.one(index, f"({depth} < end)")


class Pixels(_Loader):
    """The pixels that the taps of a map meet; places are adjacent."""

    def __init__(self, variant: ConvolutionVariant) -> None:
        super().__init__("b", variant, along_k=False)
        # Whether all loads of a lane are for the same places.
        self.is_shared = variant.tile.lanes % (self.length // 4) == 0

    def declare(self) -> Iterator[str]:
        """See `Staged`. The start of each place is computed before the first step."""
        yield from self.lanes()
        is_one = self.in_fours or self.variant.is_run
        for i in range(1 if self.is_shared else self.loads):
            for c in range(1 if is_one else 4):
                e = f"{i}_{c}"
                last = "4u" if is_one else "1u"
                yield f"let b_place{e} = min(first_b + b_along{i} + {c}u, k.columns - {last});"
                yield f"let b_image{e} = b_place{e} / k.places;"
                yield f"let b_rest{e} = b_place{e} - b_image{e} * k.places;"
                if self.in_fours:
                    yield f"let b_at{e} = base_b + b_image{e} * k.b_batch + b_rest{e};"
                    continue
                yield f"let b_y{e} = b_rest{e} / k.across;"
                yield f"let b_row{e} = b_y{e} * k.step_down + k.first_down;"
                yield (f"let b_column{e} = (b_rest{e} - b_y{e} * k.across) * k.step_right"
                       " + k.first_right;")  # fmt: skip
                yield (f"let b_at{e} = base_b + b_image{e} * k.b_batch + b_row{e} * k.width"
                       f" + b_column{e};")  # fmt: skip

    def fetch(self, at: str) -> Iterator[str]:
        """See `Staged`."""
        for i in range(self.loads):
            depth = f"b_k{i}_{at}"
            yield f"let {depth} = {at} + b_depth{i};"
            if self.in_fours:
                pixel = 0 if self.is_shared else i
                held = f"b_at{pixel}_0 + min({depth}, k.depth - 1u) * k.height * k.width"
                yield f"b_next{i} = {self.four(held, f'{depth} < end')};"
            else:
                yield from self._taps(i, at, depth)

    def _taps(self, i: int, at: str, depth: str) -> Iterator[str]:
        area = self.variant.area
        down, right = self.tap(f"({depth} % {area}u)")
        name = f"{i}_{at}"
        yield f"let b_down{name} = {down};"
        yield f"let b_right{name} = {right};"
        yield (f"let b_off{name} = {depth} / {area}u * k.height * k.width + b_down{name} * k.width"
               f" + b_right{name};")  # fmt: skip
        pixel = "0" if self.is_shared else str(i)
        if self.variant.is_run:
            inside = f"{self._row_inside(f'{pixel}_0', name)}{self.within(depth)}"
            yield f"let b_in{name} = {inside};"
        parts = []
        for c in range(4):
            e, more, row = f"{pixel}_0", f" + {c}u * k.step_right", f"b_in{name}"
            if not self.variant.is_run:
                e, more = f"{pixel}_{c}", ""
                row = f"{self._row_inside(e, name)}{self.within(depth)}"
            inside = f"(b_column{e} + b_right{name}{more} < k.width)"
            yield f"let b_ok{name}_{c} = {row} & {inside};"
            parts.append(self.one(f"b_at{e} + b_off{name}{more}", f"b_ok{name}_{c}"))
        yield f"b_next{i} = vec4<f32>({', '.join(parts)});"

    def _row_inside(self, e: str, name: str) -> str:
        return f"(b_row{e} + b_down{name} < k.height)"


class _Places(_Loader):
    """An operand whose depth is the places.

    All vec4s of a lane are at the same depth, in both operands, so that the place is computed once
    per step.
    """

    def __init__(self, name: str, variant: ConvolutionVariant) -> None:
        super().__init__(name, variant, along_k=True)

    def place(self, number: int) -> tuple[str, str]:
        """See `Staged`. Two lanes read 32 bytes of a row: 8 steps."""
        lanes = self.tile.lanes * 8 // self.tile.depth
        along = f"local % {lanes}u / 2u + {number * lanes // 2}u"
        return along, f"local / {lanes}u * 8u + local % 2u * 4u"


class Gradients(_Places):
    """The gradient of the result, an operand of the weight's gradient."""

    def __init__(self, variant: ConvolutionVariant) -> None:
        super().__init__("a", variant)

    def declare(self) -> Iterator[str]:
        """See `Staged`."""
        yield from self.lanes()
        for i in range(self.loads):
            yield f"let a_at{i} = base_a + min(first_a + a_along{i}, k.rows - 1u) * k.places;"

    def fetch(self, at: str) -> Iterator[str]:
        """See `Staged`."""
        yield from self._place(at)
        for i in range(self.loads):
            if self.in_fours:
                index = f"a_at{i} + image{at}_0 * k.a_batch + place{at}_0"
                yield f"a_next{i} = {self.four(index, f'inside{at}_0')};"
                continue
            parts = (self._element(i, f"{at}_{c}") for c in range(4))
            yield f"a_next{i} = vec4<f32>({', '.join(parts)});"

    def _element(self, i: int, e: str) -> str:
        index = f"a_at{i} + image{e} * k.a_batch + place{e}"
        if self.variant.is_whole:
            return self.variant.load("a", index)
        return self.one(index, f"inside{e}")

    def _place(self, at: str) -> Iterator[str]:
        """The four places of this step: the first by division, the others by counting on."""
        fours = self.variant.is_run or self.variant.fours[1]
        yield f"let depth{at} = {at} + a_depth0;"
        yield f"let held{at} = min(depth{at}, k.depth - {4 if fours else 1}u);"
        yield f"let image{at}_0 = held{at} / k.places;"
        yield f"let place{at}_0 = held{at} - image{at}_0 * k.places;"
        yield f"let y{at}_0 = place{at}_0 / k.across;"
        yield f"let x{at}_0 = place{at}_0 - y{at}_0 * k.across;"
        for c in range(4):
            yield f"let inside{at}_{c} = depth{at} + {c}u < end;"
            if c and fours:
                yield f"let image{at}_{c} = image{at}_0;"
                yield f"let place{at}_{c} = place{at}_0 + {c}u;"
            elif c:
                yield from _following(at, f"{at}_{c - 1}", f"{at}_{c}")


def _following(at: str, before: str, now: str) -> Iterator[str]:
    """The place after another, which may be in the next row or the next image."""
    yield f"let is_row{now} = x{before} + 1u == k.across;"
    yield f"let is_image{now} = place{before} + 1u == k.places;"
    yield f"let x{now} = select(x{before} + 1u, 0u, is_row{now});"
    yield f"let y{now} = select(y{before} + u32(is_row{now}), 0u, is_image{now});"
    yield f"let place{now} = select(place{before} + 1u, 0u, is_image{now});"
    yield f"let image{now} = image{before} + u32(is_image{now});"


class Taps(_Places):
    """The pixels that taps meet; a column is one tap of one channel."""

    def __init__(self, variant: ConvolutionVariant) -> None:
        super().__init__("b", variant)

    def declare(self) -> Iterator[str]:
        """See `Staged`. The tap of each column is computed before the first step."""
        yield from self.lanes()
        area = self.variant.area
        for i in range(self.loads):
            yield f"let b_column{i} = min(first_b + b_along{i}, k.columns - 1u);"
            down, right = self.tap(f"(b_column{i} % {area}u)")
            yield f"let b_down{i} = {down} + k.first_down;"
            yield f"let b_right{i} = {right} + k.first_right;"
            yield (f"let b_at{i} = base_b + b_column{i} / {area}u * k.height * k.width"
                   f" + b_down{i} * k.width + b_right{i};")  # fmt: skip

    def fetch(self, at: str) -> Iterator[str]:
        """See `Staged`."""
        if self.in_fours:
            for i in range(self.loads):
                index = f"b_at{i} + image{at}_0 * k.b_batch + place{at}_0"
                yield f"b_next{i} = {self.four(index, f'inside{at}_0')};"
            return
        for c in range(4):
            e = f"{at}_{c}"
            is_first = c == 0 or not self.variant.is_run
            yield f"let down{e} = " + (f"y{e} * k.step_down;" if is_first else f"down{at}_0;")
            yield f"let right{e} = " + (
                f"x{e} * k.step_right;" if is_first else f"right{at}_0 + {c}u * k.step_right;"
            )
            yield f"let from{e} = image{e} * k.b_batch + down{e} * k.width + right{e};"
        for i in range(self.loads):
            parts = []
            for c in range(4):
                e, ok = f"{at}_{c}", f"b_ok{i}_{at}_{c}"
                tail = "" if self.variant.is_whole else f" & inside{e}"
                yield (f"let {ok} = (down{e} + b_down{i} < k.height)"
                       f" & (right{e} + b_right{i} < k.width){tail};")  # fmt: skip
                parts.append(self.one(f"b_at{i} + from{e}", ok))
            yield f"b_next{i} = vec4<f32>({', '.join(parts)});"
