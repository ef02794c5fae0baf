"""Programs that mypy must accept, and programs that it must refuse with the stated message.

A refused program has, above each line that mypy must refuse, a comment `# error: message  [code]`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
ACCEPTED = sorted((HERE / "accepted").glob("*.py"))
REFUSED = sorted((HERE / "refused").glob("*.py"))
REPORT = re.compile(r"^(?P<path>[^:]+):(?P<line>\d+): error: (?P<message>.*)$", re.MULTILINE)

Errors = dict[int, list[str]]


def expected(program: str) -> Errors:
    """Return a program's expected messages by the line that they are stated above."""
    found: Errors = {}
    stated: list[str] = []
    for number, line in enumerate(program.splitlines(), start=1):
        if comment := re.match(r"\s*# error: (.*)", line):
            stated.append(comment[1])
        elif stated:
            found[number], stated = stated, []
    assert not stated, "an expected message must stand above a line"
    return found


@lru_cache(maxsize=1)
def reported() -> dict[Path, Errors]:
    """Return mypy's messages for all programs, in one run with the project's settings."""
    options = ["--no-error-summary", "--no-pretty", "--show-error-codes"]
    command = [sys.executable, "-m", "mypy", *options, *map(str, ACCEPTED + REFUSED)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1, run.stdout + run.stderr  # 0: no errors; 2: mypy failed
    found: dict[Path, Errors] = {}
    for report in REPORT.finditer(run.stdout):
        lines = found.setdefault((ROOT / report["path"]).resolve(), {})
        lines.setdefault(int(report["line"]), []).append(report["message"])
    return found


def test_every_error_is_in_a_program() -> None:
    assert set(reported()) <= set(ACCEPTED + REFUSED)


@pytest.mark.parametrize("program", ACCEPTED, ids=lambda path: path.stem)
def test_accepted(program: Path) -> None:
    assert reported().get(program, {}) == {}


@pytest.mark.parametrize("program", REFUSED, ids=lambda path: path.stem)
def test_refused(program: Path) -> None:
    messages = expected(program.read_text())
    assert messages, "a refused program states the message it is refused with"
    assert reported().get(program, {}) == messages
