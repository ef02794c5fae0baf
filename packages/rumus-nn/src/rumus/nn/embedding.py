"""`Embedding`: a table of vectors, looked up by number."""

from __future__ import annotations

import operator
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from rumus.nn import initialization
from rumus.nn.module import Module
from rumus.nn.setting import Settings
from rumus.tensor import (
    Backend,
    Generator,
    Parameter,
    Tensor,
    TensorLike,
    float32,
    gather,
    int32,
    next_generator,
    tensor,
    zeros,
)


def _padding_index(layer: Embedding, name: str, value: Any) -> int | None:
    if value is None:
        return None
    count = layer.count
    if not -count <= value < count:
        raise ValueError(f"padding_idx {value} is outside [{-count}, {count})")
    return operator.index(value) % count


class Embedding(Module):
    """The vector of each number of the input.

    Input: integers in [0, count) of any shape, a tensor or an array. Result: that shape, then
        (size,).
    weight: (count, size), initialized as N(0, 1).

    count: the number of vectors.
    size: the length of each.
    padding_idx: the number whose vector starts at zero and gets no gradient; negative numbers count
        from the end.
    generator: of the initial weights, by default a stream of the program's `seed`.
    dtype: floating, of the weight.
    backend: where the weight is made, by default the CPU.

    ValueError for a size below 1 or a padding_idx outside; IndexError or TypeError for an input
    that is out of range or not of integers.

    >>> from rumus.nn import Embedding
    >>> table = Embedding(5, 3, padding_idx=0)
    >>> table([[1, 0], [4, 4]]).shape, table([0]).tolist()
    ((2, 2, 3), [[0.0, 0.0, 0.0]])
    """

    _settings: ClassVar[Settings] = {"padding_idx": _padding_index}

    def __init__(
        self,
        count: int,
        size: int,
        *,
        padding_idx: int | None = None,
        generator: Generator | None = None,
        dtype: DTypeLike = float32,
        backend: Backend | None = None,
    ) -> None:
        if count < 1 or size < 1:
            raise ValueError(f"Embedding needs sizes of at least 1, not ({count}, {size})")
        self.count = count
        self.size = size
        self.padding_idx = padding_idx
        generator = next_generator() if generator is None else generator
        start = zeros((count, size), dtype=dtype, backend=backend)
        self.weight = Parameter(start, name="weight", role="embedding")
        initialization.normal(self.weight, generator=generator)
        if padding_idx is not None:
            self.weight[padding_idx] = 0.0

    def forward(self, index: TensorLike) -> Tensor:
        """Look up every number of `index`.

        index: integers of [0, count), of any shape.
        """
        if not isinstance(index, Tensor):
            is_empty = np.size(index) == 0  # NumPy does not infer integers for an empty list
            index = tensor(index, dtype=int32 if is_empty else None, backend=self.weight.backend)
        rows = gather(self.weight, index)
        if self.padding_idx is None:
            return rows
        # The same values, but no gradient flows back at the padding: its row sums zeros.
        return (index == self.padding_idx).unsqueeze(-1).where(rows.detach(), rows)
