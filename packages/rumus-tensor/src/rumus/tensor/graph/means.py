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
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.uninterrupted import displacing

if TYPE_CHECKING:
    from rumus.tensor.graph.tensor import Tensor

K = TypeVar("K")

# What makes of a count another, as of one that is at least 1.
_BOUNDING: Final = frozenset(("maximum", "clip", "where"))
_COUNTING: Final = _BOUNDING | {"add", "sub", "mul", "minimum"}
_BENDING: Final = frozenset(("sqrt", "exp", "log", "pow"))  # of which a mean has no mean
_NEAR_WHOLE: Final = 1e-3  # float(mask.sum()) + 1e-6 counts as float(mask.sum()) does
_NOTHING: Final = 1e-8  # the weight of a mean of no terms, which is 0 / 1


@dataclass(frozen=True, slots=True)
class Mean:
    """A computed mean: its tensor, and the number of its terms or their total weight.

    count: None if only the device knows it, in `counted`. is_loss: whether a loss function reported
        it; otherwise it is a mean over all elements of some tensor, or a sum of them by another.
    rows: the length of that tensor, or of the one that was summed; None if it is neither.
    is_guess: whether it is a sum by a whole number of the program's, which may count its terms.
    is_alias: whether another says the same, of the tensor in other words.
    is_within: whether the tensor is no such mean, but was computed from one, or with its count.
    """

    array: Array
    count: float | None
    counted: Tensor | None = None
    is_loss: bool = True
    rows: int | None = None
    is_guess: bool = False
    is_alias: bool = False
    is_within: bool = False

    @property
    def arrays(self) -> list[Array]:
        """Its memory, and that of its count."""
        return [self.array] if self.counted is None else [self.array, self.counted._array]

    def is_in(self, value: Tensor) -> bool:
        """Whether a tensor is this mean itself, not something computed from it."""
        return value._array is self.array


class _Known(dict[int, tuple["weakref.ref[Any]", K]]):
    """What is known of tensors, by the identity of their arrays, which are not kept alive."""

    def note(self, tensor: Tensor, what: K) -> None:
        self[id(tensor._array)] = weakref.ref(tensor._array), what

    def of(self, tensor: object) -> K | None:
        array = getattr(tensor, "_array", None)
        found = self.get(id(array)) if self and array is not None else None
        return found[1] if found is not None and found[0]() is array else None

    def has(self, tensor: object) -> bool:
        return self.of(tensor) is not None


@dataclass(frozen=True, slots=True)
class _Divisor:
    """What something was divided by: a number without a graph, times a factor.

    number: a whole number of the program's may count something, too. If it is several numbers, such
        as one for each output, their mean has no number of terms.
    is_count: whether it was computed from all elements of some tensor, such as a mask.
    """

    number: Tensor | float
    factor: float
    is_count: bool

    def mean(self, result: Tensor, size: float, rows: int | None) -> Mean:
        """Return that a tensor is a mean of as many terms as it says, times a size."""
        factor, number = self.factor * size, self.number
        if isinstance(number, float):
            return Mean(result._array, number * factor, is_loss=False, is_guess=True)
        terms = number.detach().reshape()
        if (bounded := _listening.unbounded.of(number)) is not None:
            count = bounded.detach().reshape()
            terms = terms * ((count != 0).astype(np.float32) + _NOTHING)
        terms = terms if factor == 1 else terms * factor
        return Mean(result._array, None, terms, is_loss=False, rows=rows)


class _Listening(threading.local):
    """What is reported on this thread.

    means: since the innermost block began; None outside of blocks.
    totals: sums over all elements of some tensor, since the outermost one did: its length.
    counts: numbers computed from totals without a graph, such as mask.sum().clip(1), likewise.
    unbounded: counts that are at least 1: what they were before, in the block.
    shares: what was divided by a number without a graph, in the block: this number.
    gathered: means that were joined to a tensor, likewise.
    parts: sums without a graph over the first axis, and maybe others, but not over all.
    within: what was computed with counts, or from means of so many terms, in the block: the counts.
    bent: roots, exponentials and the like of means, and one number of several elements that is no
        sum of them, such as the largest, likewise.
    """

    def __init__(self) -> None:
        self.means: list[Mean] | None = None
        self.totals = _Known[int]()
        self.counts, self.gathered, self.parts = _Known[bool](), _Known[bool](), _Known[bool]()
        self.shares, self.within = _Known[_Divisor](), _Known[list["Tensor"]]()
        self.unbounded = _Known["Tensor"]()
        self.bent = _Known[bool]()

    def forget(self) -> None:
        """Begin anew."""
        for found in (self.totals, self.counts, self.gathered, self.parts, self.bent):
            found.clear()
        self.let_go()

    def let_go(self) -> None:
        """Forget what holds arrays."""
        for found in (self.shares, self.unbounded, self.within):
            found.clear()


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
        _listening.totals.pop(id(result._array), None)  # of terms that were divided before
    return result


