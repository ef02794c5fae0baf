"""`StepFunction`: a loss function as it is called, with what it returns beside the loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rumus.train.base.calling import wanted_names
from rumus.train.base.logged import Log, as_log
from rumus.train.base.step_clock import TimedFunction


class StepFunction:
    """Calls `function`, which returns a loss, or a dict of it and of what else is to be logged.

    names: of the arguments, where the batch is a dict: `function` gets those that it wants by name.
    log: what the last call has returned beside the loss. It stands for `function` in captured
    steps; a repetition, which calls nothing, puts its own log there.
    """

    __slots__ = ("_wanted", "function", "log", "names")

    def __init__(self, function: Callable[..., Any], names: tuple[str, ...] | None = None) -> None:
        self.function = function
        self.names = names
        self._wanted = None if names is None else wanted_names(users_own(function), names)
        self.log: Log = {}

    def __call__(self, *args: Any) -> Any:
        """Return the loss."""
        found = self.function(*args) if self.names is None else self._by_name(args)
        if not isinstance(found, Mapping):
            return found
        loss, self.log = as_log(found)
        return loss

    def _by_name(self, values: tuple[Any, ...]) -> Any:
        assert self.names is not None
        named = dict(zip(self.names, values, strict=True))
        if self._wanted is None:
            return self.function(named)
        return self.function(**{name: named[name] for name in self._wanted})


def users_own(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the user's own function, where it is timed or its log is kept."""
    while isinstance(function, (TimedFunction, StepFunction)):
        function = function.function
    return function
