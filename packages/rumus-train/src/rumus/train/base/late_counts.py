"""`LateCounts`: what metrics count in a step on the CPU, counted together with later steps.

Counting takes ten to thirty of NumPy's calls, each of which costs a microsecond or two in a step,
however small it is: its code is in no cache. Copying scores and targets takes two calls; dozens of
steps are then counted at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, SupportsFloat

import numpy as np
from numpy.typing import NDArray

from rumus.tensor import Tensor
from rumus.tensor.memory.uninterrupted import Uninterrupted
from rumus.tensor.memory.updater import Outcome
from rumus.train.base.epoch_sum import LAG, EpochSum

MOST: Final = 4_096  # scores that are kept; more are counted at once, which costs little then


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

    def clone(self) -> LateCounts:
        """Return a copy that a replay does not overwrite."""
        scores, targets = self.scores, self.targets
        return LateCounts(
            self.counting,
            Tensor(scores._array.copy(), scores._backend),
            Tensor(targets._array.copy(), targets._backend),
        )


@dataclass(frozen=True, slots=True)
class LatePart:
    """One of the counts, as a part of a metric."""

    late: LateCounts
    number: int
    shape: tuple[int, ...]

    def numpy(self) -> NDArray[Any]:
        """Count now."""
        return count_together([self.late])[self.number]


def late_parts(counting: Counting, scores: Tensor, targets: Tensor) -> list[LatePart] | None:
    """Return what is to be counted, or None where counting at once is better.

    scores: (rows, classes), without a graph. targets: (rows,).
    """
    if scores.backend.runs_ahead or scores.size > MOST:
        return None
    return LateCounts(counting, scores, targets.clone()).parts()  # a batch's memory is not kept


def late_of(parts: Sequence[object]) -> LateCounts | None:
    """Return whose counts these parts are, one for each; None if they are anything else."""
    late = [part for part in parts if isinstance(part, LatePart)]
    is_whole = bool(late) and len(late) == len(parts) and late == late[0].late.parts()
    return late[0].late if is_whole else None


def count_together(batches: Iterable[LateCounts]) -> list[NDArray[np.float64]]:
    """Return the sums of the counts of batches, whose counts have equal shapes."""
    kinds: dict[Any, list[LateCounts]] = {}
    for batch in batches:
        scores, targets = batch.scores._array, batch.targets._array
        kind = batch.counting, scores.shape[1], scores.dtype, targets.dtype
        kinds.setdefault(kind, []).append(batch)
    total: list[NDArray[np.float64]] = []
    for (counting, *_), alike in kinds.items():
        scores = np.concatenate([batch.scores._array for batch in alike])
        targets = np.concatenate([batch.targets._array for batch in alike])
        counts = [np.asarray(count, np.float64) for count in counting(scores, targets)]
        total = [a + b for a, b in zip(total, counts, strict=True)] if total else counts
    return total


class LateSums:
    """Adds the counts of applied steps to the sums of an epoch, a few dozen steps at a time.

    sums: one for each count.
    """

    def __init__(self, sums: Sequence[EpochSum]) -> None:
        self._sums = sums
        self._waiting: list[tuple[LateCounts, Outcome]] = []

    def note(self, late: LateCounts) -> LateCounts:
        """Return a copy of a step's scores and targets; they count only after `count`."""
        return late.clone()

    def count(self, noted: LateCounts, weight: SupportsFloat, outcome: Outcome) -> None:
        """Count what was noted last, if its step turns out to be applied."""
        self._waiting.append((noted, outcome))
        if len(self._waiting) > LAG:
            self.read()

    def read(self) -> None:
        """Add all that waits."""
        with Uninterrupted():
            applied = [late for late, outcome in self._waiting if outcome.applied is not False]
            for total, counts in zip(self._sums, count_together(applied), strict=bool(applied)):
                total.add(counts, len(applied))
            self._waiting.clear()

    def clear(self) -> None:
        """Forget all that waits."""
        self._waiting.clear()
