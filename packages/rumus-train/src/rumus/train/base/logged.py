"""`Logged`: values that steps report in addition to their loss, averaged over an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, SupportsFloat, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rumus.tensor import NumpyBackend, Tensor, float32, float64, tensor
from rumus.tensor.expression.declared_type import shown
from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.graph.means import is_sum
from rumus.tensor.memory.updater import Outcome
from rumus.tensor.memory.watching import watched_by
from rumus.train.base.averaged_names import advice_for_step, is_count, is_no_mean, told_of_sum
from rumus.train.base.epoch_sum import EpochSum
from rumus.train.base.late_counts import LateCounts, LatePart, LateSums, late_of
from rumus.train.base.metric_state import MetricState, Part

_HOST: Final = NumpyBackend()
TAKEN: Final = frozenset(("epoch", "step", "loss"))  # keys that a history entry already has
OF_RECORD: Final = frozenset(("lr", "grad_norm", "samples_s"))  # beside what steps log
OF_VALIDATION: Final = "val_"  # prefix of validation values


@dataclass(frozen=True, slots=True)
class Value:
    """A value that a step logs: a number, which has one part, or a metric.

    held: its parts, or what they are counted from.
    finish: from the sums of the parts to the metric; None for a number, which is averaged.
    batches: how many it is of, more than one if a step accumulates.
    share: of the step's weight, that of the batches that it is of.
    adds_up: whether it is a sum over the batch, or may count samples of it: a whole number.
    """

    held: tuple[Tensor, ...] | LateCounts
    finish: Callable[..., Any] | None = None
    batches: int = 1
    share: float = 1.0
    adds_up: bool = False

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """What is added up; it is counted now."""
        if isinstance(self.held, LateCounts):
            return tuple([_of_host(counts) for counts in self.held.counts()])
        return self.held

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What a replay of the step overwrites."""
        held = self.held
        return (held.scores, held.targets) if isinstance(held, LateCounts) else held

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the parts."""
        held = self.held
        return held.shapes if isinstance(held, LateCounts) else [part.shape for part in held]

    def weighted(self, weight: float) -> Value:
        """Return a copy, with a number multiplied by this weight."""
        factor = weight if self.finish is None else 1.0
        parts = tuple([part * factor for part in self.parts])
        return replace(self, held=parts, share=1.0)

    def __add__(self, other: Value) -> Value:
        pairs = zip(self.parts, other.parts, strict=True)
        parts = tuple([one + another for one, another in pairs])
        return replace(self, held=parts, batches=self.batches + other.batches)


Log: TypeAlias = Mapping[str, Value]


def as_log(found: Mapping[Any, Any]) -> tuple[Tensor, dict[str, Value]]:
    """Split a training step's result into the loss and the logged values.

    ValueError without a "loss", and for a name reserved by the history; TypeError for anything but
    numbers, scalar tensors and metrics, and for a metric that keeps all scores.
    """
    if "loss" not in found:
        raise ValueError(
            "a loss function that returns a dict must name the loss: {'loss': loss, ...}, not "
            f"{', '.join(map(repr, found)) or 'nothing'}"
        )
    loss = found["loss"]
    return loss, {_name(name): _value(name, v) for name, v in found.items() if name != "loss"}


def _name(name: Any) -> str:
    if not isinstance(name, str):
        raise ValueError(f"a step must log under text names, not {name!r}")
    if name in TAKEN:
        raise ValueError(
            f"a step logs {name!r}, which Result.history uses for a number of its own: rename it"
        )
    if name in OF_RECORD:
        raise ValueError(
            f"a step logs {name!r}, which the records of a run use for a number of their own: "
            "rename it"
        )
    if name.startswith(OF_VALIDATION):
        raise ValueError(
            f"a step logs {name!r}, which the history uses for {name[len(OF_VALIDATION) :]!r} of "
            "a validation: rename it, for example 'train_...', or measure it with validate="
        )
    return name


def _value(name: str, value: Any) -> Value:
    if isinstance(value, MetricState):
        if value.joins:
            raise TypeError(
                f"{name!r} keeps the scores of all samples, too many for a training step; measure "
                f"{value.name} in a validation"
            )
        late = late_of(value.parts)
        return Value(late or tuple(map(_floating, value.parts)), value.finish)
    if isinstance(value, Tensor) and not value.shape:
        return Value((_floating(value.detach()),), adds_up=is_count(value) or is_sum(value))
    if isinstance(value, (int, float, np.number)):
        return Value((_of_host(float(value)),), adds_up=is_count(value))
    # No repr, which runs code: PyTorch's takes a quarter of a minute in a step that is watched.
    told = f"a tensor of shape {value.shape}" if isinstance(value, Tensor) else shown(value)
    raise TypeError(f"a step can log numbers, tensors without axes and metrics; {name!r} is {told}")


def _floating(part: Part) -> Tensor:
    if not isinstance(part, Tensor):
        return _of_host(part.numpy() if isinstance(part, LatePart) else part)
    return part if part.dtype.kind == "f" else part.astype(float32)


def _of_host(number: float | NDArray[Any]) -> Tensor:
    """A number that is not a result of the step's operations: its inputs are guarded."""
    with watched_by(None):
        return tensor(number, dtype=float64, backend=_HOST)  # a count may be a large number


