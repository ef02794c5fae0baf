"""`Guards`: what a step has read outside tensors, and whether it is unchanged.

Replaying a step without its Python code is right only while that code would do the same. Before
each replay, everything that decides this is compared: by identity, in loops that run in C, and by
value only if that differs.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from abc import get_cache_token
from array import array
from codecs import lookup_error
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import Context, ContextVar
from datetime import date, time, timedelta, tzinfo
from decimal import Decimal, getcontext
from fractions import Fraction
from functools import lru_cache
from itertools import chain, repeat
from operator import eq, is_
from struct import pack
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID
from weakref import ReferenceType

import numpy as np

from rumus.train.capture.cells import MISSING

LARGEST: Final = 16384  # bytes of an array that are compared
MOST: Final = 1024  # elements of a container that are compared
BY_BITS: Final = (float, complex)  # 0.0 == -0.0, and NaN is not even itself
BY_VALUE: Final = (
    int, str, bytes, range, slice, date, time, timedelta, tzinfo, Decimal, Fraction, UUID,
    np.dtype,
)  # fmt: skip

CACHED: Final = type(lru_cache(len))  # a function with a cache
OF_C: Final = (ctypes.Array, ctypes.Structure, ctypes.Union, ctypes._SimpleCData)
_MAPPINGS: Final = (OrderedDict, dict, MappingProxyType, Context)
_PLAINLY: Final = (list, dict, MappingProxyType)  # the last of a class's own names
_HOLDING: Final = (*_MAPPINGS, list, tuple, set, frozenset, deque)


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
        if not self._values:  # a loop over nothing takes longer than this
            return True
        found = map(self._lookup, self._holders, self._names, repeat(MISSING))
        try:
            return all(map(is_, found, self._values))
        except ValueError:
            return False

    def look_again(self) -> None:
        """Replace what the places held by what they hold now."""
        self._values = list(map(self._found, self._holders, self._names))

    def references(self) -> Iterator[Any]:
        """Iterate over what they refer to, each as often as they do."""
        yield from self._holders
        yield from self._values

    def dropped(self) -> Iterator[Any]:
        """Iterate over what the places held, and hold no longer."""
        for holder, name, value in zip(self._holders, self._names, self._values, strict=True):
            if self._found(holder, name) is not value:
                yield value

    def difference(self) -> str | None:
        """Return the label of a changed value; equal ones replace the old for the next time."""
        for number, (holder, name) in enumerate(zip(self._holders, self._names, strict=True)):
            found = self._found(holder, name)
            if found is not self._values[number]:
                if not same(found, self._values[number]):
                    return self._labels[number]
                self._values[number] = found
        return None


class _Referent:
    """Attributes of what only a weak reference leads to, and which may not be kept alive."""

    __slots__ = ("_thing",)

    def __init__(self, thing: object) -> None:
        self._thing = ReferenceType(thing)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._thing(), name)


class _Contents:
    """A container and its contents."""

    def __init__(self, holder: Any, label: str) -> None:
        self._holder = holder
        self.label = label
        self._seen = snapshot(holder)

    def references(self) -> Iterator[Any]:
        """Iterate over what it refers to, as often as it does."""
        yield self._holder
        if self._seen is not self._holder:
            yield from self._parts(self._seen)

    def dropped(self) -> Iterator[Any]:
        """Iterate over what the container held, and holds no longer."""
        try:
            left = set(map(id, self._parts(snapshot(self._holder))))
        except ValueError:  # of a memoryview that was released
            return
        yield from (part for part in self._parts(self._seen) if id(part) not in left)

    def _parts(self, seen: Any) -> Iterable[Any]:
        if isinstance(self._holder, _MAPPINGS):
            return chain(*seen)
        return seen if isinstance(seen, tuple) else (seen,)

    def is_same(self) -> bool:
        """Whether its contents are unchanged."""
        holder, seen = self._holder, self._seen
        if isinstance(holder, CACHED):
            found = cached_parts(holder)
            is_all = len(found) == len(seen) and all(map(is_, found, seen))
            return is_all or sorted(map(id, found)) == sorted(map(id, seen))  # used in any order
        try:
            return same(snapshot(holder), seen)
        except ValueError:  # of a memoryview that was released
            return False


class _Elements:
    """Contents of plain lists, dicts and classes, in parallel lists that one loop compares."""

    def __init__(self) -> None:
        self._holders: list[Any] = []
        self._parts: list[Iterable[Any]] = []  # that show a holder's contents now
        self._lengths: list[int] = []
        self._seen: list[Any] = []

    def add(self, holder: list[Any] | dict[Any, Any] | MappingProxyType[Any, Any]) -> None:
        """Note a container's contents now."""
        self._holders.append(holder)
        self._lengths.append(len(holder))
        self._parts += [holder] if isinstance(holder, list) else [holder, holder.values()]
        for part in self._parts[-1 if isinstance(holder, list) else -2 :]:
            self._seen += part

    def references(self) -> Iterator[Any]:
        """Iterate over what they refer to, each as often as they do."""
        yield from self._holders
        for part in self._parts:
            yield from (part,) if isinstance(part, _PLAINLY) else gc.get_referents(part)
        yield from self._seen

    def are_same(self) -> bool:
        """Whether each holds the same objects as before."""
        if not all(map(eq, map(len, self._holders), self._lengths)):
            return False
        return all(map(is_, chain.from_iterable(self._parts), self._seen))


