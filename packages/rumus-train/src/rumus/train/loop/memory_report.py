"""`MemoryReport`: the memory of a trainer's arrays and captured steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rumus.optim import Optimizer
from rumus.train.capture.step_memory import StepMemory
from rumus.train.loop.progress import size


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """Memory in bytes, from `Trainer.memory_report`; `str` gives a table.

    backend: the name of the parameters' backend.
    parameters, gradients, state: the optimizer's, including alignment gaps; state is None if
        unknown.
    steps: the captured steps, which hold memory whether they run or not.
    other: everything else on the device: data, buffers of modules, slack of blocks.
    highest: the most that was ever held on the device. The last two are None on a CPU.
    on_host: state in host memory (`state_device="host"`), not counted in `state`.

    >>> from rumus.train import MemoryReport, StepMemory
    >>> report = MemoryReport("gpu", 400, 400, 800, (StepMemory("loss", 2000),), 100, 4000)
    >>> report.persistent, report.peak
    (1600, 3700)
    """

    backend: str
    parameters: int
    gradients: int
    state: int | None
    steps: tuple[StepMemory, ...] = ()
    other: int | None = None
    highest: int | None = None
    on_host: int = 0

    @property
    def persistent(self) -> int:
        """Parameters, gradients and state."""
        return self.parameters + self.gradients + (self.state or 0)

    @property
    def peak(self) -> int | None:
        """The bytes held while a captured step runs; None if none is captured.

        It is known in advance: a replayed step allocates nothing.
        """
        if not self.steps:
            return None
        return self.persistent + sum(step.bytes for step in self.steps) + (self.other or 0)

    def __str__(self) -> str:
        """A line for each."""
        rows: list[tuple[str, int | None]] = [
            ("parameters", self.parameters),
            ("gradients", self.gradients),
            ("optimizer state", self.state),
            *([("optimizer state on the host", self.on_host)] if self.on_host else []),
            *((f"captured step {step.name}", step.bytes) for step in self.steps),
        ]
        if self.other is not None:
            rows.append(("other arrays", self.other))
        rows.append(("peak of captured steps", self.peak))
        if self.highest is not None:
            rows.append(("highest so far", self.highest))
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {_said(number):>10}" for name, number in rows]
        return "\n".join([f"memory on {self.backend}", *lines, *self._notes()])

    def _notes(self) -> list[str]:
        """What is unknown, and why."""
        if self.steps:
            return []
        return ["activations are not known yet: the second step of each kind is captured"]


def _said(number: int | None) -> str:
    return "unknown" if number is None else size(number)


def report(optimizer: Optimizer[Any], steps: Sequence[StepMemory]) -> MemoryReport:
    """Return the memory of an optimizer's arrays and captured steps."""
    backend = optimizer.parameters[0].backend
    parameters, gradients, state = _of_optimizer(optimizer)
    on_host = int(getattr(getattr(optimizer, "fused", optimizer), "bytes_on_host", 0))
    state = None if state is None else state - on_host
    stats = getattr(backend, "memory_stats", None)
    if stats is None:
        return MemoryReport(backend.name, parameters, gradients, state, tuple(steps))
    held = stats()
    known = parameters + gradients + (state or 0) + sum(step.bytes for step in steps)
    other = max(0, held.used - known)
    highest = max(held.peak, known)
    return MemoryReport(
        backend.name, parameters, gradients, state, tuple(steps), other, highest, on_host
    )


def _of_optimizer(optimizer: Optimizer[Any]) -> tuple[int, int, int | None]:
    """Bytes of parameters, gradients and state, from the optimizer or from their sizes."""
    if (memory := getattr(optimizer, "memory", None)) is not None:
        told = memory()
        return told.parameters, told.gradients, told.state
    found = sum(p.size * p.dtype.itemsize for p in optimizer.parameters)
    return found, found, None
