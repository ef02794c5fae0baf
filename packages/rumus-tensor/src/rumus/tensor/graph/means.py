"""The number of terms in a loss's mean, which losses report to code that combines batches.

The mean over all tokens of two batches is not the mean of their means weighted by rows. A loss
function knows how many terms it averaged; a loop that accumulates over batches needs to know it
too. What is neither a mean, nor means times numbers added up, has no such weight.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from rumus.tensor.graph.combination import (
    OF_ANY,
    OF_NONE,
    Combination,
    Combined,
    Known,
    Mean,
    Means,
    Total,
)
from rumus.tensor.memory.uninterrupted import displacing

if TYPE_CHECKING:
    from rumus.tensor.graph.tensor import Tensor

# What makes of a count another, as of one that is at least 1.
_BOUNDING: Final = frozenset(("maximum", "clip", "where"))
_COUNTING: Final = _BOUNDING | {"add", "sub", "mul", "minimum"}
_NEAR_WHOLE: Final = 1e-3  # float(mask.sum()) + 1e-6 counts as float(mask.sum()) does
_NOTHING: Final = 1e-8  # the weight of a mean of no terms, which is 0 / 1


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

    def mean(self, result: Tensor, size: float, total: Total | None) -> Mean:
        """Return that a tensor is a mean of as many terms as it says, times a size.

        total: what was divided, if that is a sum.
        """
        factor, number, array = self.factor * size, self.number, result._array
        rows = None if total is None else total.rows
        if isinstance(number, float):
            return Mean(array, number * factor, None, False, rows, is_guess=True, total=total)
        terms = number.detach().reshape()
        if (bounded := _listening.unbounded.of(number)) is not None:
            count = bounded.detach().reshape()
            terms = terms * ((count != 0).astype(np.float32) + _NOTHING)
        terms = terms if factor == 1 else terms * factor
        return Mean(array, None, terms, False, rows, total=None if self.is_count else total)


class _Listening(threading.local):
    """What is reported on this thread.

    means: since the innermost block began; None outside of blocks.
    totals: sums over all elements of some tensor, since the outermost one did.
    parts: sums over the first axis, and maybe others, but not over all, likewise.
    inner: sums over others, likewise: the shape of what was summed.
    bent: roots of means, the largest of several numbers and the like, which are no means of two
        halves of a batch: of how many along the first axis; 0 if that is not known.
    joined: several such totals, stacked: of each sample, perhaps.
    moved: tensors whose first axis, of samples, is now another: which.
    counts: numbers computed from totals without a graph, such as mask.sum().clip(1).
    unbounded: counts that are at least 1: what they were before, since a block began or ended.
    shares: what was divided by a number without a graph: this number, likewise.
    """

    def __init__(self) -> None:
        self.means: Means | None = None
        self.totals, self.parts = Known[Total](), Known[Total]()
        self.inner, self.bent, self.moved = Known[tuple[int, ...]](), Known[int](), Known[int]()
        self.joined, self.counts = Known[bool](), Known[bool]()
        self.shares, self.unbounded = Known[_Divisor](), Known["Tensor"]()

    def forget(self) -> None:
        """Begin anew."""
        known = self.totals, self.parts, self.inner, self.bent, self.moved, self.joined
        for found in (*known, self.counts):
            found.clear()
        self.let_go()

    def let_go(self) -> None:
        """Forget what holds arrays."""
        self.shares.clear()
        self.unbounded.clear()


_listening = _Listening()


def note_mean(result: Tensor, count: Tensor | float) -> Tensor:
    """Report that `result` is a loss, the mean of `count` terms, and return it."""
    if (means := _listening.means) is not None:
        known, counted = (
            (count, None) if isinstance(count, (int, float)) else (None, count.detach())
        )
        if means and means[-1].array is result._array:  # the quotient that it is
            means.pop()
        _note(result, Mean(result._array, known, counted))
        _listening.totals.drop(result)  # of terms that were divided before
    return result


def note_average(result: Tensor, of: Tensor) -> Tensor:
    """Report that `result` is the mean of all elements of a tensor, and return it."""
    if _listening.means is None or _is_noted_again(result, of):
        return result
    if (combination := _combination_of(of)) is not None:
        _combine(result, combination)
        return result
    divisor = _listening.shares.of(of)
    if divisor is None or isinstance(divisor.number, float):
        folded, is_guess = _folded(of), _listening.joined.has(of)
        mean = Mean(result._array, of.size, None, False, of.shape[0], folded, is_guess)
        _note(result, mean)
    else:
        _note_mean_by(result, divisor, of.size)
    return result


def note_total(result: Tensor, of: Tensor) -> Tensor:
    """Report that `result` is the sum of all elements of a tensor, and return it."""
    if _listening.means is None or _is_noted_again(result, of):
        return result
    if (combination := _combination_of(of)) is not None:
        _combine(result, combination.times(of.size) if combination.has_means else combination)
    elif (folded := _listening.bent.of(of)) is not None:
        _listening.bent.note(result, folded)
    else:
        total = Total.of(_listening.inner.of(of) or of.shape)
        _note_total(result, total, _listening.shares.of(of))
    return result


def note_part(result: Tensor, of: Tensor, axes: Sequence[int], *, is_mean: bool) -> Tensor:
    """Report that `result` is a sum or a mean over some axes of a tensor, and return it."""
    if _listening.means is None:
        return result
    count, at = of.size // max(result.size, 1), _listening.moved.of(of) or 0
    if (combination := _combination_of(of)) is not None:
        is_alike = is_mean or not combination.has_means
        _combine(result, combination if is_alike else combination.times(count))
    elif (total := _listening.parts.of(of)) is not None:
        _keep_parts(result, total)
    elif (folded := _listening.bent.of(of)) is not None:
        _listening.bent.note(result, folded)
    elif at in axes and is_mean:
        _combine(result, Mean(result._array, count, None, False, of.shape[at]))
    elif at in axes:
        total = Total.of(_listening.inner.of(of) or of.shape)
        _listening.parts.note(result, total._replace(rows=of.shape[at]))
    elif not is_mean:
        _listening.inner.note(result, _listening.inner.of(of) or of.shape)
    return result


def note_one_of(result: Tensor, of: Tensor, axes: Sequence[int]) -> Tensor:
    """Report that `result` is no sum over axes of a tensor, and return it.

    Such as the largest, their product or their deviation: of two halves it is no mean of theirs.
    """
    at = _listening.moved.of(of) or 0
    if _listening.means is not None and at in axes and of.size > result.size:
        for known in (_listening.totals, _listening.counts):
            known.drop(result)  # a variance is computed by sums
        _bend(result, of.shape[at] if result.size > 1 else 0)
    return result


def note_dot(result: Tensor, *factors: Tensor) -> Tensor:
    """Report that `result` is the sum of all elements of a product, and return it."""
    if _listening.means is not None:
        found = [each for each in map(_listening.shares.of, factors) if each is not None]
        _note_total(result, Total.of(factors[0].shape), found[0] if found else None)
    return result


def _note_total(result: Tensor, total: Total, divisor: _Divisor | None) -> None:
    """Report a sum of all elements, or a mean if they were divided by the number of terms."""
    if divisor is not None:
        _note_mean_by(result, divisor, total=total)
    if divisor is None or isinstance(divisor.number, float):
        _listening.totals.note(result, total)


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
        _listening.bent.drop(result)
        of_all: tuple[Known[Any], ...] = (
            _listening.totals, _listening.parts, _listening.inner, _listening.bent,
            _listening.joined, _listening.counts, _listening.shares, _listening.means.combined,
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
        _note_tensor_quotient(result, total, count)
    elif (number := _real(count)) is not None:
        whole, of = _near_whole(number), _listening.totals.of(total)
        if (combination := _combination_of(total)) is not None:
            _combine(result, combination.times(1 / number if number else math.inf))
        elif (part := _listening.parts.of(total)) is not None:
            if whole is None:
                _keep_parts(result, part)
            else:
                _combine(result, _Divisor(whole, 1.0, True).mean(result, 1, part))
        elif whole is not None and result.size > 1:
            _listening.shares.note(result, _Divisor(whole, 1.0, True))
        elif whole is not None and of is not None:
            _note_mean_by(result, _Divisor(whole, 1.0, True), total=of)
    return result


def _note_tensor_quotient(result: Tensor, total: Tensor, count: Any) -> None:
    """Report that `result` is `total` divided by a tensor."""
    if not _is_constant(count):
        if not count.requires_grad and _folded(count) is not None:  # a count of each output
            _listening.shares.note(result, _Divisor(count, 1.0, True))
        return
    if not count.requires_grad:
        divisor = _Divisor(count, 1.0, _is_count(count))
        if _is_noted_by(result, total, divisor):
            return
        if divisor.is_count:
            _listening.shares.note(result, divisor)
    combination = _combination_of(total)
    if combination is not None and _is_number_beside(count, combination):
        _combine(result, _scaled(combination, count, -1))
    elif (part := _listening.parts.of(total)) is not None:
        if count.requires_grad or _listening.bent.has(count):
            _keep_parts(result, part)
        else:
            divisor = _Divisor(count, 1.0, _is_count(count))
            _combine(result, divisor.mean(result, 1, part))


def _real(number: object) -> float | None:
    """A number of the program's."""
    if isinstance(number, np.ndarray) and number.size == 1:
        number = number.item()
    return float(number) if isinstance(number, Real) else None


