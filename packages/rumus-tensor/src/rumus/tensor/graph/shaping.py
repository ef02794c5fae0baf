"""Operations that move elements without computing: views, joins and copies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.declared_type import is_ordered, shown
from rumus.tensor.expression.dtype import DType, promote
from rumus.tensor.expression.whole_number import whole_number
from rumus.tensor.graph.autograd import Spread
from rumus.tensor.graph.means import note_alike, note_gathered, note_permuted
from rumus.tensor.graph.operators import cast, sum_to
from rumus.tensor.graph.other_names import JOINING
from rumus.tensor.graph.reduction import normalize_axis
from rumus.tensor.graph.tensor import Tensor, as_host, backend_of, check_exact, result_of
from rumus.tensor.memory.backend import Array, Backend, Shape
from rumus.tensor.memory.reshaping import reshaped


def as_shape(operation: str, given: Sequence[int | Sequence[int]], what: str = "a length") -> Shape:
    """Return the shape given as several numbers or as one sequence.

    TypeError for what is no whole number; `what` it is, in the message.
    """
    numbers: Any = given
    first: Any = given[0] if given else 0
    # Each array has __index__, which raises for several numbers. (Python 3.11 takes 17 us to tell
    # that a tuple is no SupportsIndex.)
    if len(given) == 1 and (not hasattr(first, "__index__") or getattr(first, "ndim", 0) > 0):
        numbers = first
        if isinstance(numbers, (str, bytes, dict)) or not is_ordered(numbers):
            numbers = given
    name = f"{operation}: {what}"
    return tuple(n if type(n) is int else whole_number(name, n) for n in numbers)


def _view(
    name: str,
    x: Tensor,
    array: Array,
    back: Callable[[Array], Any],
    takes: tuple[type, ...] = (),
) -> Tensor:
    """A tensor over the same memory; `back` undoes the view on a gradient."""
    result = result_of(name, array, x._backend, (x,), lambda g, _: (back(g),), takes=takes)
    result._version = x._version
    return result


def reshape(x: Tensor, shape: Shape) -> Tensor:
    """The same elements in another shape; one length may be -1. ValueError if they do not fit."""
    known = math.prod(n for n in shape if n != -1)
    if shape.count(-1) == 1 and known and x.size % known == 0:
        shape = tuple(x.size // known if n == -1 else n for n in shape)
    if math.prod(shape) != x.size or any(n < 0 for n in shape):
        hint = ", where only one length may be -1" if shape.count(-1) > 1 else ""
        raise ValueError(f"reshape: {x.size} elements of shape {x.shape} do not fit {shape}{hint}")
    before, backend = x.shape, x._backend
    view = reshaped(backend, x._array, shape)

    def back(gradient: Array | Spread) -> Array | Spread:
        if isinstance(gradient, Spread):
            return gradient.over(before)
        return reshaped(backend, gradient, before)

    return note_alike(_view("reshape", x, view, back, (Spread,)), x)


def permute(x: Tensor, axes: Shape) -> Tensor:
    """The axes in another order; ValueError if `axes` is not a permutation of them."""
    order = tuple(normalize_axis(a, x.ndim, "permute") for a in axes)
    if sorted(order) != list(range(x.ndim)):
        raise ValueError(f"permute: {axes} is not a permutation of the {x.ndim} axes of {x.shape}")
    inverse = tuple(order.index(i) for i in range(x.ndim))
    array = x._array.transpose(order)
    return note_permuted(_view("permute", x, array, lambda g: g.transpose(inverse)), x, order)


def transpose(x: Tensor, first: int, second: int) -> Tensor:
    """Swap two axes."""
    axes = list(range(x.ndim))
    a, b = (normalize_axis(axis, x.ndim, "transpose") for axis in (first, second))
    axes[a], axes[b] = b, a
    return permute(x, tuple(axes))


def unsqueeze(x: Tensor, axis: int) -> Tensor:
    """An axis of length 1 inserted at `axis`."""
    at = normalize_axis(axis, x.ndim + 1, "unsqueeze")
    return reshape(x, (*x.shape[:at], 1, *x.shape[at:]))


def squeeze(x: Tensor, axis: int | None = None) -> Tensor:
    """An axis of length 1 removed, or all of them. ValueError for an axis of another length."""
    if axis is None:
        return reshape(x, tuple(n for n in x.shape if n != 1))
    at = normalize_axis(axis, x.ndim, "squeeze")
    if x.shape[at] != 1:
        raise ValueError(f"squeeze: axis {axis} of {x.shape} is not 1")
    return reshape(x, (*x.shape[:at], *x.shape[at + 1 :]))


def broadcasts(shape: Shape, to: Shape) -> bool:
    """Whether an array of `shape` can be repeated to the shape `to`."""
    pairs = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(n in (1, length) for n, length in pairs)


def broadcast_to(x: Tensor, shape: Shape) -> Tensor:
    """The elements repeated to `shape`, in new memory. ValueError if they do not fit."""
    if not broadcasts(x.shape, shape):
        raise ValueError(f"broadcast_to: {x.shape} does not broadcast to {shape}")
    backend, before = x._backend, x.shape
    out = backend.allocate(shape, x.dtype)
    backend.copy(x._array, out)
    return result_of("broadcast_to", out, backend, (x,), lambda g, _: (sum_to(backend, g, before),))


def copied(backend: Backend, array: Array) -> Array:
    """Return a contiguous copy of an array."""
    out = backend.allocate(array.shape, array.dtype)
    backend.copy(array, out)
    return out


def copy(x: Tensor) -> Tensor:
    """The same elements in new memory."""
    return result_of("clone", copied(x._backend, x._array), x._backend, (x,), lambda g, _: (g,))


def require_backend(given: object) -> None:
    """Raise TypeError for anything else that other libraries pass to `to`: a device or a dtype."""
    if not hasattr(given, "upload") or isinstance(given, type):
        raise TypeError(
            f"to() takes a backend, not {given!r}: to_gpu() moves to the GPU, "
            "to(rumus.tensor.cpu()) to the CPU; a dtype is changed by astype() of a tensor and by "
            "to_dtype() of a module"
        )


def to_backend(x: Tensor, backend: Backend) -> Tensor:
    """The elements on another backend, copied through the host; `x` itself if already there."""
    if x._backend is backend:
        return x
    require_backend(backend)
    here = x._backend

    def vjp(gradient: Array, _: Sequence[Array | None]) -> Sequence[Array]:
        return (here.upload(backend.download(gradient)),)

    return result_of("to", backend.upload(here.download(x._array)), backend, (x,), vjp)


def _common(operation: str, tensors: Sequence[Tensor]) -> tuple[Backend, DType, list[Tensor]]:
    """The backend and dtype in which several tensors can be joined, and they in that dtype."""
    if not tensors:
        raise ValueError(f"{operation} needs at least one tensor")
    dtype = promote(*(t.dtype for t in tensors))
    return backend_of(operation, tensors), dtype, [cast(t, dtype) for t in tensors]


@JOINING.as_keywords
def concat(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Join tensors along an existing axis. ValueError if the other axes differ.

    tensors: at least one, of one dtype and backend.
    axis: along which they are joined; all other lengths must be equal.

    >>> from rumus.tensor import concat, tensor
    >>> concat([tensor([1, 2]), tensor([3])]).tolist()
    [1, 2, 3]
    """
    backend, dtype, parts = _common("concat", _several("concat", tensors))
    at = normalize_axis(axis, parts[0].ndim, "concat")
    for part in parts:
        same_rank = part.ndim == parts[0].ndim
        if not same_rank or _without(part.shape, at) != _without(parts[0].shape, at):
            raise ValueError(
                f"concat: {parts[0].shape} and {part.shape} differ in more than axis {axis}"
            )
    edges = np.cumsum([0] + [part.shape[at] for part in parts]).tolist()
    cuts = [(slice(None),) * at + (slice(a, b),) for a, b in pairwise(edges)]
    shape = (*parts[0].shape[:at], edges[-1], *parts[0].shape[at + 1 :])
    out = backend.allocate(shape, dtype)
    for part, cut in zip(parts, cuts, strict=True):
        backend.copy(part._array, out[cut])

    def vjp(gradient: Array, _: Sequence[Array | None]) -> Sequence[Array]:
        return [copied(backend, gradient[cut]) for cut in cuts]

    return note_gathered(result_of("concat", out, backend, parts, vjp), parts)


