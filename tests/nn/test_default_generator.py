"""A program with a seed gets the same weights at each run; one without gets different ones."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
from rumus import nn
from rumus.tensor import seed
{}
model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Embedding(3, 3), nn.Dropout())
print(repr([p.tolist() for p in model.parameters()]), model[3].generator)
"""


def run_program(first: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(first)], capture_output=True, text=True, check=True
    ).stdout


def test_runs_of_one_program_are_equal_if_it_has_a_seed() -> None:
    first = run_program("seed(3)")
    assert first == run_program("seed(3)")
    assert first != run_program("seed(4)")
    assert run_program("") != run_program("")


def test_no_two_layers_are_the_same() -> None:
    first = run_program("seed(3)")
    weights = eval(first.partition(" Generator")[0])
    assert len({repr(w) for w in weights}) == len(weights) == 5
