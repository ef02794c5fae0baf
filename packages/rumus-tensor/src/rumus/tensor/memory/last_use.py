"""`Kept`: an array that an operation keeps for its gradient, and may write over if it is free.

A large intermediate result, as logits over many classes are, is often not needed once its own
gradient is known: then that may be written where it lies. Whether somebody else could still look at
the memory is told by counting references, of the array and of the memory under it, so that a tensor
that anybody holds keeps its elements, be it a variable, another operation, or a view.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Protocol, TypeGuard

from rumus.tensor.memory.backend import Array, Backend


class Sharing(Backend, Protocol):
    """A backend that can say what the memory of an array is."""

    def memory_of(self, array: Array) -> object | None:
        """Return the object that every array over this memory refers to: itself, if there is none.

        None where it is not certain, or where elements do not lie dense and each by itself.
        """
        ...


def _can_share(backend: Backend) -> TypeGuard[Sharing]:
    return hasattr(backend, "memory_of") and hasattr(sys, "getrefcount")


def _references(box: Sequence[object]) -> int:
    """What the interpreter counts for the first of a box, wherever else it is.

    The box is one, and this call may be another: that differs between versions of Python, as some
    do not count what a local variable lends to a call. So one line reads all counts that are
    compared, of things that no variable of their own refers to.
    """
    return sys.getrefcount(box[0])


class Kept:
    """One array, for whoever takes it."""

    __slots__ = ("_box",)

    def __init__(self, array: Array) -> None:
        self._box = [array]

    def take(self, backend: Backend) -> tuple[Array, bool]:
        """Return the array, once, and whether its memory may be written over: nobody else has it.

        Call this only when no other reference to the array exists.
        """
        box, self._box = self._box, []
        if not _can_share(backend):
            return box[0], False
        once = _references([object()])
        is_free = _references(box) == once
        memory = [backend.memory_of(box[0])]
        # The array refers to its memory, or is it; the second box does as well.
        is_free = is_free and memory[0] is not None and _references(memory) == once + 1
        return box[0], is_free
