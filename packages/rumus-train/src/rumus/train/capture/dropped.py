"""`only_held_by`: what a program has dropped, and only captured steps keep alive.

Guards refer to what they compare. What the program has dropped should end, with its `__del__` and
the callbacks of weak references to it, as without a capture. So before the code of a step runs,
recordings that can never fit again are given up if they alone keep something alive.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from rumus.tensor.memory.last_use import references_beside
from rumus.train.capture.outside import is_plain


def parts_of(values: Iterable[Any]) -> Iterator[Any]:
    """Iterate over values, with those of tuples and frozen sets, but not over plain ones."""
    for value in values:
        if isinstance(value, (tuple, frozenset)):
            yield from parts_of(value)
        elif not is_plain(value):
            yield value


def only_held_by(references: Iterable[Any], candidates: Iterable[Any]) -> set[int]:
    """Return the ids of the candidates to which nothing else refers.

    references: what the holders refer to, each as often as they do.
    candidates: the objects in question.
    """
    wanted = {id(thing): thing for thing in candidates}
    if not wanted or not hasattr(sys, "getrefcount"):
        return set()
    held = list(references)
    known = Counter(map(id, held))
    found = wanted | dict(zip(map(id, held), held, strict=True))
    asked = set(wanted)
    wanted.clear()  # so that `found` has the only further reference to each
    held.clear()
    gone, waiting = set[int](), list(found)
    while waiting:
        key = waiting.pop()
        if key in gone or references_beside([found[key]]) - 1 > known[key]:
            continue
        gone.add(key)
        # What only something that is gone refers to is gone as well.
        within = gc.get_referents(found[key])
        known.update(map(id, within))
        found.update(zip(map(id, within), within, strict=True))
        waiting += map(id, within)
        within.clear()
    return gone & asked
