"""A trainer over ranks is a trainer of the module whose parameters its optimizer owns."""

import numpy as np

from rumus import nn
from rumus.distributed import Ranks, ranks
from rumus.optim import AdamW
from rumus.tensor import Tensor
from rumus.train import ArrayDataset, DataLoader, Trainer

team: Ranks = ranks(deadline=60)
model = nn.Linear(4, 1)
loader = DataLoader(ArrayDataset(np.ones((8, 4), np.float32)), 8, ranks=team, shards=2)
trainer: Trainer[nn.Linear] = Trainer(AdamW(model.parameters()), ranks=team, zero=True)


def loss(x: Tensor) -> Tensor:
    return (model(x) ** 2).mean()


steps: int = trainer.fit(loader, loss, epochs=1).steps
names: list[str] = team.gather("rank")
