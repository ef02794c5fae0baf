"""`LateRead`: an array that comes to the host while the host does something else."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rumus.gpu.device.array import GPUArray
from rumus.gpu.device.device import Gpu, take
from rumus.gpu.engine.protocol import Mapped, Usage


class LateRead:
    """Reads one array again and again, at most one time at once."""

    def __init__(self, gpu: Gpu, array: GPUArray) -> None:
        self.gpu = gpu
        self.array = array
        self.size = -(-array.nbytes // 4) * 4
        self._staging = gpu.device.buffer(self.size, Usage.MAP_READ | Usage.COPY_DST)
        self._request: Mapped | None = None
        self._submission = 0

    @property
    def is_under_way(self) -> bool:
        """Whether a read was started and not taken."""
        return self._request is not None

    def start(self) -> None:
        """Begin to read what the array holds after all that was recorded."""
        with self.gpu.lock:
            self._submission = self.gpu.stage(self.array, self._staging, self.size)
            self._request = self.gpu.device.map(self._staging, self.size)

    def take(self, wait: bool = False) -> NDArray[Any] | None:
        """Return what was read, None if it is not there yet; with `wait`, it will be."""
        if self._request is None:
            return None
        with self.gpu.lock:
            if wait or not self._request.is_ready():
                self.gpu.device.poll(wait, self._submission if wait else None)
            if not self._request.is_ready():
                return None
            request, self._request = self._request, None
            result = np.empty(self.array.shape, self.array.stored.memory)
            take(request, result)
            if wait:
                self.gpu.stats.bytes_down += result.nbytes
            else:
                self.gpu.stats.bytes_late += result.nbytes
            return result
