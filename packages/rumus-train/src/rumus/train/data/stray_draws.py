"""Batches that are made ahead must not depend on who makes them, and when.

What draws from the generator that a transform is called with does not. What draws from another one
does: the order of the draws is that of the workers, and a checkpoint knows nothing of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

from rumus.train.base.random_sources import Look, kind_of, name_of
from rumus.train.data.dataset import AnyBatch


@dataclass(frozen=True, slots=True)
class Drawn:
    """The first batch of a process, which was drawn from a generator that nobody gave."""

    batch: AnyBatch
    source: str


def watched(make: Callable[[], AnyBatch]) -> tuple[AnyBatch, str | None]:
    """Make a batch; return what it drew from that it was not given, as a person calls it."""
    look = Look(of_program=True)
    batch = make()
    moved = look.moved()
    if not moved:
        return batch, None
    name = name_of(moved[0])
    return batch, kind_of(moved[0]) if name is None else f"{name!r}, {kind_of(moved[0])}"


def warn_of(what: str) -> None:
    """Say that batches depend on the workers."""
    warnings.warn(
        f"the dataset or the transform draws from {what}: with workers, the batches differ from "
        "run to run, and after a resume. A transform is called with a generator of its own, "
        "transform=lambda sample, random: ...; draw from that",
        UserWarning,
        stacklevel=2,
    )
