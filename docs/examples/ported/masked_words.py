"""A transformer that finds masked words. `masked_words_torch.py` is the same program in PyTorch.

Devlin et al., "BERT", arXiv:1810.04805, with the norms in front.
"""

from __future__ import annotations

from itertools import islice

from data import sentences
from program import main

from rumus import nn
from rumus.optim import AdamW, ClipNorm
from rumus.tensor import Tensor, seed
from rumus.train import Trainer


class MaskedWords(nn.Module):
    """Maps word indices to scores of the word at each position."""

    def __init__(
        self, words: int = 40, length: int = 16, size: int = 64, heads: int = 4, layers: int = 2
    ) -> None:
        self.words = nn.Embedding(words, size)
        self.positions = nn.Embedding(length, size)
        self.layers = nn.ModuleList(
            nn.TransformerBlock(size, heads, hidden=4 * size, activation="gelu")
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


# PyTorch's names for the parts of its TransformerEncoderLayer.
PARTS = {
    "self_attn.in_proj_": "attention.query_key_value.",
    "self_attn.out_proj.": "attention.output.",
    "linear1.": "feed_forward.up.",
    "linear2.": "feed_forward.down.",
    "norm1.": "attention_norm.",
    "norm2.": "feed_forward_norm.",
}


def from_torch(name: str) -> str:
    """Return the rumus name of a PyTorch weight, for `model.load_file(path, rename=from_torch)`."""
    for theirs, ours in PARTS.items():
        name = name.replace(theirs, ours)
    return name


def train(model: MaskedWords, steps: int) -> list[float]:
    """Return the loss of each step."""
    optimizer = AdamW(model.parameters(), lr=2e-3, weight_decay=0.01, clip=ClipNorm(1.0))
    trainer = Trainer(optimizer)

    def loss_of(words: Tensor, targets: Tensor) -> Tensor:
        return nn.cross_entropy_loss(model(words), targets, ignore_index=-100)

    losses = []
    for words, targets in islice(sentences(), steps):
        losses.append(trainer.train_step(loss_of, words, targets))
    return [loss.item() for loss in losses]


if __name__ == "__main__":
    seed(0)  # of the initial weights
    main(MaskedWords(), train)
