"""`NonFiniteLossError`: a loss that the gradients of its step do not show to be bad."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rumus.optim import Optimizer
from rumus.tensor.expression.printable import PrintableError
from rumus.train.base.scaling import scaling_of

if TYPE_CHECKING:
    from rumus.train.loop.trainer import Trainer


class NonFiniteLossError(PrintableError, ArithmeticError):
    """A loss is NaN or infinite although the gradients of its step are finite."""


def check_loss(loss: float, what: str, epoch: int, optimizer: Optimizer[Any]) -> None:
    """Raise NonFiniteLossError, unless the optimizer has skipped the step or lets it pass.

    what: the loss, for the message. epoch: for the message.
    """
    unchecked = getattr(optimizer, "nonfinite", "raise") == "propagate"
    if not (math.isfinite(loss) or unchecked or optimizer.outcome.applied is False):
        raise NonFiniteLossError(
            f"{what} (epoch {epoch}) is {loss}, although its gradients are finite: a constant in "
            "it, or a part that does not depend on a parameter, is not finite"
        )


def checked_mean_loss(trainer: Trainer[Any], epoch: int, *, may_lack: bool) -> float:
    """Return the mean loss of an epoch, and close it.

    epoch: for messages.
    may_lack: whether steps are skipped or undone on purpose: without any left, the mean is NaN.

    Raises NonFiniteLossError.
    """
    optimizer = trainer.optimizer
    try:
        loss = trainer.epoch_avg_loss()
    except ValueError:
        if may_lack or scaling_of(optimizer) is not None:
            return math.nan
        raise NonFiniteLossError(f"no step of epoch {epoch} was applied") from None
    check_loss(loss, "the mean loss", epoch, optimizer)
    return loss
