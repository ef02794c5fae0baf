"""One parameter's place in an arena."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field

from rumus.tensor.memory.backend import Array


@dataclass(slots=True, eq=False)
class Slot:
    """The place of a parameter's elements and gradient.

    The gradient's memory is lent to one store at a time: the store of the last `backward` holds it
    until it is drained or freed; meanwhile other stores get separate memory.
    """

    start: int  # in elements, from the beginning of the arena
    size: int
    value: Array  # a view of the arena, in the parameter's shape
    gradient: Array
    holder: weakref.ref[object] | None = field(default=None)

    def lend(self, store: object, is_stored: bool) -> Array | None:
        """Lend the gradient's memory to `store`; None while it holds a gradient.

        is_stored: whether `store` already has a gradient of this parameter.
        """
        holder = None if self.holder is None else self.holder()
        if holder is not None and (holder is not store or is_stored):
            return None
        self.holder = weakref.ref(store)
        return self.gradient

    def take_back(self, store: object) -> None:
        """End the loan to `store`."""
        if self.holder is not None and self.holder() is store:
            self.holder = None
