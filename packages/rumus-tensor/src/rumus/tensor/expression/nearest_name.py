"""`nearest_name`: the name that was probably meant, found in bounded time."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Final

_LONGEST: Final = 64  # characters: comparing two texts takes quadratic time
_MOST: Final = 2000  # names that are compared


def nearest_name(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known name most similar to `name`, None if none is similar.

    >>> nearest_name("prise", ["area", "price"])
    'price'
    """
    from difflib import get_close_matches

    if len(name) > _LONGEST:
        return None
    alike = (each for each in known if each and 2 * abs(len(each) - len(name)) <= len(name) + 2)
    if len(name) > 3:  # in a table of many columns, those that begin or end the same way
        alike = (e for e in alike if e[:1].lower() == name[:1].lower() or e[-1] == name[-1])
    found = get_close_matches(name, list(islice(alike, _MOST)), 1, cutoff)
    return found[0] if found else None
