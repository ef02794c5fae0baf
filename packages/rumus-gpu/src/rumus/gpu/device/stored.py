"""How each dtype is stored in device memory, and how WGSL reads and writes it.

float32 and int32 are stored as they are. A boolean is a whole word, 0 or 1, so that any element of
any view has one writer. float16 takes two bytes if the device has 16-bit floats; otherwise it is a
float32, rounded to float16 on each write.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import numpy as np

from rumus.tensor import DType, bool_, float16, float32, int32

Kind: TypeAlias = Literal["f", "i", "b"]  # the type of a value inside a kernel

VALUE: Final[dict[Kind, str]] = {"f": "f32", "i": "i32", "b": "bool"}


@dataclass(frozen=True, slots=True)
class Stored:
    """One dtype on one device."""

    name: str
    dtype: DType
    memory: DType  # NumPy's dtype of the bytes on the device
    kind: Kind
    wgsl: str  # the type of one element
    itemsize: int = field(init=False, compare=False)  # the bytes of one element

    def __post_init__(self) -> None:
        object.__setattr__(self, "itemsize", int(self.memory.itemsize))

    def load(self, text: str, width: int) -> str:
        """Return the expression for the value of a stored element, or of a vector of `width`."""
        if self.name == "f16":
            return f"{vector('f32', width)}({text})"
        return f"({text} != {vector('u32', width)}(0u))" if self.kind == "b" else text

    def writer(self, width: int = 1) -> str:
        """Return the WGSL function `stored`, which converts float32 values to their stored form.

        width: 1 for single values, 4 for vectors.
        """
        result, value = vector(self.wgsl, width), vector("f32", width)
        return f"fn stored(x: {value}) -> {result} {{\n    return {self.store('x', width)};\n}}\n"

    def store(self, text: str, width: int) -> str:
        """Return the expression for the stored form of a value of this kind."""
        if self.name == "f16":
            return f"{vector('f16', width)}({text})"
        if self.name == "rounded":
            return f"{'rounded' if width == 1 else 'rounded4'}({text})"
        if self.kind == "b":
            ones = f"{vector('u32', width)}(1u)"
            return f"select({vector('u32', width)}(0u), {ones}, {text})"
        return text


FLOAT32: Final = Stored("f32", float32, float32, "f", "f32")


def vector(element: str, width: int) -> str:
    """Return the WGSL type of `width` elements.

    >>> vector("f32", 4), vector("f32", 1)
    ('vec4<f32>', 'f32')
    """
    return element if width == 1 else f"vec{width}<{element}>"


def enabling(*stored: Stored | None) -> str:
    """Return the directives of a program that reads or writes these."""
    return "enable f16;\n" if any(each and each.wgsl == "f16" for each in stored) else ""


def in_fours(*numbers: int) -> bool:
    """Return whether an array with this start and these strides can be read four at a time."""
    return not any(number % 4 for number in numbers)


def converted(text: str, source: Kind, target: Kind, width: int = 4) -> str:
    """Return the expression for a value of one kind as another, with NumPy's meaning."""
    if source == target:
        return text
    number = vector(VALUE[target], width)
    if target == "b":
        # By the bits: a comparison may take NaN for 0.
        bits = f"(bitcast<{vector('u32', width)}>({text}) & {vector('u32', width)}(0x7fffffffu))"
        tested = bits if source == "f" else text
        zero = f"{vector('u32' if source == 'f' else 'i32', width)}(0)"
        return f"({tested} != {zero})"
    if source == "b":
        return f"select({number}(0), {number}(1), {text})"
    if target == "i":
        return f"{'integer_of' if width == 1 else 'integers_of'}({text})"
    return f"{number}({text})"


def stored_types(has_half: bool) -> dict[DType, Stored]:
    """Return how a device stores each dtype. has_half: it has 16-bit floats."""
    half = (
        Stored("f16", float16, float16, "f", "f16")
        if has_half
        else Stored("rounded", float16, float32, "f", "f32")
    )
    return {
        float32: FLOAT32,
        float16: half,
        int32: Stored("i32", int32, int32, "i", "i32"),
        bool_: Stored("bool", bool_, np.dtype(np.uint32), "b", "u32"),
    }
