"""`StopSignals`: a signal that would end the program ends a training, with a checkpoint."""

from __future__ import annotations

import errno
import math
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any, Final

from rumus.tensor.memory.uninterrupted import WaitingHandler, is_of_handler
from rumus.train.base.notebook import in_notebook

_ASKED_TO_STOP: Final = (signal.SIGTERM, signal.SIGINT)


def _there(*names: str) -> tuple[signal.Signals, ...]:
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


# Signals that would end the process; one that the program handles is left alone.
_DEADLY: Final = _there("SIGHUP", "SIGXCPU", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGBREAK")
# Those for which C code has handlers with a purpose. For others it has some that show its stack, as
# UCX of an MPI has for SIGHUP: a closed terminal is to end a training all the same.
_OF_PROGRAMS: Final = _there("SIGUSR1", "SIGUSR2", "SIGALRM")
_STATUS: Final = Path("/proc/self/status")  # on Linux
AGAIN: Final = 1.0  # seconds: what comes sooner is the first signal, sent to process and group


class Interrupted(SystemExit):
    """A signal has ended the training. If uncaught, it ends the process silently with `code`.

    code: 128 + the signal: 143 for SIGTERM, 130 for Ctrl-C, 129 for a closed terminal.

    number: of the signal.
    step: the number of steps done; None if a second signal ended the training at once. checkpoint:
        where the state was saved, or None.
    path: of the checkpoint, or None.
    """

    def __init__(self, number: int, step: int | None = None, path: Path | None = None) -> None:
        super().__init__(128 + number)
        self.number = number
        self.name = signal.Signals(number).name
        self.step = step
        self.checkpoint = path

    def __str__(self) -> str:
        if self.step is None:
            return f"a second {self.name} ended the training at once"
        saved = f"the last checkpoint is {self.checkpoint}" if self.checkpoint else "not saved"
        return f"{self.name} ended the training after step {self.step}; {saved}"


def shown(interrupted: Interrupted) -> BaseException:
    """Return the text to display; in a notebook, like the interrupt of any other cell."""
    is_interrupt = interrupted.name == "SIGINT" and in_notebook()
    return KeyboardInterrupt(str(interrupted)) if is_interrupt else interrupted


def _caught() -> frozenset[int]:
    """The signals of programs that have handlers, also of C code, of which Python says "default".

    `faulthandler.register` has one, for example. Empty where the system does not tell.
    """
    try:
        text = _STATUS.read_text(encoding="ascii")
        mask = int(text.partition("SigCgt:")[2].split(None, 1)[0], 16)
    except (OSError, ValueError, IndexError) as error:
        if is_of_handler(error):
            raise
        return frozenset()
    return frozenset(n for n in _OF_PROGRAMS if mask >> (n - 1) & 1)


class Abandoned(BaseException):
    """The first signal interrupted a part that may be interrupted. Never leaves this package."""


def _leave_closed_terminal() -> None:
    """Let what is printed go nowhere if its terminal is gone.

    Printing would raise OSError, in a loss function as in a callback, and end the step that is to
    be saved.
    """
    for stream in (1, 2):
        try:
            os.tcgetpgrp(stream)
        except OSError as error:
            if error.errno == errno.EIO:  # of another kind if it is a file, or no terminal
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream)
                os.close(nowhere)


class StopSignals:
    """Within its block, the first signal is noted, and a second one raises Interrupted at once.

    The first raises Abandoned in a part that may be interrupted. Another one within a second does
    not count: `timeout`, batch systems and launchers send the same signal to a process and to its
    group. Python has handlers only in the main thread: in another thread nothing changes. An
    ignored signal, as under nohup, stays ignored.

    received: the signal that the training obeys. noted: the one that this process has got; where
    signals are `shared` by several processes it counts when all of them `obey` it. are_urgent:
    whether a second one has come, which ends the training at once.
    """

    def __init__(self, wanted: bool = True, *, shared: bool = False) -> None:
        self.received: int | None = None
        self.noted: int | None = None
        self.are_urgent = False
        self._shared = shared
        self._received_at = -math.inf
        self._wanted = wanted
        self._before: dict[int, Any] = {}
        self._handler = WaitingHandler(self._note)
        self._may_cut = False
        self._process = os.getpid()
        self._is_over = False

    def __enter__(self) -> StopSignals:
        if self._wanted and threading.current_thread() is threading.main_thread():
            try:
                self._install()
            except BaseException:  # of a handler that was still the program's
                self._restore()
                raise
        return self

    def _install(self) -> None:
        caught = _caught()
        for number in (*_ASKED_TO_STOP, *_DEADLY):
            before = signal.getsignal(number)
            is_taken = before is not signal.SIG_DFL or number in caught
            if before is not signal.SIG_IGN and not (is_taken and number in _DEADLY):
                self._before[number] = before
                signal.signal(number, self._handler)

    def __exit__(self, *_: object) -> None:
        try:
            self._restore()
        finally:
            self._is_over = True

    def _restore(self) -> None:
        """Put the handlers back, each of which may raise as soon as it is there.

        One that the program has set meanwhile, as in a callback, stays.
        """
        try:
            for number, before in list(self._before.items()):
                if signal.getsignal(number) is self._handler:
                    signal.signal(number, signal.SIG_DFL if before is None else before)
        except BaseException:
            self._restore()
            raise

    def _note(self, number: int, frame: FrameType | None) -> None:
        # A child that was forked meanwhile trains nothing, and a handler of the program that was
        # put around this one may call it after the training.
        if self._is_over or os.getpid() != self._process:
            self._restore()
            self._do_as_before(number, frame)
            return
        now = monotonic()
        if self.noted is not None:
            if now - self._received_at < AGAIN:
                return
            self._restore()
            self.are_urgent = True
            raise shown(Interrupted(number))
        self.noted, self._received_at = number, now
        if signal.Signals(number).name == "SIGHUP":
            _leave_closed_terminal()
        if not self._shared:
            self.obey(number)

    def _do_as_before(self, number: int, frame: FrameType | None) -> None:
        before = self._before.get(number)
        if callable(before):
            before(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def obey_within(self, inner: Interrupted) -> None:
        """End this training, too, because of a signal that has ended one within it.

        Raises `inner` again if it is to end at once, or if this training leaves signals alone.
        """
        if inner.step is None or not self._wanted:
            raise inner
        self.noted, self._received_at = inner.number, monotonic()
        if not self._shared:
            self.obey(inner.number)

    def obey(self, number: int) -> None:
        """End the training because of a signal, perhaps another process's."""
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
