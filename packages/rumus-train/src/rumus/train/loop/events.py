"""Typed events of training; `Callback` receives them.

Nothing in an event has been read from a device: a loss is a tensor that has not been read yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, TypeVar

from numpy.typing import NDArray

from rumus.optim import ClosureOptimizer
from rumus.tensor import Tensor
from rumus.train.base.spans import Spans
from rumus.train.loop.gradient_norm import gradient_norm, learning_rate

if TYPE_CHECKING:
    from rumus.train.loop.run import Run

C = TypeVar("C", bound=type)


def _told(cls: C) -> C:
    """Class decorator, of a frozen dataclass: an assignment says that nothing would read it."""

    def refuse(owner: object, name: str, value: object) -> NoReturn:
        getattr(owner, name)  # raises AttributeError if there is none
        raise FrozenInstanceError(
            f"{cls.__name__}.{name} cannot be set: an event only tells what has happened; "
            "event.run.stop(reason) ends the training, and a dict of loss_fn logs numbers"
        )

    members: Any = cls  # a type checker knows that the class is frozen
    members.__setattr__ = refuse
    return cls


@_told
@dataclass(frozen=True, slots=True)
class TrainStart:
    """Training starts or resumes.

    run: the run; `run.stop(reason)` and `run.save()` may be called at any event, and `run.trainer`,
        `run.epochs` and `run.history` read.
    epoch: the first epoch to train, from 0.
    step: the number of steps done before.
    steps_per_epoch: None if the loader has no length.
    resumed_from: the checkpoint's folder, or None.
    """

    run: Run
    epoch: int
    step: int
    steps_per_epoch: int | None
    resumed_from: Path | None


@_told
@dataclass(frozen=True, slots=True)
class EpochStart:
    """An epoch starts; not sent again when a run resumes in the middle of one.

    run: the run.
    epoch: its number, from 0.
    step: its number, from 1.
    steps_per_epoch: None if the loader has no length.
    """

    run: Run
    epoch: int
    step: int
    steps_per_epoch: int | None


@_told
@dataclass(frozen=True, init=False)
class StepEnd:
    """A step is done. Steps count from 1, epochs from 0.

    run: the run.
    epoch: its number, from 0.
    step: its number, from 1.
    steps_per_epoch: None if the loader has no length.
    samples: their number in this step, or whatever `weight_of` counts.
    loss: a tensor without axes, not yet read; reading it waits for the device.
    spans: how long each of its parts took, if `profile_steps` is on.
    logged: the numbers `loss_fn` returned beside the loss, not yet read.
    """

    run: Run
    epoch: int
    step: int
    steps_per_epoch: int | None
    samples: float
    loss: Tensor
    spans: Spans | None
    logged: Mapping[str, Tensor]

    def __init__(
        self,
        run: Run,
        epoch: int,
        step: int,
        steps_per_epoch: int | None,
        samples: float,
        loss: Tensor,
        spans: Spans | None,
        logged: Mapping[str, Tensor] | None = None,
    ) -> None:
        fields = self.__dict__  # of every step: a frozen dataclass takes three times as long
        fields["run"], fields["epoch"], fields["step"] = run, epoch, step
        fields["steps_per_epoch"], fields["samples"] = steps_per_epoch, samples
        fields["loss"], fields["spans"] = loss, spans
        fields["logged"] = {} if logged is None else logged

    @cached_property  # several callbacks may ask
    def learning_rate(self) -> float | None:
        """The first group's learning rate at this step; None if the optimizer has none."""
        return learning_rate(self.run.trainer.optimizer)

    def gradient_norm(self) -> Tensor | None:
        """Compute the joint 2-norm of the step's gradients, before clipping, without reading it.

        They are those of `loss`, at the weights before the step, also if the optimizer computes
        others at further points (SAM, LBFGS). Call it only while the event is sent: the next step
        overwrites the gradients. None if the optimizer does not keep them.
        """
        trainer = self.run.trainer
        if isinstance(trainer.optimizer, ClosureOptimizer):
            return trainer.stepper.first_norm
        return gradient_norm(trainer.optimizer)


@_told
@dataclass(frozen=True, slots=True)
class ValidationEnd:
    """The model was validated. is_best: whether `monitor` has a new best value.

    run: the run.
    epoch: its number, from 0.
    step: its number, from 1.
    metrics: numbers by name.
    is_best: whether it is the best so far.
    seconds: how long it took.
    confusion: for each `metrics.confusion_matrix`, its counts (target, prediction).
    """

    run: Run
    epoch: int
    step: int
    metrics: Mapping[str, float]
    is_best: bool
    seconds: float
    confusion: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@_told
@dataclass(frozen=True, slots=True)
class EpochEnd:
    """An epoch is done. loss: its mean in float64. metrics: of the last validation, or empty.

    run: the run.
    epoch: its number, from 0.
    step: its number, from 1.
    loss: the mean over its samples.
    metrics: numbers by name.
    samples: their number.
    seconds: how long it took since the last start, without validations and checkpoints.
    spans: how long the parts of its steps took since the last start, if `profile_steps` is on.
    logged: values its steps logged beside their losses: means of numbers, metrics of all samples.
    metrics_step: the step whose weights they measure; it may be an earlier one.
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


@_told
@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """A checkpoint was saved. path: None if saving failed, after a warning.

    run: the run.
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


@_told
@dataclass(frozen=True, slots=True)
class TrainEnd:
    """Training ends normally. reason: "epochs", "steps", "seconds", or what stopped it.

    run: the run.
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


@_told
@dataclass(frozen=True, slots=True)
class Failed:
    """Training ends with an error, or an interrupt, raised after this event.

    run: the run.
    epoch: its number, from 0.
    step: its number, from 1.
    error: the error.
    """

    run: Run
    epoch: int
    step: int
    error: BaseException


Event: TypeAlias = (
    TrainStart | EpochStart | StepEnd | ValidationEnd | EpochEnd | CheckpointSaved | TrainEnd
    | Failed
)  # fmt: skip
