"""metrics.jsonl: the measurements of a run, one JSON object per line, in the order of steps."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rumus.tensor.expression.arguments import checked_first
from rumus.tensor.expression.user_warning import warn_user
from rumus.train.base.append_file import AppendFile, RunFolderWarning
from rumus.train.base.regular_file import require_regular_file
from rumus.train.base.strict_json import parse, render
from rumus.train.views.metrics_line import is_sound

VERSION = 1
_LONGEST = 1 << 20  # bytes; a longer line counts as damaged
_LISTED = 10  # damaged lines whose numbers are told


@checked_first
def read_metrics(path: str | Path) -> Iterator[dict[str, Any]]:
    """Iterate over a metrics.jsonl; damaged lines are skipped, with one RunFolderWarning.

    A line is damaged if it is not JSON, or if a known field has the wrong type. The warning, at the
    end, has the numbers of these lines. The end of a line that is still being written, or was when
    its program crashed, is no line.
    Numbers that JSON lacks are the texts "nan", "inf" and "-inf", which `float` reads.

    path: the file.

    Raises OSError for anything but a regular file.
    """
    require_regular_file(Path(path))
    return _lines(Path(path))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    damaged: list[int] = []
    count = last = 0
    is_torn = False
    for number, piece, found in _pieces(path):
        is_torn = not piece.endswith(b"\n")
        if found is not None:
            yield found
        elif piece.strip() and number != last:
            count, last = count + 1, number
            damaged = [*damaged[: _LISTED - 1], number] if count <= _LISTED else damaged
    if is_torn and last == number:
        count, damaged = count - 1, [each for each in damaged if each != last]
    if count:
        numbers = ", ".join(map(str, damaged)) + (", ..." if count > len(damaged) else "")
        lines = "1 line is" if count == 1 else f"{count} lines are"
        warn_user(f"{path}: {lines} damaged and skipped: {numbers}", RunFolderWarning)


def _pieces(path: Path) -> Iterator[tuple[int, bytes, dict[str, Any] | None]]:
    """Yield the number of each line, its bytes, and what it says; None if it is damaged.

    A line that is too long comes in several pieces, and the last one may lack its end.
    """
    require_regular_file(path)
    number, is_rest = 0, False
    with open(path, "rb") as file:
        while piece := file.readline(_LONGEST):
            number += not is_rest
            is_whole = not is_rest and piece.endswith(b"\n")
            is_rest = not piece.endswith(b"\n")
            yield number, piece, _said(piece) if is_whole else None


def _said(line: bytes) -> dict[str, Any] | None:
    if not line.strip():
        return None
    try:
        found = parse(line)
    except ValueError:
        return None
    return found if is_sound(found) else None


def open_metrics(path: Path, keep: Callable[[Mapping[str, Any]], bool]) -> AppendFile:
    """Open a metrics.jsonl, new or with the lines selected by `keep`; raises OSError.

    Damaged lines stay if `keep` says so of a line without fields; a torn end never does. The lines
    are written to a temporary file that replaces it: a crash loses none.
    """
    if path.exists():
        beside = path.with_name(path.name + ".tmp")
        beside.unlink(missing_ok=True)  # whatever it is: a pipe would wait for a reader
        with open(beside, "wb") as file:
            number, start, piece = 0, 0, b"\n"
            for line, piece, found in _pieces(path):
                if line != number:
                    number, start = line, file.tell()
                if keep({} if found is None else found):
                    file.write(piece)
            if not piece.endswith(b"\n"):
                file.truncate(start)
        os.replace(beside, path)
    return AppendFile(path)


def append_metrics(file: AppendFile, lines: Iterable[Mapping[str, Any]]) -> bool:
    """Append lines, all or none; return whether they were written."""
    return file.append(b"".join(render({"v": VERSION, **_plain(line)}) + b"\n" for line in lines))


def _plain(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line for JSON: non-finite numbers as text, and no None."""
    found: dict[str, Any] = {}
    for name, value in line.items():
        if isinstance(value, Mapping):
            found[name] = _plain(value)
        elif isinstance(value, float) and not math.isfinite(value):
            found[name] = str(float(value))
        elif value is not None:
            found[name] = value
    return found
