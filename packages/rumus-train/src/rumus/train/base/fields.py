"""Samples and batches are tuples or dicts; this splits them into names, if any, and values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

Names: TypeAlias = tuple[str, ...] | None


def names_of(fields: Any) -> Names:
    """Return the keys of a dict, None for a tuple."""
    return tuple(fields) if isinstance(fields, Mapping) else None


def values_in(fields: Any) -> tuple[Any, ...]:
    """Return the values of a dict or a tuple, in order."""
    return tuple(fields.values()) if isinstance(fields, Mapping) else tuple(fields)


def fields_of(names: Names, values: Sequence[Any]) -> Any:
    """Return a dict if there are names, else a tuple.

    >>> fields_of(("x", "y"), [1, 2]), fields_of(None, [1, 2])
    ({'x': 1, 'y': 2}, (1, 2))
    """
    return tuple(values) if names is None else dict(zip(names, values, strict=True))
