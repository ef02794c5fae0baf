"""LeNet-5 on handwritten digits. `lenet_torch.py` is the same program in PyTorch.

LeCun et al., "Gradient-based learning applied to document recognition", 1998.
"""

from __future__ import annotations

from itertools import islice

from data import digits
from program import main

from rumus import nn
from rumus.optim import Adam
from rumus.tensor import Tensor, seed
from rumus.train import Trainer


class LeNet(nn.Module):
    """Maps 28 x 28 pictures to scores of ten digits."""

    def __init__(self) -> None:
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
    trainer = Trainer(optimizer)

    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        return nn.cross_entropy_loss(model(x), y)

    losses = []
    for pictures, numbers in islice(digits(), steps):
        losses.append(trainer.train_step(loss_of, pictures, numbers))
    return [loss.item() for loss in losses]


if __name__ == "__main__":
    seed(0)  # of the initial weights
    main(LeNet(), train)
