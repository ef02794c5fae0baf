"""`GradientStore`: parameter -> gradient, what `backward` returns and an optimizer drains.

It accumulates, shows, replaces and drains gradients, and nothing else.
"""

from __future__ import annotations

import weakref
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Sequence, ValuesView
from operator import is_
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self

from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.declared_type import shown
from rumus.tensor.expression.dtype import DType, is_floating
from rumus.tensor.expression.errors import (
    DrainedGradientError,
    GradientMismatchError,
    GraphError,
    MissingGradientError,
    UnclaimedGradientError,
)
from rumus.tensor.expression.printable import printable_lines
from rumus.tensor.graph.assignment import take_in
from rumus.tensor.graph.autograd import ACCUMULATE, Node, backward, ones
from rumus.tensor.graph.buffer_update import BufferUpdate, take_loose
from rumus.tensor.graph.other_names import STORE
from rumus.tensor.graph.tensor import Tensor, backend_of
from rumus.tensor.memory.backend import Array, Backend
from rumus.tensor.memory.uninterrupted import Uninterrupted

if TYPE_CHECKING:
    from rumus.tensor.graph.parameter import Parameter, ParamId
    from rumus.tensor.graph.slot import Slot


def _number(parameter: Parameter) -> ParamId:
    """The number of a parameter. TypeError for anything else."""
    try:
        return parameter.id
    except AttributeError:
        raise TypeError(
            "a store has gradients by parameter, as grads[model.weight], not by "
            f"{type(parameter).__name__}"
        ) from None


def _of_tensor(gradient: object) -> tuple[Array, Backend]:
    """The memory of a gradient. TypeError for anything but a tensor."""
    if not isinstance(gradient, Tensor):
        raise TypeError(f"a gradient is a tensor, not {shown(gradient)}")
    return gradient._array, gradient._backend


