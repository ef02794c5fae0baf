"""`Result`: what a training returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import Any

from rumus.train.base.other_names import RESULT
from rumus.train.loop.spikes import Spike


@RESULT.of_instances
@dataclass(slots=True, repr=False)
class Result:
    """The result of a training.

    reason: why it ended: "epochs", "steps", "seconds", or the argument of `run.stop`.
    epochs, steps: how many are complete, including those before a resume.
    seconds: the duration of the training.
    history: one entry for each epoch and each validation, with "epoch" and "step". An epoch's has
        the mean "loss" of its steps and whatever else they logged, without steps that were skipped
        or undone; NaN if `Spikes` or a loss scale has skipped all. A validation's has its metrics,
        prefixed with "val_".
    metrics: of the last validation, for the weights after step `metrics_step`.
    metrics_step: the step that `metrics` belong to.
    best: the best value of `monitor`, for the weights after `best_step`.
    best_step: the step that `best` belongs to.
    spikes: the steps whose losses were far above the previous ones, if `fit` looked for them.
    """

    reason: str
    epochs: int
    steps: int
    seconds: float
    history: list[dict[str, Any]]
    metrics: dict[str, float]
    metrics_step: int | None
    best: float | None
    best_step: int | None
    spikes: list[Spike] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"Result({', '.join(f'{name} {value}' for name, value in self._told().items())})"

    def _repr_html_(self) -> str:
        """Return it as a table for notebooks."""
        rows = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>"
            for name, value in self._told().items()
        )
        return f"<table>{rows}</table>"

    def _told(self) -> dict[str, str]:
        """The main facts."""
        losses = [entry["loss"] for entry in self.history if "loss" in entry]
        found = {
            "ended by": self.reason,
            "epochs": str(self.epochs),
            "steps": f"{self.steps:,}",
            "seconds": f"{self.seconds:.1f}",
        }
        if losses:
            found["loss"] = f"{losses[-1]:.4g}"
        # Those of other weights than the last ones say so.
        when = "" if self.metrics_step == self.steps else f" after step {self.metrics_step}"
        when = " of weights that are gone" if self.metrics_step is None else when
        found |= {f"validation {name}": f"{v:.4g}{when}" for name, v in self.metrics.items()}
        if self.best is not None:
            found["best"] = f"{self.best:.4g} after step {self.best_step}"
        if self.spikes:
            found["loss spikes"] = str(len(self.spikes))
        return found
