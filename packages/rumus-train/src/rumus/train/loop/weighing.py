"""`Weighing`: the weights that make several batches equal to one batch of all their samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NoReturn

from rumus.tensor import Tensor
from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.graph.combination import OF_MEAN, Combination, Factors, Mean, Means

ADVICE: Final = "give weight_of=, a function that returns the weight of a batch"
_UNREAD: Final = f"only the device knows how many targets are ignored: {ADVICE}"
_UNKNOWN: Final = (
    "the loss is no mean over its batch, such as x.mean() or (x * mask).sum() / mask.sum(), nor "
    "several added up: nothing tells how much a batch counts beside others: reduce it with mean(), "
    f"or {ADVICE}"
)
_ADDED: Final = (
    "the loss is no mean over its batch: beside means it has {:g} in a batch, and {:g} in another "
    f"that counts beside it, as of a sum or a largest one: reduce that with mean(), or {ADVICE}"
)
_MIXED: Final = (
    "the loss is a mean over one batch, and several means added up, or times numbers, over another "
    f"of the same step: {ADVICE}"
)


@dataclass(frozen=True, slots=True)
class Basis:
    """What weighs a batch by its samples, or by other numbers, if they are proportional in all.

    counts: of the terms that each loss averages, or that a sum may have been divided by.
    plain: of those of other means, which may be constant: over the parameters, perhaps.
    factors: what all of them are multiplied by, together, what depends on no batch, and the rest.
    is_mean: whether it is of one mean, whose count weighs the batch, if all batches have one.
    weight: that of the batch; None if it is the number of samples.
    """

    samples: float
    counts: tuple[float, ...]
    plain: tuple[float, ...]
    factors: Factors = OF_MEAN
    is_mean: bool = False
    weight: float | None = None

    @property
    def kind(self) -> tuple[bool, bool]:
        """Whether it is of one mean, and whether its terms are as many as the samples."""
        return self.is_mean, self.is_mean and self.counts == (self.samples,)

    def beside(self, first: Basis, *, may_be_constant: bool = True) -> Basis:
        """Return it with its weight beside another batch.

        may_be_constant: whether terms may be as many for any number of samples.

        Raises ValueError if neither the samples nor the terms would weigh both equally.
        """
        share = self._share(first, may_be_constant)
        if share is None:
            self._check(first)
            return self if first.weight is None else replace(self, weight=self._by_samples(first))
        return replace(self, weight=share * first._weight)

    def check(self, first: Basis) -> None:
        """Raise ValueError if this batch and another are not weighed equally."""
        if not math.isclose(self._weight, self.beside(first)._weight, rel_tol=1e-6):
            self._check(first)

    @property
    def is_by_samples(self) -> bool:
        """Whether the number of samples is its weight."""
        return self.weight is None

    @property
    def _weight(self) -> float:
        return self.samples if self.weight is None else self.weight

    def _by_samples(self, first: Basis) -> float:
        return first._weight * self.samples / first.samples if first.samples else self.samples

    def _share(self, first: Basis, may_be_constant: bool) -> float | None:
        """How much it counts beside another batch, by the terms of all means in both.

        None if that is not known: where there may be a mean for each sample, whose numbers of terms
        weigh nothing, and where they are as many for other numbers of samples and may always be.
        """
        now, then = (*self.counts, *self.plain), (*first.counts, *first.plain)
        if len(self.counts) != len(first.counts) or len(now) != len(then) or not now:
            return None
        if not (all(then) and self.samples and first.samples):
            return None
        if len(now) % self.samples == 0 or len(now) % first.samples == 0:
            return None
        shares = [a / b for a, b in zip(now, then, strict=True)]
        are_equal = all(math.isclose(share, shares[0], rel_tol=1e-9) for share in shares)
        is_constant = may_be_constant and shares[0] == 1 and self.samples != first.samples
        return shares[0] if are_equal and not is_constant else None

    def _check(self, first: Basis) -> None:
        """Raise ValueError if the samples would not weigh this batch and another equally."""
        own, samples = first.samples, self.samples

        def is_even(a: float, b: float) -> bool:
            return a == b or a * own == b * samples

        if len(self.plain) == len(first.plain):
            pairs = zip(self.plain, first.plain, strict=True)
            uneven = [(a, b) for a, b in pairs if not is_even(a, b)]
        else:  # there is one for each sample, perhaps
            uneven = [
                (a, first.plain[0])
                for a in self.plain
                if first.plain and not any(is_even(a, b) for b in first.plain)
            ]
        now, then = [n * own for n in self.counts], [n * samples for n in first.counts]
        if len(now) != len(then):  # other losses are in it, as of a term that begins later
            now, then = sorted({*now}), sorted({*then})
            is_each = len(self.counts) * own == len(first.counts) * samples
            if is_each and {*self.counts} == {*first.counts}:
                now = then  # one for each sample
        if now != then or uneven:
            told = (first.counts, self.counts) if not uneven else (uneven[0][1:], uneven[0][:1])
            _raise_uneven(told[0], own, told[1], samples)

    def check_factors(self, first: Basis) -> None:
        """Raise ValueError if means are multiplied by other numbers than in another batch."""
        rest = first.factors[-1], self.factors[-1]
        if not (math.isclose(*rest, rel_tol=1e-9) or math.isnan(sum(rest))):
            raise ValueError(_ADDED.format(*rest))
        pairs = zip(("means in it are", "a penalty is"), first.factors, self.factors, strict=False)
        for what, then, now in pairs:
            is_known = math.isfinite(then) and math.isfinite(now)  # or gradients tell
            if is_known and not math.isclose(then, now, rel_tol=1e-5, abs_tol=1e-12):
                raise ValueError(
                    f"{what} multiplied by {then:g} in a batch, and by {now:g} in another that "
                    "counts beside it, as if divided by a number of terms: divide by a tensor, "
                    f"such as mask.sum(), or {ADVICE}"
                )


class _Changes:
    """How the terms of each mean have changed from the first batch to others.

    A number that is as large for other samples is a constant, as that of the parameters, unless it
    changes elsewhere: then it is as large by chance, and samples do not weigh it.
    """

    def __init__(self) -> None:
        self._varied, self._constant = set[int](), dict[int, Basis]()

    @property
    def has_constants_only(self) -> bool:
        """Whether no mean is known to be of another number of terms in some batch."""
        return not self._varied

    def see(self, basis: Basis, first: Basis) -> None:
        """Note a batch. Raises ValueError if what counted as a constant was none."""
        if len(basis.plain) != len(first.plain):
            return  # there is one for each sample, perhaps
        for at, (now, then) in enumerate(zip(basis.plain, first.plain, strict=True)):
            if now != then:
                self._varied.add(at)
            elif basis.samples != first.samples and basis.is_by_samples:
                self._constant.setdefault(at, basis)
            if at in self._varied and (chance := self._constant.get(at)) is not None:
                _raise_uneven((then,), first.samples, (then,), chance.samples)


class Weighing:
    """The weights of batches in a mean over all of them.

    A mean counts by its terms: a loss of `rumus.nn` with reduction "mean" by its elements or its
    targets that are not ignored, any other `mean()` by its elements, a sum divided by a tensor by
    that tensor's number, and a mean by that many times its elements. Such means times numbers,
    added up, count by samples, if they average equally many terms per sample, or by their terms, if
    the terms of all of them are in proportion.

    unknown: is told of a tensor that is neither, with its position; it counts by samples unless
        this raises.
    is_of_one: whether all batches are of one mean, so that what multiplies means is equal in all;
        otherwise `weigh_of_step` says which are.

    >>> from rumus.tensor import tensor
    >>> from rumus.tensor.graph.means import noting_means
    >>> with noting_means() as means:
    ...     loss = tensor([1.0, 2.0, 3.0]).mean()
    >>> Weighing().weigh([loss], means, samples=1.0)
    [3.0]
    """

    def __init__(
        self, unknown: Callable[[int, Tensor], None] | None = None, *, is_of_one: bool = False
    ) -> None:
        self._unknown, self._is_of_one = unknown or _refuse, is_of_one
        self._first: dict[int, Basis] = {}
        self._last: dict[int, Basis] = {}
        self._changes: dict[int, _Changes] = {}
        self._averages: dict[int, tuple[float, int, float]] = {}
        self._of_step: list[Basis] = []

    def begin(self) -> None:
        """Begin a step, in all of whose batches means are multiplied by the same numbers."""
        self._of_step = []

    @property
    def of_step(self) -> list[Basis]:
        """What has weighed the batches of a step, one of each kind."""
        return self._of_step

    @property
    def first(self) -> Mapping[int, Basis]:
        """What has weighed the first batch by its samples, by the positions of its numbers."""
        return self._first

    def weigh(self, values: Sequence[object], means: Means, samples: float) -> list[float]:
        """Return the weights of numbers computed from a batch, with these means.

        Raises ValueError, which suggests `weight_of`, if no weight is known to be right.
        """
        found = self.weigh_late(values, means, samples)
        if any(isinstance(weight, Tensor) for weight in found):
            raise ValueError(_UNREAD)
        return [float(weight) for weight in found]

    def weigh_late(
        self, values: Sequence[object], means: Means, samples: float
    ) -> list[float | Tensor]:
        """Return the weights like `weigh`; a tensor where only the device knows one."""
        weights, used, has_numbers = list[float | Tensor](), list[Mean](), False
        for position, value in enumerate(values):
            own = _mean_of(value, means, samples)
            weight: float | Tensor = samples
            if own is not None:
                used.append(own)
                self._check_average(own, position, samples)
                weight = _weight(own)
            elif isinstance(value, Tensor):
                weight = self._weigh_tensor(position, value, means, samples)
            else:
                has_numbers = True
            weights.append(weight)
        if has_numbers:
            others = [mean for mean in means if not _is_among(mean, used)]
            self._check(len(values), others, samples, None)
        return weights

    def _weigh_tensor(self, position: int, value: Tensor, means: Means, samples: float) -> float:
        """The weight of what is no mean itself; tells `unknown` if nothing weighs it, or raises."""
        combination = means.combination(value)
        terms = [] if combination is None else combination.means
        if combination is None or any(_is_no_mean_of(mean, samples) for mean in terms):
            self._unknown(position, value)
            return samples
        return self._check(position, terms, samples, combination)

    def weigh_of_step(self, loss: Tensor, means: Means, samples: float) -> float:
        """Return the weight of a batch among others of one step. Raises ValueError like `weigh`."""
        (weight,) = self.weigh([loss], means, samples)
        combination = means.combination(loss)
        if _mean_of(loss, means, samples) is not None:
            basis = Basis(samples, (weight,), (), is_mean=True)
        elif combination is not None:
            basis = replace(self._last[0], factors=combination.factors)
        else:
            return weight
        check_alike([*self._of_step, basis])
        if all(basis.kind != each.kind for each in self._of_step):  # one of a kind tells the rest
            self._of_step.append(basis)
        return weight

    def weigh_loss(self, loss: Tensor, means: Means, samples: float) -> float | Tensor:
        """Return the weight of one loss; a tensor if only the device knows it.

        Raises ValueError like `weigh`.
        """
        own = _mean_of(loss, means, samples)
        if own is None:
            return self.weigh([loss], means, samples)[0]
        self._check_average(own, 0, samples)
        return float(_known(own)) if own.counted is None else own.counted

    def _check_average(self, own: Mean, position: int, samples: float) -> None:
        """Raise for a mean of as many numbers, whatever the samples, and not one of each.

        Such as one over outputs, each averaged over the samples before, or over several losses.
        """
        if own.rows is None or _is_on_device(own):
            return
        now = float(_known(own)), own.rows
        count, rows, first = self._averages.setdefault(position, (*now, samples))
        if now == (count, rows) and first != samples:
            raise ValueError(
                f"it is the mean of {count:g} numbers in a batch of {first:g} samples and in one "
                f"of {samples:g}, as of numbers that were averaged before: average all at once, "
                f"or {ADVICE}"
            )

    def _check(
        self, position: int, means: Sequence[Mean], samples: float, value: Combination | None
    ) -> float:
        """The weight of means beside other batches. Raises for counts that are not in proportion.

        value: these means, added up; None of a number, which may have nothing to do with a mean
            whose count only the device knows.
        """
        means = [mean for mean in means if not mean.is_alias]
        losses = [mean for mean in means if mean.is_loss or mean.is_guess]
        own = [m for m in means if not (m.is_loss or m.is_guess or _is_among(m, losses))]
        others = [m for m in own if m.count is not None or value or not _is_on_device(m)]
        counts, plain = tuple(map(_known, losses)), tuple(map(_known, others))
        factors = value.factors if value is not None and self._is_of_one else OF_MEAN
        basis = Basis(samples, counts, plain, factors)
        first = self._first.setdefault(position, basis)
        basis.check_factors(first)
        changes = self._changes.setdefault(position, _Changes())
        if value is None:
            basis._check(first)
        else:
            basis = basis.beside(first, may_be_constant=changes.has_constants_only)
        changes.see(basis, first)
        self._last[position] = basis
        return basis._weight


def check_alike(bases: Sequence[Basis]) -> None:
    """Raise ValueError if batches of one step would not be weighed equally."""
    if all(basis.is_mean for basis in bases):
        return
    if any(basis.kind == (True, False) for basis in bases):
        raise ValueError(_MIXED)
    combined = [basis for basis in bases if not basis.is_mean]
    for basis in combined:
        basis.check(combined[0])
    for basis in bases:
        basis.check_factors(bases[0])


def _raise_uneven(
    then: tuple[float, ...], own: float, now: tuple[float, ...], samples: float
) -> NoReturn:
    raise ValueError(
        f"a loss in it averages {_told(then)} terms in a batch of {own:g} samples, and "
        f"{_told(now)} in one of {samples:g}, as with ignored targets: {ADVICE}, or return that "
        "loss itself"
    )


def _refuse(_: int, __: Tensor) -> None:
    raise ValueError(_UNKNOWN)


class MeanLoss:
    """The weight of each step in an epoch's mean loss, if each is over one batch.

    Only the displayed number depends on it, so if no weight is known to be right, steps count by
    their samples, and a warning says so once.

    advice: what the warning tells to do.
    """

    def __init__(self, advice: str = ADVICE) -> None:
        self._weighing = Weighing(lambda _, __: None)
        self._advice = advice
        self._is_said = False
        # A loss that is the only mean of its step, with samples and weight: a replay has the same.
        self._last: tuple[Mean, float, float] | None = None

    def weigh(self, loss: Tensor, means: Means, samples: float) -> float | Tensor:
        """Return the weight of a step's loss; a tensor if only the device knows it."""
        only = means[0] if len(means) == 1 else None
        last = self._last
        if last is not None and only is last[0] and samples == last[1]:
            return last[2]
        try:
            weight = self._weighing.weigh_loss(loss, means, samples)
            if only is not None and only.count is not None and only.is_in(loss):
                self._last = only, samples, float(weight)
            return weight
        except ValueError as error:
            if not self._is_said:
                self._is_said = True
                told = str(error).replace(ADVICE, self._advice)
                warn_user(f"steps count by samples in the epoch's mean loss, but {told}")
            return samples


