"""`Guards`: what a step has read outside tensors, and whether it is unchanged.

Replaying a step without its Python code is right only while that code would do the same. Before
each replay, everything that decides this is compared: by identity, in loops that run in C, and by
value only if that differs.
"""

from __future__ import annotations

import ctypes
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from datetime import date, time, timedelta, tzinfo
from decimal import Decimal, getcontext
from fractions import Fraction
from itertools import chain, repeat
from operator import eq, is_
from types import CellType
from typing import Any, Final
from uuid import UUID
from weakref import ReferenceType

import numpy as np

MISSING: Final = object()
LARGEST: Final = 16384  # bytes of an array that are compared
MOST: Final = 1024  # elements of a container that are compared
BY_REPR: Final = (float, complex)  # 0.0 == -0.0, and NaN is not even itself
BY_VALUE: Final = (
    int, str, bytes, range, slice, date, time, timedelta, tzinfo, Decimal, Fraction, UUID,
    np.dtype,
)  # fmt: skip

OF_C: Final = (ctypes.Array, ctypes.Structure, ctypes.Union, ctypes._SimpleCData)


def contents(cell: CellType) -> Any:
    """The value of a closed-over variable; MISSING before its first assignment."""
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


class _Slots:
    """Places looked up by name, and what they held, as parallel lists."""

    def __init__(self, lookup: Callable[..., Any]) -> None:
        self._lookup = lookup
        self._known: set[tuple[int, Any]] = set()
        self._holders: list[Any] = []
        self._names: list[Any] = []
        self._values: list[Any] = []
        self._labels: list[str] = []

    def __len__(self) -> int:
        return len(self._values)

    def knows(self, holder: object, name: object) -> bool:
        """Whether a place is among them."""
        return (id(holder), name) in self._known

    def add(self, holder: object, name: object, label: str) -> None:
        """Note what a place holds now; the first time counts."""
        if not self.knows(holder, name):
            self._known.add((id(holder), name))
            self._holders.append(holder)
            self._names.append(name)
            self._values.append(self._found(holder, name))
            self._labels.append(label)

    def _found(self, holder: object, name: object) -> Any:
        try:
            return self._lookup(holder, name, MISSING)
        except ValueError:  # of an empty cell
            return MISSING

    def are_same(self) -> bool:
        """Whether each place holds the same object as before."""
        found = map(self._lookup, self._holders, self._names, repeat(MISSING))
        try:
            return all(map(is_, found, self._values))
        except ValueError:
            return False

    def difference(self) -> str | None:
        """Return the label of a changed value; equal ones replace the old for the next time."""
        for number, (holder, name) in enumerate(zip(self._holders, self._names, strict=True)):
            found = self._found(holder, name)
            if found is not self._values[number]:
                if not same(found, self._values[number]):
                    return self._labels[number]
                self._values[number] = found
        return None


class _Contents:
    """A container and its contents."""

    def __init__(self, holder: Any, label: str) -> None:
        self._holder = holder
        self.label = label
        self._seen = snapshot(holder)

    def is_same(self) -> bool:
        """Whether its contents are unchanged."""
        holder, seen = self._holder, self._seen
        if isinstance(holder, list):
            is_all = len(holder) == len(seen) and all(map(is_, holder, seen))
            return is_all or same(tuple(holder), seen)
        if isinstance(holder, dict):
            keys, values = seen
            is_all = len(holder) == len(keys) and all(map(is_, holder, keys))
            return (is_all and all(map(is_, holder.values(), values))) or same(
                snapshot(holder), seen
            )
        return same(snapshot(holder), seen)


class _Elements:
    """Contents of plain lists and dicts, in parallel lists that one loop compares."""

    def __init__(self) -> None:
        self._holders: list[Any] = []
        self._parts: list[Iterable[Any]] = []  # that show a holder's contents now
        self._lengths: list[int] = []
        self._seen: list[Any] = []

    def add(self, holder: list[Any] | dict[Any, Any]) -> None:
        """Note a container's contents now."""
        self._holders.append(holder)
        self._lengths.append(len(holder))
        self._parts += [holder] if isinstance(holder, list) else [holder, holder.values()]
        for part in self._parts[-1 if isinstance(holder, list) else -2 :]:
            self._seen += part

    def are_same(self) -> bool:
        """Whether each holds the same objects as before."""
        if not all(map(eq, map(len, self._holders), self._lengths)):
            return False
        return all(map(is_, chain.from_iterable(self._parts), self._seen))


