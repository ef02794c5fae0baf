"""Convolution over any number of spatial axes, and its transpose.

The inputs under the kernel are laid out as the columns of a matrix (im2col), a part of the batch at
a time so that it stays in cache, and multiplied with the weights. A backend may offer fused
versions (`backend.fused`) for one and two spatial axes: `convolution` and its gradients
`convolution_input` and `convolution_weight`, or only the columns: `columns` and `from_columns`; and
for any number of axes `convolution_bias`. If `Backend.fused_in_half` has `convolution`, all of
these take float16. `small_convolution` and `small_convolution_weight` are for float32 if
`Geometry.is_small`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from weakref import WeakKeyDictionary

from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.dtype import DType, float16, float32, is_floating
from rumus.tensor.graph.autograd import ACCUMULATE, ADD
from rumus.tensor.graph.operators import cast
from rumus.tensor.graph.tensor import Tensor, backend_of, result_of
from rumus.tensor.memory.backend import Array, Backend, Shape
from rumus.tensor.memory.fused import FusedName
from rumus.tensor.memory.recording import is_recorded
from rumus.tensor.memory.window import Sizes, Window, each_axis, window

PART: Final = 1 << 19  # elements of the columns at a time, on the host
SMALL: Final = 1 << 18  # elements of the weight, and of the columns of one image


@dataclass(frozen=True, slots=True)
class Geometry:
    """A convolution without its data: x (batch, inputs, *lengths) to (batch, outputs, *places)."""

    window: Window
    groups: int
    inputs: int
    outputs: int
    lengths: Shape
    places: Shape

    @property
    def depth(self) -> int:
        """The number of products summed for one element of the result."""
        return self.inputs // self.groups * self.window.area

    @property
    def is_small(self) -> bool:
        """Whether it is a convolution of small images: two axes, stride 1, one group.

        It must cover all places, which a transposed convolution with output_padding does not.
        """
        w = self.window
        if w.axes != 2 or self.groups != 1 or set(w.stride) != {1}:
            return False
        if w.places(self.lengths) != self.places:
            return False
        return max(self.outputs, math.prod(self.places)) * self.depth <= SMALL

    def turned(self) -> Geometry | None:
        """For stride 1, the convolution that computes the input gradient; None if there is none."""
        w = self.window
        sizes = zip(w.dilation, w.kernel, w.padding, strict=True)
        padding = tuple(d * (k - 1) - p for d, k, p in sizes)
        if min(padding) < 0:
            return None
        window = Window(w.kernel, w.stride, padding, w.dilation)
        return Geometry(window, self.groups, self.outputs, self.inputs, self.places, self.lengths)


@checked_arguments
def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """The sum of the input under the kernel times the weights, at every place of the kernel.

    x: (batch, inputs, *lengths), floating.
    weight: (outputs, inputs / groups, *kernel).
    bias: (outputs,), None for none.
    stride: the distance between places, one number or one per axis.
    padding: zeros on both sides, one number or one per axis.
    dilation: the distance between kernel elements, one number or one per axis.
    groups: the number of independent groups that inputs and outputs are split into.

    Result: (batch, outputs, *places). float16 is computed in float32. As usual in deep learning it
        is a cross-correlation: the kernel is not flipped. ValueError for shapes that do not fit.

    >>> from rumus.tensor import convolution, ones
    >>> convolution(ones((1, 1, 4)), ones((1, 1, 3)), padding=1)[0, 0].tolist()
    [2.0, 3.0, 3.0, 2.0]
    """
    axes = x.ndim - 2
    if axes < 1 or weight.ndim != x.ndim:
        raise ValueError(
            "convolution: expected (batch, inputs, *lengths) and (outputs, inputs, *kernel), got "
            f"{x.shape} and {weight.shape}"
        )
    if stride is None:  # to a window the size of the kernel, as of pools
        raise TypeError("convolution: stride must be whole numbers, not None")
    found = window("convolution", x.shape[2:], weight.shape[2:], stride, padding, dilation)
    check_groups("convolution", x.shape[1], weight.shape[1], weight.shape[0], groups)
    check_bias("convolution", bias, weight.shape[0])
    tensors = (x, weight) if bias is None else (x, weight, bias)
    check_dtypes("convolution", tensors)
    backend = backend_of("convolution", tensors)
    if x.dtype == float16 and not (axes <= 2 and "convolution" in backend.fused_in_half):
        wide = [cast(t, float32) for t in tensors]
        options = {"stride": stride, "padding": padding, "dilation": dilation}
        added = None if bias is None else wide[2]
        return cast(convolution(wide[0], wide[1], added, groups=groups, **options), float16)
    lengths = x.shape[2:]
    geometry = Geometry(found, groups, x.shape[1], weight.shape[0], lengths, found.places(lengths))
    out = backend.allocate((x.shape[0], geometry.outputs, *geometry.places), x.dtype)
    added = None if bias is None else bias._array
    forward(backend, geometry, x._array, weight._array, added, out)
    a, b, wanted = x._array, weight._array, [t.requires_grad for t in tensors]

    def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array | None]:
        shares = _shares(tensors, wanted, destinations)
        if shares[0] is not None:
            input_gradient(backend, geometry, gradient, b, shares[0])
        if shares[1] is not None:
            weight_gradient(backend, geometry, a, gradient, shares[1])
        for into in shares[2:]:
            _bias_gradient(backend, gradient, into)
        return shares

    return result_of("convolution", out, backend, tensors, vjp, saved=(x, weight))


@checked_arguments
def convolution_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """The gradient of a convolution with respect to its input, as an operation.

    x: (batch, inputs, *lengths).
    weight: (inputs, outputs / groups, *kernel).
    bias: (outputs,).
    stride, padding, dilation, groups: those of the transposed convolution's original.
    output_padding: below stride or dilation; the part of each length that the convolution's
        rounding drops.

    Result: (batch, outputs, *((lengths - 1) stride - 2 padding + dilation (kernel - 1) +
    output_padding + 1)). ValueError for shapes that do not fit.

    >>> from rumus.tensor import convolution_transpose, ones
    >>> convolution_transpose(ones((1, 1, 2)), ones((1, 1, 3)), stride=2)[0, 0].tolist()
    [1.0, 1.0, 2.0, 1.0, 1.0]
    """
    axes = x.ndim - 2
    if axes < 1 or weight.ndim != x.ndim or weight.shape[0] != x.shape[1]:
        raise ValueError(
            "convolution_transpose: expected (batch, inputs, *lengths) and (inputs, outputs, "
            f"*kernel), got {x.shape} and {weight.shape}"
        )
    tensors = (x, weight) if bias is None else (x, weight, bias)
    check_dtypes("convolution_transpose", tensors)
    if groups < 1 or x.shape[1] % groups:
        raise ValueError(
            f"convolution_transpose: {x.shape[1]} inputs do not divide into {groups} groups"
        )
    outputs = weight.shape[1] * groups
    check_bias("convolution_transpose", bias, outputs)
    lengths = transposed_lengths(
        x.shape[2:], weight.shape[2:], stride, padding, output_padding, dilation
    )
    found = window("convolution_transpose", lengths, weight.shape[2:], stride, padding, dilation)
    geometry = Geometry(found, groups, outputs, x.shape[1], lengths, x.shape[2:])
    backend = backend_of("convolution_transpose", tensors)
    out = backend.allocate((x.shape[0], outputs, *lengths), x.dtype)
    input_gradient(backend, geometry, x._array, weight._array, out)
    if bias is not None:
        row = bias._array.reshape((1, outputs, *[1] * axes))
        backend.elementwise(ACCUMULATE, (out, row), (), (out,))
    a, b, wanted = x._array, weight._array, [t.requires_grad for t in tensors]

    def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array | None]:
        shares = _shares(tensors, wanted, destinations)
        if shares[0] is not None:
            forward(backend, geometry, gradient, b, None, shares[0])
        if shares[1] is not None:
            weight_gradient(backend, geometry, gradient, a, shares[1])
        for into in shares[2:]:
            _bias_gradient(backend, gradient, into)
        return shares

    return result_of("convolution_transpose", out, backend, tensors, vjp, saved=(x, weight))


def transposed_lengths(
    lengths: Shape,
    kernel: Shape,
    stride: Sizes,
    padding: Sizes,
    output_padding: Sizes,
    dilation: Sizes,
) -> Shape:
    """Return the output lengths of a transposed convolution; ValueError for none."""
    name, axes = "convolution_transpose", len(lengths)
    steps, zeros, more, gaps = (
        each_axis(f"{name}: {what}", size, axes)
        for what, size in (
            ("stride", stride),
            ("padding", padding),
            ("output_padding", output_padding),
            ("dilation", dilation),
        )
    )
    found = []
    for n, k, s, p, extra, d in zip(lengths, kernel, steps, zeros, more, gaps, strict=True):
        check_output_padding(name, extra, s, d)
        found.append((n - 1) * s - 2 * p + d * (k - 1) + extra + 1)
    if min(found) < 1:
        raise ValueError(f"{name}: padding {zeros} leaves nothing of the result: {tuple(found)}")
    return tuple(found)


def check_output_padding(of: str, extra: int, stride: int, dilation: int) -> None:
    """Raise ValueError for more than the rounding of a convolution drops along an axis."""
    limit = max(stride, dilation)
    if not 0 <= extra < limit:
        raise ValueError(
            f"{of}: output_padding {extra} must be in [0, {limit}), below the stride or the "
            "dilation"
        )


def check_groups(operation: str, inputs: int, each: int, outputs: int, groups: int) -> None:
    """Raise ValueError if inputs and outputs do not divide into groups that fit the weight."""
    if groups < 1 or inputs % groups or outputs % groups:
        raise ValueError(
            f"{operation}: {inputs} inputs and {outputs} outputs do not divide into {groups} groups"
        )
    if inputs // groups != each:
        raise ValueError(
            f"{operation}: the weight is for {each} inputs in each of {groups} groups, the input "
            f"has {inputs}"
        )


def check_bias(operation: str, bias: Tensor | None, outputs: int) -> None:
    """Raise ValueError for a bias of a wrong shape."""
    if bias is not None and bias.shape != (outputs,):
        raise ValueError(f"{operation}: expected a bias of shape {(outputs,)}, got {bias.shape}")


def check_dtypes(operation: str, tensors: Sequence[Tensor]) -> None:
    """Raise TypeError for mixed dtypes, or for one that is not floating."""
    dtypes = {t.dtype for t in tensors}
    if len(dtypes) > 1 or not is_floating(tensors[0].dtype):
        found = ", ".join(str(t.dtype) for t in tensors)
        raise TypeError(f"{operation}: input, weight and bias need one floating dtype, not {found}")


# On arrays. x: (batch, inputs, *lengths), weight: (outputs, inputs / groups, *kernel), result and
# its gradient: (batch, outputs, *places).


def _own(backend: Backend, name: FusedName, geometry: Geometry) -> Callable[..., None] | None:
    """The backend's fused version, if any; all are for one or two spatial axes."""
    return backend.fused(name) if geometry.window.axes <= 2 else None


