"""`printable`: untrusted text (files, paths, column names), made safe for a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rumus.tensor.expression.printable import printable_lines

_LONGEST: Final = 200  # characters of one name in a message
_MANY: Final = 5  # names, of which a message has the first only
_FIRST: Final = 3


def printable(text: object) -> str:
    r"""Return a text with control characters and lone surrogates escaped, truncated if very long.

    A terminal obeys escape sequences, so no message contains one.

    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    shown = str(text)
    if len(shown) > _LONGEST:
        shown = shown[: _LONGEST - 3] + "..."
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in shown)


def listed(names: Iterable[str]) -> str:
    """Return names in quotes; of many, the first ones and how many others there are.

    >>> listed(["a", "b"]), listed("abcdefg")
    ("'a', 'b'", "'a', 'b', 'c' and 4 others")
    """
    every = list(names)
    told = every if len(every) < _MANY else every[:_FIRST]
    rest = f" and {len(every) - len(told):,} others" if len(told) < len(every) else ""
    return ", ".join(printable(repr(name)) for name in told) + rest


def say(text: object) -> None:
    """Print a text of several lines, with its control characters escaped."""
    print(printable_lines(text), flush=True)
