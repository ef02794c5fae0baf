"""`Rollback`: a run's way back to its last good state from a step that is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from rumus.optim.engine.followed import FollowedOptimizer
from rumus.optim.wrappers.wrapper import unwrapped
from rumus.tensor import NonFiniteGradientError
from rumus.tensor.expression.choice import check_choice
from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.expression.whole_number import whole_number
from rumus.train.base.position import Position
from rumus.train.checkpoints.snapshot import restore, take
from rumus.train.loop.spikes import LossSpikeError, Spikes

if TYPE_CHECKING:
    from rumus.train.loop.trainer import Trainer

OnNonFinite: TypeAlias = Literal["raise", "skip", "rollback"]
_MOST: Final = 3  # by default


class Rollback:
    """Keeps a good state of the model, and restores it after a bad step where `fit` asks for it.

    trainer: whose steps they are.
    position: of the run.
    nonfinite: see `Trainer.fit`; the optimizer is told.
    spikes: see `Trainer.fit`.
    most: how often, None for the default; `rollbacks` of `Trainer.fit`.

    Raises ValueError for a number below 0 or without a use, and for an optimizer without
    `nonfinite`.
    """

    def __init__(
        self,
        trainer: Trainer[Any],
        position: Position,
        nonfinite: OnNonFinite | None,
        spikes: Spikes | None,
        most: int | None,
    ) -> None:
        self._trainer, self._position = trainer, position
        self._most = _MOST if most is None else most
        self._of_gradients = nonfinite == "rollback"
        self._of_spikes = spikes is not None and spikes.action == "rollback"
        if whole_number("rollbacks", self._most) < 0:
            raise ValueError(f"rollbacks must be 0 or more, not {most}")
        if most is not None and not self.is_on:
            raise ValueError(
                f'rollbacks={most} has no effect without nonfinite="rollback" or '
                'spikes=Spikes("rollback")'
            )
        _prepare(trainer.optimizer, nonfinite)
        self._good: dict[str, Any] = {}
        self._losses: tuple[list[float], dict[str, Any]] = [], {}

    @property
    def is_on(self) -> bool:
        """Whether the run may roll back."""
        return self._of_gradients or self._of_spikes

    def begin(self, model: Mapping[str, Any]) -> None:
        """Start a run; its first state is good.

        model: the parts of the model and its optimizer.
        """
        self._model = model
        self.note_good()

    def note_good(self, state: dict[str, Any] | None = None) -> None:
        """Keep the state of now, with the epoch's losses so far and the recent ones.

        state: the model's, if it was taken already.
        """
        if self.is_on:
            self._good = take(self._model) if state is None else state
            self._losses = (
                list(self._position.recent_losses),
                self._trainer.stepper.losses.state_dict(),
            )

    def answer(self, error: NonFiniteGradientError | LossSpikeError) -> None:
        """Roll back to the last good state, but not in the data: skip the offending batches.

        error: what the step has raised. It is raised again where the run should not roll back, or
            has done so too often.
        """
        is_answered = self._of_spikes if isinstance(error, LossSpikeError) else self._of_gradients
        if not is_answered:
            raise error
        position, most = self._position, self._most
        position.rollbacks += 1
        if position.rollbacks > most:
            error.add_note(f"it was rolled back {most} times before: that is the limit")
            raise error
        warn_user(
            f"rolled back to the last good state ({position.rollbacks} of at most {most} times): "
            f"{error}",
            RuntimeWarning,
        )
        restore(self._model, self._good, "the last good state")
        recent, losses = self._losses
        position.recent_losses = list(recent)
        self._trainer.stepper.losses.load_state_dict(losses)  # without the steps that were undone
        position.metrics_step = None  # the weights that were validated are gone


def _prepare(optimizer: Any, nonfinite: OnNonFinite | None) -> None:
    """Set an optimizer's `nonfinite`. Raises ValueError if it has none."""
    if nonfinite is None:
        return
    check_choice("nonfinite", nonfinite, ("raise", "skip", "rollback"))
    optimizer = unwrapped(optimizer)
    wanted: Literal["raise", "skip"] = "skip" if nonfinite == "skip" else "raise"
    if getattr(optimizer, "nonfinite", "raise") == wanted:
        return
    if not isinstance(optimizer, FollowedOptimizer):
        raise ValueError(f"{optimizer} cannot switch to nonfinite={wanted!r}; make it with that")
    optimizer.answer_nonfinite(wanted)
