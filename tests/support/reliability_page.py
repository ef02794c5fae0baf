"""docs/reliability.md: each program of tests/reliability writes the rows between its markers."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).parents[2] / "docs" / "reliability.md"


def write_block(name: str, lines: Sequence[str]) -> None:
    """Replace the text between `<!-- name: begin -->` and `<!-- name: end -->`, and print it."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    if not after:
        raise SystemExit(f"{PAGE.name} has no {begin} ... {end}")
    made = f"Made by `nox -s reliability` on {datetime.date.today()}."
    text = "\n".join([made, "", *lines])
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
    print(text)