def note_average(result: Tensor, of: Tensor) -> Tensor:
    """Report that `result` is the mean of all elements of a tensor, and return it."""
    if _listening.means is None or _is_noted_again(result, of) or _listening.gathered.has(of):
        return result  # a mean of means has the terms of these
    divisor = _listening.shares.of(of)
    if divisor is None or isinstance(divisor.number, float):
        _listening.means.append(Mean(result._array, of.size, is_loss=False, rows=of.shape[0]))
    else:
        _note_mean_by(result, divisor, of.size)
    return result


def note_total(result: Tensor, of: Tensor) -> Tensor:
    """Report that `result` is the sum of all elements of a tensor, and return it."""
    if _listening.means is not None and not _is_noted_again(result, of):
        _note_total(result, of.shape[0], _listening.shares.of(of))
    return result


def note_part(result: Tensor, axes: Sequence[int]) -> Tensor:
    """Report that `result` is a sum over some axes, but not over all elements, and return it."""
    if _listening.means is not None and 0 in axes and not result.requires_grad:
        _listening.parts.note(result, True)
    return result


def note_one_of(result: Tensor, of: Tensor) -> Tensor:
    """Report that `result` is no sum of the elements of a tensor, and return it.

    Such as the largest, their product or their deviation: of two halves it is no mean of theirs.
    """
    if _listening.means is not None and result.size == 1 < of.size:
        _listening.bent.note(result, True)
    return result


def note_dot(result: Tensor, *factors: Tensor) -> Tensor:
    """Report that `result` is the sum of all elements of a product, and return it."""
    if _listening.means is not None:
        found = [each for each in map(_listening.shares.of, factors) if each is not None]
        _note_total(result, factors[0].shape[0], found[0] if found else None)
    return result


def _note_total(result: Tensor, rows: int, divisor: _Divisor | None) -> None:
    """Report a sum of all elements, or a mean if they were divided by the number of terms."""
    if divisor is not None:
        _note_mean_by(result, divisor, rows=rows)
    if divisor is None or isinstance(divisor.number, float):
        _listening.totals.note(result, rows)


def _is_noted_again(result: Tensor, of: Tensor) -> bool:
    """Whether a tensor is one number, of which `result` is the mean or sum: all is known of it."""
    if of.ndim == 0:
        note_alike(result, of)
    return of.ndim == 0


def note_alike(result: Tensor, of: Tensor) -> Tensor:
    """Report that `result` is another tensor in other words, such as negated, and return it.

    So all is known of it that is known of the other: that it is a mean, or a sum.
    """
    if _listening.means is not None and result._array is not of._array:
        known = [each for each in _listening.means if each.is_in(of)] if of.size == 1 else ()
        _listening.means += [replace(each, array=result._array, is_alias=True) for each in known]
        of_all: tuple[_Known[Any], ...] = (
            _listening.totals, _listening.counts, _listening.gathered, _listening.shares
        )  # fmt: skip
        for found in of_all:
            if (what := found.of(of)) is not None:
                found.note(result, what)
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
                _listening.shares.note(result, divisor)
                _note_within(result, [counted] if _is_total(counted) else ())
        elif _listening.parts.has(counted):
            _listening.shares.note(result, _Divisor(counted, 1.0, True))
    elif number := _near_whole(count):
        divisor = _Divisor(number, 1.0, True)
        if result.size > 1:
            _listening.shares.note(result, divisor)
        elif not any(mean.is_in(total) for mean in _noted()):
            _note_mean_by(result, divisor)
    return result


def _near_whole(count: object) -> float | None:
    """A number of the program's that is nearly whole, as one to which an eps is added."""
    if isinstance(count, np.ndarray) and count.size == 1:
        count = count.item()
    if not isinstance(count, Real) or not abs(number := float(count)) < np.inf:
        return None
    whole = float(round(number))
    return whole if abs(number - whole) <= _NEAR_WHOLE else None


def note_sum(result: Tensor, a: Tensor, b: object) -> Tensor:
    """Report that `result` is the sum of a tensor and a tensor or number, and return it.

    A sum of sums of all elements is one of the elements of both; it may begin with 0, as Python's.
    """
    rows = [_listening.totals.of(each) for each in (a, b)]
    known = [each for each in rows if each is not None]
    if len(known) == 2 or (known and _is_constant(b if rows[1] is None else a)):
        _listening.totals.note(result, sum(known))
    return result


def _is_constant(number: Any) -> bool:
    """Whether it is a number that depends on no parameter."""
    is_single = getattr(number, "size", 0) == 1
    return isinstance(number, Real) or (is_single and not getattr(number, "requires_grad", False))


def note_reciprocal(result: Tensor, number: object, of: Tensor) -> Tensor:
    """Report that `result` is a number divided by a tensor, and return it."""
    if _listening.means is None or not isinstance(number, Real) or not number:
        return result
    if of.size == 1 and not of.requires_grad:
        _listening.shares.note(result, _Divisor(of, 1 / float(number), _is_count(of)))
    return result


