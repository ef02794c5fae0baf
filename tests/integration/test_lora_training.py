"""Training adapters: only they are owned, captured on GPU and CPU, with frozen bits untouched."""

from __future__ import annotations

import numpy as np
import pytest

from rumus import nn
from rumus.nn.frozen_linear import Storage
from rumus.optim import AdamW
from rumus.tensor import Backend, Generator, NumpyBackend, Tensor, tensor
from rumus.train import Trainer


def losses(backend: Backend, storage: Storage) -> list[float]:
    """The losses of a few steps, after checking that only the adapters moved."""
    random = Generator(0)
    model = nn.Sequential(
        nn.Linear(20, 64, generator=random), nn.Tanh(), nn.Linear(64, 5, generator=random)
    )
    model.to(backend)
    adapters = nn.lora(model, 4, storage=storage, generator=random)
    before = model.state_dict()
    optimizer = AdamW(model.parameters(), 0.03)
    assert optimizer.memory().state == AdamW.planned_memory(adapters.parameters(), 0.03).state
    trainer = Trainer(optimizer)

    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        return nn.cross_entropy_loss(model(x), y)

    numbers = np.random.default_rng(0)
    x = numbers.normal(size=(16, 20)).astype(np.float32)
    y = numbers.integers(0, 5, 16).astype(np.int32)
    batch = tensor(x, backend=backend), tensor(y, backend=backend)
    found = [trainer.train_step(loss_of, *batch).item() for _ in range(8)]
    for name, array in model.state_dict().items():
        has_moved = array.tobytes() != before[name].tobytes()
        assert has_moved is name.endswith(("lora_A", "lora_B")), name
    return [float(loss) for loss in found]


@pytest.mark.parametrize("storage", ["same", "float16", "8bit"])
def test_training(backend: Backend, storage: Storage) -> None:
    found = losses(backend, storage)
    assert found[-1] < 0.7 * found[0]
    np.testing.assert_allclose(found, losses(NumpyBackend(), storage), rtol=2e-4)
