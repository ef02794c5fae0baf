"""An LSTM that learns to write, letter by letter, in PyTorch. `lstm.py` is the same for rumus."""

from __future__ import annotations

from itertools import islice

import torch
from data import text
from program import main
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam


class Letters(nn.Module):
    """Maps letters to scores for the next one at each position."""

    def __init__(self, size: int = 128, layers: int = 1) -> None:
        super().__init__()
        self.letters = nn.Embedding(128, size)
        self.lstm = nn.LSTM(size, size, layers, batch_first=True)
        self.scores = nn.Linear(size, 128)

    def forward(self, letters: Tensor) -> Tensor:
        """Map (batch, length) to (batch, length, 128)."""
        states, _ = self.lstm(self.letters(letters))
        return self.scores(states)


def train(model: Letters, steps: int) -> list[float]:
    """Return the loss of each step."""
    optimizer = Adam(model.parameters(), lr=5e-3)

    def loss_of(window: Tensor) -> Tensor:
        logits = model(window[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())

    losses = []
    for window in islice(text(), steps):
        loss = loss_of(torch.from_numpy(window))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.detach())
    return [loss.item() for loss in losses]


if __name__ == "__main__":
    main(Letters(), train)