def _near_whole(number: float) -> float | None:
    """A number of the program's that is nearly whole, as one to which an eps is added."""
    whole = float(round(number)) if math.isfinite(number) else 0.0
    return whole if whole and abs(number - whole) <= _NEAR_WHOLE else None


def note_sum(result: Tensor, a: object, b: object, sign: int = 1) -> Tensor:
    """Report that `result` is the sum of two tensors, or of one and a number, and return it.

    A sum of sums of all elements is one of the elements of both; it may begin with 0, as Python's.

    sign: -1 for a difference.
    """
    if _listening.means is None:
        return result
    if _listening.totals or _listening.parts:
        _note_sum_of_sums(result, a, b)
    ours, theirs = _combination_of(a), _combination_of(b)
    if ours is None and theirs is None:
        return result
    if ours is not None and theirs is not None:
        if ours is not OF_NONE or theirs is not OF_NONE:
            _combine(result, Combination(((1.0, (), ours), (float(sign), (), theirs))))
    elif ours is not None:
        _note_sum_with_other(result, ours, b, 1.0)
    elif theirs is not None:
        _note_sum_with_other(result, theirs, a, float(sign))
    return result


def _note_sum_of_sums(result: Tensor, a: object, b: object) -> None:
    """Report that `result` is a sum of elements if both are, or one is and the other a number."""
    for known, is_beside in ((_listening.totals, False), (_listening.parts, True)):
        one, another = known.of(a), known.of(b)
        if one is not None and another is not None:
            known.note(result, one.with_more(another, is_beside=is_beside))
        elif (total := one or another) is not None:
            other = b if one is not None else a
            if not _is_constant(other) or _is_own(other):
                continue
            known.note(result, total)
        else:
            continue
        _listening.bent.drop(result)