@STORE.of_instances
class GradientStore:
    """The gradients of one backward pass, or the sum of several.

    As a context manager it checks that all gradients were drained by the end of the block:

    >>> from rumus.tensor import Parameter
    >>> weight = Parameter([3.0], name="weight")
    >>> with (2 * weight).sum().backward() as grads:
    ...     gradient = grads.take(weight)
    >>> gradient.tolist(), weight in grads
    ([2.0], False)
    """

    __slots__ = (
        "__weakref__",
        "_backends",
        "_drained",
        "_gradients",
        "_parameters",
        "_updates",
        "scales",
    )

    def __init__(self) -> None:
        self._gradients: dict[ParamId, Array] = {}
        self._parameters: dict[ParamId, Parameter] = {}
        self._backends: dict[ParamId, Backend] = {}
        self._drained: dict[ParamId, str] = {}
        self._updates: list[BufferUpdate] = []
        self.scales: list[Array | None] = []  # of the losses: `backward(scale=)`

    def __len__(self) -> int:
        return len(self._gradients)

    def __contains__(self, parameter: object) -> bool:
        return getattr(parameter, "id", None) in self._gradients

    def __iter__(self) -> Iterator[Parameter]:
        return iter(list(self._parameters.values()))

    def __repr__(self) -> str:
        names = ", ".join(printable_lines(p.name) or "(unnamed)" for p in self)
        return f"GradientStore({names})"

    def array(self, parameter: Parameter) -> Array:
        """Return a gradient's memory, for code that changes it in place.

        parameter: whose gradient it is.

        MissingGradientError if it is not there, or DrainedGradientError, which names who drained
        it.
        """
        found = self._gradients.get(_number(parameter))
        if found is None:
            raise self.missing(parameter)
        return found

    def holds(self, numbers: Sequence[ParamId], arrays: Sequence[Array]) -> bool:
        """Whether the gradients of the parameters with these numbers are exactly these arrays.

        numbers: of parameters.
        arrays: of gradients.
        """
        return all(map(is_, map(self._gradients.get, numbers), arrays))

    def check(self, parameter: Parameter) -> None:
        """Raise an AutogradError if the gradient of `parameter` is missing or does not fit it.

        parameter: whose gradient it is.
        """
        check_fit(parameter, self.array(parameter), self._backends[parameter.id])

    @checked_arguments
    def missing(self, parameter: Parameter) -> MissingGradientError:
        """Return the error that explains why there is no gradient of `parameter`.

        parameter: whose gradient it is.
        """
        by = self._drained.get(_number(parameter))
        if by is not None:
            return DrainedGradientError(
                f"the gradient of {parameter.label} was already drained from this store by {by}; "
                "each step needs its own backward"
            )
        frozen = ""
        if not parameter.requires_grad:
            frozen = (
                " (its requires_grad is False: freeze it before making the optimizer, or pass it "
                "in a ParameterGroup(..., optional=True), which skips parameters without a "
                "gradient)"
            )
        return MissingGradientError(
            f"{parameter.label} has no gradient in this store: the loss does not depend on it"
            f"{frozen}{self._strangers()}"
        )

    def _strangers(self) -> str:
        """Say which gradients here are of parameters that no optimizer has; '' for none.

        A layer that was put into a model after its optimizer was made has such ones.
        """
        strangers = [f"{p.label} {p.shape}" for p in self if p.owner is None]
        if not strangers:
            return ""
        more = "" if len(strangers) < 4 else f" and {len(strangers) - 3} others"
        return (
            f", but on {', '.join(strangers[:3])}{more}, which no optimizer has. If the model, or "
            "a layer of it, was replaced after the optimizer was made: optimizer.release(), and "
            "make another one with the parameters of now"
        )

    def keys(self) -> KeysView[Parameter]:
        """Return the parameters, as those of a dict: `dict(grads)` and `{**grads}` hold copies."""
        return KeysView(self)

    def values(self) -> ValuesView[Tensor]:
        """Return the gradients, as those of a dict; each time one is asked for it is a copy."""
        return ValuesView(self)

    def items(self) -> ItemsView[Parameter, Tensor]:
        """Return the parameters, each with a copy of its gradient, as those of a dict."""
        return ItemsView(self)

    def __getitem__(self, parameter: Parameter) -> Tensor:
        """Return a copy of a gradient."""
        source = self.array(parameter)
        backend = parameter._backend
        out = backend.allocate(source.shape, source.dtype)
        backend.copy(source, out)
        return Tensor(out, backend)

    def __setitem__(self, parameter: Parameter, gradient: Tensor) -> None:
        """Write a gradient, instead of the one that is there.

        gradient: as in `accumulate`, with its errors.
        """
        if _number(parameter) not in self._gradients:
            self.accumulate(parameter, gradient)
            return
        check_fit(parameter, *_of_tensor(gradient))
        with Uninterrupted():
            parameter._backend.copy(gradient._array, self.array(parameter))

    def __delitem__(self, parameter: Parameter) -> NoReturn:
        """Raise TypeError, which says what removes a gradient."""
        raise TypeError("a gradient is not deleted: grads.take(parameter) removes and returns it")

    def accumulate(self, parameter: Parameter, gradient: Tensor) -> None:
        """Add `gradient` to the stored one, or store a copy if there is none.

        parameter: whose gradient it is.
        gradient: of the parameter's shape, dtype and backend.

        GradientMismatchError for another shape, dtype or backend than the parameter's.
        """
        check_fit(parameter, *_of_tensor(gradient))
        collector = Collector(self)
        collector.add(parameter, gradient._array)
        with Uninterrupted():
            collector.commit()

    def take(self, parameter: Parameter, by: str = "take") -> Tensor:
        """Remove a gradient and return it.

        parameter: whose gradient it is.
        by: who drains it, for error messages.
        """
        gradient = self[parameter]
        self.drain([parameter], by)
        return gradient

    def drain(self, parameters: Iterable[Parameter], by: str) -> None:
        """Remove gradients, recording who did.

        MissingGradientError, with none removed, if one is missing.

        parameters: whose gradients are removed.
        by: who drains it, for error messages.
        """
        wanted = {parameter.id: parameter for parameter in parameters}
        if not self._gradients.keys() >= wanted.keys():
            for parameter in wanted.values():
                self.array(parameter)
        with Uninterrupted():
            for parameter in wanted.values():
                if parameter._slot is not None:
                    parameter._slot.take_back(self)
            self._forget(list(wanted), by)

    def drain_lent(self, numbers: Sequence[ParamId], slots: Sequence[Slot], by: str) -> None:
        """Remove gradients that are in these slots, as checked by `holds`: a faster `drain`.

        numbers: of parameters.
        slots: that hold their gradients.
        by: who drains it, for error messages.
        """
        for slot in slots:
            slot.holder = None
        self._forget(numbers, by)

    def propose(self, updates: Iterable[BufferUpdate]) -> None:
        """Add buffer updates, to be written when the gradients are applied.

        updates: of buffers, written if the step counts.
        """
        self._updates += updates

    def buffers(self) -> list[Tensor]:
        """Return the buffers that the proposed updates would write."""
        return [buffer for update in self._updates for buffer in update.buffers]

    def take_updates(self) -> list[BufferUpdate]:
        """Remove and return the buffer updates, for code that decides when to write them."""
        found, self._updates = self._updates, []
        return found

    def keep_updates(self) -> list[BufferUpdate]:
        """Like `take_updates`, for code that runs other passes before writing them.

        A captured pass reuses its memory each time, so these updates have copies.
        """
        return [update.kept() for update in self.take_updates()]

    def write_updates(self, applied: Array | None = None, backend: Backend | None = None) -> None:
        """Write the updates that forward passes proposed; call it when draining a store.

        applied: the decision about the step, if `backend` makes it; see `Updater`.
        backend: that makes the decision; None if the host does.
        """
        for update in self.take_updates() if self._updates else ():
            update.write(applied if update.backend is backend else None)

    def _forget(self, numbers: Sequence[ParamId], by: str) -> None:
        if self._updates:
            self.write_updates()
        for entries in (self._gradients, self._parameters, self._backends):
            if len(entries) == len(numbers):
                entries.clear()
            else:
                for number in numbers:
                    del entries[number]
        self._drained.update(dict.fromkeys(numbers, by))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if kind is None:
            self.check_empty()

    def check_empty(self) -> None:
        """Raise UnclaimedGradientError, with their names, if gradients are left."""
        if not self._gradients:
            return
        names = ", ".join(repr(p.name or f"(unnamed, {p.shape})") for p in self)
        raise UnclaimedGradientError(
            f"{len(self)} gradients are left that belong to no optimizer: {names}; give these "
            "parameters to an optimizer, freeze them with requires_grad = False, or drain them"
        )


