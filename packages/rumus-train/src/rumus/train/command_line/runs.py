"""`rumus list` and `rumus compare`: tables of runs and their results."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rumus.tensor.expression.user_warning import warn_user
from rumus.train.base.append_file import RunFolderWarning
from rumus.train.base.printable import printable, say
from rumus.train.command_line.exit_codes import ExitCode, UsageError
from rumus.train.command_line.run_folders import existing_run
from rumus.train.loop.progress import short
from rumus.train.views.run_folder import METRICS, RunFolderError
from rumus.train.views.run_record import RunRecord, read_run


def list_runs(arguments: Namespace) -> int:
    """Run `rumus list`: one line for each run in a folder, at any depth."""
    folder = existing_run(arguments.folder)
    found = []
    for path in sorted(folder.rglob(METRICS)):
        try:
            found.append(read_run(path.parent))
        except RunFolderError as error:  # the others are there all the same
            warn_user(f"{path.parent} is left out: {error}", RunFolderWarning)
    if not found:
        raise UsageError(f"there is no run in {folder}")
    rows = [
        [str(run.path.relative_to(folder)), _state(run), f"{run.step:,}", _last(run), _best(run)]
        for run in found
    ]
    _print([["run", "state", "steps", "last loss", "best validation"], *rows])
    return ExitCode.OK


def compare(arguments: Namespace) -> int:
    """Run `rumus compare`: how runs differ in configuration and environment, and their results."""
    runs = [read_run(existing_run(folder)) for folder in arguments.folders]
    facts = [_facts(run) for run in runs]
    names = dict.fromkeys(name for each in facts for name in each)
    rows = [[name, *(each.get(name, "") for each in facts)] for name in names]
    differ = [row for row in rows if len(set(row[1:])) > 1]
    _print([["", *(run.name for run in runs)], *differ])
    if len(differ) < len(rows):
        print(f"{len(rows) - len(differ)} others are equal")
    return ExitCode.OK


def _facts(run: RunRecord) -> dict[str, str]:
    start = run.starts[-1] if run.starts else {}
    shown = [name for name in ("seed", "device", "optimizer") if name in start]
    about: dict[str, str] = {name: str(start[name]) for name in shown}
    return {
        **dict(_flat(run.config)),
        **about,
        "state": _state(run),
        "steps": f"{run.step:,}",
        "last loss": _last(run),
        "best validation": _best(run),
    }


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, str(value)


def _state(run: RunRecord) -> str:
    if run.ended is None:
        return "not ended"
    return f"done ({run.ended})" if run.is_done else run.ended


def _last(run: RunRecord) -> str:
    curve = run.values("train").get("loss")
    return "" if curve is None or curve.last is None else short(curve.last)


def _best(run: RunRecord) -> str:
    numbers = {n: v for n, v in run.best.items() if n != "step" and isinstance(v, (int, float))}
    return ", ".join(f"{name} {short(value)}" for name, value in numbers.items())


def _print(rows: Sequence[Sequence[str]]) -> None:
    """Print rows with aligned columns, and nothing in them that a terminal would obey."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        say(line.rstrip())
