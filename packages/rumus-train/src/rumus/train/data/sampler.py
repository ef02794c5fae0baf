"""Samplers: the samples of an epoch and their order, as functions of (seed, epoch)."""

from __future__ import annotations

from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rumus.tensor.expression.arguments import checked_arguments, place_arguments
from rumus.tensor.expression.whole_number import whole_number
from rumus.train.base.other_names import SAMPLER
from rumus.train.base.random_stream import Purpose, permutation, uniform
from rumus.train.base.row_labels import labels_of, refuse_another_order
from rumus.train.data.dataset import Dataset, Indices, row_labels

_TOGETHER: Final = 50  # batches whose samples are sorted together


class Sampler(Protocol):
    """The order of an epoch's samples.

    It is a function without state, so a run resumes in the middle of an epoch without replaying it,
    and workers need no coordination.
    """

    def count(self, dataset: Dataset) -> int:
        """Return the number of samples of an epoch.

        Raises ValueError for a dataset that does not fit.
        dataset: the dataset to sample from.
        """
        ...

    def order(self, dataset: Dataset, seed: int, epoch: int, batch_size: int) -> Indices:
        """Return their indices, batch after batch.

        dataset: the dataset to sample from.
        seed: the run's seed.
        epoch: its index, from 0.
        batch_size: the number of samples of a batch.
        """
        ...


@SAMPLER.of_instances
class WeightedSampler:
    """Draws samples with probabilities proportional to weights.

    weights: one for each sample, with any sum; a sample of weight 0 is never drawn.
    count: the number of samples of an epoch; by default that of the dataset.
    replacement: whether a sample may occur several times in an epoch; without it, each occurs at
        most once, and large weights tend to come first.

    Raises ValueError for weights that are negative, not finite or all 0, do not have exactly one
    axis or do not match the dataset's length, and for a count that cannot be drawn.

    >>> import numpy as np
    >>> from rumus.train import WeightedSampler
    >>> sampler = WeightedSampler([1.0, 0.0, 3.0], count=1000)
    >>> order = sampler.order(range(3), seed=0, epoch=0, batch_size=1)
    >>> np.bincount(order).tolist()
    [259, 0, 741]
    """

    @checked_arguments
    def __init__(
        self, weights: ArrayLike, count: int | None = None, *, replacement: bool = True
    ) -> None:
        self.weights = _checked(weights)
        self._labels = labels_of(weights)
        self.replacement = replacement
        self._count = len(self.weights) if count is None else whole_number("count", count)
        drawable = int((self.weights > 0).sum())
        if self._count < 1:
            raise ValueError(f"count must be at least 1, not {count}")
        if not replacement and count is None:
            self._count = drawable
        if not replacement and self._count > drawable:
            raise ValueError(
                f"without replacement only the {drawable} samples with a weight above 0 can be "
                f"drawn, not count={count}"
            )

    def count(self, dataset: Dataset) -> int:
        """Return the number of samples per epoch.

        Raises ValueError if lengths differ, or the order of row labels of pandas.
        """
        if len(dataset) != len(self.weights):
            raise ValueError(
                f"weights are for {len(self.weights)} samples, but the dataset has {len(dataset)}"
            )
        if self._labels is not None:
            refuse_another_order("the dataset", row_labels(dataset), "its sampler", self._labels)
        return self._count

    def order(self, dataset: Dataset, seed: int, epoch: int, batch_size: int) -> Indices:
        """Return the indices of the drawn samples."""
        if self.replacement:
            bounds = self.weights.cumsum()
            drawn = uniform(seed, Purpose.SAMPLER, self._count, epoch) * bounds[-1]
            found = np.searchsorted(bounds, drawn, side="right")
            last = int(np.flatnonzero(self.weights)[-1])  # rounding may exceed it
            return np.asarray(np.minimum(found, last), np.intp)
        # Efraimidis and Spirakis (2006), algorithm A: the largest keys u^(1/w), by logarithms.
        draws = uniform(seed, Purpose.SAMPLER, len(self.weights), epoch)
        with np.errstate(divide="ignore"):
            keys = np.log(draws) / self.weights
        return np.asarray(np.argsort(-keys, kind="stable")[: self._count], np.intp)


