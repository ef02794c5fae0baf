"""`Kept`: an array that an operation keeps for its gradient, and may write over if it is free.

A large intermediate result, as logits over many classes are, is often not needed once its own
gradient is known: then that may be written where it lies. Whether somebody else could still look at
the memory is told by counting references, of the array and of the memory under it, so that a tensor
that anybody holds keeps its elements, be it a variable, another operation, or a view.
"""

from __future__ import annotations

import sys
from typing import Protocol, TypeGuard

from rumus.tensor.backend import Array, Backend


class Sharing(Backend, Protocol):
    """A backend that can say what the memory of an array is."""

    def memory_of(self, array: Array) -> object | None:
        """Return the object that every array over this memory refers to: itself, if there is none.

        None where it is not certain, or where elements do not lie dense and each by itself.
        """
        ...


def _can_share(backend: Backend) -> TypeGuard[Sharing]:
    return hasattr(backend, "memory_of") and hasattr(sys, "getrefcount")


def _references_of_a_local() -> int:
    """What the interpreter counts for an object that one variable refers to."""
    thing = object()
    return sys.getrefcount(thing)


class Kept:
    """One array, for whoever takes it."""

    __slots__ = ("_array",)

    def __init__(self, array: Array) -> None:
        self._array = array

    def take(self, backend: Backend) -> tuple[Array, bool]:
        """Return the array, once, and whether its memory may be written over: nobody else has it.

        Nothing but this object may refer to the array where this is asked for in earnest.
        """
        array, self._array = self._array, None
        if not _can_share(backend):
            return array, False
        one = _references_of_a_local()
        is_free = sys.getrefcount(array) == one
        memory = backend.memory_of(array)
        # Two refer to the memory: this variable, and the array or its variable.
        is_free = is_free and memory is not None and sys.getrefcount(memory) == one + 1
        return array, is_free
