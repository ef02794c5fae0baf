"""`Losses`: the mean loss of an epoch; losses stay where they were computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rumus.tensor import Tensor
from rumus.tensor.expression.state_names import check_names
from rumus.tensor.memory.updater import Outcome
from rumus.train.base.epoch_sum import EpochSum, LateWeight, LateWeights
from rumus.train.base.logged import Log, Logged


class Losses:
    """A weighted float64 mean of losses that may not have been computed yet; see `EpochSum`.

    logged: the other values that steps log.
    """

    def __init__(self) -> None:
        self.logged = Logged()
        self._sum = EpochSum()
        self._weights = LateWeights()
        self._last: float | None = None  # the mean of the last epoch

    def note(self, loss: Tensor, log: Log | None = None) -> Tensor:
        """Return a copy of a loss; it counts only after `count`.

        log: the step's logged values.
        """
        self.logged.note(log or {})
        return self._sum.note(loss)

    def placed(self, weight: float | Tensor) -> float | LateWeight:
        """Return a weight for `count`; one on a device is copied there, not read."""
        if not isinstance(weight, Tensor):
            return weight
        if not weight.backend.runs_ahead:
            return float(weight)
        return self._weights.note(weight)

    def count(self, noted: Tensor, weight: float | LateWeight, outcome: Outcome) -> None:
        """Let the loss that was noted last enter the mean, if its step turns out to be applied."""
        self.logged.count(weight, outcome)
        self._sum.count(noted, weight, outcome)

    def close(self) -> float | None:
        """Return the mean since the last call, or what that returned if no loss has counted since.

        None if none ever did. Waits for the device.
        """
        total = float(self._sum.read())
        if self._sum.weight:
            self._last = total / self._sum.weight
        self._sum.start()
        return self._last

    def open(self) -> None:
        """Begin an epoch, which has no mean until one of its losses counts."""
        self._last = None

    def clear(self) -> None:
        """Forget everything."""
        self._last = None
        self.logged.clear()
        self._sum.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return the sums so far; it waits for the device, and closes nothing."""
        total = float(self._sum.read())
        state = {"total": total, "weight": self._sum.weight, "last": self._last}
        return {**state, "logged": self.logged.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from saved sums. ValueError or TypeError, with nothing changed, for bad ones."""
        check_names(self, state, ("total", "weight", "last"), optional=("logged",))
        total, weight = (float(state[name] or 0.0) for name in ("total", "weight"))
        last = state["last"] if state["last"] is None else float(state["last"])
        self.clear()
        self._sum.start(total, weight)
        self._last = last
        self.logged.load_state_dict(state.get("logged", {}))
