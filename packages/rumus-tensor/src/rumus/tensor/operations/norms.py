"""Layer norm and RMS norm of rows.

Each is written in primitives, which every backend has. A backend may offer a fused version by name
(`backend.fused`), which keeps two numbers per row for its gradient; a test compares the two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.dtype import float16, float32, is_floating, promote
from rumus.tensor.expression.expr import Expr
from rumus.tensor.graph.autograd import SoFar, Vjp
from rumus.tensor.graph.operators import cast, elementwise
from rumus.tensor.graph.tensor import Tensor, backend_of, result_of
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.fused import GRADIENTS

T = TypeVar("T", Tensor, Expr)


@elementwise
def _centered(x: T, total: T, *, share: float) -> T:
    return x - share * total


@elementwise
def _in_range(squares: T) -> T:
    """The squares; NaN where they overflow: divided by inf all would be 0."""
    total: Any = squares
    found: T = (total < math.inf).where(total, math.nan)
    return found


@elementwise
def _normalized(centered: T, squares: T, *, share: float, eps: float) -> T:
    return centered / (share * squares + eps).sqrt()


@elementwise
def _scaled(centered: T, squares: T, weight: T, *, share: float, eps: float) -> T:
    return centered / (share * squares + eps).sqrt() * weight


@elementwise
def _affine(centered: T, squares: T, weight: T, bias: T, *, share: float, eps: float) -> T:
    return centered / (share * squares + eps).sqrt() * weight + bias


def layer_norm_primitive(
    x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """The layer norm in primitives."""
    share = 1 / x.shape[-1]  # sums become means inside the kernels that read them
    centered = _centered(x, x.sum(-1, keepdims=True), share=share)
    squares = _in_range((centered * centered).sum(-1, keepdims=True))
    if weight is None:
        return _normalized(centered, squares, share=share, eps=eps)
    if bias is None:
        return _scaled(centered, squares, weight, share=share, eps=eps)
    return _affine(centered, squares, weight, bias, share=share, eps=eps)


def rms_norm_primitive(x: Tensor, weight: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """The RMS norm in primitives."""
    share, squares = 1 / x.shape[-1], _in_range((x * x).sum(-1, keepdims=True))
    if weight is None:
        return _normalized(x, squares, share=share, eps=eps)
    return _scaled(x, squares, weight, share=share, eps=eps)


@checked_arguments
def layer_norm(
    x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias along the last axis. arXiv:1607.06450.

    x: (..., n), floating; the variance of the centered x, divided by n.
    weight, bias: (n,) or None; a bias needs a weight. float16 is computed in float32.
    eps: positive, added under the root.

    A row whose squares add up to more than its dtype holds (float32: 3e38) is NaN, not 0.

    ValueError if they do not fit, for an empty last axis, and for an eps that is not finite and
    positive; TypeError for an `x` that is not floating.

    >>> from rumus.tensor import layer_norm, tensor
    >>> [round(v, 3) for v in layer_norm(tensor([1.0, 3.0])).tolist()]
    [-1.0, 1.0]
    """
    if bias is not None and weight is None:
        raise ValueError("layer_norm: a bias needs a weight; give ones(...) for the weight")
    return _norm("layer_norm", x, weight, bias, eps)


@checked_arguments
def rms_norm(x: Tensor, weight: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight along the last axis. arXiv:1910.07467.

    Shapes, dtypes and errors are those of `layer_norm`.

    x: floating, of any shape.
    weight: of the normalized shape, None for none.
    eps: positive, added under the root.

    >>> from rumus.tensor import rms_norm, tensor
    >>> [round(v, 3) for v in rms_norm(tensor([3.0, 4.0])).tolist()]
    [0.849, 1.131]
    """
    return _norm("rms_norm", x, weight, None, eps)


Name = Literal["layer_norm", "rms_norm"]


def _check(name: Name, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> None:
    if not is_floating(x.dtype):
        raise TypeError(f"{name}: x must be floating, not {x.dtype}; convert with .astype(float32)")
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"{name}: x of shape {x.shape} has no elements along its last axis")
    for what, t in (("weight", weight), ("bias", bias)):
        if t is not None and t.shape != x.shape[-1:]:
            raise ValueError(
                f"{name}: expected a {what} of shape {x.shape[-1:]}, as the last axis of x, got "
                f"{t.shape}"
            )
    if not 0 < eps < math.inf:
        raise ValueError(f"{name}: eps must be finite and positive, not {eps}")


def _norm(name: Name, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Run the fused kernels if the backend has them, else the primitives."""
    _check(name, x, weight, bias, eps)
    inputs = [t for t in (x, weight, bias) if t is not None]
    backend = backend_of(name, inputs)
    dtype = promote(*(t.dtype for t in inputs))
    wide = float32 if dtype == float16 else dtype
    is_half = dtype == float16 and name in backend.fused_in_half
    if any(t.dtype != (float16 if is_half else wide) for t in inputs):
        parts = [None if t is None else cast(t, wide) for t in (x, weight, bias)]
        result = _norm(name, cast(x, wide), parts[1], parts[2], eps)
        return cast(result, float16) if x.dtype == float16 else result
    forward, back = backend.fused(name), backend.fused(GRADIENTS[name])
    if forward is None or back is None:
        if name == "layer_norm":
            return layer_norm_primitive(x, weight, bias, eps)
        return rms_norm_primitive(x, weight, eps)
    out = backend.allocate(x.shape, dtype)
    statistics = backend.allocate((*x.shape[:-1], 2), wide)
    arrays = [None if t is None else t._array for t in (weight, bias)]
    forward(x._array, *arrays, out, statistics, eps)
    saved = inputs[:2] if weight is not None else inputs[:1]
    vjp = _norm_vjp(name, inputs, weight, statistics)
    return result_of(name, out, backend, inputs, vjp, saved=saved, adding=(0,))


def _norm_vjp(
    name: Name, inputs: Sequence[Tensor], weight: Tensor | None, statistics: Array
) -> Vjp:
    backend, x = inputs[0]._backend, inputs[0]._array
    scale = None if weight is None else weight._array
    wanted = [t.requires_grad for t in inputs]
    back = backend.fused(GRADIENTS[name])
    assert back is not None

    def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array | None]:
        shapes = [t.shape for t in (x, scale, scale) if t is not None]
        shares: list[Array | None] = [None, None, None]
        for i, (is_wanted, into) in enumerate(zip(wanted, destinations, strict=True)):
            if is_wanted and (into is None or i == 0):
                into = backend.allocate(shapes[i], gradient.dtype)
            shares[i] = into if is_wanted else None
        # A residual gradient, as in x + f(norm(x)), is added where the gradient is written.
        added = destinations[0].array if isinstance(destinations[0], SoFar) else None
        back(x, scale, statistics, gradient, *shares, added)
        return shares[: len(wanted)]

    return vjp
