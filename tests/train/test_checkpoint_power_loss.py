"""The power fails at any moment of a save: any part of the unsynced data may be lost.

Only this test would notice a missing fsync. `nox -s reliability` tries all combinations of losses.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from memory_file_system import MemoryFileSystem

from rumus.train import CheckpointError, Checkpoints
from rumus.train.checkpoints.file_system import CREATE

Record = Callable[[str, object], None]
FOLDER: Final = Path("/run")
THOROUGH: Final = "RUMUS_THOROUGH" in os.environ


class WithoutFsync(MemoryFileSystem):
    """A file system for a program that forgets to sync its files."""

    def fsync(self, descriptor: int) -> None:
        pass


class WithoutFolderSync(MemoryFileSystem):
    """A file system for a program that forgets to sync its folders."""

    def sync_folder(self, folder: Path) -> None:
        pass


def state_of(step: int) -> dict[str, Any]:
    return {"model": {"weight": np.full(3, step)}, "trainer": {"step": step}}


def start(kind: type[MemoryFileSystem]) -> MemoryFileSystem:
    """Return a disk with checkpoints 1 to 3, and leftovers."""
    fs = kind()
    with Checkpoints(FOLDER, file_system=fs) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, state_of(step))
    fs.mkdir(FOLDER / "step-00000009.tmp")
    fs.open(FOLDER / "step-00000009.tmp" / "state.json", CREATE)
    return fs.copy()


def save(fs: MemoryFileSystem, loaded: int, step: int) -> int:
    """Resume up to the next save; return the number of changes when it had returned."""
    checkpoints = Checkpoints(FOLDER, keep_last=2, on_error="raise", file_system=fs)
    checkpoints.load(loaded)
    checkpoints.save(step, {**state_of(step), "loaded": loaded})
    checkpoints.close()
    return len(fs.changes)


def losses(unsynced: list[int]) -> Iterator[set[int]]:
    """Yield what may be lost together: in the tests none, all, all but one, one, or two changes."""
    if THOROUGH:
        for size in range(len(unsynced) + 1):
            yield from map(set, itertools.combinations(unsynced, size))
        return
    yield set(unsynced)
    for size in range(3):
        yield from map(set, itertools.combinations(unsynced, size))
    for kept in unsynced:
        yield set(unsynced) - {kept}


def disks(
    first: MemoryFileSystem, after: MemoryFileSystem
) -> Iterator[tuple[int, MemoryFileSystem]]:
    """Yield what the disk may hold after each number of changes."""
    for length in range(len(after.changes) + 1):
        for lost in losses(after.unsynced(length)):
            yield length, after.after_power_cut(first, length, lost)
            if any(after.changes[number].what == "write" for number in lost):
                yield length, after.after_power_cut(first, length, lost, torn=True)


def problem(fs: MemoryFileSystem, steps: tuple[int, ...]) -> str | None:
    """Return what is wrong with the checkpoints on a disk, if anything is."""
    checkpoints = Checkpoints(FOLDER, file_system=fs)
    try:
        for name in fs.names(FOLDER):
            if name.startswith("step") and not name.endswith(".tmp"):
                checkpoints.verify(FOLDER / name)
        newest = checkpoints.load()
    except CheckpointError as error:
        return str(error)
    if newest.step not in steps or newest.state["trainer"] != {"step": newest.step}:
        return f"the newest is {newest.step}"
    return None


@pytest.mark.parametrize(("loaded", "step"), [(3, 4), (3, 3), (1, 2)])
def test_the_power_fails(loaded: int, step: int, record_property: Record) -> None:
    first = start(MemoryFileSystem)
    after = first.copy()
    returned = save(after, loaded, step)
    cases = 0
    for length, disk in disks(first, after):
        cases += 1
        # Until the newer checkpoints are set aside, they are the newest.
        steps = (step,) if length == returned else (loaded, step, 2, 3)
        assert problem(disk, steps) is None
    assert cases > 300
    row = f"the power fails in a save of step {step} after a load of step {loaded}"
    record_property("reliability", json.dumps([row, cases, None]))


@pytest.mark.parametrize("kind", [WithoutFsync, WithoutFolderSync])
def test_a_missing_sync_is_found(kind: type[MemoryFileSystem]) -> None:
    first = start(kind)
    after = first.copy()
    save(after, 3, 4)
    assert any(problem(disk, (3, 4)) for _, disk in disks(first, after))
