"""LeNet-5 on handwritten digits, in PyTorch. `lenet.py` is the same for rumus."""

from __future__ import annotations

from itertools import islice

import torch
from data import digits
from program import main
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam


class LeNet(nn.Module):
    """Maps 28 x 28 pictures to scores of ten digits."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.Tanh(),
            nn.AvgPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(400, 120),
            nn.Tanh(),
            nn.Linear(120, 84),
            nn.Tanh(),
            nn.Linear(84, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, 1, 28, 28) to (batch, 10)."""
        return self.classifier(self.features(x))


def train(model: LeNet, steps: int) -> list[float]:
    """Return the loss of each step."""
    optimizer = Adam(model.parameters(), lr=2e-3)

    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x), y)

    losses = []
    for pictures, numbers in islice(digits(), steps):
        loss = loss_of(torch.from_numpy(pictures), torch.from_numpy(numbers))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return [loss.item() for loss in losses]


if __name__ == "__main__":
    main(LeNet(), train)
