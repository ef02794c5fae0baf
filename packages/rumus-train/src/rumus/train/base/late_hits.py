"""`LateHits`: scores of a step on the CPU, whose hits are counted with those of later steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rumus.tensor import NumpyBackend, Tensor, tensor
from rumus.tensor.backends import numpy_class_counts

_HOST = NumpyBackend()


@dataclass(frozen=True, slots=True, eq=False)
class LateHits:
    """The scores and classes of a few samples, in place of the counts of `class_hits`.

    Counting takes ten of NumPy's calls, each of which costs about a microsecond in a step, whatever
    the size: its code is in no cache. Copying two small arrays takes two; dozens of steps are then
    counted at once.

    scores: (samples, classes), and targets: (samples,), integers; a replayed step writes new ones
        into their memory.
    top: as in `class_hits`.

    >>> some = LateHits(tensor([[0.2, 0.8], [0.9, 0.1]]), tensor([1, 1]), top=1)
    >>> some.numpy().tolist()  # hits, misses, NaN, of no class
    [1.0, 1.0, 0.0, 0.0]
    """

    scores: Tensor
    targets: Tensor
    top: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the counts."""
        return (4,)

    def clone(self) -> LateHits:
        """Return a copy, which the step's next replay does not overwrite."""
        scores, targets = self.scores, self.targets
        return LateHits(
            Tensor(scores._array.copy(), scores._backend),
            Tensor(targets._array.copy(), targets._backend),
            self.top,
        )

    def numpy(self) -> NDArray[np.float64]:
        """Count now."""
        return counted([self])

    def counts(self) -> Tensor:
        """Count now, as a tensor."""
        return tensor(self.numpy(), backend=_HOST)


def counted(batches: Iterable[LateHits]) -> NDArray[np.float64]:
    """Return the counts of `class_hits` over all batches."""
    kinds: dict[Any, list[LateHits]] = {}
    for batch in batches:
        scores, targets = batch.scores._array, batch.targets._array
        kind = scores.shape[1], scores.dtype, targets.dtype, batch.top
        kinds.setdefault(kind, []).append(batch)
    total, counts = np.zeros(4), np.empty(4)
    for alike in kinds.values():
        scores = np.concatenate([batch.scores._array for batch in alike])
        targets = np.concatenate([batch.targets._array for batch in alike])
        numpy_class_counts.class_hits(scores, targets, alike[0].top, counts)
        total += counts
    return total
