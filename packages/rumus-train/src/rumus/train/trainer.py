"""`Trainer`: one training step in one call, and the mean loss of an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, Generic

from rumus.optim import Optimizer
from rumus.optim.group import M_co
from rumus.tensor import GradientStore, Tensor, UnclaimedGradientError

_LAG: Final = 64  # losses that may be waiting to be read


class Trainer(Generic[M_co]):
    """Runs steps with one optimizer: forward, backward, update.

    >>> from rumus.optim import SGD
    >>> from rumus.tensor import Parameter
    >>> weight = Parameter([4.0], name="weight")
    >>> trainer = Trainer(SGD([weight], 0.25))
    >>> for _ in range(2):
    ...     loss = trainer.train_step(lambda: (weight * weight).sum())
    >>> weight.tolist(), trainer.epoch_avg_loss()
    ([1.0], 10.0)
    """

    def __init__(self, optimizer: Optimizer[M_co]) -> None:
        self.optimizer = optimizer
        self._waiting: list[tuple[Tensor, float]] = []
        self._total = 0.0  # float64: the sum of weight times loss over the epoch
        self._weight = 0.0
        self._is_closed = False

    def train_step(
        self, loss_fn: Callable[..., Tensor], *batch: Any, weight: float = 1.0
    ) -> Tensor:
        """Compute the loss, its gradients and the update; return the loss, without its graph.

        loss_fn: called with `batch`; returns a scalar that depends on the optimizer's parameters,
        and on no others that are trainable. weight: how much this step counts in the mean loss of
        the epoch, as the number of samples where the batches differ in size.

        Raises TypeError if `loss_fn` returns no tensor, ValueError for a weight that is not finite
        and positive, UnclaimedGradientError for gradients that the optimizer does not own, and what
        `backward` and `Optimizer.step` raise; nothing has changed then. A step that raises, or that
        the optimizer skips, does not enter the mean.
        """
        if not 0 < weight < math.inf:
            raise ValueError(f"weight must be finite and positive, not {weight}")
        loss = loss_fn(*batch)
        if not isinstance(loss, Tensor):
            raise TypeError(
                f"the loss function must return the loss as a tensor, not {type(loss).__name__}: "
                "a number has no graph to go back through"
            )
        skipped = self.optimizer.skipped
        with loss.backward() as grads:
            self._check_claimed(grads)
            self.optimizer.step(grads)
        if self.optimizer.skipped == skipped:
            self._note(loss.detach(), weight)
        return loss.detach()

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

    def _note(self, loss: Tensor, weight: float) -> None:
        """Let a loss enter the mean, in a new epoch if the last one was closed."""
        if self._is_closed:
            self.reset_epoch()
        self._waiting.append((loss, weight))
        if len(self._waiting) > _LAG:
            self._read()

    def epoch_avg_loss(self) -> float:
        """Return the mean loss of the epoch's steps, and close the epoch.

        The same value again until the next `train_step`, which opens a new epoch. The losses are
        averaged in float64. ValueError before the first step.
        """
        self._read()
        if self._weight == 0:
            raise ValueError("there is no mean loss before the first train_step of an epoch")
        self._is_closed = True
        return self._total / self._weight

    def reset_epoch(self) -> None:
        """Forget the losses so far: the next step opens a new epoch. Usually done by itself."""
        self._waiting.clear()
        self._total = self._weight = 0.0
        self._is_closed = False

    def _read(self) -> None:
        """Read the losses that are waiting; a device has long computed them by then."""
        for loss, weight in self._waiting:
            self._total += weight * float(loss)
            self._weight += weight
        self._waiting.clear()
