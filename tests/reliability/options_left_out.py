"""Leaves out each optional argument in turn, and compares: docs/reliability.md.

PYTHONPATH=tests/support python tests/reliability/options_left_out.py
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

from left_out import ASKED_FOR, FUNCTIONS, NAMED, Argument, optional, run
from reliability_page import write_block

TITLES: Final = {
    "fit": "Trainer.fit",
    "trainer": "Trainer",
    "loader": "DataLoader",
    "checkpoints": "Checkpoints",
    "stopping": "EarlyStopping",
}
OUTCOMES: Final = ("same result", "error that names it", "silent difference")


def outcome(left_out: Argument, whole: tuple[Any, ...]) -> str:
    """Return which of OUTCOMES it is; any other error is a difference."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = run(Path(folder), left_out)
        except Exception as error:
            told = NAMED.get(left_out)
            if told is not None and isinstance(error, ValueError) and re.search(told, str(error)):
                return OUTCOMES[1]
            print(left_out, repr(error), file=sys.stderr)
            return OUTCOMES[2]
    if found == whole:
        return OUTCOMES[0]
    print(left_out, "another result", file=sys.stderr)
    return OUTCOMES[2]


def main() -> None:
    """Try all, write the table; exit code 1 if one makes a difference that nothing says."""
    with tempfile.TemporaryDirectory() as folder:
        whole = run(Path(folder))
    lines = [
        f"| optional arguments of | left out | {' | '.join(OUTCOMES)} |",
        "|---|" + "---:|" * 4,
    ]
    total = Counter[str]()
    for where in FUNCTIONS:
        tried = sorted({(where, name) for name in optional(where)} - ASKED_FOR)
        found = Counter(outcome(each, whole) for each in tried)
        lines.append(_row(f"`{TITLES[where]}`", found))
        total += found
    write_block("options left out", [*lines, _row("all", total)])
    raise SystemExit(bool(total[OUTCOMES[2]]))


def _row(name: str, found: Counter[str]) -> str:
    return f"| {name} | {found.total()} | {' | '.join(str(found[each]) for each in OUTCOMES)} |"


if __name__ == "__main__":
    main()
