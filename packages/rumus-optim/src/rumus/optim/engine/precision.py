"""How precisely an optimizer keeps parameters and state.

Beside the state of its rule a parameter may have two arrays more: a float32 copy that is the true
value where the parameter itself is float16 (`MASTER`), and what rounding took from the last updates
(`COMPENSATION`). Both are ordinary state, updated by the one kernel of the rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from rumus.optim.engine.packed_state import SMALLEST
from rumus.optim.options.options import StateDType
from rumus.tensor import Arena, DType, Expr, Kernel, float16, float32, where
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.quantization import BLOCK, SIGNED, SQUARES, Code

MASTER: Final = "master"
COMPENSATION: Final = "compensation"
ONE: Final = "exactly_one"  # a scalar that no compiler knows: see `compensated`


@dataclass(frozen=True, slots=True)
class Precision:
    """The options; see `FusedOptimizer`. ValueError for a state dtype that there is not."""

    master_weights: bool = False
    state_dtype: StateDType | None = None
    compensated: bool = False

    def __post_init__(self) -> None:
        if self.state_dtype not in (None, "float16", "float32", "8bit"):
            raise ValueError(
                'state_dtype must be "float16", "float32", "8bit" or None, '
                f"not {self.state_dtype!r}"
            )

    def layout(
        self, dtype: DType, names: Iterable[str], squares: frozenset[str]
    ) -> dict[str, DType]:
        """Return the dtype of each part of the state of parameters of `dtype`.

        names: the parts that the rule has. squares: those among them that float16 cannot hold. With
        "8bit" it is that of parameters whose state is not packed.
        """
        compute = float32 if dtype == float16 else dtype
        wanted = {"float16": float16, None: compute}.get(self.state_dtype, float32)
        found = {
            name: compute if wanted == float16 and name in squares else wanted for name in names
        }
        if dtype == float16:
            found[MASTER] = compute
        if self.compensated:
            found[COMPENSATION] = compute
        return found

    def codes(self, names: Iterable[str], squares: frozenset[str]) -> dict[str, Code]:
        """Return the parts of a rule's state that large parameters have in 8-bit codes."""
        if self.state_dtype != "8bit":
            return {}
        return {name: SQUARES if name in squares else SIGNED for name in names}

    def check_names(self, rule: str, names: Iterable[str]) -> None:
        """Raise TypeError if a part of a rule's state has the name of a part that is added."""
        added = {MASTER: self.master_weights, COMPENSATION: self.compensated}
        if taken := [name for name in names if added.get(name, False)]:
            raise TypeError(
                f"the rule {rule} has a state called {taken[0]!r}, which is the name of what this "
                "option adds: call it otherwise"
            )

    def described(self, layout: Mapping[str, DType]) -> list[str]:
        """Return the lines of a description for state like this; none where all is as usual."""
        found = []
        if MASTER in layout:
            found.append("float32 master weights for float16 parameters")
        if self.state_dtype == "8bit":
            found.append(
                f"state in 8 bits, a scale for each {BLOCK} elements; float32 for parameters of "
                f"fewer than {SMALLEST} elements"
            )
        elif self.state_dtype is not None:
            parts = [f"{n} {d}" for n, d in layout.items() if n not in (MASTER, COMPENSATION)]
            found.append(f"state: {', '.join(parts) or 'none'}")
        if self.compensated:
            found.append("compensated updates")
        return found


def _equal(a: Expr, b: Expr) -> Expr:
    return a._apply("eq", a, b)


def _follow_kernels() -> tuple[Kernel, Kernel]:
    p, rounded, master = map(Expr.array, ("p", "rounded", MASTER))
    value, lost = Expr.array("value"), Expr.array(COMPENSATION)
    kept = (value + lost) * Expr.scalar(ONE)
    return (
        Kernel("follow_master", {MASTER: where(_equal(rounded, p), master, p)}),
        Kernel("follow_compensation", {COMPENSATION: where(_equal(kept, value), lost, 0.0)}),
    )


_MASTER, _COMPENSATION = _follow_kernels()


def follow(arena: Arena, state: Mapping[str, Array]) -> None:
    """Have the master copy and the compensation follow parameters that others have changed.

    An element of the master copy that rounds to its parameter is kept as it is: so it does not
    matter which of the two is loaded first. What was lost in rounding is forgotten where it is too
    much to belong to the value there is now.
    """
    backend, master, lost = arena.backend, state.get(MASTER), state.get(COMPENSATION)
    if master is not None:
        rounded = backend.allocate((arena.size,), arena.dtype)
        backend.copy(master, rounded)
        _run(arena, _MASTER, {"p": arena.values, "rounded": rounded, MASTER: master})
    if lost is not None:
        value = arena.values if master is None else master
        _run(arena, _COMPENSATION, {"value": value, COMPENSATION: lost})


def _run(arena: Arena, kernel: Kernel, arrays: Mapping[str, Array]) -> None:
    inputs, out = [arrays[n] for n in kernel.arrays], [arrays[n] for n in kernel.outputs]
    arena.backend.elementwise(kernel, inputs, kernel.bind({ONE: 1.0}), out)
