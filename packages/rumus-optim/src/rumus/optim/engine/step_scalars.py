"""`StepScalars`: the scalars of the kernels at each step, computed in float64."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rumus.optim.engine.precision import computed_in
from rumus.optim.engine.segments import Segment
from rumus.optim.engine.stage import Stage
from rumus.optim.options.group import ParameterGroup
from rumus.optim.options.hyperparameter import LARGEST, Hyper, Ranges, at_step, checked
from rumus.optim.options.running import Running
from rumus.optim.options.schedule import Schedule
from rumus.tensor import float32
from rumus.tensor.expression.nearest_name import unknown_name

_KEPT: Final = 128  # steps per segment whose scalars are kept


@dataclass(frozen=True, slots=True)
class Common:
    """The scalars from which numbers that all parameters share are computed.

    names: of the scalars. numbers: of the shared ones.
    """

    names: frozenset[str]
    numbers: tuple[str, ...]

    def check(
        self, kind: str, groups: Iterable[ParameterGroup], hyper: Mapping[str, Hyper]
    ) -> None:
        """Raise ValueError for groups that differ in one of them.

        kind: the optimizer's name in errors. hyper: of groups without their own.
        """
        own = [group.over(hyper) for group in groups]
        for name in sorted(self.names & hyper.keys()):
            values = [each[name] for each in own]
            if others := [value for value in values if value != values[0]]:
                raise ValueError(
                    f"{kind}: {name} is {values[0]} in one group and {others[0]} in another, but "
                    f"{', '.join(self.numbers)}, shared by all parameters, depends on it: give all "
                    "groups the same value"
                )


@dataclass(slots=True)
class _Row:
    """The kernel's scalars at one step, and the values that they were computed from."""

    given: dict[str, float]
    bound: tuple[float, ...]


@dataclass(slots=True)
class _Known:
    """A segment's scalars under fixed hyperparameters, by step number.

    is_fixed: whether nothing else affects them, so they need not be computed again.
    """

    hyper: dict[str, Any]
    is_fixed: bool
    is_constant: bool  # whether each hyperparameter is a number
    rows: dict[int, _Row] = field(default_factory=dict)


def _is_pure(value: object) -> bool:
    """Whether a hyperparameter always has the same value at a given step.

    A schedule from rumus does, if everything that it combines does. Any other function may return
    something else the next time, as `Plateau` does after a report.
    """
    if not isinstance(value, Schedule):
        return not callable(value)
    return getattr(value.formula, "__module__", "") == Schedule.__module__ and all(
        map(_is_pure, value.arguments)
    )


@dataclass(slots=True, eq=False)
class StepScalars:
    """The scalars of segments' kernels, by segment number and step.

    kind: the optimizer's name in errors. hyper: its hyperparameters, for groups without their own;
    they may be replaced at any time. ranges: the ranges that schedules must stay in. own: each
    segment's scalars that are not hyperparameters and are the same at every step. names: of the
    hyperparameters. drops_decay: whether the kernels have no place for a weight decay. common: of
    the hyperparameters that all groups share.
    """

    kind: str
    segments: Sequence[Segment]
    stages: Sequence[Stage]
    hyper: Mapping[str, Hyper]
    ranges: Ranges
    running: Running
    own: Sequence[Mapping[str, float]]
    names: frozenset[str]
    drops_decay: bool
    common: Common
    _known: dict[int, _Known] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.stages = [each for each in self.stages if type(each).scalars is not Stage.scalars]

    def at(self, number: int, steps: Iterable[int]) -> Iterator[tuple[float, ...]]:
        """Yield the scalars of a segment at these steps.

        If they depend only on numbers and schedules, each step's scalars are computed once: a
        device gets many steps in advance, and they are requested again when those steps come.
        """
        hyper = {"weight_decay": 0.0, **self.segments[number].group.over(self.hyper)}
        known = self._known.get(number)
        if known is None or known.hyper != hyper:
            self._check(number, {**self.hyper, **self.segments[number].group.hyper})
            is_fixed = not self.stages and all(map(_is_pure, hyper.values()))
            is_constant = not any(map(callable, hyper.values()))
            known = self._known[number] = _Known(hyper, is_fixed, is_constant)
        for t in steps:
            row = known.rows.get(t)
            if row is None or not known.is_fixed:
                row = known.rows[t] = self._row(number, t, hyper, known.is_constant, row)
                known.rows.pop(t - _KEPT, None)
            yield row.bound

    def _check(self, number: int, hyper: Mapping[str, Hyper]) -> None:
        """Raise TypeError or ValueError for what was assigned past `set` and does not fit.

        The first group is compared with all, others with the first: there may be thousands.
        """
        first = self.segments[0]
        compared = [first, self.segments[number]] if number else self.segments
        self.common.check(self.kind, [each.group for each in compared], self.hyper)
        checked(hyper, self.ranges)
        if unknown := hyper.keys() - self.names:
            name = min(unknown)
            raise TypeError(
                f"{self.kind} has no hyperparameter {name!r}{unknown_name(name, self.names)}"
            )
        if self.drops_decay and hyper.get("weight_decay", 0.0) != 0.0:
            raise ValueError(
                f"{self.kind}: a weight decay that was 0 is changed by set(weight_decay=...)"
            )

    def _row(
        self,
        number: int,
        t: int,
        hyper: dict[str, Any],
        is_constant: bool,
        before: _Row | None,
    ) -> _Row:
        """The scalars at step `t`: `before` if the values they depend on have not changed."""
        given = hyper.copy()
        if not is_constant:
            for name, value in hyper.items():
                if callable(value):
                    given[name] = at_step(name, value, t, self.ranges)
        given |= self.running.at(number, t, hyper)
        for stage in self.stages:
            given |= stage.scalars(number, t)
        if before is not None and before.given == given:
            return before
        return _Row(given, self._bind(number, t, given))

    def _bind(self, number: int, t: int, given: Mapping[str, float]) -> tuple[float, ...]:
        """The kernel's scalars at step `t`, computed from hyperparameters and stage scalars."""
        segment = self.segments[number]
        assert segment.kernel is not None
        bound = segment.bind(segment.kernel, {**given, "t": t, **self.own[number]})
        largest = LARGEST if computed_in(segment.arena.dtype) == float32 else sys.float_info.max
        if not all(map(largest.__ge__, map(abs, bound))):  # False for NaN, too
            values = {name: given[name] for name in segment.group.over(self.hyper)}
            raise ValueError(
                f"{self.kind}: the scalars of step {t} are not finite in "
                f"{computed_in(segment.arena.dtype)}: {values}"
            )
        return bound
