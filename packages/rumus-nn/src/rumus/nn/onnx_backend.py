"""A backend that computes nothing: it writes down as ONNX what it is asked to do.

So whatever a model does in its forward pass is exported, its own kernels included, by the few
operations that every backend has. What depends on no input is computed at once, by NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, Literal, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from rumus.nn.batch_norm import running_affine
from rumus.nn.onnx_elementwise import cast, write_kernel
from rumus.nn.onnx_graph import Graph, OnnxExportError, Value
from rumus.nn.onnx_recurrent import write_recurrence
from rumus.tensor import DType, Kernel, NumpyBackend, bool_, int32
from rumus.tensor.expression.kernel import trace
from rumus.tensor.memory.backend import Array, Epilogue, Reduction, Shape
from rumus.tensor.memory.fused import FusedName
from rumus.tensor.memory.quantization import BlockTable, Code, Piece
from rumus.tensor.memory.window import Window
from rumus.tensor.operations.convolution import Geometry
from rumus.tensor.operations.recurrent import Kind

_REDUCTIONS = {"sum": "ReduceSum", "prod": "ReduceProd", "max": "ReduceMax", "min": "ReduceMin",
               "argmax": "ArgMax", "argmin": "ArgMin"}  # fmt: skip


# Of running statistics, in evaluation.
_BATCH_NORM: Final = trace(running_affine)


class Memory:
    """What an array and its views share: a value that writes replace."""

    def __init__(self, graph: Graph, shape: Shape, dtype: DType) -> None:
        self.graph, self.shape, self.dtype = graph, shape, dtype
        self.value: Value | None = None
        self._boxes: list[tuple[tuple[tuple[int, int], ...], Value]] = []  # written since

    def write(self, value: Value) -> None:
        """Replace all of it."""
        self.value, self._boxes = value, []

    def write_box(self, box: tuple[tuple[int, int], ...], value: Value) -> None:
        """Replace a box: (start, stop) along each axis."""
        self._boxes.append((box, value))

    def read_box(self, box: tuple[tuple[int, int], ...]) -> Value | None:
        """Return a part of what was last written there in one piece; None if it was not."""
        for written, value in reversed(self._boxes):
            pairs = list(zip(box, written, strict=True))
            if all(c <= a and b <= d for (a, b), (c, d) in pairs):
                return sliced(self.graph, value, [(a - c, b - c, 1) for (a, b), (c, _) in pairs])
            if all(a < d and c < b for (a, b), (c, d) in pairs):
                return None
        return None

    def read(self) -> Value:
        """Return all of it."""
        if self._boxes:
            self.value = self._joined() or self._inserted()
            self._boxes = []
        if self.value is None:  # nobody has written to it: any numbers will do
            self.value = filled(self.graph, 0, self.shape, self.dtype)
        return self.value

    def _joined(self) -> Value | None:
        """The boxes side by side, if they make up all of it along one axis."""
        whole = tuple((0, n) for n in self.shape)
        axes = {i for box, _ in self._boxes for i, span in enumerate(box) if span != whole[i]}
        if len(axes) != 1:
            return None
        axis = axes.pop()
        parts = sorted(self._boxes, key=lambda part: part[0][axis])
        edges = [0, *(box[axis][1] for box, _ in parts)]
        starts = [box[axis][0] for box, _ in parts]
        if starts != edges[:-1] or edges[-1] != self.shape[axis]:
            return None
        values = [value for _, value in parts]
        return self.graph.emit("Concat", values, self.shape, self.dtype, axis=axis)

    def _inserted(self) -> Value:
        boxes, self._boxes = self._boxes, []
        base = self.value
        if base is None:
            base = filled(self.graph, 0, self.shape, self.dtype)
        for box, value in boxes:
            base = self._insert(base, box, value, 0)
        return base

    def _insert(
        self, base: Value, box: tuple[tuple[int, int], ...], value: Value, axis: int
    ) -> Value:
        """`base` with `value` in a box, which is all of it along the axes before `axis`."""
        while axis < len(box) and box[axis] == (0, base.shape[axis]):
            axis += 1
        if axis == len(box):
            return value
        start, stop = box[axis]
        parts = []
        for low, high in ((0, start), (start, stop), (stop, base.shape[axis])):
            if low == high:
                continue
            spans = [(0, n, 1) for n in base.shape]
            spans[axis] = (low, high, 1)
            part = sliced(self.graph, base, spans)
            if (low, high) == (start, stop):
                inner = (*box[:axis], (0, high - low), *box[axis + 1 :])
                part = self._insert(part, inner, value, axis + 1)
            parts.append(part)
        if len(parts) == 1:
            return parts[0]
        return self.graph.emit("Concat", parts, base.shape, base.dtype, axis=axis)


def filled(graph: Graph, number: float, shape: Shape, dtype: DType) -> Value:
    """Return an array of one number."""
    one = graph.constant(np.array(number, dtype))
    return one if shape == () else graph.emit("Expand", [one, shape], shape, dtype)


def reshaped(graph: Graph, value: Value, shape: Shape) -> Value:
    """Return the same elements in another shape."""
    if value.shape == shape:
        return value
    before = graph.reshaped.get(value.name, value)  # of two in a row, the last alone
    if before.shape == shape:
        return before
    if before.constant is not None:
        found = graph.constant(before.constant.reshape(shape))
    else:
        found = graph.emit("Reshape", [before, shape], shape, value.dtype, allowzero=1)
    graph.reshaped.setdefault(found.name, before)
    return found


def turned(graph: Graph, value: Value, axes: Shape) -> Value:
    """Return the axes in another order."""
    if axes == tuple(range(len(axes))):
        return value
    if value.constant is not None:
        return graph.constant(value.constant.transpose(axes))
    shape = tuple(value.shape[axis] for axis in axes)
    return graph.emit("Transpose", [value], shape, value.dtype, perm=axes)


def sliced(graph: Graph, value: Value, spans: Sequence[tuple[int, int, int]]) -> Value:
    """Return (start, stop, step) along each axis, as `slice.indices` says them."""
    axes = [
        a for a, (span, n) in enumerate(zip(spans, value.shape, strict=True)) if span != (0, n, 1)
    ]
    if not axes:
        return value
    shape = tuple(len(range(*span)) for span in spans)
    if value.constant is not None:
        keys = tuple(_slice(*span) for span in spans)
        return graph.constant(value.constant[keys])
    starts = tuple(spans[a][0] for a in axes)
    # Below 0 is before the first element, which ONNX says by a number that is low enough.
    stops = tuple(spans[a][1] if spans[a][1] >= 0 else -value.shape[a] - 1 for a in axes)
    steps = tuple(spans[a][2] for a in axes)
    return graph.emit("Slice", [value, starts, stops, tuple(axes), steps], shape, value.dtype)


def _slice(start: int, stop: int, step: int) -> slice:
    return slice(start, stop if stop >= 0 else None, step)


class View(NamedTuple):
    """One step from an array to a view of it.

    what: the order of axes of a transpose, the (start, stop, step) of each axis of a slice.
    """

    kind: Literal["reshape", "transpose", "slice"]
    before: Shape
    after: Shape
    what: tuple[Any, ...] = ()

    def read(self, graph: Graph, value: Value) -> Value:
        """Return the view of a value."""
        if self.kind == "transpose":
            return turned(graph, value, self.what)
        if self.kind == "slice":
            return sliced(graph, value, self.what)
        return reshaped(graph, value, self.after)

    def undone(self, graph: Graph, value: Value) -> Value:
        """Return what has this value as its view; a slice has too little for that."""
        if self.kind == "transpose":
            return turned(graph, value, tuple(self.what.index(a) for a in range(len(self.what))))
        return reshaped(graph, value, self.before)


class OnnxArray:
    """Memory, and what was done to come to this view of it."""

    __slots__ = ("dtype", "memory", "shape", "views")

    def __init__(self, memory: Memory, views: tuple[View, ...] = ()) -> None:
        self.memory, self.views = memory, views
        self.shape = views[-1].after if views else memory.shape
        self.dtype = memory.dtype

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def strides(self) -> Shape:
        """As if the elements lay in the order of the view."""
        return tuple(math.prod(self.shape[axis + 1 :]) for axis in range(len(self.shape)))

    def __len__(self) -> int:
        return self.shape[0]

    def reshape(self, *shape: Any) -> OnnxArray:
        """The same elements in another shape."""
        after = _without_elements(self.shape).reshape(*shape).shape
        if after == self.shape:
            return self
        return OnnxArray(self.memory, (*self.views, View("reshape", self.shape, after)))

    def transpose(self, axes: Sequence[int]) -> OnnxArray:
        """The axes in another order."""
        order = tuple(axis % len(self.shape) for axis in axes)
        after = tuple(self.shape[axis] for axis in order)
        return OnnxArray(self.memory, (*self.views, View("transpose", self.shape, after, order)))

    def __getitem__(self, key: Any) -> OnnxArray:
        spans = _spans(key if isinstance(key, tuple) else (key,), self.shape)
        after = tuple(len(range(*span)) for span in spans)
        view = self
        if spans != tuple((0, n, 1) for n in self.shape):
            view = OnnxArray(self.memory, (*self.views, View("slice", self.shape, after, spans)))
        return view.reshape(_without_elements(self.shape)[key].shape)

    def read(self) -> Value:
        """Return the elements."""
        views = self.views
        if views and views[0].kind == "slice" and all(step == 1 for _, _, step in views[0].what):
            box = tuple((start, stop) for start, stop, _ in views[0].what)
            known = self.memory.read_box(box)
            if known is not None:
                return _seen(self.memory.graph, known, views[1:])
        return _seen(self.memory.graph, self.memory.read(), views)

    def write(self, value: Value) -> None:
        """Replace the elements."""
        graph = self.memory.graph
        for number in range(len(self.views) - 1, -1, -1):
            view = self.views[number]
            if view.kind != "slice":
                value = view.undone(graph, value)
                continue
            box = tuple((start, stop) for start, stop, _ in view.what)
            if any(step != 1 for _, _, step in view.what):
                raise OnnxExportError("it writes to every other element of an array")
            if number == 0:
                self.memory.write_box(box, value)
                return
            around = Memory(graph, view.before, self.dtype)
            around.write(OnnxArray(self.memory, self.views[:number]).read())
            around.write_box(box, value)
            value = around.read()
        self.memory.write(value)


def _seen(graph: Graph, value: Value, views: Sequence[View]) -> Value:
    for view in views:
        value = view.read(graph, value)
    return value


def _without_elements(shape: Shape) -> NDArray[Any]:
    """An array of a shape, for NumPy to say what comes of it."""
    return np.broadcast_to(np.empty(()), shape)


def _spans(parts: tuple[Any, ...], shape: Shape) -> tuple[tuple[int, int, int], ...]:
    """(start, stop, step) along each axis, from what an index says."""
    given = [part for part in parts if part is not None]
    rest = [slice(None)] * (len(shape) - sum(part is not ... for part in given))
    at = next((i for i, part in enumerate(given) if part is ...), len(given))
    listed = [*given[:at], *rest, *given[at + 1 :]]
    return tuple(
        part.indices(n) if isinstance(part, slice) else (part % n, part % n + 1, 1)
        for part, n in zip(listed, shape, strict=True)
    )


def _are_of_channels(values: Sequence[Value]) -> bool:
    """Whether all values but the first are constants with a number for each channel of it."""
    x, *others = values
    column = (*x.shape[1:2], *[1] * (len(x.shape) - 2))
    return all(v.constant is not None and v.shape == column for v in others)


class OnnxBackend(NumpyBackend):
    """Writes into `graph` what it is asked to compute from inputs of the model."""

    name = "onnx"
    runs_ahead = True  # as a device: so nothing is cut into pieces for the cache

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.takes_parameters = False  # while a model moves here

    def input(self, name: str, host: NDArray[Any]) -> OnnxArray:
        """Return an array that stands for an input of the model."""
        memory = Memory(self.graph, host.shape, host.dtype)
        memory.write(Value(name, host.shape, host.dtype))
        return OnnxArray(memory)

    def allocate(self, shape: Shape, dtype: DType) -> Array:
        """Return an array that nothing is known of."""
        return OnnxArray(Memory(self.graph, tuple(shape), np.dtype(dtype)))

    def upload(self, host: NDArray[Any]) -> Array:
        """Return a constant. Outside of a model, equal numbers are one that is repeated."""
        array = self.allocate(host.shape, host.dtype)
        own = np.array(host)
        first = own.reshape(-1)[:1]
        if not self.takes_parameters and own.size > 1 and (own == first).all():
            array.write(filled(self.graph, first.item(), own.shape, own.dtype))
        else:
            array.write(self.graph.constant(own))
        return array

    def download(self, array: Array) -> NDArray[Any]:
        """Return a constant; what depends on an input has no numbers yet."""
        constant = array.read().constant
        if constant is None:
            raise OnnxExportError("it reads numbers that depend on its input")
        return np.array(constant)

    def fill(self, value: float, out: Array) -> None:
        """Set every element."""
        out.write(filled(self.graph, value, out.shape, out.dtype))

    def copy(self, source: Array, out: Array) -> None:
        """Broadcast and cast."""
        out.write(self._spread(cast(self.graph, source.read(), out.dtype), out.shape))

    def _spread(self, value: Value, shape: Shape) -> Value:
        if value.shape == shape:
            return value
        return self.graph.emit("Expand", [value, shape], shape, value.dtype)

    def elementwise(
        self,
        kernel: Kernel,
        arrays: Sequence[Array],
        scalars: Sequence[float],
        out: Sequence[Array],
    ) -> None:
        """Write the nodes of a kernel."""
        values = [array.read() for array in arrays]
        known = [value.constant for value in values]
        if all(constant is not None for constant in known):
            results = [np.empty(o.shape, o.dtype) for o in out]
            super().elementwise(kernel, known, scalars, results)
            for into, result in zip(out, results, strict=True):
                into.write(self.graph.constant(result))
            return
        if kernel.key == _BATCH_NORM.key and _are_of_channels(values):
            self._batch_norm(values, scalars[0], out[0])
            return
        for into, value in zip(out, write_kernel(self.graph, kernel, values, scalars), strict=True):
            into.write(self._spread(cast(self.graph, value, into.dtype), into.shape))

    def reduce(self, operation: Reduction, array: Array, axes: Shape, out: Array) -> None:
        """Write a reduction; `out` has the shape without the axes."""
        value = array.read()
        if value.constant is not None:
            result = np.empty(out.shape, out.dtype)
            super().reduce(operation, value.constant, axes, result)
            out.write(self.graph.constant(result))
            return
        name = _REDUCTIONS[operation]
        if operation in ("argmax", "argmin"):
            value = cast(self.graph, value, np.dtype(int32)) if value.dtype == bool_ else value
            found = self.graph.emit(
                name, [value], out.shape, np.dtype(np.int64), axis=axes[0], keepdims=0
            )
        elif not axes:
            found = value
        else:
            value = cast(self.graph, value, out.dtype)
            if value.dtype == bool_:
                value = cast(self.graph, value, np.dtype(int32))
            found = self.graph.emit(name, [value, tuple(axes)], out.shape, value.dtype, keepdims=0)
        out.write(cast(self.graph, found, out.dtype))

    def matmul(
        self,
        a: Array,
        b: Array,
        out: Array,
        bias: Array | None = None,
        *,
        sums: Array | None = None,
        epilogue: Epilogue | None = None,
    ) -> None:
        """Write a product: `Gemm` where a matrix of weights stands the other way."""
        if sums is not None:
            self._refuse("the gradient of a weight")
        left, right = a.read(), b.read()
        added = None if bias is None else bias.read()
        source = b.memory.read() if [view.what for view in b.views] == [(1, 0)] else None
        if (
            source is not None
            and source.constant is not None
            and left.constant is None
            and a.ndim == 2
        ):
            found = self.graph.emit("Gemm", [left, source, added], out.shape, out.dtype, transB=1)
        else:
            found = self.graph.emit("MatMul", [left, right], out.shape, out.dtype)
            if added is not None:
                found = self.graph.emit("Add", [found, added], out.shape, out.dtype)
        out.write(found)
        if epilogue is not None:
            epilogue.run(self, out)

    def gather(self, table: Array, index: Array, out: Array) -> None:
        """Write the choice of rows; the numbers are not known, and so not looked at."""
        values = table.read(), index.read()
        out.write(self.graph.emit("Gather", values, out.shape, out.dtype, axis=0))

    def scatter_add(self, source: Array, index: Array, out: Array) -> None:
        """Write the addition to rows."""
        base, numbers, rows = out.read(), index.read(), source.read()
        places = reshaped(self.graph, cast(self.graph, numbers, np.dtype(np.int64)),
                          (*numbers.shape, 1))  # fmt: skip
        out.write(
            self.graph.emit(
                "ScatterND", [base, places, rows], out.shape, out.dtype, reduction="add"
            )
        )

    def dequantize(
        self,
        codes: Array,
        scales: Array,
        code: Code,
        table: BlockTable,
        piece: Piece,
        out: Array,
    ) -> None:
        """Compute what packed weights stand for: they are constants."""
        found = np.empty(out.shape, out.dtype)
        super().dequantize(self.download(codes), self.download(scales), code, table, piece, found)
        out.write(self.graph.constant(found))

    def first_not_finite(self, array: Array, limit: float = math.inf) -> int | None:
        """Look at a constant."""
        return super().first_not_finite(self.download(array), limit)

    @property
    def fused_in_half(self) -> Collection[FusedName]:
        """None: ONNX's own operations are given float32."""
        return ()

    def fused(self, name: FusedName) -> Callable[..., None] | None:
        """Return what writes one operation of ONNX for a composite; its gradient is refused."""
        own: dict[str, Callable[..., None]] = {
            "avg_pool": self._avg_pool,
            "convolution": self._convolution,
            "convolution_input": self._convolution_transpose,
            "cumsum": self._cumsum,
            "layer_norm": self._layer_norm,
            "log_softmax": lambda x, out: self._softmax("LogSoftmax", x, out),
            "max_pool": self._max_pool,
            "recurrence": self._recurrence,
            "softmax": lambda x, out: self._softmax("Softmax", x, out),
            "sort": self._sort,
        }
        if name.removesuffix("_gradient") in own and name not in own:
            return lambda *_: self._refuse("a gradient")
        if name.endswith(("_cell", "_cell_gradient")):
            return lambda *_: self._refuse("a recurrence in anything but float32")
        return own.get(name)

    def _batch_norm(self, values: Sequence[Value], eps: float, out: Array) -> None:
        """What runtimes fold into the convolution before it."""
        x, mean, variance, weight, bias = values
        rows = [reshaped(self.graph, v, (x.shape[1],)) for v in (weight, bias, mean, variance)]
        out.write(
            self.graph.emit("BatchNormalization", [x, *rows], out.shape, out.dtype, epsilon=eps)
        )

    def _refuse(self, what: str) -> NoReturn:
        raise OnnxExportError(f"{what} has no counterpart in ONNX")

    def _softmax(self, operation: str, x: Array, out: Array) -> None:
        out.write(self.graph.emit(operation, [x.read()], out.shape, out.dtype, axis=-1))

    def _layer_norm(
        self, x: Array, weight: Array | None, bias: Array | None, out: Array, _: Array, eps: float
    ) -> None:
        value = x.read()
        if weight is None:
            scale = self.graph.constant(np.ones(x.shape[-1:], x.dtype))
        else:
            scale = weight.read()
        shift = None if bias is None else bias.read()
        out.write(
            self.graph.emit(
                "LayerNormalization", [value, scale, shift], out.shape, out.dtype,
                axis=-1, epsilon=eps,
            )
        )  # fmt: skip

    def _convolution(
        self, geometry: Geometry, x: Array, weight: Array, bias: Array | None, out: Array
    ) -> None:
        w, inputs = (
            geometry.window,
            [x.read(), weight.read(), None if bias is None else bias.read()],
        )
        out.write(
            self.graph.emit(
                "Conv", inputs, out.shape, out.dtype, kernel_shape=w.kernel, strides=w.stride,
                pads=(*w.padding, *w.padding), dilations=w.dilation, group=geometry.groups,
            )
        )  # fmt: skip

    def _convolution_transpose(
        self, geometry: Geometry, x: Array, weight: Array, out: Array
    ) -> None:
        w, g = geometry.window, geometry
        rows = zip(g.lengths, g.places, w.kernel, w.stride, w.padding, w.dilation, strict=True)
        more = tuple(n - ((p - 1) * s - 2 * pad + d * (k - 1) + 1) for n, p, k, s, pad, d in rows)
        out.write(
            self.graph.emit(
                "ConvTranspose", [x.read(), weight.read()], out.shape, out.dtype,
                kernel_shape=w.kernel, strides=w.stride, pads=(*w.padding, *w.padding),
                dilations=w.dilation, group=g.groups, output_padding=more,
            )
        )  # fmt: skip

    def _max_pool(self, w: Window, x: Array, out: Array) -> None:
        out.write(
            self.graph.emit(
                "MaxPool", [x.read()], out.shape, out.dtype, kernel_shape=w.kernel,
                strides=w.stride, pads=(*w.padding, *w.padding), dilations=w.dilation,
            )
        )  # fmt: skip

    def _avg_pool(self, w: Window, x: Array, out: Array) -> None:
        out.write(
            self.graph.emit(
                "AveragePool", [x.read()], out.shape, out.dtype, kernel_shape=w.kernel,
                strides=w.stride, pads=(*w.padding, *w.padding), count_include_pad=1,
            )
        )  # fmt: skip

    def _recurrence(
        self,
        kind: Kind,
        x: Array,
        weight: Array,
        bias: Array | None,
        gates: Array,
        cells: Array | None,
        states: Array,
        lengths: Array | None,
        reverse: bool,
    ) -> None:
        """Write all states, and of the cells the last one, which alone is asked for."""
        time = x.shape[0]
        begin, end, start = (time, 0, 0) if reverse else (0, time, 1)
        first_h = states[begin : begin + 1].read()
        first_c = None if cells is None else cells[begin : begin + 1].read()
        all_states, last, cell = write_recurrence(
            self.graph, kind, x.read(), (first_h, first_c), weight.read(),
            None if bias is None else bias.read(), None if lengths is None else lengths.read(),
            reverse=reverse,
        )  # fmt: skip
        shape = (time, *states.shape[1:])
        states[start : start + time].write(reshaped(self.graph, all_states, shape))
        if lengths is not None:  # behind the end ONNX has zeros; the caller's states stay
            states[end : end + 1].write(last)
        if cells is not None and cell is not None:
            cells[end : end + 1].write(cell)

    def _cumsum(self, x: Array, out: Array, reverse: bool = False) -> None:
        axis = self.graph.constant(np.array(1, np.int64))
        found = self.graph.emit(
            "CumSum", [x.read(), axis], out.shape, out.dtype, reverse=int(reverse)
        )
        out.write(found)

    def _sort(self, x: Array, values: Array, indices: Array, descending: bool) -> None:
        results = [(values.shape, values.dtype), (values.shape, np.dtype(np.int64))]
        found = self.graph.emit_all(
            "TopK", [x.read(), (values.shape[1],)], results, axis=1, largest=int(descending)
        )
        values.write(found[0])
        indices.write(cast(self.graph, found[1], indices.dtype))
