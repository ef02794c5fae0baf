"""The hyperparameters of a run, as what JSON has: a resume says which ones are others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from rumus.optim import Optimizer
from rumus.optim.wrappers.wrapper import Wrapper

_MOST: Final = 8  # differences that a message tells
_OPTIONS: Final = ("clip", "average", "nonfinite", "maximize")
_FUNCTIONS: Final = ("transform", "collate", "batch_transform", "sampler")
_PLAIN: Final = (bool, int, float, str, type(None))
_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")


def hyperparameters(
    optimizer: Optimizer[Any],
    accumulate: int,
    loader: object = None,
    state: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return what an optimizer, a loader and modules were made with, by name.

    Of groups it stands behind "group 1.", of wrappers behind their names, of the loader's functions
    behind "loader.", of modules behind their paths. A schedule stands there as it is written, a
    function by its name, an object by its kind and its plain attributes.

    optimizer: what it was made with, and what wraps it.
    accumulate: batches for a step.
    loader: its transform, collate, batch_transform and sampler; the rest is in its own state.
    state: modules among it are looked at.

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
    for name in _OPTIONS:
        if hasattr(fused, name):
            found[name] = _described(getattr(fused, name))
    stages = [str(_described(stage)) for stage in getattr(fused, "stages", ())]
    found["precision"] = " and ".join(stages) or "that of the parameters"
    wrapper: Any = optimizer
    while isinstance(wrapper, Wrapper):
        kind = type(wrapper).__name__
        settings = {name: value for name, value in _plain(wrapper).items() if name != "made_at"}
        found |= {f"{kind}.{name}": value for name, value in settings.items()}
        wrapper = wrapper.base
    for name in _FUNCTIONS:
        if (value := vars(loader).get(name) if hasattr(loader, "__dict__") else None) is not None:
            found[f"loader.{name}"] = _described(value)
    for name, thing in state.items():
        for path, module in thing.named_modules() if hasattr(thing, "named_modules") else ():
            at = f"{name}.{path}." if path else f"{name}."
            settings = {key: value for key, value in _plain(module).items() if key != "training"}
            found |= {f"{at}{key}": value for key, value in settings.items()}
    return found


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Return which hyperparameters are others, for a message; None if none is.

    >>> changed({"lr": 0.1, "beta1": 0.9}, {"lr": 0.3, "beta1": 0.9})
    'lr was 0.1 and is 0.3'
    """
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    told = [f"{name} was {before.get(name)} and is {now.get(name)}" for name in names[:_MOST]]
    if len(names) > _MOST:
        told.append(f"and {len(names) - _MOST} more")
    return ", ".join(told) or None


def _plain(thing: object) -> dict[str, Any]:
    """The public attributes of an object that JSON has as they are."""
    names = [*getattr(thing, "__dict__", ()), *getattr(type(thing), "__slots__", ())]
    values = {name: getattr(thing, name, None) for name in names if not name.startswith("_")}
    return {name: value for name, value in values.items() if type(value) in _PLAIN[:-1]}


def _described(value: Any) -> Any:
    """A value, or an object by its kind and what it was made with."""
    text = _told(value)
    if isinstance(value, _PLAIN) or callable(getattr(value, "__get__", None)):
        return text
    if not _ADDRESS.search(repr(value)):
        return text
    settings = ", ".join(f"{name}={each!r}" for name, each in _plain(value).items())
    return f"{type(value).__name__}({settings})"


def _told(value: Any) -> Any:
    if isinstance(value, _PLAIN):
        return value
    if hasattr(value, "item"):
        return value.item()
    text = repr(value)
    if _ADDRESS.search(text):
        return getattr(value, "__qualname__", type(value).__name__)
    return text
