"""What the programs here are trained with, made by NumPy: the same for rumus and for PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from pydoc_data.topics import topics
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def digits(batch: int = 32) -> Iterator[tuple[Floats, Ints]]:
    """Endless batches of scikit-learn's digits, enlarged to 28 x 28, with their numbers."""
    from sklearn.datasets import load_digits

    pictures, numbers = load_digits(return_X_y=True)
    small = pictures.reshape(-1, 1, 8, 8).astype(np.float32) / 16
    large = np.pad(small.repeat(3, axis=2).repeat(3, axis=3), [(0, 0), (0, 0), (2, 2), (2, 2)])
    random = np.random.default_rng(0)
    while True:
        chosen = random.integers(0, len(large), batch)
        yield large[chosen], numbers[chosen].astype(np.int64)


def coloured(batch: int = 16, classes: int = 10) -> Iterator[tuple[Floats, Ints]]:
    """Endless batches of noisy 3 x 32 x 32 pictures; a class is a pattern of waves."""
    random = np.random.default_rng(0)
    waves = random.normal(size=(classes, 3, 2)).astype(np.float32)
    rows, columns = np.mgrid[:32, :32].astype(np.float32) / 4
    while True:
        chosen = random.integers(0, classes, batch)
        slopes = waves[chosen][..., None, None]
        noise = random.normal(size=(batch, 3, 32, 32)).astype(np.float32)
        yield np.sin(slopes[:, :, 0] * rows + slopes[:, :, 1] * columns) + noise, chosen


def text(batch: int = 16, length: int = 32) -> Iterator[Ints]:
    """Endless batches of pieces of a text, length + 1 bytes each, as numbers below 128."""
    codes = np.frombuffer("\n".join(topics.values()).encode(), np.uint8).astype(np.int64) % 128
    random = np.random.default_rng(0)
    while True:
        starts = random.integers(0, len(codes) - length, batch)
        yield np.stack([codes[start : start + length + 1] for start in starts])


def blots(batch: int = 8, size: int = 32) -> Iterator[tuple[Floats, Floats]]:
    """Endless batches of noisy pictures of a few discs, (batch, 1, size, size), and their masks."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size]
    while True:
        centres = random.uniform(0, size, (batch, 3, 2, 1, 1))
        radii = random.uniform(2, size / 4, (batch, 3, 1, 1))
        away = np.hypot(centres[:, :, 0] - rows, centres[:, :, 1] - columns)
        mask = (away < radii).any(axis=1, keepdims=True).astype(np.float32)
        noise = random.normal(size=mask.shape).astype(np.float32)
        yield mask + 0.5 * noise, mask


def sentences(
    batch: int = 16, length: int = 16, words: int = 40, mask: int = 0
) -> Iterator[tuple[Ints, Ints]]:
    """Endless batches of sentences with some words masked, and the words; -100 where none is.

    A word is the one before plus the step of its sentence, modulo the number of words.
    """
    random = np.random.default_rng(0)
    while True:
        start, step = random.integers(0, words - 1, (batch, 1)), random.integers(1, 4, (batch, 1))
        found = 1 + (start + step * np.arange(length)) % (words - 1)
        hidden = random.random((batch, length)) < 0.2
        hidden[:, 0] = True  # at least one in each
        yield np.where(hidden, mask, found), np.where(hidden, found, -100)


class Corridor:
    """An environment of several walkers on a line, who get 1 for each step at its right end.

    state: the place of each walker, one-hot, (walkers, places). An action is 0, left, or 1, right;
    now and then the ground moves a walker the other way.
    """

    def __init__(self, walkers: int = 16, places: int = 8, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.places = places
        self.at = np.zeros(walkers, np.int64)

    def reset(self) -> Floats:
        """Put all walkers to the left end."""
        self.at[:] = 0
        return self.state()

    def state(self) -> Floats:
        """Return where the walkers are."""
        found = np.zeros((len(self.at), self.places), np.float32)
        found[np.arange(len(self.at)), self.at] = 1
        return found

    def step(self, actions: NDArray[Any]) -> tuple[Floats, Floats]:
        """Move the walkers; return the new state and the reward of each."""
        slips = self.random.random(len(self.at)) < 0.1
        direction = np.where(slips, 1 - actions, actions) * 2 - 1
        self.at = np.clip(self.at + direction, 0, self.places - 1)
        return self.state(), (self.at == self.places - 1).astype(np.float32)


def returns(rewards: Floats, discount: float = 0.9) -> Floats:
    """Return what follows each step, (steps, walkers), less the mean over the walkers."""
    found = np.zeros_like(rewards)
    total = np.zeros_like(rewards[0])
    for step in range(len(rewards) - 1, -1, -1):
        total = rewards[step] + np.float32(discount) * total
        found[step] = total
    found -= found.mean(axis=1, keepdims=True)
    return found
