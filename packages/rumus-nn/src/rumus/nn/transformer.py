"""`TransformerBlock`: attention and a feed-forward part, each with a residual connection."""

from __future__ import annotations

from typing import Literal, TypeAlias

from numpy.typing import DTypeLike

from rumus.nn.attention import MultiHeadAttention
from rumus.nn.dropout import Dropout
from rumus.nn.feed_forward import FeedForward, SwiGLU
from rumus.nn.layer_norm import LayerNorm
from rumus.nn.module import Module
from rumus.nn.replaced import may_drop, plus
from rumus.nn.rms_norm import RMSNorm
from rumus.nn.rotary import RotaryEmbedding
from rumus.tensor import Backend, Generator, Tensor, float32, gelu, gelu_tanh, relu
from rumus.tensor.expression.choice import check_choice

Activation: TypeAlias = Literal["gelu", "gelu_tanh", "relu", "swiglu"]
Norm: TypeAlias = Literal["layer", "rms"]
_ACTIVATIONS = {"gelu": gelu, "gelu_tanh": gelu_tanh, "relu": relu}


class TransformerBlock(Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)).

    It is pre-norm: Xiong et al.: arXiv:2002.04745, figure 1b. With norm="rms", activation="swiglu",
    rotary positions and no bias it is Llama's block, with activation="gelu_tanh" GPT-2's.

    size, heads, kv_heads, causal, rotary, bias: as in `MultiHeadAttention`.
    hidden: as in `FeedForward` and `SwiGLU`.
    norm: "layer" or "rms".
    activation: "gelu", "gelu_tanh", "relu" or "swiglu".
    dropout: in [0, 1], in training, of the attention weights and of each part's output.
    eps: positive, of the norms.
    generator: of the weights and the dropout, by default a stream of the program's `seed`.
    dtype: floating, of the parameters.
    backend: that holds the parameters, by default the CPU.

    ValueError for an unknown norm or activation and for sizes that do not fit.

    >>> from rumus.nn import TransformerBlock
    >>> from rumus.tensor import Generator, ones
    >>> block = TransformerBlock(8, 2, causal=True, generator=Generator(0))
    >>> block(ones((2, 5, 8))).shape
    (2, 5, 8)
    """

    def __init__(
        self,
        size: int,
        heads: int,
        *,
        kv_heads: int | None = None,
        hidden: int | None = None,
        causal: bool = False,
        rotary: RotaryEmbedding | None = None,
        norm: Norm = "layer",
        activation: Activation = "gelu",
        bias: bool = True,
        dropout: float = 0.0,
        eps: float = 1e-5,
        generator: Generator | None = None,
        dtype: DTypeLike = float32,
        backend: Backend | None = None,
    ) -> None:
        check_choice("norm", norm, ("layer", "rms"))
        check_choice("activation", activation, (*_ACTIVATIONS, "swiglu"))

        def new_norm() -> LayerNorm | RMSNorm:
            if norm == "rms":
                return RMSNorm(size, eps=eps, dtype=dtype, backend=backend)
            return LayerNorm(size, eps=eps, bias=bias, dtype=dtype, backend=backend)

        self.attention_norm = new_norm()
        self.attention = MultiHeadAttention(
            size, heads, kv_heads=kv_heads, causal=causal, rotary=rotary, bias=bias,
            dropout=dropout, generator=generator, dtype=dtype, backend=backend,
        )  # fmt: skip
        self.feed_forward_norm = new_norm()
        self.feed_forward: FeedForward | SwiGLU
        if activation == "swiglu":
            self.feed_forward = SwiGLU(
                size, hidden, bias=bias, generator=generator, dtype=dtype, backend=backend
            )
        else:
            self.feed_forward = FeedForward(
                size, hidden, activation=_ACTIVATIONS[activation], bias=bias,
                generator=generator, dtype=dtype, backend=backend,
            )  # fmt: skip
        self.dropout = Dropout(dropout, generator=generator)

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Transform each position.

        x: (..., positions, size).
        mask: see `scaled_dot_product_attention`.
        """
        if may_drop(self.dropout):
            x = x + self.dropout(plus(self.attention, self.attention_norm(x), None, mask=mask))
            return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        x = plus(self.attention, self.attention_norm(x), x, mask=mask)
        return plus(self.feed_forward, self.feed_forward_norm(x), x)
