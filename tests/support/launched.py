"""Programs that tests launch on several ranks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

PROGRAMS = Path(__file__).parents[1] / "distributed" / "programs"


@dataclass(frozen=True)
class Launched:
    """The outcome of a program. found: a value for each line of JSON that it printed."""

    code: int
    out: str
    errors: str
    seconds: float

    @property
    def found(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines() if line.startswith("{")]


def launched(
    ranks: int,
    *arguments: str,
    program: str = "train.py",
    hosts: str = "",
    within: Sequence[str] = (),
    **env: str,
) -> Launched:
    """Run a program of tests/distributed/programs, or of another folder, until it ends.

    hosts: host names, separated by commas. within: a prefix for the command, such as `ip netns exec
    name`.
    """
    command = [*within, sys.executable, "-m", "rumus.distributed", "-n", str(ranks)]
    command += ["--hosts", hosts] if hosts else []
    start = perf_counter()
    run = subprocess.run(
        [*command, str(PROGRAMS / program), *arguments],
        env={**os.environ, "NUMBA_NUM_THREADS": "1", **env},
        capture_output=True,
        text=True,
        timeout=150,
    )
    return Launched(run.returncode, run.stdout, run.stderr, perf_counter() - start)
