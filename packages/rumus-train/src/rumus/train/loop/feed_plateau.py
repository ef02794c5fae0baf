"""`FeedPlateau`: reports validation metrics to a `Plateau` schedule."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

from rumus.optim import Optimizer, Plateau, Schedule
from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.state_names import check_names
from rumus.tensor.expression.user_warning import warn_user
from rumus.train.checkpoints.snapshot import Schedules, hyperparameters_of
from rumus.train.loop.callback import Callback
from rumus.train.loop.events import TrainStart, ValidationEnd
from rumus.train.loop.monitor import Mode, checked_metric, require_same_metric


class FeedPlateau(Callback):
    """Calls `plateau.report(metric)` after each validation. Checkpoints hold the schedule's state.

    plateau: the schedule.
    metric: the name of a validation metric.

    Raises ValueError for a metric other than a loss with a `Plateau` made without `mode`, which
    takes less for better; `fit` raises it if no validation has the metric, and a CallbackError if
    no hyperparameter of the optimizer is the schedule, or if that has heard of another training.

    >>> from rumus.optim import AdamW, Plateau
    >>> from rumus.tensor import Parameter
    >>> from rumus.train import FeedPlateau
    >>> lr = Plateau(1e-3, patience=2)
    >>> optimizer = AdamW([Parameter([1.0])], lr)
    >>> feed = FeedPlateau(lr, "loss")
    """

    @checked_arguments
    def __init__(self, plateau: Plateau, metric: str | None = None) -> None:
        if not isinstance(plateau, Plateau):
            raise TypeError(
                "FeedPlateau: plateau must be the Plateau that an optimizer has as its lr, not "
                f"{plateau!r}: lr = Plateau(1e-3); FeedPlateau(lr, 'loss')"
            )
        metric, _ = checked_metric(metric, plateau.mode)
        if not (plateau.mode_is_given or metric.endswith("loss")):
            raise ValueError(
                'Plateau(mode=...) must say whether a lower ("min") or a higher ("max") '
                f"{metric!r} is better"
            )
        self.plateau = plateau
        self.metric = metric

    @property
    def monitors(self) -> str:
        """The metric."""
        return self.metric

    @property
    def mode(self) -> Mode:
        """Whether less or more of it is better, from the schedule."""
        return self.plateau.mode

    def on_train_start(self, event: TrainStart) -> None:
        """Raise ValueError for a plateau that another training has reduced, or that none reads."""
        optimizer = event.run.trainer.optimizer
        if not _may_read(optimizer, self.plateau):
            raise ValueError(
                f"no hyperparameter of {optimizer} is this {self.plateau}: give the optimizer the "
                "one that is fed, as lr = Plateau(1e-3); AdamW(parameters, lr); FeedPlateau(lr)"
            )
        twin = next(e for e in event.run.callbacks.all if self._feeds_as(e))
        if twin is not self:
            raise ValueError(
                f"two callbacks feed {self.plateau}, which would count each validation twice: "
                "leave one out"
            )
        fed = self.plateau._fed
        if fed is not None and fed() is not optimizer and event.resumed_from is None:
            raise ValueError(
                f"{self.plateau} has heard of another training, with {self.plateau.reductions} "
                "reductions and its best value: make another Plateau for this one"
            )

    def _feeds_as(self, callback: Callback) -> bool:
        return isinstance(callback, FeedPlateau) and callback.plateau is self.plateau

    def on_validation_end(self, event: ValidationEnd) -> None:
        """Report the metric; warn if it is NaN, which is no improvement."""
        self.plateau._fed = weakref.ref(event.run.trainer.optimizer)
        value = event.metrics[self.metric]
        if math.isnan(value):
            warn_user(
                f"FeedPlateau: {self.metric!r} of the validation after step {event.step} is NaN, "
                "which the Plateau takes for no improvement",
            )
        self.plateau.report(value)

    def state_dict(self) -> dict[str, Any]:
        """Return what the schedule's best value is of."""
        return {"metric": self.metric, "mode": self.mode}

    @checked_arguments
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raise ValueError if the schedule has heard of another metric so far."""
        check_names(self, state, (), optional=("metric", "mode"))
        require_same_metric(self, state)


def _may_read(optimizer: Optimizer[Any], plateau: Plateau) -> bool:
    """Whether an optimizer has the schedule, or a function that may call it."""
    found = hyperparameters_of(optimizer).values()
    is_plain = (Plateau, Schedule)
    functions = [each for each in found if callable(each)]
    return not found or any(e is plateau or not isinstance(e, is_plain) for e in functions)


def warn_of_unfed(optimizer: Optimizer[Any], callbacks: Iterable[Callback]) -> None:
    """Warn of a `Plateau` that has heard of no metric after an epoch, and of none that feeds it."""
    fed = {id(callback.plateau) for callback in callbacks if isinstance(callback, FeedPlateau)}
    for name, schedule in Schedules(optimizer).found.items():
        is_fed = id(schedule) in fed or not isinstance(schedule, Plateau)
        if not is_fed and schedule.best is None:
            warn_user(
                f"{name} is a Plateau that gets no metric, so its value never changes: use "
                "fit(..., validate=..., callbacks=[FeedPlateau(plateau, metric)]), or "
                "plateau.report(metric) in a callback",
            )
