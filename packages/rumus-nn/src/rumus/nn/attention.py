"""`MultiHeadAttention`: each position attends to the others, with several heads."""

from __future__ import annotations

from typing import Any, ClassVar

from numpy.typing import DTypeLike

from rumus.nn.dropout import Dropout
from rumus.nn.linear import Linear
from rumus.nn.module import Module, runs
from rumus.nn.replaced import may_drop, plus
from rumus.nn.rotary import RotaryEmbedding
from rumus.nn.setting import Settings, as_declared
from rumus.tensor import (
    Backend,
    Generator,
    Tensor,
    attention_weights,
    float32,
    linear,
    scaled_dot_product_attention,
    split,
    weighted_values,
)
from rumus.tensor.expression.declared_type import shown


def _rotary(layer: MultiHeadAttention, name: str, value: Any) -> Any:
    return _rotary_of(layer.output.inputs // layer.heads, value)


def _rotary_of(size: int, rotary: Any) -> Any:
    """Return rotary positions for heads of this size, or None."""
    if rotary is None:
        return None
    if not isinstance(rotary, Module) or not hasattr(rotary, "size"):
        raise TypeError(
            f"MultiHeadAttention: rotary must be RotaryEmbedding({size}) or None, not "
            f"{shown(rotary)}"
        )
    if rotary.size != size:
        raise ValueError(f"MultiHeadAttention: rotary of size {rotary.size} for heads of {size}")
    return rotary


class MultiHeadAttention(Module):
    """Attention with several heads of queries, keys and values. arXiv:1706.03762, section 3.2.2.

    Input: (..., positions, size). Result: the same shape.

    size: of the vectors, a multiple of heads.
    heads: of queries.
    kv_heads: of keys and values, a divisor of heads; each is shared by heads / kv_heads query heads
        (arXiv:2305.13245). By default heads.
    causal: a position attends only to itself and earlier ones.
    rotary: rotates queries and keys by their positions.
    bias: False for no biases.
    dropout: in [0, 1], of the attention weights, in training.
    context_size: of the vectors for keys and values in cross-attention; queries then have a
        separate weight, otherwise one product makes all three.
    generator: of the weights and the dropout, by default a stream of the program's `seed`.
    dtype: floating, of the parameters.
    backend: that holds the parameters, by default the CPU.

    ValueError for sizes that do not fit.

    >>> from rumus.nn import MultiHeadAttention
    >>> from rumus.tensor import Generator, ones
    >>> MultiHeadAttention(8, 2, generator=Generator(0))(ones((3, 5, 8))).shape
    (3, 5, 8)
    """

    _settings: ClassVar[Settings] = {"causal": as_declared, "rotary": _rotary}

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
        _rotary_of(size // heads, rotary)
        self.heads = heads
        self.kv_heads = kv_heads
        self.causal = causal

        def product(inputs: int, outputs: int) -> Linear:
            return Linear(
                inputs, outputs, bias=bias, generator=generator, dtype=dtype, backend=backend
            )

        shared = 2 * kv_heads * (size // heads)
        if context_size is None:
            self.query_key_value = product(size, size + shared)
        else:
            self.query = product(size, size)
            self.key_value = product(context_size, shared)
        self.is_joint = context_size is None
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
        """Let each position of x attend to those of the context, by default x itself.

        x: (..., positions, size).
        context: (..., keys, context_size).
        mask: see `scaled_dot_product_attention`.
        residual: of the shape of x, added to the result.
        """
        shapes = x.shape, x.shape if context is None else context.shape
        if min(map(len, shapes)) < 2:
            raise ValueError(
                f"attention needs (..., positions, size), not {shapes[0]} and {shapes[1]}"
            )
        query, key, value = self._project(x, context)
        if self.rotary is not None:
            query, key = self.rotary(query), self.rotary(key)
        mixed = self._attend(query, key, value, mask)
        merged = mixed.transpose(-3, -2).reshape(*x.shape)
        return plus(self.output, merged, residual)

    def _project(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
        """Queries, keys and values, by heads."""
        heads, shared = self.heads, self.kv_heads
        if self.is_joint and context is None:
            joined = self._heads(self.query_key_value(x), heads + 2 * shared)
            return split(joined, [heads, shared, shared], axis=-3)
        query, both = self._apart(x, x if context is None else context)
        return (self._heads(query, heads), *split(self._heads(both, 2 * shared), 2, axis=-3))

    def _apart(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Queries of x, keys and values of the context."""
        if not self.is_joint:
            return self.query(x), self.key_value(context)
        joint = self.query_key_value
        size = self.output.inputs
        if not runs(joint, Linear.forward):  # its replacement makes all three
            return joint(x)[..., :size], joint(context)[..., size:]
        lengths = [size, joint.outputs - size]
        weights = split(joint.weight, lengths)
        biases = (None, None) if joint.bias is None else split(joint.bias, lengths)
        return linear(x, weights[0], biases[0]), linear(context, weights[1], biases[1])

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        if not may_drop(self.dropout):
            return scaled_dot_product_attention(query, key, value, mask=mask, causal=self.causal)
        weights = attention_weights(query, key, mask=mask, causal=self.causal)
        return weighted_values(self.dropout(weights), value)

    def _heads(self, x: Tensor, heads: int) -> Tensor:
        """(..., positions, heads * n) as (..., heads, positions, n)."""
        return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads).transpose(-3, -2)
