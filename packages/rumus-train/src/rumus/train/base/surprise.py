"""`surprise`: the negative log likelihood of a batch's targets, summed where the logits are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rumus.tensor import Tensor, cross_entropy, float32, int32
from rumus.tensor.expression.user_warning import warn_user
from rumus.train.base.class_counts import (
    Given,
    as_numbers,
    beside,
    dtype_of,
    is_remote,
    no_class,
    on_host,
    shape_of,
)
from rumus.train.base.exact_difference import difference
from rumus.train.base.metric_state import Part
from rumus.train.base.row_labels import check_row_order


def surprise(logits: Given, targets: Given, ignore_index: int) -> tuple[Part, Part]:
    """Return the sum of -log softmax(logits)[target] in nats, and the number of targets.

    logits: (..., classes). targets: (...), class numbers, or `ignore_index`. ValueError for shapes
    that do not fit, other dtypes, and on the host for a target that is not a class.
    """
    check_row_order((("logits", logits), ("targets", targets)))
    found, wanted, dtype = shape_of(logits), shape_of(targets), dtype_of(targets)
    if not found or not found[-1] or wanted != found[:-1] or dtype.kind not in "iu":
        raise ValueError(
            "logits must be (..., classes) and targets class numbers of shape (...), not "
            f"{found} and {dtype} of {wanted}"
        )
    if isinstance(logits, Tensor) and is_remote(logits):
        rows = logits.detach().reshape(-1, found[-1])
        classes = beside(targets, rows).astype(int32).reshape(-1)
        losses = cross_entropy(rows, classes, ignore_index=ignore_index)
        return losses.sum(), (classes != ignore_index).astype(float32).sum()
    return _on_host(logits, targets, ignore_index)


def _on_host(logits: Given, targets: Given, ignore_index: int) -> tuple[Part, Part]:
    rows = as_numbers(logits)
    rows, wanted = rows.reshape(-1, rows.shape[-1]), on_host(targets).reshape(-1)
    counts = wanted != ignore_index
    rows, wanted = rows[counts], wanted[counts]
    if wanted.size and not (wanted.min() >= 0 and wanted.max() < rows.shape[1]):
        raise ValueError(no_class(rows.shape[1]))
    if _are_probabilities(rows):
        warn_user(
            "perplexity takes logits, to which it applies a softmax, and was given what a softmax "
            "has returned: give what that was applied to, or the logarithms"
        )
    with np.errstate(invalid="ignore"):  # a row whose largest logit is infinite is NaN
        shifted = difference(rows, rows.max(1, keepdims=True))
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(wanted)), wanted]
    return np.array(losses.sum()), np.array(float(len(wanted)))


def _are_probabilities(rows: NDArray[Any]) -> bool:
    """Whether each row adds up to 1, which of several logits only a softmax brings about."""
    if rows.shape[1] < 2 or not len(rows) or not rows.min() >= 0:
        return False
    is_sharp = np.isin(rows, (0, 1)).all()  # logits may be 0 and 1
    return not is_sharp and bool((abs(rows.sum(1) - 1) < 1e-3).all())
