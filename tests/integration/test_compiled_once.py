"""A new process compiles nothing: numba's cache holds everything that a training step needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

pytest.importorskip("numba")

PROGRAM: Final = """
import numpy as np
from numba.core import event
from numba.core.ccallback import CFunc
from rumus import nn
from rumus.optim import AdamW
from rumus.tensor import Generator, NumbaBackend
from rumus.train import Trainer

compiled = []

class Count(event.Listener):
    def on_start(self, e): compiled.append(e.data["dispatcher"].py_func.__name__)
    def on_end(self, e): pass

event.register("numba:compile", Count())
uncached = CFunc._compile_uncached

def count(function):  # functions that are called by address tell nobody
    compiled.append(function.__name__)
    return uncached(function)

CFunc._compile_uncached = count

backend, random = NumbaBackend(), np.random.default_rng(0)
model = nn.Sequential(
    nn.Linear(64, 128, generator=Generator(0)),
    nn.ReLU(),
    nn.Linear(128, 256, generator=Generator(1)),
)
model.to(backend)
trainer = Trainer(AdamW(model.parameters()))
x = random.random((64, 64), np.float32)
y = random.integers(0, 256, 64, np.int32)
for _ in range(4):
    loss = trainer.train_step(lambda x, y: nn.cross_entropy_loss(model(x), y), x, y)
print(trainer.counts.replayed, float(loss).hex())
print(*sorted(set(compiled)))
"""


def run(folder: Path) -> tuple[str, set[str]]:
    """The losses that a process prints, and the names of the functions it compiled."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=environment
    )
    loss, compiled = done.stdout.splitlines()
    return loss, set(compiled.split())


def test_a_new_process_compiles_nothing_of_a_training_step(tmp_path: Path) -> None:
    loss, compiled = run(tmp_path)
    assert loss.startswith("2 ")
    assert {"loop", "_cross_entropy", "_cross_entropy_gradient"} <= compiled
    assert run(tmp_path) == (loss, set())
