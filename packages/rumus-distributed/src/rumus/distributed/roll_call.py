"""`Call`: a rank's status, exchanged before each joint operation.

A reduction that one rank never enters hangs on every MPI. So the ranks first exchange a fixed-size
record: where they are in the program, whether they have failed, which signal they received.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_FORM: Final = struct.Struct("<?55sqid")  # failed, place, number, signal, clock
SIZE: Final = _FORM.size
TEXT: Final = 1000  # bytes of an error sent to the others


@dataclass(frozen=True, slots=True)
class Call:
    """A rank's record.

    place, number: where it is, such as "step" 17. failed: it cannot continue, and sends the reason
        next. signal: 0 for none. clock: its seconds; the first rank's count.
    """

    place: str
    number: int
    failed: bool = False
    signal: int = 0
    clock: float = 0.0

    def packed(self) -> bytes:
        """Return it as bytes of the fixed size."""
        place = self.place.encode()[:55]
        return _FORM.pack(self.failed, place, self.number, self.signal, self.clock)

    @classmethod
    def unpacked(cls, records: bytes) -> list[Call]:
        """Return the calls of all ranks.

        >>> Call.unpacked(Call("step", 17, signal=15).packed())
        [Call(place='step', number=17, failed=False, signal=15, clock=0.0)]
        """
        return [
            cls(place.rstrip(b"\0").decode(), number, failed, signal, clock)
            for failed, place, number, signal, clock in _FORM.iter_unpack(records)
        ]

    def __str__(self) -> str:
        return f"{self.place} {self.number}" if self.number else self.place


def elsewhere(calls: Sequence[Call]) -> str | None:
    """Return where the ranks are, if their places differ.

    >>> elsewhere([Call("step", 17), Call("validation", 17)])
    'rank 0 is at step 17, rank 1 at validation 17'
    """
    places = [(call.place, call.number) for call in calls]
    if len(set(places)) == 1:
        return None
    first, *others = [f"rank {rank} at {call}" for rank, call in enumerate(calls)]
    return ", ".join([first.replace(" at ", " is at ", 1), *others])
