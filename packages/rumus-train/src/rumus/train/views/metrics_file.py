"""metrics.jsonl: the measurements of a run, one JSON object per line, in the order of steps."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rumus.train.base.append_file import AppendFile
from rumus.train.base.regular_file import require_regular_file
from rumus.train.base.strict_json import parse, render
from rumus.train.views.metrics_line import is_sound

VERSION = 1
_LONGEST = 1 << 20  # bytes; a longer line counts as damaged


def read_metrics(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a metrics.jsonl; torn or damaged lines are skipped.

    A line is damaged if it is not JSON, or if a known field has the wrong type.
    Numbers that JSON lacks are the texts "nan", "inf" and "-inf", which `float` reads.

    path: the file.

    Raises OSError for anything but a regular file.
    """
    require_regular_file(Path(path))
    with open(path, "rb") as file:
        is_rest = False  # of a line that is too long
        while line := file.readline(_LONGEST):
            is_whole, is_rest = not is_rest, not line.endswith(b"\n")
            if is_rest or not is_whole:
                continue
            try:
                found = parse(line)
            except ValueError:
                continue
            if is_sound(found):
                yield found


def open_metrics(path: Path, keep: Callable[[Mapping[str, Any]], bool]) -> AppendFile:
    """Open a metrics.jsonl, new or with the lines selected by `keep`; raises OSError.

    The lines are written to a temporary file that replaces it: a crash loses none.
    """
    if path.exists():
        beside = path.with_name(path.name + ".tmp")
        with open(beside, "wb") as file:
            file.writelines(render(line) + b"\n" for line in read_metrics(path) if keep(line))
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