class _Sizes:
    """Classes, and how many names each has: what comes to one may be what an operator calls."""

    def __init__(self) -> None:
        self._holders: list[MappingProxyType[str, Any]] = []
        self._sizes: list[int] = []
        self._labels: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, holder: MappingProxyType[str, Any], label: str) -> None:
        """Note how many names a class has now."""
        if id(holder) not in self._labels:
            self._labels[id(holder)] = label
            self._holders.append(holder)
            self._sizes.append(len(holder))

    def are_same(self) -> bool:
        """Whether each has as many as before."""
        return all(map(eq, map(len, self._holders), self._sizes))

    def look_again(self) -> None:
        """Replace how many names they had by how many they have now."""
        self._sizes = list(map(len, self._holders))

    def difference(self) -> str:
        """Return the label of a class that has more names, or fewer."""
        pairs = zip(self._holders, self._sizes, strict=True)
        return next(self._labels[id(each)] for each, size in pairs if len(each) != size)


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
        self._entries = _Slots(MappingProxyType.get)
        self._left_keys, self._left_attributes = _Slots(dict.get), _Slots(getattr)
        left = self._left_keys, self._left_attributes
        self._slots = (self._keys, self._attributes, self._entries, *left)
        self._writes: list[tuple[Callable[[str, Any], None], str, Any]] = []
        self._classes: dict[type, MappingProxyType[str, Any]] = {}
        self._sizes = _Sizes()
        self._contents: dict[int, _Contents] = {}
        self._all: list[_Contents] = []
        self._referents: dict[int, _Referent] = {}
        self._plain = _Elements()
        self._others: list[_Contents] = []
        self.changed = ""

    def __len__(self) -> int:
        return sum(map(len, self._slots)) + len(self._sizes) + len(self._all)

    def add_key(self, holder: dict[Any, Any], key: object, label: str) -> None:
        """Note a dict's value for a key, if any."""
        self._keys.add(holder, key, label)

    def add_attribute(self, holder: object, name: str, label: str) -> None:
        """Note an attribute that can be read without running Python code."""
        self._attributes.add(self._held(holder), name, label)

    def hold_weakly(self, thing: object) -> None:
        """Keep a thing's attributes from now on, but not the thing."""
        self._referents[id(thing)] = _Referent(thing)

    def _held(self, thing: Any) -> Any:
        return self._referents.get(id(thing), thing)

    def add_entry(self, kind: type, name: str, label: str) -> None:
        """Note what a class itself has under a name, as it lies there: perhaps a descriptor."""
        self._entries.add(self.entries(kind), name, label)

    def add_size(self, kind: type) -> None:
        """Note how many names a class itself has."""
        self._sizes.add(self.entries(kind), f"the names of {kind.__name__}")

    def names_are_given(self) -> None:
        """Note again how many names each class has: the step may have given it some."""
        self._sizes.look_again()

    def entries(self, kind: type) -> MappingProxyType[str, Any]:
        """Return a class's own names, always in the same view."""
        return self._classes.setdefault(kind, vars(kind))

    def add_left_key(self, holder: dict[Any, Any], key: object, label: str) -> None:
        """Note what the code has left in a dict: a replay, which does not write it, needs it."""
        self._left_keys.add(holder, key, label)

    def add_left_attribute(self, holder: object, name: str, label: str) -> None:
        """Note what the code has left in an attribute that is read without Python code."""
        self._left_attributes.add(self._held(holder), name, label)

    def add_write(self, write: Callable[[str, Any], None], name: str, value: object) -> None:
        """Note a number or a text that the code has written.

        write: writes it again.
        """
        self._writes.append((write, name, value))

    def write_again(self) -> None:
        """Write what the code would have written."""
        for write, name, value in self._writes:
            write(name, value)

    def code_has_run(self) -> None:
        """Note again what the code leaves behind: it has run once more."""
        self._left_keys.look_again()
        self._left_attributes.look_again()

    def add_contents(self, holder: object, label: str) -> None:
        """Note a container's contents. `is_comparable` tells for which ones this works."""
        if id(holder) not in self._contents:
            found = self._contents[id(holder)] = _Contents(holder, label)
            self._all.append(found)
            if isinstance(holder, _PLAINLY) and type(holder) in _PLAINLY:
                self._plain.add(holder)
            else:
                self._others.append(found)

    def knows(self, holder: object, name: object) -> bool:
        """Whether the value of a place is among them."""
        return self._keys.knows(holder, name) or self._attributes.knows(self._held(holder), name)

    def references(self) -> Iterator[Any]:
        """Iterate over what they refer to, each as often as they do."""
        for slots in self._slots:
            yield from slots.references()
        for contents in self._all:
            yield from contents.references()
        yield from self._plain.references()
        for write, _, value in self._writes:
            yield getattr(write, "__self__", write)
            yield value

    def dropped(self) -> Iterator[Any]:
        """Iterate over what was where they look, and is there no longer."""
        for slots in self._slots:
            yield from slots.dropped()
        for contents in self._all:
            yield from contents.dropped()

    def are_met(self) -> bool:
        """Whether everything is unchanged; `changed` is the label of what is not."""
        for slots in self._slots:
            if not slots.are_same() and (label := slots.difference()) is not None:
                self.changed = label
                return False
        if not self._sizes.are_same():
            self.changed = self._sizes.difference()
            return False
        for contents in self._others if self._plain.are_same() else self._all:
            if not contents.is_same():
                self.changed = contents.label
                return False
        return True


