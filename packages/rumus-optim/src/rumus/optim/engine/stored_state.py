"""`StoredState`: the state of the rule in another dtype than the arithmetic, or in 8-bit codes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from rumus.optim.engine.compensation import COMPENSATION
from rumus.optim.engine.master_weights import MASTER
from rumus.optim.engine.packed_state import SMALLEST
from rumus.optim.engine.stage import Stage
from rumus.optim.options.options import StateDType
from rumus.tensor import DType, float16, float32
from rumus.tensor.memory.quantization import BLOCK, SIGNED, SQUARES, Code


class StoredState(Stage):
    """What the state of a rule is stored in; see `FusedOptimizer`.

    ValueError for a state dtype that there is not.
    """

    def __init__(self, dtype: StateDType) -> None:
        if dtype not in ("float16", "float32", "8bit"):
            raise ValueError(
                f'state_dtype must be "float16", "float32", "8bit" or None, not {dtype!r}'
            )
        self.dtype = dtype

    def stored(self, layout: Mapping[str, DType], wide: Collection[str]) -> Mapping[str, DType]:
        """Return one dtype for all, except for squares and copies, which float16 cannot hold.

        With "8bit" it is that of parameters whose state is not packed.
        """
        if self.dtype != "float16":
            return dict.fromkeys(layout, float32)
        return {n: own if n in wide else float16 for n, own in layout.items()}

    def codes(self, names: Collection[str], squares: Collection[str]) -> Mapping[str, Code]:
        """Return codes for all of it with "8bit"."""
        if self.dtype != "8bit":
            return {}
        return {name: SQUARES if name in squares else SIGNED for name in names}

    def notes(self, layout: Mapping[str, DType]) -> Sequence[str]:
        """Say what is stored in what."""
        if self.dtype == "8bit":
            return [
                f"state in 8 bits, a scale for each {BLOCK} elements; float32 for parameters of "
                f"fewer than {SMALLEST} elements"
            ]
        parts = [f"{n} {d}" for n, d in layout.items() if n not in (MASTER, COMPENSATION)]
        return [f"state: {', '.join(parts) or 'none'}"]
