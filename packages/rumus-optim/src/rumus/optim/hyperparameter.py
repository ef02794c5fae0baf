"""Hyper-parameters: numbers, or functions of the step, with the range each name allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

# A number, or a function from the number of the step (1, 2, ...) to a number.
Hyper: TypeAlias = "float | Callable[[int], float]"

_INFINITY: Final = math.inf
# name -> (lowest, highest, whether the highest is allowed). Other names may be any finite number.
RANGES: Final[Mapping[str, tuple[float, float, bool]]] = {
    "lr": (0, _INFINITY, False),
    "weight_decay": (0, _INFINITY, False),
    "eps": (0, _INFINITY, False),
    "momentum": (0, _INFINITY, False),
    "beta1": (0, 1, False),
    "beta2": (0, 1, False),
}


def check(name: str, value: object, origin: str = "") -> float:
    """Return `value` as a float; ValueError or TypeError says what is allowed under `name`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number or a function of the step, not {value!r}{origin}")
    low, high, closed = RANGES.get(name, (-_INFINITY, _INFINITY, False))
    inside = low <= value <= high if closed else low <= value < high
    if not math.isfinite(value) or not inside:
        allowed = f"in [{low}, {high})" if high < _INFINITY else f">= {low}"
        wanted = "finite" if low == -_INFINITY else f"finite and {allowed}"
        raise ValueError(f"{name} must be {wanted}, not {value}{origin}")
    return float(value)


def at_step(name: str, hyper: Hyper, step: int) -> float:
    """Return the value of a hyper-parameter at a step; a schedule's value is checked as well."""
    if not callable(hyper):
        return hyper
    return check(name, hyper(step), f" (from its schedule, at step {step})")


def checked(given: Mapping[str, Any]) -> dict[str, Hyper]:
    """Return `given` with `betas=(a, b)` as beta1 and beta2, every number checked."""
    hyper: dict[str, Hyper] = {}
    for name, value in given.items():
        if name == "betas":
            if not isinstance(value, (tuple, list)) or len(value) != 2:
                raise TypeError(f"betas must be two numbers, not {value!r}")
            hyper.update(checked({"beta1": value[0], "beta2": value[1]}))
        else:
            hyper[name] = value if callable(value) else check(name, value)
    return hyper
