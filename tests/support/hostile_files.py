"""Malformed files for every loader: damaged good files, and some made by hand.

Each case is a call and the kinds of error that the loader's documentation promises.
"""

from __future__ import annotations

import io
import json
import os
import struct
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np

from rumus.optim import SGD, StateFileError, load_state, save_state
from rumus.tensor import Parameter
from rumus.train import (
    CheckpointError,
    Checkpoints,
    ConfigurationError,
    CsvDataset,
    ImageFolder,
    NpyDataset,
    ParquetDataset,
    RunFolderWarning,
    load_configuration,
    read_metrics,
    write_report,
)

SLOW: Final = 1.0  # seconds that no file of this size may take


@dataclass
class Configuration:
    """The schema of the TOML files."""

    width: int = 1
    rate: float = 0.1
    sizes: list[int] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Loader:
    """Reads `file` in a folder; `good` writes a valid one."""

    name: str
    file: str
    good: Callable[[Path], None]
    load: Callable[[Path], object]
    errors: tuple[type[Exception], ...]
    parts: tuple[bytes, ...]  # fragments to put into good files


def _csv(path: Path) -> None:
    path.write_text("a,b,kind\n" + "1,2.5,cat\n-3,4e2,dog\n" * 3)


def _npy(path: Path) -> None:
    np.save(path, np.arange(12, dtype=np.float32).reshape(4, 3))


def _table(path: Path) -> None:
    from pyarrow import feather, parquet, table

    content = table({"a": [1.5, None, 3.0], "b": [1, 2, 3], "kind": ["cat", "dog", "cat"]})
    (feather.write_feather if path.suffix == ".feather" else parquet.write_table)(content, path)


def _read_table(path: Path) -> None:
    ParquetDataset(path, target="kind", target_dtype=str, missing=0.0)


def _image(format: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        from PIL import Image

        pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, format)

    return write


def _toml(path: Path) -> None:
    path.write_text('width = 3\nrate = 1e-3\nsizes = [1, 2]\n[names]\na = "b"\n')


def _metrics(path: Path) -> None:
    line: dict[str, Any] = {"v": 1, "split": "train", "epoch": 0, "step": 1, "loss": 0.5, "lr": 0.1}
    epoch = {**line, "split": "epoch", "seconds": 1.0, "samples": 8.0, "spans": {"data": 0.1}}
    found = {**line, "split": "validation", "metrics": {"accuracy": 0.5}, "best": True}
    lines = [line, epoch, found, {**line, "split": "end", "reason": "epochs"}]
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))


def _state(path: Path) -> None:
    save_state(SGD([Parameter(np.ones(3, np.float32), name="w")], 0.1), path)


def _load_state(path: Path) -> None:
    load_state(SGD([Parameter(np.ones(3, np.float32), name="w")], 0.1), path)


