"""Padding with the tensor's own elements: reflected, repeated, or wrapped around."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.choice import check_choice
from rumus.tensor.graph import shaping
from rumus.tensor.graph.tensor import Tensor

PaddingMode: TypeAlias = Literal["zeros", "reflect", "replicate", "circular"]
MODES: Final = ("zeros", "reflect", "replicate", "circular")


@checked_arguments
def pad_edges(x: Tensor, widths: Sequence[tuple[int, int]], mode: PaddingMode) -> Tensor:
    """Pad `x` with its own elements.

    x: of any dtype.
    widths: the number of elements before and after each axis.
    mode: "reflect" without repeating the edge, "replicate" the edge, "circular" from the other end;
        "zeros" is `pad`.

    ValueError for an unknown mode, another number of axes, and for a width that is negative or
    needs more elements than an axis has.

    >>> from rumus.tensor import pad_edges, tensor
    >>> pad_edges(tensor([1, 2, 3]), [(2, 1)], "reflect").tolist()
    [3, 2, 1, 2, 3, 2]
    """
    check_choice("pad_edges: mode", mode, MODES)
    if mode == "zeros":
        return shaping.pad(x, widths)
    widths = shaping.pairs_of_widths("pad_edges", widths, x.ndim)
    for axis, pair in enumerate(widths):
        if any(pair):
            x = _pad_axis(x, axis, pair, mode)
    return x


def _pad_axis(x: Tensor, axis: int, pair: tuple[int, int], mode: PaddingMode) -> Tensor:
    length, (before, after) = x.shape[axis], pair
    most = {"reflect": length - 1, "circular": length, "replicate": max(pair) if length else 0}
    if max(pair) > most[mode]:
        raise ValueError(
            f"pad_edges: {mode} by {pair} needs more than the {length} elements along axis {axis}"
        )
    head = (slice(None),) * axis

    def part(cut: slice) -> Tensor:
        return x[(*head, cut)]

    if mode == "reflect":
        left = part(slice(1, before + 1))[(*head, slice(None, None, -1))]
        right = part(slice(length - 1 - after, length - 1))[(*head, slice(None, None, -1))]
    elif mode == "circular":
        left, right = part(slice(length - before, length)), part(slice(0, after))
    else:
        shapes = [(*x.shape[:axis], n, *x.shape[axis + 1 :]) for n in pair]
        left = part(slice(0, 1)).broadcast_to(shapes[0])
        right = part(slice(length - 1, length)).broadcast_to(shapes[1])
    return shaping.concat([left, x, right], axis)
