"""`Uninterrupted`: what is delayed, what is delivered, and that every handler is restored."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any, Final

import pytest

from rumus.tensor.memory.uninterrupted import (
    Uninterrupted,
    WaitingHandler,
    displaced,
    displacing,
    is_of_handler,
    put_back_after,
    putting_back,
    suppressed,
)

NUMBERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGUSR1)


class Late(Exception):
    """Raised by the handlers here."""


@pytest.fixture(autouse=True)
def _no_collection() -> Iterator[None]:
    """Instructions of what a collection calls, such as hypothesis's clock, would be traced too."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(params=["plain", "waiting"])
def heard(request: pytest.FixtureRequest) -> Iterator[list[int]]:
    """The signals whose handler ran; each raises. Handlers may also wait by themselves."""
    found: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        found.append(number)
        raise Late(number)

    handler = note if request.param == "plain" else WaitingHandler(note)
    before = {number: signal.signal(number, handler) for number in NUMBERS}
    yield found
    for number, previous in before.items():
        assert signal.signal(number, previous) is handler


def _receive(numbers: Iterable[int], done: list[str] | None = None) -> None:
    """Send signals in a nested block; `done` is called at the end of the inner one."""
    with Uninterrupted():
        with Uninterrupted():
            for number in numbers:
                signal.raise_signal(number)
        if done is not None:
            done.append("inner")


@pytest.mark.parametrize("number", [*NUMBERS, signal.SIGRTMIN + 2])
def test_a_signal_waits(number: int) -> None:
    def late(*_: object) -> None:
        raise Late

    before = signal.signal(number, late)
    time.sleep(0.002)  # rare signals are polled once per millisecond
    done: list[str] = []
    try:
        with pytest.raises(Late):
            _receive([number], done)
        assert done == ["inner"]
        assert signal.getsignal(number) is late
    finally:
        signal.signal(number, before)


def test_none_is_lost(heard: list[int]) -> None:
    with pytest.raises(Late):
        _receive([*NUMBERS, signal.SIGTERM])
    assert heard == [*NUMBERS, signal.SIGTERM]


@pytest.mark.parametrize("wrap", [lambda handler: handler, WaitingHandler])
def test_thousands_of_signals_wait(wrap: Callable[[Any], Any]) -> None:
    """As of a profiler's timer while something long is written, or loops are compiled."""
    count = 5 * sys.getrecursionlimit()
    found: list[int] = []
    before = signal.signal(signal.SIGALRM, wrap(lambda number, _: found.append(number)))
    try:
        with Uninterrupted():
            for _ in range(count):
                signal.raise_signal(signal.SIGALRM)
            assert not found
    finally:
        signal.signal(signal.SIGALRM, before)
    assert found == [signal.SIGALRM] * count


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        with Uninterrupted():
            signal.raise_signal(signal.SIGUSR2)
        assert signal.getsignal(signal.SIGUSR2) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_handler_installed_inside_stays(heard: list[int]) -> None:
    own: Callable[..., Any] = lambda *_: None
    with Uninterrupted():
        before = signal.signal(signal.SIGUSR1, own)
    assert signal.getsignal(signal.SIGUSR1) is own
    with suppress(Late):
        signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM]
    assert before is not own
    signal.signal(signal.SIGUSR1, signal.getsignal(signal.SIGTERM))


def test_another_thread_holds_nothing(heard: list[int]) -> None:
    entered, leave = threading.Event(), threading.Event()

    def work() -> None:
        with Uninterrupted():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=work)
    thread.start()
    entered.wait(10)
    with pytest.raises(Late):
        signal.raise_signal(signal.SIGINT)
    leave.set()
    thread.join()
    assert heard == [signal.SIGINT]


def _with_a_signal_at(wanted: int) -> bool:
    """Enter and leave with SIGTERM at a line, and SIGALRM inside; return whether the line exists.

    Both raise Late.
    """
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.endswith("uninterrupted.py"):
            return None
        count += event == "line"
        if event == "line" and count == wanted:
            signal.raise_signal(signal.SIGTERM)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with pytest.raises(Late):
            _receive([signal.SIGALRM])
    finally:
        sys.settrace(before)
    return count >= wanted


