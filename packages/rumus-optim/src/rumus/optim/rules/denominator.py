"""The denominator of an adaptive step, which is not 0 where the mean of the squares has become 0.

The square of a gradient under 1e-19 is under 1.2e-38, which a GPU and an update with numba write as
0; of one under 3e-23 it is 0 in float32 everywhere. Next to such a 0 the mean of the gradients
themselves is not 0, and an eps far below it would make the quotient anything. With an eps that
small, the root counts as 1e-19 at least: a bound costs less than a choice for each element.
"""

from __future__ import annotations

from typing import Final

from rumus.tensor import Expr, maximum, sqrt, where

LEAST: Final = 1e-19  # the root of the smallest mean of squares


def denominator(v: Expr, eps: Expr) -> Expr:
    """sqrt(v) + eps; with an eps under 1e-19, max(sqrt(v), 1e-19) + eps."""
    return maximum(sqrt(v), floor(eps)) + eps


def floor(eps: Expr) -> Expr:
    """The lower bound of the root: 0, or 1e-19 with an eps under it."""
    return where(eps < LEAST, LEAST, 0.0)
