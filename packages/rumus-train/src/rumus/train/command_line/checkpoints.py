"""`rumus ckpt`: what checkpoints there are, whether they are whole, and removing some."""

from __future__ import annotations

from argparse import Namespace
from datetime import datetime
from pathlib import Path

from rumus.train.base.printable import say
from rumus.train.checkpoints.checkpoint_errors import InvalidCheckpointError
from rumus.train.checkpoints.checkpoints import Checkpoints, SavedCheckpoint
from rumus.train.command_line.exit_codes import ExitCode, UsageError
from rumus.train.command_line.run_folders import checkpoints_of


def ls(arguments: Namespace) -> int:
    """Do `rumus ckpt ls`: a line for each, the oldest first."""
    checkpoints = checkpoints_of(arguments.folder)
    found = checkpoints.list()
    if not found:
        say(f"no checkpoints in {checkpoints.folder}")
    for saved in found:
        say(_line(saved))
    return ExitCode.OK


def verify(arguments: Namespace) -> int:
    """Do `rumus ckpt verify`: read every byte; NO_CHECKPOINT if one is damaged, or there is none.

    UsageError for a step that there is not.
    """
    checkpoints = checkpoints_of(arguments.folder)
    chosen = _chosen(checkpoints, arguments.steps)
    is_good = bool(chosen)
    for saved in chosen:
        try:
            checkpoints.verify(saved.path)
        except InvalidCheckpointError as error:
            is_good = False
            say(f"step {saved.step}: damaged: {error}")
        else:
            say(f"step {saved.step}: good, {size(saved.size)}")
    if not chosen:
        say(f"no checkpoints in {checkpoints.folder}")
    return ExitCode.OK if is_good else ExitCode.NO_CHECKPOINT


def rm(arguments: Namespace) -> int:
    """Do `rumus ckpt rm`; UsageError for a step that there is not, before any is removed."""
    checkpoints = checkpoints_of(arguments.folder)
    chosen = _chosen(checkpoints, arguments.steps)
    with checkpoints:
        for saved in chosen:
            checkpoints.remove(saved.step)
            say(f"step {saved.step}: removed")
    return ExitCode.OK


def _chosen(checkpoints: Checkpoints, steps: list[int]) -> list[SavedCheckpoint]:
    found = {saved.step: saved for saved in checkpoints.list()}
    if unknown := [step for step in steps if step not in found]:
        there = ", ".join(map(str, found)) or "none"
        raise UsageError(
            f"{checkpoints.folder} has no checkpoint of step {unknown[0]}; it has {there}"
        )
    return [found[step] for step in dict.fromkeys(steps or found)]


def _line(saved: SavedCheckpoint) -> str:
    when = f"{datetime.fromtimestamp(_time(saved.path)):%Y-%m-%d %H:%M:%S}"
    if saved.problem is not None:
        return f"step {saved.step:>9}  {when}  damaged: {saved.problem}"
    metric = "" if saved.metric is None else f"  metric {saved.metric:.6g}"
    return f"step {saved.step:>9}  {when}  {size(saved.size):>9}{metric}"


def _time(path: Path) -> float:
    return path.stat().st_mtime


def size(count: float) -> str:
    """Return a number of bytes as a person reads it.

    >>> size(999), size(1_234_567)
    ('999 B', '1.2 MB')
    """
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 1000:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} TB"
