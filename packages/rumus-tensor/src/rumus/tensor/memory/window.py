"""`Window`: how a convolution kernel or a pool slides over the spatial axes of an input."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from rumus.tensor.expression.declared_type import is_ordered, shown
from rumus.tensor.expression.whole_number import whole_number
from rumus.tensor.memory.backend import Shape

Sizes: TypeAlias = "int | Sequence[int]"


@dataclass(frozen=True, slots=True)
class Window:
    """For each spatial axis: the kernel size, stride, padding and dilation."""

    kernel: Shape
    stride: Shape
    padding: Shape
    dilation: Shape

    @property
    def axes(self) -> int:
        """The number of spatial axes."""
        return len(self.kernel)

    @property
    def area(self) -> int:
        """The number of elements in the kernel."""
        return math.prod(self.kernel)

    def padded(self, lengths: Shape) -> Shape:
        """Return the lengths including padding on both sides."""
        return tuple(n + 2 * p for n, p in zip(lengths, self.padding, strict=True))

    def places(self, lengths: Shape) -> Shape:
        """Return the number of kernel positions along each axis of an input of these lengths."""
        spans = ((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))
        rows = zip(self.padded(lengths), spans, self.stride, strict=True)
        return tuple((n - span) // s + 1 if n >= span else 0 for n, span, s in rows)

    def interior(self, lengths: Shape) -> tuple[slice, ...]:
        """Return the slices of the input within the padded input."""
        return tuple(slice(p, p + n) for n, p in zip(lengths, self.padding, strict=True))

    def views(self, places: Shape) -> Iterator[tuple[Shape, tuple[slice, ...]]]:
        """Iterate over the kernel's elements, with the part of the padded input that each meets."""
        for at in itertools.product(*map(range, self.kernel)):
            rows = zip(at, self.dilation, self.stride, places, strict=True)
            yield at, tuple(slice(i * d, i * d + (n - 1) * s + 1, s) for i, d, s, n in rows)


def window(
    operation: str,
    lengths: Shape,
    kernel: Sizes,
    stride: Sizes | None,
    padding: Sizes,
    dilation: Sizes = 1,
) -> Window:
    """Return the window over an input of these lengths; a single number applies to every axis.

    stride: None for the kernel size. ValueError for invalid sizes, and for a kernel larger than the
        padded input.
    """
    axes = len(lengths)
    given = {
        "kernel": kernel,
        "stride": kernel if stride is None else stride,
        "padding": padding,
        "dilation": dilation,
    }
    sizes = {name: each_axis(f"{operation}: {name}", size, axes) for name, size in given.items()}
    for name, lowest in (("kernel", 1), ("stride", 1), ("padding", 0), ("dilation", 1)):
        if min(sizes[name]) < lowest:
            raise ValueError(f"{operation}: {name} must be at least {lowest}, not {sizes[name]}")
    found = Window(sizes["kernel"], sizes["stride"], sizes["padding"], sizes["dilation"])
    if 0 in found.places(lengths):
        raise ValueError(
            f"{operation}: a kernel of {found.kernel} (dilation {found.dilation}) is larger than "
            f"the padded input {found.padded(lengths)}"
        )
    return found


def each_axis(name: str, size: Sizes, axes: int) -> Shape:
    """Return a size for each axis; ValueError for a wrong number of them."""
    sizes = as_sizes(name, size, axes)
    if len(sizes) != axes:
        raise ValueError(f"{name} needs a number, or one for each of {axes} axes, not {size}")
    return sizes


def as_sizes(name: str, size: Sizes, axes: int) -> Shape:
    """Return a single number `axes` times, or all of several; TypeError for what are none."""
    if isinstance(size, (int, np.integer)):
        return (int(size),) * axes
    given: object = size
    if getattr(given, "ndim", 1) == 0:
        return (whole_number(name, given),) * axes
    if not is_ordered(given) or not isinstance(given, Sized):  # an iterator is used up by one
        raise TypeError(f"{name} must be whole numbers, not {shown(given)}")
    return tuple([whole_number(name, n) for n in given])


def part_bounds(parts: int, length: int) -> list[tuple[int, int]]:
    """Return the start and end of each part of an axis; they overlap where they are not even.

    parts: their number.
    length: of the axis.
    """
    return [(i * length // parts, -(-(i + 1) * length // parts)) for i in range(parts)]
