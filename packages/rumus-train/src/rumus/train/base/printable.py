"""`printable`: untrusted text (files, paths, column names), made safe for a terminal."""

from __future__ import annotations

from typing import Final

from rumus.tensor.expression.printable import printable_lines

_LONGEST: Final = 200  # characters of one name in a message


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


def say(text: object) -> None:
    """Print a text of several lines, with its control characters escaped."""
    print(printable_lines(text), flush=True)
