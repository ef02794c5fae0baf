"""Probabilities as targets and predictions of losses: numbers of [0, 1]."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.nn.reduction import is_readable
from rumus.tensor import Tensor
from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.memory.recording import ask_host

_ROUNDING: Final = 8  # steps of the dtype above 1 that a mixture of probabilities may round to
_SHARES: Final = 0.01  # that probabilities of low precision may add up to beyond 1


def check_probabilities(
    loss: str, what: str, given: Tensor, told: str = "targets are probabilities, not -1 and 1"
) -> None:
    """Raise ValueError for a number outside [0, 1], with its index, unless it is on a device.

    loss, what: the names of the loss and of one of the numbers, in the message. told: its end.
    """
    if is_readable(given):
        ask_host(partial(_check, loss, what, told), [given._array])


def check_counts(loss: str, what: str, given: Tensor) -> None:
    """Raise ValueError for a negative number, with its index, unless it is on a device.

    loss: its name, in the message.
    what: the name of the numbers, in the message.
    given: the numbers.
    """
    if is_readable(given):
        ask_host(partial(_check_counts, loss, what), [given._array])


def warn_of_several_classes(loss: str, given: Tensor, axis: int) -> None:
    """Warn of probabilities of exclusive classes that add up to more than 1.

    Less is a target that counts less, or does not.

    loss: its name, in the message.
    given: the probabilities.
    axis: of the classes.
    """
    if is_readable(given):
        ask_host(partial(_look_for_several, loss, axis), [given._array])


def _check_counts(loss: str, what: str, values: NDArray[Any]) -> None:
    if values.size and values.min() < 0:
        where = tuple(np.argwhere(values < 0)[0].tolist())
        raise ValueError(
            f"{loss}: {what} {values[where]} at index {where} is negative; it must be a count"
        )


def _look_for_several(loss: str, axis: int, values: NDArray[Any]) -> None:
    sums = values.sum(axis, dtype=np.float32)
    if sums.size and (most := float(sums.max())) > 1 + _SHARES:
        warn_user(
            f"{loss}: the targets of a sample add up to {most:.6g}, but are the probabilities of "
            "classes of which it has one: binary_cross_entropy_with_logits takes several at once"
        )


def _check(loss: str, what: str, told: str, values: NDArray[Any]) -> None:
    most = 1.0
    if values.dtype.kind == "f":
        most += _ROUNDING * float(np.finfo(values.dtype).eps)
    if values.size and not (values.min() >= 0 and values.max() <= most):
        where = tuple(np.argwhere(~((values >= 0) & (values <= most)))[0].tolist())
        raise ValueError(
            f"{loss}: {what} {values[where]} at index {where} is outside [0, 1]; {told}"
        )
