"""The main loop of the generated products, independent of their loaders.

Tiles of both operands pass through workgroup memory, with k as the first axis: while one pair is
multiplied, the next is loaded into registers. Workgroup memory is scarce (under some drivers all
workgroups on a multiprocessor share 48 KiB), so there is one pair of tiles rather than two: several
workgroups that wait in turn beat one that never waits. For the same reason tiles are 16 steps deep.
Loops are unrolled: short loops cost a quarter of the speed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from rumus.gpu.products.entry import entry, workgroup_number
from rumus.gpu.products.tiling import PAD, Tile, Tiled


class Staged(ABC):
    """The text that loads tiles of one operand into workgroup memory, with k as the first axis."""

    def __init__(self, name: str, length: int, along_k: bool, tile: Tiled) -> None:
        self.name, self.length, self.along_k, self.tile = name, length, along_k, tile
        self.line = (length + PAD) // 4  # vec4s of workgroup memory for one k
        self.loads = -(-length * tile.depth // 4 // tile.lanes)

    @property
    def memory(self) -> str:
        """The declaration of its workgroup memory."""
        length = self.tile.depth * self.line
        return f"var<workgroup> tile_{self.name}: array<vec4<f32>, {length}>;"

    @property
    def step(self) -> int | None:
        """The lines from one vec4 of a lane to its next, or None if it differs between lanes.

        A line is a row of a or column of b if the operand is dense along k, otherwise a step of k.
        """
        return None if self.tile.lanes % self._fours else self.tile.lanes // self._fours

    @property
    def _fours(self) -> int:
        """The vec4s of a line."""
        return (self.tile.depth if self.along_k else self.length) // 4

    def lanes_of(self, number: int) -> int | None:
        """The number of lanes that have a vec4 `number`, or None if all do."""
        left = self.length * self.tile.depth // 4 - number * self.tile.lanes
        return left if left < self.tile.lanes else None

    def place(self, number: int) -> tuple[str, str]:
        """The start of the lane's vec4 `number`: along the edge of the tile, and along k."""
        if self.step is None:
            vector = f"(local + {number * self.tile.lanes}u)"
            far, near = f"{vector} / {self._fours}u", f"{vector} % {self._fours}u * 4u"
        else:
            far, near = f"local / {self._fours}u", f"local % {self._fours}u * 4u"
            far += f" + {number * self.step}u" if number else ""
        if self.lanes_of(number) is not None:
            last = (self.length if self.along_k else self.tile.depth) - 1
            far = f"min({far}, {last}u)"
        return (far, near) if self.along_k else (near, far)

    @abstractmethod
    def declare(self) -> Iterator[str]:
        """Declare the lane's positions in the operand, and the variables that it loads."""

    @abstractmethod
    def fetch(self, at: str) -> Iterator[str]:
        """Load the tile that starts at k = `at` into the variables."""

    def keep(self) -> Iterator[str]:
        """Write the variables to workgroup memory."""
        n = self.name
        for i in range(self.loads):
            assert self.lanes_of(i) is None
            if self.along_k:
                for c, part in enumerate("xyzw"):
                    row = f"({n}_depth{i} + {c}u) * {self.line}u + {n}_along{i} / 4u"
                    yield f"tile_{n}[{row}][{n}_along{i} % 4u] = {n}_next{i}.{part};"
            else:
                row = f"{n}_depth{i} * {self.line}u + {n}_along{i} / 4u"
                yield f"tile_{n}[{row}] = {n}_next{i};"


def opening(tile: Tiled, *memory: str) -> Iterator[str]:
    """The start of a kernel, up to its workgroup's number, `linear`, out of `k.groups`.

    memory: the declarations of its workgroup memory.
    """
    yield from memory
    yield from entry(tile.lanes)
    yield from workgroup_number()


def product(tile: Tile, a: Staged, b: Staged, has_sums: bool = False) -> Iterator[str]:
    """Add up the products from k = `begin` to `end`; c{i}_{j} has four sums of row i.

    has_sums: if `sums_up` is true, also add up the rows of a; total0 has the sum of row `local`.
    """
    summed = summed_rows(tile) if has_sums else []
    yield from (f"var {total} = 0.0;" for total, _ in summed)
    yield from a.declare()
    yield from b.declare()
    for i in range(tile.block_rows):
        for j in range(tile.block_columns // 4):
            yield f"var c{i}_{j} = vec4<f32>(0.0);"
    yield from (*a.fetch("begin"), *b.fetch("begin"), *a.keep(), *b.keep())
    yield "workgroupBarrier();"
    # The last step needlessly fetches its own tile again: a branch around the loads costs a tenth
    # of the speed.
    yield f"let last = begin + (end - begin - 1u) / {tile.depth}u * {tile.depth}u;"
    yield f"for (var at = begin; at < end; at += {tile.depth}u) {{"
    yield f"let next = min(at + {tile.depth}u, last);"
    yield from (*a.fetch("next"), *b.fetch("next"))
    yield "{"
    yield from _multiply(tile, a, b)
    yield "}"
    for total, row in summed:
        lines = (f"tile_a[{s * a.line}u + {row} / 4u]" for s in range(tile.depth))
        yield f"if (sums_up && {row} < {tile.rows}u) {{"
        yield f"{total} += ({' + '.join(lines)})[local % 4u];"
        yield "}"
    yield "workgroupBarrier();"
    yield from (*a.keep(), *b.keep())
    yield "workgroupBarrier();"
    yield "}"


def summed_rows(tile: Tiled) -> list[tuple[str, str]]:
    """The rows of a tile that a lane adds up: the variable, and the row."""
    count = -(-tile.rows // tile.lanes)
    return [(f"total{i}", f"(local + {i * tile.lanes}u)") for i in range(count)]


def _multiply(tile: Tile, a: Staged, b: Staged) -> Iterator[str]:
    """The products of one pair of tiles, unrolled."""
    across, down = tile.columns // tile.block_columns, tile.rows // tile.block_rows
    for s in range(tile.depth):
        for r in range(tile.block_rows // 4):
            yield f"let a{s}_{r} = tile_a[y + {s * a.line + r * down}u];"
        for j in range(tile.block_columns // 4):
            yield f"let b{s}_{j} = tile_b[x + {s * b.line + j * across}u];"
        for i in range(tile.block_rows):
            for j in range(tile.block_columns // 4):
                yield f"c{i}_{j} += a{s}_{i // 4}.{'xyzw'[i % 4]} * b{s}_{j};"
