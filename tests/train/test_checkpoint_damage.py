"""Damage to any byte or file of a checkpoint is detected, and the previous one is loaded.

`nox -s reliability` records the counts in docs/reliability.md.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty_file_system import FaultyFileSystem
from memory_file_system import MemoryFileSystem

from rumus.train import Checkpoints, InvalidCheckpointError, LocalFileSystem, NoCheckpointError

Record = Callable[[str, object], None]
FOLDER = Path("/run")
NEWEST = FOLDER / "step-00000002"
FILES = ("manifest.json", "model.safetensors", "optimizer.safetensors", "state.json")


def state_of(step: int) -> dict[str, Any]:
    return {
        "model": {"weight": np.full((2, 3), step, np.float32), "bias": np.full(3, step)},
        "optimizer": {"moment": np.full((2, 3), step, np.float32)},
        "trainer": {"step": step, "best": float("inf")},
    }


@pytest.fixture(scope="module")
def disk() -> MemoryFileSystem:
    """Two checkpoints in memory."""
    fs = MemoryFileSystem()
    with Checkpoints(FOLDER, file_system=fs) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, state_of(step), metric=0.5)
    return fs


def content(fs: MemoryFileSystem, path: Path) -> bytearray:
    """Return the bytes of a file, for modification."""
    node = 0
    for part in path.parts[1:]:
        folder = fs.nodes[node]
        assert isinstance(folder, dict)
        node = folder[part]
    found = fs.nodes[node]
    assert isinstance(found, bytearray)
    return found


def reason(fs: MemoryFileSystem) -> str:
    """Check that the older checkpoint is loaded; return what is wrong with the newest."""
    loaded = Checkpoints(FOLDER, file_system=fs).load()
    assert loaded.step == 1
    assert loaded.state["trainer"] == {"step": 1, "best": float("inf")}
    ((path, why),) = loaded.skipped
    assert path == NEWEST
    return why


def note(record_property: Record, row: str, cases: int) -> None:
    record_property("reliability", json.dumps([row, cases, None]))


def test_the_files_are_these(disk: MemoryFileSystem) -> None:
    assert sorted(disk.names(NEWEST)) == sorted(FILES)
    assert Checkpoints(FOLDER, file_system=disk).load().step == 2


def test_any_truncation(disk: MemoryFileSystem, record_property: Record) -> None:
    cases = 0
    for name in FILES:
        size = len(content(disk, NEWEST / name))
        for length in {0, 1, 7, 8, 9, size // 2, size - 1}:
            fs = disk.copy()
            del content(fs, NEWEST / name)[length:]
            assert name in reason(fs)
            cases += 1
        fs = disk.copy()
        content(fs, NEWEST / name).append(0)
        assert name in reason(fs)
    note(record_property, "a file cut off", cases)


def test_a_flipped_bit_in_any_byte(disk: MemoryFileSystem, record_property: Record) -> None:
    generator = np.random.default_rng(0)
    cases = 0
    fs = disk.copy()
    for name in FILES:
        data = content(fs, NEWEST / name)
        for position in range(len(data)):
            bit = 1 << int(generator.integers(8))
            data[position] ^= bit
            assert name in reason(fs)
            data[position] ^= bit
            cases += 1
    assert Checkpoints(FOLDER, file_system=fs).load().step == 2
    note(record_property, "a bit flipped, in every byte of every file", cases)


def test_random_damage(disk: MemoryFileSystem, record_property: Record) -> None:
    generator = np.random.default_rng(1)
    for _ in range(200):
        fs = disk.copy()
        data = content(fs, NEWEST / FILES[generator.integers(4)])
        start = int(generator.integers(len(data)))
        for position in range(start, min(start + int(generator.integers(1, 64)), len(data))):
            data[position] ^= int(generator.integers(1, 256))
        reason(fs)
    note(record_property, "bytes overwritten at random", 200)


def test_files_that_are_missing_swapped_or_foreign(
    disk: MemoryFileSystem, record_property: Record
) -> None:
    for name in FILES:
        fs = disk.copy()
        fs.remove(NEWEST / name)
        assert reason(fs) == f"{name} is missing"
    for first, second in itertools.combinations(FILES, 2):
        fs = disk.copy()
        one, other = content(fs, NEWEST / first), content(fs, NEWEST / second)
        one[:], other[:] = bytes(other), bytes(one)
        reason(fs)
    for name in FILES[1:]:  # of the other checkpoint
        fs = disk.copy()
        content(fs, NEWEST / name)[:] = content(fs, FOLDER / "step-00000001" / name)
        assert "sha256" in reason(fs)
    fs = disk.copy()
    fs.rename(NEWEST, FOLDER / "step-00000007")
    loaded = Checkpoints(FOLDER, file_system=fs).load()
    assert loaded.step == 1
    assert loaded.skipped[0][1] == "its name says step 7, its content 2"
    note(record_property, "a file removed, swapped, of another checkpoint", 4 + 6 + 3 + 1)


def test_foreign_files_change_nothing(disk: MemoryFileSystem) -> None:
    fs = disk.copy()
    for path in (FOLDER / "step-x", NEWEST / ".DS_Store", FOLDER / "notes.txt"):
        fs.open(path, os.O_WRONLY)
    fs.mkdir(NEWEST / "folder")
    checkpoints = Checkpoints(FOLDER, keep_last=1, file_system=fs)
    assert checkpoints.load().step == 2
    checkpoints.save(3, state_of(3))
    checkpoints.load()
    checkpoints.save(4, state_of(4))
    assert sorted(fs.names(FOLDER)) == ["notes.txt", "step-00000003", "step-00000004", "step-x"]


def test_a_disk_that_cannot_be_read(disk: MemoryFileSystem, record_property: Record) -> None:
    log = FaultyFileSystem(disk)
    Checkpoints(FOLDER, file_system=log).load()
    assert log.log[0] == "names"
    for at in range(1, len(log.log)):
        loaded = Checkpoints(FOLDER, file_system=FaultyFileSystem(disk, at)).load()
        assert loaded.step == 1
        assert "Input/output error" in loaded.skipped[0][1]
    note(record_property, "an operation of a load raises EIO", len(log.log) - 1)


def test_nothing_good_names_every_reason(disk: MemoryFileSystem) -> None:
    fs = disk.copy()
    content(fs, NEWEST / "state.json")[0] ^= 1
    fs.remove(FOLDER / "step-00000001" / "manifest.json")
    with pytest.raises(NoCheckpointError) as caught:
        Checkpoints(FOLDER, file_system=fs).load()
    assert str(caught.value).splitlines() == [
        "/run holds no checkpoint that can be loaded",
        "  step-00000002: state.json is damaged: its sha256 does not match the manifest",
        "  step-00000001: manifest.json is missing",
    ]
    assert [path.name for path, _ in caught.value.skipped] == ["step-00000002", "step-00000001"]


def render(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def forged(disk: MemoryFileSystem, contents: dict[str, bytes], **fields: Any) -> MemoryFileSystem:
    """Return a disk whose newest checkpoint has these contents, with valid sizes and hashes."""
    fs = disk.copy()
    manifest = json.loads(content(fs, NEWEST / "manifest.json"))
    manifest.pop("sha256")
    for name, data in contents.items():
        if name in FILES:
            content(fs, NEWEST / name)[:] = data
        entry = manifest["files"].setdefault(name, {})
        entry.update({"bytes": len(data), "sha256": sha256(data).hexdigest()})
    manifest.update(fields)
    manifest["sha256"] = sha256(render(manifest)).hexdigest()
    content(fs, NEWEST / "manifest.json")[:] = render(manifest)
    return fs


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"version": 2}, "version 2, newer: update rumus-train"),
        ({"version": 0}, "version 0, older and no longer read"),
        ({"version": 3, "files": None, "more": []}, "version 3, newer"),
        ({"format": "another"}, "not the manifest of a rumus checkpoint"),
        ({"step": -1}, "its step is -1"),
        ({"step": True}, "its step is True"),
        ({"step": 5}, "its name says step 2, its content 5"),
        ({"metric": "high"}, "its metric is 'high'"),
        ({"files": []}, "damaged"),
        ({"files": {}}, "it does not list state.json"),
        ({"files": {"state.json": {"bytes": -1, "sha256": ""}}}, "gives state.json -1 bytes"),
        ({"files": {"state.json": {}}}, "damaged"),
    ],
)
def test_manifests_of_other_versions_and_hostile_ones(
    disk: MemoryFileSystem, fields: dict[str, Any], why: str
) -> None:
    assert why in reason(forged(disk, {}, **fields))


@pytest.mark.parametrize(
    "name",
    [
        "../step-00000001/state.json",
        "/etc/passwd",
        "..",
        "a/b.safetensors",
        "x.pickle",
        "manifest.json",
        "",
    ],
)
def test_no_file_outside_is_opened(disk: MemoryFileSystem, name: str) -> None:
    assert f"it lists a file {name!r}" in reason(forged(disk, {name: b""}))


def tensors(header: Any, data: bytes = bytes(24), length: int | None = None) -> bytes:
    """Return a safetensors file with an arbitrary header."""
    text = header if isinstance(header, bytes) else render(header)
    size = len(text) if length is None else length
    return size.to_bytes(8, "little") + text + data


def entry(start: int, stop: int, shape: Any = (6,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def hostile() -> Iterator[tuple[str, bytes]]:
    """Yield what is wrong, and a file with such a header."""
    yield "cannot fit", b""
    yield "cannot fit", bytes(7)
    yield "cannot fit", tensors({}, length=2**63)
    yield "cannot fit", tensors({}, length=100_000_001)
    yield "cannot fit", tensors({}, b"", length=3)
    yield "JSON", tensors(b"[" * 100_000)
    yield "utf-8", tensors(b"\xff\xfe")
    yield "not a JSON object", tensors([])
    yield "not described", tensors({"moment": 3})
    yield "not described", tensors({"__metadata__": {"a": "b"}, "moment": entry(0, 24)})
    yield "twice", tensors(b'{"moment":1,"moment":2}')
    yield "not JSON", tensors(b'{"moment":NaN}')
    yield "unknown dtype", tensors({"moment": entry(0, 24, dtype="F128")})
    yield "unknown dtype", tensors({"moment": entry(0, 24, dtype=["F32"])})
    yield "has 20 bytes", tensors({"moment": entry(0, 20)})
    yield "has the shape", tensors({"moment": entry(0, 24, [-6])})
    yield "has the shape", tensors({"moment": entry(0, 24, [True, 6])})
    yield "has the shape", tensors({"moment": entry(0, 24, "six")})
    yield "has 24 bytes", tensors({"moment": entry(0, 24, [2**62, 2**62])})
    yield "has 24 bytes", tensors({"moment": entry(0, 24, [2**62, 4, 6])})
    yield "has 0 bytes", tensors({"moment": entry(0, 0, [2**62, 4])}, b"")
    yield "has 24 bytes", tensors({"moment": entry(0, 24, [6] + 40 * [1])})
    yield "starts at 4", tensors({"moment": entry(4, 28)}, bytes(28))
    yield "starts at 0", tensors({"a": entry(0, 24), "moment": entry(0, 24)})
    yield "starts at 12", tensors({"a": entry(0, 24), "b": entry(12, 36)}, bytes(36))
    yield "have 24 bytes, the file 25", tensors({"moment": entry(0, 24)}, bytes(25))
    yield "have 24 bytes, the file 23", tensors({"moment": entry(0, 24)}, bytes(23))
    yield "do not match the manifest", tensors({"moment": entry(0, 24)})
    yield "do not match the manifest", tensors({"other": entry(0, 24, [2, 3])})


@pytest.mark.parametrize(("why", "data"), [*hostile()])
def test_hostile_headers(disk: MemoryFileSystem, why: str, data: bytes) -> None:
    found = reason(forged(disk, {"optimizer.safetensors": data}))
    assert why in found
    assert "optimizer.safetensors is invalid" in found


@pytest.mark.parametrize(
    "state",
    [
        [],
        {"state": {}},
        {"state": [], "floats": {}},
        {"state": {}, "floats": {}},  # without places for the arrays
        {
            "state": {"model": {"weight": 1, "bias": None}, "optimizer": {"moment": None}},
            "floats": {},
        },
        {"state": {"model": "weight", "optimizer": {"moment": None}}, "floats": {}},
        {"state": {}, "floats": []},
        {"state": {"a": None}, "floats": {"a": "one"}},
        {"state": {"a": [None]}, "floats": {"a/-1": "nan"}},
        {"state": {"a": [None]}, "floats": {"a/1": "nan"}},
        {"state": {"a": [None]}, "floats": {"a/x": "nan"}},
        {"state": {"a": [None]}, "floats": {"a/0": ["nan"]}},
    ],
)
def test_hostile_states(disk: MemoryFileSystem, state: Any) -> None:
    assert "state.json" in reason(forged(disk, {"state.json": render(state)}))


def test_only_plain_files_are_opened(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state_of(1))
    path = checkpoints.save(2, state_of(2))
    assert path is not None
    target = path / "state.json"
    target.rename(tmp_path / "elsewhere.json")
    target.symlink_to(tmp_path / "elsewhere.json")
    assert "cannot be read" in checkpoints.load().skipped[0][1]
    target.unlink()
    os.mkfifo(target)  # opening it would block
    assert "not a plain file" in checkpoints.load().skipped[0][1]
    target.unlink()
    target.mkdir()
    with pytest.raises(InvalidCheckpointError, match=r"state\.json cannot be read"):
        checkpoints.verify(path)


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    class Shrinking(LocalFileSystem):
        def size(self, descriptor: int) -> int:
            return super().size(descriptor) + 1

    Checkpoints(tmp_path).save(1, state_of(1))
    with pytest.raises(NoCheckpointError, match=r"manifest\.json ends after"):
        Checkpoints(tmp_path, file_system=Shrinking()).load()


def test_an_error_about_many_checkpoints_names_the_newest() -> None:
    fs = MemoryFileSystem()
    with Checkpoints(FOLDER, keep_last=1, file_system=fs) as checkpoints:
        checkpoints.save(1, state_of(1))
    fs.remove(FOLDER / "step-00000001" / "manifest.json")
    for step in range(2, 1002):
        fs.mkdir(FOLDER / f"step-{step:08d}")
    with pytest.raises(NoCheckpointError) as caught:
        Checkpoints(FOLDER, file_system=fs).load()
    lines = str(caught.value).splitlines()
    assert lines[1] == "  step-00001001: manifest.json is missing"
    assert (len(lines), lines[-1]) == (12, "  and 991 more")
    assert len(caught.value.skipped) == 1001
