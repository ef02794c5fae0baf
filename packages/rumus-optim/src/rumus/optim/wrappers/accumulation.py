"""`Accumulation`: one step from the gradients of several micro-batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from rumus.optim.engine.optimizer import Optimizer
from rumus.optim.options.hyperparameter import LARGEST
from rumus.optim.options.other_names import ACCUMULATION
from rumus.tensor import (
    Backend,
    DType,
    Expr,
    GradientStore,
    Kernel,
    MissingGradientError,
    Parameter,
    ParamId,
    float16,
    float32,
)
from rumus.tensor.expression.real_number import real_number
from rumus.tensor.graph.assignment import hold
from rumus.tensor.graph.buffer_update import BufferUpdate
from rumus.tensor.graph.store import Collector, check_fit
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.uninterrupted import Uninterrupted

_BY: Final = "an Accumulation"
_G, _SUM, _WEIGHT = Expr.array("g"), Expr.array("sum"), Expr.scalar("weight")
_WEIGH: Final = Kernel("weigh", {"sum": _G * _WEIGHT}, ("g",))
_ADD: Final = Kernel("weigh_and_add", {"sum": _SUM + _G * _WEIGHT}, ("sum", "g"))
_JOIN: Final = Kernel("add", {"sum": _SUM + _G}, ("sum", "g"))


@dataclass(frozen=True, slots=True)
class _Sum:
    """The sum of one parameter's gradients: often part of an array shared by many."""

    parameter: Parameter
    backend: Backend
    array: Array

    def check(self) -> None:
        """Raise GradientMismatchError if it no longer fits its parameter."""
        check_fit(self.parameter, self.array, self.backend, _dtype_of_sum(self.parameter.dtype))


