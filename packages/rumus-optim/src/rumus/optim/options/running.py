"""`Running`: scalars that depend on all steps so far, such as a product or a sum."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from rumus.optim.options.hyperparameter import Hyper, at_step

# (the value before the step; keyword-only: scalars of the step by name) -> the value at the step
Carry: TypeAlias = Callable[..., float]
_KEPT: Final = 256  # more steps than a device may repeat


class Running:
    """Scalars that a rule needs in addition to its hyperparameters, in float64 on the host.

    carried: by name, the value before the first step, and a function from one step's value to the
        next. The function takes its other inputs as keywords: `t`, hyperparameters, and the current
        values of earlier entries of `carried`.

    They are functions of t and of the current hyperparameters, so they need not be saved: a resumed
    run computes the same numbers, and a device can get those of future steps. After a change of
    hyperparameters, they are computed as if the new values had always applied.

    >>> from rumus.optim import Running
    >>> running = Running(total=(0.0, lambda before, *, lr: before + lr))
    >>> [running.at(0, t, {"lr": 0.5})["total"] for t in (1, 2, 3, 2)]
    [0.5, 1.0, 1.5, 1.0]
    """

    def __init__(self, **carried: tuple[float, Carry]) -> None:
        self.names = tuple(carried)
        self._first = {name: first for name, (first, _) in carried.items()}
        self._carries = {name: (carry, _keywords(carry)) for name, (_, carry) in carried.items()}
        needed = {key for _, keys in self._carries.values() for key in keys}
        self.needed = frozenset(needed - {"t", *carried})  # hyperparameters
        self._known: dict[int, tuple[dict[str, Hyper], dict[int, dict[str, float]]]] = {}

    def at(self, place: int, t: int, hyper: Mapping[str, Hyper]) -> dict[str, float]:
        """Return the scalars of step `t` under `hyper`.

        place: their owner; only a key to cached results.
        t: the number of a step, from 1.
        hyper: the owner's hyperparameters.
        """
        if not self._carries:
            return self._first
        needed = {name: hyper[name] for name in self.needed}
        before, rows = self._known.get(place, ({}, {}))
        if not rows or before != needed or (t not in rows and t < next(reversed(rows))):
            rows = {0: self._first}
            self._known[place] = needed, rows
        for s in range(next(reversed(rows)) + 1, t + 1):
            rows[s] = self._next(rows[s - 1], s, needed)
            rows.pop(s - _KEPT, None)
        return rows[t]

    def _next(
        self, before: Mapping[str, float], t: int, hyper: Mapping[str, Hyper]
    ) -> dict[str, float]:
        scalars = {name: at_step(name, value, t) for name, value in hyper.items()} | {"t": t}
        found: dict[str, float] = {}
        for name, (carry, keys) in self._carries.items():
            found[name] = carry(before[name], **{key: scalars[key] for key in keys})
            scalars[name] = found[name]
        return found


def _keywords(carry: Carry) -> tuple[str, ...]:
    parameters = inspect.signature(carry).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
