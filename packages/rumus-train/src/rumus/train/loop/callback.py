"""`Callback`: reacts to the events of training, in a declared order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from inspect import (
    Parameter,
    Signature,
    isasyncgenfunction,
    iscoroutinefunction,
    isgeneratorfunction,
    signature,
)
from typing import Any, Final, Protocol

from rumus.tensor import NonFiniteGradientError
from rumus.tensor.expression.nearest_name import nearest_name
from rumus.tensor.expression.printable import PrintableError
from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.memory.uninterrupted import is_of_handler
from rumus.train.base.other_names import CALLBACK, HEARD
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
from rumus.train.loop.overridden import names_in, own_members
from rumus.train.loop.stop_signals import Interrupted


@CALLBACK.of_instances
class Callback(Protocol):
    """Derive from it and override the methods you need; the others do nothing.

    order: lower ones are called first; equal ones in the given order. A callback that depends on
        another's decision needs a higher order. With `state_dict` and `load_state_dict`, its state
        is saved in every checkpoint.

    speaks: whether it writes files or shows progress; only the first rank calls it then. All other
        callbacks are called by every rank, with the same numbers.

    monitors: a validation metric it depends on. A run without a validation, or whose validation
        lacks the metric, raises.

    An error in a method ends the training with a CallbackError that names the callback. What a
    method returns is not read; True and False, which stop other libraries' trainings, are told of.

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
        """The validation metric it needs, if any."""
        return None

    def on_train_start(self, event: TrainStart) -> None:
        """Called when training starts or resumes.

        event: the event.
        """
        return

    def on_epoch_start(self, event: EpochStart) -> None:
        """Called when an epoch starts.

        event: the event.
        """
        return

    def on_step_end(self, event: StepEnd) -> None:
        """Called after each step.

        event: the event.
        """
        return

    def on_validation_end(self, event: ValidationEnd) -> None:
        """Called after each validation.

        event: the event.
        """
        return

    def on_epoch_end(self, event: EpochEnd) -> None:
        """Called after each epoch.

        event: the event.
        """
        return

    def on_checkpoint(self, event: CheckpointSaved) -> None:
        """Called when a checkpoint was saved, or saving failed.

        event: the event.
        """
        return

    def on_train_end(self, event: TrainEnd) -> None:
        """Called when training ends normally.

        event: the event.
        """
        return

    def on_error(self, event: Failed) -> None:
        """Called when training ends with an error, or what a signal handler of the program raises.

        event: the event.
        """
        return


class CallbackError(PrintableError, RuntimeError):
    """A callback has raised; the message names it and the event, and the error is the cause."""


_ALIKE: Final = 0.85  # from 0 to 1: names that are taken for misspelled ones
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
_OF_STATE: Final = ("state_dict", "load_state_dict")
CALLED: Final = ("order", *_METHODS.values())  # what makes an object a callback


def _check_methods(kind: type) -> None:
    """Raise TypeError for a method that looks like an event's but that none calls."""
    events = set(_METHODS.values())
    for name in sorted(name for name in dir(kind) if name.startswith("on_")):
        near = HEARD.rows.get(name) or nearest_name(name, events, _ALIKE)
        if name not in events and near is not None:
            raise TypeError(f"{kind.__name__}.{name} is called by no event; here it is {near}")
    own = own_members(kind)
    for name in sorted(own.keys() - events - names_in(*own.values())):
        if name.startswith("on_") and _takes_one(own[name]):
            warn_user(
                f"{kind.__name__}.{name} is called by no event, and not by {kind.__name__} itself: "
                f"the events are {', '.join(_METHODS.values())}"
            )


def _check_hears(callback: Callback) -> None:
    """Raise TypeError for a callback whose methods no event calls, such as `epoch_end`."""
    kind = type(callback)
    members = {n: member for n, member in own_members(kind).items() if n not in _OF_STATE}
    own = [name for name, member in members.items() if name[0] != "_" and _takes_one(member)]
    if own and not any(_hears(callback, method) for method in _METHODS.values()):
        raise TypeError(
            f"{kind.__name__} hears no event, as none calls its {', '.join(sorted(own))}: the "
            f"events call {', '.join(_METHODS.values())}"
        )


def _hears(callback: Callback, method: str) -> bool:
    return _function(getattr(callback, method)) is not getattr(Callback, method)


