"""The hyperparameters of a run, for JSON; a resume reports those that differ."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import CodeType, MappingProxyType
from typing import Any, Final

from rumus.optim import Optimizer
from rumus.optim.wrappers.wrapper import Wrapper, unwrapped
from rumus.train.tables.meaning import Meaning

_MOST: Final = 8  # differences listed in a message
_OPTIONS: Final = ("clip", "average", "nonfinite", "maximize")
_FUNCTIONS: Final = ("transform", "collate", "batch_transform", "sampler")
_PLAIN: Final = (bool, int, float, str, type(None))
_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")


def hyperparameters(
    optimizer: Optimizer[Any],
    options: Mapping[str, object] = MappingProxyType({}),
    loader: object = None,
    state: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return the hyperparameters of an optimizer, a loader and modules, by name.

    Groups have the prefix "group 1.", wrappers their names, the loader's functions "loader.",
    modules their paths. A schedule appears as its repr, a function as its name, an object as its
    class and plain attributes.

    optimizer: with its wrappers.
    options: of `fit`, by name.
    loader: only its transform, collate, batch_transform and sampler, and what its numbers mean; its
        state holds the rest.
    state: only its modules count.

    >>> from rumus.optim import SGD
    >>> from rumus.tensor import Parameter
    >>> hyperparameters(SGD([Parameter([1.0], name="w")], 0.1))["lr"]
    0.1
    """
    fused = unwrapped(optimizer)
    found: dict[str, Any] = {"optimizer": type(fused).__name__}
    given: list[tuple[str, Mapping[str, Any]]] = [("", getattr(fused, "hyper", {}))]
    given += [(f"group {n}.", group.hyper) for n, group in enumerate(fused.groups)]
    for prefix, hyper in given:
        found |= {f"{prefix}{name}": _told(value) for name, value in hyper.items()}
    for name in _OPTIONS:
        if hasattr(fused, name):
            found[name] = _described(getattr(fused, name))
    stages = [str(_described(stage)) for stage in getattr(fused, "stages", ())]
    found["precision"] = " and ".join(stages) or "that of the parameters"
    if (scaling := getattr(fused, "scaling", None)) is not None:  # what it begins at is saved
        settings = _plain(scaling.policy)
        found |= {f"loss_scale.{key}": settings[key] for key in settings.keys() - {"initial"}}
    found |= {name: _described(value) for name, value in options.items() if value is not None}
    wrapper: Any = optimizer
    while isinstance(wrapper, Wrapper):
        kind = type(wrapper).__name__
        settings = {name: value for name, value in _plain(wrapper).items() if name != "made_at"}
        found |= {f"{kind}.{name}": value for name, value in settings.items()}
        wrapper = wrapper.base
    for name in _FUNCTIONS:
        if (value := vars(loader).get(name) if hasattr(loader, "__dict__") else None) is not None:
            found[f"loader.{name}"] = _described(value)
    found |= {f"loader.{name}": told for name, told in Meaning.of(loader).fingerprints().items()}
    for name, thing in state.items():
        for path, module in thing.named_modules() if hasattr(thing, "named_modules") else ():
            at = f"{name}.{path}." if path else f"{name}."
            settings = {key: value for key, value in _plain(module).items() if key != "training"}
            found |= {f"{at}{key}": value for key, value in settings.items()}
    return found


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Return the hyperparameters that differ, for a message, or None.

    >>> changed({"lr": 0.1, "beta1": 0.9}, {"lr": 0.3, "beta1": 0.9})
    'lr was 0.1 and is 0.3'
    """
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    told = [f"{name} was {before.get(name)} and is {now.get(name)}" for name in names[:_MOST]]
    if len(names) > _MOST:
        told.append(f"and {len(names) - _MOST} more")
    return ", ".join(told) or None


def _plain(thing: object) -> dict[str, Any]:
    """The public attributes of an object that JSON can hold."""
    names = [*getattr(thing, "__dict__", ()), *getattr(type(thing), "__slots__", ())]
    values = {name: getattr(thing, name, None) for name in names if not name.startswith("_")}
    return {name: value for name, value in values.items() if type(value) in _PLAIN[:-1]}


def _described(value: Any) -> Any:
    """A value, or an object as its class and arguments."""
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
    if not _ADDRESS.search(text):
        return text
    name: str = getattr(value, "__qualname__", type(value).__name__)
    return f"{name}{_used_in(value.__code__)}" if name.endswith("<lambda>") else name


def _used_in(code: CodeType) -> str:
    """The names and numbers that a function without a name uses, which tell it from others.

    Whole numbers are left out: they depend on the version of Python.
    """
    numbers = [str(each) for each in code.co_consts if isinstance(each, float)]
    used = ", ".join((*code.co_names, *numbers))
    return f" with {used}" if used else ""