def weighted(log: Log, weight: float) -> Log:
    """Return a copy of a log, with numbers multiplied by this weight."""
    return {name: value.weighted(weight) for name, value in log.items()}


def joined(logs: Sequence[tuple[Log, float]]) -> Log:
    """Return the log of several batches: metrics added up, numbers averaged over those with them.

    logs: of each batch, already multiplied by its weight, and the weight.
    """
    found: dict[str, Value] = {}
    weights: dict[str, float] = {}
    for log, weight in logs:
        for name, value in log.items():
            found[name] = found[name] + value if name in found else value
            weights[name] = weights.get(name, 0.0) + weight
    total = sum(weight for _, weight in logs)
    return {
        name: replace(value.weighted(1 / weights[name]), share=weights[name] / total)
        for name, value in found.items()
    }


class _Entry:
    """One name: the sum of each part over the steps of an epoch."""

    def __init__(self, name: str, value: Value) -> None:
        self.name, self._is_told = name, False
        self.batches = 1  # of the step that had most
        self.adds_up = value.adds_up
        self.finish = value.finish
        self.shapes = value.shapes
        self.sums = [EpochSum(shape) for shape in value.shapes]
        self.late = LateSums(self.sums)

    def value(self) -> float | None:
        """Its value over the steps so far; None if none has counted.

        NaN of a batch that a metric refuses, which is told once: the steps are done long since, and
        are not to be lost to what only looks at them.
        """
        self.late.read()
        totals = [total.read() for total in self.sums]
        weight = self.sums[0].weight
        if not weight:
            return None
        try:
            return float(totals[0] / weight if self.finish is None else self.finish(*totals))
        except ValueError as error:
            if not self._is_told:
                self._is_told = True
                warn_user(
                    f"{self.name!r}, which training steps log, is NaN: {error}",
                )
            return math.nan


@dataclass(slots=True)
class _Place:
    """Where a part of what a step logs is, and is added up."""

    name: str
    is_number: bool
    total: EpochSum
    part: Tensor
    share: float


