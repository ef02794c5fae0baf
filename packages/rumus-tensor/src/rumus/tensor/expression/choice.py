"""Arguments that are one of a few texts."""

from __future__ import annotations

from collections.abc import Collection

from rumus.tensor.expression.declared_type import shown


def check_choice(name: str, value: object, choices: Collection[str | None]) -> None:
    """Raise unless `value` is one of `choices`: ValueError for another text, TypeError for others.

    An array is not compared with them, which would give an array.

    >>> check_choice("mode", "min", ("min", "max", None))
    >>> check_choice("mode", "most", ("min", "max", None))
    Traceback (most recent call last):
    ValueError: mode must be 'min', 'max' or None, not 'most'
    """
    is_text = value is None or isinstance(value, str)
    if is_text and value in choices:
        return
    *others, last = map(repr, choices)
    told = f"{name} must be {', '.join(others)} or {last}, not"
    raise ValueError(f"{told} {value!r}") if is_text else TypeError(f"{told} {shown(value)}")
