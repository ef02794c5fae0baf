"""`TimeStep`: where one step of a recurrence reads and writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class TimeStep:
    """One step of a recurrence over sequences.

    time: the number of the step in the sequence. source, target: the numbers of the states that it
    reads and writes, of which there is one more; they are exchanged for a sequence backwards.
    lengths: (batch,), int32, or None: from its length on a sample keeps its state.
    """

    time: int
    source: int
    target: int
    lengths: Any = None
