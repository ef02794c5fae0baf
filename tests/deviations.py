"""Makes the tables of docs/optimizers.md from what the tests measured.

    python tests/deviations.py report.xml ...

The reports are those of `pytest --junitxml`; `nox -s deviations` runs the tests and this.
"""

from __future__ import annotations

import datetime
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

PAGE: Final = Path(__file__).parents[1] / "docs" / "optimizers.md"
BEGIN, END = "<!-- deviations: begin -->", "<!-- deviations: end -->"
BACKENDS: Final = ("numpy", "numba", "gpu")
REFEREES: Final = ("float64", "PyTorch")


def recorded(reports: Iterable[str], name: str) -> Iterator[Any]:
    """Yield everything that tests recorded under a name."""
    for report in reports:
        for entry in ElementTree.parse(report).iter("property"):
            if entry.get("name") == name:
                yield json.loads(entry.get("value", ""))


def table(reports: list[str]) -> Iterator[str]:
    """Yield the lines of the table, one row per optimizer and its options."""
    deviations: dict[tuple[str, str], dict[tuple[str, str], float]] = defaultdict(dict)
    for kind, options, referee, backend, deviation in recorded(reports, "deviation"):
        deviations[kind, options][referee, backend] = deviation
    dispatches = dict(recorded(reports, "dispatches"))
    columns = [(referee, backend) for referee in REFEREES for backend in BACKENDS]
    heads = [f"{referee}: {backend}" for referee, backend in columns]
    yield f"| optimizer | options | {' | '.join(heads)} | dispatches |"
    yield "|---|---|" + "---:|" * (len(columns) + 1)
    for (kind, options), found in sorted(deviations.items(), key=lambda row: row[0][0].lower()):
        cells = [f"{found[column]:.1e}" if column in found else "" for column in columns]
        count = dispatches.get(kind, "")
        yield f"| {kind} | {options or 'defaults'} | {' | '.join(cells)} | {count} |"


def main() -> None:
    """Write the table between its markers in the page."""
    lines = [f"Made by `nox -s deviations` on {datetime.date.today()}.", "", *table(sys.argv[1:])]
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise SystemExit(f"{PAGE.name} has no {BEGIN} ... {END}")
    PAGE.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
