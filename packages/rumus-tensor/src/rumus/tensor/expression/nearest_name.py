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


def is_misspelled(name: str, known: str) -> bool:
    """Whether one letter more, less or other, or two that are swapped, make one name of another.

    A name of three letters or fewer may be another one, and so may a plural.

    >>> is_misspelled("droput", "dropout"), is_misspelled("momentmu", "momentum")
    (True, True)
    >>> is_misspelled("kernels", "kernel"), is_misspelled("k", "p")
    (False, False)
    """
    if (
        min(len(name), len(known)) < 3
        or name == known
        or f"{name}s" == known
        or name == f"{known}s"
    ):
        return False
    start = next((i for i, (a, b) in enumerate(zip(name, known, strict=False)) if a != b), None)
    if start is None:
        return abs(len(name) - len(known)) == 1
    a, b = name[start:], known[start:]
    is_swapped = a[:2] == b[1::-1] and a[2:] == b[2:]
    is_short = min(len(name), len(known)) == 3
    return is_swapped or (not is_short and (a[1:] == b or a == b[1:] or a[1:] == b[1:]))
