"""A CSV file as lines of cells, with its column names and errors of malformed lines."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Final, TextIO, TypeAlias

from rumus.tensor.expression.declared_type import shown
from rumus.tensor.expression.nearest_name import nearest_name
from rumus.tensor.expression.user_warning import warn_user
from rumus.train.base.class_names import ordered_names
from rumus.train.base.file_kind import kind_of_file, kind_of_text
from rumus.train.base.printable import printable
from rumus.train.base.regular_file import require_regular_file
from rumus.train.tables.csv_number import DELIMITERS, is_number

_LONGEST: Final = 256  # bytes of a text of another kind that are looked at
_OF_EXCEL: Final = re.compile(r"(?i:sep)=\W")  # its second line has the names
_DIGITS: Final = re.compile(r"[0-9]+")
_COMMENT: Final = re.compile(r"\s*#(.*\s|#*$)")  # a name such as #chrom is none
Row: TypeAlias = tuple[int, list[str]]  # its last line's number, and its cells


class CsvTable(Iterator[Row]):
    """The non-blank lines of a CSV file; `names` are its column names.

    Raises OSError for anything but a regular file; ValueError, with file and line, for another
    encoding, unclosed quotes, a line with too many or too few cells, and an empty file.
    """

    def __init__(
        self, path: Path, header: Sequence[str] | None, delimiter: str, encoding: str
    ) -> None:
        require_regular_file(path)
        self.path = path
        self.shown = printable(path)
        self.names: list[str] = []
        self._is_named, self._is_first = header is not None, True
        self._delimiter = delimiter
        if len(delimiter) != 1:
            raise ValueError(
                f"delimiter must be one character, such as ',' or '\\t', not {shown(delimiter)}"
            )
        if delimiter in '"\r\n\0':
            raise ValueError(f"delimiter must not be {delimiter!r}, which has a meaning of its own")
        try:
            self._file = path.open(newline="", encoding=encoding)
        except (LookupError, ValueError) as error:
            raise ValueError(
                f"encoding must be that of a text, such as 'utf-8' or 'latin-1', not "
                f"{shown(encoding)}"
            ) from error
        try:
            self._check_kind()
            self._reader = csv.reader(self._text(), delimiter=delimiter, strict=True)
            if isinstance(header, str):
                raise TypeError(
                    f"header must be a list of names, not the text {header!r}; leave it out if the "
                    "first line has them"
                )
            self.names = self._header() if header is None else ordered_names("header", header)
        except BaseException:
            self.close()
            raise
        self._numbers = {name: i for i, name in enumerate(self.names)}
        self._twice = {name for name, count in Counter(self.names).items() if count > 1}

    def _text(self) -> TextIO:
        """The file behind its byte-order mark, which only some encodings skip."""
        try:
            if self._file.read(1) != "\ufeff":
                self._file.seek(0)
        except UnicodeError:
            self._file.seek(0)  # reading its lines says where
        return self._file

    def _check_kind(self) -> None:
        """Raise ValueError for a text of another kind, such as a web page."""
        with self.path.open("rb") as file:
            kind = kind_of_text(file.read(_LONGEST))
        if kind is not None:
            raise ValueError(f"{self.shown} is {kind}")

    def _header(self) -> list[str]:
        _, names = next(self, (0, []))
        if any("\0" in name for name in names):
            raise ValueError(
                f"{self.shown}: the first line has NUL characters; {_how_to_read(self.path)}"
            )
        if not names:
            raise ValueError(f"{self.shown} is empty; its first line must name the columns")
        if _OF_EXCEL.fullmatch(line := self._delimiter.join(names)):
            raise ValueError(
                f"{self.shown}: the first line, {printable(repr(line))}, is for spreadsheets: "
                f"remove it, and give delimiter={line[4]!r}"
            )
        return [name.strip() for name in names]

    def __next__(self) -> Row:
        try:
            row = next(self._reader)
            while not row or self._is_blank(row):
                row = next(self._reader)
        except UnicodeError as error:
            raise ValueError(
                f"{self.shown}:{self._reader.line_num}: {error}; {_how_to_read(self.path)}"
            ) from error
        except csv.Error as error:
            if "field limit" in str(error):
                raise ValueError(
                    f"{self.shown}:{self._reader.line_num}: {error}: a quote before it is not "
                    "closed, or if it is one long text, csv.field_size_limit(10**9) allows it"
                ) from error
            raise ValueError(
                f"{self.shown}:{self._reader.line_num}: {error}; quote cells that contain the "
                "delimiter or a quote, and write quotes inside them twice; set another delimiter "
                "with delimiter=..."
            ) from error
        wanted = len(self.names)
        if wanted and len(row) != wanted:
            hint = ""
            advice = about_comments(self.names[0], row[0]) or about_comment_line(row[0])
            if row[0].startswith(("<<<<<<< ", "=======", ">>>>>>> ")):
                hint = "; it marks a conflict of a merge: resolve it first"
            elif advice:
                hint = f"; {advice}"
            elif (delimiter := self._other_delimiter(row)) is not None:
                hint = f"; give delimiter={delimiter!r}?"
            elif advice := about_comment_line(self.names[0]):
                hint = f"; {advice}"
            elif len(row) == wanted + 1 and not row[-1]:
                hint = "; remove the delimiter at the end of each line, or add one to the first"
            elif len(row) == wanted + 1:
                hint = "; if a column of row names has no title, give header=['', ...]"
            raise ValueError(
                f"{self.shown}:{self._reader.line_num}: {len(row)} cells instead of {wanted}{hint}"
            )
        if self._is_first and self._is_named:
            self._check_first(row)
        self._is_first = False
        if wanted > 1 and row[0] == self.names[0] and not self._is_named:
            self._check_repeated(row)
        return self._reader.line_num, row

    def warn_of_open_end(self) -> None:
        """Warn if the last line has no end, unlike others, and its last cell may have been cut.

        Many programs end no last line: so the cell is compared with those above it, once more read.
        """
        if self._reader.line_num < 3:
            return
        with self.path.open("rb") as file:
            file.seek(-min(_LONGEST, self.path.stat().st_size), os.SEEK_END)
            last = file.read().replace(b"\0", b"").replace(b"\r", b"\n").rpartition(b"\n")[2]
        if not last.strip() or last.endswith(b'"'):  # a cell that was cut has no second quote
            return
        self._file.seek(0)
        rows = csv.reader(self._text(), delimiter=self._delimiter, strict=True)
        cells = [row[-1].strip() for row in rows if row and not self._is_blank(row)]
        if looks_cut(cells[-1], {*cells[not self._is_named : -1]}):
            warn_user(
                f"{self.shown}: the last line has no end, and its last cell, "
                f"{printable(repr(cells[-1]))}, is unlike those above it, as if the file was cut "
                "there: compare it with its source, or end the line if it is whole"
            )

    def _is_blank(self, row: Sequence[str]) -> bool:
        """Whether a line is of spaces only; in a table of one column, that is a cell."""
        return len(row) == 1 and len(self.names) != 1 and not row[0].strip()

    def _check_first(self, row: Sequence[str]) -> None:
        """Raise ValueError if the first line has the given names: it is no data.

        Names that are all numbers may be data as well.
        """
        names = [name.casefold() for name in self.names]
        is_same = [cell.strip().casefold() for cell in row] == names
        if is_same and not all(name.isdecimal() for name in names):
            raise ValueError(
                f"{self.shown}:{self._reader.line_num}: the line has the names that header= gives, "
                "for a file whose first line is data: leave header= out"
            )

    def _check_repeated(self, row: Sequence[str]) -> None:
        """Raise ValueError if a line repeats the names, as of files that were joined."""
        if [cell.strip() for cell in row] == self.names and not all(map(is_number, self.names)):
            raise ValueError(
                f"{self.shown}:{self._reader.line_num}: the line repeats the names of the columns, "
                "as of files that were joined: remove it, or replace the first line with "
                "header=[...] if all are data"
            )

    def features(self, targets: Sequence[str], left_out: Sequence[str]) -> list[str]:
        """The names of all columns except targets and those left out.

        Raises ValueError for a column without a name.
        """
        if "" in (named := self.names["" in left_out :]):
            number = len(self.names) - len(named) + named.index("") + 1
            raise ValueError(
                f"{self.shown}: column {number} has no name; give columns=[...], or header=[...]"
            )
        others = {*targets, *left_out}
        return [name for name in self.names if name not in others]

    def is_headed_by_numbers(self, names: Sequence[str]) -> bool:
        """Whether these of the names look like data: only numbers, and not those of the columns."""
        named = list(names[1:] if "" in names[:1] else names)
        counted = [[str(n) for n in range(first, first + len(named))] for first in (0, 1)]
        try:
            return bool(not self._is_named and [float(n) for n in named] and named not in counted)
        except ValueError:
            return False

    def index(self, name: str) -> int:
        """Return the index of a column.

        Raises ValueError unless it exists exactly once, suggesting the closest name.
        """
        if not isinstance(name, str):
            raise TypeError(f"a column name must be text, not {type(name).__name__} {name!r}")
        if name in self._twice:
            raise ValueError(
                f"{self.shown} has several columns named {printable(repr(name))}; remove the "
                "file's first line and give header=[...] with different names"
            )
        if name in self._numbers:
            return self._numbers[name]
        near = nearest_name(name, self.names)
        hint = about_comments(*self.names[:1]) or f"it has {self._told()}"
        hint = f"did you mean {printable(repr(near))}?" if near else hint
        raise ValueError(f"{self.shown} has no column {printable(repr(name))}; {hint}")

    def _other_delimiter(self, row: Sequence[str]) -> str | None:
        """The delimiter that gives a malformed line as many cells as there are names, if any."""
        named, line = (self._delimiter.join(each) for each in (self.names, row))
        for each in DELIMITERS:
            wanted = named.count(each) if named.count(each) else len(self.names) - 1
            is_one = each != " " or all(map(is_number, line.split(each)))  # texts have spaces, too
            if is_one and each != self._delimiter and line.count(each) == wanted > 0:
                return each
        return None

    def _told(self) -> str:
        """The names, with a hint at the delimiter if there is only one."""
        if len(self.names) == 1:
            for delimiter in DELIMITERS:
                if delimiter in self.names[0]:
                    return f"{printable(self.names[0])} only; give delimiter={delimiter!r}?"
        return printable(", ".join(self.names[:20]))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> CsvTable:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def looks_cut(cell: str, others: Set[str]) -> bool:
    """Whether a cell may be the beginning of one like the others of its column.

    It is shorter than each of them, ends in fewer digits than each, or has a form that none of them
    has and one begins with: a text, or a number but for how many digits it has.

    >>> looks_cut("4", {"25", "31"}), looks_cut("12.5", {"9.25", "14.75"})
    (True, True)
    >>> looks_cut("yell", {"red", "yellow"}), looks_cut("3", {"12", "7"})
    (True, False)
    """
    if not others:
        return False
    if len(cell) < min(map(len, others)) or _digits(cell) < min(map(_digits, others)):
        return True
    form, forms = _DIGITS.sub("0", cell), {_DIGITS.sub("0", other) for other in others}
    return form not in forms and any(each.startswith(form) for each in forms)


def _digits(cell: str) -> int:
    """How many digits are at its end."""
    return len(cell) - len(cell.rstrip("0123456789"))


def about_comments(*cells: str) -> str | None:
    """Return what to do about cells that look like comments; None if none of them does."""
    return next((_about_comment(cell) for cell in filter(_COMMENT.match, cells)), None)


def about_comment_line(first: str) -> str | None:
    """Return what to do about a line that may be a comment by its first cell, or None."""
    return _about_comment(first) if first.lstrip().startswith("#") else None


def _about_comment(cell: str) -> str:
    return f"if {printable(repr(cell))} is a comment, remove such lines: CSV files have none"


# How texts begin in an encoding that says so.
_BEGINNINGS: Final = {
    b"\xff\xfe\0\0": "give encoding='utf-32'",
    b"\0\0\xfe\xff": "give encoding='utf-32'",
    b"\xff\xfe": "give encoding='utf-16'",
    b"\xfe\xff": "give encoding='utf-16'",
}


def _how_to_read(path: Path) -> str:
    """What to do about a file that is not text in the given encoding."""
    if (kind := kind_of_file(path, "CsvDataset")) is not None:
        return f"it is {kind}"
    with path.open("rb") as file:
        start = file.read(4096)
    for beginning, advice in _BEGINNINGS.items():
        if start.startswith(beginning):
            return advice
    if b"\0" not in start:
        return "give encoding='latin-1', or the file's encoding"
    return f"give encoding='{_wide_encoding(start)}', or the file's encoding, if it is text"


def _wide_encoding(start: bytes) -> str:
    """The encoding without a byte-order mark that has zeros where the start of a file has them."""
    zeros = [start[place::4].count(0) for place in range(4)]
    order = "le" if zeros[1] + zeros[3] > zeros[0] + zeros[2] else "be"
    if max(zeros[0], zeros[3]) >= len(start) // 4 > 0 and zeros[1] + zeros[2] > len(start) // 4:
        return f"utf-32-{'le' if zeros[3] > zeros[0] else 'be'}"
    return f"utf-16-{order}"
