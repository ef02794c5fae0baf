"""`Spans`: the time spent in the parts of a step."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(slots=True)
class Spans:
    """Seconds by host activity: on a GPU, `reading` includes waiting for the device.

    data: waiting for the loader.
    forward: computing the loss.
    backward: its gradients.
    replayed: submitting both together, in a replayed step.
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
        """Time for losses and gradients, replayed or not."""
        return self.forward + self.backward + self.replayed

    def add(self, other: Spans) -> None:
        """Add another step.

        other: the times to add.
        """
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    def shares(self, seconds: float) -> dict[str, float]:
        """Return each part's share of a number of seconds, if it is not 0, and the rest.

        The rest is callbacks and the loop itself. Nothing was replayed on a CPU.

        seconds: the total.
        """
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        if not self.replayed:
            del parts["replayed"]
        parts["rest"] = max(0.0, seconds - sum(parts.values()))
        return {name: round(part / seconds, 4) for name, part in parts.items()}
