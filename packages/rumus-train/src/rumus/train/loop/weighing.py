"""`Weighing`: how much a batch counts where several are to give what one with all of them would."""

from __future__ import annotations

from collections.abc import Sequence

from rumus.tensor import Tensor
from rumus.tensor.graph.means import Mean


class Weighing:
    """The weights of batches in a mean over all of them.

    A loss of `rumus.nn` with reduction "mean" says how many terms it is the mean of: targets that
    are not ignored, elements. What is such a loss itself counts by that; anything else counts by
    samples, which is right as long as the losses in it have averaged as many terms for each sample.

    >>> from rumus.tensor import tensor
    >>> Weighing().weigh([tensor(0.5)], [], samples=4.0)
    [4.0]
    """

    def __init__(self) -> None:
        self._first: tuple[tuple[float, ...], float] | None = None

    def weigh(self, values: Sequence[object], means: Sequence[Mean], samples: float) -> list[float]:
        """Return the weights of numbers that were computed from a batch, with these means.

        ValueError, which asks for `weight_of`, where no weight is known to be right.
        """
        weights, used = [], set[int]()
        for value in values:
            own = [at for at, mean in enumerate(means) if _is_in(mean, value)]
            used.update(own)
            weights.append(float(_known(means[own[0]])) if own else samples)
        others = [mean for at, mean in enumerate(means) if at not in used]
        self._check(tuple(map(_known, others)), samples)
        return weights

    def _check(self, counts: tuple[float, ...], samples: float) -> None:
        """Refuse counts that are not in proportion to the samples from batch to batch."""
        if self._first is None:
            self._first = counts, samples
        before, first = self._first
        if [count * first for count in counts] != [count * samples for count in before]:
            raise ValueError(
                f"a loss in it averages {_told(before)} terms in a batch of {first:g} samples, and "
                f"{_told(counts)} in one of {samples:g}, as with targets that are ignored: give "
                "weight_of=, a function of the batch, to say how much a batch counts, or return "
                "that loss itself"
            )


def _is_in(mean: Mean, value: object) -> bool:
    return isinstance(value, Tensor) and mean.is_in(value)


def _known(mean: Mean) -> float:
    if mean.count is None:
        raise ValueError(
            "only the device knows how many targets are ignored: give weight_of=, a function "
            "of the batch, to say how much a batch counts"
        )
    return mean.count


def _told(counts: tuple[float, ...]) -> str:
    return " and ".join(f"{count:g}" for count in counts) or "no"
