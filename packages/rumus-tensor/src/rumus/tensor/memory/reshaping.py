"""`reshaped`: another shape for an array, without an unrecorded copy."""

from __future__ import annotations

import numpy as np

from rumus.tensor.memory.backend import Array, Backend, Shape
from rumus.tensor.memory.recording import is_recorded


def reshaped(backend: Backend, array: Array, shape: Shape | int) -> Array:
    """Return the elements of an array, in order, in another shape.

    The result is a view if the layout allows it. Otherwise NumPy copies silently; while a step is
    recorded the backend copies instead, since a replay runs only backend operations.

    >>> from rumus.tensor import NumpyBackend
    >>> reshaped(NumpyBackend(), np.arange(6).reshape(2, 3).T, (6,)).tolist()
    [0, 3, 1, 4, 2, 5]
    """
    found = array.reshape(shape)
    is_host = isinstance(array, np.ndarray)
    if is_host and array.size and is_recorded() and not np.may_share_memory(found, array):
        dense = backend.allocate(array.shape, array.dtype)
        backend.copy(array, dense)
        return dense.reshape(shape)
    return found
