"""Batch norm: normalizes each channel to mean 0 and variance 1 over the batch.

It is written in primitives, which every backend has. A backend may offer a fused version by name
(`backend.fused`): `batch_norm` and `batch_norm_gradient`; a test compares the two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.dtype import float16, float32, float64
from rumus.tensor.graph.autograd import Vjp
from rumus.tensor.graph.operators import cast
from rumus.tensor.graph.tensor import Tensor, backend_of, result_of
from rumus.tensor.memory.backend import Array
from rumus.tensor.operations.norms import _affine, _centered, _in_range, _normalized


@checked_arguments
def batch_norm(
    x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> tuple[Tensor, Tensor, Tensor]:
    """(x - mean) / sqrt(variance + eps) * weight + bias, of each channel. arXiv:1502.03167.

    x: (batch, channels, ...), floating; the variance is divided by n. float16 is computed in
        float32.
    weight, bias: (channels,), both or neither.
    eps: positive, added under the root.

    Result: a tensor of x's shape and, without gradients, each channel's sum of x and sum of squared
        deviations from the mean, both (channels,), float32 for a float16 x. A channel whose squares
        overflow is NaN, as in `layer_norm`. ValueError for shapes that do not fit and for an eps
        that is not finite and positive, TypeError for an `x` that is not floating.

    >>> from rumus.tensor import batch_norm, tensor
    >>> y, total, squares = batch_norm(tensor([[1.0], [3.0]]))
    >>> [round(v, 3) for v in y.flatten().tolist()], total.tolist(), squares.tolist()
    ([-1.0, 1.0], [4.0], [2.0])
    """
    if x.ndim < 2 or x.size == 0:
        raise ValueError(f"batch_norm: expected (batch, channels, ...), got {x.shape}")
    if x.dtype.kind != "f":
        raise TypeError(f"batch_norm: x must be floating, not {x.dtype}")
    if (weight is None) != (bias is None):
        raise ValueError("batch_norm: give both weight and bias, or neither")
    if not 0 < eps < math.inf:
        raise ValueError(f"batch_norm: eps must be finite and positive, not {eps}")
    inputs = [t for t in (x, weight, bias) if t is not None]
    if any(t.shape != (x.shape[1],) for t in inputs[1:]):
        shapes = " and ".join(str(t.shape) for t in inputs[1:])
        raise ValueError(f"batch_norm: expected weight and bias of ({x.shape[1]},), got {shapes}")
    backend = backend_of("batch_norm", inputs)
    if x.dtype == float16:  # the sums of a few hundred numbers leave it
        scale, shift = (None if t is None else cast(t, float32) for t in (weight, bias))
        result, total, squares = batch_norm(cast(x, float32), scale, shift, eps)
        return cast(result, float16), total, squares
    same = len({t.dtype for t in inputs}) == 1 and x.dtype in (float32, float64)
    forward, back = backend.fused("batch_norm"), backend.fused("batch_norm_gradient")
    if forward is None or back is None or not same:
        return batch_norm_primitive(x, weight, bias, eps)
    out = backend.allocate(x.shape, x.dtype)
    total, squares = (backend.allocate((x.shape[1],), x.dtype) for _ in range(2))
    arrays = [None if t is None else t._array for t in (weight, bias)]
    forward(x._array, *arrays, out, total, squares, eps)
    vjp = _vjp(inputs, total, squares, eps)
    result = result_of("batch_norm", out, backend, inputs, vjp, saved=inputs[:2])
    return result, Tensor(total, backend), Tensor(squares, backend)


def batch_norm_primitive(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The batch norm in primitives."""
    channels, axes = x.shape[1], (0, *range(2, x.ndim))
    share = 1 / math.prod(x.shape[axis] for axis in axes)
    total = x.sum(axes, keepdims=True)
    centered = _centered(x, total, share=share)
    squares = _in_range((centered * centered).sum(axes, keepdims=True))
    if weight is None or bias is None:
        result = _normalized(centered, squares, share=share, eps=eps)
    else:
        column = (channels, *[1] * (x.ndim - 2))
        scale, shift = weight.reshape(*column), bias.reshape(*column)
        result = _affine(centered, squares, scale, shift, share=share, eps=eps)
    return result, total.detach().reshape(channels), squares.detach().reshape(channels)


def _vjp(inputs: Sequence[Tensor], total: Array, squares: Array, eps: float) -> Vjp:
    backend, x = inputs[0]._backend, inputs[0]._array
    scale = inputs[1]._array if len(inputs) > 1 else None
    wanted = [t.requires_grad for t in inputs]
    back = backend.fused("batch_norm_gradient")
    assert back is not None

    def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array | None]:
        shapes = (x.shape, total.shape, total.shape)
        shares: list[Array | None] = [None, None, None]
        for i, (is_wanted, into) in enumerate(zip(wanted, destinations, strict=True)):
            if is_wanted:
                shares[i] = backend.allocate(shapes[i], x.dtype) if into is None else into
        back(x, scale, total, squares, gradient, *shares, eps)
        return shares[: len(wanted)]

    return vjp
