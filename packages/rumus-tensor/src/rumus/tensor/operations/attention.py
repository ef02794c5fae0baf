"""Scaled dot-product attention: values averaged by how well their keys match a query.

It is written in primitives, which every backend has. A backend may offer a fused version by name
(`backend.fused`), which never stores the weights; a test compares the two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.dtype import DType, bool_, float16, float32, float64, is_floating
from rumus.tensor.expression.expr import Expr
from rumus.tensor.expression.real_number import real_number
from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.graph.operators import cast, elementwise
from rumus.tensor.graph.tensor import Tensor, backend_of, result_of, tensor
from rumus.tensor.memory.backend import Array, Backend
from rumus.tensor.memory.recording import ask_host

T = TypeVar("T", Tensor, Expr)

# The score of hidden keys. Finite, so that a row of only these has no NaN, and below any score that
# is a number; a mask's -inf or lowest number counts as it.
HIDDEN: Final = -3e38
HIDDEN_WIDE: Final = -1.7e308  # among scores in float64
FUSED_SIZE: Final = 256  # the widest heads for fused versions
KEPT: Final = 16  # causal masks
_masks: dict[tuple[int, Backend], Tensor] = {}  # the most recently used last


# A score below that of hidden keys has overflowed. It becomes NaN, since a row of such scores would
# attend to the hidden keys.
@elementwise
def _hidden(scores: T, visible: T, *, hidden: float) -> T:
    return visible.where((scores < hidden).where(math.nan, scores), hidden)


@elementwise
def _masked(scores: T, mask: T, *, hidden: float) -> T:
    total = scores + mask
    known = (scores < hidden).where(math.nan, (total <= hidden).where(hidden, total))
    return (mask <= HIDDEN).where(hidden, known)


@elementwise
def _cleared(weights: T, scores: T, *, hidden: float) -> T:
    return (scores <= hidden).where(0.0, weights)


@checked_arguments
def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """softmax(query key^T scale + mask) value. Vaswani et al.: arXiv:1706.03762, equation 1.

    query: (..., heads, queries, size).
    key: (..., heads or fewer, keys, size).
    value: like key, but its size may differ. Groups of consecutive query heads share the heads of
        keys and values: arXiv:2305.13245.
    mask: (queries, keys), or with leading axes for heads and batch, broadcast. Boolean: True where
        a query may attend. Floating: added to the scores; -inf and the lowest float32 hide a key.
    causal: query i attends only to keys 0 .. i, in addition to the mask; there must be as many
        queries as keys. A query that may attend to nothing gets zeros.
    scale: by default 1 / sqrt(size). float16 is computed in float32.

    Result: (..., heads, queries, size of value). ValueError for shapes that do not fit, TypeError
        for wrong dtypes.

    >>> from rumus.tensor import scaled_dot_product_attention, tensor
    >>> x = tensor([[[1.0, 0.0], [0.0, 1.0]]])
    >>> scaled_dot_product_attention(x, x, x, causal=True)[0, 0].tolist()
    [1.0, 0.0]
    """
    _check_shapes(query, key, value, causal)
    _check_mask(query, key, mask)
    tensors = [query, key, value]
    scale = _checked_scale(query, scale)
    backend = backend_of("attention", tensors if mask is None else [*tensors, mask])
    is_narrow = max(query.shape[-1], value.shape[-1]) <= FUSED_SIZE
    if mask is None and is_narrow and _is_fused(backend, query.dtype):
        return _fused(backend, query, key, value, causal, scale)
    if query.dtype == float16:
        wide = [cast(t, float32) for t in tensors]
        wide_mask = cast(mask, float32) if mask is not None and mask.dtype == float16 else mask
        result = scaled_dot_product_attention(
            wide[0], wide[1], wide[2], mask=wide_mask, causal=causal, scale=scale
        )
        return cast(result, float16)
    weights = attention_weights(query, key, mask=mask, causal=causal, scale=scale)
    return weighted_values(weights, value)


@checked_arguments
def attention_weights(
    query: Tensor,
    key: Tensor,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """softmax(query key^T scale + mask): (..., heads, queries, keys).

    Use it to change the weights themselves, as dropout does. Arguments and errors are those of
    `scaled_dot_product_attention`.

    query: (..., positions, size).
    key: (..., keys, size).
    mask: see `scaled_dot_product_attention`.
    causal: a position attends only to itself and earlier ones.
    scale: of the products, by default 1 / sqrt(size).
    """
    _check_shapes(query, key, key, causal)
    _check_mask(query, key, mask)
    query = query * _checked_scale(query, scale)
    if _shares_heads(query, key):
        grouped = _grouped(query, key.shape[-3]) @ key.unsqueeze(-3).transpose()
        scores = grouped.reshape(*query.shape[:-1], key.shape[-2])
    else:
        scores = query @ key.transpose()
    hidden = HIDDEN_WIDE if query.dtype == float64 else HIDDEN
    if mask is not None:
        hide = _hidden if mask.dtype == bool_ else _masked
        scores = hide(scores, mask, hidden=hidden)
    if causal:
        scores = _hidden(scores, causal_mask(query.shape[-2], query.backend), hidden=hidden)
    weights = scores.softmax()
    return weights if mask is None else _cleared(weights, scores, hidden=hidden)


@checked_arguments
def weighted_values(weights: Tensor, value: Tensor) -> Tensor:
    """weights @ value; groups of heads of `weights` share the heads of `value`.

    weights: (..., heads, queries, keys).
    value: (..., heads or fewer, keys, size).

    Result: (..., heads, queries, size). ValueError if they do not fit.
    """
    if min(weights.ndim, value.ndim) > 2 and weights.shape[-3] % max(value.shape[-3], 1):
        raise ValueError(
            f"weighted_values: {weights.shape[-3]} heads of weights are not a multiple of "
            f"{value.shape[-3]} heads of values"
        )
    if not _shares_heads(weights, value):
        return weights @ value
    grouped = _grouped(weights, value.shape[-3]) @ value.unsqueeze(-3)
    return grouped.reshape(*weights.shape[:-1], value.shape[-1])


def _checked_scale(query: Tensor, scale: float | None) -> float:
    if scale is None:
        return 1 / math.sqrt(query.shape[-1])
    if not math.isfinite(real_number("attention: scale", scale)):
        raise ValueError(f"attention: scale must be finite, not {scale}")
    return scale


def _shares_heads(query: Tensor, key: Tensor) -> bool:
    return min(query.ndim, key.ndim) > 2 and query.shape[-3] != key.shape[-3]


def _grouped(x: Tensor, shared: int) -> Tensor:
    """(..., heads, n, m) as (..., shared, heads / shared, n, m)."""
    *batch, heads, n, m = x.shape
    return x.reshape(*batch, shared, heads // shared, n, m)


def causal_mask(length: int, backend: Backend) -> Tensor:
    """Return a (length, length) mask, True where a query may attend: to itself and earlier.

    Recently used masks are kept, since a replayed step uploads nothing: do not change them.
    """
    mask = _masks.pop((length, backend), None)
    if mask is None:
        mask = tensor(np.tri(length, dtype=np.bool_), backend=backend)
    _masks[length, backend] = mask
    if len(_masks) > KEPT:
        del _masks[next(iter(_masks))]
    return mask


def _check_shapes(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> None:
    """Raise ValueError or TypeError for invalid shapes or dtypes."""
    shapes = f"query {query.shape}, key {key.shape}, value {value.shape}"
    if any(t.dtype != query.dtype for t in (key, value)) or not is_floating(query.dtype):
        dtypes = f"{query.dtype}, {key.dtype}, {value.dtype}"
        raise TypeError(f"attention: query, key and value need one floating dtype, not {dtypes}")
    if min(query.ndim, key.ndim, value.ndim) < 2 or len({t.ndim for t in (query, key, value)}) > 1:
        raise ValueError(
            f"attention needs (..., heads, length, size) with the same number of axes: {shapes}"
        )
    if query.shape[-1] != key.shape[-1] or query.shape[-1] == 0:
        raise ValueError(f"attention: query and key differ in size, or have size 0: {shapes}")
    if key.shape[:-1] != value.shape[:-1] or query.shape[:-3] != key.shape[:-3]:
        raise ValueError(f"attention: batches, key and value heads, or lengths differ: {shapes}")
    if key.shape[-2] == 0 and query.size:
        raise ValueError(f"attention: there is no key for a query to attend to: {shapes}")
    if query.ndim > 2 and query.shape[-3] % max(key.shape[-3], 1):
        raise ValueError(
            f"attention: {query.shape[-3]} query heads are not a multiple of {key.shape[-3]} heads "
            "of keys and values"
        )
    if causal and query.shape[-2] != key.shape[-2]:
        raise ValueError(
            f"attention: causal needs as many queries as keys, not {query.shape[-2]} and "
            f"{key.shape[-2]}; give a mask instead"
        )


def _check_mask(query: Tensor, key: Tensor, mask: Tensor | None) -> None:
    """Raise ValueError or TypeError for a mask that does not fit."""
    if mask is None:
        return
    if mask.dtype not in (bool_, query.dtype):
        raise TypeError(
            f"attention: a mask must be bool or {query.dtype}, not {mask.dtype}: for ones and "
            f"zeros give mask > 0, since a {query.dtype} mask is added to the scores"
        )
    scores = (*query.shape[:-1], key.shape[-2])
    try:
        fits = np.broadcast_shapes(mask.shape, scores) == scores
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"attention: a mask of shape {mask.shape} does not broadcast to the scores {scores}"
        )
    is_added = mask.dtype != bool_ and not mask.requires_grad and not mask.backend.runs_ahead
    if is_added and ask_host(_are_ones_and_zeros, [mask._array]):
        warn_user(
            f"attention: a mask of ones and zeros in {mask.dtype} is added to the scores, and "
            "hides nothing: give mask > 0"
        )


def _are_ones_and_zeros(values: NDArray[Any]) -> bool:
    """Whether numbers are all 0 or 1, and some of either."""
    has_both = values.size > 1 and values.min() == 0 and values.max() == 1
    return bool(has_both and ((values == 0) | (values == 1)).all())


def _is_fused(backend: Backend, dtype: DType) -> bool:
    """Whether the backend has a fused kernel for these arguments."""
    if dtype == float16:
        return "attention" in backend.fused_in_half
    return dtype == float32 and backend.fused("attention") is not None


def _fused(
    backend: Backend, query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float
) -> Tensor:
    """Run the backend's fused version, which keeps one number per row for its gradient.

    `fused("attention")(q, k, v, causal, scale, out, logsumexp)` writes the result and the logarithm
    of each row's sum of exponentials, which is contiguous float32. The gradient's version also gets
    these, the gradient of the result, and three arrays for the gradients of q, k and v. Arrays may
    have any strides; outputs are separate memory. If `fused_in_half` has "attention", both also
    take float16.
    """
    forward, back = backend.fused("attention"), backend.fused("attention_gradient")
    assert forward is not None
    assert back is not None
    inputs = (query, key, value)
    q, k, v = (t._array for t in inputs)
    out = _laid_out_as(q, (*query.shape[:-1], value.shape[-1]), backend)
    total = backend.allocate(query.shape[:-1], float32)  # log of the sum of the exponentials
    forward(q, k, v, causal, scale, out, total)

    def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array | None]:
        shares = [
            _laid_out_as(x, x.shape, backend) if into is None else into
            for x, into in zip((q, k, v), destinations, strict=True)
        ]
        back(q, k, v, causal, scale, out, total, gradient, *shares)
        return shares

    return result_of(
        "attention", out, backend, inputs, vjp, saved=inputs, reads_result=True, fills_places=True
    )


def _laid_out_as(array: Array, shape: tuple[int, ...], backend: Backend) -> Array:
    """Allocate like `array`, with heads inside positions if `array` has them so.

    A layer's heads are a view of (..., positions, heads * size). A result in the same order returns
    to that shape without a copy.
    """
    if len(shape) < 3 or array.strides[-3] >= array.strides[-2]:
        return backend.allocate(shape, array.dtype)
    order = (*range(len(shape) - 3), len(shape) - 2, len(shape) - 3, len(shape) - 1)
    turned = backend.allocate(tuple(shape[axis] for axis in order), array.dtype)
    return turned.transpose(order)
