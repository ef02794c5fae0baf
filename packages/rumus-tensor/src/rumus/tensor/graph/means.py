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
from typing import TYPE_CHECKING, Any, Final

from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.uninterrupted import displacing

if TYPE_CHECKING:
    from rumus.tensor.graph.tensor import Tensor

# What makes of a count another, as of one that is at least 1.
_COUNTING: Final = frozenset(("add", "sub", "mul", "maximum", "minimum", "clip"))


@dataclass(frozen=True, slots=True)
class Mean:
    """A computed mean: its tensor, and the number of its terms or their total weight.

    count: None if only the device knows it, in `counted`. is_loss: whether a loss function reported
        it; otherwise it is a mean over all elements of some tensor, or a sum of them by another.
    rows: the length of that tensor; None if it is no mean over all elements.
    is_guess: whether it is a sum by a whole number of the program's, which may count its terms.
    is_alias: whether another says the same, of the tensor in other words.
    """

    array: Array
    count: float | None
    counted: Tensor | None = None
    is_loss: bool = True
    rows: int | None = None
    is_guess: bool = False
    is_alias: bool = False

    @property
    def arrays(self) -> list[Array]:
        """Its memory, and that of its count."""
        return [self.array] if self.counted is None else [self.array, self.counted._array]

    def is_in(self, value: Tensor) -> bool:
        """Whether a tensor is this mean itself, not something computed from it."""
        return value._array is self.array


@dataclass(frozen=True, slots=True)
class _Divisor:
    """What something was divided by: a number without a graph, times a factor.

    is_count: whether it was computed from all elements of some tensor, such as a mask.
    """

    number: Tensor
    factor: float
    is_count: bool

    def times(self, size: float) -> Tensor:
        """Return it, times a size, as a number."""
        factor, number = self.factor * size, self.number.detach().reshape()
        return number if factor == 1 else number * factor


class _Listening(threading.local):
    """What is reported on this thread.

    means: since the innermost block began; None outside of blocks.
    totals: sums over all elements of some tensor, since the outermost one did.
    counts: numbers computed from totals without a graph, such as mask.sum().clip(1), likewise.
    shares: what was divided by a number without a graph, and that number, in the block.
    gathered: means that were joined to a tensor, likewise.
    """

    def __init__(self) -> None:
        self.means: list[Mean] | None = None
        self.totals: list[weakref.ref[Any]] = []
        self.counts: list[weakref.ref[Any]] = []
        self.shares: list[tuple[weakref.ref[Any], _Divisor]] = []
        self.gathered: list[weakref.ref[Any]] = []

    def forget(self) -> None:
        """Begin anew."""
        for found in (self.totals, self.counts, self.shares, self.gathered):
            found.clear()  # type: ignore[attr-defined]


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
    if _listening.means is None or _is_noted_again(result, of) or _is_in(_listening.gathered, of):
        return result  # a mean of means has the terms of these
    count = _divisor_of(of)
    if count is None:
        _listening.means.append(Mean(result._array, of.size, is_loss=False, rows=of.shape[0]))
    else:
        _note_by(result, count, of.size)
    return result


def note_total(result: Tensor, of: Tensor) -> Tensor:
    """Report that `result` is the sum of all elements of a tensor, and return it."""
    if _listening.means is not None and not _is_noted_again(result, of):
        _note_total(result, _divisor_of(of))
    return result


def note_dot(result: Tensor, *factors: Tensor) -> Tensor:
    """Report that `result` is the sum of all elements of a product, and return it."""
    if _listening.means is not None:
        found = [each for each in map(_divisor_of, factors) if each is not None]
        _note_total(result, found[0] if found else None)
    return result


def _note_total(result: Tensor, divisor: _Divisor | None) -> None:
    """Report a sum of all elements, or a mean if they were divided by the number of terms."""
    if divisor is None:
        _listening.totals.append(weakref.ref(result._array))
    else:
        _note_by(result, divisor)


def _is_noted_again(result: Tensor, of: Tensor) -> bool:
    """Whether a tensor is one number, of which `result` is the mean or sum: all is known of it."""
    if of.ndim == 0:
        note_alike(result, of)
    return of.ndim == 0


def note_alike(result: Tensor, of: Tensor) -> Tensor:
    """Report that `result` is another tensor in other words, such as negated, and return it.

    So all is known of it that is known of the other: that it is a mean, or a sum.
    """
    if _listening.means is not None:
        known = [each for each in _listening.means if each.is_in(of)]
        _listening.means += [replace(each, array=result._array, is_alias=True) for each in known]
        for found in (_listening.totals, _listening.counts, _listening.gathered):
            if _is_in(found, of):
                found.append(weakref.ref(result._array))
        if (divisor := _divisor_of(of)) is not None:
            _note_share(result, divisor)
    return result


