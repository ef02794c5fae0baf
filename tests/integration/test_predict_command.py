"""`rumus predict` and `load_model` for a run whose script can rebuild the model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from rumus.tensor import tensor
from rumus.train import load_model
from rumus.train.command_line.main import main

SCRIPT: Final = """
from dataclasses import dataclass
from rumus import nn
from rumus.optim import EMA, AdamW
from rumus.tensor import Generator
from rumus.train import CsvDataset, DataLoader, Trainer, Training, random_split

@dataclass
class Config:
    width: int = 8

def build(config: Config) -> Training:
    data = CsvDataset("flowers.csv", target="kind", target_dtype=str, categories=["color"],
                      missing="mean", standardize=True)
    train, test = random_split(data, [0.8, 0.2])
    g = Generator(0)
    model = nn.Sequential(nn.Linear(len(data.features), config.width, generator=g), nn.ReLU(),
                          nn.Dropout(0.1, generator=g), nn.Linear(config.width, 2, generator=g))
    loss = lambda x, y: nn.cross_entropy_loss(model(x), y)
    return Training(Trainer(AdamW(model.parameters(), 0.05, average=EMA(0.9)),
                            state={"model": model}),
                    DataLoader(train, 8, shuffle=True), loss, epochs=8,
                    validate=(DataLoader(test, 8), loss))
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "flowers.py").write_text(SCRIPT)
    rows = ["length,color,kind"]
    random = np.random.default_rng(0)
    for i in range(60):
        length = f"{random.normal(3 + 3 * (i % 2)):.3f}" if i % 10 else ""
        color = ("red", "blue")[(i + (i % 20 == 7)) % 2]  # of most, as otherwise it is the answer
        rows.append(f"{length},{color},{('rose', 'iris')[i % 2]}")
    (tmp_path / "flowers.csv").write_text("\n".join(rows) + "\n")
    yield tmp_path
    sys.modules.pop("flowers", None)


def test_predictions_of_a_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "flowers.py", "--run-dir", "run", "--set", "width=4"]) == 0
    (here / "new.csv").write_text("color,length\nred,2.5\nblue,\n")
    capsys.readouterr()
    assert main(["predict", "run", "new.csv"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header == "prediction,iris,rose"
    assert [line.split(",")[0] for line in lines] == ["rose", "iris"]
    assert main(["predict", "run", "new.csv", "-o", "out.npy", "--step", "latest"]) == 0
    found = np.load("out.npy")
    assert found.shape == (2, 2)
    assert main(["predict", "run", "new.csv", "-o", "out.csv"]) == 0
    assert Path("out.csv").read_text().splitlines() == [header, *lines]
    model = load_model("run")
    scores = [[float(cell) for cell in line.split(",")[1:]] for line in lines]
    assert not any(each.training for each in model.modules())
    assert np.isfinite(model(tensor(np.zeros((1, 3), np.float32))).numpy()).all()
    assert np.abs(np.array(scores)).max() > 0


def test_unsupported_predictions(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "flowers.py", "--run-dir", "run", "--epochs", "1"]) == 0
    (here / "bad.csv").write_text("color,length\ngreen,2.5\n")
    for arguments, told in (
        (["run", "none.csv"], "there is no file or folder none.csv"),
        (["rum", "flowers.csv"], "did you mean run?"),
        (["run", "bad.csv"], "'green' is not one of its categories; they are"),
        (["run", "flowers.csv", "--step", "newest"], "--step takes best, latest or a number"),
        (["run", "flowers.csv", "--step", "77"], "holds no checkpoint of step 77"),
    ):
        capsys.readouterr()
        assert main(["predict", *arguments]) != 0
        assert told in capsys.readouterr().err
