"""`Every`: when a repeated action is due."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rumus.tensor.expression.decided import fixed
from rumus.tensor.expression.real_number import real_number
from rumus.train.base.other_names import EVERY


@EVERY.of_fields
@fixed
@dataclass(frozen=True, slots=True)
class Every:
    """Every number of steps, epochs or seconds, whichever comes first; never if none is given.

    Steps and epochs count from the start of training, across resumes, so they do not depend on
    where a run was stopped. Seconds count from the last time.

    steps: a number of steps, None for none.
    epochs: a number of epochs, None for none.
    seconds: a number of seconds, None for none.

    ValueError for numbers that are not positive.

    >>> from rumus.train import Every
    >>> every = Every(steps=100, epochs=1)
    >>> every.in_epoch(step=200, seconds=0.0), every.after_epoch(epoch=3)
    (True, True)
    """

    steps: int | None = None
    epochs: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name, number in (("steps", self.steps), ("epochs", self.epochs)):
            if isinstance(number, bool):
                raise ValueError(f"Every: {name} must be a whole number, not {number!r}")
            if number is not None and real_number(f"Every: {name}", number) != number // 1:
                raise ValueError(f"Every: {name} must be a whole number, not {number!r}")
        for name in ("steps", "epochs", "seconds"):
            value = getattr(self, name)
            if value is not None and not 0 < real_number(f"Every: {name}", value) < math.inf:
                raise ValueError(f"Every: {name} must be finite and positive, not {value!r}")

    @staticmethod
    def check(name: str, given: object) -> None:
        """Raise TypeError for an argument that is not an `Every`, such as a number without a unit.

        name: of the argument, for error messages.
        given: what was passed; None is fine.
        """
        if given is not None and not isinstance(given, Every):
            raise TypeError(f"{name} must be Every(steps=...) or Every(epochs=...), not {given!r}")

    def in_epoch(self, step: int, seconds: float) -> bool:
        """Whether it is due after a step, `seconds` after it was last done.

        step: the number of steps so far.
        seconds: since it was due last.
        """
        return (self.steps is not None and step % self.steps == 0) or (
            self.seconds is not None and seconds >= self.seconds
        )

    def may_be_due(self, steps: tuple[int, int | None], epochs: tuple[int, int | None]) -> bool:
        """Whether it may be due between two places.

        steps: how many were done, and how many will be; None if that is unknown.
        epochs: likewise.
        """
        pairs = ((self.steps, steps), (self.epochs, epochs))
        return self.seconds is not None or any(
            every is not None and (end is None or end // every > done // every)
            for every, (done, end) in pairs
        )

    def after_epoch(self, epoch: int) -> bool:
        """Whether it is due after a number of epochs.

        epoch: the number of epochs so far.
        """
        return self.epochs is not None and epoch % self.epochs == 0
