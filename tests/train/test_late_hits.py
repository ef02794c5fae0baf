"""Hits that are counted with those of later steps are those of each step, counted at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rumus.optim import SGD
from rumus.tensor import NumpyBackend, Parameter, Tensor, tensor
from rumus.tensor.backends.numpy_class_counts import FEW, class_hits
from rumus.tensor.memory.updater import Outcome
from rumus.train import Trainer, metrics
from rumus.train.base.epoch_sum import LAG, EpochSum
from rumus.train.base.late_hits import LateHits, counted


def batch(seed: int, rows: int, classes: int, top: int) -> LateHits:
    """Scores with ties and some NaN, and targets some of which are no class."""
    random = np.random.default_rng(seed)
    scores = random.integers(0, 4, (rows, classes)).astype(np.float32)
    scores[random.random(scores.shape) < 0.05] = np.nan
    targets = random.integers(-1, classes + 1, rows).astype(np.int32)
    return LateHits(tensor(scores), tensor(targets), top)


def at_once(each: LateHits) -> np.ndarray:
    counts = np.empty(4)
    class_hits(each.scores.numpy(), each.targets.numpy(), each.top, counts)
    return counts


KINDS = st.tuples(st.integers(0, 99), st.integers(0, 5), st.integers(2, 4), st.integers(1, 2))


@given(kinds=st.lists(KINDS, max_size=8))
def test_counting_together(kinds: list[tuple[int, int, int, int]]) -> None:
    """Of any numbers of rows, classes and best ones."""
    batches = [batch(*kind) for kind in kinds]
    assert counted(batches).tolist() == np.sum([np.zeros(4), *map(at_once, batches)], 0).tolist()


@pytest.mark.parametrize("steps", [3, LAG + 3])
def test_only_applied_steps_count(steps: int) -> None:
    """Among values that are counted already, and whatever is written into them later."""
    total, expected, applied = EpochSum((4,)), np.zeros(4), 0
    for step in range(steps):
        late = batch(step, 4, 3, 1)
        is_applied = step % 3 != 1
        now = at_once(late)
        value = late if step % 4 else tensor(now, backend=NumpyBackend())
        noted = total.note(value)
        late.scores._array.fill(0)
        late.targets._array.fill(0)
        total.count(noted, 1.0, Outcome(is_applied))
        applied += is_applied
        expected += now * is_applied
    assert total.read().tolist() == expected.tolist()
    assert total.weight == applied


@pytest.mark.parametrize("rows", [8, FEW])
def test_few_and_many_scores(rows: int) -> None:
    """A step's accuracy is exact, and its memory bounded: of many scores it keeps counts only."""
    random = np.random.default_rng(0)
    x = random.normal(size=(rows, 2)).astype(np.float32)
    y = random.integers(0, 3, rows).astype(np.int32)
    weight = Parameter(random.normal(size=(2, 3)).astype(np.float32), name="weight")
    kept: list[object] = []

    def loss(x: Tensor, y: Tensor) -> dict[str, object]:
        scores = x @ weight
        accuracy = metrics.accuracy(scores, y)
        kept.extend(map(type, accuracy.parts))
        assert float(accuracy) == float(metrics.accuracy(scores.numpy(), y.numpy()))
        return {"loss": (scores * scores).mean(), "accuracy": accuracy}

    trainer = Trainer(SGD([weight], 0.0), capture=False)
    for cut in (0, 3, 5):
        trainer.train_step(loss, x[cut:], y[cut:])
    found = trainer.epoch_averages()["accuracy"]
    hits = [(x[cut:] @ weight.numpy()).argmax(1) == y[cut:] for cut in (0, 3, 5)]
    assert found == np.concatenate(hits).mean()
    assert set(kept) == ({LateHits} if rows == 8 else {Tensor})
