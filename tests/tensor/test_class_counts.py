"""Class counts: a backend's own kernels and the primitives match plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from rumus.tensor import Backend, NumpyBackend, tensor
from rumus.tensor.memory.fused import FusedName
from rumus.tensor.operations.class_counts import class_confusion, class_hits, class_totals


class Primitives(NumpyBackend):
    """A backend without its own kernels for these."""

    def fused(self, name: FusedName) -> None:
        return None


def counted(scores: list[list[float]], targets: list[int], top: int) -> list[float]:
    """Row by row; among equal scores the first wins for top=1, otherwise the last."""
    found = [0.0] * 4
    for row, target in zip(scores, targets, strict=True):
        best = sorted(range(len(row)), key=lambda i: (row[i], -i if top == 1 else i))[-top:]
        found[0 if target in best else 1] += 1
        found[2] += any(np.isnan(row))
        found[3] += not 0 <= target < len(row)
    return found


@pytest.mark.parametrize("is_primitive", [False, True])
@pytest.mark.parametrize("top", [1, 2, 3])
def test_the_counts(backend: Backend, top: int, is_primitive: bool) -> None:
    """With ties, and without class 3 among the targets."""
    backend = Primitives() if is_primitive else backend
    random = np.random.default_rng(top)
    scores, targets = random.integers(0, 4, (50, 4)).astype(np.float32), random.integers(0, 3, 50)
    there, classes = (tensor(x, backend=backend) for x in (scores, targets))
    expected = counted(scores.tolist(), targets.tolist(), top)
    assert class_hits(there, classes, top).tolist() == expected
    if top > 1:
        return
    matrix, counts = class_confusion(there, classes)
    assert counts.tolist() == expected
    table = np.zeros((4, 4))
    np.add.at(table, (targets, scores.argmax(1)), 1)
    assert matrix.tolist() == table.tolist()
    totals, counts = class_totals(there, classes)
    assert counts.tolist() == expected
    assert totals.tolist() == [*table.sum(0), *table.sum(1), *table.diagonal()]


@pytest.mark.parametrize("is_primitive", [False, True])
def test_invalid_targets_are_counted(backend: Backend, is_primitive: bool) -> None:
    backend = Primitives() if is_primitive else backend
    nan = float("nan")
    scores = tensor([[nan, 1.0], [0.0, nan], [nan, nan], [0.0, 1.0], [2.0, 1.0]], backend=backend)
    targets = tensor([0, 1, 0, 2, -1], backend=backend)
    for top in (1, 2):
        assert class_hits(scores, targets, top).tolist()[2:] == [3, 2]
    matrix, counts = class_confusion(scores, targets)
    assert (matrix.sum().item(), counts.tolist()[2:]) == (3, [3, 2])
    totals, counts = class_totals(scores, targets)
    assert (totals[:2].sum().item(), counts.tolist()[2:]) == (3, [3, 2])


def test_of_no_rows(backend: Backend) -> None:
    scores, targets = np.zeros((0, 3), np.float32), np.zeros(0, np.int32)
    there, classes = (tensor(x, backend=backend) for x in (scores, targets))
    assert class_hits(there, classes).tolist() == [0.0] * 4
    matrix, counts = class_confusion(there, classes)
    assert (matrix.tolist(), counts.tolist()) == ([[0.0] * 3] * 3, [0.0] * 4)
