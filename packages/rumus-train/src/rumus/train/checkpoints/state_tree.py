"""Splitting a state tree into arrays and JSON, and joining them again.

An array is replaced by null, and named by its position: "layers/0/weight". So JSON needs no special
marks, and any key is possible. Floats that JSON lacks are handled the same way.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.memory.late_array import LateArray, as_known

Arrays: TypeAlias = dict[str, NDArray[Any]]

KEY: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")  # a top-level key names a file


def split(
    state: Mapping[str, Any], *, copy: bool = False
) -> tuple[dict[str, Arrays], dict[str, Any]]:
    """Return the arrays below each top-level key, and everything else as one JSON object.

    copy: copy the arrays, for writing the state while training continues. Raises TypeError for a
        value that would not load back unchanged, ValueError for a bad key.

    >>> arrays, rest = split({"model": {"w": np.ones(2)}, "trainer": {"best": math.inf}})
    >>> arrays
    {'model': {'w': array([1., 1.])}}
    >>> rest
    {'state': {'model': {'w': None}, 'trainer': {'best': None}}, 'floats': {'trainer/best': 'inf'}}
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"a state must be a mapping, not {type(state).__name__}")
    _check_keys(state)
    floats: dict[str, str] = {}
    arrays: dict[str, Arrays] = {}
    tree = {}
    try:
        for key, value in state.items():
            found: Arrays = {}
            tree[key] = _without_arrays(value, (key,), found, floats)
            if found:
                arrays[key] = {k: _copy(v) for k, v in found.items()} if copy else found
    except RecursionError:
        raise ValueError("the state contains itself, or is nested too deeply") from None
    return arrays, {"state": tree, "floats": floats}


def _copy(array: Any) -> Any:
    """A copy of an array; one that is on its way to the host is a copy."""
    return array if isinstance(array, LateArray) else array.copy()


def arrived(arrays: Mapping[str, Arrays]) -> dict[str, Arrays]:
    """Return arrays of which none is on its way; waits for those that are."""
    return {key: {k: as_known(v) for k, v in group.items()} for key, group in arrays.items()}


def join(arrays: Mapping[str, Arrays], rest: Mapping[str, Any]) -> dict[str, Any]:
    """Undo `split`; ValueError for parts that it cannot have made."""
    tree, floats = rest.get("state"), rest.get("floats")
    if set(rest) != {"state", "floats"} or not isinstance(tree, dict):
        raise ValueError("state.json is not a state")
    if not isinstance(floats, dict):
        raise ValueError("state.json is not a state")
    for where, text in floats.items():
        if text not in ("nan", "inf", "-inf"):
            raise ValueError(f"state.json has no float at {where!r}")
        _fill(tree, where.split("/"), float(text))
    for key, group in arrays.items():
        for name, array in group.items():
            _fill(tree, [key, *(name.split("/") if name else [])], array)
    return tree


def _check_keys(state: Mapping[Any, Any]) -> None:
    """Refuse keys that are not valid file names, or that coincide on some systems."""
    seen: dict[str, str] = {}
    for key in state:
        if not isinstance(key, str) or not KEY.fullmatch(key):
            raise ValueError(
                f"the top-level key {key!r} of a state names a file: use only letters, digits, _ "
                "and -"
            )
        if key.lower() in seen:
            raise ValueError(
                f"{seen[key.lower()]!r} and {key!r} would be the same file on some systems"
            )
        seen[key.lower()] = key


def _without_arrays(
    value: Any, path: tuple[str, ...], arrays: Arrays, floats: dict[str, str]
) -> Any:
    """Return `value` in JSON's types, and note what JSON lacks."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        floats[_name(path)] = repr(float(value))
        return None
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{_called(path)} has a mask, which would be lost: save its parts")
    if isinstance(value, (np.ndarray, LateArray)):
        arrays[_checked(_name(path[1:]), path)] = value  # type: ignore[assignment]  # it stands for one
        return None
    if isinstance(value, list):
        pairs = enumerate(value)
        return [_without_arrays(v, (*path, str(i)), arrays, floats) for i, v in pairs]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{_called(path)} has the key {key!r}: keys must be str")
        return {k: _without_arrays(v, (*path, k), arrays, floats) for k, v in value.items()}
    raise TypeError(
        f"{_called(path)} is a {type(value).__name__}: a state may hold only mappings, lists, "
        "str, int, float, bool, None and NumPy arrays, which load back unchanged"
    )


def _checked(name: str, path: tuple[str, ...]) -> str:
    """Refuse the one name that safetensors reserves."""
    if name == "__metadata__":
        raise ValueError(f"{_called(path)}: safetensors allows no array with this name")
    return name


def _name(path: tuple[str, ...]) -> str:
    """Join a path so that different paths have different names."""
    return "/".join(part.replace("~", "~0").replace("/", "~1") for part in path)


def _called(path: tuple[str, ...]) -> str:
    return "state" + "".join(f"[{part!r}]" for part in path)


def _fill(tree: Any, path: list[str], value: Any) -> None:
    """Put a value in place of its null."""
    *outer, last = (part.replace("~1", "/").replace("~0", "~") for part in path)
    try:
        for part in outer:
            tree = tree[_key(tree, part)]
        last_key = _key(tree, last)
        if tree[last_key] is None:
            tree[last_key] = value
            return
    except (LookupError, TypeError, ValueError):
        pass
    raise ValueError(f"state.json has no place for {'/'.join(path)!r}")


def _key(tree: Any, part: str) -> Any:
    if isinstance(tree, list):
        index = int(part)
        if index < 0:
            raise ValueError(part)
        return index
    if isinstance(tree, dict):
        return part
    raise ValueError(part)
