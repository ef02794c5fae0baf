"""`SlotTable`: the layout of tensors in flat memory, for computations on each of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

ALIGNMENT: Final = 64  # elements: 256 bytes of float32, the offset alignment of a GPU binding


def slot_size(size: int) -> int:
    """Return the number of elements that a parameter of `size` takes in an arena."""
    return -(-size // ALIGNMENT) * ALIGNMENT


class SlotTable:
    """Consecutive slots of the given sizes, each rounded up to whole rows.

    A row is `ALIGNMENT` elements, so viewed as [rows, ALIGNMENT], each row of the memory belongs to
    one slot. A value per slot is stored for each row, as [rows, 1], which broadcasts in every
    elementwise kernel. See `Backend.slot_sums`.

    >>> table = SlotTable([65, 3])
    >>> table.starts, table.rows, table.size
    ((0, 128), 3, 192)
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = tuple(sizes)
        *starts, self.size = accumulate(map(slot_size, sizes), initial=0)
        self.starts = tuple(starts)
        self.rows = self.size // ALIGNMENT

    @cached_property
    def filled(self) -> NDArray[Any]:
        """Start and size of each slot that has elements, int64 [slots, 2]."""
        pairs = np.array([self.starts, self.sizes], np.int64).T
        return pairs[pairs[:, 1] > 0]

    @cached_property
    def counts(self) -> NDArray[Any]:
        """The number of rows of each slot in `filled`."""
        return -(-self.filled[:, 1] // ALIGNMENT)

    @cached_property
    def ragged(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """The rows that their slot does not fill, and which of their elements belong to it."""
        used = self.filled[:, 1] % ALIGNMENT
        rows = (self.filled.sum(1) // ALIGNMENT)[used > 0]
        return rows, np.arange(ALIGNMENT) < used[used > 0, None]
