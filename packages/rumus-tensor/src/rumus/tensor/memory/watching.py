"""`watched`: operations of the host that tell who looks on what they are called with.

A backend of the host computes where it is called. Whoever writes a step down, to repeat it, has to
see these calls: the outermost ones, since what an operation does inside of it is its own business.
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
    """Whoever looks on."""

    def called(self, operation: Callable[..., Any], args: tuple[Any, ...], named: Any) -> Any:
        """Run an operation, with nobody looking on within it, and return its result."""
        ...


class _Current(threading.local):
    watcher: Watcher | None = None


_current = _Current()


def watched(operation: F) -> F:
    """Let whoever looks on at a call run it.

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
    """Whether somebody looks on at what this thread does."""
    return _current.watcher is not None


@contextmanager
def watched_by(watcher: Watcher | None) -> Iterator[None]:
    """Let `watcher`, or nobody, look on at what this thread does in the block."""
    with displaced(_current, "watcher", watcher):
        yield
