"""Random streams that depend only on their purpose.

A stream is a function of (seed, purpose, epoch, sample), whatever the order and number of requests:
a run resumed in the middle of an epoch replays nothing.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Purpose(IntEnum):
    """The purpose of a stream. The numbers are part of the streams: never change one."""

    SHUFFLE = 0
    TRANSFORM = 1
    SPLIT = 2
    SAMPLER = 3
    BATCH = 4
    STREAM = 5


def _bits(seed: int, purpose: Purpose, epoch: int, sample: int) -> np.random.PCG64:
    key = (int(purpose), epoch, sample)
    if max(seed, epoch, sample) < 2**32:  # the words that NumPy makes of the other form, sooner
        return np.random.PCG64(np.random.SeedSequence(np.array([seed, 0, 0, 0, *key], np.uint32)))
    return np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key))


def random_stream(
    seed: int, purpose: Purpose, epoch: int = 0, sample: int = 0
) -> np.random.Generator:
    """Return the generator of (seed, purpose, epoch, sample), at its start.

    >>> first, again = (random_stream(0, Purpose.TRANSFORM, 3, 17) for _ in range(2))
    >>> bool(first.random() == again.random())
    True
    """
    return np.random.Generator(_bits(seed, purpose, epoch, sample))


def permutation(
    seed: int, purpose: Purpose, count: int, epoch: int = 0, part: int = 0
) -> NDArray[np.intp]:
    """Return 0 ..

    count - 1 in random order. It sorts raw words, since NumPy guarantees those of a bit generator,
    but not the result of `Generator.permutation`: a run can be resumed with any NumPy.
    """
    words = _bits(seed, purpose, epoch, part).random_raw(count)
    return np.argsort(words, kind="stable")


def uniform(seed: int, purpose: Purpose, count: int, epoch: int = 0) -> NDArray[np.float64]:
    """Return numbers in (0, 1) with 53 random bits each, from raw words as in `permutation`.

    >>> bool((uniform(0, Purpose.SAMPLER, 100) > 0).all())
    True
    """
    words = _bits(seed, purpose, epoch, 0).random_raw(count)
    return ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
