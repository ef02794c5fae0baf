"""A block of code that defers all signals.

Python runs signal handlers between any two instructions of the main thread, and an exception from a
handler leaves a write half done. Masking signals would not help: the operating system then delivers
them to another thread, and Python still runs the handler in this one.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from threading import get_ident
from time import perf_counter
from types import FrameType
from typing import Any, ClassVar, Final, TypeAlias, TypeVar

R = TypeVar("R")
T = TypeVar("T")
Handler: TypeAlias = Callable[[int, FrameType | None], Any]

# The C module under `signal`: making enums of its numbers would take longer than a small update.
_signal: Final[Any] = import_module("_signal")
_ALL: Final = tuple(sorted(map(int, signal.valid_signals())))
_USUAL: Final = tuple(
    number
    for name in (
        "HUP", "INT", "BREAK", "QUIT", "ALRM", "TERM", "USR1", "USR2", "CHLD", "CONT", "TSTP",
        "IO", "URG", "WINCH", "XCPU", "VTALRM", "PROF",
    )
    if (number := getattr(_signal, f"SIG{name}", None)) is not None
)  # fmt: skip
_RARE: Final = tuple(number for number in _ALL if number not in _USUAL)
_FRESH: Final = 1e-3  # seconds after which the rare signals are queried again


class _Main:
    """The thread in which Python runs handlers; after a fork the one that forked."""

    def __init__(self) -> None:
        self.ident = threading.main_thread().ident

    def forked(self) -> None:
        """In a child process: this thread."""
        self.ident = get_ident()


_main: Final = _Main()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_main.forked)


class Uninterrupted:
    """Defer all signals while something is written that must be complete; deliver them afterwards.

    An exception from a deferred handler is raised at the end of the block, or prevents entering it.
    Blocks nest: the outermost one defers. Python runs handlers only in the main thread, so on other
    threads this does nothing.

    Querying the handlers of all 62 signals would take as long as a small update. So the common ones
    are queried each time, the others (real-time signals and faults) only if the last query was over
    a millisecond ago.

    >>> try:
    ...     with Uninterrupted():
    ...         signal.raise_signal(signal.SIGINT)
    ...         written = True
    ... except KeyboardInterrupt:
    ...     print("interrupted, and written:", written)
    interrupted, and written: True
    """

    _holding: ClassVar[Uninterrupted | None] = None

    def __enter__(self) -> None:
        if Uninterrupted._holding is not None:
            return
        if get_ident() != _main.ident:
            return
        received: list[tuple[int, FrameType | None]] = []
        self._received = received
        self._record: Handler = lambda number, frame: received.append((number, frame))
        self._before = _handlers.to_replace()
        try:
            for number, _ in self._before:
                _signal.signal(number, self._record)
        except BaseException:
            self._let_go()
            raise
        Uninterrupted._holding = self

    def __exit__(self, *_: object) -> None:
        if Uninterrupted._holding is self:
            Uninterrupted._holding = None
            self._let_go()

    def _let_go(self) -> None:
        try:
            self._put_back(0)
        finally:
            if self._received:
                calls = iter(self._received)
                try:
                    self._deliver(calls)
                finally:
                    self._deliver(calls)

    # Each handler may raise as soon as it is restored: whatever it does, the others are restored
    # too, and their signals are delivered.

    def _put_back(self, position: int) -> None:
        try:
            while position < len(self._before):
                number, handler = self._before[position]
                if _signal.getsignal(number) is self._record:
                    _signal.signal(number, handler)
                position += 1
        except BaseException:
            self._put_back(position)
            raise

    def _deliver(self, calls: Iterator[tuple[int, FrameType | None]]) -> None:
        try:
            for number, frame in calls:  # thousands, as of a profiler's timer while loops compile
                handler = dict(self._before).get(number) or _signal.getsignal(number)
                handler(number, frame)
        except BaseException:
            self._deliver(calls)
            raise


class WaitingHandler:
    """A signal handler that waits for the end of an `Uninterrupted` block by itself.

    The block need not replace it and put it back, which takes a microsecond or more each time.

    handler: called with the signal's number and a frame.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal, or leave it to the block that defers signals now."""
        block = Uninterrupted._holding
        if block is None:
            self._handler(number, frame)
        else:
            block._received.append((number, frame))


