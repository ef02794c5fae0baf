"""Untrusted text (names, paths, cells of a file), made safe for a terminal.

A terminal obeys escape sequences, so no message may contain one.
"""

from __future__ import annotations


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
