"""The models of docs/examples in PyTorch: the peers of the benchmarks."""

from __future__ import annotations

import torch
from torch.nn import functional


class Block(torch.nn.Module):  # type: ignore[misc]
    """A block of a GPT, with PyTorch's fused attention."""

    def __init__(self, size: int, heads: int, approximate: str) -> None:
        super().__init__()
        self.heads, self.approximate = heads, approximate
        self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(size) for _ in range(2))
        self.together, self.output = torch.nn.Linear(size, 3 * size), torch.nn.Linear(size, size)
        self.up, self.down = torch.nn.Linear(size, 4 * size), torch.nn.Linear(4 * size, size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, positions, size)."""
        parts = self.together(self.norms[0](x)).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.output(mixed.transpose(1, 2).flatten(2))
        hidden = functional.gelu(self.up(self.norms[1](x)), approximate=self.approximate)
        added: torch.Tensor = self.down(hidden)
        return x + added


class GPT(torch.nn.Module):  # type: ignore[misc]
    """A GPT. tied: the scores share the table of tokens, as in GPT-2; then gelu is its own too."""

    def __init__(
        self, layers: int, size: int, heads: int, positions: int, tokens: int, *, tied: bool = False
    ) -> None:
        super().__init__()
        self.tokens = torch.nn.Embedding(tokens, size)
        self.positions = torch.nn.Embedding(positions, size)
        approximate = "tanh" if tied else "none"
        self.blocks = torch.nn.Sequential(*(Block(size, heads, approximate) for _ in range(layers)))
        self.norm = torch.nn.LayerNorm(size)
        self.scores = torch.nn.Linear(size, tokens, bias=False)
        if tied:
            torch.nn.init.normal_(self.tokens.weight, std=0.02)
            self.scores.weight = self.tokens.weight

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Map (batch, positions) to (batch * positions, tokens)."""
        x = self.tokens(text) + self.positions.weight[: text.shape[1]]
        scores: torch.Tensor = self.scores(self.norm(self.blocks(x)))
        return scores.flatten(0, 1)


def digits_cnn() -> torch.nn.Module:
    """The network of docs/examples/digits_cnn.py."""
    parts: list[torch.nn.Module] = []
    for inputs, outputs, end in (
        (1, 32, []), (32, 32, [torch.nn.MaxPool2d(2)]), (32, 64, [torch.nn.AdaptiveAvgPool2d(2)])
    ):  # fmt: skip
        parts.append(torch.nn.Conv2d(inputs, outputs, 3, padding=1, bias=False))
        parts += [torch.nn.BatchNorm2d(outputs), torch.nn.ReLU(), *end]
    parts += [torch.nn.Flatten(), torch.nn.Dropout(0.2), torch.nn.Linear(256, 10)]
    return torch.nn.Sequential(*parts)


def cnn() -> torch.nn.Module:
    """Three convolutions over pictures of 3 x 32 x 32, halved after the first two."""
    parts: list[torch.nn.Module] = []
    for inputs, outputs, end in (
        (3, 64, torch.nn.MaxPool2d(2)),
        (64, 128, torch.nn.MaxPool2d(2)),
        (128, 256, torch.nn.AdaptiveAvgPool2d(1)),
    ):
        parts.append(torch.nn.Conv2d(inputs, outputs, 3, padding=1, bias=False))
        parts += [torch.nn.BatchNorm2d(outputs), torch.nn.ReLU(), end]
    return torch.nn.Sequential(*parts, torch.nn.Flatten(), torch.nn.Linear(256, 10))


def mlp(inputs: int, hidden: int, outputs: int) -> torch.nn.Module:
    """Two hidden layers with ReLU."""
    return torch.nn.Sequential(
        torch.nn.Linear(inputs, hidden),
        torch.nn.ReLU(),
        torch.nn.Linear(hidden, hidden),
        torch.nn.ReLU(),
        torch.nn.Linear(hidden, outputs),
    )
