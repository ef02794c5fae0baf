"""`Reached`: state that code reaches besides the attributes of modules, and that a pass may change.

A tensor in a dict, in the slots of an object, of a class, a global or closed-over variable, or one
that a generator keeps: no assignment can be held back there, so a change is found by looking
before and after.
"""

from __future__ import annotations

import dis
import zlib
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Set
from functools import partial
from numbers import Number
from types import (
    CodeType,
    FunctionType,
    GeneratorType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any, Final, TypeAlias, TypeGuard

import numpy as np

from rumus.tensor.graph.tensor import Tensor

# The label of a place, its last name, and what is there.
Place: TypeAlias = "tuple[str, str, Any]"
# By label: the last name, and what differs if the content does.
Contents: TypeAlias = "dict[str, tuple[str, Hashable]]"

MOST: Final = 1024  # things that are looked at
LARGEST: Final = MOST * MOST  # elements of an array that are


class Reached:
    """What some places lead to, with its contents now.

    starts: the places to begin with.
    home: the packages of the program, whose functions and objects are followed; of other objects
        only the tensors count.
    """

    def __init__(self, starts: Iterable[Place], home: Set[str]) -> None:
        self.contents: Contents = {}
        self.codes: list[CodeType] = []  # of the functions
        self._home = home
        seen, waiting = set[int](), deque(starts)
        while waiting and len(seen) < MOST:
            label, name, value = waiting.popleft()
            if (content := _content(value)) is not None:
                self.contents[label] = name, content
            elif id(value) not in seen:
                seen.add(id(value))
                waiting.extend(self._within(label, name, value))

    def _within(self, label: str, name: str, value: Any) -> Iterator[Place]:
        """The places in a thing."""
        if isinstance(value, dict):
            for key, each in list(value.items())[:MOST]:
                yield f"{label}[{_shown(key)}]", name, each
        elif isinstance(value, (list, tuple, deque)):
            for number, each in enumerate(list(value)[:MOST]):
                yield f"{label}[{number}]", name, each
        elif isinstance(value, MethodType):
            yield "self", name, value.__self__
            yield label, name, value.__func__
        elif isinstance(value, partial):
            for each in (value.func, value.args, value.keywords):
                yield label, name, each
        elif isinstance(value, FunctionType):
            if package_of(value) in self._home:
                codes = list(_codes_of(value.__code__))
                self.codes += codes
                yield from _of_function(value, codes)
        elif isinstance(value, GeneratorType):
            if value.gi_frame is not None:
                for local, each in value.gi_frame.f_locals.items():
                    yield f"{local!r} in the generator {label}", local, each
        elif _is_foreign(value):
            is_own = package_of(type(value)) in {*self._home, "types"}  # or a SimpleNamespace
            for place in _attributes(label, value):
                if is_own or is_buffer(place[2]):
                    yield place
            if is_own:
                for name, each in list(vars(type(value)).items()):
                    if isinstance(each, FunctionType):
                        yield f"{type(value).__name__}.{name}", name, each


def changes(before: Contents, now: Contents) -> Iterator[tuple[str, str]]:
    """The labels and names of places that were there before and have other contents.

    Of several that lead to one tensor, one. What has come is none: it may be a cache.
    """
    told = set[Hashable]()
    for label, (name, content) in now.items():
        if label in before and before[label][1] != content and content not in told:
            if isinstance(content, tuple) and content[0] == "tensor":
                told.add(content)
            yield label, name


def is_read_and_stored(label: str, name: str, codes: Iterable[CodeType]) -> bool:
    """Whether code both reads and assigns a place: a name, or an element of anything.

    label, name: of the place.
    """
    is_element = label.endswith("]")
    reads = stores = False
    for code in codes:
        for instruction in dis.get_instructions(code):
            what = instruction.opname
            if is_element:
                reads |= what == "BINARY_SUBSCR"
                stores |= what == "STORE_SUBSCR"
            elif instruction.argval == name:
                reads |= what.startswith("LOAD_")
                stores |= what.startswith("STORE_")
    return reads and stores


def package_of(thing: Any) -> str:
    """The package in which a class or a function was written."""
    return str(thing.__module__).partition(".")[0]


def is_buffer(value: object) -> TypeGuard[Tensor]:
    """Whether it is a tensor that nothing is derived from or for, as state is."""
    return type(value) is Tensor and not value.requires_grad


def is_plain(value: object) -> bool:
    """Whether it is an object with attributes, whose class does nothing about them."""
    kind = type(value)
    found = next((vars(k)["__dict__"] for k in kind.__mro__ if "__dict__" in vars(k)), None)
    return isinstance(found, (GetSetDescriptorType, MemberDescriptorType)) and _is_foreign(value)


def content_of_array(array: np.ndarray[Any, Any]) -> tuple[Hashable, ...]:
    """What differs between two arrays if their numbers do."""
    if array.dtype.hasobject or array.size > LARGEST:
        return (array.shape,)
    is_of_numbers = array.dtype.kind in "biufc"  # dates have no buffer
    return array.shape, zlib.crc32(
        np.ascontiguousarray(array).data if is_of_numbers else array.tobytes()
    )


def _content(value: object) -> Hashable | None:
    """What differs if a tensor, an array or a number does; None for anything else."""
    if is_buffer(value):
        return "tensor", id(value), value._version.current
    if isinstance(value, np.ndarray):
        return content_of_array(value)
    return (type(value), repr(value)) if isinstance(value, Number) else None


def _codes_of(code: CodeType) -> Iterator[CodeType]:
    """A function's code, and that of functions within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes_of(constant)


def _of_function(function: FunctionType, codes: Iterable[CodeType]) -> Iterator[Place]:
    """What a function holds and closes over, and the globals that its code names."""
    short = function.__name__
    for free, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"{free!r}, which {short} closes over,", free, cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    for number, default in enumerate(function.__defaults__ or ()):
        yield f"default {number} of {short}", short, default
    for held in (function.__kwdefaults__ or {}, vars(function)):
        for name, value in held.items():
            yield f"{short}.{name}", name, value
    names = {name for code in codes for name in code.co_names}
    for name in sorted(names & function.__globals__.keys()):
        yield f"the global {name!r}", name, function.__globals__[name]


def _attributes(label: str, value: object) -> Iterator[Place]:
    """The attributes of an object, without running any code of it."""
    if is_plain(value):
        for name, each in list(object.__getattribute__(value, "__dict__").items()):
            yield f"{label}.{name}", name, each
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            member = kind.__dict__.get(name)
            if isinstance(member, MemberDescriptorType):
                try:
                    yield f"{label}.{name}", name, member.__get__(value)
                except AttributeError:  # not assigned yet
                    continue


def _is_foreign(value: object) -> bool:
    """Whether it is an object of the program, and no module, class or function."""
    kind = type(value)
    return not (
        issubclass(kind, (type, ModuleType, FunctionType))
        or hasattr(kind, "named_buffers")
        or str(kind.__module__).startswith("rumus.")
    )


def _shown(key: object) -> str:
    return repr(key) if isinstance(key, (str, int, tuple)) else type(key).__name__
