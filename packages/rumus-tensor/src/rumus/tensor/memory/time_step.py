"""`TimeStep`: the indices that one step of a recurrence reads and writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class TimeStep:
    """One step of a recurrence over sequences.

    time: the index of the step in the sequence. source, target: the indices of the states that it
        reads and writes, of which there is one more; they are swapped for a reversed sequence.
        lengths: (batch,), int32, or None: beyond its length a sample keeps its state.
    """

    time: int
    source: int
    target: int
    lengths: Any = None
