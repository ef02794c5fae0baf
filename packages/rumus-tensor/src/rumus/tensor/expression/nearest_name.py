"""`nearest_name`: the name that was probably meant, found in bounded time."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from typing import Final

_LONGEST: Final = 64  # characters: comparing two texts takes quadratic time
_MOST: Final = 2000  # names that are compared
_DIGITS: Final = re.compile(r"\d+")


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


def unknown_name(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about a misspelled keyword.

    >>> unknown_name("widht", ["width", "height"]), unknown_name("color", ["width", "height"])
    ("; did you mean 'width'?", '; it takes height, width')
    """
    known = sorted(known)
    near = nearest_name(name, known)
    takes = ", ".join(known) or "nothing by name"
    return f"; did you mean {near!r}?" if near else f"; it takes {takes}"


def is_misspelled(name: str, known: str) -> bool:
    """Whether one letter more, less or other, or two that are swapped, make one name of another.

    Another letter in a short name may make another word, as one more in a name of three, and a
    plural or a number tells names apart.

    >>> is_misspelled("droput", "dropout"), is_misspelled("axs", "axis")
    (True, True)
    >>> is_misspelled("kernels", "kernel"), is_misspelled("kernel2", "kernel")
    (False, False)
    >>> is_misspelled("k", "p"), is_misspelled("side", "size")
    (False, False)
    """
    if min(len(name), len(known)) < 3 or _without(name) == _without(known):
        return False
    unlike = (i for i, (a, b) in enumerate(zip(name, known, strict=False)) if a != b)
    start = next(unlike, min(len(name), len(known)))
    a, b = name[start:], known[start:]
    is_swapped = a[:2] == b[1::-1] and a[2:] == b[2:]
    is_other = len(known) > 5 and a[1:] == b[1:]
    return is_swapped or is_other or a == b[1:] or (len(known) > 3 and a[1:] == b)


def _without(name: str) -> str:
    """A name without its digits, the s of a plural and what keeps it apart from a keyword."""
    return _DIGITS.sub("", name).strip("_").removesuffix("s")
