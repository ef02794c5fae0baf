"""An optimizer's state as saved, by parameter name, and the checks before it is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from rumus.optim.engine.packed_state import targets
from rumus.optim.engine.segments import Segment, host_state, state_views
from rumus.tensor import DType, Parameter, ParamId
from rumus.tensor.expression.state_names import name_differences
from rumus.tensor.expression.user_warning import warn_user

FORMAT: Final = 1
_NAMES: Final = ("format", "kind", "steps", "skipped", "parameters")


def check_unique(named: Iterable[tuple[str, Parameter]]) -> None:
    """Raise ValueError if two parameters have one name."""
    counted = Counter(name for name, _ in named)
    if repeated := [name for name, count in counted.items() if count > 1]:
        raise ValueError(
            f"several parameters are named {repeated[0]!r}, but a state is saved by name: select "
            "parts of a model with model.parameters().where('body.*'), which keeps their paths, "
            "or pass Parameters({name: parameter, ...}) with different names"
        )


def entries(
    named: Iterable[tuple[str, Parameter]], segments: Sequence[Segment]
) -> dict[str, dict[str, Any]]:
    """Return a copy of each parameter's state, by its name, in the form in which it is saved."""
    state = host_state(segments)
    counts = {p.id: segment.steps for segment in segments for p in segment.arena.parameters}
    return {
        name: {
            "shape": list(p.shape),
            "dtype": str(p.dtype),
            "steps": counts[p.id],
            "state": state[p.id],
        }
        for name, p in named
    }


def prepared(
    segments: Sequence[Segment], saved: Mapping[ParamId, Mapping[str, Any]]
) -> Callable[[], None]:
    """Return a function that writes fitting entries to the segments and cannot fail.

    Everything that can fail, such as an upload, is done here. State in host memory is the
    exception: `write` sends it through the device in small pieces.
    """
    states = [
        {
            n: x if s.part is None or n in s.shapes else s.arena.zeros(x.dtype)
            for n, x in s.state.items()
        }
        for s in segments
    ]
    views = state_views(segments, states)
    copies = [
        (segment, segment.uploaded(np.asarray(state[name])), view)
        for segment in segments
        for p in segment.arena.parameters
        for state in (saved[p.id]["state"],)
        for name, view in views[p.id].items()
    ]
    copies += [
        (segment, segment.uploaded(host), view)
        for segment in segments
        if segment.packing is not None
        for number, p in enumerate(segment.arena.parameters)
        for host, view in targets(segment.arena, segment.packing, number, saved[p.id]["state"])
    ]

    def write() -> None:
        for segment, array, view in copies:
            segment.write(array, view)
        for segment, state in zip(segments, states, strict=True):
            segment.keep(state)
            segment.seen = []  # the parameters may be loaded before or after this
            segment.steps = saved[segment.arena.parameters[0].id]["steps"]

    return write


