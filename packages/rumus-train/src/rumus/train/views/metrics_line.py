"""The validation of a line of metrics.jsonl, so that readers can trust it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final


def is_sound(line: object) -> bool:
    """Whether a line is an object whose known fields have the right types.

    Unknown fields may hold anything: a later version may have written them.

    >>> is_sound({"split": "train", "step": 1, "loss": "inf"}), is_sound({"step": 1, "loss": []})
    (True, False)
    """
    return isinstance(line, dict) and all(
        check(line[name]) for name, check in _FIELDS.items() if name in line
    )


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_number(value: object) -> bool:
    """A number that fits a float, or one of the texts for non-finite numbers."""
    if isinstance(value, str):
        return value in ("nan", "inf", "-inf")
    if type(value) is int:
        return abs(value) < 2**1023
    return isinstance(value, float) and math.isfinite(value)


def _are_numbers(value: object) -> bool:
    return isinstance(value, Mapping) and all(map(_is_number, value.values()))


def _are_matrices(value: object) -> bool:
    """Square matrices of counts, by name."""
    return isinstance(value, Mapping) and all(map(_is_matrix, value.values()))


def _is_matrix(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(row, list) and len(row) == len(value) and all(map(_is_count, row))
        for row in value
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


_FIELDS: Final[dict[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(("v", "step", "epoch"), _is_count),
    **dict.fromkeys(
        ("t", "loss", "lr", "grad_norm", "samples", "samples_s", "seconds"), _is_number
    ),
    **dict.fromkeys(("metrics", "spans", "logged"), _are_numbers),
    **dict.fromkeys(("split", "reason", "error", "path", "resumed_from"), _is_text),
    "best": lambda value: isinstance(value, bool),
    "confusion": _are_matrices,
    "classes": _are_texts,
}
