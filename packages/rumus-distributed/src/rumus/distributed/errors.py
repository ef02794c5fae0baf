"""`RankError`: ends training on one rank because of another."""

from __future__ import annotations


class RankError(RuntimeError):
    """Another rank failed, differs from this one, is elsewhere in the program, or is silent.

    is_silent: waiting for the others is pointless, and the process must be aborted.
    """

    is_silent: bool = False
