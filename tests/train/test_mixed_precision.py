"""`Trainer(loss_scale=...)`: float16 storage, captured steps, accumulation, and logging."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pytest

from rumus.optim import LBFGS, SGD, AdamW, ClipNorm, LossScale
from rumus.tensor import Backend, NonFiniteGradientError, Parameter, Tensor, float16, float32
from rumus.train import Callback, StepEnd, Trainer

STEPS: Final = 24


class Model:
    """Two float16 layers whose first gradients overflow at the initial scale."""

    def __init__(
        self, backend: Backend, policy: LossScale | None, *, capture: bool = True, **options: Any
    ) -> None:
        random = np.random.default_rng(0)
        values = random.normal(size=(4, 8)), random.normal(size=(8, 1))
        self.hidden, self.output = (
            Parameter(value * 0.5, dtype=float16, name=name, backend=backend)
            for name, value in zip(("hidden", "output"), values, strict=True)
        )
        owned = [self.hidden, self.output]
        self.optimizer = AdamW(owned, 0.02, master_weights=True, **options)
        self.trainer = Trainer(self.optimizer, capture=capture, loss_scale=policy)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        found = (x @ self.hidden).tanh() @ self.output
        return ((found.astype(float32) - y) ** 2).mean()

    def bits(self) -> list[bytes]:
        entries = self.optimizer.state_dict()["parameters"].values()
        return [array.tobytes() for entry in entries for array in entry["state"].values()]


def batches(rows: int = 6) -> list[tuple[Any, Any]]:
    random = np.random.default_rng(2)
    x = random.normal(size=(STEPS, rows, 4)).astype(np.float16)
    return [(part, part.sum(1, keepdims=True, dtype=np.float32)) for part in x]


LARGE: Final = LossScale(initial=2.0**20, every=6, maximum=2.0**20)


def test_captured_steps_are_the_eager_ones_and_read_nothing(backend: Backend) -> None:
    stats = getattr(backend, "stats", None)
    found = []
    for capture in (True, False):
        model = Model(backend, LARGE, capture=capture, clip=ClipNorm(1.0))
        losses = []
        for number, batch in enumerate(batches()):
            down = 0 if stats is None else stats.bytes_down
            losses.append(model.trainer.train_step(model.loss, *batch))
            assert stats is None or stats.bytes_down == down, number
        optimizer = model.optimizer
        assert optimizer.steps + optimizer.skipped == STEPS
        assert 2 < optimizer.skipped < STEPS / 2
        assert model.trainer.loss_scale is not None
        scale = model.trainer.loss_scale.item()
        found.append((model.bits(), [loss.item() for loss in losses], scale, optimizer.skipped))
    assert found[0] == found[1]


def test_it_learns_as_in_float32(backend: Backend) -> None:
    model = Model(backend, LossScale(initial=256.0))
    result = model.trainer.fit(batches(), model.loss, epochs=3)
    assert model.optimizer.skipped == 0
    losses = [entry["loss"] for entry in result.history]
    plain = Model(backend, None)
    wide = [
        Parameter(p.numpy(), dtype=float32, backend=backend) for p in plain.optimizer.parameters
    ]
    plain.hidden, plain.output = wide
    expected = Trainer(AdamW(wide, 0.02)).fit(batches(), plain.loss, epochs=3)
    for found, entry in zip(losses, expected.history, strict=True):
        assert found == pytest.approx(entry["loss"], rel=0.01)
    assert losses[-1] < 0.5 * losses[0]


def test_accumulated_gradients_may_be_larger_than_float16(backend: Backend) -> None:
    """Each is below 65504, but not their sum over 24 samples; nothing is lost to rounding."""
    policy = LossScale(initial=2.0**13)
    model, joined = Model(backend, policy), Model(backend, policy)
    result = model.trainer.fit(batches(), model.loss, steps=2, accumulate=4)
    windows = [tuple(map(np.concatenate, zip(*batches()[n : n + 4], strict=True))) for n in (0, 4)]
    joined.trainer.fit(windows, joined.loss, steps=2)
    assert result.steps == 2
    assert (model.optimizer.skipped, joined.optimizer.skipped) == (0, 0)
    for p, q in zip(model.optimizer.parameters, joined.optimizer.parameters, strict=True):
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=0.01, atol=1e-3)


def test_norms_are_those_of_the_gradients(backend: Backend) -> None:
    class Norms(Callback):
        def __init__(self) -> None:
            self.found: list[float] = []

        def on_step_end(self, event: StepEnd) -> None:
            norm = event.gradient_norm()
            assert norm is not None
            self.found.append(norm.item())

    logged = []
    for policy in (None, LossScale(initial=32.0, every=1)):
        norms = Norms()
        model = Model(backend, policy)
        model.trainer.fit(batches(), model.loss, steps=4, callbacks=[norms])
        logged.append(norms.found)
    np.testing.assert_allclose(logged[0], logged[1], rtol=2e-3)


def test_a_loss_beyond_any_scale(backend: Backend) -> None:
    model = Model(backend, LossScale(initial=4.0))
    data = batches()
    data[1][0][0, 0] = np.nan
    assert model.trainer.fit(data, model.loss, steps=8).steps == 8
    assert model.optimizer.skipped == 1
    spoiled = [(x * np.float16("nan"), y) for x, y in data]
    with pytest.raises(NonFiniteGradientError, match="its minimum"):
        model.trainer.fit(spoiled, model.loss, epochs=1)


def test_another_trainer_of_the_same_optimizer(backend: Backend) -> None:
    model = Model(backend, LossScale(initial=8.0, every=1))
    model.trainer.fit(batches(), model.loss, steps=2)
    second = Trainer(model.optimizer)
    second.fit(batches(), model.loss, steps=2)
    assert second.loss_scale is not None
    assert second.loss_scale.item() == 128.0


def test_without_a_scale(backend: Backend) -> None:
    assert Trainer(SGD([Parameter([1.0], backend=backend)], 0.1)).loss_scale is None


def test_optimizers_that_take_none() -> None:
    with pytest.raises(TypeError, match=r"LBFGS .* takes no loss scale"):
        Trainer(LBFGS([Parameter([1.0])]), loss_scale=LossScale())
