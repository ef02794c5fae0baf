"""`EarlyStopping`: ends training when a metric stops improving."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.real_number import real_number
from rumus.tensor.expression.state_names import check_names, is_count
from rumus.tensor.expression.whole_number import whole_number
from rumus.train.base.other_names import STOPPING
from rumus.train.loop.callback import Callback
from rumus.train.loop.events import TrainStart, ValidationEnd
from rumus.train.loop.monitor import Mode, checked_metric, require_same_metric


class EarlyStopping(Callback):
    """Ends training after `patience` validations in a row without improvement.

    metric: the name of a validation metric, by default "loss".
    patience: at least 1.
    min_delta: the improvement must exceed it; at least 0.
    mode: "min" if less is better, "max" if more; required unless the metric is a loss. NaN is never
        better. best, best_step: the best value and its step; `fit(restore_best=True)` returns
        there. A `fit` that resumes nothing begins without a best value.

    Raises ValueError for arguments out of range; `fit` raises it if no validation has the metric.

    >>> from rumus.train import EarlyStopping
    >>> stopping = EarlyStopping("accuracy", patience=3, mode="max")
    """

    order = 100  # after callbacks that read the metrics

    _rereads: ClassVar = frozenset({"patience", "min_delta"})

    @STOPPING.as_keywords
    def __init__(
        self,
        metric: str | None = None,
        *,
        patience: int = 3,
        min_delta: float = 0.0,
        mode: Mode | None = None,
    ) -> None:
        if whole_number("patience", patience) < 1:
            raise ValueError(f"patience must be a whole number of at least 1, not {patience!r}")
        if not 0 <= real_number("min_delta", min_delta) < math.inf:
            raise ValueError(f"min_delta must be finite and >= 0, not {min_delta}")
        self.metric, self.mode = checked_metric(metric, mode)
        self.patience, self.min_delta = int(patience), min_delta
        self.best: float | None = None
        self.best_step: int | None = None
        self.waited = 0  # validations in a row without improvement

    @property
    def monitors(self) -> str:
        """The metric."""
        return self.metric

    def on_train_start(self, event: TrainStart) -> None:
        """Forget the model of an earlier `fit`; stop at once if the resumed run was stopped."""
        if event.resumed_from is None:
            self.best, self.best_step, self.waited = None, None, 0
        self._stop(event)

    def on_validation_end(self, event: ValidationEnd) -> None:
        """Count validations without improvement, and stop after enough of them."""
        value = event.metrics[self.metric]
        if self._is_better(value):
            self.best, self.best_step, self.waited = value, event.step, 0
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
        """Return the best value, what it is of, and the number of validations since."""
        state = {"best": self.best, "best_step": self.best_step, "waited": self.waited}
        return {**state, "metric": self.metric, "mode": self.mode}

    @checked_arguments
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state.

        state: what `state_dict()` returned.

        Raises ValueError, with nothing changed, for that of another metric or mode, and for values
        that are none.
        """
        check_names(self, state, ("best", "waited"), optional=("best_step", "metric", "mode"))
        require_same_metric(self, state)
        best, waited, step = state["best"], state["waited"], state.get("best_step")
        if best is not None and (isinstance(best, bool) or not isinstance(best, (int, float))):
            raise ValueError(f"best: saved {best!r}, which is not a metric")
        for name, value in (("waited", waited), ("best_step", 0 if step is None else step)):
            if not is_count(value):
                raise ValueError(f"{name}: saved {value!r}, which is not a count")
        self.best, self.waited, self.best_step = best, waited, step
