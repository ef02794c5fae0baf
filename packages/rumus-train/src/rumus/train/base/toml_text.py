"""Tables as TOML: writing, which `tomllib` lacks, and reading with one kind of error."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

_NOT_ZERO: Final = re.compile(r"[^eE]*[1-9]")
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES: Final[Mapping[str, str]] = {
    "\\": "\\\\", '"': '\\"', "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r",
}  # fmt: skip


DEEPEST: Final = 100  # nested tables and lists
# A key of more parts, bare or in quotes, which tomllib reads in quadratic time: at the beginning of
# a line, or in a table within braces.
_PART: Final = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')"""
_TOO_DEEP: Final = re.compile(
    rf"(?:^[ \t\[]*|[{{,][ \t]*)(?:{_PART}[ \t]*\.[ \t]*){{{DEEPEST}}}", re.MULTILINE
)


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML; ValueError if it is invalid, nested too deeply or has a number of no float.

    >>> parse_toml("sizes = " + "[" * 3000 + "]" * 3000)
    Traceback (most recent call last):
    ...
    ValueError: it is nested too deeply
    """
    import tomllib

    if _TOO_DEEP.search(text):
        raise ValueError("it is nested too deeply")
    try:
        table = tomllib.loads(text, parse_float=_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level: list[Any] = [table]
    for _ in range(DEEPEST):
        inner = [each.values() if isinstance(each, dict) else each for each in level]
        level = [each for values in inner for each in values if isinstance(each, (dict, list))]
        if not level:
            return table
    raise ValueError("it is nested too deeply")


def _number(text: str) -> float:
    """A float; ValueError if it is infinite, or 0, but not written so."""
    found = float(text)
    if (math.isinf(found) and text[-1].isdecimal()) or (not found and _NOT_ZERO.match(text)):
        raise ValueError(f"no float holds {text}")
    return found


def to_toml(table: Mapping[str, Any]) -> str:
    """Return a table as TOML that `tomllib.loads` restores, with all digits of floats.

    Values: bool, int, float, str, lists of these and tables. TypeError for others, including None,
        which TOML lacks. ValueError for invalid Unicode, and for a table nested too deeply.

    >>> print(to_toml({"epochs": 5, "optim": {"lr": 3e-4, "betas": [0.9, 0.999]}}), end="")
    epochs = 5
    <BLANKLINE>
    [optim]
    lr = 0.0003
    betas = [0.9, 0.999]
    """
    try:
        return "".join(_lines(table, ())).lstrip("\n")
    except RecursionError:
        raise ValueError("the table contains itself, or is nested too deeply") from None


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """Yield a table's values first: everything after a heading belongs to it."""
    for name, value in table.items():
        if not isinstance(value, Mapping):
            yield f"{_key(name)} = {toml_value(value, '.'.join((*path, name)))}\n"
    for name, value in table.items():
        if isinstance(value, Mapping):
            inner = (*path, name)
            yield f"\n[{'.'.join(map(_key, inner))}]\n"
            yield from _lines(value, inner)


def toml_value(value: Any, name: str = "the value") -> str:
    """Return one value as TOML; TypeError, with its name, for types that TOML lacks.

    >>> toml_value([1e-5, float("inf"), True, 'say "yes"'])
    '[1e-05, inf, true, "say \\\\"yes\\\\""]'
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return repr(int(value))  # also of an IntEnum
    if isinstance(value, float):
        return repr(float(value))  # also of a NumPy number
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(toml_value(item, name) for item in value)}]"
    if isinstance(value, Mapping):
        pairs = (f"{_key(k)} = {toml_value(v, f'{name}.{k}')}" for k, v in value.items())
        return f"{{{', '.join(pairs)}}}"
    raise TypeError(f"{name}: TOML has no {type(value).__name__}: {value!r}")


def _key(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"the key {name!r} must be text")
    return name if _BARE.fullmatch(name) else _text(name)


def _text(text: str) -> str:
    text.encode()  # surrogates cannot be written
    return '"' + "".join(_ESCAPES.get(c) or _printable(c) for c in text) + '"'


def _printable(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x20 or code == 0x7F else character