def test_a_signal_at_every_line(heard: list[int]) -> None:
    line = 1
    while _with_a_signal_at(line):
        assert len({signal.getsignal(number) for number in NUMBERS}) == 1, f"line {line}"
        assert heard in (  # if it came before the block was entered, the block did not run
            [signal.SIGTERM],
            [signal.SIGALRM, signal.SIGTERM],
            [signal.SIGTERM, signal.SIGALRM],
        ), f"line {line}"
        heard.clear()
        line += 1
    assert heard == [signal.SIGALRM]
    assert line > 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_the_main_thread_of_a_child_is_the_one_that_forked() -> None:
    """Python runs handlers in that one from then on."""
    codes: list[int] = []

    def in_child() -> None:
        found: list[str] = []
        signal.signal(signal.SIGUSR1, lambda *_: found.append("heard"))
        with Uninterrupted():
            signal.raise_signal(signal.SIGUSR1)
            found.append("written")
        os._exit(0 if found == ["written", "heard"] else 1)

    def fork() -> None:
        child = os.fork()
        if child == 0:
            try:
                in_child()
            finally:
                os._exit(2)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    for start in (fork, lambda: _joined(threading.Thread(target=fork))):
        start()
    assert codes == [0, 0]


def _joined(thread: threading.Thread) -> None:
    thread.start()
    thread.join(20)


def _put_back_with_a_signal_at(wanted: int, fails: bool) -> tuple[str, bool, bool]:
    """Return where things are after an act, whether the signal raised, and whether there it is.

    The act leaves them elsewhere, and looks at them there or fails. wanted: the number of the
    instruction.
    """
    place, count = "home", 0

    def act() -> str:
        nonlocal place
        place = "away"
        if fails:
            raise KeyError(place)
        return place

    def put_back() -> None:
        nonlocal place
        place = "home"

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        if event == "opcode" and count == wanted:
            signal.raise_signal(signal.SIGTERM)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        assert put_back_after(act, put_back) == "away"
    except Late:
        return place, True, True
    except KeyError:
        assert fails
    finally:
        sys.settrace(before)
    return place, False, count >= wanted


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_restored_after_a_signal_at_every_instruction(
    heard: list[int], fails: bool
) -> None:
    at, is_there = 1, True
    while is_there:
        place, raised, is_there = _put_back_with_a_signal_at(at, fails)
        assert place == "home", f"instruction {at}"
        assert raised == is_there, f"instruction {at}"
        at += 1
    waits = isinstance(signal.getsignal(signal.SIGINT), WaitingHandler)
    assert at > (120 if waits else 270)  # it has gone through all of it


class _Place:
    name = "home"
    ends = 0


@contextmanager
def _displacing_and_more(place: _Place) -> Iterator[str]:
    """As a block does that has something else to do at its end."""
    try:
        yield from displacing(place, "name", "elsewhere")
    finally:
        place.ends += 1


BLOCKS: Final[dict[str, Callable[[_Place], AbstractContextManager[object]]]] = {
    "displaced": lambda place: displaced(place, "name", "elsewhere"),
    "displacing": _displacing_and_more,
    "putting back": lambda place: putting_back(lambda: setattr(place, "name", "home")),
}


def _go_away(place: _Place, block: str) -> None:
    with BLOCKS[block](place):
        place.name = "away"


def _comes_back(wanted: int, block: str) -> tuple[str, bool]:
    """Return where things are after a signal at an instruction, and whether there it is.

    A handler may raise as the block's exit is called; then it ends with the error's traceback.
    """
    place, count = _Place(), 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        if event == "opcode" and count == wanted:
            signal.raise_signal(signal.SIGTERM)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        _go_away(place, block)
    except Late:
        pass
    finally:
        sys.settrace(before)
    return place.name, count >= wanted


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_is_restored_after_a_signal_at_every_instruction(
    heard: list[int], block: str
) -> None:
    at, is_there = 1, True
    while is_there:
        place, is_there = _comes_back(at, block)
        assert place == "home", f"instruction {at}"
        at += 1
    assert at > 100


class _Limit:
    """Handlers of every kind that Python accepts."""

    def __call__(self, *_: object) -> None:
        raise TimeoutError("limit")

    def method(self, *_: object) -> None:
        raise TimeoutError("limit")


def _function(*_: object) -> None:
    raise TimeoutError("limit")


@pytest.mark.parametrize(
    "handler", [_Limit(), _Limit().method, _function, partial(_function, 1), lambda *_: _function()]
)
def test_a_handlers_error_is_distinguished_from_others(handler: Any) -> None:
    before = signal.signal(signal.SIGTERM, handler)
    try:
        with pytest.raises(TimeoutError), suppressed(OSError):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(TimeoutError) as found:
            signal.raise_signal(signal.SIGTERM)
        assert is_of_handler(found.value)
        with suppressed(OSError):
            raise TimeoutError("of a disk")
    finally:
        signal.signal(signal.SIGTERM, before)