class _Handlers:
    """The signals for which Python runs a handler; rebuilt only if that has changed."""

    def __init__(self) -> None:
        self._asked, self._numbers = -1.0, _USUAL
        self._rare: tuple[Any, ...] = ()  # what was found for the rare ones
        self._found: tuple[Any, ...] = ()
        self._known: list[tuple[int, Handler]] = []
        self._to_replace: list[tuple[int, Handler]] = []

    def known(self) -> list[tuple[int, Handler]]:
        """Return the signals with their handlers."""
        self.to_replace()
        return self._known

    def to_replace(self) -> list[tuple[int, Handler]]:
        """Return the signals whose handlers do not wait by themselves, with these handlers."""
        now = perf_counter()
        if now - self._asked > _FRESH:
            self._asked = now
            rare = tuple(map(_signal.getsignal, _RARE))
            if rare != self._rare:
                numbers = [n for n, handler in zip(_RARE, rare, strict=True) if callable(handler)]
                self._rare, self._numbers = rare, (*_USUAL, *numbers)
        found = tuple(map(_signal.getsignal, self._numbers))
        if found != self._found:
            pairs = zip(self._numbers, found, strict=True)
            self._known = [(number, handler) for number, handler in pairs if callable(handler)]
            self._to_replace = [
                (number, handler)
                for number, handler in self._known
                if not isinstance(handler, WaitingHandler)
            ]
            self._found = found
        return self._to_replace


_handlers: Final = _Handlers()


def displacing(holder: Any, name: str, value: Any, given: Any = None) -> Iterator[Any]:
    """Let an attribute have another value until the generator goes on, and its own again after it.

    So it is wherever meanwhile, or at the end, a signal's handler raises. Nothing is held back, so
    that it costs little: one assignment is whole by itself. `displaced` is the same as a block; to
    a block with something else to do, `yield from` adds it at a tenth of what a second one costs.

    holder: whose attribute it is.
    name: of the attribute.
    value: which it has meanwhile.
    given: what is yielded; None for the value.
    """
    before = getattr(holder, name)
    try:
        try:
            setattr(holder, name, value)
            yield value if given is None else given
        finally:
            setattr(holder, name, before)
    except BaseException:
        setattr(holder, name, before)  # a signal may have come before the other was reached
        raise


displaced = contextmanager(displacing)


@contextmanager
def putting_back(write: Callable[[], None]) -> Iterator[None]:
    """Call `write` after the block, wherever a signal's handler raises: see `put_back_after`.

    write: runs uninterrupted, and may be called twice.
    """
    try:
        try:
            yield
        finally:
            with Uninterrupted():
                write()
    except BaseException:
        with Uninterrupted():
            write()
        raise


def put_back_after(act: Callable[[], R], write: Callable[[], None]) -> R:
    """Return what `act` returns, after `write` has restored anything that `act` changed.

    This holds wherever a signal handler raises, even just before `write` starts, or while an error
    from `act` propagates. A `with` could not guarantee that: a handler may raise as its exit is
    called.

    act: may raise, and may be interrupted at any line.
    write: runs uninterrupted, and may be called twice.
    """
    try:
        try:
            return act()
        finally:
            with Uninterrupted():
                write()
    except BaseException:
        with Uninterrupted():
            write()
        raise


def is_of_handler(error: BaseException) -> bool:
    """Whether a signal's handler has raised an error, as a time limit does.

    Such an error ends what it meets. It may be of any type, TimeoutError among them, which is an
    OSError: whoever goes on after errors of a disk or of a dataset has to let it through.
    """
    codes = {_code_of(handler) for _, handler in _handlers.known()}
    at = error.__traceback__
    while at is not None:
        if at.tb_frame.f_code in codes:
            return True
        at = at.tb_next
    return False


def _code_of(handler: Any) -> object:
    """The code that a handler runs first; None for one that is written in C."""
    handler = getattr(handler, "func", handler)  # of a partial
    if not hasattr(handler, "__code__") and not hasattr(handler, "__func__"):
        handler = handler.__call__  # of an object
    return getattr(getattr(handler, "__func__", handler), "__code__", None)


@contextmanager
def suppressed(*kinds: type[Exception]) -> Iterator[None]:
    """Do what `contextlib.suppress` does, but for errors of signal handlers.

    kinds: the types of error that are nothing.
    """
    try:
        yield
    except kinds as error:
        if is_of_handler(error):
            raise