def _note_sum_with_other(
    result: Tensor, combination: Combination, other: object, factor: float
) -> None:
    """Report that `result` is a combination times a factor, plus something else."""
    if not combination.has_means:
        # Beside a number of the program's, as the 0 that sum() begins with, nothing is to be noted.
        if hasattr(other, "requires_grad") and _is_number_beside(other, combination):
            _combine(result, combination.times(factor))
    elif (number := _real(other)) is not None:
        _combine(result, Combination(((factor, (), combination), (number, (), OF_ANY))))
    elif getattr(other, "size", 0) == 1 and hasattr(other, "requires_grad"):
        value = ((cast("Tensor", other).detach().reshape(), 1),)
        _combine(result, Combination(((factor, (), combination), (1.0, value, OF_ANY))))
    elif result.requires_grad and result.size > 1:
        _bend(result, 0)  # of a mean and numbers of each sample


def _is_constant(number: Any) -> bool:
    """Whether it is one number that depends on no parameter, or depends on parameters alone."""
    if not hasattr(number, "requires_grad"):
        return _real(number) is not None
    return (number.size == 1 and not number.requires_grad) or _is_own(number)


def note_reciprocal(result: Tensor, number: object, of: Tensor) -> Tensor:
    """Report that `result` is a number divided by a tensor, and return it."""
    if _listening.means is None or not isinstance(number, Real) or not number:
        return result
    if of.size == 1 and not of.requires_grad:
        _listening.shares.note(result, _Divisor(of, 1 / float(number), _is_count(of)))
    return result


