"""The lower and the upper triangle of matrices."""

from __future__ import annotations

from typing import Any, Final

from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.dtype import bool_, float16, float32, int32, is_floating
from rumus.tensor.expression.kernel import Kernel, trace
from rumus.tensor.expression.whole_number import whole_number
from rumus.tensor.graph.operators import cast, run
from rumus.tensor.graph.scan import numbers
from rumus.tensor.graph.tensor import Tensor


def _lower(x: Any, row: Any, column: Any, *, diagonal: Any) -> Any:
    return (column - row <= diagonal).where(x, 0.0)


def _upper(x: Any, row: Any, column: Any, *, diagonal: Any) -> Any:
    return (column - row < diagonal).where(0.0, x)


_LOWER: Final = trace(_lower, "tril")
_UPPER: Final = trace(_upper, "triu")


@checked_arguments
def tril(x: Tensor, diagonal: int = 0) -> Tensor:
    """The lower triangle of the last two axes, 0 above.

    x: (..., rows, columns) of any dtype.
    diagonal: the highest one to keep; 0 is the main diagonal, positive ones are above it.

    ValueError for fewer than two axes.

    >>> from rumus.tensor import ones, tril
    >>> tril(ones((2, 3))).tolist()
    [[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]
    """
    return _triangle(_LOWER, x, diagonal)


@checked_arguments
def triu(x: Tensor, diagonal: int = 0) -> Tensor:
    """The upper triangle of the last two axes, 0 below.

    x: (..., rows, columns) of any dtype.
    diagonal: the lowest one to keep; 0 is the main diagonal, positive ones are above it.

    ValueError for fewer than two axes.

    >>> from rumus.tensor import ones, triu
    >>> triu(ones((2, 3)), 1).tolist()
    [[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]]
    """
    return _triangle(_UPPER, x, diagonal)


def _triangle(kernel: Kernel, x: Tensor, diagonal: int) -> Tensor:
    diagonal = whole_number(f"{kernel.name}: diagonal", diagonal)
    if x.ndim < 2:
        raise ValueError(f"{kernel.name}: expected (..., rows, columns), got {x.shape}")
    rows, columns = x.shape[-2:]
    if x.dtype == bool_:
        return _triangle(kernel, cast(x, int32), diagonal) != 0
    row, column = numbers(rows, x.backend).unsqueeze(1), numbers(columns, x.backend)
    if is_floating(x.dtype):  # float16 indices would end at 2048
        dtype = float32 if x.dtype == float16 else x.dtype
        row, column = cast(row, dtype), cast(column, dtype)
    return cast(run(kernel, (x, row, column), {"diagonal": diagonal}), x.dtype)
