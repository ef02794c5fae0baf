"""The search of everything that is alive for objects of some classes."""

from __future__ import annotations

import gc

from rumus.train.base.live_objects import live_objects


class Thing:
    """What is searched."""


class Derived(Thing):
    """A class of its own."""


def test_objects_of_exactly_these_classes_are_found() -> None:
    thing, derived = Thing(), Derived()
    assert live_objects([Thing]) == [thing]
    assert set(live_objects([Thing, Derived])) == {thing, derived}


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
