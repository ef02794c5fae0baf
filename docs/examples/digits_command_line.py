"""Handwritten digits, set up for the command line.

    rumus train docs/examples/digits_command_line.py --set optim.lr=1e-3 --run-dir runs/digits
    rumus resume runs/digits --epochs 40
    rumus find-lr docs/examples/digits_command_line.py --picture lr.png

The dataclasses hold every setting; `rumus train` saves them in the run folder.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from sklearn.datasets import load_digits

from rumus import nn
from rumus.optim import AdamW, warmup
from rumus.optim.options.schedule import cosine
from rumus.tensor import Generator, Tensor
from rumus.train import ArrayDataset, DataLoader, Trainer, Training, random_split


@dataclass(frozen=True)
class Optim:
    """The optimizer's settings. warmup: the number of steps over which the learning rate rises."""

    lr: float = 2e-3
    weight_decay: float = 0.01
    warmup: int = 40


@dataclass(frozen=True)
class Config:
    """All settings."""

    hidden: int = 128
    dropout: float = 0.2
    activation: Literal["relu", "gelu"] = "relu"
    batch: int = 32
    epochs: int = 20
    seed: int = 0
    gpu: bool = False
    optim: Optim = field(default_factory=Optim)


def build(config: Config) -> Training:
    """Return the trainer, the data, the loss and the validation."""
    images, digits = load_digits(return_X_y=True)
    whole = ArrayDataset((images / 16).astype(np.float32), digits.astype(np.int32))
    seen, unseen = random_split(whole, [0.75, 0.25], seed=config.seed)
    loader = DataLoader(seen, config.batch, shuffle=True, seed=config.seed)

    random = Generator(config.seed)
    model = nn.Sequential(
        nn.Linear(64, config.hidden, generator=random),
        nn.ReLU() if config.activation == "relu" else nn.GELU(),
        nn.Dropout(config.dropout, generator=random),
        nn.Linear(config.hidden, 10, generator=random),
    )
    if config.gpu:
        model.to_gpu()
    steps = config.epochs * len(loader)
    rate = warmup(config.optim.warmup).then(cosine(config.optim.lr, steps))
    optimizer = AdamW(model.parameters(), rate, weight_decay=config.optim.weight_decay)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return nn.cross_entropy_loss(model(x), y)

    def score(x: Tensor, y: Tensor) -> dict[str, float]:
        scores = model(x)
        found = scores.numpy().argmax(axis=1)
        return {
            "loss": nn.cross_entropy_loss(scores, y).item(),
            "accuracy": float((found == y.numpy()).mean()),
        }

    return Training(
        Trainer(optimizer, state={"model": model}),
        loader,
        loss,
        epochs=config.epochs,
        validate=(DataLoader(unseen, 512), score),
        monitor="accuracy",
        mode="max",
    )


if __name__ == "__main__":  # run directly: the default settings
    print(build(Config()).fit().metrics)
