"""`once`: what a process has one of, whichever thread asks for it first."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from threading import RLock
from typing import TypeVar

R = TypeVar("R")


def once(make: Callable[[], R]) -> Callable[[], R]:
    """Return a function that calls `make` the first time, and returns the same result ever after.

    `functools.cache` would call it once for each thread that asks before the first has an answer:
    tensors of two threads would then be on two backends.

    make: if it raises, the next caller tries again.

    >>> backend = once(object)
    >>> backend() is backend()
    True
    """
    lock, made = RLock(), cache(make)

    @cache  # callers after the first need no lock
    @wraps(make)
    def found() -> R:
        with lock:
            return made()

    return found
