"""An optimizer's parameters, as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from rumus.optim.engine.optimizer import Optimizer
from rumus.optim.options.group import ParameterGroup, described
from rumus.optim.options.hyperparameter import Hyper, at_step
from rumus.tensor import float32
from rumus.tensor.expression.printable import printable_lines

HALF_UNIT: Final = 2.0**-24  # half of the distance from 1 to the next float32


# Maps a group to the name of its stepper and the hyperparameters that apply.
Uses: TypeAlias = Callable[[ParameterGroup], tuple[str, frozenset[str]]]


def description(
    optimizer: Optimizer[Any],
    hyper: Mapping[str, Hyper],
    decoupled: bool,
    uses: Uses | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Return a table of the groups, with shapes, roles and hyperparameters.

    hyper: the optimizer's own. decoupled: whether lr weight_decay p is subtracted separately, so
        that a warning is due if it is too small to change a float32 p. uses: for an optimizer that
        steps its groups in several ways. notes: further notes about all groups.
    """
    owned = optimizer.parameters
    count = sum(p.size for p in owned)
    lines = [f"{optimizer}: {len(owned)} parameters, {count:,} elements"]
    lines += notes
    for number, group in enumerate(optimizer.groups):
        lines.append(f"group {number}: {_hyper_parameters(group, hyper, uses)}")
        lines += _table(group)
        if decoupled:
            lines += _warnings(number, group, hyper, optimizer.steps + 1)
    return "\n".join(lines)


def _hyper_parameters(group: ParameterGroup, hyper: Mapping[str, Hyper], uses: Uses | None) -> str:
    found = group.over(hyper)
    label, names = uses(group) if uses is not None else ("", frozenset(found))
    label = f"{label}: " if label else ""
    shown = [f"{name}={described(value)}" for name, value in found.items() if name in names]
    optional = ["optional"] if group.optional else []
    return label + ", ".join([*shown, *optional])


def _table(group: ParameterGroup) -> list[str]:
    rows = [("name", "shape", "role", "dtype")]
    rows += [(printable_lines(name), str(p.shape), p.role, str(p.dtype)) for name, p in group.named]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _warnings(
    number: int, group: ParameterGroup, hyper: Mapping[str, Hyper], step: int
) -> Iterator[str]:
    found = group.over(hyper)
    lr, decay = (at_step(name, found[name], step) for name in ("lr", "weight_decay"))
    if 0 < lr * decay < HALF_UNIT and any(p.dtype == float32 for _, p in group.named):
        yield (
            f"  warning: at step {step}, lr x weight_decay = {lr * decay:.2g} is under half a unit "
            f"in the last place of float32 ({HALF_UNIT:.2g}): the decay of group {number} vanishes "
            "in rounding"
        )
