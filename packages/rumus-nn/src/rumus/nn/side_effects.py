"""What a module's `forward` changes besides computing: which belongs to the step, and which cannot.

A buffer that is assigned belongs to it; see `rumus.tensor.graph.assignment`. A number, a list, a
dict or a NumPy array stays changed when the step is skipped, refused or raises, and changes several
times where a step has several passes: that is said, once for each attribute. So is a tensor that
another object than a module holds.
"""

from __future__ import annotations

import weakref
import zlib
from collections import deque
from collections.abc import Callable, Hashable
from numbers import Number
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType, ModuleType
from typing import TYPE_CHECKING, Any, Final, TypeGuard, TypeVar

import numpy as np

from rumus.tensor import Parameter, Tensor
from rumus.tensor.graph.assignment import as_pass, fits, running_pass, warn_once
from rumus.tensor.graph.autograd import is_recording

if TYPE_CHECKING:
    from rumus.nn.module import Module

R = TypeVar("R")
PASSES: Final = 2  # of a module around which what it holds is looked at
MOST: Final = 1024  # elements of a container that are looked at
_CONTAINERS: Final = (list, dict, set, deque, bytearray)
_STAYS: Final = (
    "which stays changed when the step is skipped or raises, and changes again in each further "
    "pass of a step: "
)
_HOW: Final = (
    "keep it as a buffer, a tensor made in __init__ that forward assigns, self.{} = ..., in the "
    "same shape and dtype; or change it between the steps"
)


def is_inner(module: Module) -> bool:
    """Whether the call of a module is a part of another's, or of a pass that changes nothing."""
    running = running_pass()
    return (running is not None and running.root is not None) or not module.training


def outermost(module: Module, act: Callable[[], R]) -> R:
    """Return what `act` returns: the call of a module that no other module calls."""
    if not is_recording() or not _is_new(module):
        return as_pass(module, act)
    before = _contents(module)
    result = as_pass(module, act)
    for label, (name, content) in _contents(module).items():
        if label in before and _is_changed(before[label][1], content):
            warn_once(label, f"is changed by forward, {_STAYS}{_HOW.format(name)}")
    return result


def assigned(module: Module, name: str, value: object) -> None:
    """Hear that a pass assigns an attribute, before it does."""
    running, before = running_pass(), vars(module).get(name)
    if running is None or not module.training:
        return
    label = f"{type(module).__name__}.{name}"
    if _is_buffer(before) and fits(value, before):
        running.assign(vars(module), name, before, label)
    elif is_recording() and _is_users(module) and (why := _why_told(before, value)) is not None:
        warn_once(label, f"{why}, {_STAYS}{_HOW.format(name)}")


def _is_users(module: Module) -> bool:
    """Whether a module is not a layer of this library: what these keep is not state."""
    return not type(module).__module__.startswith("rumus.")


def _is_buffer(value: object) -> TypeGuard[Tensor]:
    return type(value) is Tensor and not value.requires_grad


def _why_told(before: object, value: object) -> str | None:
    """Why an assignment is told of: what it makes of an attribute is state, and outlives a step."""
    if isinstance(value, Tensor) and not isinstance(value, Parameter):
        if _is_buffer(before):
            return (
                f"is a buffer, {before.dtype} {before.shape}, and forward assigns a tensor, "
                f"{value.dtype} {value.shape}"
            )
        is_state = before is None and not value.requires_grad
        return "is made a buffer by forward" if is_state else None
    if isinstance(value, np.ndarray) and (before is None or isinstance(before, np.ndarray)):
        return "is a NumPy array that forward assigns"
    if isinstance(before, Number) and isinstance(value, Number) and before != value:
        return "is a number that forward changes"
    if isinstance(before, _CONTAINERS) and type(before) is type(value):
        return f"is a {type(before).__name__} that forward exchanges"
    return None


# What is changed without an assignment

_looked_at: Final[dict[int, tuple[weakref.ref[Module], int]]] = {}


def _is_new(module: Module) -> bool:
    """Whether this is one of the first passes of a module; that counts."""
    key = id(module)
    known = _looked_at.get(key)
    times = known[1] if known is not None and known[0]() is module else 0
    if times < PASSES:
        forget = weakref.ref(module, lambda _: _looked_at.pop(key, None))
        _looked_at[key] = forget, times + 1
    return times < PASSES


def _contents(module: Module) -> dict[str, tuple[str, Hashable]]:
    """What a tree of modules holds besides modules, with the attribute, by label."""
    return {
        f"{type(part).__name__}.{name}": (name, _content(value))
        for part in filter(_is_users, module.modules())
        for name, value in vars(part).items()
        if isinstance(value, (*_CONTAINERS, np.ndarray)) or _is_plain(value)
    }


def _is_plain(value: object) -> bool:
    """Whether it is an object with attributes, whose class does nothing about them."""
    kind = type(value)
    found = next((vars(k)["__dict__"] for k in kind.__mro__ if "__dict__" in vars(k)), None)
    return isinstance(found, (GetSetDescriptorType, MemberDescriptorType)) and not (
        issubclass(kind, (type, ModuleType, FunctionType))
        or hasattr(kind, "named_buffers")
        or str(kind.__module__).startswith("rumus.")
    )


def _is_changed(before: Hashable, now: Hashable) -> bool:
    """Whether contents differ; tensors of an object may come, as to a cache."""
    if isinstance(before, frozenset) and isinstance(now, frozenset):
        return not before <= now
    return before != now


def _content(value: Any) -> tuple[Hashable, ...] | frozenset[Hashable]:
    if not isinstance(value, (*_CONTAINERS, np.ndarray)):
        own = object.__getattribute__(value, "__dict__")
        held = [(name, each) for name, each in own.items() if _is_buffer(each)]
        return frozenset((name, id(each), each._version.current) for name, each in held)
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject or value.size > MOST * MOST:
            return (value.shape,)
        return value.shape, zlib.crc32(np.ascontiguousarray(value).data)
    if isinstance(value, dict):
        return len(value), *((id(k), id(v)) for k, v in list(value.items())[:MOST])
    return len(value), *map(id, list(value)[:MOST])
