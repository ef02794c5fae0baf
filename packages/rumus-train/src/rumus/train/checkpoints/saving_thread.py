"""`SavingThread`: one save at a time in the background, whose outcome is not lost."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from threading import Thread
from typing import Generic, TypeVar

from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.memory.uninterrupted import Uninterrupted
from rumus.train.checkpoints.checkpoint_errors import CheckpointWarning

T = TypeVar("T")


class SavingThread(Generic[T]):
    """Runs one function after another in a thread; `join` returns the last outcome.

    The interpreter waits for the thread at exit. unheard: reports an outcome at exit that was not
    retrieved; None for nothing.
    """

    def __init__(self, unheard: Callable[[T], str | None]) -> None:
        self._thread: Thread | None = None
        self._outcomes: list[T | BaseException] = []
        weakref.finalize(self, _say, self._outcomes, unheard)

    def start(self, save: Callable[[], T]) -> None:
        """Start a save; `join` the previous one first."""
        # Not a daemon: the end of the program must not cut a save off.
        thread = Thread(target=_run, args=(save, self._outcomes), name="rumus-checkpoint")
        with Uninterrupted():  # a thread that is known has been started
            thread.start()
            self._thread = thread

    def join(self) -> T | None:
        """Wait for the save that runs, if any, and return its outcome, once, or raise it."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if not self._outcomes:
            return None
        outcome = self._outcomes.pop()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def _run(save: Callable[[], T], outcomes: list[T | BaseException]) -> None:
    try:
        outcomes.append(save())
    except BaseException as error:  # raised where it can be handled
        outcomes.append(error)


def _say(outcomes: list[T | BaseException], unheard: Callable[[T], str | None]) -> None:
    for outcome in outcomes:
        text = repr(outcome) if isinstance(outcome, BaseException) else unheard(outcome)
        if text is not None:
            warn_user(text, CheckpointWarning)
