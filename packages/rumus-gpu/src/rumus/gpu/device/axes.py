"""Windows over one or two spatial axes, for two-dimensional kernels."""

from __future__ import annotations

from rumus.gpu.engine.errors import LimitError
from rumus.tensor.memory.backend import Shape
from rumus.tensor.memory.window import Window


def two(sizes: Shape, missing: int) -> tuple[int, int]:
    """Return the sizes of two axes; a single one gets `missing` in front.

    >>> two((5, 3), 1), two((3,), 1)
    ((5, 3), (1, 3))
    """
    return (sizes[0], sizes[1]) if len(sizes) == 2 else (missing, sizes[0])


def check_coordinates(operation: str, window: Window, lengths: Shape) -> None:
    """Raise LimitError if coordinates in the padded input exceed 31 bits."""
    if max(window.padded(lengths)) >= 1 << 31:
        raise LimitError(f"{operation}: a padding of {window.padding} is too wide for a GPU")
