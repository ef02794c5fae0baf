"""Raises from signal handlers inside operations, and counts the torn: docs/reliability.md.

PYTHONPATH=tests/support python tests/reliability/interrupts.py
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Final

from backends import BACKENDS, backend
from interrupted import CASES, Attempt, Prepared, attempts
from interrupted_steps import OPTIMIZERS, pass_of, step_of
from interrupted_training import DISPLACED, loading, saving, saving_in_a_thread
from reliability_page import write_block

from rumus.tensor import Backend

LINES: Final = 150  # per operation
LINES_EACH: Final = 50  # per backend, of operations that run on each

ON_FOLDERS: Final[dict[str, Callable[[Path], Prepared]]] = {
    "saving a checkpoint": saving,
    "saving a checkpoint in a thread": saving_in_a_thread,
    "loading a checkpoint": loading,
}
ON_BACKENDS: Final[dict[str, Callable[[Backend], Prepared]]] = {
    "an update and a pass": pass_of,
    **{f"train_step of {name}": partial(step_of, make) for name, make in OPTIMIZERS.items()},
}


def found(name: str, on: str, folder: Path) -> list[Attempt]:
    """Return what becomes of an operation, with a signal at each of some of its lines.

    on: the backend, for what runs on each of them.
    folder: of those that save.
    """
    if name in ON_BACKENDS:
        place = backend(on)
        if place is None:
            return []
        return list(attempts(partial(ON_BACKENDS[name], place), LINES_EACH, f"{name} {on}"))
    if name in ON_FOLDERS:
        return list(attempts(partial(ON_FOLDERS[name], folder), LINES, name))
    return list(attempts({**CASES, **DISPLACED}[name], LINES, name))


def main() -> None:
    """Try everything, write the table; exit code 1 if a signal was lost or tore an operation."""
    lines = ["| interrupted at a line of | signals | torn | lost |", "|---|---:|---:|---:|"]
    total, torn, lost = 0, 0, 0
    others = [*CASES, *DISPLACED, *ON_FOLDERS]
    tried = [*product(ON_BACKENDS, BACKENDS), *((name, "") for name in others)]
    context = multiprocessing.get_context("fork")  # before one of them opens the GPU
    with tempfile.TemporaryDirectory() as home, ProcessPoolExecutor(mp_context=context) as pool:
        done = pool.map(partial(found, folder=Path(home)), *zip(*tried, strict=True))
        by_case = dict(zip(tried, done, strict=True))
    for name in (*others, *ON_BACKENDS):
        some = [each for (case, _), among in by_case.items() if case == name for each in among]
        torn_here = sum(each.is_torn for each in some)
        lost_here = sum(each.is_lost for each in some)
        lines.append(f"| {name} | {len(some):,} | {torn_here} | {lost_here} |")
        total, torn, lost = total + len(some), torn + torn_here, lost + lost_here
    for case, among in by_case.items():
        if bad := [each for each in among if each.is_torn or each.is_lost]:
            print(case, bad, file=sys.stderr)
    lines.append(f"| all | {total:,} | {torn} | {lost} |")
    write_block("interrupts", lines)
    raise SystemExit(bool(torn + lost))


if __name__ == "__main__":
    main()
