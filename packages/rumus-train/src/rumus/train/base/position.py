"""`Position`: where a run is, and what it has found on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class Position:
    """Where a run is: epochs count from 0, `step` is the number of those done.

    exhausted: the epoch's batches are used up and only its end is left to do. validation_due: one
    was begun and cut short. rollbacks: how many there were. best: of the monitored metric.
    """

    epoch: int = 0
    step: int = 0
    exhausted: bool = False
    validation_due: bool = False
    rollbacks: int = 0
    best: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        """Return all of it."""
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take all of it. TypeError, and nothing has changed, for other names."""
        loaded = Position(**state)
        for name in asdict(loaded):
            setattr(self, name, getattr(loaded, name))
