"""Whether saved arrays fit a module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rumus.tensor import StateMismatchError, Tensor


def check_state(
    owner: str, own: Mapping[str, Tensor], state: Mapping[str, ArrayLike]
) -> dict[str, NDArray[Any]]:
    """Return `state` as arrays; StateMismatchError lists every way in which it does not fit."""
    arrays = {name: np.asarray(value) for name, value in state.items()}
    differences = [f"{name}: missing" for name in own if name not in arrays]
    for name, array in arrays.items():
        if name not in own:
            differences.append(f"{name}: unexpected")
            continue
        for what, found, wanted in (
            ("shape", array.shape, own[name].shape),
            ("dtype", array.dtype, own[name].dtype),
        ):
            if found != wanted:
                differences.append(f"{name}: {what} {found} was saved, {wanted} is needed")
    if differences:
        lines = "\n  ".join(differences)
        raise StateMismatchError(f"this state does not fit {owner}; nothing was loaded:\n  {lines}")
    return arrays
