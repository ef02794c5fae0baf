"""`Trainer.fit` on each backend: captured steps, losses read later, and late refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.optim import SGD, AdamW, Optimizer
from rumus.tensor import Backend, NonFiniteGradientError, Parameter, Tensor
from rumus.train import Callback, Every, StepEnd, Trainer

Batch = tuple[NDArray[Any], ...]


def batches(*bad: int) -> list[Batch]:
    random = np.random.default_rng(3)
    data: list[Batch] = [
        (random.normal(size=(n, 2)).astype(np.float32),) for n in (4, 4, 4, 4, 4, 3)
    ]
    for number in bad:
        data[number][0][0, 1] = np.nan
    return data


class Model:
    def __init__(self, backend: Backend, kind: type[Any] = SGD, **options: Any) -> None:
        self.weight = Parameter([0.5, -1.0], name="weight", backend=backend)
        self.optimizer: Optimizer[Any] = kind([self.weight], 0.1, **options)
        self.trainer = Trainer(self.optimizer)

    def loss(self, x: Tensor) -> Tensor:
        return ((self.weight * x - 1.0) ** 2).mean()


def test_it_is_the_loop_by_hand(backend: Backend) -> None:
    fitted, by_hand, data = Model(backend, AdamW), Model(backend, AdamW), batches()
    result = fitted.trainer.fit(data, fitted.loss, epochs=3)
    losses = []
    for _ in range(3):
        for (x,) in data:
            by_hand.trainer.train_step(by_hand.loss, x, weight=len(x))
        losses.append(by_hand.trainer.epoch_avg_loss())
    assert fitted.weight.tolist() == by_hand.weight.tolist()
    assert [entry["loss"] for entry in result.history] == losses


def test_accumulation(backend: Backend) -> None:
    model, joined, data = Model(backend, momentum=0.9), Model(backend, momentum=0.9), batches()
    result = model.trainer.fit(data, model.loss, epochs=3, accumulate=4)
    windows = [(np.concatenate([x for (x,) in part]),) for part in (data[:4], data[4:])]
    expected = joined.trainer.fit(windows, joined.loss, epochs=3)
    np.testing.assert_allclose(model.weight.numpy(), joined.weight.numpy(), rtol=1e-5)
    for mine, theirs in zip(result.history, expected.history, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-6)


def test_raise(backend: Backend) -> None:
    model = Model(backend)
    with pytest.raises(NonFiniteGradientError, match="'weight'"):
        model.trainer.fit(batches(3), model.loss, epochs=1)
    assert model.optimizer.steps == 3


def test_skip(backend: Backend) -> None:
    model, other, data = Model(backend), Model(backend), batches(0, 2)
    result = model.trainer.fit(data, model.loss, epochs=1, nonfinite="skip")
    expected = other.trainer.fit([data[n] for n in (1, 3, 4, 5)], other.loss, epochs=1)
    assert (model.optimizer.steps, model.optimizer.skipped) == (4, 2)
    assert model.weight.tolist() == other.weight.tolist()
    assert result.history[0]["loss"] == expected.history[0]["loss"]


class Read(Callback):
    """Reads the device, so that it reports each step's outcome at once."""

    def on_step_end(self, event: StepEnd) -> None:
        event.loss.item()


def test_rollback(backend: Backend) -> None:
    model, other, data = Model(backend, momentum=0.9), Model(backend, momentum=0.9), batches(2)
    with pytest.warns(RuntimeWarning, match="rolled back"):
        model.trainer.fit(data, model.loss, epochs=1, nonfinite="rollback", callbacks=[Read()])
    other.trainer.fit(data[3:], other.loss, epochs=1)
    assert model.weight.tolist() == other.weight.tolist()
    assert model.optimizer.steps == 3


@pytest.mark.parametrize("stop", [1, 4, 6, 11])
def test_resume(backend: Backend, stop: int, tmp_path: Path) -> None:
    def train(steps: int, folder: Path | None) -> tuple[Any, ...]:
        model = Model(backend, AdamW)
        result = model.trainer.fit(
            batches(), model.loss, steps=steps, checkpoints=folder,
            resume=folder is not None and "auto", save_every=Every(),
        )  # fmt: skip
        return model.weight.tolist(), result.history

    train(stop, tmp_path)
    assert train(15, tmp_path) == train(15, None)
