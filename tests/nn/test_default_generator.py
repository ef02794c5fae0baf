"""A program without a seed gets the same weights at each run, and no two layers the same."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
from rumus import nn
model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Embedding(3, 3), nn.Dropout())
print(repr([p.tolist() for p in model.parameters()]), model[3].generator)
"""


def run_program() -> str:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    ).stdout


def test_two_runs_of_one_program_are_equal() -> None:
    first = run_program()
    assert first == run_program()
    weights = eval(first.partition(" Generator")[0])
    assert len({repr(w) for w in weights}) == len(weights) == 5
