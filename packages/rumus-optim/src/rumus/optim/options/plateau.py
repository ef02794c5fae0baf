"""`Plateau`: a hyperparameter that falls when a metric stops getting better."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal

import numpy as np

from rumus.optim.options.other_names import PLATEAU
from rumus.optim.options.schedule import Schedule, constant
from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.choice import check_choice
from rumus.tensor.expression.real_number import finite_number, real_number
from rumus.tensor.expression.state_names import check_names, is_count

_KEPT: Final = ("reductions", "best", "waited", "rested")


@PLATEAU.of_instances
class Plateau:
    """A schedule that is multiplied by `factor` whenever a metric has stopped getting better.

    Call `report(metric)`, for example once per epoch. Unlike other schedules, which depend only on
    the step, it has a state; `state_dict` returns it.

    start: a number or a schedule.
    factor: in (0, 1).
    patience: the number of consecutive reports without an improvement to tolerate.
    threshold: the smallest improvement that counts, relative to the magnitude of the best metric.
    cooldown: the number of reports to ignore after a reduction.
    lowest: the value does not fall below this.
    mode: "min" (the default) if lower is better, "max" if higher is.

    PyTorch's ReduceLROnPlateau with min_lr = lowest, eps = 0 and the relative threshold, except for
    a best metric below 0, where PyTorch counts equal and slightly worse values as better.

    ValueError or TypeError for arguments out of range.

    >>> from rumus.optim import Plateau
    >>> lr = Plateau(0.5, factor=0.5, patience=1)
    >>> for loss in (3.0, 2.0, 2.0, 2.0):
    ...     lr.report(loss)
    >>> lr(1)
    0.25
    """

    _rereads: ClassVar = frozenset({"factor", "patience", "threshold", "cooldown", "lowest"})

    def __init__(
        self,
        start: Schedule | float,
        *,
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        cooldown: int = 0,
        lowest: float = 0.0,
        mode: Literal["min", "max"] | None = None,
    ) -> None:
        check_choice("mode", mode, ("min", "max", None))
        if not 0 < real_number("factor", factor) < 1:
            raise ValueError(f"factor must be in (0, 1), not {factor}")
        counts: dict[str, Any] = {"patience": patience, "cooldown": cooldown}
        for name, count in counts.items():
            if not isinstance(count, (int, np.integer)) or isinstance(count, bool) or count < 0:
                raise ValueError(f"{name} must be a whole number, 0 or more, not {count!r}")
        for name, value in (("threshold", threshold), ("lowest", lowest)):
            if not (math.isfinite(real_number(name, value)) and value >= 0):
                raise ValueError(f"{name} must be finite and >= 0, not {value}")
        if not isinstance(start, Schedule):
            start = constant(finite_number("start", start))
        self.start = start
        self.factor, self.patience, self.threshold = factor, int(patience), threshold
        self.cooldown, self.lowest = int(cooldown), lowest
        self.mode_is_given = mode is not None
        self.mode: Literal["min", "max"] = mode or "min"
        self.reductions = 0
        self.best: float | None = None
        self.waited = 0  # consecutive reports without an improvement
        self.rested = 0  # reports left in the cooldown
        self._fed: weakref.ref[Any] | None = None  # the optimizer whose training it last heard of

    def __call__(self, step: int) -> float:
        """Return the value at an applied step, with the reductions so far."""
        value = self.start(step)
        return max(value * self.factor**self.reductions, min(value, self.lowest))

    def report(self, metric: float) -> None:
        """Report a new value of the metric.

        metric: a number; NaN is never better, and counts as a report without an improvement.
        """
        if self._is_better(metric):
            self.best, self.waited = float(metric), 0
        else:
            self.waited += 1
        if self.rested > 0:
            self.rested -= 1
            self.waited = 0
        if self.waited > self.patience:
            self.reductions += 1
            self.rested, self.waited = self.cooldown, 0

    def _is_better(self, metric: float) -> bool:
        if math.isnan(metric):
            return False
        if self.best is None:
            return True
        share = math.copysign(self.threshold, self.best)  # so that a negative best needs more, too
        if self.mode == "min":
            return metric < self.best * (1 - share)
        return metric > self.best * (1 + share)

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to continue: numbers, None before any report."""
        return {**{name: getattr(self, name) for name in _KEPT}, "mode": self.mode}

    @checked_arguments
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state. ValueError, with nothing changed, for an invalid one.

        It is also raised for the state of another mode, whose best metric would be the worst.

        state: what `state_dict()` returned.
        """
        check_names(self, state, _KEPT, optional=("mode",))
        for name in ("reductions", "waited", "rested"):
            if not is_count(state[name]):
                raise ValueError(f"{name}: saved {state[name]!r}, which is not a count")
        if state["best"] is not None and not isinstance(state["best"], (int, float)):
            raise ValueError(f"best: saved {state['best']!r}, which is not a metric")
        if state.get("mode", self.mode) not in ("min", "max"):
            raise ValueError(f"mode: saved {state['mode']!r}, which is neither 'min' nor 'max'")
        if state["best"] is not None and state.get("mode", self.mode) != self.mode:
            raise ValueError(f"mode {state['mode']!r} was saved, here it is {self.mode!r}")
        for name in _KEPT:
            setattr(self, name, state[name])

    def __repr__(self) -> str:
        return f"Plateau({self.start}, factor={self.factor}, patience={self.patience})"
