"""Lengths of the sequences in a padded batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rumus.tensor import Tensor

Lengths: TypeAlias = "Tensor | NDArray[Any] | Sequence[int]"


def check_lengths(name: str, what: str, lengths: NDArray[Any], least: int, most: int) -> None:
    """Raise ValueError for the first length outside [least, most], with its position."""
    bad = np.flatnonzero((lengths < least) | (lengths > most))
    if len(bad):
        raise ValueError(
            f"{name}: {what}[{bad[0]}] is {lengths[bad[0]]}, which is outside [{least}, {most}]"
        )
