"""`watched`: host operations that report their calls to a watcher.

A host backend computes immediately. Recording a step for replay requires seeing these calls: only
the outermost ones, since what an operation does inside does not matter.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Protocol, TypeVar

from rumus.tensor.memory.uninterrupted import displaced

F = TypeVar("F", bound=Callable[..., Any])


class Watcher(Protocol):
    """Receives the calls of watched operations."""

    def called(self, operation: Callable[..., Any], args: tuple[Any, ...], named: Any) -> Any:
        """Run an operation, unwatched inside, and return its result."""
        ...


class _Current(threading.local):
    watcher: Watcher | None = None


_current = _Current()


def watched(operation: F) -> F:
    """Let the current watcher run each call.

    >>> class Loud:
    ...     def called(self, operation, args, named):
    ...         print(operation.__name__, args)
    ...         return operation(*args, **named)
    >>> @watched
    ... def double(number):
    ...     return 2 * number
    >>> with watched_by(Loud()):
    ...     _ = double(3)
    double (3,)
    """

    @wraps(operation)
    def call(*args: Any, **named: Any) -> Any:
        watcher = _current.watcher
        if watcher is None:
            return operation(*args, **named)
        _current.watcher = None
        try:
            return watcher.called(operation, args, named)
        finally:
            _current.watcher = watcher

    call.is_watched = True  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]


def is_somebody_watching() -> bool:
    """Whether this thread's operations are watched."""
    return _current.watcher is not None


@contextmanager
def watched_by(watcher: Watcher | None) -> Iterator[None]:
    """Let `watcher`, or none, watch this thread's operations in the block."""
    with displaced(_current, "watcher", watcher):
        yield
