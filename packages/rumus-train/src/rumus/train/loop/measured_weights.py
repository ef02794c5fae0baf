"""`MeasuredWeights`: whether a model is still the one that the last validation has measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from rumus.tensor import Tensor
from rumus.tensor.expression.user_warning import warn_user
from rumus.train.base.position import Position
from rumus.train.base.printable import printable

if TYPE_CHECKING:
    from rumus.train.loop.trainer import Trainer

# What a `Position` says of the best validation.
BEST: Final = ("best", "best_step", "monitor", "mode")
_IN_VALIDATION: Final = (
    "the validation of step {step} has changed weights of the model, so that its numbers are not "
    "those of the weights that are there after it: they have no metric, nor has their checkpoint, "
    "and are not the best; change weights before the validation, as in on_step_end, or let the "
    "optimizer average them, as with average=EMA(0.999), which validations measure"
)
_ON_RANKS: Final = (
    "the validation of step {step} has changed weights of the model on this rank, and the ranks "
    "would train different ones: change weights on all of them, as in on_step_end"
)
_AFTER: Final = (
    "the weights were changed after the validation of step {step}, as by a callback, so that its "
    "numbers are not theirs: they have no metric, nor has their checkpoint, and are not the best; "
    "change them before the validation, as in on_step_end"
)
_AT_THE_END: Final = (
    "the weights were changed in on_train_end, so that the numbers of the result are not those of "
    "the weights that the model has now: {kept}; change them before the last validation, as in "
    "on_step_end, or measure them with trainer.evaluate after fit"
)

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
        self.are_spoiled = False  # the last validation itself has written to them
        self.best_before: dict[str, Any] = {}  # of the position, before the last best validation

    def note(self) -> None:
        """Note that the weights have been measured."""
        self._noted = self._written()

    @contextmanager
    def measuring(self, position: Position, ranks: int) -> Iterator[None]:
        """Within the block, a validation measures the weights. Warn if it writes to them.

        position: of the run, at the step that is validated.
        ranks: how many train these weights; ValueError if one of several writes to them.
        """
        before = self._written()
        yield
        self.note()
        self.are_spoiled = self._noted != before
        if self.are_spoiled and ranks > 1:
            raise ValueError(_ON_RANKS.format(step=position.step))
        if self.are_spoiled:
            warn_user(_IN_VALIDATION.format(step=position.step))

    def check(self, position: Position) -> None:
        """Take back a validation's numbers, with a warning, if the weights are others since.

        position: of the run, at the step that was validated.
        """
        if position.metrics_step != position.step or self._noted in (None, self._written()):
            return
        warn_user(_AFTER.format(step=position.step))
        self._take_back(position)

    @contextmanager
    def ending(self, position: Position, path: Path | None, *, are_best: bool) -> Iterator[None]:
        """Within the block, callbacks hear of the end. Warn if they change what was measured.

        position: of the run, at its last step.
        path: of the checkpoint that has the weights; without one they are gone.
        are_best: whether they are those of the best validation, which was not of the last step.
        """
        are_measured = position.metrics_step == position.step
        before = self._written()
        yield
        if not (are_measured or are_best) or before == self._written():
            return
        kept = "they are gone" if path is None else f"those are in {printable(path)}"
        warn_user(_AT_THE_END.format(kept=kept))
        if path is None and are_measured:
            self._take_back(position)

    def _take_back(self, position: Position) -> None:
        """Let no weights have the numbers of the last validation."""
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
        return steps, tuple((id(each), each._version.writes) for each in tensors)
