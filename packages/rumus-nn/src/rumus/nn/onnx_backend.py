"""A backend that computes nothing: it writes every operation as ONNX.

So everything a model does in its forward pass is exported, including its own kernels, through the
few operations that every backend has. Values that depend on no input are computed immediately with
NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from rumus.nn.batch_norm import running_affine
from rumus.nn.onnx_array import Memory, OnnxArray, filled, reshaped
from rumus.nn.onnx_elementwise import cast, write_kernel
from rumus.nn.onnx_graph import Attribute, Graph, OnnxExportError, Operand, Value
from rumus.nn.onnx_recurrent import write_recurrence
from rumus.tensor import DType, Kernel, NumpyBackend, bool_, int32
from rumus.tensor.expression.kernel import trace
from rumus.tensor.memory.backend import Array, Epilogue, Reduction, Shape
from rumus.tensor.memory.fused import FusedName
from rumus.tensor.memory.quantization import BlockTable, Code, Piece
from rumus.tensor.memory.window import Window
from rumus.tensor.operations.convolution import Geometry
from rumus.tensor.operations.recurrent import Kind

_REDUCTIONS = {"sum": "ReduceSum", "prod": "ReduceProd", "norm": "ReduceL2",
               "max": "ReduceMax", "min": "ReduceMin",
               "argmax": "ArgMax", "argmin": "ArgMin"}  # fmt: skip


# With running statistics, in evaluation.
_BATCH_NORM: Final = trace(running_affine)


def _optional(array: Array | None) -> Value | None:
    """Return an array's value, None for an omitted input."""
    return None if array is None else array.read()


def _settings(window: Window) -> dict[str, tuple[int, ...]]:
    """A window as attributes of ONNX operations."""
    return {
        "kernel_shape": window.kernel,
        "strides": window.stride,
        "pads": (*window.padding, *window.padding),
    }


def _are_of_channels(values: Sequence[Value]) -> bool:
    """Whether all values but the first are constants with one number per channel."""
    x, *others = values
    column = (*x.shape[1:2], *[1] * (len(x.shape) - 2))
    return all(v.constant is not None and v.shape == column for v in others)


