"""`FeedPlateau`: tells a `Plateau` schedule what validations find."""

from __future__ import annotations

from rumus.optim import Plateau
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
