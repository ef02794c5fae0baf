"""Searches of everything that the garbage collector lists, which no other thread notices.

They are made by C code alone: between two instructions of Python other threads run, and a tuple
that one of them is making must not be referred to from elsewhere (its `tuple()` would raise
SystemError), nor an array whose memory it reuses.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from itertools import chain, compress, repeat, starmap
from operator import is_, is_not
from typing import Any

from rumus.tensor.memory.uninterrupted import put_back_after


def live_objects(kinds: Iterable[type]) -> list[Any]:
    """Return the objects of exactly these classes that the garbage collector lists.

    kinds: proxies fake their class, and are left out.
    """
    wanted = frozenset(kinds)
    everything: list[list[Any]] = []
    listed = map(everything.append, map(gc.get_objects, (None,)))
    found = compress(chain.from_iterable(everything), map(wanted.__contains__, _types(everything)))
    # The list holds all of this, too: it is cleared, or each call would leave one to the collector.
    forgotten = map(list.clear, everything)
    return _listed(chain(listed, found, forgotten))[1:-1]


def referrers(*things: object, by_tuples: bool = False) -> list[Any]:
    """Return what refers to one of these things, except for tuples, which may be unfinished.

    by_tuples: also what refers to a tuple of them.
    """
    everything: list[list[Any]] = []
    tuples = compress(chain.from_iterable(everything), map(is_, _types(everything), repeat(tuple)))
    calls = [things, tuples] if by_tuples else [things]
    listed = map(everything.append, starmap(gc.get_referrers, calls))
    found = compress(
        chain.from_iterable(everything), map(is_not, _types(everything), repeat(tuple))
    )
    forgotten = map(list.clear, everything)
    return _listed(chain(listed, found, forgotten))[len(calls) : -len(calls)]


def _types(everything: Iterable[Iterable[Any]]) -> Iterator[type]:
    """The class of each object, when it is asked for."""
    return map(type, chain.from_iterable(everything))


def _listed(found: Iterator[Any]) -> list[Any]:
    """Search, and let no finalizer run meanwhile, which is Python code.

    Wherever a signal's handler raises, the garbage collector goes on: without it, all memory fills.
    """
    is_enabled = gc.isenabled()

    def search() -> list[Any]:
        gc.disable()
        return list(found)

    def put_back() -> None:
        if is_enabled:
            gc.enable()

    return put_back_after(search, put_back)


def with_subclasses(kind: type) -> Iterator[type]:
    """Yield a class and those derived from it."""
    yield kind
    below: type
    for below in type.__subclasses__(kind):
        yield from with_subclasses(below)
