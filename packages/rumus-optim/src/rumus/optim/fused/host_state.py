"""`HostState`: keeps an optimizer's state in host memory that the device can access."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from rumus.optim.engine.stage import Stage
from rumus.optim.options.options import StateDevice
from rumus.tensor import DType
from rumus.tensor.expression.choice import check_choice


class HostState(Stage):
    """Keeps arrays as large as the parameters in host memory, including those of other stages.

    The same kernel updates them over the bus, so reads, arithmetic and writes of different parts
    overlap. ValueError for an unknown device.
    """

    on_host: ClassVar[bool] = True

    def __init__(self, device: StateDevice) -> None:
        check_choice("state_device", device, ("host", None))

    def notes(self, layout: Mapping[str, DType]) -> Sequence[str]:
        """Note that the state is in host memory."""
        return ["state in the host's memory"]
