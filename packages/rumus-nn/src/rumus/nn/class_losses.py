"""Checks of class losses: targets that are classes, and weights of classes."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rumus.nn.reduction import is_readable
from rumus.tensor import Tensor, TensorLike, float16, float32, tensor
from rumus.tensor.expression.declared_type import shown
from rumus.tensor.expression.whole_number import whole_number
from rumus.tensor.graph.indexing import may_hold
from rumus.tensor.memory.recording import ask_host

Share: TypeAlias = Literal["all", "some", "none"]  # of the targets that are not ignored


def class_weights(loss: str, logits: Tensor, weight: TensorLike, classes: int) -> Tensor:
    """Return the class weights on the logits' backend, in the dtype of losses.

    ValueError for another number of them, and for one that is negative or not finite, with its
    class; a tensor on a GPU is not looked at. TypeError for what is not of numbers.
    """
    dtype = float32 if logits.dtype == float16 else logits.dtype
    host = weight if isinstance(weight, Tensor) else np.asarray(weight)
    if host.dtype.kind not in "fiu":
        raise TypeError(
            f"{loss}: class weights must be numbers, one for each class in order, not "
            f"{shown(weight)}"
        )
    if host.shape != (classes,):
        raise ValueError(
            f"{loss}: expected {classes} class weights, one for each class, got {host.shape}"
        )
    if isinstance(host, Tensor):
        if is_readable(host):
            ask_host(partial(_check_weights, loss), [host._array])
        return host.detach().astype(dtype)
    _check_weights(loss, host)
    return tensor(host, dtype=dtype, backend=logits.backend)


def _check_weights(loss: str, weights: NDArray[Any]) -> None:
    bad = ~(np.isfinite(weights) & (weights >= 0))
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"{loss}: the weight of class {at} is {weights[at]}; weights are finite and not "
            "negative"
        )


def count_classes(
    loss: str,
    logits: Tensor,
    targets: Tensor | NDArray[Any],
    classes: int,
    ignore_index: int | None,
) -> int | None:
    """How many targets are not ignored if that is all or none of them, else None.

    Of the others nobody asks how many they are: it is another number for each batch, and a captured
    step is repeated only with batches that give the same answers. None as well where only the
    device knows. IndexError for the first one out of range, with its place; on a GPU no tensor is
    looked at.
    ignore_index: None if all are meant.
    """
    if ignore_index is not None:
        ignore_index = whole_number(f"{loss}: ignore_index", ignore_index)
    share = partial(_share, loss, classes=classes, ignore_index=ignore_index)
    if isinstance(targets, np.ndarray):
        found = share(targets)
    elif is_readable(logits) and is_readable(targets):
        found = ask_host(share, [targets._array])
    else:
        is_possible = ignore_index is not None and may_hold(targets, ignore_index)
        found = "some" if is_possible else "all"
    return {"all": targets.size, "some": None, "none": 0}[found]


def _share(loss: str, targets: NDArray[Any], classes: int, ignore_index: int | None) -> Share:
    is_apart = ignore_index is None or ignore_index < 0 or ignore_index >= classes
    if is_apart and targets.size and targets.dtype.kind == "i" and targets.dtype.isnative:
        # As nearly always: one pass, not nine. Without a sign, negative numbers are the largest.
        unsigned = targets.view(f"u{targets.itemsize}")
        if unsigned.item(unsigned.argmax()) < classes:
            return "all"
    counted = np.ones(targets.shape, bool) if ignore_index is None else targets != ignore_index
    wrong = counted & ((targets < 0) | (targets >= classes))
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0].tolist())
        also = "" if ignore_index is None else f", and is not ignore_index ({ignore_index})"
        raise IndexError(
            f"{loss}: target {targets[at]} at index {at} is outside [0, {classes}){also}"
        )
    if counted.all():
        return "all"
    return "some" if counted.any() else "none"
