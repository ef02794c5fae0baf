"""The hyper-parameters of a run, as what JSON has: a resume says which ones are others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from rumus.optim import Optimizer
from rumus.optim.wrappers.wrapper import Wrapper

_PLAIN: Final = (bool, int, float, str, type(None))
_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")


def hyperparameters(optimizer: Optimizer[Any], accumulate: int) -> dict[str, Any]:
    """Return what an optimizer was made with, by name; of groups behind "group 1.".

    A schedule stands there as it is written, a function by its name.

    >>> from rumus.optim import SGD
    >>> from rumus.tensor import Parameter
    >>> hyperparameters(SGD([Parameter([1.0], name="w")], 0.1), 1)["lr"]
    0.1
    """
    fused = optimizer.fused if isinstance(optimizer, Wrapper) else optimizer
    found: dict[str, Any] = {"optimizer": type(fused).__name__, "accumulate": accumulate}
    given: list[tuple[str, Mapping[str, Any]]] = [("", getattr(fused, "hyper", {}))]
    given += [(f"group {n}.", group.hyper) for n, group in enumerate(fused.groups)]
    for prefix, hyper in given:
        found |= {f"{prefix}{name}": _told(value) for name, value in hyper.items()}
    return found


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Return which hyper-parameters are others, for a message; None if none is.

    >>> changed({"lr": 0.1, "beta1": 0.9}, {"lr": 0.3, "beta1": 0.9})
    'lr was 0.1 and is 0.3'
    """
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    told = [f"{name} was {before.get(name)} and is {now.get(name)}" for name in names]
    return ", ".join(told) or None


def _told(value: Any) -> Any:
    if isinstance(value, _PLAIN):
        return value
    if hasattr(value, "item"):
        return value.item()
    text = repr(value)
    if _ADDRESS.search(text):
        return getattr(value, "__qualname__", type(value).__name__)
    return text
