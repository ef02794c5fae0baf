"""`warn_of_pairs`: predictions (n, 1) beside targets (n,) give (n, n) results: every pair."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import TYPE_CHECKING

from rumus.tensor.expression.dtype import is_floating
from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.graph.evaluation import current_evaluation

if TYPE_CHECKING:
    from rumus.tensor.graph.tensor import Tensor


def warn_of_pairs(operation: str, tensors: Sequence[Tensor]) -> None:
    """Warn of what broadcasts each prediction against the targets of all samples.

    One tensor has the shape of another and a last axis of length 1 more. Of two that the model has
    computed, or neither, such as positions, pairs may be meant. Within an evaluation nothing is on
    the tape: there numbers that are not whole tell predictions.

    operation: the name of what is computed.
    tensors: its inputs, of several shapes.
    """
    for column, row in permutations(tensors, 2):
        if column.shape != (*row.shape, 1) or row.size < 2:
            continue
        if current_evaluation() is not None:
            is_meant = not (is_floating(column.dtype) or is_floating(row.dtype))
        else:
            is_meant = column.requires_grad == row.requires_grad
        if not is_meant:
            last = len(row.shape)
            warn_user(
                f"{operation}: shapes {column.shape} and {row.shape} broadcast to pairs of all "
                f"rows: write prediction.squeeze({last}), or target.unsqueeze({last}), to compare "
                "row by row, and target.unsqueeze(0) if pairs are meant"
            )
