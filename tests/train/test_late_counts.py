"""What is counted with later steps is what each step would have counted at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rumus.optim import SGD
from rumus.tensor import NumpyBackend, Parameter, Tensor, tensor
from rumus.tensor.memory.updater import Outcome
from rumus.train import Trainer, metrics
from rumus.train.base.class_counts import Confusion, Hits, Totals
from rumus.train.base.epoch_sum import EpochSum
from rumus.train.base.late_counts import (
    MOST,
    STEPS,
    Counting,
    LateCounts,
    LatePart,
    LateSums,
    late_of,
)
from rumus.train.base.metric_state import MetricState

COUNTINGS: list[Counting] = [Hits(1), Hits(2), Confusion(), Totals()]


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
    steps=st.lists(
        st.tuples(st.integers(0, 99), st.sampled_from([0, 4, 4, 5, 900]), st.booleans()),
        max_size=3 * STEPS,
    ),
    counting=st.sampled_from(COUNTINGS),
    reads=st.integers(0, 3 * STEPS),
)
def test_only_applied_steps_count(
    steps: list[tuple[int, int, bool]], counting: Counting, reads: int
) -> None:
    """Whatever their numbers of rows, when they are read, and what later steps write."""
    sums = [EpochSum(shape) for shape in counting.shapes(3)]
    expected = [np.zeros(shape) for shape in counting.shapes(3)]
    late = LateSums(sums)
    for number, (seed, rows, is_applied) in enumerate(steps):
        of_step = batch(seed, rows, 3, counting)
        for total, counts in zip(expected, at_once(of_step), strict=True):
            total += counts * is_applied
        late.note(of_step)
        of_step.scores._array.fill(0)
        of_step.targets._array.fill(0)
        late.count(Outcome(is_applied))
        if number == reads:
            late.read()
    late.read()
    applied = sum(is_applied for *_, is_applied in steps)
    assert [total.read().tolist() for total in sums] == [total.tolist() for total in expected]
    assert [total.weight for total in sums] == [applied] * len(sums)


def test_a_replay_writes_into_the_same_memory() -> None:
    (total,) = sums = [EpochSum((4,))]
    late, of_step, expected = LateSums(sums), batch(0, 8, 3, Hits(1)), np.zeros(4)
    for seed in range(STEPS + 3):
        other = batch(seed, 8, 3, Hits(1))
        of_step.scores._array[...] = other.scores.numpy()
        of_step.targets._array[...] = other.targets.numpy()
        late.note(of_step)
        late.count(Outcome(True))
        expected += at_once(other)[0]
    late.note(of_step)  # of a step that raises
    late.read()
    assert (total.read().tolist(), total.weight) == (expected.tolist(), STEPS + 3)


def test_other_classes_or_another_metric() -> None:
    sums = [EpochSum((4,))]
    late, expected = LateSums(sums), np.zeros(4)
    for classes, top in ((2, 1), (3, 1), (3, 2), (3, 2), (4, 2)):
        of_step = batch(classes, 6, classes, Hits(top))
        late.note(of_step)
        late.count(Outcome(True))
        expected += at_once(of_step)[0]
    late.read()
    assert sums[0].read().tolist() == expected.tolist()


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
    weight = Parameter(
        random.normal(size=(2, 3)).astype(np.float32), name="weight", backend=NumpyBackend()
    )
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
