"""`Weighing`: the weights that make several batches equal to one batch of all their samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rumus.tensor import Tensor
from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.graph.means import Mean

ADVICE: Final = "give weight_of=, a function that returns the weight of a batch"
_UNREAD: Final = f"only the device knows how many targets are ignored: {ADVICE}"


class Weighing:
    """The weights of batches in a mean over all of them.

    A mean counts by its terms: a loss of `rumus.nn` with reduction "mean" by its elements or its
    targets that are not ignored, any other `mean()` by its elements, a sum divided by a tensor by
    that tensor's number, and a mean by that many times its elements. A number computed from such
    means counts by samples, which is right as long as they average equally many terms per sample.

    >>> from rumus.tensor import tensor
    >>> Weighing().weigh([tensor(0.5)], [], samples=4.0)
    [4.0]
    """

    def __init__(self) -> None:
        self._first: tuple[tuple[float, ...], tuple[float, ...], float] | None = None
        self._averages: dict[int, tuple[float, int, float]] = {}

    def weigh(self, values: Sequence[object], means: Sequence[Mean], samples: float) -> list[float]:
        """Return the weights of numbers computed from a batch, with these means.

        Raises ValueError, which suggests `weight_of`, if no weight is known to be right.
        """
        found = self.weigh_late(values, means, samples)
        if any(isinstance(weight, Tensor) for weight in found):
            raise ValueError(_UNREAD)
        return [float(weight) for weight in found]

    def weigh_late(
        self, values: Sequence[object], means: Sequence[Mean], samples: float
    ) -> list[float | Tensor]:
        """Return the weights like `weigh`; a tensor where only the device knows one."""
        weights, used = list[float | Tensor](), list[Mean]()
        for position, value in enumerate(values):
            own = _mean_of(value, means)
            used += [] if own is None else [own]
            self._check_average(own, position, samples)
            weights.append(samples if own is None else _weight(own))
        if len(used) < len(values):
            tensors = [value for value in values if isinstance(value, Tensor)]
            within = [m for m in means if m.is_within and any(map(m.is_in, tensors))]
            others = [m for m in means if not m.is_within and not _is_among(m, used)]
            self._check(others, within, samples)
        return weights

    def weigh_loss(self, loss: Tensor, means: Sequence[Mean], samples: float) -> float | Tensor:
        """Return the weight of one loss; a tensor if only the device knows it.

        Raises ValueError like `weigh`.
        """
        own = _mean_of(loss, means)
        if own is None:
            return self.weigh([loss], means, samples)[0]
        self._check_average(own, 0, samples)
        return float(_known(own)) if own.counted is None else own.counted

    def _check_average(self, own: Mean | None, position: int, samples: float) -> None:
        """Raise for a mean of as many numbers, whatever the samples, and not one of each.

        Such as one over outputs, each averaged over the samples before, or over several losses.
        """
        if own is None or own.rows is None or _is_on_device(own):
            return
        now = float(_known(own)), own.rows
        count, rows, first = self._averages.setdefault(position, (*now, samples))
        if now == (count, rows) and first != samples:
            raise ValueError(
                f"it is the mean of {count:g} numbers in a batch of {first:g} samples and in one "
                f"of {samples:g}, as of numbers that were averaged before: average all at once, "
                f"or {ADVICE}"
            )

    def _check(self, means: Sequence[Mean], within: Sequence[Mean], samples: float) -> None:
        """Raise for counts that are not proportional to the samples from batch to batch.

        A mean outside a loss function may have a constant number of terms: over the parameters,
        perhaps. What a value was otherwise computed with counts something if it is whole.
        """
        means = [mean for mean in means if not mean.is_alias]
        losses = [mean for mean in means if mean.is_loss]
        own = [m for m in means if not m.is_loss and not _is_among(m, losses)]
        others = [m for m in own if m.count is not None or not _is_on_device(m)]
        counts = tuple(map(_known, losses))
        plain = *map(_known, others), *(n for mean in within for n in _whole_numbers(mean))
        if self._first is None:
            self._first = counts, plain, samples
        before, plain_before, first = self._first

        def is_even(a: float, b: float) -> bool:
            return a == b or a * first == b * samples

        if len(plain) == len(plain_before):
            pairs = zip(plain, plain_before, strict=True)
            uneven = [(a, b) for a, b in pairs if not is_even(a, b)]
        else:  # there is one for each sample, perhaps
            uneven = [
                (a, plain_before[0])
                for a in plain
                if plain_before and not any(is_even(a, b) for b in plain_before)
            ]
        now, then = [count * first for count in counts], [count * samples for count in before]
        if len(now) != len(then):  # other losses are in it, as of a term that begins later
            now, then = sorted({*now}), sorted({*then})
            if len(counts) * first == len(before) * samples and {*counts} == {*before}:
                now = then  # one for each sample
        if now != then or uneven:
            told = (before, counts) if not uneven else (uneven[0][1:], uneven[0][:1])
            raise ValueError(
                f"a loss in it averages {_told(told[0])} terms in a batch of {first:g} samples, "
                f"and {_told(told[1])} in one of {samples:g}, as with ignored targets: {ADVICE}, "
                "or return that loss itself"
            )


class MeanLoss:
    """The weight of each step in an epoch's mean loss, if each is over one batch.

    Only the displayed number depends on it, so if no weight is known to be right, steps count by
    their samples, and a warning says so once.

    advice: what the warning tells to do.
    """

    def __init__(self, advice: str = ADVICE) -> None:
        self._weighing = Weighing()
        self._advice = advice
        self._is_said = False
        # A loss that is the only mean of its step, with samples and weight: a replay has the same.
        self._last: tuple[Mean, float, float] | None = None

    def weigh(self, loss: Tensor, means: Sequence[Mean], samples: float) -> float | Tensor:
        """Return the weight of a step's loss; a tensor if only the device knows it."""
        own = means[0] if len(means) == 1 and means[0].array is loss._array else None
        last = self._last
        if last is not None and own is last[0] and samples == last[1]:
            return last[2]
        try:
            weight = self._weighing.weigh_loss(loss, means, samples)
            if own is not None and own.count is not None:
                self._last = own, samples, own.count
            return weight
        except ValueError as error:
            if not self._is_said:
                self._is_said = True
                told = str(error).replace(ADVICE, self._advice)
                warn_user(f"steps count by samples in the epoch's mean loss, but {told}")
            return samples


def _mean_of(value: object, means: Sequence[Mean]) -> Mean | None:
    """The mean that a value is itself; what a loss function has said of it comes first."""
    if not isinstance(value, Tensor):
        return None
    found: Mean | None = None
    for mean in means:
        if mean.is_in(value) and not mean.is_guess and not mean.is_within:
            if mean.is_loss:
                return mean
            found = found or mean
    return found


def _is_among(mean: Mean, others: Sequence[Mean]) -> bool:
    return any(mean.array is other.array for other in others)


def _known(mean: Mean) -> float:
    found = _weight(mean)
    if isinstance(found, Tensor):
        raise ValueError(_UNREAD)
    return found


def _whole_numbers(mean: Mean) -> list[float]:
    """The numbers that a mean was computed with and that may count something."""
    if mean.counted is None or _is_on_device(mean):
        raise ValueError(_UNREAD)
    return [n for n in mean.counted.numpy().reshape(-1).tolist() if float(n).is_integer()]


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
