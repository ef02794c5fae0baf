"""`read_beside`: reads an array piece by piece while other threads use the device.

`Gpu.read` holds the device's lock until everything has arrived. This function holds it only to
submit and to poll, not while the device works or the host copies.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.gpu.device.array import GPUArray
from rumus.gpu.device.device import PIECE, Gpu
from rumus.gpu.device.staging import Staging

_LOOK: Final = 2e-4  # seconds between two polls


def read_beside(gpu: Gpu, array: GPUArray) -> NDArray[Any]:
    """Return the elements of a contiguous array that nothing writes to meanwhile."""
    result = np.empty(array.shape, array.stored.memory)
    into = result.reshape(-1).view(np.uint8)
    free = [gpu.staging(min(PIECE, max(4, -(-into.size // 4) * 4))) for _ in _rooms(into.size)]
    waiting: deque[tuple[Staging, NDArray[np.uint8]]] = deque()
    for at in range(0, into.size, PIECE):
        if not free:
            free.append(_take(gpu, *waiting.popleft()))
        staging, part = free.pop(), into[at : at + PIECE]
        gpu.stage(array, staging, at, part.size)
        waiting.append((staging, part))
    while waiting:
        _take(gpu, *waiting.popleft())
    with gpu.lock:
        gpu.stats.bytes_late += into.size
    return result


def _rooms(size: int) -> range:
    """The numbers of the staging buffers: the device fills one while the host empties the other."""
    return range(2 if size > PIECE else 1)


def _take(gpu: Gpu, staging: Staging, into: NDArray[np.uint8]) -> Staging:
    """Wait for a piece, copy it, and return its staging buffer."""
    while True:
        with gpu.lock:
            if staging.is_ready():
                memory = staging.read()
                break
        time.sleep(_LOOK)
    try:
        into[:] = memory[: into.size]
    finally:
        with gpu.lock:
            staging.free()
    return staging
