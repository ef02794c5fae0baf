"""`checkpoint`: recomputes activations instead of keeping them."""

from __future__ import annotations

import weakref
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rumus.nn.module import Module
from rumus.tensor import Generator, GraphError, Tensor
from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.declared_type import shown
from rumus.tensor.graph.assignment import State, again, state_now
from rumus.tensor.graph.autograd import (
    ACCUMULATE,
    Node,
    backward,
    is_recording,
    leaves,
    updates_of,
)
from rumus.tensor.graph.tensor import result_of
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.recording import live
from rumus.tensor.operations.draws import Draws, Moved, Place, places_of_program


@checked_arguments
def checkpoint(
    function: Callable[..., Tensor], *inputs: Tensor, generators: Sequence[Generator] = ()
) -> Tensor:
    """function(*inputs), keeping only the inputs for `backward`.

    `backward` calls the function again, with bit for bit the same result. So a deep model holds the
    activations of only one part at a time, at the cost of one more forward pass. Chen et al.:
    arXiv:1604.06174. Generators used by the function are rewound for the second call.

    function: a module, or a function of tensors, that computes the same each time.
    inputs: its tensors.
    generators: others that it uses, which are neither its own nor in its closure.

    TypeError for a result that is not one tensor; GraphError in the backward pass if the function
    computes something else the second time (on a GPU only the shape is compared, but GraphError in
    the forward pass if it draws from the generator of `random`, `numpy.random` or PyTorch).

    >>> from rumus.nn import Linear, checkpoint
    >>> from rumus.tensor import Generator, ones
    >>> layer = Linear(3, 2, generator=Generator(0))
    >>> grads = checkpoint(layer, ones((4, 3))).sum().backward()
    >>> grads[layer.bias].tolist()
    [4.0, 4.0]
    """
    if isinstance(function, Module):
        generators = [*generators, *(generator for _, generator in function.named_generators())]
    generators = list(generators)
    for given in generators:
        if not isinstance(given, Generator):
            raise TypeError(f"checkpoint: generators must be Generators, not {shown(given)}")
    if not is_recording():
        return _checked(function(*inputs))
    positions = _Positions(generators)
    first, before = _Call(function, inputs, positions), state_now()
    is_ahead = any(each.backend.runs_ahead for each in inputs)  # then no results are compared
    places = places_of_program() if is_ahead else ()
    result = first.run()
    if is_ahead and places_of_program() != places:
        raise GraphError(
            "checkpoint: the function draws from the generator of random, numpy.random or torch, "
            "which is not rewound for the second call; draw from a rumus.tensor.Generator"
        )
    if result._node is None:
        return result
    parameters = leaves(result._node)
    repeated = _Call(function, inputs, _Positions(like=positions), _mark_of(result), before)
    sources = [*inputs, *parameters]

    def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array | None]:
        given = dict(zip((id(p) for p in parameters), destinations[len(inputs) :], strict=True))
        return repeated.gradients(gradient, parameters, given)

    proposed = updates_of(result._node)
    found = result_of("checkpoint", result._array, result.backend, sources, vjp, saved=inputs)
    if found._node is not None:
        found._node.updates = tuple(proposed)  # by the first call only
    return found


def _mark_of(result: Tensor) -> int | None:
    """A checksum of a result on the host; None on a device, which is not read."""
    if result.backend.runs_ahead:
        return None
    return zlib.crc32(np.ascontiguousarray(result._array).data)


def _checked(result: Any) -> Tensor:
    if not isinstance(result, Tensor):
        raise TypeError(f"checkpoint: the function must return a tensor, not {result!r}")
    return result


