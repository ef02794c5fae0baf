"""`StepMemory`: the memory of one captured step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepMemory:
    """The memory of one captured step: its batch, activations and all intermediate results.

    name: the loss function and its batch.
    bytes: held from recording until the step is dropped, and all it takes to run; arrays of the
        step reuse each other's memory.
    """

    name: str
    bytes: int
