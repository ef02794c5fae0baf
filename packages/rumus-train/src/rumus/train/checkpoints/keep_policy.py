"""`KeepPolicy`: which checkpoints to keep."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from rumus.tensor.expression.choice import check_choice
from rumus.tensor.expression.whole_number import whole_number

Best: TypeAlias = Literal["min", "max"]


@dataclass(frozen=True)
class KeepPolicy:
    """Keeps the newest `last`, the best, and those at steps divisible by `every`.

    ValueError for numbers below 1, or an order that is neither "min" nor "max".

    >>> policy = KeepPolicy(last=1, best="min", every=100)
    >>> sorted(policy.kept({100: 0.9, 110: 0.3, 120: 0.5, 130: None}))
    [100, 110, 130]
    """

    last: int = 3
    best: Best | None = None
    every: int | None = None

    def __post_init__(self) -> None:
        for name, number in (("keep_last", self.last), ("keep_every", self.every)):
            if number is not None:
                whole_number(name, number)
        if self.last < 1:
            raise ValueError(f"keep_last must be at least 1, not {self.last}")
        check_choice("keep_best", self.best, ("min", "max", None))
        if self.every is not None and self.every < 1:
            raise ValueError(f"keep_every must be at least 1, not {self.every}")

    def kept(self, metrics: Mapping[int, float | None]) -> set[int]:
        """Return which of these steps, given with their metrics, to keep.

        None or NaN is never the best; of equal metrics the earliest is.
        """
        steps = sorted(metrics)
        kept = set(steps[-self.last :])
        if self.every is not None:
            kept |= {step for step in steps if step % self.every == 0}
        best = None if self.best is None else best_of(metrics, self.best)
        return kept if best is None else kept | {best}


def best_of(metrics: Mapping[int, float | None], order: Best) -> int | None:
    """Return the step with the best metric, the earliest of equal ones; None without any."""
    known = {s: m for s in sorted(metrics) if (m := metrics[s]) is not None and not math.isnan(m)}
    if not known:
        return None
    return (min if order == "min" else max)(known, key=known.__getitem__)
