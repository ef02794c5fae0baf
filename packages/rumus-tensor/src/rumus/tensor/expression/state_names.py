"""Checks of the names in a saved state: a misspelled one would otherwise do nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from rumus.tensor.expression.declared_type import shown
from rumus.tensor.expression.errors import StateMismatchError

_SHOWN: Final = 8  # unknown names: a model's state may be given in place of another


def name_differences(
    of: object, state: Mapping[str, Any], names: Collection[str], optional: Collection[str] = ()
) -> list[str]:
    """Return what is missing in a saved state, and what does not belong to it.

    of: what the state is loaded into. A subclass outside of this library may save more.
    state: whose values are not looked at.
    names: what it must have.
    optional: what it may have, such as names that older versions did not save.

    >>> name_differences(None, {"best": 1.0, "stpe": 3}, ["best", "step"])
    ['step is missing', 'stpe is unknown']
    """
    if not isinstance(state, Mapping):
        return [f"it must be a dict, not {shown(state)}"]
    found = [f"{name} is missing" for name in names if name not in state]
    if of is not None and not type(of).__module__.startswith("rumus."):
        return found
    known = {*names, *optional}
    unknown = [f"{name} is unknown" for name in state if name not in known]
    others = [f"{len(unknown) - _SHOWN} others are unknown"] if len(unknown) > _SHOWN else []
    return [*found, *unknown[:_SHOWN], *others]


def is_count(value: object) -> bool:
    """Whether a saved value is a whole number, 0 or more."""
    return type(value) is int and value >= 0


def check_names(
    of: object,
    state: Mapping[str, Any],
    names: Collection[str],
    optional: Collection[str] = (),
    *,
    saved_by: str = "state_dict",
) -> None:
    """Raise StateMismatchError if there are `name_differences`, TypeError for what is no dict.

    saved_by: the method.
    """
    if not isinstance(state, Mapping):
        load = "restore" if saved_by == "state" else f"load_{saved_by}"
        raise TypeError(f"{type(of).__name__}.{load}: state must be a dict, not {shown(state)}")
    if found := name_differences(of, state, names, optional):
        raise StateMismatchError(
            f"the saved state does not fit {type(of).__name__}: {'; '.join(found)}; load what its "
            f"{saved_by}() returned"
        )
