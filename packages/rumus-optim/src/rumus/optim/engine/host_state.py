"""`HostState`: an optimizer's state in the memory of the host, where its device reaches it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from rumus.optim.engine.stage import Stage
from rumus.optim.options.options import StateDevice
from rumus.tensor import DType


class HostState(Stage):
    """Arrays as large as the parameters, those of other stages too, are kept in host memory.

    The same kernel updates them, over the bus: reads of one part, arithmetic of another and writes
    of a third are under way at the same time. ValueError for a place that there is not.
    """

    on_host: ClassVar[bool] = True

    def __init__(self, device: StateDevice) -> None:
        if device != "host":
            raise ValueError(f'state_device must be "host" or None, not {device!r}')

    def notes(self, layout: Mapping[str, DType]) -> Sequence[str]:
        """Say where the state is."""
        return ["state in the host's memory"]
