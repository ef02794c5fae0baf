"""The denominator of an adaptive step, which is not 0 where the mean of the squares has become 0.

The square of a gradient under 1e-19 is under 1.2e-38, which a GPU and an update with numba write as
0; of one under 3e-23 it is 0 in float32 everywhere. Next to such a 0 the mean of the gradients
themselves is not 0, and an eps far below it would make the quotient anything.
"""

from __future__ import annotations

from typing import Final

from rumus.tensor import Expr, sqrt, where

LEAST: Final = 1e-19  # the root of the smallest mean of squares
NO_STEP: Final = 1e30  # a gradient whose square is 0, divided by this, is 0


def denominator(v: Expr, eps: Expr) -> Expr:
    """sqrt(v) + eps; where v is 0 and eps under 1e-19, a number that makes the step 0."""
    return sqrt(v) + floor(v, eps)


def floor(v: Expr, eps: Expr) -> Expr:
    """eps; where v is 0 and eps under 1e-19, a number that makes the step 0."""
    return where(v <= 0, where(eps < LEAST, NO_STEP, eps), eps)
