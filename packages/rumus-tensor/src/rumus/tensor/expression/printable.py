"""Untrusted text (names, paths, cells of a file), made safe for a terminal, and values in messages.

A terminal obeys escape sequences, so no message may contain one.
"""

from __future__ import annotations

import reprlib

_SHORT = reprlib.Repr()
_SHORT.maxlevel = 4
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = _SHORT.maxset = _SHORT.maxfrozenset = 8
_SHORT.maxdeque = _SHORT.maxarray = 8
_SHORT.maxstring = _SHORT.maxother = 200  # characters
_SHORT.maxlong = 100  # digits


def abridged(value: object) -> str:
    """Return the text of a value that somebody has given, shortened if it is long or deep.

    The text of a list of a million numbers would hide the message that contains it, and that of a
    list in a list in a list ... would end in a RecursionError.

    >>> abridged(["a", 1.5]), abridged([[[[[[1]]]]]]), abridged(range(3))
    ("['a', 1.5]", '[[[[[...]]]]]', 'range(0, 3)')
    """
    text = _SHORT.repr(value)
    return " ".join(text.split()) if "\n" in text else text  # of an array


def printable_lines(text: object) -> str:
    r"""Return a text with all control characters but newlines escaped.

    >>> printable_lines("a\x1b[2Jb\nc")
    'a\\x1b[2Jb\nc'
    """
    lines = str(text).split("\n")
    return "\n".join(line if line.isprintable() else _escaped(line) for line in lines)


def _escaped(line: str) -> str:
    return "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in line)


class PrintableError(Exception):
    """An error whose message may contain untrusted names, and is safe for a terminal.

    >>> print(PrintableError("no parameter \\x1b[2J"))
    no parameter \\x1b[2J
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(printable_lines(a) if isinstance(a, str) else a for a in args))