@place_arguments
class BalancedSampler(WeightedSampler):
    """Draws all classes equally often, however many samples each has.

    labels: the class of each sample, as integers or texts.
    count: as in `WeightedSampler`.

    Raises ValueError for labels without exactly one axis, and for no labels.

    >>> from rumus.train import BalancedSampler
    >>> sampler = BalancedSampler([0, 0, 0, 1], count=1000)
    >>> int((sampler.order(range(4), seed=0, epoch=0, batch_size=1) == 3).sum())
    496
    """

    def __init__(self, labels: ArrayLike, count: int | None = None) -> None:
        found = np.asarray(labels)
        if found.ndim != 1 or not found.size:
            raise ValueError(f"labels must be one per sample, not of shape {found.shape}")
        if found.dtype.kind not in "iubUS":
            raise ValueError(f"labels must be whole numbers or text, not {found.dtype}")
        _, place, counts = np.unique(found, return_inverse=True, return_counts=True)
        super().__init__(1.0 / counts[place], count)
        self._labels = labels_of(labels)


@SAMPLER.of_instances
class LengthBuckets:
    """Yields every sample once, in batches of similar lengths, for little padding.

    The order is shuffled, then sorted by length within stretches of 50 batches, and the batches are
    shuffled.

    lengths: the length of each sample.
    shuffle: False sorts all samples, the longest first, so that a lack of memory shows at once.

    Raises ValueError for lengths that are negative or are not a flat list with one for each sample.

    >>> from rumus.train import LengthBuckets
    >>> order = LengthBuckets([3, 1, 2, 9, 8, 1]).order(range(6), seed=0, epoch=0, batch_size=2)
    >>> sorted(map(sorted, order.reshape(3, 2).tolist()))
    [[0, 2], [1, 5], [3, 4]]
    """

    @checked_arguments
    def __init__(self, lengths: ArrayLike, *, shuffle: bool = True) -> None:
        self.lengths: NDArray[Any] = np.asarray(lengths)
        self._labels = labels_of(lengths)
        self.shuffle = shuffle
        if self.lengths.dtype.kind == "u":
            self.lengths = self.lengths.astype(np.int64)  # of which there are negative ones
        if self.lengths.ndim != 1 or self.lengths.dtype.kind not in "iuf":
            raise ValueError("lengths must be one number for each sample")
        if not (self.lengths >= 0).all():
            raise ValueError("lengths must not be negative or NaN")

    def count(self, dataset: Dataset) -> int:
        """Return the number of samples.

        Raises ValueError for a dataset of another length or order of row labels of pandas.
        """
        if len(dataset) != len(self.lengths):
            raise ValueError(
                f"lengths are for {len(self.lengths)} samples, but the dataset has {len(dataset)}"
            )
        if self._labels is not None:
            refuse_another_order("the dataset", row_labels(dataset), "its sampler", self._labels)
        return len(self.lengths)

    def order(self, dataset: Dataset, seed: int, epoch: int, batch_size: int) -> Indices:
        """Return the indices of all samples, batch after batch."""
        count = len(self.lengths)
        if not self.shuffle:
            return np.argsort(-self.lengths, kind="stable").astype(np.intp)
        order = permutation(seed, Purpose.SHUFFLE, count, epoch)
        stretch = batch_size * _TOGETHER
        for start in range(0, count, stretch):
            part = order[start : start + stretch]
            order[start : start + stretch] = part[np.argsort(-self.lengths[part], kind="stable")]
        whole = count // batch_size
        batches = order[: whole * batch_size].reshape(whole, batch_size)
        shuffled = batches[permutation(seed, Purpose.SAMPLER, whole, epoch)]
        return np.concatenate([shuffled.reshape(-1), order[whole * batch_size :]])


def _checked(weights: ArrayLike) -> NDArray[np.float64]:
    found = np.asarray(weights)
    if found.ndim != 1 or not found.size or found.dtype.kind not in "biuf":
        raise ValueError(
            f"weights must be one number for each sample, not {found.dtype} of shape {found.shape}"
        )
    found = found.astype(np.float64)
    bad = np.flatnonzero(~(np.isfinite(found) & (found >= 0)))
    if bad.size:
        raise ValueError(
            f"weights must be finite and not negative; that of sample {bad[0]} is {found[bad[0]]}"
        )
    if not found.any():
        raise ValueError("all weights are 0, so there is nothing to draw")
    with np.errstate(over="ignore"):
        is_large = not np.isfinite(found.sum())
    return found / found.max() / len(found) if is_large else found