def note_quotient(result: Tensor, total: Tensor, count: object) -> Tensor:
    """Report that `result` is `total` divided by `count`, and return it.

    A sum of all elements by a number that depends on no parameter is a mean of so many terms, as
    of those that a mask leaves: (losses * mask).sum() / mask.sum(). So is a mean by a number, of as
    many as the number times the mean's. A whole number of the program's may be one, too, as is that
    of float(mask.sum()), or a constant.
    """
    if _listening.means is None:
        return result
    if hasattr(count, "requires_grad"):
        counted: Any = count
        if counted.size == 1 and not counted.requires_grad:
            divisor = _Divisor(counted, 1.0, _is_count(counted))
            if not _is_noted_by(result, total, divisor) and divisor.is_count:
                _note_share(result, divisor)
    elif _is_total(total) and isinstance(count, Real) and (number := float(count)).is_integer():
        _noted().append(Mean(result._array, number, is_loss=False, is_guess=True))
    return result


def note_reciprocal(result: Tensor, number: object, of: Tensor) -> Tensor:
    """Report that `result` is a number divided by a tensor, and return it."""
    if _listening.means is not None and isinstance(number, Real) and number:
        if of.size == 1 and not of.requires_grad:
            _note_share(result, _Divisor(of, 1 / float(number), _is_count(of)))
    return result


def note_product(result: Tensor, a: Tensor, b: object) -> Tensor:
    """Report that `result` is the product of a tensor and a tensor or number, and return it.

    A product with what was divided by a number has been divided by that number.
    """
    if _listening.means is not None and _listening.shares:
        for share, other in ((a, b), (b, a)):
            divisor = _divisor_of(share)
            if divisor is None or _divisor_of(other) is not None:
                continue
            if not _is_noted_by(result, other, divisor) and divisor.is_count:
                _note_share(result, divisor)
    return result


def note_number(result: Tensor, operation: str, of: Sequence[Tensor]) -> Tensor:
    """Report that `result` was computed from these numbers without a graph, and return it."""
    if _listening.means is not None and operation in _COUNTING and any(map(_is_count, of)):
        _listening.counts.append(weakref.ref(result._array))
    return result


def note_gathered(result: Tensor, of: Sequence[Tensor]) -> Tensor:
    """Report that `result` joins these numbers, and return it."""
    if (means := _listening.means) and any(mean.is_in(each) for mean in means for each in of):
        _listening.gathered.append(weakref.ref(result._array))
    return result


def _is_noted_by(result: Tensor, whole: object, divisor: _Divisor) -> bool:
    """Whether what is divided is a sum or mean of all elements, and its quotient a mean."""
    average = _average_of(whole)
    is_mean = result.size == 1 and (average is not None or _is_total(whole))
    if is_mean:
        size = None if average is None else average.count
        _note_by(result, divisor, 1 if size is None else size)
    return is_mean


def _note_by(result: Tensor, divisor: _Divisor, size: float = 1) -> None:
    """Report a mean of as many terms as a divisor says, times the size of a mean before."""
    _noted().append(Mean(result._array, None, divisor.times(size), is_loss=False))


def _note_share(result: Tensor, divisor: _Divisor) -> None:
    _listening.shares.append((weakref.ref(result._array), divisor))


def _divisor_of(tensor: object) -> _Divisor | None:
    """What a tensor was divided by, of numbers that count."""
    array = getattr(tensor, "_array", None)
    found = [divisor for share, divisor in _listening.shares if share() is array]
    return found[0] if found and array is not None else None


def _noted() -> list[Mean]:
    assert _listening.means is not None
    return _listening.means


def _average_of(tensor: object) -> Mean | None:
    """What is known of a tensor that is the mean of all elements of another."""
    array = getattr(tensor, "_array", None)
    found = [each for each in _listening.means or () if each.array is array]
    plain = [each for each in found if not each.is_loss and each.count is not None]
    return plain[0] if len(found) == len(plain) == 1 else None


def _is_total(tensor: object) -> bool:
    return _is_in(_listening.totals, tensor)


def _is_count(tensor: Tensor) -> bool:
    """Whether a number was computed from all elements of some tensor, as those of a mask."""
    is_sum = _is_total(tensor) or _is_in(_listening.counts, tensor)
    return is_sum or _average_of(tensor) is not None


def _is_in(found: Sequence[weakref.ref[Any]], tensor: object) -> bool:
    array = getattr(tensor, "_array", None)
    return array is not None and any(each() is array for each in found)


def note_again(means: Sequence[Mean]) -> None:
    """Report again what was reported when a step was recorded, for a replay."""
    if (listening := _listening.means) is not None:
        listening += means


@contextmanager
def noting_means() -> Iterator[list[Mean]]:
    """Collect the means reported on this thread within the block."""
    found: list[Mean] = []
    if (around := _listening.means) is None:
        _listening.forget()
    try:
        yield from displacing(_listening, "means", found)
    finally:
        _listening.shares.clear()  # which hold arrays
        if around is not None:
            around += found
