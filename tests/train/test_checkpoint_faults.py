"""Whatever happens at any file operation of a save, a valid newest checkpoint remains.

`nox -s reliability` records the counts in docs/reliability.md.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty_file_system import CrashError, Fault, FaultyFileSystem
from memory_file_system import MemoryFileSystem

from rumus.train import (
    Checkpoints,
    CheckpointWarning,
    FolderInUseError,
    LocalFileSystem,
)
from rumus.train.checkpoints.file_system import CREATE, FileSystem

Record = Callable[[str, object], None]
ERRORS = ("ENOSPC", "EIO", "EACCES", "EDQUOT", "EROFS", "EINTR")


FOLDER = Path("/run")


def state_of(step: int) -> dict[str, Any]:
    return {
        "model": {"weight": np.full((2, 3), step, np.float32), "bias": np.full(3, -step)},
        "optimizer": {"moment": np.full((2, 3), step / 7)},
        "trainer": {"step": step, "losses": [0.5, step / 3]},
    }


def is_of(state: dict[str, Any], step: int) -> bool:
    """Whether a loaded state belongs to a step, in all its parts."""
    expected = state_of(step)
    model, moment = expected["model"], expected["optimizer"]["moment"]
    return (
        state["trainer"] == expected["trainer"]
        and all(np.array_equal(state["model"][name], model[name]) for name in model)
        and np.array_equal(state["optimizer"]["moment"], moment)
    )


def fill(folder: Path, fs: FileSystem) -> None:
    """Leave three checkpoints, one of which the next save removes, and an interrupted save."""
    with Checkpoints(folder, keep_last=9, file_system=fs) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, state_of(step))
    fs.mkdir(folder / "step-00000009.tmp")
    fs.close(fs.open(folder / "step-00000009.tmp" / "state.json", CREATE))


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A real folder with three checkpoints."""
    fill(tmp_path / "template", LocalFileSystem())
    return tmp_path / "template"


@pytest.fixture(scope="module")
def disk() -> MemoryFileSystem:
    """The same in memory, in the folder /run."""
    fs = MemoryFileSystem()
    fill(FOLDER, fs)
    return fs


def saved(folder: Path, fs: FileSystem, step: int = 4) -> Path | None:
    """Save a step like a program that continues from the newest checkpoint."""
    checkpoints = Checkpoints(folder, keep_last=3, file_system=fs)
    try:
        return checkpoints.save(step, state_of(step))
    finally:
        checkpoints.close()  # so does the system for a process that has ended


def operations(disk: MemoryFileSystem, step: int = 4) -> list[str]:
    """Return the operations of an undisturbed save."""
    fs = FaultyFileSystem(disk.copy())
    assert saved(FOLDER, fs, step) is not None
    return fs.log


def check_remains(folder: Path, fs: FileSystem, steps: tuple[int, ...]) -> int:
    """Check that every visible checkpoint is valid, the newest is one of `steps`, and saving works.

    Return the step of the newest.
    """
    checkpoints = Checkpoints(folder, keep_last=3, on_error="raise", file_system=fs)
    for name in fs.names(folder):
        if name.startswith("step") and not name.endswith(".tmp"):
            checkpoints.verify(folder / name)
    newest = checkpoints.load()
    assert not newest.skipped
    assert newest.step in steps
    assert is_of(newest.state, newest.step)
    assert checkpoints.save(5, state_of(5)) is not None
    left = set(fs.names(folder))
    assert not [name for name in left if name.endswith(".tmp")]
    assert not [name for name in left if f"{name}.replaced" in left]
    assert checkpoints.load().step == 5
    checkpoints.close()
    return newest.step


def note(record_property: Record, row: str, newest: list[int]) -> None:
    """Record how many cases there were; each of them left a valid newest checkpoint."""
    new = newest.count(4) or None  # a replaced one looks like the new one
    record_property("reliability", json.dumps([row, len(newest), new]))


@pytest.mark.parametrize("fault", ["before", "after", "torn"])
@pytest.mark.parametrize("step", [4, 3])
def test_the_process_ends_at_any_operation(
    disk: MemoryFileSystem, fault: Fault, step: int, record_property: Record
) -> None:
    names = operations(disk, step)
    assert {"open", "write", "fsync", "mkdir", "sync_folder", "rename", "remove"} <= {*names}
    assert step == 4 or names.count("rename") >= 2
    newest = []
    for at in range(len(names)):
        fs = disk.copy()
        with pytest.raises(CrashError):
            saved(FOLDER, FaultyFileSystem(fs, at, fault), step)
        newest.append(check_remains(FOLDER, fs, (3, step)))
    assert newest == sorted(newest)
    when = "in the middle of" if fault == "torn" else fault
    what = "" if step == 4 else ", which replaces a checkpoint"
    note(record_property, f"the process ends {when} an operation of a save{what}", newest)


