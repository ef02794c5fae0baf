"""`Spikes`: handles a loss that jumps: skips its batch, or rolls the run back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np

from rumus.optim import ClosureOptimizer
from rumus.tensor import Tensor
from rumus.tensor.expression.arguments import checked_fields
from rumus.tensor.expression.choice import check_choice
from rumus.tensor.expression.decided import fixed
from rumus.tensor.expression.printable import PrintableError
from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.expression.whole_number import whole_number
from rumus.tensor.memory.uninterrupted import Uninterrupted
from rumus.tensor.memory.updater import Outcome
from rumus.train.base.late_values import late_values

if TYPE_CHECKING:
    from rumus.train.base.position import Position
    from rumus.train.loop.trainer import Trainer

_LAG: Final = 32  # steps whose losses are read together
_SHOWN: Final = 10  # samples named in a message
_LEAST_DEVIATION: Final = 1e-3  # of the mean: losses that hardly differ do not count


@fixed
@checked_fields
@dataclass(frozen=True, slots=True)
class Spikes:
    """Handles a step whose loss is far above those of previous steps.

    A loss is a spike if it exceeds the mean of the last `window` normal losses by `z_thresh`
    standard deviations. The first `window` steps are never judged.

    action: "skip" drops the batch as if it had never been seen: no parameter, moment, buffer or
        random stream of rumus changes. The loss is read before the update, so each step waits for
        the GPU once. "rollback" restores parameters and optimizer from the last checkpoint, or from
        the start of the epoch, and continues with the next data; at most `rollbacks` times. Losses
        are read 32 steps at a time, and no step waits.
    z_thresh: the limit in standard deviations, above 0.
    window: the number of losses to compare with, at least 2.
    patience: with "skip", LossSpikeError ends the run after so many spikes in a row, as the weights
        must be to blame and not a batch. At least 1.

    Raises ValueError for a value out of range.

    >>> from rumus.train import Spikes
    >>> Spikes("rollback", z_thresh=8.0)
    Spikes(action='rollback', z_thresh=8.0, window=100, patience=10)
    """

    action: Literal["skip", "rollback"] = "skip"
    z_thresh: float = 6.0
    window: int = 100
    patience: int = 10

    def __post_init__(self) -> None:
        check_choice("action", self.action, ("skip", "rollback"))
        if not 0 < self.z_thresh < math.inf:
            raise ValueError(f"z_thresh must be finite and above 0, not {self.z_thresh!r}")
        for name, least in (("window", 2), ("patience", 1)):
            if whole_number(name, getattr(self, name)) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")


def check_spikes(spikes: Spikes | None, trainer: Trainer[Any]) -> None:
    """Refuse what cannot be looked for spikes. TypeError or ValueError."""
    if spikes is None:
        return
    if not isinstance(spikes, Spikes):
        raise TypeError(f"spikes must be Spikes(...) or None, not {spikes!r}")
    if trainer.team is not None:
        raise ValueError("spikes= sees only the losses of one process: leave it out with ranks=")
    if spikes.action == "skip" and isinstance(trainer.optimizer, ClosureOptimizer):
        raise ValueError(
            f"{trainer.optimizer} evaluates a batch several times, so its step cannot be skipped: "
            'use spikes=Spikes("rollback")'
        )


@dataclass(frozen=True, slots=True)
class Spike:
    """A step whose loss was a spike.

    epoch: of the batch, from 0.
    step: its number, from 1.
    batches: their indices in the epoch, from 0; several if a step accumulates.
    samples: the dataset indices of their samples; None if the loader does not know them.
    loss: of the step.
    mean: of the previous losses.
    deviation: the standard deviation of the previous losses.
    """

    epoch: int
    step: int
    batches: tuple[int, ...]
    samples: tuple[int, ...] | None
    loss: float
    mean: float
    deviation: float

    def __str__(self) -> str:
        numbers = ", ".join(map(str, self.batches))
        named = f"batch {numbers}" if len(self.batches) == 1 else f"batches {numbers}"
        if self.samples is not None:
            more = ", ..." if len(self.samples) > _SHOWN else ""
            named += f" (samples {', '.join(map(str, self.samples[:_SHOWN]))}{more})"
        return (
            f"the loss of step {self.step} is {self.loss:.4g}, where {self.mean:.4g} with a "
            f"deviation of {self.deviation:.2g} was usual: {named} of epoch {self.epoch}"
        )


class LossSpikeError(PrintableError, ArithmeticError):
    """A loss is far above the previous ones, and the requested action did not help."""


@dataclass(slots=True)
class Place:
    """The origin of a step's batches. samples: looks up their indices, if possible."""

    epoch: int
    step: int
    batches: tuple[int, ...]
    samples: Callable[[], tuple[int, ...]] | None


