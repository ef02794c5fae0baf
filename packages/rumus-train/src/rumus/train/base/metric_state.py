"""`MetricState`: what a metric has to know of some samples, to be exact over all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class MetricState:
    """A metric of some samples. States add up: the sum is that of all their samples.

    So a validation over batches has the F1 of the whole set, which is not the mean of the batches'.

    name: of the metric. parts: counts, which are added, or where `joins` is set values of each
    sample, which are put one after the other. finish: from the parts to the metric.

    >>> half = MetricState("share", (np.array(1.0), np.array(2.0)), lambda hits, n: hits / n)
    >>> float(half + MetricState("share", (np.array(4.0), np.array(4.0)), half.finish))
    0.8333333333333334
    """

    name: str
    parts: tuple[NDArray[Any], ...]
    finish: Callable[..., Any]
    joins: bool = False

    def __add__(self, other: MetricState) -> MetricState:
        if self._kind != other._kind:
            raise ValueError(f"{self} and {other} are no parts of one metric")
        join = np.concatenate if self.joins else np.sum
        parts = tuple(join(pair, axis=0) for pair in zip(self.parts, other.parts, strict=True))
        return MetricState(self.name, parts, self.finish, self.joins)

    def __float__(self) -> float:
        return float(self.finish(*self.parts))

    def __repr__(self) -> str:
        return f"MetricState({self.name!r}, {list(self._kind[1])})"

    @property
    def _kind(self) -> tuple[str, tuple[tuple[int, ...], ...]]:
        return self.name, tuple(p.shape[1:] if self.joins else p.shape for p in self.parts)