@pytest.mark.parametrize("name", ERRORS)
def test_any_operation_fails(disk: MemoryFileSystem, name: str, record_property: Record) -> None:
    newest = []
    for at in range(len(operations(disk))):
        real = disk.copy()
        fs = FaultyFileSystem(real, at, "error", getattr(errno, name))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            path = saved(FOLDER, fs)
        assert len(fs.log) > at
        assert all(issubclass(warning.category, CheckpointWarning) for warning in caught)
        assert path is not None or len(caught) == 1
        newest.append(check_remains(FOLDER, real, (3, 4) if path is None else (4,)))
    note(record_property, f"an operation of a save raises {name}", newest)


class FullDisk(LocalFileSystem):
    """A disk with room for ten bytes."""

    taken = 0

    def write(self, descriptor: int, data: memoryview) -> int:
        if self.taken >= 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.taken += 5
        return super().write(descriptor, data[:5])


def test_a_full_disk_leaves_nothing_and_training_continues(template: Path) -> None:
    shutil.rmtree(template / "step-00000009.tmp")
    before = sorted(os.listdir(template))
    checkpoints = Checkpoints(template, file_system=FullDisk())
    with pytest.warns(CheckpointWarning, match=r"step 4 was not saved: .*No space left"):
        assert checkpoints.save(4, state_of(4)) is None
    checkpoints.close()
    checkpoints = Checkpoints(template, file_system=FullDisk(), on_error="raise")
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(4, state_of(4))
    assert sorted(os.listdir(template)) == before
    assert checkpoints.load().step == 3
    checkpoints.close()


def test_a_write_in_small_parts_is_whole(template: Path) -> None:
    class Slow(LocalFileSystem):
        def write(self, descriptor: int, data: memoryview) -> int:
            return super().write(descriptor, data[:7])

        def read(self, descriptor: int, into: memoryview) -> int:
            return super().read(descriptor, into[:7])

    checkpoints = Checkpoints(template, file_system=Slow())
    assert checkpoints.save(4, state_of(4)) is not None
    assert is_of(checkpoints.load().state, 4)


def test_too_little_room_is_noticed_before_anything_is_written(template: Path) -> None:
    class NearlyFull(LocalFileSystem):
        def free(self, folder: Path) -> int:
            return 300

    fs = NearlyFull()
    checkpoints = Checkpoints(template, file_system=fs)
    with pytest.warns(CheckpointWarning, match=r"\d+ bytes to save, but only 300 are free"):
        assert checkpoints.save(4, state_of(4)) is None
    assert checkpoints.save(4, {"trainer": {"step": 4}}) is not None


def test_an_asynchronous_failure_is_reported_by_the_next_call(template: Path) -> None:
    checkpoints = Checkpoints(template, file_system=FullDisk(), asynchronous=True)
    assert checkpoints.save(4, state_of(4)) is not None
    with pytest.warns(CheckpointWarning, match="step 4 was not saved"):
        assert checkpoints.latest == 3
    assert checkpoints.latest == 3
    checkpoints.close()
    raising = Checkpoints(template, file_system=FullDisk(), asynchronous=True, on_error="raise")
    raising.save(4, state_of(4))
    with pytest.raises(OSError, match="No space left"), raising:
        pass


def test_an_asynchronous_failure_is_reported_at_the_end_of_the_program(tmp_path: Path) -> None:
    run = program(
        tmp_path,
        "class Bad(LocalFileSystem):\n"
        "    def fsync(self, descriptor):\n"
        "        raise OSError(5, 'the disk is bad')\n"
        "checkpoints = Checkpoints('.', file_system=Bad(), asynchronous=True)\n"
        "checkpoints.save(1, {'trainer': 1})\n",
    )
    _, errors = run.communicate()
    assert run.returncode == 0
    assert (
        "CheckpointWarning: the checkpoint of step 1 was not saved: [Errno 5] the disk is bad"
        in errors
    )
    assert sorted(os.listdir(tmp_path)) == ["lock"]


