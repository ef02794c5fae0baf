"""A run that goes on with other hyper-parameters than before says so, and goes on."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rumus.optim import SAM, SGD, Adam, ParameterGroup, cosine, warmup
from rumus.tensor import Parameter
from rumus.train import Trainer


def fit(folder: Path, steps: int, make: Any, accumulate: int = 1) -> None:
    weight = Parameter([1.0, 2.0], name="weight")
    trainer = Trainer(make(weight))
    data = [(np.ones(2, np.float32),)] * 4
    trainer.fit(
        data, lambda x: ((weight - x) ** 2).mean(), steps=steps, checkpoints=folder, resume="auto",
        accumulate=accumulate,
    )  # fmt: skip


CASES: dict[str, tuple[Any, Any, str]] = {
    "rate": (lambda w: SGD([w], 0.1), lambda w: SGD([w], 0.3), "lr was 0.1 and is 0.3"),
    "schedule": (
        lambda w: SGD([w], cosine(0.1, 10)),
        lambda w: SGD([w], cosine(0.1, 20)),
        r"lr was cosine\(0.1, 10\) and is cosine\(0.1, 20\)",
    ),
    "group": (
        lambda w: SGD([ParameterGroup([w], lr=0.1)], 0.5),
        lambda w: SGD([ParameterGroup([w], lr=0.2)], 0.5),
        "group 0.lr was 0.1 and is 0.2",
    ),
    "wrapped": (
        lambda w: SAM(SGD([w], 0.1)),
        lambda w: SAM(SGD([w], 0.2)),
        "lr was 0.1 and is 0.2",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_has_changed_is_told(name: str, tmp_path: Path) -> None:
    before, after, told = CASES[name]
    fit(tmp_path, 2, before)
    with pytest.warns(UserWarning, match=f"other hyper-parameters than before: {told}"):
        fit(tmp_path, 4, after)


def test_accumulation(tmp_path: Path) -> None:
    fit(tmp_path, 2, lambda w: SGD([w], 0.1))
    with pytest.warns(UserWarning, match="accumulate was 1 and is 2"):
        fit(tmp_path, 4, lambda w: SGD([w], 0.1), accumulate=2)


@pytest.mark.parametrize(
    "make",
    [
        lambda w: Adam([w], warmup(2).then(cosine(0.1, 10))),
        lambda w: SGD([w], lambda step: 0.1 / step),
        lambda w: SGD([w], np.float64(0.1)),
    ],
)
def test_what_has_not_is_not(make: Any, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(tmp_path, 2, make)
        fit(tmp_path, 4, make)
