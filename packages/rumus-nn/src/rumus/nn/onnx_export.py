"""`export_onnx`: a model as an ONNX file, for other runtimes."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.nn.module import Module
from rumus.nn.onnx_graph import OPSET, Graph, Node, OnnxExportError, Value, differences, used
from rumus.tensor import Generator, Tensor, TensorLike, no_grad, tensor
from rumus.tensor.expression.arguments import checked_first
from rumus.tensor.expression.whole_number import whole_number
from rumus.tensor.memory.replaced_file import replaced
from rumus.tensor.operations.draws import Draws, Moved

_LARGEST: Final = 2**31 - 2**20  # bytes: a protocol buffer is limited to 2 GiB
_BATCHES: Final = (11, 13)  # sizes that rarely occur as lengths in models


@checked_first
def export_onnx(
    model: Module,
    path: str | os.PathLike[str],
    *inputs: TensorLike,
    input_names: Sequence[str] | None = None,
    batch_axis: int | None = 0,
) -> None:
    """Export what a model computes in evaluation mode as an ONNX file (opset 18).

    The forward pass runs on a backend that records every operation, with two batch sizes: so your
    own functions are exported too, and Python loops and branches are exported as they run for these
    examples.

    model: not changed; it may be on any backend.
    path: of the file.
    inputs: examples; only their shapes and dtypes matter.
    input_names: by default "input", or "input_0", "input_1". The results are "output", or
        "output_0" ... for tuples, or the names in a dict.
    batch_axis: the axis of all inputs with a dynamic length; None for fixed lengths. All other
        lengths are those of the examples. A result may have the batch on any axis.

    OnnxExportError says what cannot be exported, and in which part: random numbers, results that
    Python branches on, constants that depend on the batch size. ImportError without the onnx
    package (the extra `onnx`); OSError if the file cannot be written.

    >>> import tempfile
    >>> from rumus.nn import Linear, ReLU, Sequential, export_onnx
    >>> from rumus.tensor import ones
    >>> model = Sequential(Linear(3, 4), ReLU(), Linear(4, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export_onnx(model, f"{folder}/model.onnx", ones((1, 3)))
    """
    try:
        import onnx
    except ImportError as error:
        raise ImportError(
            'export_onnx needs the onnx package: pip install "rumus-nn[onnx]"'
        ) from error
    if not isinstance(model, Module):
        raise TypeError(f"export_onnx: model must be a Module, not {model!r}")
    batch_axis = None if batch_axis is None else whole_number("batch_axis", batch_axis)
    examples = [x.numpy() if isinstance(x, Tensor) else tensor(x).numpy() for x in inputs]
    names = _names(input_names, len(examples))
    _check_examples(examples, batch_axis)
    traces = [_trace(model, dict(zip(names, given, strict=True)))
              for given in _at_sizes(examples, batch_axis)]  # fmt: skip
    first, last = traces[0], traces[-1]
    found = differences(first.graph, last.graph)
    if found is None and first.outputs.keys() != last.outputs.keys():
        found = "the number of its results depends on the size of the batch"
    if found is not None:
        raise OnnxExportError(f"{type(model).__name__} cannot be exported: {found}")
    writer = _Writer(onnx, first, last, batch_axis)
    data = writer.model().SerializeToString()
    with replaced(Path(path)) as beside:
        beside.write_bytes(data)


def _names(given: Sequence[str] | None, count: int) -> list[str]:
    if count == 0:
        raise ValueError("export_onnx: give an example of each input")
    names = list(given or ([f"input_{i}" for i in range(count)] if count > 1 else ["input"]))
    if len(names) != count or len(set(names)) != count:
        raise ValueError(f"export_onnx: expected {count} different names, got {names}")
    return names


def _check_examples(examples: Sequence[NDArray[Any]], axis: int | None) -> None:
    for number, example in enumerate(examples):
        if axis is not None and not 0 <= axis < example.ndim:
            raise ValueError(
                f"export_onnx: input {number} of shape {example.shape} has no axis {axis}; "
                "batch_axis=None fixes all lengths"
            )


def _at_sizes(examples: Sequence[NDArray[Any]], axis: int | None) -> list[list[NDArray[Any]]]:
    """The examples at two batch sizes; their values do not matter."""
    if axis is None:
        return [list(examples)]
    found = []
    for size in _BATCHES:
        shapes = [(*x.shape[:axis], size, *x.shape[axis + 1 :]) for x in examples]
        found.append([np.zeros(s, x.dtype) for s, x in zip(shapes, examples, strict=True)])
    return found


@dataclass(frozen=True, slots=True)
class _Trace:
    """One run of a model."""

    graph: Graph
    inputs: Mapping[str, Value]
    outputs: Mapping[str, Value]


def _trace(model: Module, examples: Mapping[str, NDArray[Any]]) -> _Trace:
    from rumus.nn.onnx_backend import OnnxBackend  # a backend that only exporting needs

    graph = Graph()
    backend = OnnxBackend(graph)
    backend.takes_parameters = True
    own = copy.deepcopy(model).to(backend).eval()
    backend.takes_parameters = False
    _name_state(own, graph)
    arrays = {name: backend.input(name, example) for name, example in examples.items()}
    inputs = {name: array.read() for name, array in arrays.items()}
    try:
        with no_grad(), _NoDraws().watched():
            result = own(*(Tensor(array, backend) for array in arrays.values()))
        outputs = {name: t._array.read() for name, t in _results(result).items()}
    except OnnxExportError as error:
        where = _where(own, error.__traceback__)
        raise OnnxExportError(f"{where} cannot be exported: {error}") from error
    return _Trace(graph, inputs, outputs)


class _NoDraws(Draws):
    """Refuses random numbers: a file has no stream that could reproduce them."""

    def note(self, moved: Moved) -> None:
        """Refuse a draw."""
        if isinstance(moved, Generator):
            raise OnnxExportError("drawing random numbers has no counterpart in ONNX")


def _name_state(model: Module, graph: Graph) -> None:
    """Give the model's tensors their own names in the file."""
    for path, value in model._state().items():
        memory = value._array.memory
        memory.write(graph.constant(memory.read().constant, path))


def _results(result: Any) -> dict[str, Tensor]:
    if isinstance(result, Tensor):
        return {"output": result}
    if isinstance(result, Mapping):
        found = {str(name): value for name, value in result.items()}
    elif isinstance(result, (tuple, list)):
        found = {f"output_{i}": value for i, value in enumerate(_flat(result))}
    else:
        raise OnnxExportError(f"its result is {type(result).__name__}, and not tensors")
    if odd := [name for name, value in found.items() if not isinstance(value, Tensor)]:
        raise OnnxExportError(f"{odd[0]} of its results is {type(found[odd[0]]).__name__}")
    return found


def _flat(result: Sequence[Any]) -> list[Any]:
    """A flattened result, for nested tuples such as the state of an LSTM."""
    found = []
    for value in result:
        found += _flat(value) if isinstance(value, (tuple, list)) else [value]
    return found


def _where(model: Module, traceback: TracebackType | None) -> str:
    """The innermost module that was running."""
    paths = {id(module): path for path, module in model.named_modules()}
    found = type(model).__name__
    while traceback is not None:
        owner = traceback.tb_frame.f_locals.get("self")
        if isinstance(owner, Module) and paths.get(id(owner)):
            found = f"{paths[id(owner)]} ({type(owner).__name__})"
        traceback = traceback.tb_next
    return found


class _Writer:
    """Merges two traces into one model with a dynamic batch size."""

    def __init__(self, onnx: Any, first: _Trace, last: _Trace, axis: int | None) -> None:
        self.onnx = onnx
        self.first, self.last, self.axis = first, last, axis
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self._batch: str | None = None
        self._renamed: dict[str, str] = {}  # results, by their names in the graph

    def model(self) -> Any:
        """Return the model as a checked onnx object."""
        helper = self.onnx.helper
        kept = used(self.first.graph, list(self.first.outputs.values()))
        made = {name for node in kept for name in node.outputs}
        for name, value in self.first.outputs.items():
            if value.name in made:  # otherwise it is an input or a constant
                self._renamed.setdefault(value.name, name)
        for node in kept:
            self._write(node)
        names = {name for node in kept for name in node.inputs}
        outputs = [self._output(name, value) for name, value in self.first.outputs.items()]
        for name, array in self.first.graph.constants.items():
            if name in names:
                self._initialize(name, array)
        inputs = [
            self._described(name, value, self.last.inputs[name])
            for name, value in self.first.inputs.items()
        ]
        size = sum(each.ByteSize() for each in self.initializers)
        if size >= _LARGEST:
            raise OnnxExportError(f"its weights take {size:,} bytes; one file holds {_LARGEST:,}")
        graph = helper.make_graph(self.nodes, "model", inputs, outputs, self.initializers)
        found = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="rumus",
            ir_version=8,
        )  # fmt: skip
        self.onnx.checker.check_model(found)
        return found

    def _write(self, node: Node) -> None:
        inputs = [
            self._lengths(name, node.operation)
            if name in self.first.graph.lengths
            else self._renamed.get(name, name)
            for name in node.inputs
        ]
        outputs = [self._renamed.get(name, name) for name in node.outputs]
        settings: dict[str, Any] = dict(node.attributes)
        if node.operation == "Cast":
            settings["to"] = self._type(np.dtype(settings["to"]))
        while inputs and not inputs[-1]:
            inputs.pop()
        self.nodes.append(self.onnx.helper.make_node(node.operation, inputs, outputs, **settings))

    def _output(self, name: str, value: Value) -> Any:
        """Give a result its name."""
        helper = self.onnx.helper
        if value.constant is not None:
            self._initialize(f"{name} as it is", value.constant)
            self.nodes.append(helper.make_node("Identity", [f"{name} as it is"], [name]))
        elif self._renamed.get(value.name) != name:
            before = self._renamed.get(value.name, value.name)
            self.nodes.append(helper.make_node("Identity", [before], [name]))
        return self._described(name, value, self.last.outputs[name])

    def _described(self, name: str, a: Value, b: Value) -> Any:
        """An input or a result, in both traces."""
        shape = self._shape(a, b)
        return self.onnx.helper.make_tensor_value_info(name, self._type(a.dtype), shape)

    def _shape(self, a: Value, b: Value) -> list[int | str]:
        """The lengths of a tensor; "batch", or another name, if they differ."""
        found: list[int | str] = []
        for n, m in zip(a.shape, b.shape, strict=True):
            scale, offset = _line(n, m)
            other = f"{scale} * batch + {offset}" if (scale, offset) != (1, 0) else "batch"
            found.append(n if n == m else other)
        return found

    def _lengths(self, name: str, operation: str) -> str:
        """Lengths that a node reads: numbers, or computed from the batch size."""
        a, b = self.first.graph.lengths[name], self.last.graph.lengths[name]
        differing = [i for i, (n, m) in enumerate(zip(a, b, strict=True)) if n != m]
        if operation == "Reshape" and len(differing) == 1 and 0 not in a:
            a = b = tuple(-1 if i == differing[0] else n for i, n in enumerate(a))
        if a == b:
            return self._integers(a)
        scales, offsets = zip(*(_line(n, m) for n, m in zip(a, b, strict=True)), strict=True)
        self._emit("Mul", [self._size(), self._integers(scales)], f"{name}_scaled")
        return self._emit("Add", [f"{name}_scaled", self._integers(offsets)], name)

    def _size(self) -> str:
        """The batch size at run time."""
        if self._batch is None:
            first = next(iter(self.first.inputs))
            self._emit("Shape", [first], "all_lengths")
            axis = self._integers((self.axis or 0,))
            self._batch = self._emit("Gather", ["all_lengths", axis], "batch_size")
        return self._batch

    def _emit(self, operation: str, inputs: list[str], output: str) -> str:
        self.nodes.append(self.onnx.helper.make_node(operation, inputs, [output]))
        return output

    def _integers(self, values: tuple[int, ...]) -> str:
        name = "lengths_" + "_".join(str(value) for value in values)
        if all(each.name != name for each in self.initializers):
            self._initialize(name, np.array(values, np.int64))
        return name

    def _initialize(self, name: str, array: NDArray[Any]) -> None:
        """Add a constant to the file."""
        whole = np.ascontiguousarray(array).reshape(array.shape)
        self.initializers.append(self.onnx.numpy_helper.from_array(whole, name))

    def _type(self, dtype: np.dtype[Any]) -> int:
        return int(self.onnx.helper.np_dtype_to_tensor_dtype(dtype))


def _line(n: int, m: int) -> tuple[int, int]:
    """How a length depends on the batch size: scale and offset."""
    if n == m:
        return 0, n
    scale, rest = divmod(m - n, _BATCHES[1] - _BATCHES[0])
    if rest:
        raise OnnxExportError(
            f"a length of {n} for a batch of {_BATCHES[0]} and {m} for {_BATCHES[1]} is not "
            "a multiple of the batch"
        )
    return scale, n - scale * _BATCHES[0]
