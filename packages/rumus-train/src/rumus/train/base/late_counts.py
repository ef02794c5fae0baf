"""`LateCounts`: what metrics count in a step on the CPU, counted together with later steps.

Counting takes ten to thirty of NumPy's calls, each of which costs a microsecond or two in a step,
however small it is: its code is in no cache. Copying scores and targets takes two calls; two dozen
steps are then counted at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from rumus.tensor import NumpyBackend, Tensor
from rumus.tensor.memory.uninterrupted import Uninterrupted
from rumus.tensor.memory.updater import Outcome
from rumus.train.base.epoch_sum import EpochSum

MOST: Final = 4_096  # scores of a step that are kept; more are counted at once, at little cost
STEPS: Final = 24  # that are counted together
TOGETHER: Final = 16_384  # scores that are: they stay in the cache


class Counting(Protocol):
    """Counts something in scores, (rows, classes), and targets, (rows,). Equal ones count alike.

    Counts are whole numbers: their sum is the same in whatever groups batches are counted.
    """

    def __call__(self, scores: NDArray[Any], targets: NDArray[Any]) -> Sequence[NDArray[Any]]:
        """Return the counts."""
        ...

    def shapes(self, classes: int) -> list[tuple[int, ...]]:
        """Return the shapes of the counts."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class LateCounts:
    """The scores and targets of one batch, for `counting`.

    A replay of the step overwrites both.
    """

    counting: Counting
    scores: Tensor
    targets: Tensor

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the counts."""
        return self.counting.shapes(self.scores.shape[1])

    def parts(self) -> list[LatePart]:
        """Return one part of a metric for each count."""
        return [LatePart(self, number, shape) for number, shape in enumerate(self.shapes)]

    def counts(self) -> list[NDArray[np.float64]]:
        """Count now."""
        counts = self.counting(self.scores._array, self.targets._array)
        return [np.asarray(count, np.float64) for count in counts]

    def is_like(self, other: LateCounts) -> bool:
        """Whether memory for the one holds the other, and both are counted in the same way."""
        scores, targets = self.scores._array, self.targets._array
        return (
            self.counting == other.counting
            and scores.shape == other.scores.shape
            and scores.dtype == other.scores.dtype
            and targets.dtype == other.targets.dtype
        )


@dataclass(frozen=True, slots=True)
class LatePart:
    """One of the counts, as a part of a metric."""

    late: LateCounts
    number: int
    shape: tuple[int, ...]

    def numpy(self) -> NDArray[Any]:
        """Count now."""
        return self.late.counts()[self.number]


def late_parts(counting: Counting, scores: Tensor, targets: Tensor) -> list[LatePart] | None:
    """Return what is to be counted, or None where counting at once is better.

    A device counts in one dispatch.

    scores: (rows, classes), without a graph. targets: (rows,).
    """
    if not isinstance(scores.backend, NumpyBackend) or scores.size > MOST:
        return None
    return LateCounts(counting, scores, targets.clone()).parts()  # a batch's memory is not kept


def late_of(parts: Sequence[object]) -> LateCounts | None:
    """Return whose counts these parts are, one for each; None if they are anything else."""
    late = [part for part in parts if isinstance(part, LatePart)]
    is_whole = bool(late) and len(late) == len(parts) and late == late[0].late.parts()
    return late[0].late if is_whole else None


class LateSums:
    """Adds the counts of applied steps to the sums of an epoch, two dozen steps at a time.

    sums: one for each count.
    """

    def __init__(self, sums: Sequence[EpochSum]) -> None:
        self._sums = sums
        self._like: LateCounts | None = None  # what the memory is for
        self._scores: NDArray[Any] = np.empty((0, 0, 0))
        self._targets: NDArray[Any] = np.empty((0, 0))
        self._places: list[tuple[NDArray[Any], NDArray[Any]]] = []  # one for each step
        self._outcomes: list[Outcome] = []  # of the steps that wait

    def note(self, late: LateCounts) -> None:
        """Copy a step's scores and targets; they count only after `count`."""
        if late is not self._like:  # a replay has the same
            if self._like is None or not late.is_like(self._like):
                self._begin(late)
            self._like = late
        scores, targets = self._places[len(self._outcomes)]
        np.copyto(scores, late.scores._array)
        np.copyto(targets, late.targets._array)

    def count(self, outcome: Outcome) -> None:
        """Count what was noted last, if its step turns out to be applied."""
        self._outcomes.append(outcome)
        if len(self._outcomes) == len(self._places):
            self.read()

    def read(self) -> None:
        """Add all that waits."""
        late = self._like
        if late is None or not self._outcomes:
            return
        with Uninterrupted():
            applied = [outcome.applied is not False for outcome in self._outcomes]
            scores, targets = self._scores[: len(applied)], self._targets[: len(applied)]
            if not all(applied):
                scores, targets = scores[applied], targets[applied]
            rows = scores.reshape(-1, late.scores.shape[1])
            for total, counts in zip(
                self._sums, late.counting(rows, targets.reshape(-1)), strict=True
            ):
                total.add(counts, sum(applied))
            self._outcomes.clear()

    def clear(self) -> None:
        """Forget all that waits."""
        self._outcomes.clear()

    def _begin(self, late: LateCounts) -> None:
        """Count what waits, and get memory for steps like this one."""
        self.read()
        scores, targets = late.scores._array, late.targets._array
        places = max(1, min(STEPS, TOGETHER // max(1, scores.size)))
        self._scores = np.empty((places, *scores.shape), scores.dtype)
        self._targets = np.empty((places, *targets.shape), targets.dtype)
        self._places = list(zip(self._scores, self._targets, strict=True))
