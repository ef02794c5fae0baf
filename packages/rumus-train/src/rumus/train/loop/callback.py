"""`Callback`: what hears of the events of training, in a declared order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

from rumus.tensor import NonFiniteGradientError
from rumus.tensor.expression.printable import PrintableError
from rumus.tensor.memory.uninterrupted import is_of_handler
from rumus.train.loop.events import (
    CheckpointSaved,
    EpochEnd,
    EpochStart,
    Event,
    Failed,
    StepEnd,
    TrainEnd,
    TrainStart,
    ValidationEnd,
)


class Callback(Protocol):
    """Derive from it and write the methods that you need; the others do nothing.

    order: lower ones hear first; among equals, those that were given first. One that looks at what
    another has decided has a higher order. With `state_dict` and `load_state_dict` its state is
    part of every checkpoint.

    speaks: whether it writes files or shows progress: of ranks that train together only the first
    calls it, the others are silent. All others are called by every rank, with the same numbers.

    monitors: a metric of the validation that it cannot do without. A run without a validation, or
    with one that lacks it, is refused.

    What a method raises ends the training with a CallbackError that names it.

    >>> from rumus.train import Callback, StepEnd
    >>> class Count(Callback):
    ...     steps = 0
    ...
    ...     def on_step_end(self, event: StepEnd) -> None:
    ...         self.steps += 1
    """

    order: int = 0
    speaks: bool = False

    @property
    def monitors(self) -> str | None:
        """The metric of a validation that it needs, if any."""
        return None

    def on_train_start(self, event: TrainStart) -> None:
        """Hear that training starts or goes on.

        event: what has happened.
        """
        return

    def on_epoch_start(self, event: EpochStart) -> None:
        """Hear that an epoch starts.

        event: what has happened.
        """
        return

    def on_step_end(self, event: StepEnd) -> None:
        """Hear that a step was done.

        event: what has happened.
        """
        return

    def on_validation_end(self, event: ValidationEnd) -> None:
        """Hear what a validation has found.

        event: what has happened.
        """
        return

    def on_epoch_end(self, event: EpochEnd) -> None:
        """Hear that an epoch is over.

        event: what has happened.
        """
        return

    def on_checkpoint(self, event: CheckpointSaved) -> None:
        """Hear that a checkpoint was saved, or could not be.

        event: what has happened.
        """
        return

    def on_train_end(self, event: TrainEnd) -> None:
        """Hear that training is over in good order.

        event: what has happened.
        """
        return

    def on_error(self, event: Failed) -> None:
        """Hear that training ends with an error.

        event: what has happened.
        """
        return


class CallbackError(PrintableError, RuntimeError):
    """A callback has raised; its name and the event are in the message, the error is the cause."""


_METHODS: Final[Mapping[type[Any], str]] = {
    TrainStart: "on_train_start",
    EpochStart: "on_epoch_start",
    StepEnd: "on_step_end",
    ValidationEnd: "on_validation_end",
    EpochEnd: "on_epoch_end",
    CheckpointSaved: "on_checkpoint",
    TrainEnd: "on_train_end",
    Failed: "on_error",
}


class Callbacks:
    """Callbacks in their order. TypeError for what has no method of one."""

    def __init__(self, callbacks: Iterable[Callback]) -> None:
        self.all = sorted(callbacks, key=lambda callback: callback.order)
        self._hearers: dict[type[Any], list[tuple[str, Callable[[Any], None]]]] = {
            event: [
                (type(callback).__name__, getattr(callback, method))
                for callback in self.all
                if getattr(type(callback), method) is not getattr(Callback, method)
            ]
            for event, method in _METHODS.items()
        }

    def hear(self, event: type[Any]) -> bool:
        """Whether anybody hears of such events."""
        return bool(self._hearers[event])

    def send(self, event: Event) -> None:
        """Tell an event to everybody. CallbackError for the first that raises."""
        for name, method in self._hearers[type(event)]:
            try:
                method(event)
            except NonFiniteGradientError:
                raise  # of a step: a callback that reads its loss only is the first to hear of it
            except Exception as error:
                if is_of_handler(error):
                    raise
                raise CallbackError(
                    f"the callback {name} failed in {_METHODS[type(event)]} (epoch {event.epoch}, "
                    f"step {event.step}): {type(error).__name__}: {error}"
                ) from error

    def state_dict(self) -> dict[str, Any]:
        """Return the states of those that have one, by name."""
        return {name: callback.state_dict() for name, callback in self._stateful().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Give states back, by name. One that was not saved starts afresh: it may be a new one."""
        for name, callback in self._stateful().items():
            if name in state:
                callback.load_state_dict(state[name])

    def _stateful(self) -> dict[str, Any]:
        """By class name; with a number from the second of a class on."""
        found: dict[str, Any] = {}
        for callback in self.all:
            if hasattr(callback, "state_dict"):
                name = type(callback).__name__
                count = sum(key.partition(" ")[0] == name for key in found)
                found[f"{name} {count + 1}" if count else name] = callback
        return found
