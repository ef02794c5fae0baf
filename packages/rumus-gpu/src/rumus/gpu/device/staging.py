"""`Staging`: where the device leaves data for the host.

With host memory, the data is there as soon as the submission that copies it is done. Otherwise a
buffer must be mapped first.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rumus.gpu.device.host_memory import HostMemory
from rumus.gpu.engine.protocol import Buffer, Device, Mapped, Usage


class Staging(Protocol):
    """A buffer for bytes on their way to the host; used for one array after the other."""

    buffer: Buffer

    def expect(self, submission: int, size: int) -> None:
        """Note that this submission writes the first `size` bytes."""
        ...

    def is_ready(self) -> bool:
        """Whether they have arrived. Does not wait."""
        ...

    def read(self) -> NDArray[np.uint8]:
        """Return the bytes, valid until `free`; waits. Raises GpuError on failure."""
        ...

    def free(self) -> None:
        """Return the buffer to the device."""
        ...


class HostStaging:
    """Memory that host and device share."""

    def __init__(self, device: Device, memory: HostMemory) -> None:
        self.buffer = memory.buffer
        self._device = device
        self._memory = memory
        self._submission = self._size = 0

    def expect(self, submission: int, size: int) -> None:
        """Note that this submission writes the first `size` bytes."""
        self._submission, self._size = submission, size

    def is_ready(self) -> bool:
        """Whether they have arrived."""
        return self._device.poll(False, self._submission)

    def read(self) -> NDArray[np.uint8]:
        """Return the bytes."""
        self._device.poll(True, self._submission)
        return self._memory.bytes[: self._size]

    def free(self) -> None:
        """Do nothing: the device can always use it."""


class MappedStaging:
    """A buffer of the device that is mapped each time."""

    def __init__(self, device: Device, size: int) -> None:
        self.buffer = device.buffer(size, Usage.MAP_READ | Usage.COPY_DST)
        self._device = device
        self._request: Mapped | None = None
        self._submission = 0

    def expect(self, submission: int, size: int) -> None:
        """Request the first `size` bytes once this submission is done."""
        self._submission = submission
        self._request = self._device.map(self.buffer, size)

    def is_ready(self) -> bool:
        """Whether they are mapped."""
        assert self._request is not None
        if not self._request.is_ready():
            self._device.poll()
        return self._request.is_ready()

    def read(self) -> NDArray[np.uint8]:
        """Return the bytes."""
        assert self._request is not None
        if not self._request.is_ready():
            self._device.poll(True, self._submission)
        return np.frombuffer(self._request.memory(), np.uint8)

    def free(self) -> None:
        """Return the buffer to the device, even if mapping is only requested."""
        if self._request is not None:
            request, self._request = self._request, None
            request.close()


def take(staging: Staging, into: NDArray[Any]) -> None:
    """Copy the staged bytes, and free the buffer; waits for them."""
    target = into.reshape(-1).view(np.uint8)
    try:
        target[:] = staging.read()[: target.size]
    finally:
        staging.free()
