"""`StepFunction`: a loss function as it is called, with what it returns beside the loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rumus.train.base.logged import Log, as_log
from rumus.train.base.step_clock import TimedFunction


class StepFunction:
    """Calls `function`, which returns a loss, or a dict of it and of what else is to be logged.

    log: what the last call has returned beside the loss. It stands for `function` in captured
    steps; a repetition, which calls nothing, puts its own log there.
    """

    __slots__ = ("function", "log")

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.log: Log = {}

    def __call__(self, *args: Any) -> Any:
        """Return the loss."""
        found = self.function(*args)
        if not isinstance(found, Mapping):
            return found
        loss, self.log = as_log(found)
        return loss


def users_own(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the user's own function, where it is timed or its log is kept."""
    while isinstance(function, (TimedFunction, StepFunction)):
        function = function.function
    return function
