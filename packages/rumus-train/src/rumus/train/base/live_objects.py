"""`live_objects`: everything of some classes that is alive in the process."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from itertools import chain, compress
from typing import Any


def live_objects(kinds: Iterable[type]) -> list[Any]:
    """Return the objects of exactly these classes that the garbage collector lists.

    By C code alone: between two instructions of Python other threads run, and a tuple that one of
    them is making must not be referred to from elsewhere, nor an array whose memory it reuses.

    kinds: proxies fake their class, and are left out.
    """
    wanted = frozenset(kinds)
    everything: list[list[Any]] = []
    listed = map(everything.append, map(gc.get_objects, (None,)))
    things, same = chain.from_iterable(everything), chain.from_iterable(everything)
    found = compress(things, map(wanted.__contains__, map(type, same)))
    # The list holds all of this, too: it is cleared, or each call would leave one to the collector.
    forgotten = map(list.clear, everything)
    return list(chain(listed, found, forgotten))[1:-1]


def with_subclasses(kind: type) -> Iterator[type]:
    """Yield a class and those derived from it."""
    yield kind
    below: type
    for below in type.__subclasses__(kind):
        yield from with_subclasses(below)
