"""The number of terms in a loss's mean, which losses report to code that combines batches.

The mean over all tokens of two batches is not the mean of their means weighted by rows. A loss
function knows how many terms it averaged; a loop that accumulates over batches needs to know it
too.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING, Any

from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.uninterrupted import displacing

if TYPE_CHECKING:
    from rumus.tensor.graph.tensor import Tensor


@dataclass(frozen=True, slots=True)
class Mean:
    """A computed mean: its tensor, and the number of its terms or their total weight.

    count: None if only the device knows it, in `counted`. is_loss: whether a loss function reported
        it; otherwise it is a mean over all elements of some tensor, or a sum of them by another.
    rows: the length of that tensor; None if it is no mean over all elements.
    is_guess: whether it is a sum by a whole number of the program's, which may count its terms.
    """

    array: Array
    count: float | None
    counted: Tensor | None = None
    is_loss: bool = True
    rows: int | None = None
    is_guess: bool = False

    @property
    def arrays(self) -> list[Array]:
        """Its memory, and that of its count."""
        return [self.array] if self.counted is None else [self.array, self.counted._array]

    def is_in(self, value: Tensor) -> bool:
        """Whether a tensor is this mean itself, not something computed from it."""
        return value._array is self.array


class _Listening(threading.local):
    """What is reported on this thread.

    means: since the innermost block began; None outside of blocks.
    totals: sums over all elements of some tensor, since the outermost one did.
    """

    def __init__(self) -> None:
        self.means: list[Mean] | None = None
        self.totals: list[weakref.ref[Any]] = []


_listening = _Listening()


def note_mean(result: Tensor, count: Tensor | float) -> Tensor:
    """Report that `result` is a loss, the mean of `count` terms, and return it."""
    if (means := _listening.means) is not None:
        known, counted = (
            (count, None) if isinstance(count, (int, float)) else (None, count.detach())
        )
        if means and means[-1].array is result._array:  # the quotient that it is
            means.pop()
        means.append(Mean(result._array, known, counted))
    return result


def note_average(result: Tensor, of: Tensor) -> Tensor:
    """Report that `result` is the mean of all elements of a tensor, and return it."""
    if _listening.means is not None and not _is_noted_again(result, of):
        _listening.means.append(Mean(result._array, of.size, is_loss=False, rows=of.shape[0]))
    return result


def note_total(result: Tensor, of: Tensor) -> Tensor:
    """Report that `result` is the sum of all elements of a tensor, and return it."""
    if _listening.means is not None and not _is_noted_again(result, of):
        _listening.totals.append(weakref.ref(result._array))
    return result


def _is_noted_again(result: Tensor, of: Tensor) -> bool:
    """Whether a tensor is one number, of which `result` is the mean or sum: all is known of it."""
    if of.ndim == 0:
        _note_alike(result, of)
    return of.ndim == 0


def _note_alike(result: Tensor, of: Tensor) -> None:
    """Report of a number what is known of another: that it is a mean, or a sum."""
    if _listening.means is not None:
        known = [each for each in _listening.means if each.is_in(of)]
        _listening.means += [replace(each, array=result._array) for each in known]
        if _is_total(of):
            _listening.totals.append(weakref.ref(result._array))


def note_negative(result: Tensor, of: Tensor) -> Tensor:
    """Report that `result` is another tensor negated, and return it."""
    _note_alike(result, of)
    return result


def note_quotient(result: Tensor, total: Tensor, count: object) -> Tensor:
    """Report that `result` is `total` divided by `count`, and return it.

    A sum of all elements by a number that depends on no parameter is a mean of so many terms, as
    of those that a mask leaves: (losses * mask).sum() / mask.sum(). So is a mean by a number, of as
    many as the number times the mean's. A whole number of the program's may be one, too, as is that
    of float(mask.sum()), or a constant.
    """
    average = _average_of(total)
    if (average is not None or _is_total(total)) and hasattr(count, "requires_grad"):
        counted: Any = count
        if counted.size == 1 and result.size == 1 and not counted.requires_grad:
            terms = counted.detach().reshape()
            if average is not None and average.count is not None:
                terms = terms * float(average.count)
            _noted().append(Mean(result._array, None, terms, is_loss=False))
    elif _is_total(total) and isinstance(count, Real) and (number := float(count)).is_integer():
        _noted().append(Mean(result._array, number, is_loss=False, is_guess=True))
    return result


def _noted() -> list[Mean]:
    assert _listening.means is not None
    return _listening.means


def _average_of(tensor: Tensor) -> Mean | None:
    """What is known of a tensor that is the mean of all elements of another."""
    found = [each for each in _listening.means or () if each.is_in(tensor)]
    plain = [each for each in found if not each.is_loss and each.count is not None]
    return plain[0] if len(found) == len(plain) == 1 else None


def _is_total(tensor: Tensor) -> bool:
    if _listening.means is None or not _listening.totals:
        return False
    return any(total() is tensor._array for total in _listening.totals)


def note_again(means: Sequence[Mean]) -> None:
    """Report again what was reported when a step was recorded, for a replay."""
    if (listening := _listening.means) is not None:
        listening += means


@contextmanager
def noting_means() -> Iterator[list[Mean]]:
    """Collect the means reported on this thread within the block."""
    found: list[Mean] = []
    if (around := _listening.means) is None:
        _listening.totals.clear()
    try:
        yield from displacing(_listening, "means", found)
    finally:
        if around is not None:
            around += found
