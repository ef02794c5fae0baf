"""Checks before compiled loops start: loops check no bounds and ignore strides."""

from __future__ import annotations

from typing import TypeAlias

from rumus.tensor.expression.dtype import float32
from rumus.tensor.memory.backend import Array, Shape

Needed: TypeAlias = tuple[Array | None, Shape]  # an array, or None, and the shape it needs


def reads(operation: str, **needed: Needed) -> None:
    """Raise ValueError unless the named arrays have the shapes that a loop needs."""
    for name, (array, shape) in needed.items():
        if array is not None and array.shape != shape:
            raise ValueError(
                f"{operation}: expected {name} of shape {shape}, got {tuple(array.shape)}"
            )


def writes(operation: str, **needed: Needed) -> None:
    """Raise ValueError like `reads`, and for a non-contiguous array: a copy would be written."""
    reads(operation, **needed)
    for name, (array, _) in needed.items():
        if array is not None and not array.flags.c_contiguous:
            raise ValueError(f"{operation}: {name} must be contiguous to be written")


def in_float32(operation: str, *arrays: Array | None) -> None:
    """Raise TypeError unless all arrays are float32: a loop knows only their addresses."""
    for array in arrays:
        if array is not None and array.dtype != float32:
            raise TypeError(f"{operation}: expected float32, got {array.dtype}")
