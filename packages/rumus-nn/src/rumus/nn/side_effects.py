"""What a module's `forward` changes besides computing: which belongs to the step, and which cannot.

A buffer that is assigned belongs to it; see `rumus.tensor.graph.assignment`. A number, a list, a
dict or a NumPy array stays changed when the step is skipped, refused or raises, and changes several
times where a step has several passes: that is said, once for each attribute. So is a tensor that
another object than a module holds.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Hashable
from numbers import Number
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from rumus.tensor import Parameter, Tensor
from rumus.tensor.graph.assignment import as_pass, fits, running_pass, warn_once
from rumus.tensor.graph.autograd import is_recording
from rumus.tensor.graph.reached import (
    MOST,
    Contents,
    Reached,
    changes,
    content_of_array,
    is_buffer,
    is_plain,
    package_of,
)

if TYPE_CHECKING:
    from rumus.nn.module import Module

R = TypeVar("R")
PASSES: Final = 2  # of a module around which what it holds is looked at
_CONTAINERS: Final = (list, dict, set, deque, bytearray)
_STAYS: Final = (
    "which stays changed when the step is skipped or raises, and changes again in each further "
    "pass of a step: "
)
# A buffer of a module, which could be held back if its assignment were seen.
_PAST: Final = (
    "is a buffer that is exchanged past its module, as by vars(self), object.__setattr__ or "
    "another thread,"
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
    before, reached = _contents(module), _reached(module)
    result = as_pass(module, act)
    told: list[str] = []
    for label, (name, content) in _contents(module).items():
        if label in before and _is_changed(before[label][1], content):
            what = _PAST if isinstance(content, int) else "is changed"
            warn_once(label, f"{what} by forward, {_STAYS}{_HOW.format(name)}")
            told.append(label)
    for label, name in changes(reached, _reached(module)):
        if not label.startswith(tuple(told)):
            warn_once(label, f"is changed by forward, {_STAYS}{_HOW.format(name)}")
    return result


def assigned(module: Module, name: str, value: object) -> None:
    """Hear that a pass assigns an attribute, before it does."""
    running, before = running_pass(), vars(module).get(name)
    if running is None or not module.training:
        return
    label = f"{type(module).__name__}.{name}"
    if is_buffer(before) and fits(value, before):
        running.assign(vars(module), name, before, label)
    elif isinstance(getattr(type(module), name, None), property):
        return  # its setter assigns what is to be heard
    elif is_recording() and _is_users(module) and (why := _why_told(before, value)) is not None:
        warn_once(label, f"{why}, {_STAYS}{_HOW.format(name)}")


def _is_users(module: Module) -> bool:
    """Whether a module is not a layer of this library: what these keep is not state."""
    return not type(module).__module__.startswith("rumus.")


def _why_told(before: object, value: object) -> str | None:
    """Why an assignment is told of: what it makes of an attribute is state, and outlives a step."""
    if isinstance(value, Tensor) and not isinstance(value, Parameter):
        if is_buffer(before):
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
    running, found = running_pass(), {}
    for part in filter(_is_users, module.modules()):
        names = vars(part)
        for name, value in names.items():
            if is_buffer(value) and running is not None:  # the pass puts back what it has seen
                value = running.before(names, name)
            if isinstance(value, (*_CONTAINERS, np.ndarray)) or is_buffer(value) or is_plain(value):
                found[f"{type(part).__name__}.{name}"] = name, _content(value)
    return found


def _reached(module: Module) -> Contents:
    """What the attributes of a tree of modules lead to, and what their classes do."""
    parts = list(filter(_is_users, module.modules()))
    held = [
        (f"{type(part).__name__}.{name}", name, value)
        for part in parts
        for name, value in list(vars(part).items())
        if not isinstance(value, (Number, np.ndarray, Tensor))  # these are looked at otherwise
    ]
    kinds = {type(part) for part in parts}
    shared = [
        (f"{each.__name__}.{name}", name, value)
        for kind in kinds
        for each in kind.__mro__
        if each.__module__ != "builtins" and not each.__module__.startswith("rumus.")
        for name, value in list(vars(each).items())
    ]
    return Reached([*held, *shared], {package_of(kind) for kind in kinds}).contents


def _is_changed(before: Hashable, now: Hashable) -> bool:
    """Whether contents differ; tensors of an object may come, as to a cache."""
    if isinstance(before, frozenset) and isinstance(now, frozenset):
        return not before <= now
    return before != now


def _content(value: Any) -> Hashable:
    if is_buffer(value):
        return id(value)  # what is written in place is held back
    if isinstance(value, np.ndarray):
        return content_of_array(value)
    if isinstance(value, dict):
        return len(value), *((id(k), id(v)) for k, v in list(value.items())[:MOST])
    if isinstance(value, _CONTAINERS):
        return len(value), *map(id, list(value)[:MOST])
    own = object.__getattribute__(value, "__dict__")
    held = [(name, each) for name, each in own.items() if is_buffer(each)]
    return frozenset((name, id(each), each._version.current) for name, each in held)
