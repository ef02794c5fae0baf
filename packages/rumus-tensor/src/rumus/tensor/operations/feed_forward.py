"""`feed_forward`: two products around an activation; only the activation's input is kept.

The hidden layer of a transformer is its widest. Its activation is needed again in backward, for the
gradient of the second weight, and recomputing it there is free: the product that computes the
gradient reads the activation's input anyway, and writes both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import compress
from typing import Any

from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.dtype import is_floating
from rumus.tensor.expression.kernel import Kernel
from rumus.tensor.graph.autograd import Product, Vjp, is_recording
from rumus.tensor.graph.operators import in_place, kernel_of
from rumus.tensor.graph.tensor import Tensor, backend_of, result_of
from rumus.tensor.memory.backend import Array, Epilogue
from rumus.tensor.memory.reshaping import reshaped
from rumus.tensor.operations.linear import check_fit, ending, linear, weight_gradients


@checked_arguments
def feed_forward(
    x: Tensor,
    up: Tensor,
    up_bias: Tensor | None,
    down: Tensor,
    down_bias: Tensor | None,
    *,
    activation: Callable[[Any], Any],
    residual: Tensor | None = None,
) -> Tensor:
    """activation(x @ up^T + up_bias) @ down^T + down_bias + residual.

    x: (..., in).
    up: (hidden, in).
    up_bias: of the first product, None for none.
    down: (out, hidden).
    down_bias: of the second product, None for none.
    activation: a function of a tensor.
    residual: (..., out), added to the result, which has this shape.

    ValueError if they do not fit. It equals two `linear` calls, and becomes them if the activation
    is not an `elementwise` function or if dtypes differ.

    >>> from rumus.tensor import feed_forward, relu, tensor
    >>> x, up, down = tensor([[1.0, 2.0]]), tensor([[3.0, 1.0], [-1.0, 0.0]]), tensor([[2.0, 9.0]])
    >>> feed_forward(x, up, None, down, None, activation=relu).tolist()
    [[10.0]]
    """
    known = kernel_of(activation)
    tensors = [t for t in (x, up, up_bias, down, down_bias, residual) if t is not None]
    is_uniform = is_floating(x.dtype) and all(t.dtype == x.dtype for t in tensors)
    is_kept = is_recording() and any(t.requires_grad for t in tensors)
    if known is None or not is_uniform or not is_kept or len(known[0].arrays) != 1:
        hidden = linear(x, up, up_bias, activation=activation)
        return linear(hidden, down, down_bias, residual=residual)
    check_fit(x.shape, up, up_bias, None)
    check_fit((*x.shape[:-1], up.shape[0]), down, down_bias, residual)
    backend = backend_of("feed_forward", tensors)
    there, back = _ways(known[0])
    rows = reshaped(backend, x._array, (math.prod(x.shape[:-1]), x.shape[-1]))
    z, hidden = (backend.allocate((rows.shape[0], up.shape[0]), x.dtype) for _ in range(2))
    epilogue = Epilogue(there, (), there.bind(known[1]), (hidden,))
    backend.matmul(rows, _turned(up), z, _array(up_bias), epilogue=epilogue)
    out = backend.allocate((rows.shape[0], down.shape[0]), x.dtype)
    added = None if residual is None else reshaped(backend, residual._array, out.shape)
    last = ending(None, residual is not None, True).epilogue({}, out, added)
    backend.matmul(hidden, _turned(down), out, _array(down_bias), epilogue=last)
    way_back = _Back(back, back.bind(known[1]), rows, z)
    vjp = _feed_forward_vjp(x, up, up_bias, down, down_bias, residual, way_back)
    shaped = out.reshape((*x.shape[:-1], down.shape[0]))
    saved = x, up, down
    return result_of("feed_forward", shaped, backend, tensors, vjp, saved, fills_places=True)


def _array(t: Tensor | None) -> Array | None:
    return None if t is None else t._array


def _turned(weight: Tensor) -> Array:
    return weight._array.transpose((1, 0))


@dataclass(frozen=True, slots=True)
class _Back:
    """Kept for backward: its kernel, the rows of the input, the hidden layer's z."""

    kernel: Kernel
    scalars: Sequence[float]
    rows: Array
    z: Array


def _feed_forward_vjp(
    x: Tensor,
    up_weight: Tensor,
    up_bias: Tensor | None,
    down_weight: Tensor,
    down_bias: Tensor | None,
    residual: Tensor | None,
    kept: _Back,
) -> Vjp:
    tensors = x, up_weight, up_bias, down_weight, down_bias, residual
    present = [t is not None for t in tensors]
    wanted = [t is not None and t.requires_grad for t in tensors]
    backend, up, down, shape = x._backend, up_weight._array, down_weight._array, x.shape

    def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array | None]:
        given = iter(destinations)
        into = [next(given) if is_there else None for is_there in present]
        g = reshaped(backend, gradient, (kept.rows.shape[0], down.shape[0]))
        product = Product(backend, g, down, kept.z.shape, kept.z.shape)
        of_z, hidden = product.through(kept.kernel, [kept.z], kept.scalars)
        of_down = weight_gradients(backend, g, hidden, (into[3], into[4]), (wanted[3], wanted[4]))
        del hidden
        of_up = weight_gradients(
            backend, of_z, kept.rows, (into[1], into[2]), (wanted[1], wanted[2])
        )
        of_x = Product(backend, of_z, up, kept.rows.shape, shape) if wanted[0] else None
        of_residual = gradient if wanted[5] else None
        return list(compress((of_x, *of_up, *of_down, of_residual), present))

    return vjp


@cache
def _ways(activation: Kernel) -> tuple[Kernel, Kernel]:
    """The activation's kernel, and the one for backward: the gradient and the result."""
    (name,), (result,) = activation.arrays, activation.outputs.values()
    there = Kernel(f"linear_{activation.name}", {f"{name}_result": result}, (name,))
    derivative = in_place(activation.gradient((name,)))
    gradient = derivative.arrays[0]
    outputs = {**derivative.outputs, f"{name}_result": result}
    return there, Kernel(derivative.name, outputs, (gradient, name))
