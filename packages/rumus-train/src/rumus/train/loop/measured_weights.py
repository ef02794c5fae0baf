"""`MeasuredWeights`: whether a model is still the one that the last validation has measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from rumus.tensor import Tensor
from rumus.tensor.expression.user_warning import warn_user
from rumus.train.base.position import Position

if TYPE_CHECKING:
    from rumus.train.loop.trainer import Trainer

# What a `Position` says of the best validation.
BEST: Final = ("best", "best_step", "monitor", "mode")

# The optimizer's steps; the tensors, and how often each was written beside them.
Written: TypeAlias = "tuple[int, tuple[tuple[int, int], ...]]"


class MeasuredWeights:
    """The writes to parameters and buffers until the last validation.

    A callback may clip, prune or replace weights between a validation and the checkpoint that is to
    hold its metric.

    trainer: has the parameters, and the modules in its state.
    """

    def __init__(self, trainer: Trainer[Any]) -> None:
        self._trainer = trainer
        self._noted: Written | None = None
        self.best_before: dict[str, Any] = {}  # of the position, before the last best validation

    def note(self) -> None:
        """Note that the weights have been measured."""
        self._noted = self._written()

    def check(self, position: Position) -> None:
        """Take back a validation's numbers, with a warning, if the weights are others since.

        position: of the run, at the step that was validated.
        """
        if position.metrics_step != position.step or self._noted in (None, self._written()):
            return
        warn_user(
            f"the weights were changed after the validation of step {position.step}, as by a "
            "callback, so that its numbers are not theirs: they have no metric, nor has their "
            "checkpoint, and are not the best; change them before the validation, as in "
            "on_step_end",
        )
        position.metrics_step = None
        if position.best_step == position.step:
            for name, value in self.best_before.items():
                setattr(position, name, value)

    def _written(self) -> Written:
        """How often others than the optimizer, which lends its average, have written each."""
        trainer = self._trainer
        tensors: list[Any] = [p for group in trainer.optimizer.groups for _, p in group.named]
        for thing in trainer.state.values():
            if hasattr(type(thing), "named_buffers"):
                held = (*thing.parameters(), *thing.buffers())
                tensors += [each for each in held if isinstance(each, Tensor)]  # no foreign ones
        steps = getattr(trainer.optimizer, "steps", 0)
        return steps, tuple((id(each), each._version.count) for each in tensors)
