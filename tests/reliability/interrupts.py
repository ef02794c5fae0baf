"""Raises from signal handlers inside operations, and counts torn states: docs/reliability.md.

PYTHONPATH=tests/support python tests/reliability/interrupts.py
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from interrupted import CASES, Prepared, attempts
from interrupted_training import DISPLACED, loading, saving
from reliability_page import write_block
from uncounted_passes import Centred

from rumus import nn
from rumus.optim import LBFGS, SAM, AdamW
from rumus.tensor import Generator
from rumus.train import Trainer

LINES: Final = 150  # per operation
X: Final = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)


def _train_step(make: Callable[[Any], Any]) -> Prepared:
    """A step of a model with running statistics, an assigned buffer, and random masks."""
    masks = Generator(7)
    model = nn.Sequential(
        nn.BatchNorm1d(3),
        Centred(3),
        nn.Linear(3, 2, generator=Generator(0)),
        nn.Dropout(0.5, generator=masks),
    )
    optimizer = make(model.parameters())
    trainer = Trainer(optimizer)

    def act() -> None:
        trainer.train_step(lambda x: (model(x) ** 2).mean(), X)

    def seen() -> tuple[Any, ...]:
        arrays = {name: array.tobytes() for name, array in model.state_dict().items()}
        return arrays, masks.position, optimizer.steps

    return act, seen


def main() -> None:
    """Try everything, write the table; exit code 1 if a signal was lost or tore an operation."""
    lines = ["| interrupted at a line of | signals | torn | lost |", "|---|---:|---:|---:|"]
    total = bad = 0
    with tempfile.TemporaryDirectory() as folder:
        cases = {
            **CASES,
            **DISPLACED,
            "train_step, with buffers and random masks": lambda: _train_step(AdamW),
            "train_step of SAM, with them": lambda: _train_step(lambda p: SAM(AdamW(p))),
            "train_step of LBFGS, with them": lambda: _train_step(lambda p: LBFGS(p, max_iter=3)),
            "saving a checkpoint": lambda: saving(Path(folder)),
            "loading a checkpoint": lambda: loading(Path(folder)),
        }
        torn = lost = 0
        for name, prepare in cases.items():
            found = list(attempts(prepare, LINES, name))
            torn_here = sum(each.is_torn for each in found)
            lost_here = sum(each.is_lost for each in found)
            lines.append(f"| {name} | {len(found):,} | {torn_here} | {lost_here} |")
            total, torn, lost = total + len(found), torn + torn_here, lost + lost_here
            print(name, [each for each in found if each.is_torn or each.is_lost], file=sys.stderr)
        bad = torn + lost
        lines.append(f"| all | {total:,} | {torn} | {lost} |")
    write_block("interrupts", lines)
    raise SystemExit(bool(bad))


if __name__ == "__main__":
    main()
