"""`EarlyStopping`: ends a training when a metric has stopped getting better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from rumus.train.loop.callback import Callback
from rumus.train.loop.events import TrainStart, ValidationEnd


class EarlyStopping(Callback):
    """Ends the training after `patience` validations in a row that were no better than the best.

    metric: its name among those of the validation. min_delta: >= 0; better is only what is better
    by more than this. mode: "min" if less is better, "max" if more. NaN is never better.

    ValueError for arguments out of range; a validation without the metric is a KeyError.

    >>> stopping = EarlyStopping("accuracy", patience=3, mode="max")
    """

    order = 100  # after those who look at the metrics

    def __init__(
        self,
        metric: str = "loss",
        *,
        patience: int = 3,
        min_delta: float = 0.0,
        mode: Literal["min", "max"] = "min",
    ) -> None:
        if isinstance(patience, bool) or patience != int(patience) or patience < 1:
            raise ValueError(f"patience must be a whole number of at least 1, not {patience!r}")
        if not 0 <= min_delta < math.inf:
            raise ValueError(f"min_delta must be finite and >= 0, not {min_delta}")
        if mode not in ("min", "max"):
            raise ValueError(f'mode must be "min" or "max", not {mode!r}')
        self.metric, self.patience, self.min_delta, self.mode = metric, patience, min_delta, mode
        self.best: float | None = None
        self.waited = 0  # validations in a row that were no better

    def on_train_start(self, event: TrainStart) -> None:
        """Stop at once where a resumed run had been stopped."""
        self._stop(event)

    def on_validation_end(self, event: ValidationEnd) -> None:
        """Count validations that are no better, and stop after enough of them."""
        value = metric_of(event, self.metric)
        if self._is_better(value):
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        self._stop(event)

    def _stop(self, event: TrainStart | ValidationEnd) -> None:
        if self.waited >= self.patience:
            event.run.stop(f"no better {self.metric} in {self.waited} validations")

    def _is_better(self, value: float) -> bool:
        if self.best is None:
            return not math.isnan(value)
        gain = self.best - value if self.mode == "min" else value - self.best
        return gain > self.min_delta

    def state_dict(self) -> dict[str, Any]:
        """Return the best value, and how many validations were no better since."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self.best, self.waited = state["best"], int(state["waited"])


def metric_of(event: ValidationEnd, name: str) -> float:
    """Return a metric of a validation; KeyError, with the names that there are, without it."""
    if name not in event.metrics:
        raise KeyError(f"the validation has no {name!r}; it has {', '.join(event.metrics)}")
    return event.metrics[name]
