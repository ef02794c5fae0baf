"""Connectionist temporal classification in NumPy: all samples and states at once, step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.memory.fused import FusedName

Numbers = NDArray[Any]


def states(labels: Numbers, blank: int) -> tuple[Numbers, Numbers]:
    """The labels with blanks around them, and which states may be reached by skipping a blank."""
    extended = np.full((len(labels), 2 * labels.shape[1] + 1), blank, labels.dtype)
    extended[:, 1::2] = labels
    skips = np.zeros(extended.shape, bool)
    skips[:, 2:] = (extended[:, 2:] != blank) & (extended[:, 2:] != extended[:, :-2])
    return extended, skips


def _later(values: Numbers, distance: int) -> Numbers:
    """Values shifted by a number of states, -inf where nothing comes in."""
    moved = np.full_like(values, -np.inf)
    moved[:, distance:] = values[:, : values.shape[1] - distance]
    return moved


def ctc(
    x: Numbers, labels: Numbers, lengths: Numbers, label_lengths: Numbers, alpha: Numbers,
    out: Numbers, blank: int,
) -> None:  # fmt: skip
    """out = -log of the total probability of all paths through x that spell the labels.

    x: (batch, length, classes), logarithms of probabilities. labels: (batch, most labels).
    alpha: (batch, length, 2 * most + 1) gets, for each state, that of all paths to it; it is
        unchanged beyond the end of a sample.
    """
    extended, skips = states(labels, blank)
    rows = np.arange(len(x))
    with np.errstate(all="ignore"):
        own = np.take_along_axis(x, extended[:, None], 2)
        alpha[:, 0] = -np.inf
        alpha[:, 0, :2] = own[:, 0, :2]
        for t in range(1, x.shape[1]):
            before = alpha[:, t - 1]
            reached = np.logaddexp(before, _later(before, 1))
            jumped = np.where(skips, _later(before, 2), -np.inf)
            found = np.logaddexp(reached, jumped) + own[:, t]
            alpha[:, t] = np.where((t < lengths)[:, None], found, before)
        end = alpha[rows, -1]
        last = end[rows, 2 * label_lengths]
        before_last = np.where(label_lengths > 0, end[rows, 2 * label_lengths - 1], -np.inf)
        out[...] = -np.logaddexp(last, before_last)


def ctc_gradient(
    x: Numbers, labels: Numbers, lengths: Numbers, label_lengths: Numbers, alpha: Numbers,
    losses: Numbers, gradient: Numbers, into: Numbers, blank: int,
) -> None:  # fmt: skip
    """into = -g times the probability that a path is in a state of each class, at each step."""
    extended, skips = states(labels, blank)
    rows = np.arange(len(x))
    into.fill(0)
    with np.errstate(all="ignore"):
        own = np.take_along_axis(x, extended[:, None], 2)
        end = np.full(extended.shape, -np.inf, x.dtype)
        end[rows, 2 * label_lengths] = 0
        end[rows[label_lengths > 0], 2 * label_lengths[label_lengths > 0] - 1] = 0
        beta = end
        for t in range(x.shape[1] - 1, -1, -1):
            if t + 1 < x.shape[1]:
                ahead = (beta + own[:, t + 1])[:, ::-1]
                reached = np.logaddexp(ahead, _later(ahead, 1))
                jumped = _later(np.where(skips[:, ::-1], ahead, -np.inf), 2)
                beta = np.logaddexp(reached, jumped)[:, ::-1]
                beta = np.where((t + 1 < lengths)[:, None], beta, end)
            share = np.exp(alpha[:, t] + beta + losses[:, None]) * -gradient[:, None]
            share[(t >= lengths) | (gradient == 0)] = 0  # even if no path is possible
            np.add.at(into[:, t], (rows[:, None], extended), share)


CTC: Final[Mapping[FusedName, Callable[..., None]]] = {"ctc": ctc, "ctc_gradient": ctc_gradient}
