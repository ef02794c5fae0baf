"""A line search for the strong Wolfe conditions. Nocedal, Wright: Numerical Optimization.

phi(t) is the loss at step length t along a descent direction. A step is good if it decreases the
loss by a fraction of what the slope at 0 predicts, phi(t) <= phi(0) + C1 t phi'(0), and if the
slope has flattened, |phi'(t)| <= C2 |phi'(0)|. Algorithm 3.5 finds an interval that contains such a
step, algorithm 3.6 narrows it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

C1: Final = 1e-4
C2: Final = 0.9
MARGIN: Final = 0.1  # of an interval: two consecutive trials are not closer to its ends


@dataclass(frozen=True, slots=True)
class Trial:
    """phi at one step length.

    value: infinity if it is not finite, so that the search avoids it.
    """

    t: float
    value: float
    slope: float
    found: Any = None


def strong_wolfe(
    phi: Callable[[float], Trial],
    start: Trial,
    t: float,
    *,
    resolution: float = 1e-9,
    limit: int = 25,
) -> Trial:
    """Return a trial that satisfies the strong Wolfe conditions, else the lowest one.

    start: the trial at 0, whose slope is negative. t: the first step length to try. resolution: the
        length below which an interval is not searched. limit: the number of trials after the first.

    >>> def phi(t: float) -> Trial:
    ...     return Trial(t, (t - 3) ** 2, 2 * (t - 3))
    >>> strong_wolfe(phi, phi(0.0), 1.0).t
    1.0
    """
    search = _Search(phi, start, resolution, limit)
    low, high = search.bracket(t)
    return low if search.is_over(low) else search.zoom(low, high)


class _Search:
    def __init__(
        self, phi: Callable[[float], Trial], start: Trial, resolution: float, limit: int
    ) -> None:
        self.phi = phi
        self.start = start
        self.resolution = resolution
        self.left = limit

    def _is_too_high(self, trial: Trial) -> bool:
        promised = C1 * trial.t * self.start.slope
        return not trial.value <= self.start.value + promised

    def _is_flat(self, trial: Trial) -> bool:
        return abs(trial.slope) <= -C2 * self.start.slope

    def is_over(self, low: Trial) -> bool:
        """Whether `low` is good, or no trials are left."""
        return self.left <= 0 or (low.t > 0 and not self._is_too_high(low) and self._is_flat(low))

    def bracket(self, t: float) -> tuple[Trial, Trial]:
        """Extend until an interval contains a good step; return its ends, the better one first."""
        before, now = self.start, self.phi(t)
        is_first = True
        while self.left > 0:
            if self._is_too_high(now) or (now.value >= before.value and not is_first):
                return before, now
            if self._is_flat(now):
                return now, now
            if now.slope >= 0:
                return now, before
            nearest, farthest = now.t + 0.01 * (now.t - before.t), 10 * now.t
            t = cubic_minimum(before, now, nearest, farthest)
            before, now, is_first = now, self.phi(t), False
            self.left -= 1
        return min(self.start, now, key=lambda trial: trial.value), now

    def zoom(self, low: Trial, high: Trial) -> Trial:
        """Narrow an interval until a good step is found; return the best trial."""
        was_near = False
        while self.left > 0 and abs(high.t - low.t) >= self.resolution:
            t, was_near = _inside(low, high, was_near)
            new = self.phi(t)
            self.left -= 1
            if self._is_too_high(new) or new.value >= low.value:
                high = new
                continue
            if self._is_flat(new):
                return new
            low, high = new, low if new.slope * (high.t - low.t) >= 0 else high
        return low


def _inside(low: Trial, high: Trial, was_near: bool) -> tuple[float, bool]:
    """The next trial in an interval, and whether it is near one of its ends.

    A second consecutive trial near an end, or a trial at an end, is moved away from it.
    """
    left, right = sorted((low.t, high.t))
    t = cubic_minimum(low, high, left, right)
    margin = MARGIN * (right - left)
    if min(right - t, t - left) >= margin:
        return t, False
    if not was_near and left < t < right:
        return t, True
    return (right - margin if right - t < t - left else left + margin), False


def cubic_minimum(a: Trial, b: Trial, low: float, high: float) -> float:
    """Return the minimum of the cubic through two trials and their slopes, within [low, high].

    Nocedal, Wright: equation 3.59. The middle if the cubic has none, or if a trial is not finite.

    >>> cubic_minimum(Trial(0.0, 9.0, -6.0), Trial(1.0, 4.0, -4.0), 0.0, 10.0)
    3.0
    """
    a, b = (a, b) if a.t <= b.t else (b, a)
    d1 = a.slope + b.slope - 3 * (a.value - b.value) / (a.t - b.t)
    square = d1 * d1 - a.slope * b.slope
    if not 0 <= square < math.inf:
        return (low + high) / 2
    d2 = math.sqrt(square)
    divisor = b.slope - a.slope + 2 * d2
    if divisor == 0:
        return (low + high) / 2
    t = b.t - (b.t - a.t) * ((b.slope + d2 - d1) / divisor)
    return min(max(t, low), high)
