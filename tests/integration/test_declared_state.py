"""`fit` with checkpoints finds the modules that a loss function uses, wherever it keeps them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rumus import nn
from rumus.optim import SGD
from rumus.tensor import Generator, Tensor
from rumus.train import Trainer

X = np.ones((4, 3), np.float32)


class Task:
    """A separate loss."""

    def __init__(self, model: nn.Module) -> None:
        self.models = {"a": [model]}

    def __call__(self, x: Tensor) -> Tensor:
        result: Tensor = self.models["a"][0](x).sum()
        return result

    def method(self, x: Tensor) -> Tensor:
        return self(x)


def decorated(model: nn.Module) -> Callable[..., Tensor]:
    if not list(model.parameters()):
        later = 1.0  # never assigned a value

    def loss(x: Tensor) -> Tensor:
        result: Tensor = model(x).sum()
        return result if x.shape else result * later

    return lambda x: loss(x)


WHERE: list[Callable[[nn.Module], Any]] = [
    Task,
    lambda model: Task(model).method,
    lambda model: partial(lambda m, x: m(x).sum(), model),
    lambda model: partial(lambda x, m: m(x).sum(), m=model),
    decorated,
    lambda model: lambda x, models=[model]: models[0](x).sum(),
]


@pytest.mark.parametrize("where", WHERE)
def test_a_module_with_a_state_is_declared(
    where: Callable[[nn.Module], Any], tmp_path: Path
) -> None:
    model = nn.Sequential(nn.Linear(3, 2, generator=Generator(0)), nn.BatchNorm1d(2))
    trainer = Trainer(SGD(model.parameters(), 0.1))
    with pytest.raises(ValueError, match=r"running_mean.* changes while training and would not"):
        trainer.fit([(X,)], where(model), epochs=1, checkpoints=tmp_path)
    assert trainer.optimizer.steps == 0
    trainer = Trainer(trainer.optimizer, state={"model": model})
    trainer.fit([(X,)], where(model), epochs=1, checkpoints=tmp_path)
    assert trainer.optimizer.steps == 1