class _DecimalContext:
    """How this thread computes with Decimals and shows them, as a text."""

    @property
    def text(self) -> str:
        """What results depend on; not the flags, which they set."""
        now = getcontext()
        limits = f"{now.prec} {now.rounding} {now.Emin} {now.Emax} {now.clamp}"
        return f"{limits} {now.capitals} {now.traps}"


DECIMAL_CONTEXT: Final = _DecimalContext()


class _NumpySettings:
    """How NumPy's numbers are shown, and what becomes of those that are none."""

    @property
    def legacy(self) -> object:
        """The version whose way of showing them is kept, or False."""
        return np.get_printoptions()["legacy"]

    @property
    def errors(self) -> str:
        """Which divisions by 0 and the like raise; the same object as long as it is the same."""
        return sys.intern(" ".join(map(str, np.geterr().values())))

    @property
    def called(self) -> object:
        """What is called for them, if that is what becomes of them."""
        return np.geterrcall()


NUMPY_SETTINGS: Final = _NumpySettings()


class _Digits:
    """How many digits a text of a whole number may have."""

    def __init__(self) -> None:
        self._last = sys.get_int_max_str_digits()

    @property
    def most(self) -> int:
        """The same object as long as it is the same."""
        if (now := sys.get_int_max_str_digits()) != self._last:
            self._last = now
        return self._last


DIGITS: Final = _Digits()


class _Registered:
    """What abstract classes have registered, which `isinstance` asks."""

    @property
    def token(self) -> object:
        """Another one after each registration."""
        return get_cache_token()


REGISTERED: Final = _Registered()


class _Recursion:
    """How deep calls may go."""

    @property
    def limit(self) -> int:
        """The limit of `sys`."""
        return sys.getrecursionlimit()


RECURSION: Final = _Recursion()


class _ErrorHandlers:
    """What each name of a way to treat errors of texts stands for, as an attribute."""

    def __getattribute__(self, name: str) -> object:
        try:
            return lookup_error(name)
        except (LookupError, ValueError):  # or a text that cannot be a name
            raise AttributeError(name) from None


ERROR_HANDLERS: Final = _ErrorHandlers()


