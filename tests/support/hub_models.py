"""Tiny models of transformers, and their counterparts in rumus."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers

from rumus import nn
from rumus.tensor import Generator, Tensor, linear, no_grad, tensor

TOKENS = np.random.default_rng(0).integers(0, 61, (2, 12))


class GPT2(nn.Module):
    def __init__(self, layers: int, size: int, heads: int) -> None:
        random = Generator(0)
        self.tokens = nn.Embedding(61, size, generator=random)
        self.positions = nn.Embedding(16, size, generator=random)
        self.blocks = nn.ModuleList(
            nn.TransformerBlock(size, heads, causal=True, activation="gelu_tanh", generator=random)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(size)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return linear(self.norm(x), self.tokens.weight)


class Llama(nn.Module):
    def __init__(self, layers: int, size: int, heads: int, kv_heads: int, hidden: int) -> None:
        random = Generator(0)
        rotary = nn.RotaryEmbedding(size // heads)
        self.tokens = nn.Embedding(61, size, generator=random)
        self.blocks = nn.ModuleList(
            nn.TransformerBlock(
                size, heads, kv_heads=kv_heads, hidden=hidden, causal=True, rotary=rotary,
                norm="rms", activation="swiglu", bias=False, eps=1e-6, generator=random,
            )
            for _ in range(layers)
        )  # fmt: skip
        self.norm = nn.RMSNorm(size, eps=1e-6)
        self.output = nn.Linear(size, 61, bias=False, generator=random)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens)
        for block in self.blocks:
            x = block(x)
        return self.output(self.norm(x))


def gpt2() -> tuple[Any, GPT2]:
    config = transformers.GPT2Config(
        n_layer=2, n_embd=32, n_head=4, vocab_size=61, n_positions=16, initializer_range=0.3
    )
    return transformers.GPT2LMHeadModel(config).eval(), GPT2(2, 32, 4)


def llama(**other: Any) -> tuple[Any, Llama]:
    config = transformers.LlamaConfig(
        num_hidden_layers=2, hidden_size=32, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=48, vocab_size=61, max_position_embeddings=16, initializer_range=0.3,
        **other,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval(), Llama(2, 32, 4, 2, 48)


def compare_logits(theirs: Any, ours: nn.Module, given: Any, tolerance: float = 1e-5) -> None:
    """Compare logits, relative to the largest one."""
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(given))
    wanted = getattr(wanted, "logits", wanted).float().numpy()
    dtype = np.int32 if given.dtype.kind == "i" else np.float32
    with no_grad():
        found = ours(tensor(given.astype(dtype))).numpy()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())