def forward(
    backend: Backend, geometry: Geometry, x: Array, weight: Array, bias: Array | None, out: Array
) -> None:
    """out = the convolution of x."""
    own = _own(backend, "convolution", geometry)
    if own is not None:
        own(geometry, x, weight, bias, out)
        return
    small = _small(backend, geometry, out.dtype, "small_convolution")
    if small is not None:
        small(geometry.window, x, weight, bias, out)
        return
    g = geometry
    matrix = weight.reshape((g.groups, g.outputs // g.groups, g.depth))
    for start, stop in _parts(backend, g, x.shape[0]):
        count = stop - start
        columns = _columns(backend, g, x[start:stop])
        size = count * math.prod(g.places)
        product = _scratch(backend, "rows", (g.groups, g.outputs // g.groups, size), out.dtype)
        backend.matmul(matrix, columns, product)
        by_example = _by_example(product.reshape((g.outputs, count, *g.places)))
        if bias is None:
            backend.copy(by_example, out[start:stop])
        else:
            row = bias.reshape((1, g.outputs, *[1] * g.window.axes))
            backend.elementwise(ADD, (by_example, row), (), (out[start:stop],))


def input_gradient(
    backend: Backend, geometry: Geometry, gradient: Array, weight: Array, out: Array
) -> None:
    """out = the gradient of the input; also the transposed convolution."""
    own = _own(backend, "convolution_input", geometry)
    if own is not None:
        own(geometry, gradient, weight, out)
        return
    turned = geometry.turned()
    if turned is not None:
        small = _small(backend, turned, out.dtype, "small_convolution")
        if small is not None:
            exchanged = weight.transpose((1, 0, 2, 3))[:, :, ::-1, ::-1]
            small(turned.window, gradient, exchanged, None, out)
            return
    g = geometry
    matrix = weight.reshape((g.groups, g.outputs // g.groups, g.depth)).transpose((0, 2, 1))
    for start, stop in _parts(backend, g, gradient.shape[0]):
        count = stop - start
        rows = _by_channel(backend, g, gradient[start:stop])
        columns = _scratch(backend, "columns", (g.groups, g.depth, rows.shape[-1]), out.dtype)
        backend.matmul(matrix, rows, columns)
        met = columns.reshape((g.inputs, *g.window.kernel, count, *g.places))
        add_up = backend.fused("from_columns") if g.window.axes <= 2 else None
        if add_up is not None:
            add_up(g.window, met, out[start:stop])
            continue
        padded = backend.allocate((count, g.inputs, *g.window.padded(g.lengths)), out.dtype)
        backend.fill(0, padded)
        for at, view in g.window.views(g.places):
            part = padded[(slice(None), slice(None), *view)]
            backend.elementwise(
                ACCUMULATE, (part, _by_example(met[(slice(None), *at)])), (), (part,)
            )
        interior = padded[(slice(None), slice(None), *g.window.interior(g.lengths))]
        backend.copy(interior, out[start:stop])


def weight_gradient(
    backend: Backend, geometry: Geometry, x: Array, gradient: Array, out: Array
) -> None:
    """out = the gradient of the weight."""
    if 0 in x.shape or 0 in gradient.shape:  # an empty sum
        backend.fill(0, out)
        return
    own = _own(backend, "convolution_weight", geometry)
    if own is not None:
        own(geometry, x, gradient, out)
        return
    small = _small(backend, geometry, out.dtype, "small_convolution_weight")
    if small is not None:
        small(geometry.window, x, gradient, out)
        return
    g = geometry
    total = out.reshape((g.groups, g.outputs // g.groups, g.depth))
    for start, stop in _parts(backend, g, x.shape[0]):
        columns = _columns(backend, g, x[start:stop]).transpose((0, 2, 1))
        rows = _by_channel(backend, g, gradient[start:stop])
        if start == 0:
            backend.matmul(rows, columns, total)
        else:
            more = backend.allocate(total.shape, out.dtype)
            backend.matmul(rows, columns, more)
            backend.elementwise(ACCUMULATE, (total, more), (), (total,))


def _small(
    backend: Backend, geometry: Geometry, dtype: DType, name: FusedName
) -> Callable[..., None] | None:
    """The backend's fused version for small images, if it has one and they are small."""
    return backend.fused(name) if dtype == float32 and geometry.is_small else None


def _bias_gradient(backend: Backend, gradient: Array, into: Array | None) -> None:
    """into = the sum of a gradient over batch and places."""
    if into is None:
        return
    own = backend.fused("convolution_bias")
    if own is not None:
        own(gradient, into)
    else:
        backend.reduce("sum", gradient, (0, *range(2, len(gradient.shape))), into)


def _shares(
    tensors: Sequence[Tensor], wanted: Sequence[bool], destinations: Sequence[Array | None]
) -> list[Array | None]:
    """Memory for each gradient that is needed: the given destination, or new."""
    rows = zip(tensors, wanted, destinations, strict=True)
    return [
        into if into is not None or not wants else t._backend.allocate(t.shape, t.dtype)
        for t, wants, into in rows
    ]


def _parts(backend: Backend, geometry: Geometry, batch: int) -> Iterator[tuple[int, int]]:
    """Split the batch so that the columns of a part stay in cache; a device takes it whole."""
    each = geometry.groups * geometry.depth * math.prod(geometry.places)
    step = batch if backend.runs_ahead else max(1, PART // max(each, 1))
    for start in range(0, batch, max(step, 1)):
        yield start, min(start + step, batch)


class _Scratch(threading.local):
    """Scratch memory of this thread, shared by successive convolutions."""

    def __init__(self) -> None:
        self.held: WeakKeyDictionary[Backend, dict[tuple[str, DType], Array]] = WeakKeyDictionary()


_scratch_memory = _Scratch()


def _scratch(backend: Backend, role: str, shape: Shape, dtype: DType) -> Array:
    """Return a scratch array for this call; on the host, from kept memory.

    The operating system provides new memory page by page, which takes longer than writing it.
    """
    size = math.prod(shape)
    if backend.runs_ahead or size > PART or is_recorded():
        return backend.allocate(shape, dtype)
    held = _scratch_memory.held.setdefault(backend, {})
    if (role, dtype) not in held:
        held[role, dtype] = backend.allocate((PART,), dtype)
    return held[role, dtype][:size].reshape(shape)


def _columns(backend: Backend, geometry: Geometry, x: Array) -> Array:
    """The input that each kernel element meets at each place: (groups, depth, batch * places)."""
    g, count = geometry, x.shape[0]
    columns = _scratch(backend, "columns", (g.inputs, *g.window.kernel, count, *g.places), x.dtype)
    joined = (g.groups, g.depth, count * math.prod(g.places))
    gather = backend.fused("columns") if g.window.axes <= 2 else None
    if gather is not None:
        gather(g.window, x, columns)
        return columns.reshape(joined)
    if any(g.window.padding):
        padded = backend.allocate((count, g.inputs, *g.window.padded(g.lengths)), x.dtype)
        backend.fill(0, padded)
        interior = (slice(None), slice(None), *g.window.interior(g.lengths))
        backend.copy(x, padded[interior])
        x = padded
    for at, view in g.window.views(g.places):
        met = x[(slice(None), slice(None), *view)]
        backend.copy(_by_example(met), columns[(slice(None), *at)])
    return columns.reshape(joined)


def _by_example(array: Array) -> Array:
    """Swap the first two axes, as a view."""
    return array.transpose((1, 0, *range(2, len(array.shape))))


def _by_channel(backend: Backend, geometry: Geometry, gradient: Array) -> Array:
    """(batch, outputs, *places) as a new (groups, outputs / groups, batch * places)."""
    g, count = geometry, gradient.shape[0]
    rows = _scratch(backend, "rows", (g.outputs, count, *g.places), gradient.dtype)
    backend.copy(_by_example(gradient), rows)
    return rows.reshape((g.groups, g.outputs // g.groups, count * math.prod(g.places)))
