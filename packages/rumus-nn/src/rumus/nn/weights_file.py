"""Weights in the safetensors format, from any program: one file, or several shards."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.tensor import StateMismatchError
from rumus.tensor.expression.arguments import checked_first
from rumus.tensor.memory.replaced_file import replaced

_INDEX: Final = "model.safetensors.index.json"
_SINGLE: Final = "model.safetensors"
_DTYPES: Final = {
    "BOOL": "?", "F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2",
    **{f"{kind}{8 * size}": f"<{kind.lower()}{size}" for kind in "IU" for size in (1, 2, 4, 8)},
}  # fmt: skip
_NUMBERED: Final = re.compile(r"-(\d{1,9})-of-(\d{1,9})\.safetensors$")
_PICKLE: Final = (
    "a pickle, and loading one runs code; where it was made, save it with "
    "safetensors.torch.save_file(model.state_dict(), path)"
)
_BEGINNINGS: Final = {
    b"PK": _PICKLE,  # within an archive, unless its first member is an array
    b"\x80": _PICKLE,
    b"version https://git-lfs": "a pointer of Git LFS: fetch the file with git lfs pull",
    b"\x89HDF": "HDF5, as Keras writes it: save its arrays with safetensors.numpy.save_file",
    b"GGUF": "GGUF: take the safetensors files that it was made of",
    b"<": "a web page: download the file again",
}
_LOOK: Final = 256  # bytes that tell the format of a file


class WeightsFileError(StateMismatchError):
    """A weights file that is damaged, incomplete, or not in the safetensors format."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """The location of one tensor's bytes."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int

    def read(self, name: str) -> NDArray[Any]:
        if self.dtype not in _DTYPES:
            raise WeightsFileError(
                f"{self.path}: tensor {name!r} is {self.dtype}, which no tensor here can hold; "
                f"convert it to one of {', '.join(_DTYPES)}"
            )
        data = np.fromfile(self.path, np.uint8, self.size, offset=self.start)
        if data.size != self.size:
            raise WeightsFileError(f"{self.path} ended within tensor {name!r}: was it changed?")
        try:
            array = data.view(_DTYPES[self.dtype]).reshape(self.shape)
        except ValueError as error:  # NumPy has fewer axes, and lengths up to a limit beside a 0
            raise WeightsFileError(f"{self.path}: tensor {name!r}: {error}") from error
        if self.dtype == "BF16":  # the upper half of a float32
            return (array.astype(np.uint32) << 16).view(np.float32)
        return array.astype(array.dtype.newbyteorder("="), copy=False)