def differences(
    of: object,
    state: Mapping[str, Any],
    kind: str,
    parameters: Mapping[str, Parameter],
    layouts: Mapping[ParamId, Mapping[str, DType]],
    shapes: Mapping[ParamId, Mapping[str, tuple[int, ...]]] | None = None,
) -> list[str]:
    """Return every way in which a saved state differs from what an optimizer would save.

    of: the optimizer. kind: its kind. parameters: its, by name. layouts: the dtype of each part of
    each parameter's state, by name. shapes: the shapes of parts whose shape is not their
    parameter's.
    """
    if found := name_differences(of, state, _NAMES):
        return ["; ".join(found) + ": is this what an optimizer's state_dict() returned?"]
    found = [
        f"{what}: saved {state[what]}, here {mine}"
        for what, mine in (("format", FORMAT), ("kind", kind))
        if type(state[what]) is not type(mine) or state[what] != mine
    ]
    found += [
        f"{what}: saved {state[what]!r}, which is not a count"
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
            own = (shapes or {}).get(parameter.id, {})
            found += _of_entry(name, entries[name], parameter, layouts[parameter.id], own)
    return found


def uneven(
    saved: Mapping[str, Any], parameters: Mapping[str, Parameter], segments: Sequence[Segment]
) -> list[str]:
    """Return the differences between saved values that the parameters share here.

    The parameters of a segment share a step count. All parameters share each part of the state that
    is one number.

    segments: of one optimizer.
    """
    names = {p.id: name for name, p in parameters.items()}
    found = []
    for segment in segments:
        together = [names[p.id] for p in segment.arena.parameters]
        counts = {name: saved[name]["steps"] for name in together}
        if len(set(counts.values())) > 1:
            found.append(f"steps: saved {counts}, but these parameters step together here")
    shared = {n for s in segments for n, shape in s.shapes.items() if shape == ()}
    for part in sorted(shared.difference(*(s.by_tensor for s in segments))):
        own = [names[p.id] for s in segments if part in s.shapes for p in s.arena.parameters]
        values = {name: float(saved[name]["state"][part]) for name in own}
        if len(set(values.values())) > 1:
            found.append(f"{part}: saved {values}, but it is one number for all parameters here")
    return found


def negative(
    saved: Mapping[str, Any], parameters: Mapping[str, Parameter], segments: Sequence[Segment]
) -> list[str]:
    """Return the sums of squares that are saved with negative elements, whose roots are NaN."""
    names = {p.id: name for name, p in parameters.items()}
    entries = [(s, names[p.id]) for s in segments for p in s.arena.parameters]
    return [
        f"{name!r}: state {part!r} has negative elements, but is a sum of squares"
        for segment, name in entries
        for part in sorted(segment.never_negative & set(saved[name]["state"]))
        if np.any(np.asarray(saved[name]["state"][part]) < 0)
    ]


def warn_of_nan(saved: Mapping[str, Any]) -> None:
    """Warn of the first NaN, which `nonfinite="propagate"` may leave in a state."""
    for name, entry in saved.items():
        for part, value in entry["state"].items():
            if np.isnan(np.asarray(value)).any():
                warn_user(
                    f"the loaded state {part!r} of {name!r} has NaN, and so will the parameter "
                    "after the next step: load an earlier state, or make a new optimizer"
                )
                return


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _of_entry(
    name: str,
    entry: Any,
    parameter: Parameter,
    layout: Mapping[str, DType],
    shapes: Mapping[str, tuple[int, ...]],
) -> list[str]:
    """Every way in which the saved state of one parameter does not fit it."""
    if not isinstance(entry, Mapping):
        return [f"{name!r}: saved as {type(entry).__name__}, not a state by name"]
    if found := name_differences(None, entry, ("shape", "dtype", "steps", "state")):
        return [f"{name!r}: {'; '.join(found)}"]
    shape = tuple(entry["shape"]) if isinstance(entry["shape"], (list, tuple)) else entry["shape"]
    if not isinstance(shape, tuple) or shape != parameter.shape:
        found.append(f"{name!r}: saved shape {shape}, here {parameter.shape}")
    if not isinstance(entry["dtype"], str) or entry["dtype"] != str(parameter.dtype):
        found.append(f"{name!r}: saved dtype {entry['dtype']}, here {parameter.dtype}")
    if not _is_count(entry["steps"]):
        found.append(f"{name!r}: saved steps {entry['steps']!r}, which is not a count")
    return found + _of_parts(name, entry["state"], parameter, layout, shapes)


def _of_parts(
    name: str,
    parts: Any,
    parameter: Parameter,
    layout: Mapping[str, DType],
    shapes: Mapping[str, tuple[int, ...]],
) -> list[str]:
    if not isinstance(parts, Mapping):
        return [f"{name!r}: saved state {parts!r}, here {sorted(layout)}"]
    found = []
    if set(parts) != set(layout):
        found.append(f"{name!r}: saved state {sorted(map(str, parts))}, here {sorted(layout)}")
    for key, value in parts.items():
        try:
            array = np.asarray(value)
        except ValueError:
            found.append(f"{name!r}: state {key!r} is not an array")
            continue
        wanted = layout.get(key, parameter.dtype)
        if array.shape != shapes.get(key, parameter.shape):
            found.append(f"{name!r}: state {key!r} is {array.dtype} of shape {array.shape}")
        elif array.dtype != wanted:
            found.append(f"{name!r}: state {key!r} is {array.dtype}, here {wanted}")
    return found
