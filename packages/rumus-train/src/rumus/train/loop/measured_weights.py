"""`MeasuredWeights`: whether a model is still the one that the last validation has measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from rumus.tensor import Tensor

if TYPE_CHECKING:
    from rumus.train.loop.trainer import Trainer

# What a `Position` says of the best validation.
BEST: Final = ("best", "best_step", "monitor", "mode")

# The tensors, and how often each was written.
Written: TypeAlias = "tuple[tuple[int, int], ...]"


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

    def are_there(self) -> bool:
        """Whether nothing was written since `note`; True without one, as after a resume."""
        return self._noted is None or self._noted == self._written()

    def _written(self) -> Written:
        trainer = self._trainer
        tensors: list[Any] = [p for group in trainer.optimizer.groups for _, p in group.named]
        for thing in trainer.state.values():
            if hasattr(type(thing), "named_buffers"):
                held = (*thing.parameters(), *thing.buffers())
                tensors += [each for each in held if isinstance(each, Tensor)]  # no foreign ones
        return tuple((id(each), each._version.current) for each in tensors)