def split(x: Tensor, parts: int | Sequence[int], axis: int = 0) -> tuple[Tensor, ...]:
    """Split an axis into parts, as views.

    x: of any dtype.
    parts: the number of equal parts, or the length of each. Backward writes their gradients
        directly into one array, where the gradients of slices would be added.
    axis: along which it is split.

    ValueError if the parts do not add up to the axis.

    >>> from rumus.tensor import split, tensor
    >>> [part.tolist() for part in split(tensor([1, 2, 3]), [1, 2])]
    [[1], [2, 3]]
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"split: x must be a tensor, not {shown(x)}: use tensor(x)")
    at = normalize_axis(axis, x.ndim, "split")
    length = x.shape[at]
    if isinstance(parts, (str, bytes)) or not is_ordered(parts):
        count = whole_number("split: parts", parts)
        is_none = count < 1 or 0 < length < count
        lengths = [] if is_none else [length // count] * count
    else:
        lengths = [whole_number("split: a length of parts", part) for part in parts]
    if not lengths or min(lengths) < 0 or sum(lengths) != length:
        raise ValueError(f"split: {parts} does not split axis {axis} of {x.shape} into parts")
    edges = np.cumsum([0, *lengths]).tolist()
    cuts = [(slice(None),) * at + (slice(a, b),) for a, b in pairwise(edges)]
    joined = _Joined(x, cuts)
    whole = result_of("split", x._array, x._backend, (x,), joined.gradient)
    found = []
    for number, cut in enumerate(cuts):
        put = partial(joined.put, number)
        part = result_of("part", x._array[cut], x._backend, (whole,), put, adding=(0,))
        part._version = x._version
        if part._node is not None:
            part._node.place = partial(joined.place, number)
        found.append(part)
    return tuple(found)


class _Joined:
    """The gradients of a tensor's parts, each written to its own place in one array."""

    def __init__(self, x: Tensor, cuts: Sequence[tuple[slice, ...]]) -> None:
        self.backend, self.shape, self.dtype = x._backend, x.shape, x.dtype
        strides = x._array.strides
        self.order = sorted(range(x.ndim), key=lambda axis: -abs(strides[axis]))
        self.missing = dict(enumerate(cuts))
        self.array: Array | None = None
        self.places: list[Array] = []

    def place(self, number: int) -> Array:
        """Return the place of a part's gradient, in memory laid out like the tensor."""
        if self.array is None:
            lengths = tuple(self.shape[axis] for axis in self.order)
            inverse = tuple(self.order.index(axis) for axis in range(len(lengths)))
            self.array = self.backend.allocate(lengths, self.dtype).transpose(inverse)
            self.places = [self.array[cut] for cut in self.missing.values()]
        return self.places[number]

    def put(
        self, number: int, gradient: Array, destinations: Sequence[Array | None]
    ) -> Sequence[Array | None]:
        """Accept the gradient of a part. Any gradient so far is of other parts."""
        place = self.place(number)
        if gradient is not place:
            self.backend.copy(gradient, place)
        del self.missing[number]
        return (self.array,)

    def gradient(self, joined: Array, destinations: Sequence[Array | None]) -> Sequence[Array]:
        """Return the joined gradient, 0 where a part had none."""
        for cut in self.missing.values():
            self.backend.fill(0, joined[cut])
        return (joined,)


