"""A learning rate that is 0 before the run ends."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from rumus.optim import SAM, SGD, ParameterGroup, constant, cosine, linear, warm_restarts, warmup
from rumus.tensor import Parameter, Tensor
from rumus.train import Trainer

DATA = [(np.ones(2, np.float32),)] * 10


def _told(
    rate: Any, *, other: Any = None, before: int = 0, wrapped: bool = False, **given: Any
) -> list[str]:
    first, second = Parameter([1.0], name="first"), Parameter([1.0], name="second")
    groups = [ParameterGroup([first])]
    groups.append(ParameterGroup([second]) if other is None else ParameterGroup([second], lr=other))
    optimizer: Any = SGD(groups, rate)
    if wrapped:
        optimizer = SAM(optimizer)

    def loss(x: Tensor) -> Tensor:
        return ((first - x) ** 2).mean() + ((second - x) ** 2).mean()

    trainer = Trainer(optimizer)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if before:
            trainer.fit(DATA, loss, steps=before)
        trainer.fit(DATA, loss, **given)
    return [str(w.message) for w in caught]


@pytest.mark.parametrize(
    "given",
    [
        {"rate": cosine(0.1, 10), "epochs": 2},
        {"rate": cosine(0.1, 10), "steps": 12},
        {"rate": warmup(2).then(linear(0.1, 0.0, 8)), "epochs": 2},
        {"rate": cosine(0.1, 10), "epochs": 2, "wrapped": True},
        {"rate": cosine(0.1, 10), "other": linear(0.1, 0.0, 5), "epochs": 2},
        {"rate": cosine(0.1, 10), "before": 6, "epochs": 1},
        {"rate": cosine(0.1, 3), "accumulate": 2, "epochs": 1},
    ],
)
def test_a_schedule_that_ends_at_0_before_the_run(given: dict[str, Any]) -> None:
    (told,) = _told(**given)
    length = 3 if "accumulate" in given else 10
    assert f"it is 0 after step {length}, but the run ends with step" in told
    assert "give the schedule the steps of the run" in told


@pytest.mark.parametrize(
    "given",
    [
        {"rate": 0.1, "epochs": 2},
        {"rate": cosine(0.1, 10), "epochs": 1},
        {"rate": cosine(0.1, 10), "steps": 11},  # counted from 0, perhaps
        {"rate": cosine(0.1, 10, 0.01), "epochs": 2},
        {"rate": cosine(0.1, 100), "epochs": 2},
        {"rate": cosine(0.1, 10).then(constant(0.01)), "epochs": 2},
        {"rate": warm_restarts(0.1, 3), "epochs": 2},
        {"rate": lambda step: 0.1, "epochs": 2},
        {"rate": cosine(0.1, 10), "other": 0.1, "epochs": 2},
        {"rate": cosine(0.1, 6), "accumulate": 2, "epochs": 1},
        {"rate": cosine(0.1, 10), "seconds": 0.01},
    ],
)
def test_others(given: dict[str, Any]) -> None:
    assert _told(**given) == []
