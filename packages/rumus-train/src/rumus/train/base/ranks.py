"""`Ranks`: the processes that train together, as seen by data loading."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, Protocol

from rumus.tensor.expression.declared_type import shown
from rumus.train.base.calling import values_of

_parts: list[weakref.ref[Any]] = []  # of the last batch that was divided


def note_part(fields: Sequence[Any]) -> None:
    """Note the fields of one rank's part of a batch, so that no step takes them for all of it."""
    _parts[:] = map(weakref.ref, fields)


def is_part(fields: Sequence[Any]) -> bool:
    """Whether these are of one rank's part of the last batch; a dict's values are fields, too."""
    if not _parts:
        return False
    given = values_of(fields)
    return any(part() is each for part in _parts for each in given if each is not None)


def check_ranks(of: str, ranks: object, *names: str) -> None:
    """Raise TypeError for what is not the processes that train together, such as their number."""
    is_one = not isinstance(ranks, type) and all(
        hasattr(ranks, name) for name in ("rank", "size", *names)
    )
    if not is_one:
        raise TypeError(f"{of}: ranks must be rumus.distributed.ranks(), not {shown(ranks)}")


class Ranks(Protocol):
    """Processes that run the same program, numbered from 0; `rumus.distributed.ranks()` makes them.

    rank: the number of this one. size: the number of processes.
    """

    @property
    def rank(self) -> int:
        """The number of this process."""
        ...

    @property
    def size(self) -> int:
        """The number of processes."""
        ...