def test_the_end_of_the_program_waits_for_the_save(tmp_path: Path) -> None:
    code = "Checkpoints('.', asynchronous=True).save(1, {'model': np.ones(10**6)})"
    _, errors = program(tmp_path, code).communicate()
    assert errors == ""
    assert Checkpoints(tmp_path).load().state["model"].sum() == 10**6


def program(folder: Path, code: str) -> subprocess.Popen[str]:
    """Start a program in a folder; it can use this file's imports."""
    head = "import os, sys, time\nimport numpy as np\nfrom rumus.train import *\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + code],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.PIPE,
    )


def test_a_folder_that_cannot_be_written(template: Path) -> None:
    shutil.rmtree(template / "step-00000009.tmp")
    before = sorted(os.listdir(template))
    (template / "lock").unlink()
    template.chmod(0o555)
    code = (
        "os.geteuid() or os.setuid(65534)\n"  # the superuser could write
        "checkpoints = Checkpoints('.')\n"
        "print(checkpoints.load().step, checkpoints.save(4, {'trainer': 4}))\n"
    )
    out, errors = program(template, code).communicate()
    template.chmod(0o755)
    assert out == "3 None\n"
    assert "step 4 was not saved: [Errno 13] Permission denied" in errors
    assert sorted([*os.listdir(template), "lock"]) == before


def test_two_trainers(template: Path) -> None:
    code = (
        "checkpoints = Checkpoints('.', keep_last=9)\n"
        "print(checkpoints.save(4, {'trainer': 4}), flush=True)\n"
        "pid = os.fork()\n"  # like a data loader's worker: it has the lock file open
        "(print(os.getpid(), flush=True), time.sleep(60)) if pid == 0 else sys.stdin.read()\n"
    )
    first = program(template, code)
    assert first.stdout is not None
    assert first.stdout.readline() == "step-00000004\n"
    worker = int(first.stdout.readline())
    second = Checkpoints(template)
    with pytest.raises(FolderInUseError, match=rf"process {first.pid} on .* is saving to"):
        second.save(5, state_of(5))
    assert second.load().step == 4  # reading needs no lock
    first.kill()
    first.wait()
    try:
        assert second.save(5, state_of(5)) is not None  # taken over, though the worker lives
    finally:
        os.kill(worker, 9)
        first.communicate()


def test_two_trainers_in_one_process(template: Path) -> None:
    with Checkpoints(template) as first:
        with pytest.raises(FolderInUseError, match=f"process {os.getpid()} "):
            Checkpoints(template).acquire()
        first.acquire()
    Checkpoints(template).acquire()


def test_file_systems_without_locks(template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_lock(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr("fcntl.flock", no_lock)
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    checkpoints = Checkpoints(template)
    checkpoints.acquire()
    owner = json.loads((template / "lock").read_text())
    assert owner["pid"] == os.getpid()
    checkpoints.close()
    for pid, host in ((other.pid, owner["host"]), (1, owner["host"]), (other.pid, "elsewhere")):
        (template / "lock").write_text(json.dumps({"pid": pid, "host": host}))
        with pytest.raises(FolderInUseError, match=f"process {pid} on {host} .* remove"):
            checkpoints.acquire()
    other.communicate(b"\n")
    (template / "lock").write_text(json.dumps({"pid": other.pid, "host": owner["host"]}))
    assert checkpoints.save(4, state_of(4)) is not None


SUPPORT = str(Path(__file__).parents[1] / "support")
ENDING = """
import importlib.util, shutil, sys
from pathlib import Path
sys.path.append({support!r})
spec = importlib.util.spec_from_file_location("faults", {file!r})
faults = importlib.util.module_from_spec(spec)
spec.loader.exec_module(faults)
for at in range(0, {count}, 4):
    folder = Path(shutil.copytree("template", str(at)))
    if os.fork() == 0:
        try:
            fault = ("before", "after", "torn")[at // 4 % 3]
            faults.saved(folder, faults.FaultyFileSystem(LocalFileSystem(), at, fault))
        except faults.CrashError:
            os._exit(9)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_real_processes_that_end(
    disk: MemoryFileSystem, template: Path, tmp_path: Path, record_property: Record
) -> None:
    count = len(operations(disk))
    out, errors = program(
        tmp_path, ENDING.format(file=__file__, support=SUPPORT, count=count)
    ).communicate()
    assert errors == ""
    assert out.split() == ["9"] * len(range(0, count, 4))
    real = LocalFileSystem()
    newest = [check_remains(tmp_path / str(at), real, (3, 4)) for at in range(0, count, 4)]
    note(record_property, "a real process on a real disk ends at an operation", newest)
