"""The options of every rule-based optimizer."""

from __future__ import annotations

from typing import Literal, TypeAlias, TypedDict

from rumus.optim.options.average import Average
from rumus.optim.options.clip import Clip
from rumus.tensor.memory.updater import NonFinite

StateDType: TypeAlias = Literal["float16", "float32", "8bit"]
StateDevice: TypeAlias = Literal["host"]


class Options(TypedDict, total=False):
    """Keyword options with the defaults of `FusedOptimizer`; see there."""

    maximize: bool
    nonfinite: NonFinite
    master_weights: bool
    state_dtype: StateDType | None
    state_device: StateDevice | None
    compensated: bool
    cautious: bool
    cautious_weight_decay: bool
    clip: Clip | None
    average: Average | None