class Refill:
    """The contents that `backward` put into a store, to fill further stores.

    For a replayed step, whose same memory then holds new gradients.
    """

    def __init__(self, store: GradientStore) -> None:
        self._gradients = dict(store._gradients)
        self._parameters = dict(store._parameters)
        self._backends = dict(store._backends)
        self._updates = list(store._updates)
        self._given = weakref.ref(store)  # the last store that has them
        self._layout = [(parameter, parameter._slot) for parameter in store]
        self._lent = [
            slot
            for parameter, slot in self._layout
            if slot is not None and slot.gradient is self._gradients[parameter.id]
        ]

    @property
    def arrays(self) -> list[Array]:
        """The memory of the gradients and of the buffer updates."""
        used = [array for update in self._updates for array in update.arrays]
        return [*self._gradients.values(), *used]

    def is_free(self) -> bool:
        """Whether the layout is unchanged, and no other store holds a gradient in this memory."""
        given = self._given()
        if given is not None and given._gradients:
            return False
        for parameter, slot in self._layout:
            if parameter._slot is not slot:
                return False
        for slot in self._lent:
            if slot.holder is not None and slot.holder() is not None:
                return False
        return True

    def is_like(self, other: Refill) -> bool:
        """Whether both are gradients of the same parameters, with the same buffer updates."""
        pairs = zip(self._updates, other._updates, strict=False)
        return (
            list(self._gradients) == list(other._gradients)
            and len(self._updates) == len(other._updates)
            and all(update.is_like(another) for update, another in pairs)
        )

    def store(self) -> GradientStore:
        """Return a new store with these gradients."""
        store = GradientStore()
        store._gradients = self._gradients.copy()
        store._parameters = self._parameters.copy()
        store._backends = self._backends.copy()
        store._updates = self._updates.copy()
        self._given = weakref.ref(store)
        holder: weakref.ref[object] = weakref.ref(store)
        for slot in self._lent:
            slot.holder = holder
        return store


def check_fit(
    parameter: Parameter, gradient: Array, backend: Backend, dtype: DType | None = None
) -> None:
    """Raise GradientMismatchError if a gradient does not fit its parameter.

    dtype: that it must have; by default the parameter's.
    """
    for what, found, wanted in (
        ("shape", gradient.shape, parameter.shape),
        ("dtype", gradient.dtype, parameter.dtype if dtype is None else dtype),
        ("backend", backend, parameter._backend),
    ):
        if found is not wanted and found != wanted:
            raise GradientMismatchError(
                f"the gradient of {parameter.label} has {what} {found}, the parameter has {wanted}"
            )


