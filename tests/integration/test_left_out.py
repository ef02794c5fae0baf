"""What is left out of a call changes nothing, or is asked for by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus import nn
from rumus.optim import SGD
from rumus.tensor import Generator, Tensor
from rumus.train import Trainer

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(16, 4)).astype(np.float32)
HELD_OUT = RANDOM.normal(100, 5, size=(16, 4)).astype(np.float32)


def model() -> nn.Sequential:
    random = Generator(0)
    return nn.Sequential(
        nn.BatchNorm1d(4),
        nn.Dropout(0.5, generator=random),
        nn.Linear(4, 1, generator=random),
    )


@pytest.mark.parametrize("hidden", ["closure", "list", "made in validation"])
def test_validation_without_state(hidden: str) -> None:
    """Wherever the model is, it does not train on what it is validated with."""

    def run(declared: bool) -> tuple[dict[str, NDArray[Any]], float, list[bool]]:
        made, modes = model(), list[bool]()
        held: list[Any] = [made]
        state = {"model": made} if declared else None
        trainer = Trainer(SGD(made.parameters(), 0.01), state=state)

        def loss(x: Tensor) -> Tensor:
            out: Tensor = held[0](x)
            return (out**2).mean()

        def validate(x: Tensor) -> Tensor:
            modes.extend(module.training for module in made.modules())
            used = {"closure": made, "list": held[0], "made in validation": nn.Sequential(made)}
            out: Tensor = used[hidden](x)
            return (out**2).mean()

        result = trainer.fit([(X,)], loss, epochs=2, validate=([(HELD_OUT,)], validate))
        assert made.training
        return made.state_dict(), result.metrics["loss"], modes

    (declared, its_loss, _), (left_out, loss, modes) = run(True), run(False)
    for name, value in declared.items():
        np.testing.assert_array_equal(left_out[name], value)
    assert loss == its_loss
    assert not any(modes)


def test_a_module_may_be_switched_within_a_validation() -> None:
    """As for Monte Carlo dropout; and one that is left evaluating trains on."""
    made = model()
    trainer, seen = Trainer(SGD(made.parameters(), 0.01)), []

    def validate() -> float:
        seen.append(made[1].training)
        made[1].train()
        seen.append(made[1].training)
        made[2].eval()
        return 0.0

    trainer.fit([(X,)], lambda x: (made(x) ** 2).mean(), epochs=2, validate=validate)
    assert seen == [False, True] * 2
    assert all(module.training for module in made.modules())
