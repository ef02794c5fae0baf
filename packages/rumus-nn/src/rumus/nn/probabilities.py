"""Probabilities as targets and predictions of losses: numbers of [0, 1]."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.nn.reduction import is_readable
from rumus.tensor import Tensor
from rumus.tensor.memory.recording import ask_host

_ROUNDING: Final = 8  # steps of the dtype above 1 that a mixture of probabilities may round to


def check_probabilities(
    loss: str, what: str, given: Tensor, told: str = "targets are probabilities, not -1 and 1"
) -> None:
    """Raise ValueError for a number outside [0, 1], with its index, unless it is on a device.

    loss, what: the names of the loss and of one of the numbers, in the message. told: its end.
    """
    if is_readable(given):
        ask_host(partial(_check, loss, what, told), [given._array])


def _check(loss: str, what: str, told: str, values: NDArray[Any]) -> None:
    most = 1.0
    if values.dtype.kind == "f":
        most += _ROUNDING * float(np.finfo(values.dtype).eps)
    if values.size and not (values.min() >= 0 and values.max() <= most):
        where = tuple(np.argwhere(~((values >= 0) & (values <= most)))[0].tolist())
        raise ValueError(
            f"{loss}: {what} {values[where]} at index {where} is outside [0, 1]; {told}"
        )
