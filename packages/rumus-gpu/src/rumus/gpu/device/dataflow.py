"""`Dataflow`: the origin of each dispatch's data in a step, independent of buffers.

Two runs of one step use different buffers. They compute the same if each kernel reads the output of
the same earlier kernel, the same input, or the same memory from outside the step.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TypeAlias

from rumus.gpu.device.array import GPUArray
from rumus.gpu.device.memory import Region, Storage
from rumus.gpu.device.pipelines import Pipeline

# The last writer and its index; and the byte at which it is bound.
Origin: TypeAlias = tuple[str, int, int]


class Dataflow:
    """The bindings of one step's dispatches, in order.

    inputs: arrays that stand for the batch. region: where the step's arrays are made.
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
        """Note data made by the host within the step."""
        self._last[array.storage] = "fed", self._fed
        self._fed += 1

    def of(self, arrays: Sequence[GPUArray]) -> list[Origin]:
        """Return the origins of arrays' contents."""
        return [(*self._origin(array.storage), array.base) for array in arrays]

    def _origin(self, storage: Storage) -> tuple[str, int]:
        found = self._last.get(storage)
        if found is not None:
            return found
        # Memory from outside is kept alive by its users, so its id is unique.
        return ("new", 0) if storage.block.region is self._region else ("outside", id(storage))

    def dispatched(self, pipeline: Pipeline, arrays: Sequence[GPUArray]) -> list[Origin]:
        """Note a dispatch; return the origins of its data."""
        origins = self.of(arrays)
        for array, access in zip(arrays, pipeline.access, strict=True):
            if access == "w":
                self._last[array.storage] = "kernel", len(self.origins)
        self.origins.append(origins)
        return origins
