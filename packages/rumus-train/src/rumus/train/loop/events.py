"""What happens while training, as typed events; `Callback` says who hears of them.

Nothing in an event was read from a device: a loss is a tensor that nobody has looked at yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from numpy.typing import NDArray

from rumus.tensor import Tensor
from rumus.train.base.spans import Spans
from rumus.train.loop.gradient_norm import gradient_norm, learning_rate

if TYPE_CHECKING:
    from rumus.train.loop.run import Run


@dataclass(slots=True)
class TrainStart:
    """Training starts, or goes on after a resume.

    run: what it is part of: `run.stop(reason)` and `run.save()` may be called at any event, and
        `run.trainer`, `run.epochs`, `run.history` looked at.
    epoch: the first to be trained, from 0.
    step: how many were done before.
    steps_per_epoch: None where the loader has no length.
    resumed_from: the checkpoint's folder, None if there was none.
    """

    run: Run
    epoch: int
    step: int
    steps_per_epoch: int | None
    resumed_from: Path | None


@dataclass(slots=True)
class EpochStart:
    """An epoch starts; not sent again when a run is resumed in the middle of one.

    run: the training that runs.
    epoch: its number, from 0.
    step: its number, from 1.
    steps_per_epoch: None where the loader has no length.
    """

    run: Run
    epoch: int
    step: int
    steps_per_epoch: int | None


@dataclass(slots=True)
class StepEnd:
    """A step was done. Of step 1 there was one; epochs count from 0.

    run: the training that runs.
    epoch: its number, from 0.
    step: its number, from 1.
    steps_per_epoch: None where the loader has no length.
    samples: in this step, or whatever else `weight_of` counts.
    loss: a tensor without axes, not read; reading it waits for the device.
    spans: where its time went, if `profile_steps` is on.
    logged: the numbers that `loss_fn` has returned beside the loss, not read either.
    """

    run: Run
    epoch: int
    step: int
    steps_per_epoch: int | None
    samples: float
    loss: Tensor
    spans: Spans | None
    logged: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def learning_rate(self) -> float | None:
        """The first group's, at this step; None for an optimizer that has none."""
        return learning_rate(self.run.trainer.optimizer)

    def gradient_norm(self) -> Tensor | None:
        """Compute the joint 2-norm of the step's gradients, before clipping, and do not read it.

        Only while the event is being sent: the next step overwrites the gradients. None where the
        optimizer does not keep them (it is not a `FusedOptimizer`).
        """
        return gradient_norm(self.run.trainer.optimizer)


@dataclass(slots=True)
class ValidationEnd:
    """The model was validated. is_best: whether `monitor` is better than it ever was.

    run: the training that runs.
    epoch: its number, from 0.
    step: its number, from 1.
    metrics: numbers by name.
    is_best: whether it is the best so far.
    seconds: how long it took.
    confusion: of each `metrics.confusion_matrix` among them the counts, (target, said).
    """

    run: Run
    epoch: int
    step: int
    metrics: Mapping[str, float]
    is_best: bool
    seconds: float
    confusion: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(slots=True)
class EpochEnd:
    """An epoch is over. loss: its mean in float64. metrics: of the last validation, or empty.

    run: the training that runs.
    epoch: its number, from 0.
    step: its number, from 1.
    loss: the mean over its samples.
    metrics: numbers by name.
    samples: how many there were.
    seconds: how long it took.
    spans: where the time of all its steps went since the last start, if `profile_steps` is on.
    logged: what its steps logged beside their losses: numbers averaged, metrics of all samples.
    metrics_step: the step whose weights they were measured on, which may be one before this.
    """

    run: Run
    epoch: int
    step: int
    loss: float
    metrics: Mapping[str, float]
    samples: float
    seconds: float
    spans: Spans | None
    logged: Mapping[str, float] = field(default_factory=dict)
    metrics_step: int | None = None


@dataclass(slots=True)
class CheckpointSaved:
    """A checkpoint was saved. path: None if it could not be, as a warning has said.

    run: the training that runs.
    epoch: its number, from 0.
    step: its number, from 1.
    path: of the file or folder.
    seconds: how long it took.
    """

    run: Run
    epoch: int
    step: int
    path: Path | None
    seconds: float


@dataclass(slots=True)
class TrainEnd:
    """Training is over, in good order. reason: "epochs", "steps", "seconds", or what stopped it.

    run: the training that runs.
    epoch: its number, from 0.
    step: its number, from 1.
    reason: why it ended.
    seconds: how long it took.
    """

    run: Run
    epoch: int
    step: int
    reason: str
    seconds: float


@dataclass(slots=True)
class Failed:
    """Training ends with an error, which is raised after this.

    run: the training that runs.
    epoch: its number, from 0.
    step: its number, from 1.
    error: what was raised.
    """

    run: Run
    epoch: int
    step: int
    error: Exception


Event: TypeAlias = (
    TrainStart | EpochStart | StepEnd | ValidationEnd | EpochEnd | CheckpointSaved | TrainEnd
    | Failed
)  # fmt: skip