def note_product(result: Tensor, a: Tensor, b: object) -> Tensor:
    """Report that `result` is the product of a tensor and a tensor or number, and return it.

    A product with what was divided by a number has been divided by that number. A sum of all
    elements times a number of the program's remains one.
    """
    if (rows := _listening.totals.of(a)) is not None and isinstance(b, Real):
        _listening.totals.note(result, rows)
    if _listening.means is not None and _listening.shares:
        for share, other in ((a, b), (b, a)):
            divisor = _listening.shares.of(share)
            if divisor is None or _listening.shares.has(other):
                continue
            if not _is_noted_by(result, other, divisor) and divisor.is_count:
                _listening.shares.note(result, divisor)
    return result


def note_number(result: Tensor, operation: str, of: Sequence[Tensor]) -> Tensor:
    """Report that `result` was computed from these tensors without a graph, and return it."""
    if _listening.means is None:
        return result
    if any(map(_listening.parts.has, of)):
        _listening.parts.note(result, True)
    is_bending = result.size == 1 and operation in _BENDING
    if is_bending and any(mean.is_in(each) for mean in _listening.means for each in of):
        _listening.bent.note(result, True)
    if result.size == 1 and operation in _COUNTING and any(map(_is_count, of)):
        _listening.counts.note(result, True)
        before = [*map(_listening.unbounded.of, of)]
        found = [each for each in before if each is not None]
        found += filter(_is_count, of) if operation in _BOUNDING else ()
        if found:
            _listening.unbounded.note(result, found[0])
        return result
    _note_within(result, [each for each in of if _is_total(each)])
    return note_computed(result, of)


def note_computed(result: Tensor, of: Sequence[Tensor]) -> Tensor:
    """Report that `result` was computed from these tensors, and return it.

    If it is not recognized as a mean, as exp(log(sum) - log(count)), it depends on that count. A
    count that is added, or multiplies, does not make a mean.
    """
    if _listening.means is not None and _listening.within:
        _note_within(result, [count for each in of for count in _counts_within(each)])
    return result


def note_gathered(result: Tensor, of: Sequence[Tensor]) -> Tensor:
    """Report that `result` joins these numbers, and return it."""
    if (means := _listening.means) and any(mean.is_in(each) for mean in means for each in of):
        _listening.gathered.note(result, True)
    return result


def is_bent(value: object) -> bool:
    """Whether it is no mean in a block, but the root of one, the largest element or the like."""
    return _listening.bent.has(value)


def _is_noted_by(result: Tensor, whole: object, divisor: _Divisor) -> bool:
    """Whether what is divided is a sum or mean of all elements, and its quotient a mean."""
    average = _average_of(whole)
    is_mean = result.size == 1 and (average is not None or _listening.totals.has(whole))
    if is_mean:
        size = None if average is None else average.count
        rows = _listening.totals.of(whole)
        _note_mean_by(result, divisor, 1 if size is None else size, rows)
    return is_mean


def _note_mean_by(
    result: Tensor, divisor: _Divisor, size: float = 1, rows: int | None = None
) -> None:
    """Report a mean of as many terms as something was divided by, times a size.

    Or, if that is several numbers, what was computed from several means.
    """
    number = divisor.number
    if isinstance(number, float) or number.size == 1:
        _noted().append(divisor.mean(result, size, rows))
    if not isinstance(number, float):
        _note_within(result, [number.detach()])


def _note_within(result: Tensor, counts: Sequence[Tensor]) -> None:
    if counts := [*counts, *_counts_within(result)]:
        _listening.within.note(result, [*{id(count._array): count for count in counts}.values()])


def _counts_within(tensor: Tensor) -> Sequence[Tensor]:
    """The counts that a tensor was computed with."""
    return _listening.within.of(tensor) or ()


def _noted() -> list[Mean]:
    assert _listening.means is not None
    return _listening.means


def _average_of(tensor: object) -> Mean | None:
    """What is known of a tensor that is the mean of all elements of another."""
    array = getattr(tensor, "_array", None)
    found = [each for each in _listening.means or () if each.array is array]
    plain = [each for each in found if not each.is_loss and each.count is not None]
    return plain[0] if len(found) == len(plain) == 1 else None


def _is_total(tensor: Tensor) -> bool:
    """Whether a number is a sum of all elements of some tensor, or computed from one as counts."""
    return _listening.totals.has(tensor) or _listening.counts.has(tensor)


def _is_count(tensor: Tensor) -> bool:
    """Whether a number was computed from all elements of some tensor, as those of a mask."""
    return _is_total(tensor) or _average_of(tensor) is not None


def _computed_from(means: Sequence[Mean]) -> list[Mean]:
    """The numbers that were computed with counts, or from means of so many terms."""
    known = {id(mean.array) for mean in means}
    alive = ((array(), counts) for array, counts in _listening.within.values())
    return [
        Mean(array, None, count, is_loss=False, is_within=True)
        for array, counts in alive
        if array is not None and array.size == 1 and id(array) not in known
        for count in counts
    ]


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
        if _listening.within:
            found += _computed_from(found)
        _listening.let_go()
        if around is not None:
            around += found
