"""One checkpoint: a folder with state.json, safetensors files, and a manifest that verifies them.

The manifest is written last, and has the size and sha256 of each file and its own sha256. Reading
trusts nothing: it returns exactly what was saved, or raises InvalidCheckpointError.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.memory.uninterrupted import is_of_handler
from rumus.train.base.strict_json import parse, render
from rumus.train.checkpoints.background_hash import BackgroundHash
from rumus.train.checkpoints.checkpoint_errors import InvalidCheckpointError
from rumus.train.checkpoints.file_system import CREATE, READ, FileSystem, write_all
from rumus.train.checkpoints.safetensors_file import arrays_in, described, pieces
from rumus.train.checkpoints.state_tree import KEY, Arrays, join

FORMAT: Final = "rumus-checkpoint"
VERSION: Final = 1
MANIFEST: Final = "manifest.json"
STATE: Final = "state.json"
_LONGEST_MANIFEST = 2**28  # bytes
_CHUNK = 2**24  # bytes to read before hashing


@dataclass(frozen=True)
class Manifest:
    """The contents of a checkpoint: its step, its metric, its files."""

    step: int
    metric: float | None
    files: Mapping[str, Mapping[str, Any]]  # name -> bytes, sha256, and for arrays tensors

    @property
    def size(self) -> int:
        """The bytes of all files but the manifest."""
        return sum(int(entry["bytes"]) for entry in self.files.values())


class Draft:
    """A checkpoint ready to be written: its bytes, and the manifest without hashes."""

    def __init__(
        self,
        step: int,
        metric: float | None,
        arrays: Mapping[str, Arrays],
        rest: Mapping[str, Any],
    ) -> None:
        self.step = step
        self.metric = metric
        self.tensors = {f"{key}.safetensors": described(group) for key, group in arrays.items()}
        self.files = {f"{key}.safetensors": pieces(group) for key, group in arrays.items()}
        self.files[STATE] = [memoryview(render(rest))]
        self.size = sum(len(piece) for data in self.files.values() for piece in data)

    def write(self, fs: FileSystem, folder: Path) -> None:
        """Create `folder` with all files, every byte and name synced to disk on return."""
        fs.mkdir(folder)
        files = {}
        for name, data in self.files.items():
            digest = _write_file(fs, folder / name, data)
            size = sum(len(piece) for piece in data)
            files[name] = {"bytes": size, "sha256": digest}
            if name in self.tensors:
                files[name]["tensors"] = self.tensors[name]
        text = _manifest_text({
            "format": FORMAT,
            "version": VERSION,
            "step": self.step,
            "metric": _as_json(self.metric),
            "files": files,
        })  # fmt: skip
        _write_file(fs, folder / MANIFEST, [memoryview(text)])
        fs.sync_folder(folder)


def read_manifest(fs: FileSystem, folder: Path) -> Manifest:
    """Return the manifest of a checkpoint; InvalidCheckpointError if it is missing or damaged."""
    data, _ = _read_file(fs, folder / MANIFEST, None, _LONGEST_MANIFEST)
    try:
        return _manifest(data.tobytes())
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InvalidCheckpointError(f"{MANIFEST} is damaged: {error}") from None


def read_folder(fs: FileSystem, folder: Path) -> tuple[Manifest, dict[str, Any]]:
    """Return the manifest and the state of a checkpoint, each byte read once and verified.

    InvalidCheckpointError with the reason if anything differs from what was saved.
    """
    manifest = read_manifest(fs, folder)
    contents = {name: _read_listed(fs, folder, name, manifest) for name in manifest.files}
    name = STATE
    try:
        rest = parse(contents.pop(STATE).tobytes())
        arrays = {}
        for name, data in contents.items():
            group = arrays_in(data)
            if described(group) != manifest.files[name].get("tensors"):
                raise ValueError("its arrays do not match the manifest")
            arrays[name.removesuffix(".safetensors")] = group
        name = STATE
        return manifest, join(arrays, rest)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InvalidCheckpointError(f"{name} is invalid: {error}") from None


def _write_file(fs: FileSystem, path: Path, data: Iterable[memoryview]) -> str:
    """Write a new file to the disk, hash it meanwhile, and return its sha256."""
    descriptor = fs.open(path, CREATE)
    try:
        with BackgroundHash() as digest:
            for piece in data:
                digest.update(piece)
                write_all(fs, descriptor, piece)
            fs.fsync(descriptor)
            found = digest.hexdigest()
    finally:
        fs.close(descriptor)
    return found


def _read_file(
    fs: FileSystem, path: Path, size: int | None, longest: int
) -> tuple[NDArray[np.uint8], str]:
    """Return the bytes of a file of the given size, and their sha256."""
    try:
        descriptor = fs.open(path, READ)
        try:
            found = fs.size(descriptor)
            if size not in (None, found):
                raise InvalidCheckpointError(f"{path.name} has {found} bytes instead of {size}")
            if found > longest:
                raise InvalidCheckpointError(
                    f"{path.name} has {found} bytes, which is implausibly large"
                )
            return _read_and_hash(fs, descriptor, path.name, found)
        finally:
            fs.close(descriptor)
    except FileNotFoundError:
        raise InvalidCheckpointError(f"{path.name} is missing") from None
    except MemoryError:
        raise InvalidCheckpointError(f"{path.name} does not fit in memory") from None
    except OSError as error:
        if is_of_handler(error):
            raise
        raise InvalidCheckpointError(f"{path.name} cannot be read: {error}") from error


def _read_and_hash(
    fs: FileSystem, descriptor: int, name: str, size: int
) -> tuple[NDArray[np.uint8], str]:
    """Read a number of bytes, hashing each chunk while the next is read."""
    data = np.empty(size, np.uint8)
    view, position = data.data, 0
    with BackgroundHash() as digest:
        while position < size:
            count = fs.read(descriptor, view[position : position + _CHUNK])
            if not count:
                raise InvalidCheckpointError(f"{name} ends after {position} of {size} bytes")
            digest.update(view[position : position + count])
            position += count
        return data, digest.hexdigest()


def _read_listed(fs: FileSystem, folder: Path, name: str, manifest: Manifest) -> NDArray[np.uint8]:
    """Return the bytes of a file that the manifest lists."""
    entry = manifest.files[name]
    size = int(entry["bytes"])
    data, digest = _read_file(fs, folder / name, size, size)
    if digest != entry["sha256"]:
        raise InvalidCheckpointError(f"{name} is damaged: its sha256 does not match the manifest")
    return data


def _manifest_text(fields: Mapping[str, Any]) -> bytes:
    """Return a manifest as bytes: its last field is the sha256 of the others."""
    return render({**fields, "sha256": sha256(render(fields)).hexdigest()})


def _manifest(text: bytes) -> Manifest:
    """Parse a manifest, or raise an error about it."""
    fields = parse(text)
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise ValueError("it is not the manifest of a rumus checkpoint")
    version = fields.get("version")
    if type(version) is int and version != VERSION:
        age = "newer: update rumus-train" if version > VERSION else "older and no longer read"
        raise InvalidCheckpointError(
            f"{MANIFEST} is of format version {version}, {age} (this is {VERSION})"
        )
    fields.pop("sha256", None)
    if _manifest_text(fields) != text:
        raise ValueError("its sha256 does not match its content")
    step, files = fields["step"], fields["files"]
    if type(step) is not int or step < 0:
        raise ValueError(f"its step is {step!r}")
    for name, entry in files.items():
        _check_entry(name, entry)
    if STATE not in files:
        raise ValueError(f"it does not list {STATE}")
    return Manifest(step, _metric(fields["metric"]), files)


def _check_entry(name: str, entry: Mapping[str, Any]) -> None:
    """Refuse a file that is never written by a save, above all one outside the folder."""
    key, _, kind = name.partition(".")
    if name != STATE and not (KEY.fullmatch(key) and kind == "safetensors"):
        raise ValueError(f"it lists a file {name!r}")
    size = entry["bytes"]
    if type(size) is not int or size < 0:
        raise ValueError(f"it gives {name} {size!r} bytes")


def _as_json(metric: float | None) -> float | str | None:
    return metric if metric is None or math.isfinite(metric) else repr(metric)


def _metric(value: Any) -> float | None:
    if value is None or type(value) is float:
        return value
    if value in ("nan", "inf", "-inf"):
        return float(value)
    raise ValueError(f"its metric is {value!r}")
