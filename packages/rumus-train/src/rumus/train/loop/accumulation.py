"""A step over several batches, equal to one over all their samples.

Batches count by their actual weights, so an epoch's last step, with fewer batches, is right as
well.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rumus.optim import Accumulation
from rumus.tensor import Tensor
from rumus.tensor.graph.assignment import WrittenAhead
from rumus.tensor.graph.means import noting_means
from rumus.tensor.memory.uninterrupted import Uninterrupted, put_back_after
from rumus.train.base.logged import Log, joined, weighted
from rumus.train.capture.captured_steps import LossFunction
from rumus.train.loop.weighing import Weighing

if TYPE_CHECKING:
    from rumus.train.loop.stepper import Counted, Stepper
    from rumus.train.loop.trainer import Trainer


def accumulated_step(
    trainer: Trainer[Any],
    loss_fn: LossFunction,
    window: Iterable[tuple[tuple[Any, ...], float]],
    weighing: Weighing | None = None,
) -> Tensor:
    """Run one step over the batches of a window, each with its weight; return the mean loss.

    weighing: converts the weights, numbers of samples, to the counts that the loss averages over.
    Each batch is released before the next is requested; weight 0 is skipped. Raises like
    `train_step`, and ValueError if all weights are 0 or one is negative.
    """
    with trainer.stepper.whole_step() as counted:
        return _step(trainer.stepper, loss_fn, window, weighing, counted)


def _step(
    stepper: Stepper[Any],
    loss_fn: LossFunction,
    window: Iterable[tuple[tuple[Any, ...], float]],
    weighing: Weighing | None,
    counted: list[Counted],
) -> Tensor:
    """Run the step; return a copy of its loss.

    A captured pass reads buffers in place, so between passes each buffer holds what earlier passes
    assigned.
    """
    accumulation, ahead = Accumulation(), WrittenAhead()
    total, logs = put_back_after(
        lambda: _passes(stepper, loss_fn, window, weighing, accumulation, ahead), ahead.put_back
    )
    if total is None:
        raise ValueError("all batches of a step have weight 0: remove them from the loader")
    weight = accumulation.weight
    noted = stepper.losses.note(total * (1 / weight), joined(logs))
    counted.append((noted, weight))
    with accumulation.gradients() as grads:
        stepper.update(grads, noted)
    return noted


def _passes(
    stepper: Stepper[Any],
    loss_fn: LossFunction,
    window: Iterable[tuple[tuple[Any, ...], float]],
    weighing: Weighing | None,
    accumulation: Accumulation,
    ahead: WrittenAhead,
) -> tuple[Tensor | None, list[tuple[Log, float]]]:
    """Run the passes over all batches; return the weighted sum of their losses, and their logs.

    With each log, which is weighted, comes its weight.
    """
    total: Tensor | None = None
    logs: list[tuple[Log, float]] = []
    for batch, weight in window:
        with noting_means() as means:
            loss, grads = stepper.passes(loss_fn, batch)
        if weighing is not None:
            weight = weighing.weigh_of_step(loss, means, weight)
        stepper.check_claimed(grads)
        stepper.optimizer.gradients(grads)  # raises if one is missing here that others have
        before = len(accumulation.updates)
        accumulation.add(grads, weight)
        with Uninterrupted():
            ahead.write(accumulation.updates[before:])
        if weight > 0:
            total = loss * weight if total is None else total + loss * weight
            logs.append((weighted(stepper.log, weight), weight))
    return total, logs
