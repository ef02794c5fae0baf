"""The digits model in mixed precision learns what it learns in float32."""

from __future__ import annotations

from typing import Final

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from rumus import nn
from rumus.optim import AdamW, LossScale, cosine
from rumus.tensor import Backend, Generator, NumpyBackend, Tensor, float16, no_grad, tensor
from rumus.train import Trainer

BATCH: Final = 50
HELD_OUT: Final = 297
EPOCHS: Final = 12


def train(backend: Backend, *, is_half: bool) -> tuple[float, list[float], int]:
    """The held-out accuracy, the losses of the epochs, and the skipped steps."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    x = (data.data[order] / 16).astype(np.float16 if is_half else np.float32)
    y = data.target[order].astype(np.int32)
    model = digits_model(backend)
    if is_half:
        model.half()
    steps = EPOCHS * ((len(y) - HELD_OUT) // BATCH)
    optimizer = AdamW(model.parameters(), cosine(3e-3, steps), master_weights=is_half)
    trainer = Trainer(optimizer, loss_scale=LossScale(initial=2.0**22) if is_half else None)

    def loss(images: Tensor, digits: Tensor) -> Tensor:
        return nn.cross_entropy_loss(model(images), digits)

    losses = []
    for epoch in range(EPOCHS):
        for rows in np.random.default_rng([1, epoch]).permutation(1500).reshape(-1, BATCH):
            trainer.train_step(loss, x[rows], y[rows])
        losses.append(trainer.epoch_avg_loss())
    return accuracy(model, x[-HELD_OUT:], y[-HELD_OUT:], backend), losses, optimizer.skipped


def digits_model(backend: Backend) -> nn.Sequential:
    random = Generator(0)
    return nn.Sequential(
        nn.Linear(64, 256, generator=random), nn.ReLU(), nn.Dropout(0.3, generator=random),
        nn.Linear(256, 10, generator=random),
    ).to(backend)  # fmt: skip


def accuracy(
    model: nn.Module, x: NDArray[np.floating], y: NDArray[np.int32], backend: Backend
) -> float:
    model.eval()
    with no_grad():
        scores = model(tensor(x, backend=backend))
    assert (scores.dtype == float16) == (x.dtype == np.float16)
    return float((scores.argmax(axis=1).numpy() == y).mean())


def test_mixed_precision() -> None:
    backend = NumpyBackend()
    wide, expected, _ = train(backend, is_half=False)
    half, losses, skipped = train(backend, is_half=True)
    assert wide >= 0.97
    assert half >= 0.97
    assert 0 < skipped < 12
    for found, wanted in zip(losses[3:], expected[3:], strict=True):  # after the skipped steps
        assert found == pytest.approx(wanted, rel=0.08)