def _without(shape: Shape, axis: int) -> Shape:
    return (*shape[:axis], *shape[axis + 1 :])


@JOINING.as_keywords
def stack(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Join tensors of one shape along a new axis. ValueError if the shapes differ.

    tensors: at least one, of one dtype and backend.
    axis: the position of the new axis.
    """
    tensors = _several("stack", tensors)
    if tensors and any(t.shape != tensors[0].shape for t in tensors):
        shapes = ", ".join(str(t.shape) for t in tensors)
        raise ValueError(f"stack: the shapes differ: {shapes}")
    return concat([unsqueeze(t, axis) for t in tensors], axis)


def _several(operation: str, tensors: Any) -> list[Tensor]:
    """Return tensors as a list. TypeError for a single one, and for what is none."""
    if isinstance(tensors, Tensor) or not is_ordered(tensors):
        what = "one tensor" if isinstance(tensors, Tensor) else shown(tensors)
        raise TypeError(f"{operation} takes a list of tensors, not {what}: {operation}([x, y])")
    found = list(tensors)
    for position, each in enumerate(found):
        if not isinstance(each, Tensor):
            raise TypeError(
                f"{operation}: item {position} must be a tensor, not {shown(each)}: use tensor(x)"
            )
    return found


def pairs_of_widths(of: str, given: Any, axes: int) -> list[tuple[int, int]]:
    """Return a pair of widths for each axis. TypeError for what are no pairs, else ValueError.

    of: the function's name in messages.
    """
    is_list = isinstance(given, (list, tuple, np.ndarray)) and is_ordered(given)
    if not is_list or not all(is_ordered(pair) and not isinstance(pair, str) for pair in given):
        raise TypeError(f"{of}: widths must be pairs, one for each axis, not {shown(given)}")
    pairs = [tuple(whole_number(f"{of}: widths", width) for width in pair) for pair in given]
    if len(pairs) != axes or any(len(pair) != 2 or min(pair) < 0 for pair in pairs):
        raise ValueError(f"{of}: expected {axes} pairs of widths >= 0, got {given!r}")
    return pairs  # type: ignore[return-value]


@checked_arguments
def pad(x: Tensor, widths: Sequence[tuple[int, int]], value: float | bool = 0.0) -> Tensor:
    """Pad `x` with `value`.

    x: of any dtype.
    widths: the number of elements before and after each axis, as in `numpy.pad`.
    value: of the new elements.

    ValueError for another number of axes, a negative width, and a value that integers or truth
    values would cut off, such as 0.5.
    """
    widths = pairs_of_widths("pad", widths, x.ndim)
    check_exact(value, x.dtype)
    backend, number = x._backend, as_host(value, x.dtype).item()
    pairs = list(zip(widths, x.shape, strict=True))
    inside = (*(slice(before, before + n) for (before, _), n in pairs), ...)  # never a number
    out = backend.allocate(tuple(before + n + after for (before, after), n in pairs), x.dtype)
    backend.fill(number, out)
    backend.copy(x._array, out[inside])
    return result_of("pad", out, backend, (x,), lambda g, _: (copied(backend, g[inside]),))
