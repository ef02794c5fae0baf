"""`SlotTable`: where the tensors in flat memory lie, for what is computed of each of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

ALIGNMENT: Final = 64  # elements: 256 bytes of float32, at which a GPU can bind a view


def slot_size(size: int) -> int:
    """Return the elements that a parameter of `size` elements takes in an arena."""
    return -(-size // ALIGNMENT) * ALIGNMENT


class SlotTable:
    """Slots of so many elements, one after the other, each rounded up to whole rows.

    A row is `ALIGNMENT` elements, so flat memory of this layout, seen as [rows, ALIGNMENT], has
    every row in one slot. A value for each slot is kept once for each row, as [rows, 1]: that
    broadcasts in every elementwise kernel. See `Backend.slot_sums`.

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
        """How many rows each of `filled` has."""
        return -(-self.filled[:, 1] // ALIGNMENT)

    @cached_property
    def ragged(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """The rows that a slot does not fill, and which of their elements belong to it."""
        used = self.filled[:, 1] % ALIGNMENT
        rows = (self.filled.sum(1) // ALIGNMENT)[used > 0]
        return rows, np.arange(ALIGNMENT) < used[used > 0, None]
