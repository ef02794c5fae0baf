"""`Trainer.fit` with modules: their state is part of a checkpoint, and resumes bit for bit."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rumus import nn
from rumus.optim import AdamW, ScheduleFreeAdamW
from rumus.tensor import Generator, Tensor, tensor
from rumus.train import (
    ArrayDataset,
    Callback,
    Checkpoints,
    DataLoader,
    Every,
    Interrupted,
    StepEnd,
    Trainer,
)


class Counted(nn.Module):
    """A model with dropout, and with a buffer that counts the samples it has seen."""

    def __init__(self) -> None:
        random = Generator(1)
        self.hidden = nn.Linear(4, 8, generator=random)
        self.dropout = nn.Dropout(0.4, generator=Generator(2))
        self.output = nn.Linear(8, 2, generator=random)
        self.seen = tensor(np.zeros((), np.float32))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen.assign(self.seen + float(x.shape[0]))
        return self.output(self.dropout(self.hidden(x).tanh())) * (1.0 + 0.001 * self.seen.item())


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step
        self.losses: list[float] = []

    def on_step_end(self, event: StepEnd) -> None:
        self.losses.append(event.loss.item())
        if event.step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def train(
    kind: Any, folder: Path | None, stop_at: int = -1
) -> tuple[list[float], dict[str, Any], Any]:
    model, log = Counted(), StopAt(stop_at)
    random = np.random.default_rng(0)
    x = random.normal(size=(22, 4)).astype(np.float32)
    data = ArrayDataset(x, (x[:, 0] > 0).astype(np.int32))
    trainer = Trainer(kind(model.parameters(), 0.05), state={"model": model})

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return nn.cross_entropy_loss(model(x), y)

    metrics: Any = None
    try:
        result = trainer.fit(
            DataLoader(data, 4, shuffle=True), loss, steps=30, callbacks=[log],
            validate=(DataLoader(data, 11), loss), validate_every=Every(steps=5),
            checkpoints=folder, save_every=Every(), resume=folder is not None and "auto",
        )  # fmt: skip
        metrics = result.history
    except Interrupted:
        pass
    return log.losses, model.state_dict(), metrics


@pytest.mark.parametrize("kind", [AdamW, ScheduleFreeAdamW])
def test_dropout_and_buffers(kind: Any, tmp_path: Path) -> None:
    whole, state, history = train(kind, None)
    for step in (1, 5, 6, 17, 29):
        folder = tmp_path / str(step)
        first, _, _ = train(kind, folder, step)
        second, resumed, metrics = train(kind, folder)
        assert first + second == whole
        assert metrics == history
        for name, value in state.items():
            np.testing.assert_array_equal(value, resumed[name])


def test_parameters_are_saved_with_their_module(tmp_path: Path) -> None:
    train(AdamW, tmp_path)
    found = Checkpoints(tmp_path).load().state
    assert found["parameters"] == {}
    assert sorted(found["model"]) == [
        "hidden.bias", "hidden.weight", "output.bias", "output.weight", "seen",
    ]  # fmt: skip
    assert set(found["random"]) == {"model.dropout.generator"}


def test_a_module_that_would_not_be_saved_is_refused(tmp_path: Path) -> None:
    """Otherwise the masks would start over after a resume."""
    model = nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.5))
    optimizer = AdamW(model.parameters())
    data = [(np.ones((2, 4), np.float32),)]

    def loss(x: Tensor) -> Tensor:
        return model(x).mean()

    with pytest.raises(ValueError, match=r"uses 'model', whose '1.generator' .*state=\{'model'"):
        Trainer(optimizer).fit(data, loss, epochs=1, checkpoints=tmp_path)
    assert optimizer.steps == 0
    Trainer(optimizer).fit(data, loss, epochs=1)  # without saving, nothing is lost
    trainer = Trainer(optimizer, state={"net": model})
    trainer.fit(data, loss, epochs=1, checkpoints=tmp_path)


def test_the_average_of_a_schedule_free_optimizer_is_validated() -> None:
    model = nn.Linear(2, 1, generator=Generator(0))
    optimizer = ScheduleFreeAdamW(model.parameters(), 0.1)
    seen: list[Any] = []

    def validate() -> float:
        seen.append(model.weight.numpy())
        return 0.0

    data = [(np.ones((2, 2), np.float32),)] * 5
    Trainer(optimizer).fit(data, lambda x: (model(x) ** 2).mean(), epochs=1, validate=validate)
    with optimizer.eval_params():
        np.testing.assert_array_equal(seen[0], model.weight.numpy())
    assert not np.array_equal(seen[0], model.weight.numpy())
