"""`live_objects`: everything of some classes that is alive in the process."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from itertools import chain, compress, tee
from typing import Any


def live_objects(kinds: Iterable[type]) -> list[Any]:
    """Return the objects of exactly these classes that the garbage collector lists.

    By C code alone: between two instructions of Python other threads run, and a tuple that one of
    them is making must not be referred to from elsewhere, nor an array whose memory it reuses.

    kinds: proxies fake their class, and are left out.
    """
    wanted = frozenset(kinds)
    things, same = tee(chain.from_iterable(map(gc.get_objects, (None,))))
    return list(compress(things, map(wanted.__contains__, map(type, same))))


def with_subclasses(kind: type) -> Iterator[type]:
    """Yield a class and those derived from it."""
    yield kind
    below: type
    for below in type.__subclasses__(kind):
        yield from with_subclasses(below)
