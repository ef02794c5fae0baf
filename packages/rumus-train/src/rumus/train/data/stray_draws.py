"""Batches made ahead must not depend on which worker makes them, or when.

A transform that draws only from its own generator is safe. One that draws from another generator is
not: the order of the draws depends on the workers, and no checkpoint holds it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rumus.tensor.expression.user_warning import warn_user
from rumus.train.base.random_sources import Look, kind_of, name_of
from rumus.train.data.dataset import AnyBatch


@dataclass(frozen=True, slots=True)
class Drawn:
    """The first batch of a process, drawn from a foreign generator."""

    batch: AnyBatch
    source: str


def watched(make: Callable[[], AnyBatch]) -> tuple[AnyBatch, str | None]:
    """Make a batch; return the name of the foreign generator it drew from, if any."""
    look = Look(of_program=True)
    batch = make()
    moved = look.moved()
    if not moved:
        return batch, None
    name = name_of(moved[0])
    return batch, kind_of(moved[0]) if name is None else f"{name!r}, {kind_of(moved[0])}"


def warn_of(what: str) -> None:
    """Warn that batches depend on the workers."""
    warn_user(
        f"the dataset or the transform draws from {what}: with workers, the batches differ from "
        "run to run, and after a resume. A transform gets its own generator, transform=lambda "
        "sample, random: ...; draw from that",
    )
