"""Arrays in host memory that kernels access over the bus.

They suit data that is large and rarely used, such as an optimizer's state: a kernel that walks it
has many loads and stores in flight, in both directions, while it computes. The host never touches
these pages, so a fork of the process does not move them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from rumus.gpu.device.host_memory import HostMemory
from rumus.gpu.device.memory import GRAIN, USAGE, Block, Pool, Storage
from rumus.gpu.engine.errors import EngineError, LimitError, OutOfMemoryError
from rumus.gpu.engine.protocol import Buffer, Device


class HostStorage(Storage):
    """The memory of one such array and its views."""

    __slots__ = ("_arrays", "_memory")

    def __init__(
        self, arrays: HostArrays, buffer: Buffer, size: int, label: str, memory: HostMemory | None
    ) -> None:
        super().__init__(Block(buffer, buffer.handle, size), arrays.pool, label)
        self._arrays, self._memory = arrays, memory

    def __del__(self) -> None:
        self._arrays.returned.append((self.block, self._memory))  # atomic, on any thread


class HostArrays:
    """Allocates such arrays. Callers hold the device's lock.

    pool: of the device. wait: see `Pool`.
    """

    def __init__(self, device: Device, pool: Pool, wait: Callable[[], None]) -> None:
        self._device, self.pool, self._wait = device, pool, wait
        self.used = 0  # bytes
        self.returned: deque[tuple[Block, Any]] = deque()

    def allocate(self, size: int, label: str) -> HostStorage | None:
        """Return uninitialized memory for `size` bytes; None if unsupported.

        Raises LimitError if no array may be that large, OutOfMemoryError if the host is full.
        """
        if size > self.pool.largest:
            raise LimitError(
                f"an array {label} of {size:,} bytes is larger than this device can bind "
                f"({self.pool.largest:,} bytes); split it along an axis"
            )
        self.collect()
        grain = max(GRAIN, self._device.host_alignment)
        wanted = max(grain, -(-size // grain) * grain)
        memory: HostMemory | None = None
        try:
            if self._device.host_alignment:
                memory = HostMemory.of(self._device, wanted, USAGE)
                buffer = None if memory is None else memory.buffer
            else:
                buffer = self._device.visible_buffer(wanted, USAGE)
        except (EngineError, OSError) as error:
            if isinstance(error, EngineError) and not error.is_memory:
                raise
            raise OutOfMemoryError(
                f"the host has no memory for another {wanted:,} bytes shared with the GPU; arrays "
                f"hold {self.used:,} bytes of it already"
            ) from error
        if buffer is None:
            return None
        self.used += wanted
        return HostStorage(self, buffer, wanted, label, memory)

    def collect(self) -> None:
        """Release the memory of deleted arrays, once no kernel uses it."""
        if not self.returned:
            return
        self._wait()
        while self.returned:
            block, _ = self.returned.popleft()
            block.buffer.destroy()
            self.used -= block.size
