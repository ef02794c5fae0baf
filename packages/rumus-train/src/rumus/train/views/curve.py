"""`Curve`: a series of numbers of any length, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

CAPACITY: Final = 1024
LARGEST: Final = 1e300  # that is drawn: differences of such numbers are finite
LEAST: Final = 1e-300  # of the positive; a smaller one is drawn as 0


@dataclass(slots=True)
class Point:
    """Neighboring numbers: their place, mean, least, greatest, and count."""

    x: float
    mean: float
    low: float
    high: float
    count: int

    def join(self, other: Point) -> Point:
        """Return both merged."""
        count = self.count + other.count
        share = other.count / count
        return Point(
            self.x + (other.x - self.x) * share,
            self.mean + (other.mean - self.mean) * share,
            min(self.low, other.low),
            max(self.high, other.high),
            count,
        )


class Curve:
    """Numbers over steps.

    If there are too many, neighbors merge to one point; all points but the last then stand for
    equally many numbers. Numbers that are not finite, or larger than LARGEST, are only counted.

    >>> curve = Curve(capacity=4)
    >>> for step in range(10):
    ...     curve.add(step, step % 2)
    >>> [(point.x, point.mean, point.low, point.high) for point in curve.points]
    [(1.5, 0.5, 0.0, 1.0), (5.5, 0.5, 0.0, 1.0), (8.5, 0.5, 0.0, 1.0)]
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.points: list[Point] = []
        self.not_drawn = 0
        self.last: float | None = None
        self._capacity = capacity
        self._stride = 1

    def add(self, x: float, y: float) -> None:
        """Add a number; `x` does not fall."""
        self.last = y = float(y)
        if math.isnan(y) or abs(y) > LARGEST:
            self.not_drawn += 1
            return
        y = 0.0 if abs(y) < LEAST else y
        point = Point(float(x), y, y, y, 1)
        if self.points and self.points[-1].count < self._stride:
            self.points[-1] = self.points[-1].join(point)
            return
        if len(self.points) == self._capacity:
            self.points = list(_paired(self.points))
            self._stride *= 2
        self.points.append(point)

    @property
    def is_thinned(self) -> bool:
        """Whether points stand for several numbers."""
        return self._stride > 1


def _paired(points: list[Point]) -> Iterator[Point]:
    for at in range(0, len(points) - 1, 2):
        yield points[at].join(points[at + 1])
    if len(points) % 2:
        yield points[-1]
