"""Gives every loader hundreds of damaged files: rows of docs/reliability.md.

PYTHONPATH=tests/support python tests/reliability/damaged_files.py
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Final

from hostile_files import Outcome, outcomes
from reliability_page import write_block

CASES: Final = 200  # per loader


def table(found: list[Outcome]) -> list[str]:
    """Return a row for each loader, and one for all together."""
    by_loader: dict[str, list[Outcome]] = defaultdict(list)
    for each in found:
        by_loader[each.loader].append(each)
    lines = [
        "| damaged files of | cases | read | documented error | other error | over a second |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, some in [*by_loader.items(), ("all", found)]:
        read = sum(each.error is None for each in some)
        other = sum(not each.is_documented for each in some)
        slow = sum(each.is_slow for each in some)
        refused = len(some) - read - other
        lines.append(f"| {name} | {len(some):,} | {read:,} | {refused:,} | {other} | {slow} |")
    return lines


def main() -> None:
    """Try everything, write the table; exit code 1 for undocumented errors or slow cases."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        found = list(outcomes(Path(folder), seed=2026, cases=CASES))
    write_block("hostile files", table(found))
    bad = [each for each in found if each.is_slow or not each.is_documented]
    for each in bad:
        print(each, file=sys.stderr)
    raise SystemExit(bool(bad))


if __name__ == "__main__":
    main()
