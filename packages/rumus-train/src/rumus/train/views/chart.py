"""A chart as SVG in a page: lines over steps, without external resources."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Final

from rumus.train.loop.progress import short
from rumus.train.views.curve import Curve, Point

WIDTH, HEIGHT = 560, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 12, 30
_DECADES: Final = 1.7  # that positive numbers span before the axis is logarithmic
_HOVERED: Final = 300  # points of a line that can be pointed at


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about `count` round numbers from `low` to `high`.

    >>> ticks(0.03, 0.92)
    [0.2, 0.4, 0.6, 0.8]
    """
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{at * step:.12g}") for at in range(first, last + 1)]


def decades(low: float, high: float) -> list[float]:
    """Return powers of ten between two positive numbers; more numbers where these are few.

    >>> decades(0.05, 20.0)
    [0.1, 1.0, 10.0]
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, (last - first) // 6)
    factors = (1, 2, 5) if last - first < 3 else (1,)
    found = [f * 10.0**power for power in range(first, last + 1, every) for f in factors]
    return [float(f"{value:.12g}") for value in found if low <= value <= high]


class Axis:
    """Numbers to places. is_log: the distance of a number and its double is always the same."""

    def __init__(self, low: float, high: float, start: float, stop: float, is_log: bool) -> None:
        self.is_log = is_log
        is_flat = high - low <= 1e-9 * abs(high)  # no ticks of few digits lie between them
        if not is_log and is_flat:
            margin = abs(low) * 0.05 or 0.5
            low, high = low - margin, high + margin
        elif is_flat:
            low, high = low / 2, high * 2
        self.low, self.high = low, high
        self._to = (lambda v: math.log(max(v, low))) if is_log else (lambda v: v)
        self._start = start
        self._scale = (stop - start) / (self._to(high) - self._to(low))

    def __call__(self, value: float) -> float:
        """Return the place of a number."""
        return self._start + (self._to(value) - self._to(self.low)) * self._scale

    @property
    def ticks(self) -> list[float]:
        """The numbers that are written at it."""
        return decades(self.low, self.high) if self.is_log else ticks(self.low, self.high)


def vertical(curves: Sequence[Curve]) -> Axis:
    """Return the axis of the numbers: logarithmic if they are positive and far apart."""
    points = [point for curve in curves for point in curve.points]
    low, high = min(p.low for p in points), max(p.high for p in points)
    is_log = low > 0 and math.log10(high / low) > _DECADES
    if not is_log:
        margin = (high - low) * 0.04
        low, high = low - margin, high + margin
    return Axis(low, high, HEIGHT - _BOTTOM, _TOP, is_log)


def chart(title: str, curves: Mapping[str, Curve], note: str = "") -> str:
    """Return a figure with a line for each curve that has a finite number; otherwise ""."""
    shown = {name: curve for name, curve in curves.items() if curve.points}
    if not shown:
        return ""
    points = [point for curve in shown.values() for point in curve.points]
    last = max(point.x for point in points)
    x = Axis(min(min(p.x for p in points), last), last, _LEFT, WIDTH - _RIGHT, False)
    y = vertical(list(shown.values()))
    lines = [_line(number, curve, x, y) for number, curve in enumerate(shown.values())]
    lost = sum(curve.not_drawn for curve in shown.values())
    notes = [
        note,
        "logarithmic" if y.is_log else "",
        f"{lost} not finite or too large" if lost else "",
    ]
    said = ", ".join(each for each in notes if each)
    body = "".join([*_frame(x, y), *lines])
    return (
        f'<figure data-lines="{_hovered(shown, x, y)}"><figcaption>{escape(title)}'
        f"{f' <small>{escape(said)}</small>' if said else ''}{_legend(shown)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{body}'
        '<line class="cursor" y1="12" y2="230" hidden="hidden"></line></svg><output></output>'
        "</figure>"
    )


def _frame(x: Axis, y: Axis) -> list[str]:
    bottom = HEIGHT - _BOTTOM
    found = []
    for value in y.ticks:
        at = f"{y(value):.1f}"
        found.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at}" y2="{at}"/>')
        found.append(f'<text x="{_LEFT - 8}" y="{at}" dy="4" class="end">{_label(value)}</text>')
    for value in x.ticks:
        at = f"{x(value):.1f}"
        found.append(f'<text x="{at}" y="{bottom + 18}" class="middle">{_label(value)}</text>')
    return [
        *found,
        f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{bottom}" y2="{bottom}"/>',
    ]


def _label(value: float) -> str:
    """A tick's number: thousands as k, millions as M.

    >>> [_label(value) for value in (0.0, 0.25, 1500.0, 2e6, 3e-7)]
    ['0', '0.25', '1.5k', '2M', '3e-07']
    """
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= factor:
            return f"{value / factor:g}{unit}"
    return f"{value:g}"


def _line(number: int, curve: Curve, x: Axis, y: Axis) -> str:
    def places(height: Callable[[Point], float]) -> list[str]:
        return [f"{x(point.x):.1f},{y(height(point)):.1f}" for point in curve.points]

    found = ""
    if curve.is_thinned:
        edge = [*places(lambda p: p.high), *reversed(places(lambda p: p.low))]
        found = f'<polygon class="band c{number % 6}" points="{" ".join(edge)}"/>'
    middle = places(lambda p: p.mean)
    found += f'<polyline class="line c{number % 6}" points="{" ".join(middle)}"/>'
    if len(middle) <= 40:  # few numbers are seen one by one
        found += "".join(
            f'<circle class="c{number % 6}" r="2.4" cx="{cx}" cy="{cy}"/>'
            for cx, cy in (place.split(",") for place in middle)
        )
    return found


def _legend(shown: Mapping[str, Curve]) -> str:
    if len(shown) < 2:
        return ""
    names = (f'<i class="c{at % 6}"></i>{escape(name)}' for at, name in enumerate(shown))
    return f'<span class="legend">{"".join(names)}</span>'


def _hovered(shown: Mapping[str, Curve], x: Axis, y: Axis) -> str:
    """What the page's script needs: for each line places, steps and numbers."""
    found = []
    for name, curve in shown.items():
        every = -(-len(curve.points) // _HOVERED)
        points = curve.points[::every]
        rows = [[round(x(p.x), 1), round(p.x), short(p.mean)] for p in points]
        found.append({"name": name, "points": rows})
    return escape(json.dumps(found, separators=(",", ":")))
