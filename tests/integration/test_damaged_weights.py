"""Malformed files of weights and adapters: one documented error, or numbers."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hostile_files import damaged, no_regular_files
from safetensors.numpy import save_file

from rumus import nn
from rumus.tensor import Generator, StateMismatchError

CASES = 150
PARTS = (
    b'"BF16"', b'"F8_E4M3"', b'"I64"', b"[0,0]", b"[4,-1]", b'"weight_map"', b"../", b'":{"', b"\0",
    b'"shape":[]', b'"r": 0', b'"lora_alpha": 1e999', b"null", b"[" * 3000, b"9" * 5000,
    b"PK\x03\x04",
)  # fmt: skip


def model() -> nn.Sequential:
    random = Generator(0)
    return nn.Sequential(nn.Linear(4, 3, generator=random), nn.Linear(3, 2, generator=random))


def single(folder: Path) -> None:
    model().save_file(folder / "model.safetensors")


def shards(folder: Path) -> None:
    state = model().state_dict()
    files = {name: f"{name[0]}.safetensors" for name in state}
    for file in set(files.values()):
        save_file({n: a for n, a in state.items() if files[n] == file}, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": files}))


def adapters(folder: Path) -> None:
    nn.save_lora(nn.lora(model(), 2), folder)


def load(folder: Path) -> nn.Sequential:
    target = model()
    target.load_file(folder)
    return target


def load_adapters(folder: Path) -> nn.Sequential:
    target = model()
    nn.load_lora(target, folder)
    return target


@pytest.mark.parametrize(
    ("write", "file", "read"),
    [
        (single, "model.safetensors", load),
        (shards, "model.safetensors.index.json", load),
        (shards, "1.safetensors", load),
        (adapters, "adapter_model.safetensors", load_adapters),
        (adapters, "adapter_config.json", load_adapters),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_damage(
    write: Callable[[Path], None],
    file: str,
    read: Callable[[Path], nn.Sequential],
    tmp_path: Path,
) -> None:
    write(tmp_path)
    good, errors = (tmp_path / file).read_bytes(), 0
    names = list(read(tmp_path).state_dict())
    for case in range(CASES):
        (tmp_path / file).write_bytes(damaged(np.random.default_rng(case), good, PARTS))
        try:
            assert list(read(tmp_path).state_dict()) == names  # only numbers differ
        except (OSError, StateMismatchError):
            errors += 1
    assert errors > CASES // 2


def test_a_header_with_an_endless_shape(tmp_path: Path) -> None:
    shape = b"[" + b",".join([b"4611686018427387904"] * 50_000) + b"]"
    text = b'{"w":{"dtype":"F32","shape":' + shape + b',"data_offsets":[0,0]}}'
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(nn.WeightsFileError, match="cannot be read as safetensors"):
        load(tmp_path)


def test_missing_files(tmp_path: Path) -> None:
    for path in no_regular_files(tmp_path):
        with pytest.raises((OSError, nn.WeightsFileError)):
            nn.read_weights(path)