class Logged:
    """The values logged in an epoch's steps, by name, read only on demand.

    Numbers are averaged with the losses' weights; metrics cover all samples.
    """

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._log: Log = {}  # noted last: each repetition of a step has the same
        self._places: list[_Place] = []  # of its parts
        self._late: list[tuple[LateSums, LateCounts]] = []  # and of what has none yet
        self._noted: list[Tensor] = []  # what the parts were
        self._saved: dict[str, Any] = {}  # entries that no step has logged since
        self._told: set[str] = set()  # names that are no means

    @property
    def last(self) -> dict[str, Tensor]:
        """The numbers, unread, that the last step logged, without metrics."""
        if not self._places:
            return {}
        pairs = zip(self._places, self._noted, strict=True)
        return {place.name: part for place, part in pairs if place.is_number}

    def note(self, log: Log) -> None:
        """Note a step's values; they count only after `count`."""
        if log is not self._log and (log or self._log):
            self._place(log)
            self._log = log
        self._noted = [place.total.note(place.part) for place in self._places]
        for sums, counts in self._late:
            sums.note(counts)

    def _place(self, log: Log) -> None:
        """Find where each value is added up."""
        self._places, self._late = [], []
        for name, value in log.items():
            entry, held = self._entry(name, value), value.held
            entry.batches = max(entry.batches, value.batches)
            entry.adds_up |= value.adds_up
            if isinstance(held, LateCounts):
                self._late.append((entry.late, held))
            else:
                for total, part in zip(entry.sums, held, strict=True):
                    self._places.append(
                        _Place(name, value.finish is None, total, part, value.share)
                    )

    def count(self, weight: SupportsFloat, outcome: Outcome) -> None:
        """Count the last noted values, if their step turns out to be applied."""
        for place, part in zip(self._places, self._noted, strict=True):
            own = weight if place.share == 1 else float(weight) * place.share
            place.total.count(part, own if place.is_number else 1.0, outcome)
        for sums, _ in self._late:
            sums.count(outcome)

    def close(self) -> dict[str, float]:
        """Return what was logged since the last call, and begin anew. Waits for the device.

        A metric that refuses a batch is NaN, and a UserWarning says so; so it does once of a number
        whose name is that of a metric which is not the mean of its values for batches.
        """
        found = {name: saved["value"] for name, saved in self._saved.items()}
        found |= {name: entry.value() for name, entry in self._entries.items()}
        self._warn_of_means()
        self._saved.clear()
        for entry in self._entries.values():
            for total in entry.sums:
                total.start()
        return {name: value for name, value in found.items() if value is not None}

    def _warn_of_means(self) -> None:
        for name, entry in self._entries.items():
            batches = entry.sums[0].values * entry.batches
            if entry.finish is not None or batches < 2 or name in self._told:
                continue
            self._told.add(name)
            if entry.adds_up:
                warn_user(told_of_sum(name))
            elif is_no_mean(name, certain=True):
                warn_user(
                    f"{name!r}, which training steps log as a number, is averaged over batches, "
                    f"which may differ from its value over all samples: {advice_for_step(name)}",
                )

    def clear(self) -> None:
        """Forget everything."""
        self._saved.clear()
        self._log, self._places, self._late, self._noted = {}, [], [], []
        for entry in self._entries.values():
            entry.late.clear()
            for total in entry.sums:
                total.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return the sums so far, and their results."""
        found = dict(self._saved)
        for name, entry in self._entries.items():
            if (value := entry.value()) is not None:
                parts = [total.read() for total in entry.sums]
                found[name] = {"value": value, "weight": entry.sums[0].weight, "parts": parts}
        return found

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from saved sums."""
        self.clear()
        self._entries.clear()
        self._saved = {name: dict(saved) for name, saved in state.items()}

    def _entry(self, name: str, value: Value) -> _Entry:
        """The sum of a name. ValueError if it was of another kind before."""
        entry = self._entries.get(name)
        if entry is None:
            entry = self._entries[name] = _Entry(name, value)
            saved = self._saved.pop(name, None)
            if saved is not None and [np.shape(part) for part in saved["parts"]] == value.shapes:
                for total, part in zip(entry.sums, saved["parts"], strict=True):
                    total.start(part, saved["weight"])
        if entry.shapes != value.shapes or (entry.finish is None) != (value.finish is None):
            raise ValueError(
                f"{name!r} is logged with shapes {value.shapes}, but earlier steps logged "
                f"{entry.shapes}: a name stands for one number or metric"
            )
        entry.finish = value.finish
        return entry
