"""`LateLosses`: the losses of a step's passes, kept on their device until others need them."""

from __future__ import annotations

from typing import Any

import numpy as np

from rumus.tensor import Tensor
from rumus.tensor.memory.backend import Array


class LateLosses:
    """The losses of one step after the other.

    A replayed pass writes its loss to the same memory each time, so each loss is copied. The device
    copies in order, and continues while the host waits for the values.
    """

    def __init__(self) -> None:
        self._values: list[float] = []
        self._count = 0
        self._memory: Array = None
        self._reading: Any = None  # reads the memory to the host

    def begin(self) -> None:
        """Forget those of the step before."""
        self._values, self._count = [], 0

    def note(self, loss: Tensor, most: int) -> int:
        """Return the index of a loss within the step. most: the maximum number of losses."""
        number = self._count
        self._count += 1
        if not loss.backend.runs_ahead:
            self._values.append(float(loss))
            return number
        if self._memory is None or self._memory.shape[0] < most:
            device: Any = loss.backend
            self._memory = device.allocate((most,), np.dtype(np.float32))
            self._reading = device.read_later(self._memory)
        loss.backend.copy(loss._array.reshape((1,)), self._memory[number : number + 1])
        return number

    def start(self) -> None:
        """Start reading them once the device has computed them."""
        if self._reading is not None and self._count:
            self._reading.start()

    def values(self) -> list[float]:
        """Return them; waits for the device."""
        if self._reading is not None and self._count:
            self._values = self._reading.take(wait=True).tolist()
        return self._values
