"""`Accumulation`: one step from the gradients of several micro-batches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from rumus.optim.optimizer import Optimizer
from rumus.tensor import (
    Backend,
    Expr,
    GradientStore,
    Kernel,
    MissingGradientError,
    Parameter,
    Tensor,
)
from rumus.tensor.backend import Array

_BY: Final = "an Accumulation"
_G, _WEIGHT = Expr.array("g"), Expr.scalar("weight")
_WEIGH = Kernel("weigh", {"g": _G * _WEIGHT})
_ADD = Kernel("add_weighted", {"sum": Expr.array("sum") + _G * _WEIGHT}, ("sum", "g"))


class Accumulation:
    """The mean of gradients, each weighted by the samples or tokens that its loss is a mean of.

    (weight_1 g_1 + ... + weight_k g_k) / (weight_1 + ... + weight_k), divided once: up to rounding
    the gradient of one batch with all of them, also where the last micro-batch is smaller.

    Meanwhile the gradients lie in the memory from which the optimizer steps. On a GPU nothing is
    read. A parameter that only some losses depend on counts as 0 in the others.

    >>> from rumus.optim import SGD
    >>> from rumus.tensor import tensor
    >>> w = Parameter([1.0])
    >>> optimizer, accumulation = SGD([w], 1.0), Accumulation()
    >>> for batch in ([1.0, 2.0, 3.0], [6.0]):
    ...     loss = (w * tensor(batch)).mean()
    ...     accumulation.add(loss.backward(), weight=len(batch))
    >>> optimizer.step(accumulation.gradients())
    >>> w.tolist()  # 1 - (1 + 2 + 3 + 6) / 4
    [-2.0]
    """

    def __init__(self) -> None:
        self._sum = GradientStore()
        self.weight = 0.0  # of all that was added since the last `gradients()`
        self.count = 0  # of what was added with a weight above 0

    def add(self, grads: GradientStore, weight: float = 1.0, *, summed: bool = False) -> None:
        """Take all gradients out of `grads`, and add them.

        weight: how many samples or tokens the loss is the mean of, >= 0; with `summed` the sum of.
        With a weight of 0 the gradients are dropped: a mean of nothing is NaN.

        ValueError for another weight, MissingGradientError for a store that is empty,
        GradientMismatchError for a gradient that does not fit. Nothing has changed then.
        """
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"weight must be finite and >= 0, not {weight}")
        if not len(grads):
            raise MissingGradientError(
                "this store has no gradients: a step or an accumulation has taken them, or the "
                "loss depends on nothing that is trained"
            )
        for parameter in grads:
            grads.check(parameter)
            if parameter in self._sum:
                self._sum.check(parameter)
        if weight == 0:
            grads.drain(list(grads), _BY)
            return
        self._include(grads, 1.0 if summed else weight)
        self.weight += weight
        self.count += 1

    def _include(self, grads: GradientStore, factor: float) -> None:
        if not len(self._sum):
            self._sum = grads.hand_over(_BY)
            _scale(self._sum, factor)
            return
        scalars = _ADD.bind({"weight": factor})  # those of `_WEIGH` as well
        for parameter in grads:
            backend, gradient = parameter._backend, grads.array(parameter)
            if parameter in self._sum:
                total = self._sum.array(parameter)
                backend.elementwise(_ADD, (total, gradient), scalars, (total,))
            else:
                backend.elementwise(
                    _WEIGH, (gradient,), _WEIGH.bind({"weight": factor}), (gradient,)
                )
                self._sum.accumulate(parameter, Tensor(gradient, backend))
        grads.drain(list(grads), _BY)

    def gradients(self) -> GradientStore:
        """Return the weighted mean, for a step; what is added next begins anew.

        MissingGradientError if nothing was added with a weight above 0.
        """
        if not self.count:
            raise MissingGradientError(
                "nothing was accumulated, or only with a weight of 0: leave this step out"
            )
        found, self._sum = self._sum, GradientStore()
        _scale(found, 1 / self.weight)
        self.weight, self.count = 0.0, 0
        return found


def _scale(grads: GradientStore, factor: float) -> None:
    if factor == 1:
        return
    scalars = _WEIGH.bind({"weight": factor})
    for backend, array in _arrays(grads):
        backend.elementwise(_WEIGH, (array,), scalars, (array,))


def _arrays(grads: GradientStore) -> Iterator[tuple[Backend, Array]]:
    """The gradients, whole arenas at once where they lie in them."""
    left: dict[int, Parameter] = {p.id: p for p in grads}
    owners = {id(owner): owner for p in grads if isinstance(owner := p.owner, Optimizer)}
    for owner in owners.values():
        try:
            found = owner.gradients(grads)
        except MissingGradientError:  # of another parameter of this owner
            continue
        for backend, array, parameters in found:
            yield backend, array
            for parameter in parameters:
                del left[parameter.id]
    for parameter in left.values():
        yield parameter._backend, grads.array(parameter)
