"""Values of an optimizer's last step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rumus.optim import FusedOptimizer, MultiOptimizer, Optimizer
from rumus.optim.options.hyperparameter import at_step
from rumus.optim.wrappers.wrapper import unwrapped
from rumus.tensor import Tensor
from rumus.tensor.expression.kinds import is_a
from rumus.train.base.scaling import scaling_of


def learning_rate(optimizer: Optimizer[Any]) -> float | None:
    """Return the first group's learning rate at the last step, or None.

    If the optimizer combines several, the first one counts. A step whose outcome the device has not
    reported yet counts as applied.
    """
    fused: Any = unwrapped(optimizer)
    if is_a(fused, MultiOptimizer):
        fused = fused.optimizers[0]
    if not is_a(fused, FusedOptimizer) or not fused.groups:
        return None
    rate = fused.groups[0].one_over(fused.hyper, "lr")
    if not callable(rate):
        return rate  # type: ignore[no-any-return]
    return at_step("lr", rate, max(1, fused.steps_so_far))


def gradient_norm(optimizer: Optimizer[Any]) -> Tensor | None:
    """Return the unread joint 2-norm of the last step's gradients, or None.

    They are in the optimizer's memory until the next backward pass.
    """
    arenas = [segment.arena for segment in getattr(unwrapped(optimizer), "segments", ())]
    return norm_of(optimizer, [(arena.backend, arena.gradients) for arena in arenas])


def norm_of(optimizer: Optimizer[Any], gradients: Iterable[tuple[Any, ...]]) -> Tensor | None:
    """Return the unread joint 2-norm of gradients without the optimizer's loss scale, or None.

    gradients: a backend and an array on it, each.
    """
    total: Tensor | None = None
    for backend, array, *_ in gradients:
        part = Tensor(backend.sum_of_squares(array), backend)
        total = part if total is None else total + part.to(total.backend)
    scaling = scaling_of(unwrapped(optimizer))
    if total is None or scaling is None:
        return None if total is None else total.sqrt()
    return scaling.unscaled(total.sqrt())
