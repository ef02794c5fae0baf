"""What a saved state must be like to be loaded: every difference, before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rumus.tensor import Parameter


def differences(
    state: Mapping[str, Any],
    version: int,
    kind: str,
    parameters: Mapping[str, Parameter],
    keys: Sequence[str],
) -> list[str]:
    """Return every way in which a saved state differs from what an optimizer would save.

    version, kind: what `format` and `kind` must say. parameters: the optimizer's, by name.
    keys: the names of the parts of the state.
    """
    if missing := {"format", "kind", "steps", "skipped", "parameters"} - set(state):
        return [f"it lacks {', '.join(sorted(missing))}: is it an optimizer's state?"]
    found = [
        f"{what}: saved {state[what]}, here {mine}"
        for what, mine in (("format", version), ("kind", kind))
        if state[what] != mine
    ]
    found += [
        f"{what}: saved {state[what]!r}, which counts nothing"
        for what in ("steps", "skipped")
        if not _is_count(state[what])
    ]
    entries = state["parameters"]
    if not isinstance(entries, Mapping):
        return [*found, f"parameters: saved as {type(entries).__name__}, not by name"]
    found += [f"{name!r}: saved, not here" for name in entries if name not in parameters]
    for name, parameter in parameters.items():
        if name not in entries:
            found.append(f"{name!r}: here, not saved")
        else:
            found += _of_entry(name, entries[name], parameter, keys)
    return found


def uneven_steps(entries: Mapping[str, Any], together: Sequence[str]) -> list[str]:
    """Return what is wrong if parameters that step together were saved with several counts."""
    counts = {name: entries[name]["steps"] for name in together}
    if len(set(counts.values())) == 1:
        return []
    return [f"steps: saved {counts}, but these parameters step together here"]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _of_entry(name: str, entry: Any, parameter: Parameter, keys: Sequence[str]) -> list[str]:
    """Every way in which the saved state of one parameter does not fit it."""
    parts = {"shape", "dtype", "steps", "state"}
    if not isinstance(entry, Mapping) or parts - set(entry):
        lacking = sorted(parts - set(entry) if isinstance(entry, Mapping) else parts)
        return [f"{name!r}: saved without {', '.join(lacking)}"]
    found = []
    if tuple(entry["shape"]) != parameter.shape:
        found.append(f"{name!r}: saved shape {tuple(entry['shape'])}, here {parameter.shape}")
    if entry["dtype"] != str(parameter.dtype):
        found.append(f"{name!r}: saved dtype {entry['dtype']}, here {parameter.dtype}")
    if not _is_count(entry["steps"]):
        found.append(f"{name!r}: saved steps {entry['steps']!r}, which counts nothing")
    if set(entry["state"]) != set(keys):
        found.append(f"{name!r}: saved state {sorted(entry['state'])}, here {sorted(keys)}")
    for key, value in entry["state"].items():
        array = np.asarray(value)
        if array.shape != tuple(entry["shape"]) or str(array.dtype) != entry["dtype"]:
            found.append(f"{name!r}: state {key!r} is {array.dtype} of shape {array.shape}")
    return found
