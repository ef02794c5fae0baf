"""`Spans`: where the time of a step went."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(slots=True)
class Spans:
    """Seconds by what the host did: on a GPU, `reading` has what the device took longer.

    data: waiting for the loader.
    forward: computing the loss.
    backward: its gradients.
    replayed: sending both to a device that repeats a recorded step, in which they are one.
    optimizer: the update.
    reading: waiting for the loss.

    >>> from rumus.train import Spans
    >>> spans = Spans(data=0.1, forward=0.4)
    >>> spans.add(Spans(data=0.2, backward=0.8))
    >>> spans.shares(2.0)
    {'data': 0.15, 'forward': 0.2, 'backward': 0.4, 'optimizer': 0.0, 'reading': 0.0, 'rest': 0.25}
    """

    data: float = 0.0
    forward: float = 0.0
    backward: float = 0.0
    replayed: float = 0.0
    optimizer: float = 0.0
    reading: float = 0.0

    @property
    def forward_backward(self) -> float:
        """Computing losses and gradients, in whichever way."""
        return self.forward + self.backward + self.replayed

    def add(self, other: Spans) -> None:
        """Count another step in.

        other: whose times are added.
        """
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    def shares(self, seconds: float) -> dict[str, float]:
        """Return each part's share of so many seconds, what there was of it, and the rest.

        The rest is callbacks, checkpoints, and the loop itself. Nothing was replayed on a CPU.

        seconds: of the whole.
        """
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        if not self.replayed:
            del parts["replayed"]
        parts["rest"] = max(0.0, seconds - sum(parts.values()))
        return {name: round(part / seconds, 4) for name, part in parts.items()}
