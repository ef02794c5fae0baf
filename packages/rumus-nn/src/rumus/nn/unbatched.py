"""Inputs without a batch axis, which spatial layers accept."""

from __future__ import annotations

from collections.abc import Callable

from rumus.tensor import Tensor

_NAMES = {1: "length", 2: "height, width", 3: "depth, height, width"}


def of_batch(layer: str, x: Tensor, axes: int, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a function of (batch, channels, *lengths) to such an input, or to (channels, *lengths).

    ValueError for any other number of axes.
    """
    if x.ndim == axes + 1:
        return function(x.unsqueeze(0)).squeeze(0)
    if x.ndim != axes + 2:
        raise ValueError(
            f"{layer}: expected (batch, channels, {_NAMES[axes]}), or one example without the "
            f"batch, got {x.shape}"
        )
    return function(x)
