"""Softmax, log-softmax and log-sum-exp.

Each is written in primitives, which every backend has. A backend may offer a fused version by name
(`backend.fused`); one test holds the two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.dtype import float16, float32, is_floating
from rumus.tensor.graph.operators import cast
from rumus.tensor.graph.reduction import normalize_axis
from rumus.tensor.graph.tensor import Tensor, result_of
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.fused import GRADIENTS


def _floating(x: Tensor) -> Tensor:
    return x if is_floating(x.dtype) else cast(x, float32)


@checked_arguments
def logsumexp(x: Tensor, axis: int = -1, keepdims: bool = False) -> Tensor:
    """log(sum(exp(x))) along `axis`; the largest element is subtracted first.

    x: floating, of any shape.
    axis: a number, or several; None for all.
    keepdims: keep the axes that are reduced, with length 1.
    """
    if x.dtype == float16:
        return cast(logsumexp(cast(x, float32), axis, keepdims), float16)
    x = _floating(x)
    at = normalize_axis(axis, x.ndim, "logsumexp")
    # Any constant may be subtracted; if the largest is infinite, 0 avoids inf - inf.
    largest = x.detach().max(at, keepdims=True)
    shift = (largest.abs() < float("inf")).where(largest, 0.0)
    total = (x - shift).exp().sum(at, keepdims=True).log() + shift
    return total if keepdims else total.squeeze(at)


def softmax_primitive(x: Tensor, axis: int = -1) -> Tensor:
    """The softmax in primitives."""
    shifted = (x - x.detach().max(axis, keepdims=True)).exp()
    return shifted / shifted.sum(axis, keepdims=True)


def log_softmax_primitive(x: Tensor, axis: int = -1) -> Tensor:
    """The log-softmax in primitives."""
    shifted = x - x.detach().max(axis, keepdims=True)  # first: next to x its logarithm may be lost
    return shifted - shifted.exp().sum(axis, keepdims=True).log()


@checked_arguments
def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """exp(x) / sum(exp(x)) along an axis.

    x: floating.
    axis: along which the results add up to 1.
    """
    return _rows("softmax", x, axis)


@checked_arguments
def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """log(softmax(x)) along an axis, accurate where the softmax would round to 0.

    x: floating.
    axis: along which the probabilities add up to 1.
    """
    return _rows("log_softmax", x, axis)


_PRIMITIVES = {"softmax": softmax_primitive, "log_softmax": log_softmax_primitive}


def _rows(name: Literal["softmax", "log_softmax"], x: Tensor, axis: int) -> Tensor:
    """Run a row kernel along the last axis if the backend has it, else its primitives."""
    if x.dtype == float16:
        return cast(_rows(name, cast(x, float32), axis), float16)
    x = _floating(x)
    if x.ndim == 0 and axis in (0, -1):  # the one number of a row
        return _rows(name, x.reshape(1), 0).reshape(())
    at = normalize_axis(axis, x.ndim, name)
    if x.size == 0:
        return x.exp()
    backend = x._backend
    forward, back = backend.fused(name), backend.fused(GRADIENTS[name])
    if at != x.ndim - 1 or forward is None or back is None:
        found = _PRIMITIVES[name](x, at)
        if found._node is not None:
            found._node.name = name  # rather than that of the last primitive
        return found
    out = backend.allocate(x.shape, x.dtype)
    forward(x._array, out)

    def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array]:
        into = backend.allocate(out.shape, out.dtype)
        back(out, gradient, into)
        return (into,)

    return result_of(name, out, backend, (x,), vjp, reads_result=True)