def note_product(result: Tensor, a: object, b: object) -> Tensor:
    """Report that `result` is the product of two tensors, or of one and a number, and return it.

    A product with what was divided by a number has been divided by that number. A sum of all
    elements times a number remains one.
    """
    if _listening.means is None:
        return result
    for share, other in ((a, b), (b, a)) if _listening.shares else ():
        divisor = _listening.shares.of(share)
        if divisor is None or _listening.shares.has(other):
            continue
        if _is_noted_by(result, other, divisor):
            return result
        if divisor.is_count:
            factor = divisor.factor / (_real(other) or 1.0)
            _listening.shares.note(result, replace(divisor, factor=factor))
    for one, number in ((a, b), (b, a)):
        combination = _combination_of(one)
        if combination is not None and _multiplies(number, combination, result):
            _combine(result, _scaled(combination, number, 1))
        if _is_constant(number):
            if (total := _listening.totals.of(one)) is not None:
                _listening.totals.note(result, total)
            if (total := _listening.parts.of(one)) is not None:
                _keep_parts(result, total)
    return result


def _is_number_beside(number: Any, combination: Combination) -> bool:
    """Whether something is a number in a sum or product with means, or with a penalty.

    A tensor with axes beside parameters may be the batch.
    """
    own = None if combination.has_means else _combination_of(number)
    if own is not None and own.has_means:
        return False
    is_number = combination.has_means or getattr(number, "ndim", 0) == 0 or own is not None
    return is_number and _is_constant(number)


def _multiplies(number: Any, combination: Combination, result: Tensor) -> bool:
    """Whether something multiplies means as a number does, or as one for each of them.

    What is computed of a batch, such as other means, is no number.
    """
    if _is_number_beside(number, combination):
        return True
    is_plain = not getattr(number, "requires_grad", True) and _folded(number) is None
    return is_plain and combination.has_means and number.size == result.size


def _scaled(combination: Combination, number: Any, power: int) -> Combination:
    """A combination times the power of a number; one of parameters is the same for all batches."""
    if (known := _real(number)) is not None:
        return combination.times(known)
    if number.requires_grad or number.size != 1:
        return combination.times(1.0)
    return combination.times(1.0, (number.detach(), power))


def note_number(result: Tensor, operation: str, of: Sequence[Tensor]) -> Tensor:
    """Report that `result` was computed from these tensors without a graph, and return it."""
    if _listening.means is None:
        return result
    is_counting = operation in _COUNTING
    if is_counting and result.size == 1 and any(map(_is_count, of)):
        _listening.counts.note(result, True)
        before = [*map(_listening.unbounded.of, of)]
        found = [each for each in before if each is not None]
        found += filter(_is_count, of) if operation in _BOUNDING else ()
        if found:
            _listening.unbounded.note(result, found[0])
    note_computed(result, of)
    found_parts = [each for each in map(_listening.parts.of, of) if each is not None]
    if is_counting and found_parts:
        _keep_parts(result, found_parts[0])
    return result


