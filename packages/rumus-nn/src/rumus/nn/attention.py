"""`MultiHeadAttention`: each position looks at the others, in several ways at once."""

from __future__ import annotations

from numpy.typing import DTypeLike

from rumus.nn.dropout import Dropout
from rumus.nn.linear import Linear
from rumus.nn.module import Module
from rumus.nn.rotary import RotaryEmbedding
from rumus.tensor import (
    Backend,
    Generator,
    Tensor,
    attention_weights,
    float32,
    scaled_dot_product_attention,
    split,
    weighted_values,
)


class MultiHeadAttention(Module):
    """Attention by heads of queries, keys and values of their own. arXiv:1706.03762, section 3.2.2.

    size: of the vectors, a multiple of heads. heads: of queries. kv_heads: of keys and values, a
    divisor of heads, each shared by heads / kv_heads heads of queries (arXiv:2305.13245); by
    default as many. causal: a position looks at itself and those before it. rotary: turns queries
    and keys by their positions. bias: of the four products. dropout: of the weights, in training.
    context_size: of the vectors that keys and values are made of, where those are not the queries'
    own. generator: of the weights, and of the dropout. ValueError for sizes that do not fit.

    Input: (..., positions, size). Result: the same shape.

    >>> from rumus.tensor import ones
    >>> MultiHeadAttention(8, 2, generator=Generator(0))(ones((3, 5, 8))).shape
    (3, 5, 8)
    """

    def __init__(
        self,
        size: int,
        heads: int,
        *,
        kv_heads: int | None = None,
        causal: bool = False,
        rotary: RotaryEmbedding | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        context_size: int | None = None,
        generator: Generator | None = None,
        dtype: DTypeLike = float32,
        backend: Backend | None = None,
    ) -> None:
        kv_heads = heads if kv_heads is None else kv_heads
        if heads < 1 or size < 1 or size % heads:
            raise ValueError(
                f"MultiHeadAttention: size {size} is not a multiple of {heads} heads; each head "
                "gets size / heads elements"
            )
        if kv_heads < 1 or heads % kv_heads:
            raise ValueError(
                f"MultiHeadAttention: {heads} heads are not a multiple of kv_heads={kv_heads}"
            )
        if rotary is not None and rotary.size != size // heads:
            raise ValueError(
                f"MultiHeadAttention: rotary of size {rotary.size} for heads of {size // heads}"
            )
        self.heads = heads
        self.kv_heads = kv_heads
        self.causal = causal

        def product(inputs: int, outputs: int) -> Linear:
            return Linear(
                inputs, outputs, bias=bias, generator=generator, dtype=dtype, backend=backend
            )

        shared = 2 * kv_heads * (size // heads)
        self.query = product(size, size)
        self.key_value = product(context_size or size, shared)
        self.output = product(size, size)
        self.rotary = rotary
        self.dropout = Dropout(dropout, generator=generator)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        residual: Tensor | None = None,
    ) -> Tensor:
        """Let each position of x look at those of the context, by default x itself.

        context: (..., keys, context_size). mask: see `scaled_dot_product_attention`. residual:
        what is added to the result.
        """
        context = x if context is None else context
        if min(x.ndim, context.ndim) < 2:
            raise ValueError(
                f"attention needs (..., positions, size), not {x.shape} and {context.shape}"
            )
        query = self._heads(self.query(x), self.heads)
        both = self._heads(self.key_value(context), 2 * self.kv_heads)
        key, value = split(both, 2, axis=-3)
        if self.rotary is not None:
            query, key = self.rotary(query), self.rotary(key)
        mixed = self._attend(query, key, value, mask)
        merged = mixed.transpose(-3, -2).reshape(*x.shape)
        return self.output(merged, residual=residual)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        if self.dropout.p == 0 or not self.training:
            return scaled_dot_product_attention(query, key, value, mask=mask, causal=self.causal)
        weights = attention_weights(query, key, mask=mask, causal=self.causal)
        return weighted_values(self.dropout(weights), value)

    def _heads(self, x: Tensor, heads: int) -> Tensor:
        """(..., positions, heads * n) as (..., heads, positions, n)."""
        return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads).transpose(-3, -2)
