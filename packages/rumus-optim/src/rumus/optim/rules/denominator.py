"""The denominator of an adaptive step, which is not 0 where the mean of the squares has become 0.

The square of a gradient under 1e-19 is under 1.2e-38, which a GPU and an update with numba write as
0; of one under 3e-23 it is 0 in float32 everywhere. Next to such a 0 the mean of the gradients
themselves is not 0, and an eps far below it would make the quotient anything. So an eps counts as
1e-19 at least, which costs nothing, as it is one number: next to a root above 1e-12, float32 does
not see the difference.
"""

from __future__ import annotations

from typing import Final

from rumus.tensor import Expr, maximum, sqrt

LEAST: Final = 1e-19  # the root of the smallest mean of squares


def denominator(v: Expr, eps: Expr) -> Expr:
    """sqrt(v) + eps, with an eps of at least 1e-19."""
    return sqrt(v) + at_least(eps)


def at_least(eps: Expr) -> Expr:
    """Return eps, or 1e-19 for a smaller one."""
    return maximum(eps, LEAST)
