"""The last axes of an input, over which layers such as `LayerNorm` normalize."""

from __future__ import annotations

import math
from collections.abc import Callable

from rumus.tensor import Tensor
from rumus.tensor.memory.window import as_sizes


def checked_axes(normalized_shape: int | tuple[int, ...]) -> tuple[int, ...]:
    """Return the lengths of the last axes. ValueError for none, or for an empty axis."""
    shape = as_sizes("normalized_shape", normalized_shape, 1)
    if not shape or min(shape) < 1:
        raise ValueError(f"normalized_shape needs lengths of at least 1, not {shape}")
    return shape


def over_last_axes(
    layer: str,
    x: Tensor,
    shape: tuple[int, ...],
    parameters: tuple[Tensor | None, ...],
    eps: float,
    function: Callable[..., Tensor],
) -> Tensor:
    """Apply a function of rows, parameters and eps to an input whose last axes are `shape`.

    ValueError for other axes, TypeError for an input that is not floating.
    """
    if x.shape[-len(shape) :] != shape:
        raise ValueError(f"{layer} over {shape}: the last axes of {x.shape} differ")
    if x.dtype.kind != "f":
        raise TypeError(f"{layer}: the input must be floating, not {x.dtype}")
    if len(shape) == 1:
        return function(x, *parameters, eps)
    rows = x.reshape(*x.shape[: -len(shape)], math.prod(shape))
    flat = [None if p is None else p.reshape(-1) for p in parameters]
    return function(rows, *flat, eps).reshape(*x.shape)
