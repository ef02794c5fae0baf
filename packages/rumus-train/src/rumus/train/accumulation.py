"""A step over several batches, as one over all their samples.

g = (w1 g1 + w2 g2 + ...) / (w1 + w2 + ...), with the weights that the batches really have. So an
epoch's last step, which may have fewer batches, is right as well.

`rumus.optim.Accumulation` sums where the first gradients lie. A step that a GPU repeats writes its
gradients there each time, so here the sum has memory of its own, and every pass can be repeated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from rumus.tensor import Backend, Expr, GradientStore, Kernel, ParamId, Tensor
from rumus.tensor.backend import Array
from rumus.tensor.recording import is_capturing

if TYPE_CHECKING:
    from rumus.train.trainer import Trainer

_G, _SUM, _WEIGHT = Expr.array("g"), Expr.array("sum"), Expr.scalar("weight")
_FIRST: Final = Kernel("weigh", {"sum": _WEIGHT * _G}, ("g",))
_FURTHER: Final = Kernel("weigh_and_add", {"sum": _SUM + _WEIGHT * _G}, ("sum", "g"))
_MEAN: Final = Kernel("mean_gradient", {"g": _SUM * Expr.scalar("share")}, ("sum",))


class WeightedSum:
    """The weighted sum of an optimizer's gradients, in memory beside them."""

    def __init__(self) -> None:
        self._sums: dict[tuple[ParamId, ...], tuple[Backend, Array]] = {}
        self.weight = 0.0
        self.loss: Tensor | None = None

    def add(self, trainer: Trainer[Any], grads: GradientStore, loss: Tensor, weight: float) -> None:
        """Add what the optimizer owns in `grads`, and the loss; nothing for a weight of 0."""
        trainer._check_claimed(grads)
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"a batch's weight must be finite and >= 0, not {weight}")
        if weight == 0:
            return
        for backend, gradient, parameters in trainer.optimizer.gradients(grads):
            key = tuple(parameter.id for parameter in parameters)
            _, total = self._sums.get(key, (backend, None))
            if total is None:
                total = backend.allocate(gradient.shape, gradient.dtype)
                self._sums[key] = backend, total
                scalars = _FIRST.bind({"weight": weight})
                backend.elementwise(_FIRST, (gradient,), scalars, (total,))
            else:
                scalars = _FURTHER.bind({"weight": weight})
                backend.elementwise(_FURTHER, (total, gradient), scalars, (total,))
        self.weight += weight
        weighed = loss * weight
        self.loss = weighed if self.loss is None else self.loss + weighed

    def mean(self, trainer: Trainer[Any], grads: GradientStore) -> None:
        """Put the means in the place of the gradients in `grads`.

        A parameter that had a gradient in other batches only gets one here.
        """
        scalars = _MEAN.bind({"share": 1 / self.weight})
        for backend, gradient, parameters in trainer.optimizer.gradients(grads):
            backend, total = self._sums.pop(tuple(parameter.id for parameter in parameters))
            backend.elementwise(_MEAN, (total,), scalars, (gradient,))
        known = {parameter.id: parameter for parameter in trainer.optimizer.parameters}
        for (number,), (backend, total) in self._sums.items():
            backend.elementwise(_MEAN, (total,), scalars, (total,))
            parameter = known[number]  # its arena may be longer than itself
            own = total.reshape(-1)[: parameter.size].reshape(parameter.shape)
            grads.accumulate(parameter, Tensor(own, backend))


def accumulated_step(
    trainer: Trainer[Any],
    loss_fn: Callable[..., Tensor],
    window: Iterable[tuple[tuple[Any, ...], float]],
) -> Tensor:
    """Do one step over the batches of a window, each with its weight; return the mean loss.

    Each batch is forgotten before the next is asked for; one of weight 0 does not count. Raises
    what `train_step` does, and ValueError if all weights are 0.
    """
    total, grads = WeightedSum(), GradientStore()
    for batch, weight in window:
        grads.drain(list(grads), "accumulation")
        loss, grads = trainer._forward_backward(loss_fn, batch)
        total.add(trainer, grads, loss, weight)
    if total.loss is None:
        raise ValueError("all batches of a step have weight 0: leave them out of the loader")
    noted = trainer._losses.note(total.loss * (1 / total.weight))
    total.mean(trainer, grads)
    with grads:
        trainer.optimizer.step(grads)
    trainer._losses.count(noted, total.weight, trainer.optimizer.outcome)
    if is_capturing(noted.backend):
        noted.backend.step_finished()
    return noted
