"""The loss scale that an optimizer carries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rumus.optim.wrappers.wrapper import unwrapped

if TYPE_CHECKING:
    from rumus.optim import Optimizer, Scaling


def scaling_of(optimizer: Optimizer[Any]) -> Scaling | None:
    """Return an optimizer's loss scale, if there is one."""
    fused = unwrapped(optimizer)
    found: Scaling | None = getattr(fused, "scaling", None)
    return found
