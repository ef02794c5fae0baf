"""`Extension`: something more that every step of a fused optimizer does, in the same kernel.

So it happens exactly when the step is applied: whoever decides on that, here or on a device,
decides on both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from rumus.optim.engine.precision import COMPENSATION, MASTER
from rumus.optim.engine.update_kernel import AVERAGE
from rumus.tensor import Arena, Expr, Kernel
from rumus.tensor.memory.backend import Array


class Extension(ABC):
    """What is added to the kernels of an optimizer, with one more part of the state, `part`.

    The part starts as the parameters are.
    """

    name: str  # for messages and saved states
    part: str

    def __init__(self) -> None:
        self._kernels: dict[Kernel, Kernel] = {}

    @abstractmethod
    def outputs(self, p: Expr, part: Expr) -> tuple[Expr, Expr]:
        """From the new parameter and the part before: what both are after the step."""

    @abstractmethod
    def scalars(self, t: int) -> Mapping[str, float]:
        """The scalars that `outputs` uses, at step `t` of a segment."""

    def check(self, *kernels: Kernel) -> None:
        """Raise TypeError for a kernel that keeps something of p beside it, or this part."""
        for kernel in kernels:
            beside = sorted({MASTER, COMPENSATION, AVERAGE} & set(kernel.outputs))
            if beside or self.part in kernel.outputs:
                raise TypeError(
                    f"{self.name} cannot wrap {kernel.name}: it keeps {beside or [self.part]} "
                    "beside p; use it without master weights, compensation and average"
                )

    def start(self, arena: Arena) -> dict[str, Array]:
        """Return the part for the parameters of an arena, by its name."""
        part = arena.backend.allocate((arena.size,), arena.dtype)
        arena.backend.copy(arena.values, part)
        return {self.part: part}

    def kernel(self, kernel: Kernel) -> Kernel:
        """Return a kernel that does what `kernel` does, and this."""
        found = self._kernels.get(kernel)
        if found is None:
            p, part = self.outputs(kernel.outputs["p"], Expr.array(self.part))
            outputs = {**kernel.outputs, "p": p, self.part: part}
            found = Kernel(f"{self.name.lower()}_{kernel.name}", outputs,
                           (*kernel.arrays, self.part))  # fmt: skip
            self._kernels[kernel] = found
        return found
