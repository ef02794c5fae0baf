"""`Dataflow`: where each dispatch of a step has its data from, whatever memory they lie in.

Two runs of one step use other buffers. They compute the same if each kernel reads what the same
kernel before it has written, the same input, or the same memory from outside the step.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TypeAlias

from rumus.gpu.device.array import GPUArray
from rumus.gpu.device.memory import Region, Storage
from rumus.gpu.device.pipelines import Pipeline

# What wrote it last, and which one of these; and at which byte it is bound.
Origin: TypeAlias = tuple[str, int, int]


class Dataflow:
    """What the dispatches of one step are bound to, in their order.

    inputs: arrays that stand for the batch. region: where the step's own arrays are made.
    """

    def __init__(self, inputs: Sequence[GPUArray], region: Region) -> None:
        self.origins: list[list[Origin]] = []
        self._region = region
        self._fed = 0
        self._last: weakref.WeakKeyDictionary[Storage, tuple[str, int]] = (
            weakref.WeakKeyDictionary()
        )
        for number, array in enumerate(inputs):
            self._last[array.storage] = "input", number

    def fed(self, array: GPUArray) -> None:
        """Note what the host has made within the step."""
        self._last[array.storage] = "fed", self._fed
        self._fed += 1

    def of(self, arrays: Sequence[GPUArray]) -> list[Origin]:
        """Return where the contents of arrays are from."""
        return [(*self._origin(array.storage), array.base) for array in arrays]

    def _origin(self, storage: Storage) -> tuple[str, int]:
        found = self._last.get(storage)
        if found is not None:
            return found
        # Memory from outside is held by what relies on it, so that its number is no other's.
        return ("new", 0) if storage.block.region is self._region else ("outside", id(storage))

    def dispatched(self, pipeline: Pipeline, arrays: Sequence[GPUArray]) -> list[Origin]:
        """Note a dispatch; return where its data are from."""
        origins = self.of(arrays)
        for array, access in zip(arrays, pipeline.access, strict=True):
            if access == "w":
                self._last[array.storage] = "kernel", len(self.origins)
        self.origins.append(origins)
        return origins
