"""`watched`: whether a loss function itself keeps tensors that its step cannot take back.

A baseline that moves with each batch, as a global, closed-over or captured variable, an element of
a dict, an attribute of the object whose method it is: a step that is skipped, refused or raises
leaves it changed, with the NaN of its batch. What modules hold is looked at by their calls.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from types import CodeType, MethodType
from typing import Any, Final, TypeVar

from rumus.tensor.graph.assignment import warn_once
from rumus.tensor.graph.reached import Reached, changes, is_read_and_stored, package_of

R = TypeVar("R")
PASSES: Final = 2  # of a function around which what it reaches is looked at


class LossState:
    """Looks at the first passes of each loss function of a trainer."""

    def __init__(self) -> None:
        self._seen: weakref.WeakKeyDictionary[CodeType, int] = weakref.WeakKeyDictionary()

    def watched(self, loss_fn: Callable[..., Any], act: Callable[[], R]) -> R:
        """Return what `act` returns, which calls `loss_fn`; warn of tensors that change by it."""
        function = _function(loss_fn)
        code = getattr(function, "__code__", None)
        if not isinstance(code, CodeType) or self._seen.get(code, 0) >= PASSES:
            return act()
        self._seen[code] = self._seen.get(code, 0) + 1
        home = {package_of(function)} - {"rumus"}
        before = Reached([(code.co_name, code.co_name, loss_fn)], home)
        result = act()
        now = Reached([(code.co_name, code.co_name, loss_fn)], home)
        for label, name in changes(before.contents, now.contents):
            old, new = before.contents[label][1], now.contents[label][1]
            if _is_kept(old, new) and (
                _is_same(old, new) or is_read_and_stored(label, name, now.codes)
            ):
                warn_once(
                    label,
                    "is a tensor that the loss function changes, which stays changed when the "
                    "step is skipped or raises, and changes again in each further pass of a step: "
                    "keep it as a buffer of a module, a tensor made in __init__ that forward "
                    "assigns; or change it between the steps",
                )
        return result


def _function(loss_fn: Any) -> Any:
    while isinstance(loss_fn, (partial, MethodType)):
        loss_fn = loss_fn.func if isinstance(loss_fn, partial) else loss_fn.__func__
    return loss_fn


def _is_kept(old: Any, new: Any) -> bool:
    """Whether both contents are those of tensors: numbers may be counters and logs."""
    return all(isinstance(each, tuple) and each[0] == "tensor" for each in (old, new))


def _is_same(old: Any, new: Any) -> bool:
    """Whether it is one tensor, which was written in place."""
    return bool(old[1] == new[1])
