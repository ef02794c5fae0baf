"""Cells of a CSV file that are no plain numbers: booleans, dates, other decimal marks."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Final

from rumus.train.data.feature_encoding import MISSING

_TRUE: Final = frozenset(("true", "t", "yes", "y", "1"))
_FALSE: Final = frozenset(("false", "f", "no", "n", "0"))
_DAY: Final = 86_400
# What a cell is turned into before it is read as a number. ValueError for one that is no such cell.
Spelling = Callable[[str], str]


def as_truth(cell: str) -> str:
    """Return "1" or "0".

    >>> as_truth("TRUE"), as_truth("no")
    ('1', '0')
    """
    word = cell.strip().lower()
    if word in _TRUE:
        return "1"
    if word in _FALSE:
        return "0"
    if cell.strip() in MISSING:
        return cell
    raise ValueError(f"{cell!r} is no truth value")


def as_day(cell: str, written: str | None) -> str:
    """Return the days since 1970 as a number; a time of day is a part of a day, in UTC.

    written: as for `datetime.strptime`, None for ISO 8601.

    >>> as_day("1970-01-02", None), as_day("31.12.1969 12:00", "%d.%m.%Y %H:%M")
    ('1', '-0.5')
    """
    text = cell.strip()
    if text in MISSING:
        return cell
    if written is None:
        found = datetime.fromisoformat(text)
    else:
        found = datetime.strptime(text, written)  # it is UTC if nothing is said
    return repr_of_days(found)


def repr_of_days(found: datetime | date) -> str:
    """Return the days since 1970 of a time, as a number is written."""
    if not isinstance(found, datetime):
        found = datetime(found.year, found.month, found.day, tzinfo=UTC)
    there = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    since = there - datetime(1970, 1, 1, tzinfo=UTC)
    return f"{since.days + (since.seconds + since.microseconds / 1e6) / _DAY:.12g}"


@lru_cache(maxsize=64)
def spelling_of_numbers(decimal: str, thousands: str | None) -> Spelling | None:
    """Return what turns a number as it is written there into one with a point; None for points.

    ValueError for marks that are no single characters, or the same.

    >>> spelling_of_numbers(",", ".")("-1.234,5")
    '-1234.5'
    """
    marks = [decimal, *([] if thousands is None else [thousands])]
    if any(len(mark) != 1 or mark.isalnum() or mark in "+-" for mark in marks):
        raise ValueError(f"decimal and thousands must be single marks, not {marks}")
    if len(set(marks)) < len(marks):
        raise ValueError(f"decimal and thousands cannot both be {decimal!r}")
    if marks == ["."]:
        return None
    whole = r"\d*" if thousands is None else rf"(?:\d{{1,3}}(?:{re.escape(thousands)}\d{{3}})+|\d*)"
    number = re.compile(rf"\s*[+-]?{whole}(?:{re.escape(decimal)}\d*)?(?:[eE][+-]?\d+)?\s*")

    def spelt(cell: str) -> str:
        if number.fullmatch(cell) is None:
            if cell.strip() in MISSING or cell.strip().lstrip("+-").lower() == "inf":
                return cell
            raise ValueError(f"{cell!r} is no number with the decimal mark {decimal!r}")
        plain = cell if thousands is None else cell.replace(thousands, "")
        return plain.replace(decimal, ".")

    return spelt
