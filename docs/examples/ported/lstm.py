"""An LSTM that learns to write, letter by letter. `lstm_torch.py` is the same program in PyTorch.

Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997.
"""

from __future__ import annotations

from itertools import islice

from data import text
from program import main

from rumus import nn
from rumus.optim import Adam, ClipNorm
from rumus.tensor import Tensor, seed
from rumus.train import Trainer


class Letters(nn.Module):
    """Maps letters to scores for the next one at each position."""

    def __init__(self, size: int = 128, layers: int = 1) -> None:
        self.letters = nn.Embedding(128, size)
        self.lstm = nn.LSTM(size, size, layers=layers)
        self.scores = nn.Linear(size, 128)

    def forward(self, letters: Tensor) -> Tensor:
        """Map (batch, length) to (batch, length, 128)."""
        states, _ = self.lstm(self.letters(letters))
        return self.scores(states)


def train(model: Letters, steps: int) -> list[float]:
    """Return the loss of each step."""
    optimizer = Adam(model.parameters(), lr=5e-3, clip=ClipNorm(1.0))
    trainer = Trainer(optimizer)

    def loss_of(window: Tensor) -> Tensor:
        return nn.cross_entropy_loss(model(window[:, :-1]), window[:, 1:])

    losses = []
    for window in islice(text(), steps):
        losses.append(trainer.train_step(loss_of, window))
    return [loss.item() for loss in losses]


if __name__ == "__main__":
    seed(0)  # of the initial weights
    main(Letters(), train)
