"""`FeedPlateau`: tells a `Plateau` schedule what validations find."""

from __future__ import annotations

from rumus.optim import Plateau
from rumus.train.loop.callback import Callback
from rumus.train.loop.early_stopping import metric_of
from rumus.train.loop.events import ValidationEnd


class FeedPlateau(Callback):
    """After each validation, `plateau.report(metric)`. The schedule's state is in checkpoints.

    A validation without the metric is a KeyError.

    >>> from rumus.optim import AdamW
    >>> from rumus.tensor import Parameter
    >>> lr = Plateau(1e-3, patience=2)
    >>> optimizer = AdamW([Parameter([1.0])], lr)
    >>> feed = FeedPlateau(lr, "loss")
    """

    def __init__(self, plateau: Plateau, metric: str = "loss") -> None:
        self.plateau = plateau
        self.metric = metric

    def on_validation_end(self, event: ValidationEnd) -> None:
        """Report the metric."""
        self.plateau.report(metric_of(event, self.metric))
