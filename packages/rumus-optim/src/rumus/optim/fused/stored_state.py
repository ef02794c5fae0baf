"""`StoredState`: stores a rule's state in a dtype other than the arithmetic's, or in 8 bits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from rumus.optim.engine.packed_state import SMALLEST
from rumus.optim.engine.stage import Stage
from rumus.optim.fused.compensation import COMPENSATION
from rumus.optim.fused.master_weights import MASTER
from rumus.optim.options.options import StateDType
from rumus.tensor import DType, float16, float32
from rumus.tensor.expression.choice import check_choice
from rumus.tensor.memory.quantization import BLOCK, SIGNED, SQUARES, Code


class StoredState(Stage):
    """The storage of a rule's state; see `FusedOptimizer`.

    ValueError for an unknown state dtype.
    """

    def __init__(self, dtype: StateDType) -> None:
        check_choice("state_dtype", dtype, ("float16", "float32", "8bit", None))
        self.dtype = dtype

    def stored(self, layout: Mapping[str, DType], wide: Collection[str]) -> Mapping[str, DType]:
        """Return one dtype for all, except for squares and copies, which float16 cannot hold.

        With "8bit" it applies to parameters too small to have packed state.
        """
        if self.dtype != "float16":
            return dict.fromkeys(layout, float32)
        return {n: own if n in wide else float16 for n, own in layout.items()}

    def codes(self, names: Collection[str], squares: Collection[str]) -> Mapping[str, Code]:
        """Return codes for all parts with "8bit", otherwise none."""
        if self.dtype != "8bit":
            return {}
        return {name: SQUARES if name in squares else SIGNED for name in names}

    def notes(self, layout: Mapping[str, DType]) -> Sequence[str]:
        """Return how the state is stored."""
        if self.dtype == "8bit":
            return [
                f"state in 8 bits, a scale for each {BLOCK} elements; float32 for parameters of "
                f"fewer than {SMALLEST} elements"
            ]
        parts = [f"{n} {d}" for n, d in layout.items() if n not in (MASTER, COMPENSATION)]
        return [f"state: {', '.join(parts) or 'none'}"]