class Guards:
    """Values by where they were read, each with a label for messages.

    >>> rate = {"beta": 0.5}
    >>> guards = Guards()
    >>> guards.add_key(rate, "beta", "rate['beta']")
    >>> guards.are_met()
    True
    >>> rate["beta"] = 1.0
    >>> guards.are_met(), guards.changed
    (False, "rate['beta']")
    """

    def __init__(self) -> None:
        self._keys = _Slots(dict.get)
        self._attributes = _Slots(getattr)
        self._contents: dict[int, _Contents] = {}
        self._all: list[_Contents] = []
        self._plain = _Elements()
        self._others: list[_Contents] = []
        self.changed = ""

    def __len__(self) -> int:
        return len(self._keys) + len(self._attributes) + len(self._all)

    def add_key(self, holder: dict[Any, Any], key: object, label: str) -> None:
        """Note a dict's value for a key, if any."""
        self._keys.add(holder, key, label)

    def add_attribute(self, holder: object, name: str, label: str) -> None:
        """Note an attribute that can be read without running Python code."""
        self._attributes.add(holder, name, label)

    def add_contents(self, holder: object, label: str) -> None:
        """Note a container's contents. `is_comparable` tells for which ones this works."""
        if id(holder) not in self._contents:
            found = self._contents[id(holder)] = _Contents(holder, label)
            self._all.append(found)
            if isinstance(holder, (list, dict)) and type(holder) in (list, dict):
                self._plain.add(holder)
            else:
                self._others.append(found)

    def knows(self, holder: object, name: object) -> bool:
        """Whether the value of a place is among them."""
        return self._keys.knows(holder, name) or self._attributes.knows(holder, name)

    def are_met(self) -> bool:
        """Whether everything is unchanged; `changed` is the label of what is not."""
        for slots in (self._keys, self._attributes):
            if not slots.are_same() and (label := slots.difference()) is not None:
                self.changed = label
                return False
        for contents in self._others if self._plain.are_same() else self._all:
            if not contents.is_same():
                self.changed = contents.label
                return False
        return True


class _DecimalContext:
    """How this thread computes with Decimals: precision, rounding and limits, as a text."""

    @property
    def text(self) -> str:
        """What results depend on; not the flags, which they set."""
        now = getcontext()
        return f"{now.prec} {now.rounding} {now.Emin} {now.Emax} {now.clamp} {now.traps}"


DECIMAL_CONTEXT: Final = _DecimalContext()


def is_comparable(holder: Any) -> bool:
    """Whether a container is small enough for `Guards` to compare what it holds."""
    if isinstance(holder, np.ndarray):
        return holder.nbytes <= LARGEST and not holder.dtype.hasobject
    if isinstance(holder, memoryview):
        return holder.nbytes <= LARGEST
    if isinstance(holder, OF_C):
        return ctypes.sizeof(holder) <= LARGEST
    return not hasattr(holder, "__len__") or len(holder) <= MOST


def snapshot(holder: Any) -> Any:
    """Return a container's contents, in a form that does not change with it."""
    if isinstance(holder, dict):
        return tuple(holder), tuple(holder.values())
    if isinstance(holder, (list, deque)):
        return tuple(holder)
    if isinstance(holder, (set, frozenset)):
        return frozenset(holder)
    if isinstance(holder, np.ndarray):
        return holder.shape, holder.dtype, holder.tobytes()
    if isinstance(holder, (bytearray, memoryview, array, *OF_C)):
        return bytes(holder)
    if isinstance(holder, ContextVar):
        return holder.get(MISSING)
    assert isinstance(holder, ReferenceType)
    return holder()


def same(a: object, b: object) -> bool:
    """Whether two values are the same object, or indistinguishable to a program."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, frozenset) and isinstance(b, frozenset):
        return len(a) == len(b) and same(_sorted(a), _sorted(b))
    if isinstance(a, np.generic) and isinstance(b, np.generic):
        return a.dtype == b.dtype and a.tobytes() == b.tobytes()
    if isinstance(a, BY_REPR):
        return repr(a) == repr(b)
    return isinstance(a, BY_VALUE) and bool(a == b)


def _sorted(values: Iterable[object]) -> tuple[object, ...]:
    """Elements of a set, in an order that depends only on them."""
    return tuple(sorted(values, key=_order))


def _order(value: object) -> tuple[str, object]:
    return type(value).__qualname__, repr(value) if isinstance(
        value, (*BY_REPR, *BY_VALUE)
    ) else id(value)


def reachable(container: object) -> Iterator[Any]:
    """Iterate over a container's elements, keys and values."""
    if isinstance(container, dict):
        yield from container.keys()
        yield from container.values()
    elif isinstance(container, ReferenceType):
        yield container()
    elif isinstance(container, ContextVar):
        yield container.get(None)
    elif isinstance(container, (list, tuple, set, frozenset, deque)):
        yield from container