Bookmark: TypeAlias = tuple[list[float], int, int]  # recent losses, spikes, spikes in a row


class SpikeWatch:
    """Compares the losses of a run with previous ones; its history is part of the run's position.

    policy: what counts as a spike, and the action.
    position: of the run.
    """

    def __init__(self, policy: Spikes, position: Position) -> None:
        self.policy, self.position = policy, position
        self._waiting: list[tuple[Place, Tensor, Outcome]] = []
        self._noted = 0  # the number of the last step

    @property
    def rolls_back(self) -> bool:
        """Whether the run rolls back."""
        return self.policy.action == "rollback"

    def leaves_out(self, place: Place, loss: float) -> bool:
        """Whether to skip a step, before its update. Raises LossSpikeError after too many."""
        position = self.position
        found = self._judged(place, loss)
        if found is None:
            position.spikes_in_a_row = 0
            return False
        position.spikes_in_a_row += 1
        if position.spikes_in_a_row > self.policy.patience:
            raise LossSpikeError(
                f"{found}; {self.policy.patience} steps before it were skipped for the same "
                'reason, so the cause is the weights, not a batch: Spikes("rollback") goes back, '
                "a larger z_thresh or patience continues, and a smaller learning rate or "
                "clip=ZClip() may prevent it"
            )
        warn_user(f"skipped: {found}", RuntimeWarning)
        return True

    def note(self, place: Place, loss: Tensor, outcome: Outcome) -> None:
        """Note a step; now and then read the noted ones. Raises LossSpikeError."""
        self._waiting.append((place, loss, outcome))
        self._noted = place.step
        if len(self._waiting) >= _LAG:
            self.look()

    def knows(self, step: int) -> bool:
        """Whether a step's loss was judged, or will be.

        step: the number of the last step.
        """
        return not self.rolls_back or self._noted == step

    def bookmark(self) -> Bookmark:
        """Return what a step that is dropped would change."""
        position = self.position
        return list(position.recent_losses), len(position.spikes), position.spikes_in_a_row

    def go_back(self, bookmark: Bookmark) -> None:
        """Forget the step after a bookmark."""
        position = self.position
        position.recent_losses, count, position.spikes_in_a_row = bookmark
        del position.spikes[count:]

    def look(self) -> None:
        """Read the noted steps. Raises LossSpikeError for a spike; later steps are dropped."""
        values = late_values([loss for _, loss, _ in self._waiting])
        with Uninterrupted():
            waiting, self._waiting = self._waiting, []
            for (place, _, outcome), value in zip(waiting, values, strict=True):
                if outcome.applied is False:
                    continue
                found = self._judged(place, value)
                if found is not None:
                    raise LossSpikeError(str(found))

    def _judged(self, place: Place, loss: float) -> Spike | None:
        """The spike, if the loss is one; otherwise the loss joins the history."""
        recent, policy = self.position.recent_losses, self.policy
        if not math.isfinite(loss):
            return None  # non-finite gradients are handled elsewhere
        if len(recent) >= policy.window:
            mean = float(np.mean(recent))
            deviation = max(float(np.std(recent)), _LEAST_DEVIATION * abs(mean))
            if loss > mean + policy.z_thresh * deviation:
                samples = None if place.samples is None else place.samples()
                found = Spike(
                    place.epoch, place.step, place.batches, samples, loss, mean, deviation
                )
                self.position.spikes.append(_saved(found))
                return found
        recent.append(loss)
        del recent[: -policy.window]
        return None


def _saved(spike: Spike) -> dict[str, Any]:
    """A spike for a checkpoint, with lists."""
    parts = asdict(spike).items()
    return {name: list(value) if isinstance(value, tuple) else value for name, value in parts}


def spikes_of(saved: Sequence[dict[str, Any]]) -> list[Spike]:
    """Return saved spikes."""
    return [_loaded(each) for each in saved]


def _loaded(saved: Mapping[str, Any]) -> Spike:
    samples = None if saved["samples"] is None else tuple(saved["samples"])
    return Spike(**{**saved, "batches": tuple(saved["batches"]), "samples": samples})