class _Positions:
    """The generators' positions before a call. It holds no tensors, since a recording keeps it.

    Nor does it hold a generator that the call makes, whose stream the repeated call gets again.
    """

    def __init__(self, generators: Sequence[Moved] = (), like: _Positions | None = None) -> None:
        self.known = list(generators)
        own = [weakref.ref(moved) for moved in generators]
        self.used: list[weakref.ref[Moved]] = own if like is None else like.used
        self.like = like
        self.before: list[tuple[weakref.ref[Moved], Place]] = []

    def note(self) -> None:
        """Before the call: note the positions, and rewind to those of the original call."""
        self.before = [(each, moved.place) for each in self.used if (moved := each()) is not None]
        if self.like is not None:
            self._restore(self.like.before)

    def find(self, draws: Draws) -> None:
        """Add the generators that have drawn."""
        for moved, place in draws.before:
            if weakref.ref(moved) not in self.used:
                self.used.append(weakref.ref(moved))
                self.before.append((weakref.ref(moved), place))
        self.known += draws.kept

    def leave(self) -> None:
        """After the call: undo the draws of a repeated call."""
        if self.like is not None:
            self._restore(self.before)

    def _restore(self, places: Sequence[tuple[weakref.ref[Moved], Place]]) -> None:
        for each, place in places:
            if (moved := each()) is not None:
                moved.place = place


class _Call:
    """One call of the function, with inputs that end its graph."""

    def __init__(
        self,
        function: Callable[..., Tensor],
        inputs: Sequence[Tensor],
        positions: _Positions,
        wanted: int | None = None,
        before: State | None = None,
    ) -> None:
        self.function = function
        self.wanted = wanted  # the mark of the previous call's result
        self.before = before  # what buffers held then, if this is to be the same call
        self.inputs = inputs
        self.positions = positions
        self.shares: list[Array | None] = [None] * len(inputs)

    def run(self) -> Tensor:
        """Call the function."""
        live(self.positions.note)
        draws = Draws()
        with draws.watched():
            result = _checked(self._called())
        self.positions.find(draws)
        live(self.positions.leave)
        return result

    def _called(self) -> Any:
        ends = [self._end(number, given) for number, given in enumerate(self.inputs)]
        if self.before is None:
            return self.function(*ends)
        return again(self.before, lambda: self.function(*ends))

    def _end(self, number: int, given: Tensor) -> Tensor:
        """The same elements, with a node that keeps the gradient that reaches it."""
        end = given.detach()
        if given.requires_grad:

            def keep(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array]:
                self.shares[number] = gradient
                return ()

            end._node = Node("input of checkpoint", given.backend, (), keep, ())
        return end

    def gradients(
        self, gradient: Array, parameters: Sequence[Any], given: dict[int, Array | None]
    ) -> list[Array | None]:
        """Run forward and backward: the gradients of the inputs, then of the parameters."""
        result = self.run()
        sink = _Sink(given)
        node = result._node
        if node is None or result.shape != gradient.shape:
            raise GraphError("checkpoint: the function did a different computation the second time")
        if _mark_of(result) != self.wanted:
            raise GraphError(
                "checkpoint: the function computed different numbers the second time: its inputs "
                "have changed, or it draws from a NumPy or Python generator, which is not "
                "rewound; draw from a rumus.tensor.Generator"
            )
        del result  # its elements are no longer needed
        backward(node, gradient, sink)
        return [*self.shares, *(sink.found.get(id(p)) for p in parameters)]


class _Sink:
    """Gradients by parameter, in the memory provided by the outer backward pass."""

    def __init__(self, given: dict[int, Array | None]) -> None:
        self.given = given
        self.found: dict[int, Array] = {}

    def destination(self, leaf: Any) -> Array | None:
        """Memory for the first gradient of a parameter; see `Sink`."""
        return self.given.pop(id(leaf), None)

    def so_far(self, leaf: Any) -> Array | None:
        """None, since the gathered gradients may not be our own memory; see `Sink`."""
        return None

    def add(self, leaf: Any, gradient: Array) -> None:
        """Accept a gradient; see `Sink`."""
        kept = self.found.get(id(leaf))
        if kept is None:
            self.found[id(leaf)] = gradient
            return
        backend = leaf.backend
        total = backend.allocate(kept.shape, kept.dtype)
        backend.copy(kept, total)
        backend.elementwise(ACCUMULATE, (total, gradient), (), (total,))
        self.found[id(leaf)] = total
