"""`ctc_loss`: for sequences with unaligned labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rumus.nn.lengths import Lengths, check_lengths
from rumus.nn.loss_input import OF_LOGARITHMS, check_input
from rumus.nn.reduction import (
    Found,
    Reduction,
    as_integers,
    check_floating,
    check_reduction,
    is_readable,
    widened,
)
from rumus.tensor import Tensor, TensorLike
from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.whole_number import whole_number
from rumus.tensor.graph.tensor import backend_of
from rumus.tensor.operations.ctc import ctc

NAME = "ctc_loss"


@checked_arguments
def ctc_loss(
    log_probabilities: Tensor,
    targets: TensorLike,
    *,
    input_lengths: Lengths | None = None,
    target_lengths: Lengths | None = None,
    blank: int = 0,
    zero_infinity: bool = False,
    reduction: Reduction = "mean",
    sample_weight: TensorLike | None = None,
) -> Tensor:
    """-log of the total probability of all paths that spell the targets, with blanks between.

    Graves, Fernandez, Gomez, Schmidhuber: "Connectionist temporal classification", 2006.

    log_probabilities: (batch, length, classes), floating, as `x.log_softmax()`.
    targets: (batch, most labels), integers in [0, classes) other than the blank; entries beyond a
        sample's length are ignored.
    input_lengths: (batch,), the number of steps of each sample, at least 1; by default all.
    target_lengths: (batch,), the number of labels of each, which may be 0; by default all.
    blank: the class between labels.
    zero_infinity: samples whose targets do not fit into their steps have loss 0, rather than
        raising an error, or an infinite loss if the labels are on a GPU.
    reduction: "mean", which divides each loss by the number of its labels first, as PyTorch does;
        "sum"; or "none" for one number per sample.
    sample_weight: (batch,), as in `mse_loss`.

    ValueError for a target longer than its input, counting an extra step between equal labels; for
    lengths out of range, shapes that do not fit, a blank that is not a class, a mean of nothing.
    IndexError for a label that is not a class or is the blank, with its position. Tensors on a GPU
    are not checked.

    >>> from rumus.nn import ctc_loss
    >>> from rumus.tensor import tensor
    >>> x = tensor([[[0.0, 0.0], [0.0, 0.0]]]).log_softmax()
    >>> round(ctc_loss(x, [[1]]).item(), 4)  # three paths of four: 1 1, 1 -, - 1
    0.2877
    """
    check_reduction(NAME, reduction)
    check_floating(NAME, "the log probabilities", log_probabilities)
    x = widened(log_probabilities)
    if x.ndim != 3 or 0 in x.shape[1:]:
        raise ValueError(f"{NAME}: expected (batch, length, classes), got {x.shape}")
    if reduction == "mean" and not len(x):
        raise ValueError(f"{NAME}: no samples to take the mean of, shape {x.shape}")
    if not 0 <= whole_number(f"{NAME}: blank", blank) < x.shape[2]:
        raise ValueError(f"{NAME}: blank {blank} is outside [0, {x.shape[2]})")
    labels = _integers(x, targets, "targets")
    if labels.ndim != 2 or len(labels) != len(x):
        raise ValueError(
            f"{NAME}: expected targets of shape ({len(x)}, most labels), got {labels.shape}"
        )
    check_input(NAME, x, "logarithms of probabilities", OF_LOGARITHMS)
    steps = _lengths(x, input_lengths, x.shape[1], "input_lengths", 1)
    counts = _lengths(x, target_lengths, labels.shape[1], "target_lengths", 0)
    known = _known(labels), _known(steps), _known(counts)
    _check_labels(*known, x.shape[2], blank, zero_infinity)
    index, ends, sizes = (as_integers(x, given) for given in (labels, steps, counts))
    backend_of(NAME, (x, index, ends, sizes))
    losses = ctc(x, index, ends, sizes, blank)
    if zero_infinity:
        losses = (losses < float("inf")).where(losses, 0.0)
    if reduction == "mean":
        losses = losses / sizes.maximum(1)
    return Found(losses, len(x)).reduced(NAME, reduction, sample_weight)


def _integers(x: Tensor, given: TensorLike, what: str) -> Tensor | NDArray[Any]:
    found = given if isinstance(given, Tensor) else np.asarray(given)
    if isinstance(found, np.ndarray) and not found.size:
        found = found.astype(np.int32)
    if found.dtype.kind not in "iu":
        raise TypeError(f"{NAME}: {what} must be integers, not {found.dtype}")
    return found


def _lengths(
    x: Tensor, given: Lengths | None, most: int, what: str, least: int
) -> Tensor | NDArray[Any]:
    found = _integers(x, np.full(len(x), most, np.int32) if given is None else given, what)
    if found.shape != (len(x),):
        raise ValueError(f"{NAME}: expected {len(x)} {what}, one per sample, got {found.shape}")
    host = _known(found)
    if host is not None:
        check_lengths(NAME, what, host, least, most)
    return found


def _known(given: Tensor | NDArray[Any]) -> NDArray[Any] | None:
    """The numbers, None if reading them needs a transfer."""
    if isinstance(given, Tensor):
        return given.numpy() if is_readable(given) else None
    return given


def _check_labels(
    labels: NDArray[Any] | None,
    steps: NDArray[Any] | None,
    counts: NDArray[Any] | None,
    classes: int,
    blank: int,
    zero_infinity: bool,
) -> None:
    """Raise IndexError for an invalid label, ValueError for a target longer than its input."""
    if labels is None or counts is None:
        return
    inside = np.arange(labels.shape[1]) < counts[:, None]
    wrong = inside & ((labels < 0) | (labels >= classes) | (labels == blank))
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0].tolist())
        raise IndexError(
            f"{NAME}: target {labels[at]} at index {at} is not a label: labels are in "
            f"[0, {classes}) without the blank, {blank}"
        )
    if steps is None or zero_infinity:
        return
    repeats = ((labels[:, 1:] == labels[:, :-1]) & inside[:, 1:]).sum(1)
    long = np.flatnonzero(counts + repeats > steps)
    if len(long):
        at = long[0]
        raise ValueError(
            f"{NAME}: target {at} is longer than its input: {counts[at]} labels, {repeats[at]} of "
            f"them repeated, need {counts[at] + repeats[at]} steps, but it has {steps[at]}. Leave "
            "it out, or set zero_infinity=True to give it a loss of 0"
        )
