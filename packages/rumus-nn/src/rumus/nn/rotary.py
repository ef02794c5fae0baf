"""`RotaryEmbedding`: positions as rotations of queries and keys."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, TypeVar

import numpy as np

from rumus.nn.module import Module
from rumus.tensor import Expr, Tensor, concat, elementwise, tensor
from rumus.tensor.expression.real_number import positive_number

T = TypeVar("T", Tensor, Expr)
_KEPT: Final = 8  # lengths


@elementwise
def _turned(x: T, y: T, cos: T, sin: T) -> T:
    return x * cos - y * sin


class RotaryEmbedding(Module):
    """Rotates elements i and i + size / 2 of position n by the angle n / base^(2 i / size).

    So the product of a query and a key depends on the distance between their positions. Su et al.:
    arXiv:2104.09864, with paired elements half the size apart, as in Llama. Nothing is trained or
    saved.

    size: of a head, even.
    base: finite and positive.

    ValueError for other arguments, and for an input of a wrong size.

    >>> from rumus.nn import RotaryEmbedding
    >>> from rumus.tensor import ones
    >>> RotaryEmbedding(2)(ones((1, 3, 2)))[0, 0].tolist()  # position 0 stays
    [1.0, 1.0]
    """

    def __init__(self, size: int, *, base: float = 10_000.0) -> None:
        if size < 2 or size % 2:
            raise ValueError(f"RotaryEmbedding needs an even size of at least 2, not {size}")
        positive_number("RotaryEmbedding: base", base)
        self.size = size
        self.base = base
        self._turns: OrderedDict[Hashable, tuple[Tensor, Tensor]] = OrderedDict()

    def forward(self, x: Tensor, *, start: int = 0) -> Tensor:
        """Rotate each pair of elements by the angle of its position.

        x: (..., positions, size).
        start: the first position.
        """
        if x.ndim < 2 or x.shape[-1] != self.size:
            raise ValueError(
                f"RotaryEmbedding of size {self.size}: expected (..., positions, {self.size}), "
                f"got {x.shape}"
            )
        cos, sin = self._cos_sin(x, start)
        half = self.size // 2
        first, second = x[..., :half], x[..., half:]
        return concat(
            [_turned(first, second, cos, sin), _turned(second, first, cos, -sin)], axis=-1
        )

    def _cos_sin(self, x: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """The cosines and sines of all angles: (positions, size / 2). Recent ones are cached."""
        key = (x.backend, x.shape[-2], start, x.dtype)
        if key not in self._turns:
            positions = np.arange(start, start + x.shape[-2], dtype=np.float64)
            angles = np.outer(positions, self.base ** (-np.arange(0, self.size, 2) / self.size))
            cos, sin = (
                tensor(f(angles), dtype=x.dtype, backend=x.backend) for f in (np.cos, np.sin)
            )
            self._turns[key] = cos, sin
            if len(self._turns) > _KEPT:
                self._turns.popitem(last=False)
        self._turns.move_to_end(key)
        return self._turns[key]
