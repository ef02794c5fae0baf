"""Values for an optimizer's `average=`: averages of its parameters, kept by its update."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import ClassVar, Protocol

from rumus.optim.options.hyperparameter import check
from rumus.optim.options.other_names import AVERAGE
from rumus.tensor import OwnershipError
from rumus.tensor.expression.arguments import checked_arguments, place_arguments


class Averaging(Protocol):
    """An optimizer that can replace its parameters by their average."""

    def eval_params(self) -> AbstractContextManager[None]:
        """Replace the parameters by the average within a block."""
        ...


@AVERAGE.of_instances
class Average(ABC):
    """average = average + weight (p - average), after each step, in the same kernel.

    It belongs to one optimizer, passed as its `average=`, which saves it with its state.
    """

    def __init__(self) -> None:
        self._optimizer: weakref.ref[Averaging] | None = None

    @abstractmethod
    def weight(self, t: int) -> float:
        """Return the weight of the parameters after step `t` (1, 2, ...); 1 for the first.

        t: the number of a step, from 1.
        """

    @abstractmethod
    def has_begun(self, t: int) -> bool:
        """Whether the average exists after step `t`.

        t: the number of a step, from 1.
        """

    def applied(self) -> AbstractContextManager[None]:
        """Replace the parameters by the average within a block, and restore them bit for bit.

        The same as the optimizer's `eval_params`. Raises OwnershipError if no optimizer keeps it.
        """
        optimizer = None if self._optimizer is None else self._optimizer()
        if optimizer is None:
            raise OwnershipError(
                f"no optimizer keeps this {type(self).__name__}: give it to one as average=..."
            )
        return optimizer.eval_params()

    def attach(self, optimizer: Averaging) -> None:
        """Attach it to `optimizer`. Raises OwnershipError if another one keeps it.

        optimizer: the optimizer whose update keeps the average.
        """
        before = None if self._optimizer is None else self._optimizer()
        if before is not None and before is not optimizer:
            raise OwnershipError(
                f"this {type(self).__name__} is already kept by {before}; make another one"
            )
        self._optimizer = weakref.ref(optimizer)

    def detach(self, optimizer: Averaging) -> None:
        """Detach it from `optimizer`.

        optimizer: the optimizer that kept it.
        """
        if self._optimizer is not None and self._optimizer() is optimizer:
            self._optimizer = None


class EMA(Average):
    """An exponential moving average: average = decay average + (1 - decay) p.

    It begins with the parameters after the first step, like torch.optim.swa_utils.

    decay: in [0, 1).
    warmup: use the decay min(decay, (1 + t) / (10 + t)) at step t, to forget early parameters
        quickly.
    unbiased: begin at 0 and divide by 1 - decay^t, as in Adam, for the right weights from the first
        step.

    Raises ValueError for a decay out of range, or for both options.

    >>> from rumus.optim import EMA, SGD
    >>> from rumus.tensor import Parameter
    >>> w, ema = Parameter([1.0]), EMA(decay=0.5)
    >>> optimizer = SGD([w], 0.25, average=ema)
    >>> for _ in range(2):
    ...     optimizer.step((w * w).sum().backward())
    >>> with ema.applied():
    ...     print(w.tolist())
    [0.375]
    >>> w.tolist()
    [0.25]
    """

    _rereads: ClassVar = frozenset({"decay", "warmup", "unbiased"})

    @checked_arguments
    def __init__(
        self, decay: float = 0.999, *, warmup: bool = False, unbiased: bool = False
    ) -> None:
        super().__init__()
        self.decay = check("decay", decay)
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), not {decay}")
        if warmup and unbiased:
            raise ValueError("give warmup or unbiased, not both: each corrects the first steps")
        self.warmup, self.unbiased = warmup, unbiased

    def weight(self, t: int) -> float:
        """Return 1 - decay of step `t`; with `unbiased`, (1 - decay) / (1 - decay^t).

        t: the number of a step, from 1.
        """
        if t == 1:
            return 1.0
        if self.warmup:
            return 1 - min(self.decay, (1 + t) / (10 + t))
        return (1 - self.decay) / (1 - self.decay**t if self.unbiased else 1)

    def has_begun(self, t: int) -> bool:
        """Return whether a step has been done.

        t: the number of a step, from 1.
        """
        return t > 0


@place_arguments
class SWA(Average):
    """Stochastic weight averaging: the mean of the parameters after chosen steps.

    start: the first chosen step.
    every: the period of the chosen steps.

    Raises ValueError for less than 1. Izmailov et al.: arXiv:1803.05407, algorithm 1.

    >>> from rumus.optim import SWA
    >>> [SWA(start=3, every=2).weight(t) for t in range(1, 8)]
    [0.0, 0.0, 1.0, 0.0, 0.5, 0.0, 0.3333333333333333]
    """

    _rereads: ClassVar = frozenset({"start", "every"})

    def __init__(self, start: int = 1, every: int = 1) -> None:
        super().__init__()
        for name, value in (("start", start), ("every", every)):
            if check(name, value) < 1 or value != int(value):
                raise ValueError(f"{name} must be a whole number, 1 or more, not {value!r}")
        self.start, self.every = start, every

    def weight(self, t: int) -> float:
        """Return 1 / n after the n-th chosen step, 0 after any other.

        t: the number of a step, from 1.
        """
        since = t - self.start
        return 0.0 if since < 0 or since % self.every else 1 / (since // self.every + 1)

    def has_begun(self, t: int) -> bool:
        """Return whether step `t` is `start` or later.

        t: the number of a step, from 1.
        """
        return t >= self.start
