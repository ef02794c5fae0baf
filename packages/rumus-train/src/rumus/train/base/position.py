"""`Position`: the progress of a run, and its results so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rumus.tensor.expression.state_names import check_names


@dataclass(slots=True)
class Position:
    """The progress of a run: epochs count from 0, `step` is the number of completed steps.

    exhausted: the epoch's batches are used up and only its end is left to do. validation_due: one
    was begun and cut short. rollbacks: how many there were. metrics: of the last validation, which
    was that of the weights after `metrics_step`; None if those weights are gone. best: of the
    metric `monitor`, less or more of which is better as `mode` says, found after `best_step`.
    machine: what the last step was computed on. hyper: the hyperparameters that it was done with.
    random: the generators behind `random.random()` and `numpy.random.normal()`. spikes: the number
        of losses far above earlier ones. spikes_in_a_row: the number of steps just skipped.
        recent_losses: that the next are compared with.
    """

    epoch: int = 0
    step: int = 0
    exhausted: bool = False
    validation_due: bool = False
    rollbacks: int = 0
    best: float | None = None
    best_step: int | None = None
    monitor: str | None = None
    mode: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    metrics_step: int | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)
    hyper: dict[str, Any] = field(default_factory=dict)
    random: dict[str, Any] = field(default_factory=dict)
    spikes: list[dict[str, Any]] = field(default_factory=list)
    spikes_in_a_row: int = 0
    recent_losses: list[float] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        """Return all of it."""
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take all of it; what is missing was not saved yet. ValueError for other names."""
        check_names(self, state, (), optional=asdict(self))
        loaded = Position(**state)
        for name in asdict(loaded):
            setattr(self, name, getattr(loaded, name))
