"""`processors`: the number of processors this process may use."""

from __future__ import annotations

import os
from collections.abc import Callable


def processors() -> int:
    """Return the number available: a job may be restricted to a few.

    >>> processors() >= 1
    True
    """
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