class Collector:
    """Gathers the gradients of one backward pass, and stores them once it has succeeded.

    Every gradient in a store has its own memory: the parameter's slot, or a new array.
    """

    def __init__(self, store: GradientStore) -> None:
        self.store = store
        self.given: dict[ParamId, Array] = {}
        self.fresh: dict[ParamId, tuple[Parameter, Array]] = {}

    def destination(self, parameter: Parameter) -> Array | None:
        """Memory for the first gradient of a parameter, None for later ones."""
        if parameter.id in self.given:
            return None
        slot = parameter._slot
        lent = None if slot is None else slot.lend(self.store, parameter in self.store)
        if lent is None:
            lent = parameter._backend.allocate(parameter.shape, parameter.dtype)
        self.given[parameter.id] = lent
        return lent

    def add(self, parameter: Parameter, gradient: Array) -> None:
        """Accept a gradient: the first is kept in its destination, later ones are added to it."""
        backend = parameter._backend
        if parameter.id in self.fresh:
            kept = self.fresh[parameter.id][1]
            backend.elementwise(ACCUMULATE, (kept, gradient), (), (kept,))
            return
        self.destination(parameter)
        kept = self.given[parameter.id]
        if gradient is not kept:
            backend.copy(gradient, kept)
        self.fresh[parameter.id] = (parameter, kept)

    def so_far(self, parameter: Parameter) -> Array | None:
        """The gradient gathered for a parameter, to be added to in place; None if there is none."""
        kept = self.fresh.get(parameter.id)
        return None if kept is None else kept[1]

    def commit(self) -> None:
        """Put the gathered gradients into the store."""
        store = self.store
        for number, (parameter, gradient) in self.fresh.items():
            present = store._gradients.get(number)
            if present is not None:
                backend = parameter._backend
                backend.elementwise(ACCUMULATE, (present, gradient), (), (present,))
                continue
            store._gradients[number] = gradient
            store._parameters[number] = parameter
            store._backends[number] = parameter._backend
            store._drained.pop(number, None)


def gradients_of(
    loss: Tensor, into: GradientStore | None = None, scale: Tensor | None = None
) -> GradientStore:
    """Implement `Tensor.backward`."""
    if loss.shape != () and loss.size != 1:
        raise GraphError(
            f"backward starts at a scalar; this tensor has shape {loss.shape}: take its mean or sum"
        )
    if not is_floating(loss.dtype):
        raise GraphError(f"backward starts at a floating scalar; this one is {loss.dtype}")
    store = GradientStore() if into is None else into
    if not isinstance(store, GradientStore):
        raise TypeError(
            f"backward adds to a GradientStore, given as into=, not to {type(store).__name__}; "
            "what multiplies the gradients is scale="
        )
    edge = loss._edge()
    if edge is None:
        raise GraphError(
            "this tensor does not depend on any parameter: was it made under no_grad() or "
            "detached, or are all parameters frozen?"
        )
    collector = Collector(store)
    seed = _seed(loss, scale)
    if not len(store):
        store.scales.clear()
    updates = take_loose()
    if isinstance(edge, Node):
        updates += backward(edge, seed, collector)
        take_loose()  # a recomputed part has proposed them again
    else:
        collector.add(edge, seed)
    take_in([*store._updates, *updates])
    if into is None:
        collector.commit()
        store.propose(updates)
    else:
        with Uninterrupted():
            collector.commit()
            store.propose(updates)
    store.scales.append(None if scale is None else scale._array)
    return store


def _seed(loss: Tensor, scale: Tensor | None) -> Array:
    """The gradient of the loss with respect to itself, times `scale`, in new memory."""
    if scale is None:
        return ones(loss.shape, loss.dtype, loss._backend)
    backend = backend_of("backward", (loss, scale))
    if scale.size != 1:
        raise GraphError(f"backward: scale must be a single number, not of shape {scale.shape}")
    seed = backend.allocate(loss.shape, loss.dtype)
    backend.copy(scale._array.reshape(loss.shape), seed)
    return seed
