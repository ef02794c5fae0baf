"""`Limits`: when a run ends."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rumus.tensor.expression.real_number import real_number


@dataclass(slots=True)
class Limits:
    """When a run ends; ValueError if it never does."""

    epochs: int | None
    steps: int | None
    seconds: float | None

    def __post_init__(self) -> None:
        given = {"epochs": self.epochs, "steps": self.steps, "seconds": self.seconds}
        if all(value is None for value in given.values()):
            raise ValueError("fit needs to know when to end: give epochs, steps or seconds")
        for name, value in given.items():
            if value is None:
                continue
            if not real_number(name, value) > 0:
                raise ValueError(f"{name} must be positive, not {value!r}")
            if name != "seconds" and (math.isinf(value) or value != int(value)):
                raise ValueError(f"{name} must be a whole number, not {value!r}")

    def ends_after(self, per_epoch: int | None) -> tuple[int | None, int | None]:
        """Return the steps and whole epochs after which a run ends at the latest, None if unknown.

        per_epoch: the number of steps per epoch, None if it is unknown.
        """
        steps, epochs = self.steps, self.epochs
        if per_epoch:
            if epochs is not None:
                steps = min(epochs * per_epoch, epochs * per_epoch if steps is None else steps)
            epochs = None if steps is None else steps // per_epoch
        return steps, epochs

    def reached(self, epoch: int, step: int, seconds: float) -> str | None:
        """Return the limit that has been reached, None if none has."""
        if self.epochs is not None and epoch >= self.epochs:
            return "epochs"
        if self.steps is not None and step >= self.steps:
            return "steps"
        return "seconds" if self.seconds is not None and seconds >= self.seconds else None