def note_computed(result: Tensor, of: Sequence[Tensor]) -> Tensor:
    """Report that `result` was computed from these tensors, in any way, and return it.

    What is known to be a sum, a product with a number or the like is reported after this.
    """
    if (means := _listening.means) is None or not of:
        return result
    combined = means.combined
    for each in of:
        if not each._is_parameter and ((c := combined.of(each)) is None or c.has_means):
            break
    else:
        combined.note(result, OF_NONE)
        return result
    if combined or _listening.parts or _listening.bent:
        for each in of:
            folded = _folded(each)
            if folded is not None and result.size <= each.size:  # no number of each sample
                _bend(result, folded)
                break
    for each in of if _listening.moved else ():
        if (at := _listening.moved.of(each)) is not None and each.shape == result.shape:
            _listening.moved.note(result, at)
    return result


def note_gathered(result: Tensor, of: Sequence[Tensor]) -> Tensor:
    """Report that `result` joins these tensors, and return it."""
    if _listening.means is None:
        return result
    found = [*map(_combination_of, of)]
    known = [each for each in found if each is not None]
    if known and len(known) == len(of):
        shares = [part.size / result.size for part in of]
        pairs = zip(shares, known, strict=True)
        _combine(result, Combination(tuple([(share, (), each) for share, each in pairs])))
    elif any(map(_is_no_sample, of)):
        _bend(result, 0)
    elif len(totals := [each for each in of if _listening.totals.has(each)]) == len(of):
        _listening.joined.note(result, True)
    elif totals:
        _bend(result, 0)
    return result


def note_permuted(result: Tensor, of: Tensor, order: Sequence[int]) -> Tensor:
    """Report that `result` has the axes of a tensor in another order, and return it."""
    if _listening.means is not None:
        at = order.index(_listening.moved.of(of) or 0) if order else 0
        if at:
            _listening.moved.note(result, at)
        else:
            _listening.moved.drop(result)
    return result


