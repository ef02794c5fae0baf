"""Trainer with optimizers that need the loss several times or wrap others; also on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest

from rumus.gpu import default_backend
from rumus.optim import LBFGS, SAM, AdamW, Lookahead, Muon
from rumus.tensor import (
    Backend,
    NonFiniteGradientError,
    NumpyBackend,
    Parameter,
    Tensor,
    UnclaimedGradientError,
    tensor,
)
from rumus.train import Trainer
from rumus.train.loop.gradient_norm import gradient_norm, learning_rate

KINDS: Final[dict[str, Callable[[Any], Any]]] = {
    "Muon": lambda p: Muon(p, 0.02),
    "Lookahead": lambda p: Lookahead(AdamW(p, 0.02), k=2),
    "SAM": lambda p: SAM(AdamW(p, 0.02)),
    "SAM, Lookahead, Muon": lambda p: SAM(Lookahead(Muon(p, 0.02), k=2), adaptive=True),
    "LBFGS": lambda p: LBFGS(p, max_iter=4),
}


class Model:
    def __init__(self, backend: Backend) -> None:
        draw = np.random.default_rng(2)
        shapes = {"first": (6, 9), "bias": (9,), "second": (9, 4)}
        self.named = {n: Parameter(draw.normal(size=s) / 3, name=n, backend=backend)
                      for n, s in shapes.items()}  # fmt: skip
        self.parameters = list(self.named.values())
        self.x = draw.normal(size=(16, 6)).astype(np.float32)
        self.y = draw.normal(size=(16, 4)).astype(np.float32)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        first, bias, second = self.parameters
        return (((x @ first + bias).tanh() @ second - y) ** 2).mean()


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_trainer_steps_them(kind: str, backend: Backend) -> None:
    """Recorded or not, the losses are bit for bit the same, and fall."""
    found = []
    for capture in (True, False):
        model = Model(backend)
        trainer = Trainer(KINDS[kind](model.parameters), capture=capture)
        losses = [trainer.train_step(model.loss, model.x, model.y) for _ in range(6)]
        found.append([float(loss) for loss in losses])
        assert trainer.epoch_avg_loss() == pytest.approx(np.mean(found[-1]))
    assert found[0] == found[1]
    assert found[0][-1] < found[0][0]


def test_a_trainer_refuses_parameters_they_do_not_own(backend: Backend) -> None:
    for kind in KINDS.values():
        model = Model(backend)
        trainer = Trainer(kind(model.parameters[:2]))
        before = [p.numpy().tobytes() for p in model.parameters]
        with pytest.raises(UnclaimedGradientError, match="'second', not owned by"):
            trainer.train_step(model.loss, model.x, model.y)
        assert [p.numpy().tobytes() for p in model.parameters] == before


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "LBFGS"])
def test_a_step_on_a_gpu_reads_nothing(kind: str) -> None:
    backend = default_backend()
    model = Model(backend)
    optimizer = KINDS[kind](model.parameters)
    x, y = (tensor(a, backend=backend) for a in (model.x, model.y))

    def step() -> None:
        if isinstance(optimizer, SAM):
            optimizer.minimize_step(lambda: model.loss(x, y))
        else:
            optimizer.step(model.loss(x, y).backward())

    step()
    backend.download(x._array)
    before = backend.stats.bytes_down
    for _ in range(5):
        step()
    assert backend.stats.bytes_down == before
    assert optimizer.steps == 6


def test_a_bad_batch_is_reported_by_the_end_of_the_epoch(backend: Backend) -> None:
    model = Model(backend)
    trainer = Trainer(SAM(AdamW(model.parameters, 0.02)))
    model.x[0, 0] = np.nan
    before = [p.numpy().tobytes() for p in model.parameters]

    def epoch() -> None:
        trainer.train_step(model.loss, model.x, model.y)
        trainer.epoch_avg_loss()

    with pytest.raises(NonFiniteGradientError, match="'first'"):
        epoch()
    assert [p.numpy().tobytes() for p in model.parameters] == before


def test_fit_tells_the_base_what_to_do_with_a_bad_batch() -> None:
    """And reads the learning rate and the gradient norm from it."""
    model = Model(NumpyBackend())
    optimizer = SAM(AdamW(model.parameters, 0.02))
    bad = np.full_like(model.x, np.nan)
    loader = [(model.x, model.y), (bad, model.y), (model.x, model.y)]
    Trainer(optimizer).fit(loader, model.loss, epochs=1, nonfinite="skip")
    assert optimizer.nonfinite == "skip"
    assert (optimizer.steps, optimizer.skipped) == (2, 1)
    assert learning_rate(optimizer) == 0.02
    assert gradient_norm(optimizer) is not None
