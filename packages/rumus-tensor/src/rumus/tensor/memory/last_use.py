"""`Kept`: an array that an operation keeps for its gradient, and may overwrite if it is free.

A large intermediate result, such as logits over many classes, is often not needed once its gradient
is known, so the gradient may overwrite it. Reference counts, of the array and of its memory, tell
whether anything could still read it, so a tensor that is held by a variable, another operation or a
view keeps its elements.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Protocol, TypeGuard

from rumus.tensor.memory.backend import Array, Backend


class Sharing(Backend, Protocol):
    """A backend that can return the owner of an array's memory."""

    def memory_of(self, array: Array) -> object | None:
        """Return the object that all arrays over this memory refer to, or the array itself.

        None if that is uncertain, or if the elements are not dense and distinct.
        """
        ...


def _can_share(backend: Backend) -> TypeGuard[Sharing]:
    return hasattr(backend, "memory_of") and hasattr(sys, "getrefcount")


def _references(box: Sequence[object]) -> int:
    """The interpreter's reference count of the first item in a box.

    The box is one reference, and this call may be another: Python versions differ, since some do
    not count a local variable passed to a call. So the counts to compare are all read in one
    expression, of objects that no separate variable refers to.
    """
    return sys.getrefcount(box[0])


def references_beside(box: Sequence[object]) -> int:
    """How many references to the first item in a box there are, beside the box's own.

    box: a list that the call makes, of an object that no variable refers to.
    """
    return _references(box) - _references([object()])


class Kept:
    """An array, until it is taken."""

    __slots__ = ("_box",)

    def __init__(self, array: Array) -> None:
        self._box = [array]

    def take(self, backend: Backend) -> tuple[Array, bool]:
        """Return the array, once, and whether its memory may be overwritten: nothing else uses it.

        Call this only when no other reference to the array exists.
        """
        box, self._box = self._box, []
        if not _can_share(backend):
            return box[0], False
        once = _references([object()])
        is_free = _references(box) == once
        memory = [backend.memory_of(box[0])]
        # The array refers to its memory, or is the memory; so does the second box.
        is_free = is_free and memory[0] is not None and _references(memory) == once + 1
        return box[0], is_free
