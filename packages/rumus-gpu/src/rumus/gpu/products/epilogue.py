"""Epilogues: operations on a product's elements before they are written, as part of its text.

Products differ in how they compute an element. The rest is the same for all: add the bias, apply
the epilogue, write.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from rumus.gpu.device.array import GPUArray
from rumus.gpu.device.limits import DeviceLimits
from rumus.gpu.device.pipelines import SLOT
from rumus.gpu.device.stored import Stored, vector
from rumus.gpu.elementwise.wgsl import epilogue_function
from rumus.tensor import Kernel, float32
from rumus.tensor.memory.backend import Epilogue

_PRODUCT: Final = 7  # the buffers of a product with a bias, sums and exponents
_SCALARS: Final = 104  # maximum bytes of a product's own scalars


@dataclass(frozen=True, slots=True)
class Finish:
    """The text of one epilogue. Equal for equal mathematics, so it can be part of a key.

    function: `finished`, which maps four elements. members: its scalars in `k`. inputs: how many
    arrays are read. outputs: the arrays written, in the order of the results; "c" is the product.
    stored: how all of these are stored.
    """

    function: str
    members: tuple[str, ...]
    inputs: int
    outputs: tuple[str, ...]
    stored: Stored

    @property
    def access(self) -> str:
        """The access to the bindings that the epilogue adds."""
        return "r" * self.inputs + "w" * (len(self.outputs) - ("c" in self.outputs))

    def declare(self, first: int, width: int) -> Iterator[str]:
        """Declare the epilogue's bindings, from number `first` on."""
        element = vector(self.stored.wgsl, width)
        names = [f"given{number}" for number in range(self.inputs)]
        names += [name for name in self.outputs if name != "c"]
        for number, (name, letter) in enumerate(zip(names, self.access, strict=True), first):
            mode = "read_write" if letter == "w" else "read"
            yield f"@group(0) @binding({number}) var<storage, {mode}> {name}: array<{element}>;"

    def given(self, at: str, in_fours: bool) -> list[str]:
        """What it reads at a position of its own arrays: one element of each, or four."""
        place, width = (f"({at}) / 4u", 4) if in_fours else (at, 1)
        arrays = (f"given{number}[{place}]" for number in range(self.inputs))
        return [self.stored.load(each, width) for each in arrays]

    def store(
        self, at: str, product_at: str, value: str, given: Sequence[str], in_fours: bool
    ) -> Iterator[str]:
        """Finish elements and write them.

        at: their position in the epilogue's own arrays. given: what it reads there.
        """
        place, part, width = (f"({at}) / 4u", "", 4) if in_fours else (at, ".x", 1)
        values = [value, *given]
        if not in_fours:
            values = [f"vec4<f32>({each})" for each in values]
        yield "{"
        yield f"let done = finished({', '.join(values)});"
        if "c" not in self.outputs:
            yield f"c[{product_at}] = {self.stored.store(value, width)};"
        for number, name in enumerate(self.outputs):
            where = product_at if name == "c" else place
            yield f"{name}[{where}] = {self.stored.store(f'done.r{number}{part}', width)};"
        yield "}"


@lru_cache(maxsize=256)
def finish_of(kernel: Kernel, stored: Stored) -> Finish:
    """Return the text of an epilogue's kernel over arrays that are stored like the product."""
    function, members = epilogue_function(kernel)
    product, *others = kernel.arrays
    outputs = tuple(
        "c" if name == product else f"also{number}" for number, name in enumerate(kernel.outputs)
    )
    return Finish(function, members, len(others), outputs, stored)


def fits(
    limits: DeviceLimits, epilogue: Epilogue, operands: Sequence[GPUArray], out: GPUArray
) -> bool:
    """Whether a product can include its epilogue: all arrays have the result's layout and dtype.

    operands: the arrays that the product reads.
    """
    kernel, written = epilogue.kernel, [out, *epilogue.out]
    arrays = (*epilogue.arrays, *epilogue.out)
    types = kernel.types((out.dtype,) * len(kernel.arrays))
    read = {array.storage for array in (*operands, *epilogue.arrays)}
    return (
        all(array.stored.name in ("f32", "f16") for array in (*operands, out))
        and all(array.dtype == out.dtype for array in arrays)
        and types.compute == float32
        and all(dtype == out.dtype for dtype in types.results)
        and all(array.shape == out.shape and array.is_flat for array in arrays)
        and not any(array.storage in read for array in written)
        and _PRODUCT + len(arrays) <= limits.bindings
        and _SCALARS + 4 * len(kernel.uniforms) <= SLOT
    )
