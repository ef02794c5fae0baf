"""How Python finds an attribute: among an object's own, in its classes, or by their methods."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from types import (
    CellType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    WrapperDescriptorType,
)
from typing import Any, Final

from rumus.train.capture.cells import MISSING
from rumus.train.capture.outside import is_of_rumus, is_trusted

ADDRESSES: Final = ("__array_interface__", "__array_struct__")


def plain_writer(thing: Any, name: str) -> Callable[[str, Any], None] | None:
    """What writes an attribute of a slot, a cell or a class, if no code of Python runs for it."""
    if isinstance(thing, type):
        return partial(type.__setattr__, thing)
    is_slot = isinstance(in_classes(type(thing), name), MemberDescriptorType)
    is_plain = isinstance(thing, CellType) or is_slot
    return partial(object.__setattr__, thing) if is_plain else None


def in_classes(kind: type, name: str) -> Any:
    """What a class or one of its bases has under a name, as it lies there."""
    for each in kind.__mro__:
        if name in vars(each):
            return vars(each)[name]
    return MISSING


def gives_address(thing: Any) -> bool:
    """Whether NumPy reads it by an address, perhaps of memory that nobody else knows."""
    kind = thing if isinstance(thing, type) else type(thing)
    own = [vars(each) for each in kind.__mro__ if not is_trusted(each.__module__)]
    return any(name in names for name in ADDRESSES for names in (own_names(thing) or {}, *own))


def own_names(thing: object) -> dict[str, Any] | None:
    """An object's own attributes, whatever its class does about them."""
    if isinstance(thing, threading.local):
        return thing.__dict__  # those of this thread
    try:
        own = object.__getattribute__(thing, "__dict__")
    except AttributeError:
        return None
    return own if isinstance(own, dict) else None


def looks_up_plainly(kind: type) -> bool:
    """Whether reading an attribute that is there runs no method of the class."""
    is_own = isinstance(in_classes(kind, "__getattribute__"), WrapperDescriptorType)
    other = in_classes(kind, "__getattr__")
    is_refused = isinstance(other, FunctionType) and is_of_rumus(other.__module__)
    return is_own and (other is MISSING or is_refused)


def has_plain_dict(kind: type) -> bool:
    """Whether reading `__dict__` of its objects runs no method of the class."""
    is_own = isinstance(in_classes(kind, "__getattribute__"), WrapperDescriptorType)
    return is_own and isinstance(in_classes(kind, "__dict__"), GetSetDescriptorType)


def is_data_descriptor(found: Any) -> bool:
    """Whether what lies in a class comes before an object's own attributes."""
    kind = type(found)
    return hasattr(kind, "__get__") and (hasattr(kind, "__set__") or hasattr(kind, "__delete__"))
