"""Run folders of which a file was cut, changed or lost: whatever reads it says so."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rumus.optim import SGD
from rumus.tensor import Parameter
from rumus.train import (
    CallbackError,
    ConfigurationError,
    RunFolder,
    RunFolderWarning,
    Trainer,
    load_configuration,
)
from rumus.train.base.sealed import fault_of_seal, sealed_json, sealed_toml
from rumus.train.command_line.main import main
from rumus.train.views.run_record import read_run


@dataclass
class Config:
    lr: float = 0.5
    width: int = 1
    name: str = "a"


def run_of(path: Path, config: Config, **options: Any) -> None:
    weight = Parameter(np.ones(1, np.float32), name="weight")
    folder = RunFolder(path, config=config, seed=3)
    Trainer(SGD([weight], 0.1)).fit(
        [(np.ones(1, np.float32),)],
        lambda x: (weight * x).sum(),
        epochs=2,
        callbacks=[folder],
        checkpoints=folder.checkpoints,
        **options,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    run_of(path, Config(0.25, 3, "b"))
    return path


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def cut_at_a_line(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def cut_within_a_line(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def changed(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"= 3", b"= 4").replace(b": 3", b": 4"))


def emptied(path: Path) -> None:
    path.write_bytes(b"")


DAMAGE = [cut_at_a_line, cut_within_a_line, changed, emptied]


def test_a_whole_run_says_nothing(run: Path) -> None:
    found = read_run(run)
    assert found.config == {"lr": 0.25, "width": 3, "name": "b"}
    assert load_configuration(Config, run / "config.toml") == Config(0.25, 3, "b")
    text = (run / "config.toml").read_text().replace("\n", "\r\n")
    (run / "config.toml").write_bytes(text.encode())  # as of a checkout of Git on Windows
    assert read_run(run).config == found.config


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["config.toml", "env.json"])
def test_a_damaged_file_of_a_run_is_said(
    run: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(run / name)
    with pytest.warns(RunFolderWarning, match=rf"{name} is damaged: ") as told:
        read_run(run)
    assert len(told) == 1


@pytest.mark.parametrize("name", ["config.toml", "env.json"])
def test_a_lost_file_of_a_run_is_said(run: Path, name: str) -> None:
    (run / name).unlink()
    with pytest.warns(RunFolderWarning, match=f"run is damaged: there is no {name}"):
        read_run(run)


def test_measurements_that_lack_their_end_are_said(run: Path) -> None:
    cut_at_a_line(run / "metrics.jsonl")
    with pytest.warns(RunFolderWarning, match=r"metrics\.jsonl is damaged: the run has ended, as"):
        read_run(run)
    (run / "DONE").write_text("{")
    with pytest.warns(RunFolderWarning, match="(DONE|metrics.jsonl) is damaged: ") as told:
        read_run(run)
    assert len(told) == 2


@pytest.mark.parametrize("damage", [cut_at_a_line, cut_within_a_line, changed])
def test_a_damaged_configuration_is_not_loaded(run: Path, damage: Callable[[Path], None]) -> None:
    damage(run / "config.toml")
    with pytest.raises(
        ConfigurationError, match=r"config\.toml (is not TOML|does not fit the chec)"
    ):
        load_configuration(Config, run / "config.toml")
    if damage is changed:
        text = (run / "config.toml").read_text()
        assert text.startswith("# crc32 ")
        (run / "config.toml").write_text(text.partition("\n")[2])
        assert load_configuration(Config, run / "config.toml").width == 4


def test_a_run_with_a_damaged_configuration_is_not_overwritten(run: Path) -> None:
    (run / "config.toml").write_text("lr = ")
    (run / "DONE").unlink()
    shutil.rmtree(run / "checkpoints")
    before = (run / "metrics.jsonl").read_bytes()
    with (
        pytest.warns(RunFolderWarning, match=r"config\.toml is damaged"),
        pytest.raises(CallbackError, match=r"holds a run with a damaged config\.toml, and nothing"),
    ):
        run_of(run, Config(0.25, 3, "b"), resume=False)
    assert (run / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_a_run_that_cannot_be_read_does_not_hide_others(
    run: Path, make: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    (run.parent / "a").mkdir()
    make(run.parent / "a" / "metrics.jsonl")
    with pytest.warns(RunFolderWarning, match="a is left out: .* not a regular file"):
        assert main(["list", str(run.parent)]) == 0
    assert "done (epochs)" in capsys.readouterr().out
    assert main(["compare", str(run.parent / "a"), str(run)]) != 0
    assert "metrics.jsonl cannot be read: " in capsys.readouterr().err


def test_texts_are_sealed_whatever_they_hold() -> None:
    for text in ("", "a = 1\n", 'a = "\u20ac"\n\n[b]\nc = 2\n'):
        assert fault_of_seal(sealed_toml(text)) is None
        assert fault_of_seal(text) is None
        assert fault_of_seal(sealed_toml(text) + "d = 3\n") is not None
    sealed = sealed_json('{\n  "a": "crc32"\n}')
    assert fault_of_seal(sealed) is None
    assert fault_of_seal(sealed.replace('"crc32"\n', '"crc33"\n').replace('"a"', '"b"')) is not None


@pytest.mark.parametrize("starts", ['"x"', "[3]", "{}", "null"])
def test_starts_that_are_no_tables_are_said(run: Path, starts: str) -> None:
    (run / "env.json").write_text(f'{{"starts": {starts}}}')
    with pytest.warns(RunFolderWarning, match=r"env\.json is damaged: its starts are no tables"):
        assert read_run(run).starts == []
