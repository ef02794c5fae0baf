"""JSON without duplicate keys or nonstandard numbers."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn


def render(value: Any) -> bytes:
    """Return `value` as JSON in one line of ASCII, always the same for the same value.

    ValueError for NaN and infinity.
    """
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")


def parse(data: bytes) -> Any:
    """Parse JSON; ValueError if it is invalid, nested too deeply, or has a duplicate key.

    A number larger than any float is refused too: it would become infinity.

    >>> parse(b'{"step": 1, "step": 2}')
    Traceback (most recent call last):
    ...
    ValueError: the JSON has the key 'step' twice
    """
    try:
        return json.loads(
            data.decode(), object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite
        )
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the JSON has the key {key!r} twice")
        found[key] = value
    return found


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:40]} is larger than any float")
    return value


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")
