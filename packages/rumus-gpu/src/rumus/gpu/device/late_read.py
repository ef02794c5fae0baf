"""`LateRead`: reads an array while the host continues."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rumus.gpu.device.array import GPUArray
from rumus.gpu.device.device import Gpu
from rumus.gpu.device.staging import take
from rumus.tensor.memory.uninterrupted import Uninterrupted


class LateRead:
    """Reads one array repeatedly, one read at a time.

    Using a buffer that is still mapped ends the process: so whether it is must always be known.
    """

    def __init__(self, gpu: Gpu, array: GPUArray) -> None:
        self.gpu = gpu
        self.array = array
        self._staging = gpu.staging(-(-array.nbytes // 4) * 4)
        self.is_under_way = False  # started and not taken

    def start(self) -> None:
        """Start to read the array's contents after all recorded commands."""
        with self.gpu.lock, Uninterrupted():
            self.gpu.stage(self.array, self._staging)
            self.is_under_way = True

    def take(self, wait: bool = False) -> NDArray[Any] | None:
        """Return the contents, or None if they have not arrived; with `wait`, wait for them."""
        if not self.is_under_way:
            return None
        with self.gpu.lock, Uninterrupted():
            if not wait and not self._staging.is_ready():
                return None
            self.is_under_way = False
            result = np.empty(self.array.shape, self.array.stored.memory)
            take(self._staging, result)
            if wait:
                self.gpu.stats.bytes_down += result.nbytes
            else:
                self.gpu.stats.bytes_late += result.nbytes
            return result
