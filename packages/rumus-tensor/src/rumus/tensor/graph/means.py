"""The number of terms in a loss's mean, which losses report to code that combines batches.

The mean over all tokens of two batches is not the mean of their means weighted by rows. A loss
function knows how many terms it averaged; a loop that accumulates over batches needs to know it
too.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.uninterrupted import displaced

if TYPE_CHECKING:
    from rumus.tensor.graph.tensor import Tensor


@dataclass(frozen=True, slots=True)
class Mean:
    """A computed mean: its tensor, and the number of its terms or their total weight.

    count: None if only the device knows it, in `counted`. is_loss: whether a loss function reported
        it; otherwise it is a mean over all elements of some tensor.
    """

    array: Array
    count: float | None
    counted: Tensor | None = None
    is_loss: bool = True

    @property
    def arrays(self) -> list[Array]:
        """Its memory, and that of its count."""
        return [self.array] if self.counted is None else [self.array, self.counted._array]

    def is_in(self, value: Tensor) -> bool:
        """Whether a tensor is this mean itself, not something computed from it."""
        return value._array is self.array


class _Listening(threading.local):
    means: list[Mean] | None = None


_listening = _Listening()


def note_mean(result: Tensor, count: Tensor | float) -> Tensor:
    """Report that `result` is a loss, the mean of `count` terms, and return it."""
    if _listening.means is not None:
        known, counted = (
            (count, None) if isinstance(count, (int, float)) else (None, count.detach())
        )
        _listening.means.append(Mean(result._array, known, counted))
    return result


def note_average(result: Tensor, count: int) -> Tensor:
    """Report that `result` is the mean of all `count` elements of a tensor, and return it."""
    if _listening.means is not None:
        _listening.means.append(Mean(result._array, count, is_loss=False))
    return result


def note_again(means: Sequence[Mean]) -> None:
    """Report again what was reported when a step was recorded, for a replay."""
    if _listening.means is not None:
        _listening.means.extend(means)


@contextmanager
def noting_means() -> Iterator[list[Mean]]:
    """Collect the means reported on this thread within the block."""
    before: list[Mean] | None = _listening.means
    found: list[Mean] = []
    try:
        with displaced(_listening, "means", found):
            yield found
    finally:
        if before is not None:
            before.extend(found)
