"""Recurrent layers as the ONNX operations `LSTM`, `GRU` and `RNN`.

These take the sequence and the weights of both products, but a backend gets the first product. So
its factors are found in the graph.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from rumus.nn.onnx_graph import Graph, OnnxExportError, Value
from rumus.tensor.operations.recurrent import Kind

# The operation, and its gates as indices into PyTorch's order: i o f c, z r h.
_OPERATIONS: Final[dict[Kind, tuple[str, tuple[int, ...]]]] = {
    "lstm": ("LSTM", (0, 3, 1, 2)),
    "gru": ("GRU", (1, 0, 2)),
    "rnn_tanh": ("RNN", (0,)),
    "rnn_relu": ("RNN", (0,)),
}


def write_recurrence(
    graph: Graph,
    kind: Kind,
    given: Value,
    first: tuple[Value, Value | None],
    weight: Value,
    bias: Value | None,
    lengths: Value | None,
    *,
    reverse: bool,
) -> tuple[Value, Value, Value | None]:
    """Return all states, (time, batch, hidden), the last one, and the last cell of an LSTM.

    given: the product of the sequence with its weight and bias, (time, batch, gates * hidden).
    first: the first state and cell, (1, batch, hidden). The others: see `recurrence`.
    """
    name, order = _OPERATIONS[kind]
    time, batch, _ = given.shape
    hidden = weight.shape[1]
    x, of_input, shift = _factors(graph, given)
    biases = np.concatenate([_sorted(shift, order), _sorted(_zeros(bias, weight), order)])
    inputs = [
        x,
        graph.constant(_sorted(of_input, order)[None]),
        graph.constant(_sorted(_known(weight), order)[None]),
        graph.constant(biases[None]),
        lengths,
        *(value for value in first if value is not None),
    ]
    shapes = [(time, 1, batch, hidden), (1, batch, hidden)]
    shapes += [(1, batch, hidden)] if kind == "lstm" else []
    settings: dict[str, int | str | tuple[str, ...]] = {
        "hidden_size": hidden, "direction": "reverse" if reverse else "forward"
    }  # fmt: skip
    if kind == "gru":
        settings["linear_before_reset"] = 1
    if name == "RNN":
        settings["activations"] = ("Relu" if kind == "rnn_relu" else "Tanh",)
    results = [(shape, given.dtype) for shape in shapes]
    states, last, *cell = graph.emit_all(name, inputs, results, **settings)
    return states, last, cell[0] if cell else None


def _factors(graph: Graph, given: Value) -> tuple[Value, NDArray[np.generic], NDArray[np.generic]]:
    """The sequence, the weight and the bias that make the product `given`."""
    flat = graph.reshaped.get(given.name, given)
    operation, inputs = graph.made.get(flat.name, ("", ()))
    if operation != "Gemm" or not isinstance(inputs[0], Value) or not isinstance(inputs[1], Value):
        raise OnnxExportError("a recurrence over anything but a product has no counterpart in ONNX")
    x, weight, bias = inputs[0], inputs[1], inputs[2]
    assert bias is None or isinstance(bias, Value)
    shape = (*given.shape[:2], weight.shape[1])
    before = graph.reshaped.get(x.name, x)
    if before.shape != shape:
        before = graph.emit("Reshape", [before, shape], shape, x.dtype, allowzero=1)
    return before, _known(weight), _zeros(bias, weight)


def _known(value: Value) -> NDArray[np.generic]:
    if value.constant is None:
        raise OnnxExportError("a recurrence with weights that are computed has no counterpart")
    return value.constant


def _zeros(bias: Value | None, weight: Value) -> NDArray[np.generic]:
    """A bias, or zeros."""
    return np.zeros(weight.shape[0], weight.dtype) if bias is None else _known(bias)


def _sorted(array: NDArray[np.generic], order: tuple[int, ...]) -> NDArray[np.generic]:
    """Reorder the gates, which are blocks of rows."""
    blocks = np.split(array, len(order))
    return np.concatenate([blocks[gate] for gate in order])
