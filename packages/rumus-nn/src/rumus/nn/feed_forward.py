"""`FeedForward` and `SwiGLU`: the position-wise layers of transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from numpy.typing import DTypeLike

from rumus.nn.linear import Linear
from rumus.nn.module import Module, runs
from rumus.nn.replaced import plus, takes
from rumus.tensor import (
    Backend,
    Expr,
    Generator,
    Tensor,
    elementwise,
    feed_forward,
    float32,
    gelu,
)

T = TypeVar("T", Tensor, Expr)


@elementwise
def _gated(gate: T, x: T) -> T:
    return gate * gate.sigmoid() * x


class FeedForward(Module):
    """down(activation(up(x))). Vaswani et al.: arXiv:1706.03762, section 3.3.

    size: of the last axis of the input and the result.
    hidden: between the two products, by default 4 size.
    activation: a function of a tensor.
    bias: False for products without one.
    generator: of the initial weights, by default a stream of the program's `seed`.
    dtype: floating, of the parameters.
    backend: where the parameters are made, by default the CPU.

    >>> from rumus.nn import FeedForward
    >>> from rumus.tensor import Generator, ones
    >>> FeedForward(4, generator=Generator(0))(ones((2, 4))).shape
    (2, 4)
    """

    def __init__(
        self,
        size: int,
        hidden: int | None = None,
        *,
        activation: Callable[[Tensor], Tensor] = gelu,
        bias: bool = True,
        generator: Generator | None = None,
        dtype: DTypeLike = float32,
        backend: Backend | None = None,
    ) -> None:
        if isinstance(activation, type) or not callable(activation):
            raise TypeError(
                f"FeedForward: activation must be a function such as nn.gelu, not {activation!r}"
            )
        hidden = 4 * size if hidden is None else hidden
        self.up = Linear(size, hidden, bias=bias, generator=generator, dtype=dtype, backend=backend)
        self.down = Linear(
            hidden, size, bias=bias, generator=generator, dtype=dtype, backend=backend
        )
        self._activation = activation

    def forward(self, x: Tensor, *, residual: Tensor | None = None) -> Tensor:
        """Transform each position.

        x: (..., size).
        residual: of the same shape, added to the result.
        """
        up, down = self.up, self.down
        if runs(up, Linear.forward) and runs(down, Linear.forward):
            return feed_forward(
                x, up.weight, up.bias, down.weight, down.bias,
                activation=self._activation, residual=residual,
            )  # fmt: skip
        if takes(up, "activation"):
            return plus(down, up(x, activation=self._activation), residual)
        return plus(down, self._activation(up(x)), residual)


class SwiGLU(Module):
    """down(silu(gate(x)) * up(x)). Shazeer: arXiv:2002.05202, equation 6.

    size: of the last axis of the input and the result.
    hidden: between the products, by default 8 / 3 size, for as many weights as a `FeedForward`.
    bias: True for biases.
    generator: of the initial weights, by default a stream of the program's `seed`.
    dtype: floating, of the parameters.
    backend: where the parameters are made, by default the CPU.

    >>> from rumus.nn import SwiGLU
    >>> from rumus.tensor import Generator, ones
    >>> SwiGLU(6, generator=Generator(0))(ones((2, 6))).shape
    (2, 6)
    """

    def __init__(
        self,
        size: int,
        hidden: int | None = None,
        *,
        bias: bool = False,
        generator: Generator | None = None,
        dtype: DTypeLike = float32,
        backend: Backend | None = None,
    ) -> None:
        hidden = -(-8 * size // 3) if hidden is None else hidden

        def product(inputs: int, outputs: int) -> Linear:
            return Linear(
                inputs, outputs, bias=bias, generator=generator, dtype=dtype, backend=backend
            )

        self.gate = product(size, hidden)
        self.up = product(size, hidden)
        self.down = product(hidden, size)

    def forward(self, x: Tensor, *, residual: Tensor | None = None) -> Tensor:
        """Transform each position.

        x: (..., size).
        residual: of the same shape, added to the result.
        """
        return plus(self.down, _gated(self.gate(x), self.up(x)), residual)
