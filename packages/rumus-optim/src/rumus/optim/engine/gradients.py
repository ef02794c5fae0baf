"""The gradients of segments in a store: checked, and as whole arrays if possible."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from rumus.optim.engine.optimizer import check_one_backend
from rumus.optim.engine.segments import Segment
from rumus.tensor import (
    Backend,
    BackendMismatchError,
    DrainedGradientError,
    GradientStore,
    Parameter,
)
from rumus.tensor.memory.backend import Array

if TYPE_CHECKING:
    from rumus.optim.engine.clip_gradients import Owned


def in_store(segments: Sequence[Segment], grads: GradientStore) -> list[Owned]:
    """Return the existing gradients: as a whole arena if they are in it, else one by one.

    MissingGradientError for a missing one, unless its group is optional.
    """
    found: list[Owned] = []
    for segment in segments:
        arena = segment.arena
        if arena.holds(grads):
            found.append((arena.backend, arena.gradients, list(arena.parameters)))
        else:
            present = [p for p in arena.parameters if not segment.group.optional or p in grads]
            found += [(arena.backend, grads.array(p), [p]) for p in present]
    return found


def collected(segments: Sequence[Segment], grads: GradientStore) -> dict[int, Array]:
    """Return the gradients of segments, flat, by the number of the segment.

    Missing optional ones are left out. Nothing is taken out of the store.

    TypeError for anything but a store, BackendMismatchError for a partly moved group,
    GradientMismatchError for a gradient that does not fit, MissingGradientError for a missing one,
    and DrainedGradientError if a step already used it.
    """
    if not isinstance(grads, GradientStore):
        found_type = type(grads).__name__
        raise TypeError(f"step takes what loss.backward() returned, not {found_type}")
    _check_backends(segments)
    found: dict[int, Array] = {}
    for number, segment in enumerate(segments):
        gradient = _of_segment(segment, grads)
        if gradient is not None:
            found[number] = gradient
    if not found:
        _check_not_drained(segments, grads)
    return found


def _of_segment(segment: Segment, grads: GradientStore) -> Array | None:
    """A segment's gradients as one array, checked; None for an optional one without gradients."""
    arena = segment.arena
    if arena.holds(grads):
        return arena.gradients  # a gradient in its parameter's own slot fits by construction
    for parameter in arena.parameters:
        if segment.group.optional and parameter not in grads:
            return None
        grads.check(parameter)
    return arena.collect(grads)


def _check_backends(segments: Sequence[Segment]) -> None:
    """Refuse a group that was only partly moved to another backend."""
    if len(segments) == 1:
        return  # one arena is on one backend
    for first, second in pairwise(segments):
        if first.group is second.group and first.arena.backend is not second.arena.backend:
            check_one_backend(first.group)
    joint = [segment for segment in segments if segment.joint is not None]
    for why in {segment.joint for segment in joint}:
        own = [segment.arena for segment in joint if segment.joint == why]
        check_together([(p, a.backend) for a in own for p in a.parameters], f"{why}")


def check_together(placed: Sequence[tuple[Parameter, Backend]], why: str) -> None:
    """Raise BackendMismatchError for parameters on several backends with a joint sum.

    why: who sums, and how.
    """
    first, home = placed[0]
    for parameter, backend in placed:
        if backend is not home:
            raise BackendMismatchError(
                f"{why}, but parameter {first.name!r} is on {home} "
                f"and {parameter.name!r} on {backend}: move all of them, or give each backend its "
                "own optimizer"
            )


def _check_not_drained(segments: Sequence[Segment], grads: GradientStore) -> None:
    """Refuse a store that is empty because it was used before.

    Optional parameters need no gradient, but a gradient that was already drained is an error.
    """
    for parameter in (p for segment in segments for p in segment.arena.parameters):
        error = grads.missing(parameter)
        if isinstance(error, DrainedGradientError):
            raise error
