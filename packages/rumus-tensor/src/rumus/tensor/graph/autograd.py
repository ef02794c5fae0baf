"""Reverse-mode differentiation: a tape of nodes, walked once, without recursion.

A node knows the nodes and parameters it was computed from, and one function, `vjp`, that turns the
gradient of its result into gradients of these. `backward` visits nodes in reverse order of
creation, which is a topological order, and frees each as soon as it is done.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import update_wrapper
from typing import Any, Generic, NoReturn, Protocol, TypeAlias, TypeVar

import numpy as np

from rumus.tensor.expression.errors import GraphError, ModifiedTensorError
from rumus.tensor.expression.expr import Expr
from rumus.tensor.expression.kernel import Kernel
from rumus.tensor.memory.backend import Array, Backend, Epilogue, Shape
from rumus.tensor.memory.reshaping import reshaped
from rumus.tensor.memory.uninterrupted import displaced

# From the gradient of the result, and for each input an array to write to (or None), to the
# gradient of each input (or None). A vjp may ignore the destinations given, except a `SoFar`. They
# are dense, except for one that was announced as filling places, which may be any views. Any may
# return a `Product` or a `Spread`; only one that was announced as taking these is given one.
Vjp: TypeAlias = Callable[[Array, Sequence[Array | None]], Sequence[Array | None]]
C = TypeVar("C")
Leaf: TypeAlias = Any  # a parameter; only the sink looks inside

ADD = Kernel("add", {"out": Expr.array("a") + Expr.array("b")}, ("a", "b"))
SCALE = Kernel("scale", {"out": Expr.array("x") * Expr.scalar("factor")}, ("x",))
ACCUMULATE = Kernel("accumulate", {"a": Expr.array("a") + Expr.array("b")}, ("a", "b"))  # a += b
_creation = itertools.count()


@dataclass(frozen=True, slots=True)
class SoFar:
    """The gradient that an input already has, for a vjp to add its own share to.

    Only a vjp declared as adding for this input gets one as its destination; it then returns the
    sum for that input. So an input used several times needs no additions between kernels. array:
    must not be changed, unless is_own says that nothing else reads it.
    """

    array: Array
    is_own: bool


class Product:
    """A gradient that is a matrix product, not computed until the next operation is known.

    If that is elementwise, as after an activation, it is fused with the product. It is computed
    once: by the node it is for, or by the tape if that node takes no products.
    """

    __slots__ = ("_backend", "_full", "_left", "_right", "_shape")

    def __init__(self, backend: Backend, left: Array, right: Array, full: Shape, shape: Shape):
        self._backend = backend
        self._left = left
        self._right = right
        self._full = full  # of left @ right
        self._shape = shape  # of the gradient, which has as many elements

    def computed(self) -> Array:
        """Return the gradient."""
        out = self._backend.allocate(self._full, self._left.dtype)
        self._backend.matmul(self._left, self._right, out)
        return out.reshape(self._shape)

    def through(
        self, kernel: Kernel, arrays: Sequence[Array], scalars: Sequence[float] = ()
    ) -> list[Array]:
        """Return the outputs of a kernel whose first array is the gradient, and which replaces it.

        arrays: the others, of the gradient's shape.
        """
        outputs = [self._backend.allocate(self._full, self._left.dtype) for _ in kernel.outputs]
        others = [reshaped(self._backend, array, self._full) for array in arrays]
        epilogue = Epilogue(kernel, others, scalars, outputs[1:])
        self._backend.matmul(self._left, self._right, outputs[0], epilogue=epilogue)
        return [output.reshape(self._shape) for output in outputs]


class Spread:
    """A gradient that is the same for all elements: one number, times a factor.

    It is that of what was added up as a whole, as a loss is. Who takes it needs no array of it; for
    other nodes the tape writes it out.
    """

    __slots__ = ("_backend", "factor", "number", "shape")

    def __init__(self, backend: Backend, number: Array, factor: float, shape: Shape) -> None:
        self._backend = backend
        self.number = number  # of one element; not to be changed
        self.factor = factor
        self.shape = shape

    def over(self, shape: Shape) -> Spread:
        """Return the same for as many elements in another shape."""
        return Spread(self._backend, self.number, self.factor, shape)

    def computed(self, into: Array | None = None) -> Array:
        """Return it as an array: in `into`, if that is given."""
        backend, number = self._backend, self.number
        into = backend.allocate(self.shape, number.dtype) if into is None else into
        number = number.reshape((1,) * len(self.shape))
        if self.factor == 1:
            backend.copy(number, into)
        else:
            backend.elementwise(SCALE, (number,), (self.factor,), (into,))
        return into


def computed(gradient: Array | Product | Spread) -> Array:
    """Return a gradient as an array."""
    return gradient.computed() if isinstance(gradient, (Product, Spread)) else gradient


class Version:
    """Counts the writes to some memory. Views share it; an arena's tensors share a second one.

    writes: those of values, one by one: neither steps of an optimizer nor moves to a device.
    """

    __slots__ = ("count", "shared", "writes")

    def __init__(self) -> None:
        self.count = self.writes = 0
        self.shared: Version | None = None

    @property
    def current(self) -> int:
        """A number that grows with each write and never falls."""
        return self.count if self.shared is None else self.count + self.shared.count

    def written(self) -> None:
        """Note one write."""
        self.count += 1
        self.writes += 1


class Watched(Protocol):
    """A tensor that must not change between forward and backward."""

    _version: Version

    @property
    def label(self) -> str:
        """Its name in messages."""
        ...


class Sink(Protocol):
    """The destination of parameter gradients."""

    def destination(self, leaf: Leaf) -> Array | None:
        """Return memory for the first gradient of `leaf`, None for later ones."""
        ...

    def add(self, leaf: Leaf, gradient: Array) -> None:
        """Accept a gradient, which may be the destination given for it."""
        ...

    def so_far(self, leaf: Leaf) -> Array | None:
        """Return the gradient gathered for `leaf`, to add to in place; None if there is none."""
        ...


class Node:
    """One step of the tape."""

    __slots__ = (
        "adding", "backend", "created", "fills_places", "inputs", "name", "place",
        "takes", "updates", "vjp", "watched",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        backend: Backend,
        inputs: tuple[Node | Leaf | None, ...],
        vjp: Vjp,
        watched: tuple[tuple[Watched, int], ...],
        adding: tuple[int, ...] = (),
        takes: tuple[type, ...] = (),
        fills_places: bool = False,
    ) -> None:
        self.name = name
        self.backend = backend
        self.inputs = inputs
        self.vjp: Vjp | None = vjp
        self.watched = watched  # each with its version in the forward pass
        self.adding = adding  # inputs whose existing gradient `vjp` can add to
        self.takes = takes  # which of `Product` and `Spread` `vjp` accepts as gradient
        self.fills_places = fills_places  # whether `vjp` can write to the `place` of an input
        self.place: Callable[[], Array] | None = None  # the preferred memory for its gradient
        self.updates: tuple[Any, ...] = ()  # `BufferUpdate`s, applied if the step counts
        self.created = next(_creation)


def _reachable(root: Node) -> list[Node]:
    """Every node that `root` was computed from, newest first. GraphError if one was freed."""
    found = {root}
    stack = [root]
    while stack:
        node = stack.pop()
        if node.vjp is None:
            raise GraphError(
                f"backward has already run through this graph (at {node.name!r}) and freed it; "
                "run the forward pass again, or add the losses and call backward once"
            )
        for edge in node.inputs:
            if isinstance(edge, Node) and edge not in found:
                found.add(edge)
                stack.append(edge)
    return sorted(found, key=lambda node: node.created, reverse=True)


def leaves(root: Node) -> list[Leaf]:
    """Return the parameters that `root` was computed from, each once, the last used first."""
    found: dict[int, Leaf] = {}
    for node in _reachable(root):
        for edge in node.inputs:
            if edge is not None and not isinstance(edge, Node):
                found.setdefault(id(edge), edge)
    return list(found.values())


def _check_versions(nodes: Sequence[Node]) -> None:
    for node in nodes:
        for tensor, seen in node.watched:
            if tensor._version.current != seen:
                raise ModifiedTensorError(
                    f"{tensor.label} was changed in place after {node.name!r} used it and before "
                    "backward; call backward before changing it, or change a copy"
                )


def updates_of(root: Node) -> list[Any]:
    """Return the buffer updates proposed on the way to `root`, oldest first."""
    return [update for node in reversed(_reachable(root)) for update in node.updates]


def backward(root: Node, seed: Array, sink: Sink) -> list[Any]:
    """Propagate `seed`, the gradient of `root`'s result, to every parameter it depends on.

    Errors are raised before anything is computed. Returns the buffer updates that the forward pass
    proposed, oldest first.
    """
    nodes = _reachable(root)
    _check_versions(nodes)
    updates = [update for node in reversed(nodes) for update in node.updates]
    gradients: dict[Node, Array] = {root: seed}  # or products
    summed: set[Node] = set()  # gradients in our own memory, which may be added to in place
    for node in nodes:
        _visit(node, gradients, summed, sink)
    return updates


def _visit(node: Node, gradients: dict[Node, Array], summed: set[Node], sink: Sink) -> None:
    """Replace the gradient of a node's result by those of its inputs, and free the node.

    Memory held only by the node is freed before the next node is visited, and before sums.
    """
    gradient = gradients.pop(node, None)
    inputs, node.inputs = node.inputs, ()
    vjp, node.vjp = node.vjp, None
    node.place = None
    node.watched = ()  # its vjp may overwrite what only it still held
    if gradient is None or vjp is None:
        return
    gradient = gradient if isinstance(gradient, node.takes) else computed(gradient)
    destinations = _destinations(node, inputs, gradients, summed, sink)
    shares = vjp(gradient, destinations)
    del vjp, gradient
    for edge, into, share in zip(inputs, destinations, shares, strict=True):
        if edge is None or share is None:
            continue
        if not isinstance(edge, Node):
            _give(sink, edge, into, computed(share), node.backend)
        elif edge not in gradients:
            gradients[edge] = share
        else:
            is_sum = isinstance(into, SoFar)
            own = edge in summed
            gradients[edge] = share if is_sum else _sum(edge, gradients[edge], share, own)
            summed.add(edge)


def _destinations(
    node: Node,
    inputs: Sequence[Node | Leaf | None],
    gradients: dict[Node, Array],
    summed: set[Node],
    sink: Sink,
) -> list[Array | None]:
    """For each input of a node, the destination of its gradient, a `SoFar`, or None."""
    found: list[Array | None] = []
    before = set[int]()
    for number, edge in enumerate(inputs):
        # For an input that occurs twice, only one can add.
        is_first = id(edge) not in before
        before.add(id(edge))
        adds = number in node.adding and is_first
        if edge is None:
            found.append(None)
        elif isinstance(edge, Node) and not (adds and edge in gradients):
            is_free = node.fills_places and is_first and edge not in gradients
            found.append(edge.place() if is_free and edge.place is not None else None)
        elif isinstance(edge, Node):
            gradients[edge] = computed(gradients[edge])
            found.append(SoFar(gradients[edge], edge in summed))
        elif adds and (array := sink.so_far(edge)) is not None:
            found.append(SoFar(array, True))
        else:
            found.append(sink.destination(edge))
    return found


def _give(sink: Sink, leaf: Leaf, into: Array | None, share: Array, backend: Backend) -> None:
    """Pass on a parameter's gradient; a sum with the existing one replaces it."""
    if not isinstance(into, SoFar):
        sink.add(leaf, share)
    elif share is not into.array:
        backend.copy(share, into.array)


