"""Schedules: pure functions from the step number to a value, for any hyperparameter.

Only applied steps count: 1, 2, ... A schedule over `steps` steps has its first value exactly at
step 1 and its last exactly at step `steps`, and stays there.

>>> lr = warmup(100).then(cosine(1e-3, 10_000))
>>> lr
warmup(100).then(cosine(0.001, 10000))
>>> [lr(step) for step in (1, 100, 101, 10_100)]
[1e-05, 0.001, 0.001, 0.0]
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from rumus.optim.options.other_names import SCHEDULE, SCHEDULE_OPTIONS
from rumus.tensor.expression.arguments import checked_first
from rumus.tensor.expression.decided import fixed
from rumus.tensor.expression.declared_type import is_ordered, shown
from rumus.tensor.expression.real_number import finite_number
from rumus.tensor.expression.whole_number import whole_number

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

_ENDLESS_SHOWN: Final = 1000  # steps shown in a plot of an endless schedule
_POINTS: Final = 2000  # at most, in a plot


@SCHEDULE.of_instances
@fixed
@dataclass(frozen=True, slots=True, repr=False)
class Schedule:
    """A value for each step; the functions of this module make them.

    formula: computes the value from the step, counted from 1, and `arguments`. It must be pure: a
        device gets the values of future steps.
    arguments: further arguments of `formula`.
    length: the number of steps until the value stays constant; None if it never does.
    text: its repr.

    Calling it raises ValueError for a step below 1, and for a value that is not finite.

    >>> from rumus.optim import Schedule
    >>> halves = Schedule(lambda step: 0.5**step, text="halves")
    >>> halves(3), (halves * 8)(3), halves
    (0.125, 1.0, halves)
    """

    formula: Callable[..., float]
    arguments: tuple[Any, ...] = ()
    length: int | None = None
    text: str = "schedule"

    def __call__(self, step: int) -> float:
        """Return the value at an applied step: 1, 2, ..."""
        if step < 1:
            raise ValueError(f"{self}: steps are counted from 1, not {step}")
        try:
            value = float(self.formula(step, *self.arguments))
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise ValueError(f"{self}: the value at step {step} is not finite")
        return value

    @property
    def is_factor(self) -> bool:
        """Whether it ends in a `warmup` without a successor: its values are then relative."""
        return _parts(self)[-1].formula is _warmup

    def then(self, following: Schedule | float) -> Schedule:
        """Return a schedule that continues with `following` after the last step of this one.

        following: a schedule, which counts its steps from 1, or a constant. A `warmup` rises to the
            first value of `following`.

        Raises ValueError if this one is endless, or for a warmup after a warmup.
        """
        following = _as_schedule(following)
        if self.length is None:
            raise ValueError(f"{self} never ends, so nothing can follow it: give it `steps`")
        first, second = _parts(self), _parts(following)
        if self.is_factor:
            if second[0].formula is _warmup:
                raise ValueError(f"{self} needs a value to rise to, but {following} has none")
            first = (*first[:-1], first[-1] * following(1))
        length = None if following.length is None else self.length + following.length
        text = f"({self})" if self.formula is _product else f"{self}"
        return Schedule(_chain, (*first, *second), length, f"{text}.then({following})")

    def __mul__(self, other: Schedule | float) -> Schedule:
        """Return the product with a number or, step by step, with another schedule."""
        if not isinstance(other, Schedule):
            text, factor = f"{other}", _as_schedule(other)
        else:
            text, factor = other.text, other
        lengths = (self.length, factor.length) if isinstance(other, Schedule) else (self.length,)
        known = [length for length in lengths if length is not None]
        length = max(known) if len(known) == len(lengths) else None
        factors = self.arguments if self.formula is _product else (self,)
        return Schedule(_product, (*factors, factor), length, f"{self} * {text}")

    __rmul__ = __mul__

    @checked_first
    def plot(self, path: str | Path | None = None, *, steps: int | None = None) -> Figure:
        """Return a plot of the values, and write it to `path` if that is given.

        path: the image file to write, or None.
        steps: the number of steps to show; by default all, or 1000 of an endless schedule.

        Raises ImportError without matplotlib.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError("plot() needs matplotlib: pip install 'rumus-optim[plot]'") from error
        last = _count("steps", self.length or _ENDLESS_SHOWN if steps is None else steps)
        shown = [*range(1, last, -(-last // _POINTS)), last]
        figure = Figure(layout="constrained")
        axes = figure.add_subplot(xlabel="step", ylabel="value", title=repr(self))
        axes.plot(shown, [self(step) for step in shown])
        if path is not None:
            figure.savefig(path)
        return figure

    def __repr__(self) -> str:
        return self.text


@SCHEDULE_OPTIONS.before_call
def constant(value: float, steps: int | None = None) -> Schedule:
    """Return a constant schedule; with `steps`, another one can follow.

    value: finite.
    steps: their number; None for an endless schedule.

    >>> from rumus.optim import constant
    >>> constant(0.5)(7), constant(0.5, 10).then(0.25)(11)
    (0.5, 0.25)
    """
    return _made(_constant, (_finite("value", value),), steps, "constant", value)


@SCHEDULE_OPTIONS.before_call
def warmup(steps: int, start: float = 0.0) -> Schedule:
    """Return a linear warmup: the factor start + (1 - start) t / steps, 1 at the last step.

    The factor applies to the first value of the schedule that comes `then`. Multiplying by a number
    also makes it a schedule: `warmup(100) * 1e-3`. Without either, a hyperparameter rejects it.

    steps: the number of warmup steps.
    start: the initial share of the full value.

    >>> from rumus.optim import constant, warmup
    >>> rising = warmup(4).then(constant(0.5))
    >>> [rising(step) for step in range(1, 7)]
    [0.125, 0.25, 0.375, 0.5, 0.5, 0.5]
    """
    steps, start = _count("steps", steps), _finite("start", start)
    given = (steps,) if start == 0 else (steps, start)
    return _made(_warmup, (steps, start), steps, "warmup", *given)


@SCHEDULE_OPTIONS.before_call
def linear(start: float, end: float, steps: int) -> Schedule:
    """Return a linear schedule from `start` to `end`; with one step, it is `start`.

    PyTorch's LinearLR with total_iters = steps - 1.

    start: the value at the first step.
    end: the value at the last step, and afterwards.
    steps: their number, at least 1.

    >>> from rumus.optim import linear
    >>> [linear(1.0, 0.0, 5)(step) for step in range(1, 7)]
    [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """
    values = _finite("start", start), _finite("end", end), _count("steps", steps)
    return _made(_linear, values, steps, "linear", start, end, steps)


@SCHEDULE_OPTIONS.before_call
def cosine(start: float, steps: int, end: float = 0.0) -> Schedule:
    """Return a cosine schedule: end + (start - end) (1 + cos(pi x)) / 2, x from 0 to 1.

    PyTorch's CosineAnnealingLR with T_max = steps - 1. Loshchilov, Hutter: arXiv:1608.03983.

    start: the value at the first step.
    steps: their number, at least 1.
    end: the value at the last step, and afterwards.

    >>> from rumus.optim import cosine
    >>> [round(cosine(1.0, 5)(step), 3) for step in range(1, 6)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    """
    values = _finite("start", start), _finite("end", end), _count("steps", steps)
    return _made(_cosine, values, steps, "cosine", start, steps, *_unless(end, 0.0))


@SCHEDULE_OPTIONS.before_call
def polynomial(start: float, steps: int, end: float = 0.0, power: float = 1.0) -> Schedule:
    """Return a polynomial schedule: end + (start - end) (1 - x)^power, x from 0 to 1; power > 0.

    PyTorch's PolynomialLR with total_iters = steps - 1.

    start: the value at the first step.
    steps: their number, at least 1.
    end: the value at the last step, and afterwards.
    power: positive.

    >>> from rumus.optim import polynomial
    >>> [polynomial(1.0, 5, power=2.0)(step) for step in range(1, 6)]
    [1.0, 0.5625, 0.25, 0.0625, 0.0]
    """
    power = _positive("power", power)
    values = _finite("start", start), _finite("end", end), _count("steps", steps), power
    return _made(_polynomial, values, steps, "polynomial", start, steps, end, power)


@SCHEDULE_OPTIONS.before_call
def exponential(start: float, factor: float, steps: int | None = None) -> Schedule:
    """Return an exponential schedule: start factor^(t - 1); factor > 0.

    PyTorch's ExponentialLR with gamma = factor.

    start: the value at the first step.
    factor: positive.
    steps: the number of steps until the value stays constant; None for an endless schedule.

    >>> from rumus.optim import exponential
    >>> [exponential(1.0, 0.5)(step) for step in (1, 2, 3)]
    [1.0, 0.5, 0.25]
    """
    values = _finite("start", start), _positive("factor", factor)
    return _made(_exponential, values, steps, "exponential", start, factor)


@SCHEDULE_OPTIONS.before_call
def step_decay(start: float, every: int, factor: float = 0.1, steps: int | None = None) -> Schedule:
    """Return a schedule that is multiplied by `factor` > 0 after every `every` steps.

    PyTorch's StepLR with step_size = every and gamma = factor.

    start: the value at the first step.
    every: at least 1.
    factor: positive.
    steps: the number of steps until the value stays constant; None for an endless schedule.

    >>> from rumus.optim import step_decay
    >>> [step_decay(1.0, 2, 0.5)(step) for step in range(1, 6)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """
    values = _finite("start", start), _count("every", every), _positive("factor", factor)
    return _made(_step_decay, values, steps, "step_decay", start, every, factor)


@SCHEDULE_OPTIONS.before_call
def multi_step(
    start: float, after: Sequence[int], factor: float = 0.1, steps: int | None = None
) -> Schedule:
    """Return a schedule that is multiplied by `factor` > 0 after each step number in `after`.

    PyTorch's MultiStepLR with milestones = after and gamma = factor.

    start: the value at the first step.
    after: increasing step numbers.
    factor: positive.
    steps: the number of steps until the value stays constant; None for an endless schedule.

    Raises ValueError if `after` is empty or not increasing.

    >>> from rumus.optim import multi_step
    >>> [multi_step(1.0, [2, 3], 0.5)(step) for step in range(1, 6)]
    [1.0, 1.0, 0.5, 0.25, 0.25]
    """
    given: Any = after
    if isinstance(given, str) or not is_ordered(given):
        raise TypeError(f"multi_step: after must be step numbers, as [30, 80], not {after!r}")
    milestones = tuple(_count("after", each) for each in after)
    if not milestones or list(milestones) != sorted(set(milestones)):
        raise ValueError(f"after must be increasing step numbers, not {list(after)}")
    values = _finite("start", start), milestones, _positive("factor", factor)
    return _made(_multi_step, values, steps, "multi_step", start, list(milestones), factor)


@SCHEDULE_OPTIONS.before_call
def inverse_sqrt(start: float, after: int = 1, steps: int | None = None) -> Schedule:
    """Return start sqrt(after / (after + t - 1)): proportional to 1 / sqrt(t) after `after` steps.

    `warmup(n).then(inverse_sqrt(lr, n))` is the schedule of Vaswani et al.: arXiv:1706.03762.

    start: the value at the first step.
    after: the number of steps before the value falls noticeably; at least 1.
    steps: the number of steps until the value stays constant; None for an endless schedule.

    >>> from rumus.optim import inverse_sqrt
    >>> [inverse_sqrt(1.0, 4)(step) for step in (1, 13, 61)]
    [1.0, 0.5, 0.25]
    """
    values = _finite("start", start), _count("after", after)
    return _made(_inverse_sqrt, values, steps, "inverse_sqrt", start, after)


@SCHEDULE_OPTIONS.before_call
def one_cycle(
    peak: float,
    steps: int,
    *,
    rise: float = 0.3,
    divide: float = 25.0,
    final_divide: float = 1e4,
) -> Schedule:
    """Return a half cosine wave up to `peak` and one down, far below the start.

    It starts at peak / divide, ends at peak / divide / final_divide, and is highest at step
    rise * steps, which need not be whole. PyTorch's OneCycleLR with max_lr = peak, total_steps =
    steps and pct_start = rise, without its momentum cycle. Smith, Topin: arXiv:1708.07120.

    peak: the largest value.
    steps: their number, at least 1.
    rise: the share of rising steps, in (0, 1).
    divide: the ratio of the peak to the start, positive.
    final_divide: the ratio of the start to the end, positive.

    Raises ValueError unless 1 < rise * steps < steps.

    >>> from rumus.optim import one_cycle
    >>> [round(one_cycle(1.0, 10)(step), 3) for step in (1, 2, 3, 6, 10)]
    [0.04, 0.52, 1.0, 0.611, 0.0]
    """
    top = _positive("rise", rise) * _count("steps", steps)
    if not 1 < top < steps:
        raise ValueError(f"rise * steps must lie between 1 and {steps}, not at {top}")
    low = _finite("peak", peak) / _positive("divide", divide)
    values = low, peak, low / _positive("final_divide", final_divide), top, steps
    options = f"rise={rise}", f"divide={divide}", f"final_divide={final_divide}"
    return _made(_one_cycle, values, steps, "one_cycle", peak, steps, *options)


@SCHEDULE_OPTIONS.before_call
def cyclic(
    low: float, high: float, up: int, down: int | None = None, *, shrink: float = 1.0
) -> Schedule:
    """Return a sawtooth: `up` linear steps from `low` to `high`, then `down` steps back, repeated.

    low: the lowest value.
    high: the highest value of the first tooth.
    up: the number of rising steps, at least 1.
    down: the number of falling steps; by default `up`.
    shrink: the factor of the height from one tooth to the next, above 0.

    PyTorch's CyclicLR with step_size_up = up and step_size_down = down; its "triangular2" is
    shrink = 0.5. Smith: arXiv:1506.01186.

    >>> from rumus.optim import cyclic
    >>> [cyclic(0.0, 1.0, 2, shrink=0.5)(step) for step in range(1, 8)]
    [0.0, 0.5, 1.0, 0.5, 0.0, 0.25, 0.5]
    """
    down = up if down is None else down
    counts = _count("up", up), _count("down", down)
    values = _finite("low", low), _finite("high", high), *counts, _positive("shrink", shrink)
    return _made(_cyclic, values, None, "cyclic", low, high, up, down, *_unless(shrink, 1.0))


@SCHEDULE_OPTIONS.before_call
def warm_restarts(start: float, period: int, growth: int = 1, end: float = 0.0) -> Schedule:
    """Return half cosine waves from `start` toward `end`, each `growth` times as long as the last.

    A wave restarts when it would reach `end`. PyTorch's CosineAnnealingWarmRestarts with
    T_0 = period, T_mult = growth and eta_min = end. Loshchilov, Hutter: arXiv:1608.03983.

    start: the value at the first step.
    period: the number of steps of the first wave.
    growth: the factor of the period from wave to wave, an integer.
    end: the value that each wave falls toward.

    >>> from rumus.optim import warm_restarts
    >>> [round(warm_restarts(1.0, 2, 2)(step), 3) for step in range(1, 8)]
    [1.0, 0.5, 1.0, 0.854, 0.5, 0.146, 1.0]
    """
    counts = _count("period", period), _count("growth", growth)
    values = _finite("start", start), _finite("end", end), *counts
    return _made(_warm_restarts, values, None, "warm_restarts", start, period, growth, end)


# Formulas: of the step t and of checked numbers


def _constant(t: int, value: float) -> float:
    return value


def _warmup(t: int, steps: int, start: float) -> float:
    return _between(start, 1.0, min(t, steps) / steps)


def _linear(t: int, start: float, end: float, steps: int) -> float:
    return _between(start, end, _part(t, steps))


def _cosine(t: int, start: float, end: float, steps: int) -> float:
    return _wave(start, end, _part(t, steps))


def _polynomial(t: int, start: float, end: float, steps: int, power: float) -> float:
    return _between(end, start, (1 - _part(t, steps)) ** power)


def _exponential(t: int, start: float, factor: float) -> float:
    return start * factor ** (t - 1)


def _step_decay(t: int, start: float, every: int, factor: float) -> float:
    return start * factor ** ((t - 1) // every)


def _multi_step(t: int, start: float, after: Sequence[int], factor: float) -> float:
    return start * factor ** bisect_right(after, t - 1)


def _inverse_sqrt(t: int, start: float, after: int) -> float:
    return start * math.sqrt(after / (after + t - 1))


def _one_cycle(t: int, low: float, peak: float, end: float, top: float, steps: int) -> float:
    if t <= top:
        return _wave(low, peak, (t - 1) / (top - 1))
    return _wave(peak, end, (min(t, steps) - top) / (steps - top))


def _cyclic(t: int, low: float, high: float, up: int, down: int, shrink: float) -> float:
    tooth, at = divmod(t - 1, up + down)
    height = at / up if at <= up else (up + down - at) / down
    return low + (high - low) * height * shrink**tooth


def _warm_restarts(t: int, start: float, end: float, period: int, growth: int) -> float:
    at = t - 1
    if growth == 1:
        at %= period
    while at >= period:
        at -= period
        period *= growth
    return _wave(start, end, at / period)


def _chain(t: int, *parts: Schedule) -> float:
    for part in parts[:-1]:
        if part.length is None or t <= part.length:
            return part(t)
        t -= part.length
    return parts[-1](t)


def _product(t: int, *factors: Schedule) -> float:
    return math.prod([factor(t) for factor in factors])


def _held(t: int, base: Schedule, steps: int) -> float:
    return base(min(t, steps))


def _part(t: int, steps: int) -> float:
    """The progress from step 1 to the last step at step t, in [0, 1]."""
    return 0.0 if steps == 1 else (min(t, steps) - 1) / (steps - 1)


def _between(start: float, end: float, x: float) -> float:
    """A line exactly through both ends; start + x (end - start) would miss the end by rounding."""
    return (1 - x) * start + x * end


def _wave(start: float, end: float, x: float) -> float:
    return _between(start, end, (1 - math.cos(math.pi * x)) / 2)


# Making one


def _made(
    formula: Callable[..., float],
    values: tuple[Any, ...],
    steps: int | None,
    name: str,
    *given: object,
) -> Schedule:
    """A schedule over `steps` steps, whose repr is the call."""
    is_cut = steps is not None and formula not in _ENDING
    if is_cut:
        given = (*given, f"steps={_count('steps', steps)}")
    plain = (each.item() if isinstance(each, (np.generic, np.ndarray)) else each for each in given)
    text = ", ".join(each if isinstance(each, str) else repr(each) for each in plain)
    made = Schedule(formula, values, None if is_cut else steps, f"{name}({text})")
    return Schedule(_held, (made, steps), steps, made.text) if is_cut else made


_ENDING: Final = (_warmup, _linear, _cosine, _polynomial, _one_cycle)  # they know their last step


def _parts(schedule: Schedule) -> tuple[Schedule, ...]:
    return schedule.arguments if schedule.formula is _chain else (schedule,)


def _as_schedule(value: object) -> Schedule:
    if isinstance(value, Schedule):
        return value
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"expected a schedule or a number, not {shown(value)}")
    return constant(float(value))


def _unless(value: float, default: float) -> tuple[float, ...]:
    return () if value == default else (value,)


def _finite(name: str, value: object) -> float:
    return float(finite_number(name, value))


def _positive(name: str, value: object) -> float:
    number = _finite(name, value)
    if not number > 0:
        raise ValueError(f"{name} must be positive, not {value}")
    return number


def _count(name: str, value: object) -> int:
    count = whole_number(name, value)
    if count < 1:
        raise ValueError(f"{name} must be at least 1, not {count}")
    return count
