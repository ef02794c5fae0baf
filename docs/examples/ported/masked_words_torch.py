"""A transformer that finds masked words, in PyTorch. `masked_words.py` is the same for rumus."""

from __future__ import annotations

from itertools import islice

import torch
from data import sentences
from program import main
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW


class MaskedWords(nn.Module):
    """Maps word indices to scores of the word at each position."""

    def __init__(
        self, words: int = 40, length: int = 16, size: int = 64, heads: int = 4, layers: int = 2
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(words, size)
        self.positions = nn.Embedding(length, size)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                size, heads, 4 * size, 0.0, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(size)
        self.scores = nn.Linear(size, words)

    def forward(self, words: Tensor) -> Tensor:
        """Map (batch, length) to (batch, length, words)."""
        x = self.words(words) + self.positions.weight[: words.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return self.scores(self.norm(x))


def train(model: MaskedWords, steps: int) -> list[float]:
    """Return the loss of each step."""
    optimizer = AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)

    def loss_of(words: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(model(words).flatten(0, 1), targets.flatten(), ignore_index=-100)

    losses = []
    for words, targets in islice(sentences(), steps):
        loss = loss_of(torch.from_numpy(words), torch.from_numpy(targets))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.detach())
    return [loss.item() for loss in losses]


if __name__ == "__main__":
    main(MaskedWords(), train)