def _checkpoint(file: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        state = {"model": {"w": np.ones(3)}, "trainer": {"epoch": 1, "best": float("inf")}}
        with Checkpoints(path.parent.parent) as checkpoints:
            checkpoints.save(1, state)
        assert path.name == file

    return write


_PARTS: Final = (
    b"", b"\0", b"\xff\xfe", b"\x1b]0;x\x07", b"\n" * 9, b"9" * 5000, b"[" * 3000, b"{" * 90,
    b"-" * 9000, b"1_0", b"inf", b"1e999", b"-1", b"null", b'"', b"\r", b"," * 1000, b"PK\x03\x04",
    "\N{BYTE ORDER MARK}٣\u202e".encode(), b"(0,)", b"99999999999999999999",
)  # fmt: skip


def loaders() -> list[Loader]:
    """Return all loaders of files; those of tables and images only where their package is."""
    text = (OSError, ValueError)
    found = [
        Loader("CsvDataset", "x.csv", _csv, lambda path: CsvDataset(path, columns=["a", "b"]),
               text, (b"a,b\n", b'"', b";")),
        Loader("NpyDataset", "x.npy", _npy, lambda path: len(NpyDataset(path)), text,
               (b"'shape'", b"(-1, 4)", b"'|O'", b"('<f4', (10**9,))", b"\x93NUMPY\x03\x00")),
        Loader("load_configuration", "x.toml", _toml,
               lambda path: load_configuration(Configuration, path), (OSError, ConfigurationError),
               (b"[a.b]", b"a = {b = 1}", b"'''", b"a." * 500 + b"b = 1", b"[[names]]")),
        Loader("read_metrics", "metrics.jsonl", _metrics, lambda path: list(read_metrics(path)),
               (OSError,), (b'"step":null', b"[]\n", b'{"split":"epoch"}\n')),
        Loader("write_report", "metrics.jsonl", _metrics, lambda path: write_report(path.parent),
               (OSError, ValueError), (b'"epoch":null', b'"metrics":[1]', b'{"step":1}\n')),
        Loader("load_state", "x.safetensors", _state, _load_state,
               (OSError, StateFileError), (b'"BF16"', b"[0,0]", b"[4,-1]")),
    ]  # fmt: skip
    for file in ("manifest.json", "state.json", "model.safetensors"):
        found.append(Loader(f"Checkpoints ({file})", f"c/step-00000001/{file}", _checkpoint(file),
                            lambda path: Checkpoints(path.parent.parent).load(),
                            (OSError, CheckpointError), (b'"files":{', b"[4,-1]")))  # fmt: skip
    if find_spec("pyarrow") is not None:
        for kind in ("parquet", "feather"):
            found.append(Loader(f"ParquetDataset ({kind})", f"x.{kind}", _table, _read_table,
                                text, (b"PAR1", b"ARROW1", b"\xff\xff\xff\xff")))  # fmt: skip
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        return found
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"):
        found.append(Loader(f"ImageFolder ({kind})", f"i/a/x.{kind.lower()}", _image(kind),
                            lambda path: ImageFolder(path.parent.parent, convert=True)[0],
                            text, (b"IHDR", b"Exif\0\0", b"\xff\xd8")))  # fmt: skip
    return found


def damaged(random: np.random.Generator, good: bytes, parts: tuple[bytes, ...]) -> bytes:
    """Return a file with a few faults: cut, overwritten, repeated, or with something inserted."""
    data = bytearray(good)
    for _ in range(int(random.integers(1, 4))):
        at = int(random.integers(0, len(data) + 1))
        match int(random.integers(0, 6)):
            case 0:
                del data[at:]
            case 1 if at < len(data):
                data[at] ^= 1 << int(random.integers(0, 8))
            case 2:
                data[at : at + 4] = random.bytes(4)
            case 3:
                stop = at + int(random.integers(0, 40))
                data[at:at] = data[at:stop] * int(random.integers(1, 200))
            case 4:
                data[at : at + int(random.integers(0, 30))] = parts[random.integers(len(parts))]
            case _:
                data[at : at + 8] = struct.pack("<Q", int(random.integers(0, 2**63)))
    return bytes(data)


@dataclass(frozen=True)
class Outcome:
    """The result of loading one file."""

    loader: str
    case: int
    seconds: float
    error: Exception | None
    is_documented: bool

    @property
    def is_slow(self) -> bool:
        """Whether it took longer than any file of this size should."""
        return self.seconds > SLOW


def outcomes(folder: Path, seed: int, cases: int) -> Iterator[Outcome]:
    """Yield the outcomes of each loader for this many damaged files."""
    for number, loader in enumerate(loaders()):
        home = folder / str(number)
        path = home / loader.file
        path.parent.mkdir(parents=True)
        if loader.name.startswith("Checkpoints"):
            path.parent.rmdir()
        loader.good(path)
        good = path.read_bytes()
        loader.load(path)
        for case in range(cases):
            random = np.random.default_rng([seed, number, case])
            path.write_bytes(damaged(random, good, _PARTS + loader.parts))
            yield attempt(loader, path, case)


def attempt(loader: Loader, path: Path, case: int) -> Outcome:
    """Let a loader read a file, and measure it."""
    start = time.process_time()
    error: Exception | None = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RunFolderWarning)  # of damaged lines
            loader.load(path)
    except Exception as caught:
        error = caught
    seconds = time.process_time() - start
    return Outcome(
        loader.name, case, seconds, error, error is None or isinstance(error, loader.errors)
    )


def _npy_header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + b"\0" * 96


def made_by_hand() -> Iterator[tuple[str, bytes]]:
    """Yield suffixes and contents that random damage does not produce."""
    size = 1 << 20
    yield ".npy", _npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 4), }\n")
    yield ".npy", _npy_header("{'descr': '<U100', 'fortran_order': False, 'shape': (-1, 4), }\n")
    yield ".npy", _npy_header("{" * 100)
    yield ".npy", _npy_header("-" * 9000 + "1")
    yield ".npy", b"PK\x05\x06" + b"\0" * 18
    yield ".csv", b"a,b\n" + b"1," * (size // 2)
    yield ".csv", b'a,b\n"' + b"x" * size
    yield ".csv", b",".join(b"c%d" % i for i in range(60_000)) + b"\n" + b"x," * 59_999 + b"1"
    yield ".toml", b"sizes = " + b"[" * 3000 + b"]" * 3000
    yield ".toml", b"width = " + b"9" * 5000
    yield ".toml", b"".join(b"x%d = 1\n" % i for i in range(20_000))
    yield ".jsonl", b'{"step":' * (size // 8)
    yield ".jsonl", b'{"split":"train","step":1,"loss":' + b"9" * 4000 + b"}\n"
    shape = b"[" + b",".join([b"4611686018427387904"] * 50_000) + b"]"
    text = b'{"w":{"dtype":"F32","shape":' + shape + b',"data_offsets":[0,0]}}'
    yield ".safetensors", struct.pack("<Q", len(text)) + text
    buffer = io.BytesIO()
    np.savez(buffer, a=np.ones(3))
    yield ".npy", buffer.getvalue()


def no_regular_files(folder: Path) -> Iterator[Path]:
    """Yield a folder, a pipe, a device and a dangling link."""
    (folder / "folder").mkdir()
    yield folder / "folder"
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe")
        yield folder / "pipe"
        yield Path("/dev/zero")
    (folder / "link").symlink_to(folder / "nowhere")
    yield folder / "link"
