"""`read_beside`: an array comes to the host piece by piece while another thread goes on.

`Gpu.read` holds the device's lock until all is there. Here it is held to ask and to look, and
neither while the device works nor while the host copies.
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

_LOOK: Final = 2e-4  # seconds between two looks whether a piece is there


def read_beside(gpu: Gpu, array: GPUArray) -> NDArray[Any]:
    """Return the elements of an array that lies contiguous, and that nobody writes to meanwhile."""
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
    """The device fills one while the host empties another."""
    return range(2 if size > PIECE else 1)


def _take(gpu: Gpu, staging: Staging, into: NDArray[np.uint8]) -> Staging:
    """Copy a piece when it is there, and return its room."""
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
