"""`StepFunction`: a loss function, and what it returns beside the loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rumus.tensor import Tensor
from rumus.tensor.expression.declared_type import shown
from rumus.train.base.calling import wanted_names
from rumus.train.base.logged import Log, as_log
from rumus.train.base.step_clock import TimedFunction


class StepFunction:
    """Calls `function`, which returns a loss, or a dict of it and of other values to log.

    names: the argument names, for a batch that is a dict: `function` gets those it takes.
    log: what the last call returned beside the loss. It replaces `function` in captured steps; a
        replay, which calls nothing, stores its own log there.
    """

    __slots__ = ("_wanted", "function", "log", "names")

    def __init__(self, function: Callable[..., Any], names: tuple[str, ...] | None = None) -> None:
        self.function = function
        self.names = names
        self._wanted = None if names is None else wanted_names(users_own(function), names)
        self.log: Log = {}

    def __call__(self, *args: Any) -> Any:
        """Return the loss."""
        try:
            found = self.function(*args) if self.names is None else self._by_name(args)
        except (AttributeError, TypeError) as error:
            _note_foreign_arrays(error, args)
            raise
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


def _note_foreign_arrays(error: Exception, batch: tuple[Any, ...]) -> None:
    """Say of other libraries' arrays, and of lists, that they reach a loss function as they are."""
    found = {
        shown(value)
        for value in batch
        if isinstance(value, (list, tuple))
        or (hasattr(value, "__array__") and not isinstance(value, (Tensor, np.generic)))
    }
    if found:
        error.add_note(
            f"the batch holds {' and '.join(sorted(found))}, which the loss function gets as it "
            "is: only NumPy arrays become tensors, so let the loader yield numpy.asarray(x)"
        )


def users_own(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the user's function if this one wraps it for timing or logs."""
    while isinstance(function, (TimedFunction, StepFunction)):
        function = function.function
    return function


def check_loss_function(loss_fn: object) -> None:
    """Raise TypeError for anything but a function, such as the targets in fit(x, y)."""
    if not callable(loss_fn) or isinstance(loss_fn, type):
        raise TypeError(
            f"loss_fn must be a function of a batch, not {shown(loss_fn)}: use "
            "fit(DataLoader(ArrayDataset(x, y), batch_size), lambda x, y: mse_loss(model(x), y), "
            "epochs=...)"
        )
