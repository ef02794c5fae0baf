"""Hyperparameters: numbers or functions of the step, with the allowed range of each name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from inspect import signature
from numbers import Real
from typing import Any, Final, TypeAlias

import numpy as np

from rumus.optim.options.schedule import Schedule
from rumus.tensor.expression.declared_type import is_ordered
from rumus.tensor.expression.printable import abridged

# A number, or a function from the number of the step (1, 2, ...) to a number.
Hyper: TypeAlias = "float | Callable[[int], float]"

_INFINITY: Final = math.inf
_LOOKS: Final = 32  # steps of a schedule that are looked at before it is used
LARGEST: Final = float(np.finfo(np.float32).max)  # of what a kernel takes
# name -> (lowest, highest, whether the highest is allowed). Other names may be any finite number.
Ranges: TypeAlias = Mapping[str, tuple[float, float, bool]]
# These names mean the same in every optimizer.
COMMON: Final[Ranges] = {
    "lr": (0, _INFINITY, False),
    "weight_decay": (0, _INFINITY, False),
    "lr_scale": (0, _INFINITY, False),
    "beta1": (0, 1, False),
    "beta2": (0, 1, False),
    "beta3": (0, 1, False),
}
# Those of rumus's optimizers; custom rules may name their scalars freely.
RANGES: Final[Ranges] = {
    **COMMON,
    "eps": (0, _INFINITY, False),
    "eps1": (0, _INFINITY, False),
    "eps2": (0, _INFINITY, False),
    "beta2_decay": (-_INFINITY, 0, True),
    "momentum": (0, 1, False),
    "alpha": (0, 1, False),
    "rho": (0, 1, False),
    "lr_decay": (0, _INFINITY, False),
    "momentum_decay": (0, _INFINITY, False),
    "initial_accumulator_value": (0, _INFINITY, False),
    "eta_minus": (0, 1, False),
    "eta_plus": (1, _INFINITY, False),
    "d_coef": (0, _INFINITY, False),
    "growth_rate": (1, _INFINITY, False),
    "step_min": (0, _INFINITY, False),
    "step_max": (0, _INFINITY, False),
    "lambd": (0, _INFINITY, False),
    "t0": (0, _INFINITY, False),
    "adapt": (0, 1, True),
    "trust_coefficient": (0, _INFINITY, False),
    "warmup_steps": (0, _INFINITY, False),
    "weight_lr_power": (0, _INFINITY, False),
}
# Hyperparameters given together -> the names of their parts in a rule.
TOGETHER: Final[Mapping[str, tuple[str, ...]]] = {
    "betas": ("beta1", "beta2", "beta3"),
    "etas": ("eta_minus", "eta_plus"),
    "step_sizes": ("step_min", "step_max"),
}


_SCHEDULABLE: Final = "a number or a function of the step"


def check(
    name: str,
    value: object,
    origin: str = "",
    ranges: Ranges = RANGES,
    *,
    wanted: str = "a number",
) -> float:
    """Return `value` as a float. Raises ValueError or TypeError, stating the range of `name`."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be {wanted}, not {abridged(value)}{origin}")
    low, high, closed = ranges.get(name, (-_INFINITY, _INFINITY, False))
    try:
        number = float(value)
    except OverflowError:  # a whole number
        number = _INFINITY
    inside = low <= number <= high if closed else low <= number < high
    if not math.isfinite(number) or not inside:
        allowed = f"in [{low}, {high})" if high < _INFINITY else f">= {low}"
        limits = "finite" if low == -_INFINITY else f"finite and {allowed}"
        raise ValueError(f"{name} must be {limits}, not {abridged(value)}{origin}")
    if abs(number) > LARGEST:
        raise ValueError(
            f"{name} must be at most {LARGEST:.4g}, since updates compute in float32, not "
            f"{value}{origin}"
        )
    return number


def at_step(name: str, hyper: Hyper, step: int, ranges: Ranges = COMMON) -> float:
    """Return the value of a hyperparameter at a step; a schedule's value is checked, too."""
    if not callable(hyper):
        return hyper
    return check(name, hyper(step), f" (from its schedule, at step {step})", ranges)


def checked(given: Mapping[str, Any], ranges: Ranges = RANGES) -> dict[str, Hyper]:
    """Return `given` with the entries of `TOGETHER` split, and every number checked.

    betas: two numbers, or three for a rule that has beta3. ranges: what is allowed, by name.
    """
    hyper: dict[str, Hyper] = {}
    for name, value in given.items():
        if name in TOGETHER:
            names = TOGETHER[name]
            is_listed = is_ordered(value) and not isinstance(value, (str, Mapping))
            value = tuple(value) if is_listed else value
            if not is_listed or len(value) not in (2, len(names)):
                raise TypeError(f"{name} must be two numbers, not {value!r}")
            if twice := [part for part in names if part in given]:
                raise TypeError(f"{twice[0]} is part of {name}: give only one of them")
            hyper.update(checked(dict(zip(names, value, strict=False)), ranges))
        else:
            if isinstance(value, Schedule) and value.is_factor:
                raise ValueError(
                    f"{name}: {value} only scales the schedule that follows it: "
                    "write warmup(...).then(...), or multiply it by a number"
                )
            if callable(value) and not isinstance(value, Schedule):
                _check_function(name, value)
            if isinstance(value, Schedule):
                _check_schedule(name, value, ranges)
            hyper[name] = (
                value if callable(value) else check(name, value, ranges=ranges, wanted=_SCHEDULABLE)
            )
    return hyper


def _check_schedule(name: str, schedule: Schedule, ranges: Ranges) -> None:
    """Raise ValueError for a schedule that leaves the range of `name`, as far as some steps tell.

    Of an endless one only the first is known to be reached.
    """
    length = schedule.length or 1
    for step in sorted({1 + (length - 1) * part // _LOOKS for part in range(_LOOKS + 1)}):
        at_step(name, schedule, step, ranges)


def _check_function(name: str, function: Callable[..., object]) -> None:
    """Raise TypeError for a function that cannot be called with a step, before the first one."""
    if isinstance(function, type):
        made = f"{function.__name__}(...)"
        raise TypeError(f"{name} must be {_SCHEDULABLE}, not a class: make it, as {name}={made}")
    try:
        signature(function).bind(1)
    except TypeError as error:
        called = getattr(function, "__name__", type(function).__name__)
        raise TypeError(
            f"{name} must be {_SCHEDULABLE}, but {called} cannot be called with a step ({error}): "
            f"if it makes a schedule, write {name}={called}(...)"
        ) from None
    except ValueError:
        return  # written in C, without a signature
