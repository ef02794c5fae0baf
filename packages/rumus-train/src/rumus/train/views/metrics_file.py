"""metrics.jsonl: what a run has measured, one JSON object a line, in the order of its steps."""

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
_LONGEST = 1 << 20  # bytes of a line that is read: what is longer is damaged


def read_metrics(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a metrics.jsonl; a torn or damaged line is left out.

    A line is damaged if it is not JSON, or if a known field of it is not what is written there.
    Numbers that JSON does not have are the texts "nan", "inf" and "-inf", which `float` reads.

    path: of the file.

    OSError for what is not a regular file.
    """
    require_regular_file(Path(path))
    with open(path, "rb") as file:
        while line := file.readline(_LONGEST):
            if not line.endswith(b"\n"):
                continue
            try:
                found = parse(line)
            except ValueError:
                continue
            if is_sound(found):
                yield found


def open_metrics(path: Path, keep: Callable[[Mapping[str, Any]], bool]) -> AppendFile:
    """Open a metrics.jsonl, new or with those of its lines that `keep` says; OSError if it cannot.

    The lines are written beside the file, which is then replaced: no crash loses any.
    """
    if path.exists():
        beside = path.with_name(path.name + ".tmp")
        with open(beside, "wb") as file:
            file.writelines(render(line) + b"\n" for line in read_metrics(path) if keep(line))
        os.replace(beside, path)
    return AppendFile(path)


def append_metrics(file: AppendFile, lines: Iterable[Mapping[str, Any]]) -> bool:
    """Append lines, together or not at all; return whether they were written."""
    return file.append(b"".join(render({"v": VERSION, **_plain(line)}) + b"\n" for line in lines))


def _plain(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line as JSON has it: numbers that are not finite as text, and no None."""
    found: dict[str, Any] = {}
    for name, value in line.items():
        if isinstance(value, Mapping):
            found[name] = _plain(value)
        elif isinstance(value, float) and not math.isfinite(value):
            found[name] = str(float(value))
        elif value is not None:
            found[name] = value
    return found
