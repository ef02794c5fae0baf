"""Warnings point at the line of the program that they are about."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from rumus.optim import EMA, SGD
from rumus.tensor import Parameter, Tensor
from rumus.tensor.expression.user_warning import warn_user
from rumus.train import ArrayDataset, DataLoader, Every, Trainer


def parameter() -> Parameter:
    return Parameter(np.ones(2, np.float32), name="w")


def batches() -> DataLoader:
    return DataLoader(ArrayDataset(np.ones((4, 2), np.float32)), 2)


def of_a_function() -> None:
    warn_user("here")


def of_a_block() -> None:
    w = parameter()
    optimizer = SGD([w], 0.1, average=EMA(0.5))
    optimizer.step((w * 2.0).sum().backward())
    w.assign(3.0)
    with optimizer.eval_params():
        pass


def of_a_loop() -> None:
    loader = batches()
    next(iter(loader))
    next(iter(loader))


def of_a_training() -> None:
    w = parameter()

    def loss(x: Tensor) -> Tensor:
        return (w * x).sum()

    Trainer(SGD([w], 0.1)).fit(
        batches(), loss, steps=2, validate=lambda: {"loss": 0.0}, validate_every=Every(steps=100)
    )


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (of_a_function, "here"),
        (of_a_block, "was assigned after the last step"),
        (of_a_loop, "begins with batch 1"),
        (of_a_training, "never validates"),
    ],
)
def test_a_warning_points_at_the_program(act: Callable[[], None], told: str) -> None:
    with pytest.warns(UserWarning, match=told) as found:
        act()
    assert {each.filename for each in found} == {__file__}