@ACCUMULATION.of_instances
class Accumulation:
    """The mean of gradients, each weighted by the number of samples or tokens its loss averages.

    (weight_1 g_1 + ... + weight_k g_k) / (weight_1 + ... + weight_k), divided once:
    up to rounding, the gradient of one batch with all samples, even if the last micro-batch is
    smaller.

    The sum has its own memory, so that a pass replayed by a GPU finds the gradients' memory free;
    sums of float16 are float32. The mean is written to the memory that the optimizer steps from. On
    a GPU nothing is read. A parameter that only some losses depend on has gradient 0 in the others.

    >>> from rumus.optim import SGD, Accumulation
    >>> from rumus.tensor import Parameter, tensor
    >>> w = Parameter([1.0])
    >>> optimizer, accumulation = SGD([w], 1.0), Accumulation()
    >>> for batch in ([1.0, 2.0, 3.0], [6.0]):
    ...     loss = (w * tensor(batch)).mean()
    ...     accumulation.add(loss.backward(), weight=len(batch))
    >>> optimizer.step(accumulation.gradients())
    >>> w.tolist()  # 1 - (1 + 2 + 3 + 6) / 4
    [-2.0]
    """

    _rereads: ClassVar = frozenset({"weight"})  # set if sums were added up elsewhere, as over ranks

    def __init__(self) -> None:
        self._sums: dict[ParamId, _Sum] = {}
        self._whole: dict[tuple[ParamId, ...], Array] = {}  # arrays of adjacent parameters
        self._updates: list[BufferUpdate] = []  # in the order of the passes
        self._scales: list[Array | None] = []  # of the losses
        self.weight = 0.0  # the total since the last `gradients()`, which divides by it
        self.count = 0  # calls of `add` with a weight above 0

    def add(self, grads: GradientStore, weight: float = 1.0, *, summed: bool = False) -> None:
        """Drain `grads` and add its gradients.

        grads: the result of `backward`.
        weight: the number of samples or tokens that the loss averages (with `summed`, sums), >= 0.
            With a weight of 0 the gradients are dropped: a mean of nothing is NaN.
        summed: the loss is a sum, not a mean.

        Raises ValueError for another weight, MissingGradientError for an empty store,
        GradientMismatchError for a gradient that does not fit. Nothing has changed then.
        """
        given: Any = grads
        if not isinstance(given, GradientStore):
            raise TypeError(
                f"Accumulation.add takes what loss.backward() returned, not {type(given).__name__}"
            )
        if not 0 <= real_number("weight", weight) <= LARGEST:
            raise ValueError(f"weight must be from 0 to {LARGEST:.4g}, not {weight}")
        if not len(grads):
            raise MissingGradientError(
                "this store has no gradients: a step or an accumulation has taken them, or the "
                "loss does not depend on any trainable parameter"
            )
        for parameter in grads:
            grads.check(parameter)
            if (known := self._sums.get(parameter.id)) is not None:
                known.check()
        with Uninterrupted():
            if weight > 0:
                self._include(grads, 1.0 if summed else weight)
                self.weight += weight
                self.count += 1
                updates = grads.keep_updates()
                hold(updates)
                self._updates += updates
                self._scales += grads.scales
            grads.take_updates()
            grads.drain(list(grads), _BY)

    def _include(self, grads: GradientStore, factor: float) -> None:
        for backend, gradient, parameters in _arrays(grads):
            whole = self._whole.get(tuple([p.id for p in parameters]))
            if whole is not None and whole.shape == gradient.shape:
                _add(backend, whole, gradient, factor)
            elif not any(p.id in self._sums for p in parameters):
                self._begin(backend, gradient, parameters, factor)
            else:
                for p in parameters:
                    if p.id in self._sums:
                        _add(backend, self._sums[p.id].array, grads.array(p), factor)
                    else:
                        self._begin(backend, grads.array(p), [p], factor)

    def _begin(
        self, backend: Backend, gradient: Array, parameters: Sequence[Parameter], factor: float
    ) -> None:
        whole = backend.allocate(gradient.shape, _dtype_of_sum(gradient.dtype))
        backend.elementwise(_WEIGH, (gradient,), _WEIGH.bind({"weight": factor}), (whole,))
        self._whole[tuple([p.id for p in parameters])] = whole
        flat = whole.reshape(-1)
        for p in parameters:
            start = p._slot.start if p._slot is not None and len(parameters) > 1 else 0
            part = flat[start : start + p.size].reshape(p.shape)
            self._sums[p.id] = _Sum(p, backend, part)

    def merge(self, other: Accumulation) -> None:
        """Add the sums of another accumulation, and empty it.

        Each element is one addition, so the result depends only on the order of merging. Updates of
        buffers are appended to those already here.

        other: the accumulation to add; empty afterwards.
        """
        with Uninterrupted():
            for parameters, whole in other._whole.items():
                parts = [other._sums[number] for number in parameters]
                mine = self._whole.get(parameters)
                if mine is not None and mine.shape == whole.shape:
                    _join(parts[0].backend, mine, whole)
                    continue
                is_new = not any(number in self._sums for number in parameters)
                if is_new:
                    self._whole[parameters] = whole
                for part in parts:
                    known = self._sums.setdefault(part.parameter.id, part)
                    if known is not part:
                        _join(part.backend, known.array, part.array)
                    elif not is_new:
                        self._whole[part.parameter.id,] = part.array
            self._updates += other._updates
            self._scales += other._scales
            self.weight, self.count = self.weight + other.weight, self.count + other.count
            other._forget()

    @property
    def updates(self) -> Sequence[BufferUpdate]:
        """The buffer updates of the passes, in order."""
        return self._updates

    @property
    def parameters(self) -> list[Parameter]:
        """The parameters with gradients added."""
        return [known.parameter for known in self._sums.values()]

    def sums(self) -> list[tuple[Backend, Array]]:
        """Return the sums so far, to be changed in place: each array covers many parameters.

        They are weighted sums, not yet divided, in the order in which their first parameters were
        made.
        """
        return [(self._sums[first].backend, self._whole[first, *others])
                for first, *others in sorted(self._whole)]  # fmt: skip

    @property
    def layout(self) -> list[tuple[ParamId, ...]]:
        """Return the parameters of each array of `sums()`."""
        return sorted(self._whole)

    def lay_out_apart(self) -> None:
        """Use one array per parameter, in the same memory; this changes the arrays of `sums()`.

        For sums that are merged with others of unknown layout.
        """
        self._whole = {(number,): known.array for number, known in self._sums.items()}

    def _forget(self) -> None:
        self._sums, self._whole, self._updates, self._scales = {}, {}, [], []
        self.weight, self.count = 0.0, 0

    def gradients(self) -> GradientStore:
        """Return the weighted mean, for a step, and start afresh.

        Raises MissingGradientError if nothing was added with a weight above 0,
        GradientMismatchError for a parameter that has moved since.
        """
        if not self.count:
            raise MissingGradientError(
                "nothing was accumulated, or only with a weight of 0: skip this step"
            )
        found = GradientStore()
        collector = Collector(found)
        for known in self._sums.values():
            known.check()
        for number, known in self._sums.items():
            collector.destination(known.parameter)
            collector.fresh[number] = known.parameter, collector.given[number]
        collector.commit()
        scalars = _WEIGH.bind({"weight": 1 / self.weight})
        for backend, gradient, parameters in _arrays(found):
            whole = self._whole.get(tuple([p.id for p in parameters]))
            pairs = [(whole, gradient)]
            if whole is None or whole.shape != gradient.shape:
                pairs = [(self._sums[p.id].array, found.array(p)) for p in parameters]
            for total, mean in pairs:
                backend.elementwise(_WEIGH, (total,), scalars, (mean,))
        with Uninterrupted():
            found.propose(self._updates)
            found.scales += self._scales
            self._forget()
        return found


def _dtype_of_sum(dtype: DType) -> DType:
    """Weighted sums of float16 would overflow where their mean does not."""
    return float32 if dtype == float16 else dtype


def _add(backend: Backend, total: Array, gradient: Array, factor: float) -> None:
    backend.elementwise(_ADD, (total, gradient), _ADD.bind({"weight": factor}), (total,))


def _join(backend: Backend, total: Array, more: Array) -> None:
    backend.elementwise(_JOIN, (total, more), (), (total,))


def _arrays(grads: GradientStore) -> Iterator[tuple[Backend, Array, list[Parameter]]]:
    """The gradients, as whole arenas where possible."""
    left: dict[int, Parameter] = {p.id: p for p in grads}
    owners = {id(owner): owner for p in grads if isinstance(owner := p.owner, Optimizer)}
    for owner in owners.values():
        try:
            found = owner.gradients(grads)
        except MissingGradientError:  # of another parameter of this owner
            continue
        for backend, array, parameters in found:
            yield backend, array, parameters
            for parameter in parameters:
                del left[parameter.id]
    for parameter in left.values():
        yield parameter._backend, grads.array(parameter), [parameter]