def note_matmul(result: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Report that `result` is the matrix product of two tensors, and return it.

    Of x.transpose() @ y each element is a sum over samples.
    """
    if _listening.means is None:
        return result
    for one, other in ((a, b), (b, a)):
        combination = _combination_of(one)
        if combination is None or not combination.has_means:
            continue
        if _multiplies(other, combination, one):
            _combine(result, combination.times(1.0))
            return result
    if result.size == 1:
        return note_dot(result, a, b) if a.ndim > 1 else result
    is_over_first = a.ndim == 1 or _listening.moved.of(a) == a.ndim - 1
    if is_over_first and not _is_own(a):
        _keep_parts(result, Total.of(a.shape[::-1]))
    elif _listening.moved.of(b) == b.ndim - 1 and _is_own(a):
        _listening.moved.note(result, result.ndim - 1)
    return result


def _is_no_sample(part: Tensor) -> bool:
    """Whether it is computed from several samples, or is a list of parameters."""
    return _folded(part) is not None or (part.ndim == 1 and _is_own(part))


def is_noting() -> bool:
    """Whether this thread is in a block, as the loss function of a training step is."""
    return _listening.means is not None


def is_sum(value: object) -> bool:
    """Whether it is a sum of all elements of some tensor in a block, of several."""
    total = _listening.totals.of(value)
    return total is not None and total.elements > 1


def is_bent(value: object) -> bool:
    """Whether it is no mean in a block, but the root of one, the largest element or the like."""
    return _listening.bent.has(value)


def _note(result: Tensor, mean: Mean) -> None:
    """Report a mean over all elements."""
    assert _listening.means is not None
    if _is_own(result):
        return
    _listening.means.append(mean)
    _combine(result, mean)


def _combine(result: Tensor, combination: Combined) -> None:
    assert _listening.means is not None
    if combination is not OF_NONE:  # which is known of what is computed from parameters
        _listening.means.combined.note(result, combination)
        _listening.bent.drop(result)


def _bend(result: Tensor, folded: int) -> None:
    _listening.bent.note(result, folded)
    _listening.parts.drop(result)


def _keep_parts(result: Tensor, total: Total) -> None:
    _listening.parts.note(result, total)
    _listening.bent.drop(result)


def _folded(tensor: Tensor) -> int | None:
    """Of how many along the first axis a tensor is a sum, a mean, a root and so on; 0 if unknown.

    None if it is of none: it has a number for each sample, or for each of another kind.
    """
    if (total := _listening.parts.of(tensor)) is not None:
        return total.rows
    if (folded := _listening.bent.of(tensor)) is not None:
        return folded
    combination = _combination_of(tensor)
    if combination is None or not combination.has_means:
        return None
    counts = {mean.rows for mean in combination.means} if tensor.size > 1 else {None}
    return counts.pop() or 0 if len(counts) == 1 else 0


def _is_own(tensor: Any) -> bool:
    """Whether it is a parameter, or computed from parameters alone."""
    combination = _combination_of(tensor)
    return combination is not None and not combination.has_means


def _combination_of(tensor: Any) -> Combination | None:
    """What a tensor is of means; of none, for a parameter."""
    if getattr(tensor, "_is_parameter", False):
        return OF_NONE
    return None if _listening.means is None else _listening.means.combination(tensor)


def _is_noted_by(result: Tensor, whole: object, divisor: _Divisor) -> bool:
    """Whether what is divided is a sum or mean of all elements, and its quotient a mean.

    By a count, or for a sum by a number that may be one, unlike the largest element or a norm.
    """
    if result.size != 1:
        return False
    average, total = _average_of(whole) if divisor.is_count else None, _listening.totals.of(whole)
    is_mean = total is not None and (divisor.is_count or not _listening.bent.has(divisor.number))
    if average is not None or is_mean:
        size = None if average is None else average.count
        _note_mean_by(result, divisor, 1 if size is None else size, total)
    return average is not None or is_mean


def _note_mean_by(
    result: Tensor, divisor: _Divisor, size: float = 1, total: Total | None = None
) -> None:
    """Report a mean of as many terms as something was divided by, times a size.

    Or, if that is several numbers, what was computed from several means.
    """
    number = divisor.number
    if isinstance(number, float) or number.size == 1:
        _note(result, divisor.mean(result, size, total))
    else:
        _bend(result, 0)


def _average_of(tensor: object) -> Mean | None:
    """What is known of a tensor that is the mean of all elements of another."""
    array = getattr(tensor, "_array", None)
    found = [each for each in _listening.means or () if each.array is array]
    plain = [m for m in found if not m.is_loss and m.count is not None and m.folded is None]
    return plain[0] if len(found) == len(plain) == 1 else None


def _is_count(tensor: Tensor) -> bool:
    """Whether a number was computed from all elements of some tensor, as those of a mask."""
    if _listening.totals.has(tensor) or _listening.counts.has(tensor):
        return True
    return _average_of(tensor) is not None and not _listening.bent.has(tensor)


def note_again(means: Means) -> None:
    """Report what was reported in another block, as for a replay what was when it was recorded."""
    if (listening := _listening.means) is not None:
        listening += means
        listening.combined.update(means.combined)


@contextmanager
def noting_means() -> Iterator[Means]:
    """Collect the means reported on this thread within the block.

    A block around it learns nothing of them, unless `note_again` says so.
    """
    if _listening.means is None:
        _listening.forget()
    try:
        yield from displacing(_listening, "means", Means())
    finally:
        _listening.let_go()
