"""The loss scale that an optimizer carries, or may carry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rumus.optim import ClosureOptimizer
from rumus.optim.engine.stepped import SteppedOptimizer
from rumus.optim.wrappers.wrapper import unwrapped

if TYPE_CHECKING:
    from rumus.optim import Optimizer, Scaling


def scaling_of(optimizer: Optimizer[Any]) -> Scaling | None:
    """Return an optimizer's loss scale, if there is one."""
    fused = unwrapped(optimizer)
    found: Scaling | None = getattr(fused, "scaling", None)
    return found


def scalable(optimizer: Optimizer[Any]) -> SteppedOptimizer[Any]:
    """Return the optimizer whose update divides by a loss scale; TypeError if there is none."""
    if not isinstance(optimizer, ClosureOptimizer):
        fused = unwrapped(optimizer)
        if isinstance(fused, SteppedOptimizer):
            return fused
    raise TypeError(
        f"{optimizer} takes no loss scale: use a rule-based optimizer whose gradients nothing "
        "else reads"
    )