class Weights(Mapping[str, NDArray[Any]]):
    """The tensors of a file by name, as NumPy arrays, each read on access.

    bfloat16 becomes float32, without loss. `read_weights` makes these.

    entries: the location of each tensor's bytes, by name.

    WeightsFileError for other dtypes that NumPy lacks, such as float8.
    """

    def __init__(self, entries: Mapping[str, _Entry]) -> None:
        self._entries = dict(entries)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor, without reading it."""
        return {name: entry.shape for name, entry in self._entries.items()}

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._entries[name].read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Weights({len(self)} tensors)"


@checked_first
def read_weights(path: str | os.PathLike[str]) -> Weights:
    """Open a weights file; tensors are read one by one, on access.

    path: a safetensors file; the index of several (`model.safetensors.index.json`); or a folder
    that has such an index, `model.safetensors`, or one safetensors file of any name. Nothing is
    unpickled: files written by torch.save are refused.

    WeightsFileError for a damaged file or one of another format, a shard that is missing or not in
    the index, and two tensors of one name; OSError if it cannot be read.

    >>> import tempfile
    >>> from rumus.nn import Linear, read_weights
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Linear(3, 2).save_file(f"{folder}/linear.safetensors")
    ...     weights = read_weights(folder)
    ...     sorted(weights), weights["weight"].shape
    (['bias', 'weight'], (2, 3))
    """
    path = Path(path)
    path = _inside(path) if path.is_dir() else path
    if path.suffix == ".json":
        return Weights(_sharded(path))
    return Weights(_entries(path))


def write_weights(
    path: str | os.PathLike[str],
    weights: Mapping[str, NDArray[Any]],
) -> None:
    """Write a safetensors file, replacing `path` atomically.

    OSError if it cannot be written.
    """
    from safetensors.numpy import save

    whole = {name: np.ascontiguousarray(array).reshape(array.shape)
             for name, array in weights.items()}  # fmt: skip
    data = save(whole, {"format": "pt"})  # which transformers 4 requires
    with replaced(Path(path)) as beside:
        beside.write_bytes(data)


def _inside(folder: Path) -> Path:
    """The weights file in a folder."""
    for name in (_INDEX, _SINGLE):
        if (folder / name).exists():
            return folder / name
    indices = sorted(folder.glob("*.safetensors.index.json"))
    files = indices or sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "no safetensors file"
        raise WeightsFileError(f"{folder} has {found}: name the file, or the index of several")
    return files[0]


def _sharded(index: Path) -> dict[str, _Entry]:
    """The tensors of all shards in an index, in its order."""
    places = _weight_map(index)
    shards = list(dict.fromkeys(places.values()))
    _check_numbers(index, shards)
    found: dict[str, _Entry] = {}
    for shard in shards:
        if not (index.parent / shard).is_file():
            count = sum(file == shard for file in places.values())
            raise WeightsFileError(f"{index} names {shard} for {count} tensors, but does not exist")
        for name, entry in _entries(index.parent / shard).items():
            if name in found:
                raise WeightsFileError(f"{name!r} is in {found[name].path.name} and in {shard}")
            found[name] = entry
    for name, shard in places.items():
        if name not in found or found[name].path.name != shard:
            raise WeightsFileError(f"{index} says that {name!r} is in {shard}, which lacks it")
    if extra := [name for name in found if name not in places]:
        raise WeightsFileError(
            f"{extra[0]!r} of {found[extra[0]].path.name} is not in the index {index}"
        )
    return {name: found[name] for name in places}


def _weight_map(index: Path) -> dict[str, str]:
    """The content of an index: the file of each tensor."""
    try:
        table = _parse(regular(index).read_bytes())["weight_map"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsFileError(f"{index} is not a weights index: {error}") from error
    names = table.values() if isinstance(table, dict) else [None]
    # A file in the same folder: a foreign index must not point anywhere else.
    if not table or not all(isinstance(n, str) and n == Path(n).name for n in names):
        raise WeightsFileError(
            f"{index} is not a weights index: its weight_map needs the name of a file for each "
            "tensor"
        )
    return dict(table)


def _check_numbers(index: Path, shards: list[str]) -> None:
    """Raise WeightsFileError if the shards' names say that there are more of them."""
    found = [match for shard in shards if (match := _NUMBERED.search(shard))]
    total = max((int(match[2]) for match in found), default=0)
    if total > len(found) and len(found) == len(shards):
        there = {int(match[1]) for match in found}
        first = next(n for n in range(1, total + 1) if n not in there)
        raise WeightsFileError(f"{index} names {len(found)} of {total} shards; {first} is missing")


def _entries(path: Path) -> dict[str, _Entry]:
    """The content of one file's header, checked by the reference implementation."""
    from safetensors import SafetensorError, safe_open

    regular(path)
    try:
        with safe_open(path, framework="numpy"):
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = _parse(file.read(length))
    except (SafetensorError, ValueError, RecursionError) as error:
        raise WeightsFileError(
            f"{path} cannot be read as safetensors: {error}{_of_another_kind(path)}"
        ) from error
    header.pop("__metadata__", None)
    return {name: _entry(path, 8 + length, about) for name, about in header.items()}


def _entry(path: Path, origin: int, about: Mapping[str, Any]) -> _Entry:
    start, stop = about["data_offsets"]
    return _Entry(path, about["dtype"], tuple(about["shape"]), origin + start, stop - start)


def _of_another_kind(path: Path) -> str:
    """Advice about a file in another format, if it is recognized."""
    with path.open("rb") as file:
        start = file.read(_LOOK)
    if start.startswith(b"PK") and b".npy" in start:
        return ". It looks like .npz: save its arrays with safetensors.numpy.save_file"
    found = (advice for beginning, advice in _BEGINNINGS.items() if start.startswith(beginning))
    return "".join(f". It looks like {advice}" for advice in found)


def _parse(text: bytes) -> Any:
    """Read JSON without repeated names."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            counts = Counter(name for name, _ in pairs)
            raise ValueError(f"{counts.most_common(1)[0][0]!r} is there twice")
        return found

    return json.loads(text, object_pairs_hook=once)


def regular(path: Path) -> Path:
    """Return `path` if it is a file; reading a pipe would block. OSError otherwise."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path
