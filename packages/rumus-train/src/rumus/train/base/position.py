"""`Position`: the progress of a run, and its results so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from numbers import Integral, Real
from typing import Any, Final

from rumus.tensor.expression.declared_type import shown
from rumus.tensor.expression.errors import StateMismatchError
from rumus.tensor.expression.state_names import check_names


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_number(value) and isinstance(value, Integral) and int(value) >= 0


# Whether a saved value fits its declaration, and what it must be.
_FITS: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    "int": (_is_count, "a count"),
    "int | None": (lambda value: value is None or _is_count(value), "a count or None"),
    "float | None": (lambda value: value is None or _is_number(value), "a number or None"),
    "bool": (lambda value: isinstance(value, bool), "True or False"),
    "str | None": (lambda value: isinstance(value, str | None), "a text or None"),
    "dict[str, Any]": (lambda value: isinstance(value, Mapping), "a dict"),
    "dict[str, float]": (
        lambda value: isinstance(value, Mapping) and all(map(_is_number, value.values())),
        "a dict of numbers",
    ),
    "list[float]": (
        lambda value: isinstance(value, list) and all(map(_is_number, value)), "a list of numbers"
    ),
    "list[dict[str, Any]]": (
        lambda value: isinstance(value, list) and all(isinstance(each, Mapping) for each in value),
        "a list of dicts",
    ),
}  # fmt: skip


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
        """Take all of it; what is missing was not saved yet.

        StateMismatchError for other names, and values of other kinds.
        """
        check_names(self, state, (), optional=asdict(self))
        for each in fields(self):
            fits, told = _FITS[str(each.type)]
            if each.name in state and not fits(state[each.name]):
                raise StateMismatchError(
                    f"Position: {each.name} must be {told}, not {shown(state[each.name])}: was the "
                    "checkpoint changed?"
                )
        loaded = Position(**state)
        if loaded.mode not in (None, "min", "max"):
            raise StateMismatchError(f"Position: mode must be min or max, not {shown(loaded.mode)}")
        for name in asdict(loaded):
            setattr(self, name, getattr(loaded, name))
