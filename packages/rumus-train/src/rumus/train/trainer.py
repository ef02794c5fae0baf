"""`Trainer`: one training step in one call, and the mean loss of an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Generic

from rumus.optim import Optimizer
from rumus.optim.group import M_co
from rumus.tensor import GradientStore, Tensor, UnclaimedGradientError
from rumus.tensor.recording import is_capturing
from rumus.train.capture import CapturedSteps, Counts, beside, forward_backward
from rumus.train.losses import Losses


class Trainer(Generic[M_co]):
    """Runs steps with one optimizer: forward, backward, update.

    capture: on a GPU, `train_step(loss_fn, *batch)` runs the first step of a kind as usual, records
    the second, and from then on repeats its commands on new data, without running `loss_fn`. The
    results are the same, bit for bit. A kind of step is the function, what it has closed over, the
    shapes and dtypes of the batch's arrays and its other values; the eight kinds used last are
    kept. Modules that change between training and evaluation, and parameters that move, are
    noticed. Other numbers, which `loss_fn` takes from elsewhere, stay as they were recorded: pass
    them in the batch, as arrays where they change often. `loss_fn` must read nothing from the GPU
    and upload nothing to it, and must decide nothing by itself; a CaptureError says what it did
    otherwise. With capture=False, and for a closure without a batch, the code runs each time.

    >>> from rumus.optim import SGD
    >>> from rumus.tensor import Parameter
    >>> weight = Parameter([4.0], name="weight")
    >>> trainer = Trainer(SGD([weight], 0.25))
    >>> for _ in range(2):
    ...     loss = trainer.train_step(lambda: (weight * weight).sum())
    >>> weight.tolist(), trainer.epoch_avg_loss()
    ([1.0], 10.0)
    """

    def __init__(self, optimizer: Optimizer[M_co], *, capture: bool = True) -> None:
        self.optimizer = optimizer
        self._steps = CapturedSteps() if capture else None
        self._losses = Losses()

    @property
    def counts(self) -> Counts:
        """How many steps with a batch ran plainly, were recorded, and were repeated, on a GPU."""
        return Counts() if self._steps is None else self._steps.counts

    def train_step(
        self, loss_fn: Callable[..., Tensor], *batch: Any, weight: float = 1.0
    ) -> Tensor:
        """Compute the loss, its gradients and the update; return the loss, without its graph.

        loss_fn: called with `batch`, NumPy arrays and tensors of other backends as tensors beside
        the parameters; returns a scalar that depends on the optimizer's parameters, and on no
        others that are trainable. weight: how much this step counts in the mean loss of
        the epoch, as the number of samples where the batches differ in size.

        Raises TypeError if `loss_fn` returns no tensor, ValueError for a weight that is not finite
        and positive, UnclaimedGradientError for gradients that the optimizer does not own, and what
        `backward` and `Optimizer.step` raise; nothing has changed then. A step that raises, or that
        the optimizer skips, does not enter the mean. CaptureError for what a GPU cannot repeat.
        """
        if not 0 < weight < math.inf:
            raise ValueError(f"weight must be finite and positive, not {weight}")
        loss, gradients = self._forward_backward(loss_fn, batch)
        noted = self._losses.note(loss)
        with gradients as grads:
            self._check_claimed(grads)
            self.optimizer.step(grads)
        self._losses.count(noted, weight, self.optimizer.outcome)
        if is_capturing(loss.backend):
            loss.backend.step_finished()
        return noted

    def _forward_backward(
        self, loss_fn: Callable[..., Tensor], batch: Sequence[Any]
    ) -> tuple[Tensor, GradientStore]:
        """Run the passes, captured where a batch is given and the parameters' backend can."""
        named = self.optimizer.groups[0].named if self.optimizer.groups else []
        backend = named[0][1].backend if named else None
        if not batch or backend is None:
            return forward_backward(loss_fn, batch)
        if self._steps is not None and is_capturing(backend):
            return self._steps.run(backend, loss_fn, batch)
        return forward_backward(loss_fn, [beside(value, backend) for value in batch])

    def _check_claimed(self, grads: GradientStore) -> None:
        """Refuse gradients of parameters that the optimizer does not own, before it steps."""
        groups = self.optimizer.groups
        owned = sum(len(group.named) for group in groups)
        if len(grads) == owned and not any(group.optional for group in groups):
            return  # if one is foreign then an own one is missing, and `step` says so
        foreign = [p for p in grads if p.owner is not self.optimizer]
        if foreign:
            raise UnclaimedGradientError(
                f"the loss depends on {', '.join(p.label for p in foreign)}, not owned by "
                f"{self.optimizer}; nothing was updated. Give it to the optimizer, freeze it with "
                "requires_grad = False, or compute with it under no_grad()"
            )

    def epoch_avg_loss(self) -> float:
        """Return the mean loss of the epoch's steps, and close the epoch.

        The same value again until the next `train_step`, which opens a new epoch. The losses are
        averaged in float64. ValueError before the first step.
        """
        self.optimizer.poll(wait=True)
        mean = self._losses.close()
        if mean is None:
            raise ValueError("there is no mean loss before the first train_step of an epoch")
        return mean

    def reset_epoch(self) -> None:
        """Forget the losses so far: the next step opens a new epoch. Usually done by itself."""
        self._losses.clear()