def is_comparable(holder: Any) -> bool:
    """Whether a container is small enough for `Guards` to compare what it holds."""
    if isinstance(holder, (np.ndarray, np.void)):
        return holder.nbytes <= LARGEST and not holder.dtype.hasobject
    if isinstance(holder, memoryview):
        return holder.nbytes <= LARGEST
    if isinstance(holder, OF_C):
        return ctypes.sizeof(holder) <= LARGEST
    if isinstance(holder, CACHED):
        return holder.cache_info().currsize <= MOST
    kind = _holding(holder)
    return kind is None or kind.__len__(holder) <= MOST


def snapshot(holder: Any) -> Any:
    """Return a container's contents, in a form that does not change with it."""
    kind = _holding(holder)
    if kind in _MAPPINGS:
        return tuple(kind.keys(holder)), tuple(kind.values(holder))
    if isinstance(holder, CACHED):
        return tuple(cached_parts(holder))
    if kind is not None:
        return tuple(kind.__iter__(holder))
    if isinstance(holder, np.ndarray):
        plain = np.ndarray.view(holder, np.ndarray)
        masked = type(holder).tobytes is not np.ndarray.tobytes and holder.tobytes()
        layout = plain.shape, plain.strides, plain.flags.writeable
        return layout, plain.dtype, _fields(plain.dtype), plain.tobytes(), masked
    if isinstance(holder, np.void):
        return holder.shape, holder.dtype, _fields(holder.dtype), holder.tobytes()
    if isinstance(holder, (bytearray, memoryview, array, *OF_C)):
        return memoryview(holder).tobytes()
    if isinstance(holder, ContextVar):
        return holder.get(MISSING)
    assert isinstance(holder, ReferenceType)
    # It refers to the same object as long as that lives.
    return type(ReferenceType.__call__(holder))


def _fields(kind: np.dtype[Any]) -> object:
    """The names of a row's fields, and of rows within it: each dtype may be given others."""
    if kind.names is None:
        return kind.subdtype and _fields(kind.base)
    return kind.names, tuple(_fields(kind[name]) for name in kind.names)


def _holding(holder: object) -> Any:
    """The class whose methods show what a container holds: a class derived from it may hide it."""
    return next((kind for kind in _HOLDING if isinstance(holder, kind)), None)


def same(a: object, b: object) -> bool:
    """Whether two values are the same object, or indistinguishable to a program."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and (all(map(is_, a, b)) or all(map(same, a, b)))
    if isinstance(a, slice) and isinstance(b, slice):
        return same((a.start, a.stop, a.step), (b.start, b.stop, b.step))
    if isinstance(a, frozenset) and isinstance(b, frozenset):
        return same((*frozenset.__iter__(a),), (*frozenset.__iter__(b),))  # in their order
    if isinstance(a, np.generic) and isinstance(b, np.generic) and not isinstance(a, np.void):
        return a.dtype == b.dtype and a.tobytes() == b.tobytes()
    if isinstance(a, BY_BITS) and isinstance(b, BY_BITS):
        return _bits(a) == _bits(b)
    # Equal are also 1.0 and 1.00 as Decimals, ranges of other ends, and times of other zones.
    return isinstance(a, BY_VALUE) and bool(a == b) and repr(a) == repr(b)


def _bits(number: complex) -> bytes:
    return pack("dd", number.real, number.imag)


def cached_parts(function: Any) -> list[Any]:
    """Return what a function with a cache refers to: its results are among it."""
    found = gc.get_referents(function)
    for part in [each for each in found if type(each) is dict and each is not vars(function)]:
        found += part.values()
    return found


def cached_results(function: Any) -> list[Any]:
    """Return what a function with a cache may return again, and perhaps what that is known by."""
    found, own = gc.get_referents(function), vars(function)
    if function.cache_parameters()["maxsize"] is None:
        tables = [each for each in found if type(each) is dict and each is not own]
        return [result for table in tables for result in table.values()]
    return [
        each
        for each in found
        if each is not own and not isinstance(each, type) and not _is_table_of_links(each)
    ]


def _is_table_of_links(thing: object) -> bool:
    """Whether it is a dict by which a cache of limited size finds its results."""
    links = {type(value).__name__ for value in thing.values()} if type(thing) is dict else set()
    return links == {"_lru_list_elem"}


def reachable(container: object) -> Iterator[Any]:
    """Iterate over a container's elements, keys and values."""
    kind = _holding(container)
    if isinstance(container, ContextVar):
        yield container.get(None)
    elif kind in _MAPPINGS:
        yield from kind.keys(container)
        yield from kind.values(container)
    elif kind is not None:
        yield from kind.__iter__(container)
