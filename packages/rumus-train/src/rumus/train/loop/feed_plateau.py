"""`FeedPlateau`: tells a `Plateau` schedule what validations find."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from rumus.optim import Optimizer, Plateau
from rumus.train.checkpoints.snapshot import Schedules
from rumus.train.loop.callback import Callback
from rumus.train.loop.events import ValidationEnd
from rumus.train.loop.monitor import Mode, checked_metric


class FeedPlateau(Callback):
    """After each validation, `plateau.report(metric)`. The schedule's state is in checkpoints.

    plateau: the schedule that hears of the metric.
    metric: its name among those of the validation.

    ValueError for a metric that is no loss beside a `Plateau` that was made without `mode`, which
    then takes less for better; and from `fit` where no validation has the metric.

    >>> from rumus.optim import AdamW, Plateau
    >>> from rumus.tensor import Parameter
    >>> from rumus.train import FeedPlateau
    >>> lr = Plateau(1e-3, patience=2)
    >>> optimizer = AdamW([Parameter([1.0])], lr)
    >>> feed = FeedPlateau(lr, "loss")
    """

    def __init__(self, plateau: Plateau, metric: str | None = None) -> None:
        metric, _ = checked_metric(metric, plateau.mode) if metric is None else (metric, None)
        if not (plateau.mode_is_given or metric.endswith("loss")):
            raise ValueError(
                f'Plateau(mode=...) must say whether less ("min") or more ("max") of {metric!r} is '
                "better"
            )
        self.plateau = plateau
        self.metric = metric

    @property
    def monitors(self) -> str:
        """The metric."""
        return self.metric

    @property
    def mode(self) -> Mode:
        """Whether less or more of it is better, as the schedule says."""
        return self.plateau.mode

    def on_validation_end(self, event: ValidationEnd) -> None:
        """Report the metric."""
        self.plateau.report(event.metrics[self.metric])


def warn_of_unfed(optimizer: Optimizer[Any], callbacks: Iterable[Callback]) -> None:
    """Warn of a `Plateau` that has heard of no metric after an epoch, and of none that feeds it."""
    fed = {id(callback.plateau) for callback in callbacks if isinstance(callback, FeedPlateau)}
    for name, schedule in Schedules(optimizer).found.items():
        is_fed = id(schedule) in fed or not isinstance(schedule, Plateau)
        if not is_fed and schedule.best is None:
            warnings.warn(
                f"{name} is a Plateau that nobody has told of a metric, so that it stays what it "
                "is: fit(..., validate=..., callbacks=[FeedPlateau(plateau, metric)]), or "
                "plateau.report(metric) in a callback",
                UserWarning,
                stacklevel=2,
            )
