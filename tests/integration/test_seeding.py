"""One seed determines weights, dropout, order and transforms; without one each process differs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from rumus.tensor import next_generator, run_seed, seed

PROGRAM: Final = """
import hashlib, json, sys
sys.modules["numba"] = None  # compiling takes longer than all of it
import numpy as np
from rumus import nn
from rumus.optim import SGD
from rumus.tensor import run_seed, seed
from rumus.train import ArrayDataset, DataLoader, RunFolder, Trainer, images

given, folder, steps, resume = json.loads(sys.argv[1])
if given is not None:
    seed(given)
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Dropout(0.5), nn.Linear(4, 3))
first = hashlib.sha256(model[1].weight.numpy().tobytes()).hexdigest()
x = np.random.default_rng(0).normal(size=(20, 8, 8, 1)).astype(np.float32)
augment = images.Augment(images.Crop(8, padding=1), images.Flip(), images.Normalize())
loader = DataLoader(ArrayDataset(x, np.arange(20) % 3), 4, shuffle=True, transform=augment)
trainer = Trainer(SGD(model.parameters(), 0.05), state={"model": model})
run = RunFolder(folder, tensorboard=False, report=False)
trainer.fit(loader, lambda a, b: nn.cross_entropy_loss(model(a), b), steps=steps,
            callbacks=[run], checkpoints=run.checkpoints, resume=resume)
last = hashlib.sha256(model[3].weight.numpy().tobytes()).hexdigest()
recorded = json.loads((run.path / "env.json").read_text())["starts"][0]["seed"]
print(json.dumps({"seed": run_seed(), "recorded": recorded, "first": first, "last": last}))
"""


def run(
    given: int | None, folder: Path, steps: int = 12, resume: bool = False
) -> dict[str, object]:
    arguments = json.dumps([given, str(folder), steps, resume])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, arguments], capture_output=True, text=True, check=True
    )
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_unseeded_processes_differ_and_say_their_seeds(tmp_path: Path) -> None:
    found = [run(None, tmp_path / str(i)) for i in range(5)]
    for name in ("seed", "first", "last"):
        assert len({each[name] for each in found}) == 5
    assert all(each["recorded"] == each["seed"] for each in found)
    again = run(int(str(found[0]["recorded"])), tmp_path / "again")
    assert again == found[0]


def test_an_unseeded_run_resumes_in_another_process(tmp_path: Path) -> None:
    """With the order and the transforms that it started with."""
    whole = run(None, tmp_path / "whole")
    given = int(str(whole["recorded"]))
    run(given, tmp_path / "cut", steps=7)
    resumed = run(None, tmp_path / "cut", resume=True)
    assert resumed["seed"] != given
    assert resumed["last"] == whole["last"]


def test_the_rule() -> None:
    assert seed(3) == run_seed() == 3
    first = [next_generator().words((4,)).tolist() for _ in range(2)]
    assert first[0] != first[1]
    seed(3)
    assert [next_generator().words((4,)).tolist() for _ in range(2)] == first
    assert len({seed() for _ in range(5)}) == 5
    for bad in (-1, 2**32):
        with pytest.raises(ValueError, match="seed must be in"):
            seed(bad)
