"""The search of everything that is alive for objects of some classes."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from rumus.train.base.live_objects import live_objects, referrers


class Thing:
    """What is searched."""


class Derived(Thing):
    """A class of its own."""


def test_objects_of_exactly_these_classes_are_found() -> None:
    thing, derived = Thing(), Derived()
    assert live_objects([Thing]) == [thing]
    assert set(live_objects([Thing, Derived])) == {thing, derived}


def test_what_refers_to_a_thing_is_found_also_by_tuples() -> None:
    thing = Thing()
    whole, pair = [thing], [(thing, 1)]
    plain, by_tuples = referrers(thing), referrers(thing, by_tuples=True)
    assert any(each is whole for each in plain)
    assert not any(each is pair for each in plain)
    assert any(each is pair for each in by_tuples)
    assert not any(type(each) is tuple for each in (*plain, *by_tuples))


@pytest.mark.parametrize("by_tuples", [False, True])
def test_a_search_does_not_disturb_tuples_that_other_threads_make(by_tuples: bool) -> None:
    thing, failed, is_over = Thing(), list[SystemError](), threading.Event()

    def make() -> None:
        while not is_over.is_set():
            try:
                tuple(thing for _ in range(20))
            except SystemError as error:  # "bad argument to internal function"
                failed.append(error)

    threads, before = [threading.Thread(target=make) for _ in range(2)], sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for _ in range(100):
            referrers(thing, by_tuples=by_tuples)
            live_objects([Thing])
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(before)
    assert not failed


def test_a_search_leaves_nothing_to_the_collector() -> None:
    is_enabled = gc.isenabled()
    held = [[number] for number in range(20_000)]  # the others may be frozen
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        for _ in range(3):
            live_objects([Thing])
        assert len(gc.get_objects()) - before < 100 < len(held)
    finally:
        if is_enabled:
            gc.enable()


class Late(Exception):
    """What a handler raises."""


@pytest.mark.parametrize("search", [lambda: live_objects([Thing]), lambda: referrers(Thing)])
def test_the_collector_goes_on_wherever_a_handler_raises(search: Callable[[], object]) -> None:
    """It rested for the rest of the program, and each search took longer than the one before."""

    def late(number: int, frame: FrameType | None) -> None:
        raise Late

    left = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if f"{os.sep}rumus{os.sep}" not in frame.f_code.co_filename:
            return None
        if event == "line":
            left -= 1
            if not left:
                signal.raise_signal(signal.SIGTERM)
        return trace

    handler, before, raised = signal.signal(signal.SIGTERM, late), sys.gettrace(), 0
    assert gc.isenabled()
    try:
        for line in range(1, 40):
            left = line
            sys.settrace(trace)
            try:
                search()
            except Late:
                raised += 1
            finally:
                sys.settrace(before)
            assert gc.isenabled(), line
    finally:
        gc.enable()
        signal.signal(signal.SIGTERM, handler)
    assert raised > 10
