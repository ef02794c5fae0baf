"""`Monitor`: the metric that selects a run's best weights, and whether less is better."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from rumus.tensor.expression.choice import check_choice
from rumus.train.base.every import Every
from rumus.train.loop.callback import Callback

Mode: TypeAlias = Literal["min", "max"]


class Monitoring(Protocol):
    """A callback that depends on a metric."""

    metric: str

    @property
    def mode(self) -> Mode:
        """Whether less or more of it is better."""
        ...


def checked_mode(metric: str, mode: Mode | None) -> Mode:
    """Return whether less or more of a metric is better; less for a loss.

    Raises ValueError for another metric without a mode: only the caller knows.
    """
    if not isinstance(metric, str):
        raise TypeError(f"give the metric by its name, not as {metric!r}")
    check_choice("mode", mode, ("min", "max", None))
    if mode is not None:
        return mode
    if metric.endswith("loss") and not metric.startswith("neg"):  # scikit-learn's neg_log_loss
        return "min"
    raise ValueError(
        f'mode must say whether a lower ("min") or a higher ("max") {metric!r} is better'
    )


def checked_metric(metric: str | None, mode: Mode | None) -> tuple[str, Mode]:
    """Return the metric, by default "loss", and its mode; ValueError for "max" of the default."""
    if metric is None and mode == "max":
        raise ValueError('metric is missing: its default, "loss", is better if lower, not higher')
    name = "loss" if metric is None else metric
    return name, checked_mode(name, mode)


def require_same_metric(callback: Monitoring, state: Mapping[str, Any]) -> None:
    """Raise ValueError for a saved state of a callback with another metric or mode.

    Its best value is a number of that metric, which no other one is compared with.
    """
    now = {"metric": callback.metric, "mode": callback.mode}
    before = {name: state.get(name, value) for name, value in now.items()}
    if before != now:
        told = [f"{each['metric']!r}, mode={each['mode']!r}" for each in (before, now)]
        raise ValueError(
            f"{type(callback).__name__}: saved for {told[0]}, here it is for {told[1]}; callbacks "
            "of one class go on in the order in which they were given"
        )


@dataclass(frozen=True, slots=True)
class Monitor:
    """The monitored metric. is_needed: whether anything but `Result.best` depends on it."""

    metric: str
    mode: Mode
    is_needed: bool

    @classmethod
    def of(
        cls,
        metric: str | None,
        mode: Mode | None,
        keep_best: Mode | None,
        *,
        is_needed: bool,
    ) -> Monitor:
        """Make one from the arguments of `fit` and its checkpoints.

        Raises ValueError if `mode` and `keep_best` contradict each other or the default metric, and
        if the order is unclear.
        """
        check_choice("mode", mode, ("min", "max", None))
        if mode is not None and keep_best is not None and mode != keep_best:
            raise ValueError(f"mode={mode!r} contradicts the checkpoints' keep_best={keep_best!r}")
        if metric is None and "max" in (mode, keep_best):
            raise ValueError(
                'monitor is missing: less of its default, "loss", is better, and not more as '
                + ('mode="max" says' if mode else 'keep_best="max" says')
            )
        name = "loss" if metric is None else metric
        needed = is_needed or metric is not None or keep_best is not None
        return cls(name, checked_mode(name, mode or keep_best), needed)

    def is_better(self, value: float, best: float | None) -> bool:
        """Whether a value beats the best one; NaN beats nothing."""
        if value != value:
            return False
        return best is None or (value < best if self.mode == "min" else value > best)

    def check_callbacks(self, callbacks: Iterable[Callback], is_validated: bool) -> None:
        """Raise for callbacks that need a missing validation, or another order."""
        for callback in callbacks:
            name, metric = type(callback).__name__, callback.monitors
            if metric is None:
                continue
            if not is_validated:
                raise ValueError(f"{name} needs {metric!r} of a validation: give validate=")
            mode = getattr(callback, "mode", None)
            if metric == self.metric and mode not in (None, self.mode):
                raise ValueError(
                    f"{name} takes {mode!r} as better for {metric!r}, but fit has "
                    f"mode={self.mode!r}: give both the same, as monitor={metric!r}, mode={mode!r}"
                )

    def check_metrics(self, metrics: Mapping[str, float], callbacks: Iterable[Callback]) -> None:
        """Raise ValueError if a validation lacks a monitored metric."""
        there = (
            f", which the validation does not return; it returns {', '.join(map(repr, metrics))}"
        )
        for callback in callbacks:
            metric = callback.monitors
            if metric is not None and metric not in metrics:
                raise ValueError(f"{type(callback).__name__} monitors {metric!r}{there}")
        if self.is_needed and self.metric not in metrics:
            raise ValueError(
                f"the best weights are kept by monitor={self.metric!r}{there}: pass monitor= with "
                'the name of one of them, and mode="min" or "max", or return this one too'
            )


def check_options(
    *,
    is_validated: bool,
    is_saved: bool,
    keeps_best: bool,
    of_validation: Mapping[str, object],
    save_every: object,
    restore_best: bool,
    resume: object,
) -> None:
    """Raise ValueError for an option of `fit` that has no effect without another one."""
    if save_every not in (None, Every()) and not is_saved:
        raise ValueError(f"save_every={save_every!r} has no effect without checkpoints=")
    if resume == "auto" and not is_saved:
        raise ValueError(
            'resume="auto" has no effect without checkpoints=, from which to continue: where there '
            'may be no folder, write resume=folder is not None and "auto"'
        )
    for name, value in of_validation.items():
        if value is not None and not is_validated:
            raise ValueError(f"{name}={value!r} has no effect without validate=")
    if restore_best and not (is_validated and keeps_best):
        missing = "checkpoints= that keep the best: a folder, or Checkpoints(keep_best=...)"
        missing = missing if is_validated else "validate="
        raise ValueError(f"restore_best=True needs {missing}")
