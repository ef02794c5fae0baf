"""Cells of a CSV file other than plain numbers: booleans, dates, other decimal marks."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from functools import lru_cache
from typing import Final

from rumus.train.base.printable import printable
from rumus.train.tables.feature_encoding import MISSING

_TRUE: Final = frozenset(("true", "t", "yes", "y", "1"))
_FALSE: Final = frozenset(("false", "f", "no", "n", "0"))
_DAY: Final = 86_400
_TIGHT: Final = re.compile("%[YmdHMSyj]%[YmdHMSyj]")
_SHORT_YEAR: Final = re.compile(r"[0-9]{1,2}[-/.][0-9]{1,2}[-/.][0-9]{2}(?![0-9])")
_CENTURY: Final = re.compile("([0-9]{2})%y")
# Converts a cell before it is read as a number. Raises ValueError if it cannot.
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
    raise ValueError(f"{cell!r} is not a boolean")


class MixedZones(ValueError):
    """A time with a zone in a column of times without one, or the reverse."""


class IsoText(str):
    """A date of a program, written by itself and not in the format of its column."""

    __slots__ = ()


class Written(str):
    """A text of a program, with the marks of the file's numbers, unlike a number of a program."""

    __slots__ = ()


class Days:
    """Turns the dates of one column into days since 1970, with the time of day as a fraction.

    Times with a zone are converted to UTC; those without are taken for UTC, which is right for a
    column of them: hours apart, they must not stand beside those with a zone.

    written: a format of `datetime.strptime`, None for ISO 8601. Digits before %y, as in 19%y, are
        the century of all years, which are of two digits in the file.

    >>> Days(None)("1970-01-02"), Days("%d.%m.%Y %H:%M")("31.12.1969 12:00")
    ('1', '-0.5')
    """

    def __init__(self, written: str | None) -> None:
        self.written = written
        century = _CENTURY.search(written or "")
        self._century = None if century is None else 100 * int(century[1])
        self._format = _CENTURY.sub("%y", written or "")
        # Without marks between them, 2020111 may be the 11th of January, or the 1st of November.
        self._is_tight = _TIGHT.search(self._format) is not None
        self.has_zone: bool | None = None  # what the first time of day has

    def __call__(self, cell: str) -> str:
        """Return the days of a cell as text; what is missing stays as it is."""
        text = cell.strip()
        if text in MISSING:
            return cell
        if self.written is None or isinstance(cell, IsoText):
            found = datetime.fromisoformat(text)
        else:
            found = datetime.strptime(text, self._format)
            if self._is_tight and found.strftime(self._format) != text:
                raise ValueError(f"{text!r} has a part of too few digits")
            if self._century is not None:
                found = found.replace(year=self._century + found.year % 100)
        has_zone = found.tzinfo is not None
        if has_zone or ":" in text or found.time() != time():  # a day alone has no zone
            if self.has_zone not in (None, has_zone):
                raise MixedZones(cell)
            self.has_zone = has_zone
        return repr_of_days(found)

    def advice(self, name: str, cell: str) -> str:
        """Return what to do about a cell of this column that is no date."""
        if self.written is not None:
            return f"its format in dates= is {printable(repr(self.written))}"
        if cell.strip().isdecimal() and len(cell.strip()) not in (6, 8):
            return "leave it out of dates=[...] to read a number, such as one of days or seconds"
        if cell.strip().isdecimal():
            example = "%Y%m%d" if len(cell.strip()) == 8 else "19%y%m%d"
        else:
            example = "%d.%m.19%y" if _SHORT_YEAR.match(cell.strip()) else "%d.%m.%Y"
        return f"dates={{{printable(repr(name))}: '{example}'}}, or its format, reads it as one"


def repr_of_days(found: datetime | date) -> str:
    """Return the days since 1970 of a time, as text."""
    if not isinstance(found, datetime):
        found = datetime(found.year, found.month, found.day, tzinfo=UTC)
    there = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    since = there - datetime(1970, 1, 1, tzinfo=UTC)
    return f"{since.days + (since.seconds + since.microseconds / 1e6) / _DAY:.17g}"


@lru_cache(maxsize=64)
def spelling_of_numbers(decimal: str, thousands: str | None) -> Spelling | None:
    """Return a function that rewrites a number with a decimal point, or None if it has one already.

    Raises ValueError for marks that are equal or not single characters.

    >>> spelling_of_numbers(",", ".")("-1.234,5")
    '-1234.5'
    """
    marks = [decimal, *([] if thousands is None else [thousands])]
    if any(len(mark) != 1 or mark.isalnum() or mark in "+-" for mark in marks):
        raise ValueError(f"decimal and thousands must be single characters, not {marks}")
    if len(set(marks)) < len(marks):
        raise ValueError(f"decimal and thousands cannot both be {decimal!r}")
    if marks == ["."]:
        return None
    whole = r"\d*" if thousands is None else rf"(?:\d{{1,3}}(?:{re.escape(thousands)}\d{{3}})+|\d*)"
    number = re.compile(rf"[+-]?{whole}(?:{re.escape(decimal)}\d*)?(?:[eE][+-]?\d+)?")

    def spelled(cell: str) -> str:
        text = cell.strip()  # and no spaces in the pattern, which would try each of them in turn
        if number.fullmatch(text) is None:
            if text in MISSING or text.lstrip("+-").lower() == "inf":
                return cell
            raise ValueError(f"{cell!r} is not a number with the decimal mark {decimal!r}")
        plain = text if thousands is None else text.replace(thousands, "")
        return plain.replace(decimal, ".")

    return spelled