def _sum(node: Node, so_far: Array, share: Array, in_place: bool) -> Array:
    if isinstance(so_far, Product):
        so_far, share = share, so_far
    so_far = computed(so_far)
    if isinstance(share, Product):
        return share.through(ACCUMULATE, (so_far,))[0]
    share = computed(share)
    if in_place:
        node.backend.elementwise(ACCUMULATE, (so_far, share), (), (so_far,))
        return so_far
    total = node.backend.allocate(share.shape, share.dtype)
    node.backend.elementwise(ADD, (so_far, share), (), (total,))
    return total


class _Mode(threading.local):
    recording = True


_mode = _Mode()


def is_recording() -> bool:
    """Whether operations on this thread are recorded."""
    return _mode.recording


class _Called(Generic[C]):
    """A function that makes a block, and says so where it is not called, as in `with no_grad:`."""

    def __init__(self, make: Callable[[], C]) -> None:
        self._make = make
        update_wrapper(self, make)

    def __call__(self, *given: object) -> C:
        if given:
            name = self._make.__name__
            raise TypeError(f"{name} takes no arguments: write @{name}() before a function")
        return self._make()

    def __enter__(self) -> NoReturn:
        name = self._make.__name__
        raise TypeError(f"{name} is called first: write with {name}():")

    def __exit__(self, *error: object) -> None:
        return


@_Called
@contextmanager
def no_grad() -> Iterator[None]:
    """Compute without a tape, in a `with` block or as a decorator: for evaluation.

    >>> from rumus.tensor import Parameter, no_grad
    >>> with no_grad():
    ...     (Parameter([1.0]) * 2).requires_grad
    False
    """
    with displaced(_mode, "recording", False):
        yield


def ones(shape: tuple[int, ...], dtype: np.dtype[Any], backend: Backend) -> Array:
    """Return the gradient of a result with respect to itself: not to be changed."""
    constant: Callable[[np.dtype[Any]], Array] | None = getattr(backend, "one", None)
    if constant is not None:
        return constant(dtype).reshape(shape)
    seed = backend.allocate(shape, dtype)
    backend.fill(1, seed)
    return seed
