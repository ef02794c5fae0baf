"""What is counted with later steps is what each step would have counted at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rumus.optim import SGD
from rumus.tensor import Parameter, Tensor, tensor
from rumus.tensor.memory.updater import Outcome
from rumus.train import Trainer, metrics
from rumus.train.base.class_counts import Confusion, Hits
from rumus.train.base.epoch_sum import LAG, EpochSum
from rumus.train.base.late_counts import (
    MOST,
    Counting,
    LateCounts,
    LatePart,
    LateSums,
    count_together,
    late_of,
)
from rumus.train.base.metric_state import MetricState

COUNTINGS: list[Counting] = [Hits(1), Hits(2), Confusion()]


def batch(seed: int, rows: int, classes: int, counting: Counting) -> LateCounts:
    """Scores with ties and some NaN, and targets some of which are no class."""
    random = np.random.default_rng(seed)
    scores = random.integers(0, 4, (rows, classes)).astype(np.float32)
    scores[random.random(scores.shape) < 0.05] = np.nan
    targets = random.integers(-1, classes + 1, rows).astype(np.int32)
    return LateCounts(counting, tensor(scores), tensor(targets))


def at_once(late: LateCounts) -> list[np.ndarray]:
    """The counts of one batch."""
    return [np.asarray(c) for c in late.counting(late.scores.numpy(), late.targets.numpy())]


@given(
    sizes=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 5)), min_size=1, max_size=8),
    counting=st.sampled_from(COUNTINGS),
)
def test_counting_together(sizes: list[tuple[int, int]], counting: Counting) -> None:
    """Any numbers of rows."""
    batches = [batch(seed, rows, 3, counting) for seed, rows in sizes]
    singly = [np.sum(counts, 0) for counts in zip(*map(at_once, batches), strict=True)]
    for found, expected, shape in zip(
        count_together(batches), singly, counting.shapes(3), strict=True
    ):
        assert found.shape == shape
        assert found.tolist() == expected.tolist()


def test_counting_different_classes_together() -> None:
    batches = [batch(classes, 9, classes, Hits(2)) for classes in (2, 3, 4, 3)]
    (found,) = count_together(batches)
    assert found.tolist() == np.sum([at_once(each)[0] for each in batches], 0).tolist()


@pytest.mark.parametrize("steps", [1, 3, LAG + 3])
@pytest.mark.parametrize("counting", COUNTINGS)
def test_only_applied_steps_count(steps: int, counting: Counting) -> None:
    """Whatever is written into the memory of their scores later."""
    sums = [EpochSum(shape) for shape in counting.shapes(3)]
    expected = [np.zeros(shape) for shape in counting.shapes(3)]
    late, applied = LateSums(sums), 0
    for step in range(steps):
        of_step, is_applied = batch(step, 4, 3, counting), step % 3 != 1
        for total, counts in zip(expected, at_once(of_step), strict=True):
            total += counts * is_applied
        noted = late.note(of_step)
        of_step.scores._array.fill(0)
        of_step.targets._array.fill(0)
        late.count(noted, 1.0, Outcome(is_applied))
        applied += is_applied
    late.read()
    assert [total.read().tolist() for total in sums] == [total.tolist() for total in expected]
    assert [total.weight for total in sums] == [applied] * len(sums)


def test_a_metric_of_some_of_the_counts() -> None:
    """A metric of one's own may take one count of another; it is counted at once."""
    matrix, counts = batch(0, 9, 3, Confusion()).parts()
    assert late_of((matrix, counts)) is matrix.late
    for parts in ((matrix,), (counts, matrix), (matrix, np.zeros(4)), ()):
        assert late_of(parts) is None
    assert MetricState("own", (matrix,), np.trace).__float__() == matrix.numpy().trace()


@pytest.mark.parametrize("rows", [8, MOST])
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
    assert set(kept) == ({LatePart} if rows == 8 else {Tensor})