def _mean_of(value: object, means: Sequence[Mean], samples: float) -> Mean | None:
    """The mean that a value is itself; what a loss function has said of it comes first."""
    if not isinstance(value, Tensor):
        return None
    found: Mean | None = None
    for mean in means:
        if mean.is_in(value) and not (mean.is_guess or _is_no_mean_of(mean, samples)):
            if mean.is_loss:
                return mean
            found = found or mean
    return found


def _is_no_mean_of(mean: Mean, samples: float) -> bool:
    """Whether it is none over the samples: of sums over them, of roots of means and the like.

    Or a sum by a number that is not that of the samples, or of as many terms of each.
    """
    if not samples > 0:
        return False
    total = mean.total
    if mean.is_guess and _known(mean) % samples:
        return True
    if total is not None and mean.is_guess:
        return not total.may_count(_known(mean), samples)
    if total is not None and mean.counted is not None:  # a number of unknown meaning
        return float(mean.counted) > total.elements
    return mean.folded is not None and mean.folded % samples == 0


def _is_among(mean: Mean, others: Sequence[Mean]) -> bool:
    return any(mean.array is other.array for other in others)


def _known(mean: Mean) -> float:
    found = _weight(mean)
    if isinstance(found, Tensor):
        raise ValueError(_UNREAD)
    return found


def _weight(mean: Mean) -> float | Tensor:
    """The number of terms; a tensor if only the device knows it."""
    if mean.counted is not None:
        return mean.counted if _is_on_device(mean) else float(mean.counted)
    assert mean.count is not None
    return float(mean.count)


def _is_on_device(mean: Mean) -> bool:
    return mean.counted is not None and mean.counted.backend.runs_ahead


def _told(counts: tuple[float, ...]) -> str:
    return " and ".join(f"{round(count, 6):g}" for count in counts) or "no"
