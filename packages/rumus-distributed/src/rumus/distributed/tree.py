"""Sums in a fixed tree: neighbors in pairs, then pairs of pairs, and so on.

Floating-point addition is not associative, so only the same tree gives the same bits. A rank adds
up its shards, which form a whole branch of the tree; the ranks then add up their branches, and it
does not matter which rank had which.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from rumus.tensor import Backend, Expr, Kernel
from rumus.tensor.memory.backend import Array

T = TypeVar("T")

_ADD: Final = Kernel("add", {"sum": Expr.array("sum") + Expr.array("other")}, ("sum", "other"))
_OF_TWO: Final = Expr.array("a") + Expr.array("b")
_SUM: Final = Kernel("sum", {"out": _OF_TWO}, ("a", "b"))
_SUM_TWICE: Final = Kernel("sum_twice", {"out": _OF_TWO, "again": _OF_TWO}, ("a", "b"))


class Tree(Generic[T]):
    """Leaves that arrive one by one, merged as soon as there are two branches of equal size.

    merge: adds its second argument to its first, and returns the first. At most as many branches
        are kept as the number of leaves has binary digits.

    >>> tree = Tree(lambda a, b: f"({a}{b})")
    >>> for leaf in "abcde":
    ...     tree.push(leaf)
    >>> tree.root()
    '(((ab)(cd))e)'
    """

    def __init__(self, merge: Callable[[T, T], T]) -> None:
        self._merge = merge
        self._branches: list[T] = []
        self._count = 0

    def push(self, leaf: T) -> None:
        """Add the next leaf."""
        self._branches.append(leaf)
        self._count += 1
        size = 1
        while not self._count & size:
            self._join()
            size *= 2

    def root(self) -> T:
        """Return the total of all leaves. Raises IndexError if there are none."""
        while len(self._branches) > 1:
            self._join()
        return self._branches[0]

    def _join(self) -> None:
        right = self._branches.pop()
        self._branches[-1] = self._merge(self._branches[-1], right)


def add_rows(backend: Backend, rows: Sequence[Array]) -> Array:
    """Return the sum of arrays of equal shape, stored in the first; the others are scratch."""

    def merge(a: Array, b: Array) -> Array:
        backend.elementwise(_ADD, (a, b), (), (a,))
        return a

    tree = Tree[Array](merge)
    for row in rows:
        tree.push(row)
    return tree.root()


def add_rows_into(backend: Backend, rows: Sequence[Array], out: tuple[Array, Array]) -> None:
    """Write the sum of two or more arrays of equal shape to two places.

    The rows may include one of these, and are scratch on the host. On a device, where they may be
    across a bus, each is read once, and the last addition writes to the destination.
    """
    left = len(rows) - 1  # additions still to come

    def merge(a: Array, b: Array) -> Array:
        nonlocal left
        left -= 1
        if not left:
            backend.elementwise(_SUM_TWICE, (a, b), (), out)
            return out[0]
        total = backend.allocate(a.shape, a.dtype) if backend.runs_ahead else a
        backend.elementwise(_SUM, (a, b), (), (total,))
        return total

    tree = Tree[Array](merge)
    for row in rows:
        tree.push(row)
    tree.root()
