"""`StopSignals`: SIGTERM and Ctrl-C end a training in good order, with a checkpoint."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Interrupted(SystemExit):
    """A signal has ended the training. Uncaught it ends the process with `code`, silently.

    code: 143 for SIGTERM, 130 for Ctrl-C. step: how many were done, None where a second signal has
    left at once. checkpoint: where the state was saved, None if nowhere.
    """

    def __init__(self, number: int, step: int | None = None, path: Path | None = None) -> None:
        super().__init__(128 + number)
        self.name = signal.Signals(number).name
        self.step = step
        self.checkpoint = path

    def __str__(self) -> str:
        if self.step is None:
            return f"a second {self.name} ended the training at once"
        saved = f"the last checkpoint is {self.checkpoint}" if self.checkpoint else "not saved"
        return f"{self.name} ended the training after step {self.step}; {saved}"


class Abandoned(BaseException):
    """What may be cut short was, by the first signal. Never leaves this package."""


class StopSignals:
    """Within its block the first signal is noted, and the second raises Interrupted at once.

    The first raises Abandoned where it meets something that may be cut short. Python has handlers
    in the main thread alone: in another one nothing is changed. A signal that is ignored, as under
    nohup, stays ignored.
    """

    def __init__(self, wanted: bool = True) -> None:
        self.received: int | None = None
        self._wanted = wanted
        self._before: dict[int, Any] = {}
        self._may_cut = False

    def __enter__(self) -> StopSignals:
        if self._wanted and threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                before = signal.getsignal(number)
                if before is not signal.SIG_IGN:
                    self._before[number] = before
                    signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _restore(self) -> None:
        while self._before:
            number, before = self._before.popitem()
            signal.signal(number, signal.SIG_DFL if before is None else before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            self._restore()
            raise Interrupted(number)
        self.received = number
        if self._may_cut:
            self._may_cut = False
            raise Abandoned

    @contextmanager
    def may_be_cut(self) -> Iterator[None]:
        """Say that the block may be left in its middle: Abandoned is raised there, or at once."""
        self._may_cut = True
        try:
            if self.received is not None:
                raise Abandoned
            yield
        finally:
            self._may_cut = False
