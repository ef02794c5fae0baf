"""The programs of docs/data.md run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from rumus import nn
from rumus.optim import SGD
from rumus.tensor import Generator, Tensor
from rumus.train import ArrayDataset, DataLoader, Trainer

GUIDE = Path(__file__).parents[2] / "docs" / "data.md"


def test_the_guide() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) == 2
    model = nn.Linear(64, 10, generator=Generator(0))

    def loss_fn(x: Tensor, y: Tensor) -> Tensor:
        return nn.cross_entropy_loss(model(x), y)

    trainer = Trainer(SGD(model.parameters(), 0.1))
    names: dict[str, Any] = {"trainer": trainer, "loss_fn": loss_fn}
    for block in blocks:
        exec(block, names)
    assert (names["loader"].epoch, names["loader"].batch) == (5, 0)
    assert 0 < trainer.epoch_avg_loss() < 3
    images = ArrayDataset(np.full((4, 2, 2), 255, np.uint8), range(4))
    ((pixels, _),) = DataLoader(images, 4, transform=names["augment"])
    assert (pixels == 1).all()