class OnnxBackend(NumpyBackend):
    """Writes into `graph` all operations on the model's inputs."""

    name = "onnx"
    runs_ahead = True  # like a device, so that nothing is split into pieces for the cache

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.takes_parameters = False  # while a model is being moved here

    def input(self, name: str, host: NDArray[Any]) -> OnnxArray:
        """Return an array that represents an input of the model."""
        memory = Memory(self.graph, host.shape, host.dtype)
        memory.write(Value(name, host.shape, host.dtype))
        return OnnxArray(memory)

    def allocate(self, shape: Shape, dtype: DType) -> Array:
        """Return an array of unknown content."""
        return OnnxArray(Memory(self.graph, tuple(shape), np.dtype(dtype)))

    def upload(self, host: NDArray[Any]) -> Array:
        """Return a constant. Outside a model, equal numbers share one constant."""
        array = self.allocate(host.shape, host.dtype)
        own = np.array(host)
        first = own.reshape(-1)[:1]
        if not self.takes_parameters and own.size > 1 and (own == first).all():
            array.write(filled(self.graph, first.item(), own.shape, own.dtype))
        else:
            array.write(self.graph.constant(own))
        return array

    def download(self, array: Array) -> NDArray[Any]:
        """Return a constant; values that depend on an input have no numbers yet."""
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

    def _write(
        self, operation: str, inputs: Sequence[Operand], out: Array, **attributes: Attribute
    ) -> None:
        """Write an operation whose result is all of `out`."""
        out.write(self.graph.emit(operation, inputs, out.shape, out.dtype, **attributes))

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
            found = (
                value
                if operation != "norm"
                else self.graph.emit("Abs", [value], out.shape, value.dtype)
            )
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
        symmetric: bool = False,
    ) -> None:
        """Write a product: `Gemm` if a weight matrix is transposed."""
        if sums is not None:
            self._refuse("the gradient of a weight")
        left, right = a.read(), b.read()
        added = _optional(bias)
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
        """Write a row lookup; the indices are unknown, so they are not checked."""
        self._write("Gather", [table.read(), index.read()], out, axis=0)

    def scatter_add(self, source: Array, index: Array, out: Array) -> None:
        """Write the addition to rows."""
        base, numbers, rows = out.read(), index.read(), source.read()
        places = reshaped(self.graph, cast(self.graph, numbers, np.dtype(np.int64)),
                          (*numbers.shape, 1))  # fmt: skip
        self._write("ScatterND", [base, places, rows], out, reduction="add")

    def dequantize(
        self,
        codes: Array,
        scales: Array,
        code: Code,
        table: BlockTable,
        piece: Piece,
        out: Array,
    ) -> None:
        """Decode packed weights, which are constants."""
        found = np.empty(out.shape, out.dtype)
        super().dequantize(self.download(codes), self.download(scales), code, table, piece, found)
        out.write(self.graph.constant(found))

    def first_not_finite(self, array: Array, limit: float = math.inf) -> int | None:
        """Check a constant."""
        return super().first_not_finite(self.download(array), limit)

    @property
    def fused_in_half(self) -> Collection[FusedName]:
        """None: ONNX operations get float32."""
        return ()

    def fused(self, name: FusedName) -> Callable[..., None] | None:
        """Return a function that writes a composite as one ONNX operation; not for gradients."""
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
        """Batch norm, which runtimes fold into the convolution before it."""
        x, mean, variance, weight, bias = values
        rows = [reshaped(self.graph, v, (x.shape[1],)) for v in (weight, bias, mean, variance)]
        self._write("BatchNormalization", [x, *rows], out, epsilon=eps)

    def _refuse(self, what: str) -> NoReturn:
        raise OnnxExportError(f"{what} has no counterpart in ONNX")

    def _softmax(self, operation: str, x: Array, out: Array) -> None:
        self._write(operation, [x.read()], out, axis=-1)

    def _layer_norm(
        self, x: Array, weight: Array | None, bias: Array | None, out: Array, _: Array, eps: float
    ) -> None:
        value = x.read()
        if weight is None:
            scale = self.graph.constant(np.ones(x.shape[-1:], x.dtype))
        else:
            scale = weight.read()
        inputs = [value, scale, _optional(bias)]
        self._write("LayerNormalization", inputs, out, axis=-1, epsilon=eps)

    def _convolution(
        self, geometry: Geometry, x: Array, weight: Array, bias: Array | None, out: Array
    ) -> None:
        w, inputs = geometry.window, [x.read(), weight.read(), _optional(bias)]
        self._write(
            "Conv", inputs, out, **_settings(w), dilations=w.dilation, group=geometry.groups
        )

    def _convolution_transpose(
        self, geometry: Geometry, x: Array, weight: Array, out: Array
    ) -> None:
        w, g = geometry.window, geometry
        rows = zip(g.lengths, g.places, w.kernel, w.stride, w.padding, w.dilation, strict=True)
        more = tuple(n - ((p - 1) * s - 2 * pad + d * (k - 1) + 1) for n, p, k, s, pad, d in rows)
        self._write(
            "ConvTranspose", [x.read(), weight.read()], out, **_settings(w), dilations=w.dilation,
            group=g.groups, output_padding=more,
        )  # fmt: skip

    def _max_pool(self, w: Window, x: Array, out: Array) -> None:
        self._write("MaxPool", [x.read()], out, **_settings(w), dilations=w.dilation)

    def _avg_pool(self, w: Window, x: Array, out: Array) -> None:
        self._write("AveragePool", [x.read()], out, **_settings(w), count_include_pad=1)

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
        """Write all states, and only the last cell, since no other is used."""
        time = x.shape[0]
        begin, end, start = (time, 0, 0) if reverse else (0, time, 1)
        first_h = states[begin : begin + 1].read()
        first_c = None if cells is None else cells[begin : begin + 1].read()
        all_states, last, cell = write_recurrence(
            self.graph, kind, x.read(), (first_h, first_c), weight.read(),
            _optional(bias), _optional(lengths), reverse=reverse,
        )  # fmt: skip
        shape = (time, *states.shape[1:])
        states[start : start + time].write(reshaped(self.graph, all_states, shape))
        if lengths is not None:  # beyond the end ONNX has zeros; here the states stay unchanged
            states[end : end + 1].write(last)
        if cells is not None and cell is not None:
            cells[end : end + 1].write(cell)

    def _cumsum(self, x: Array, out: Array, reverse: bool = False) -> None:
        axis = self.graph.constant(np.array(1, np.int64))
        self._write("CumSum", [x.read(), axis], out, reverse=int(reverse))

    def _sort(self, x: Array, values: Array, indices: Array, descending: bool) -> None:
        results = [(values.shape, values.dtype), (values.shape, np.dtype(np.int64))]
        found = self.graph.emit_all(
            "TopK", [x.read(), (values.shape[1],)], results, axis=1, largest=int(descending)
        )
        values.write(found[0])
        indices.write(cast(self.graph, found[1], indices.dtype))
