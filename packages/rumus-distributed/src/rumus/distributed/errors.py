"""`RankError`: what ends a training on one rank because of another."""

from __future__ import annotations


class RankError(RuntimeError):
    """Another rank has failed, differs from this one, is elsewhere in the program, or is silent.

    is_silent: nobody can wait for the others any more, and the process has to be aborted.
    """

    is_silent: bool = False