def _takes_one(method: object) -> bool:
    """Whether a function can be called with an object and an event."""
    try:
        signature(method).bind(None, None)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True


def _hearing(callback: Callback, name: str) -> Callable[[Any], object]:
    """Return a method that hears an event; TypeError for one that cannot be called with it."""
    method: Callable[[Any], object] = getattr(callback, name)
    if any(kind(method) for kind in (isgeneratorfunction, iscoroutinefunction, isasyncgenfunction)):
        raise TypeError(
            f"{type(callback).__name__}.{name} would not run when it is called, since it yields "
            f"or is async: write a plain def {name}(self, event)"
        )
    try:
        parameters = signature(method)
    except (TypeError, ValueError):  # of one that is not written in Python
        return method
    try:
        parameters.bind(None)
        takes_event = not _is_of_keras(parameters)
    except TypeError:
        takes_event = False
    if not takes_event:
        raise TypeError(
            f"{type(callback).__name__}.{name} is called with the event alone, so write "
            f"def {name}(self, event), not {parameters}"
        )
    return method


def _is_of_keras(parameters: Signature) -> bool:
    """Whether a method takes Keras's arguments, (epoch, logs=None) or (logs=None)."""
    names = list(parameters.parameters)
    if names[:1] == ["logs"]:
        return parameters.parameters["logs"].default is not Parameter.empty
    return names[:1] in (["epoch"], ["batch"]) and names[1:2] == ["logs"]


def _function(method: Any) -> object:
    """The function of a method, or what stands in its place in one object."""
    return getattr(method, "__func__", method)


class Callbacks:
    """Callbacks in their order.

    Raises TypeError for an object without a callback's methods, for one with a method that has
    another library's name of an event, or a misspelled one, as nothing would call it, for one whose
    method takes something else than the event, and for one with methods of which none is called.
    """

    def __init__(self, callbacks: Iterable[Callback]) -> None:
        self.all = sorted(callbacks, key=lambda callback: callback.order)
        for callback in self.all:
            _check_methods(type(callback))
            _check_hears(callback)
        self._hearers: dict[type[Any], list[tuple[str, Callable[[Any], object]]]] = {
            event: [
                (type(callback).__name__, _hearing(callback, method))
                for callback in self.all
                if _hears(callback, method)
            ]
            for event, method in _METHODS.items()
        }
        self._answered: set[tuple[str, type[Any]]] = set()

    def hear(self, event: type[Any]) -> bool:
        """Whether any callback handles such events."""
        return bool(self._hearers[event])

    def send(self, event: Event) -> None:
        """Send an event to all callbacks. Raises CallbackError for the first that raises.

        A signal that has ended a training of a callback ends that of the event, after its step.
        """
        for name, method in self._hearers[type(event)]:
            try:
                if type(answer := method(event)) is bool:
                    self._tell_of_answer(name, type(event), answer)
            except NonFiniteGradientError:
                raise  # of a step: a callback that only reads its loss may be the first to see it
            except Interrupted as inner:
                event.run.signals.obey_within(inner)
            except Exception as error:
                if is_of_handler(error):
                    raise
                raise CallbackError(
                    f"the callback {name} failed in {_METHODS[type(event)]} (epoch {event.epoch}, "
                    f"step {event.step}): {type(error).__name__}: {error}"
                ) from error

    def _tell_of_answer(self, name: str, event: type[Any], answer: bool) -> None:
        """Warn once of a method that returns a truth value, as if to stop the training."""
        if (name, event) not in self._answered:
            self._answered.add((name, event))
            warn_user(
                f"{name}.{_METHODS[event]} returned {answer}, which nothing reads: "
                "event.run.stop(reason) ends the training"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the callbacks' states by name, if they have one."""
        return {name: callback.state_dict() for name, callback in self._stateful().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore states by name. A callback without a saved state starts afresh: it may be new."""
        for name, callback in self._stateful().items():
            if name in state:
                callback.load_state_dict(state[name])

    def _stateful(self) -> dict[str, Any]:
        """By class name, with a number from the second of a class on."""
        found: dict[str, Any] = {}
        for callback in self.all:
            if hasattr(callback, "state_dict"):
                name = type(callback).__name__
                count = sum(key.partition(" ")[0] == name for key in found)
                found[f"{name} {count + 1}" if count else name] = callback
        return found
