"""Connectionist temporal classification: unaligned labels of a sequence.

Graves, Fernandez, Gomez, Schmidhuber: "Connectionist temporal classification", 2006. A backend may
    have the two recursions as fused kernels; here they are also written in primitives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from rumus.tensor.expression.expr import Expr
from rumus.tensor.graph.indexing import gather
from rumus.tensor.graph.operators import elementwise
from rumus.tensor.graph.shaping import concat
from rumus.tensor.graph.tensor import Tensor, full, result_of, tensor
from rumus.tensor.memory.backend import Array

T = TypeVar("T", Tensor, Expr)
_NEVER = -1e30  # the logarithm of probability 0: finite, so that differences are not NaN


@elementwise
def _step(stay: T, move: T, jump: T, skips: T, own: T) -> T:
    """log(exp(stay) + exp(move) + exp(jump)) + own."""
    far = (skips > 0).where(jump, _NEVER)
    largest = stay.maximum(move).maximum(far)
    total = (stay - largest).exp() + (move - largest).exp() + (far - largest).exp()
    return largest + total.log() + own


@elementwise
def _sum(a: T, b: T) -> T:
    largest = a.maximum(b)
    return -(largest + ((a - largest).exp() + (b - largest).exp()).log())


@elementwise
def _possible(loss: T) -> T:
    return (loss > 1e29).where(float("inf"), loss)


def ctc_primitive(
    x: Tensor, labels: Tensor, lengths: Tensor, label_lengths: Tensor, blank: int
) -> Tensor:
    """`ctc` in primitives."""
    host = [t.numpy() for t in (labels, lengths, label_lengths)]
    batch, length, classes = x.shape
    states = 2 * host[0].shape[1] + 1
    extended = np.full((batch, states), blank)
    extended[:, 1::2] = host[0]
    skips = np.zeros(extended.shape, np.float32)
    skips[:, 2:] = (extended[:, 2:] != blank) & (extended[:, 2:] != extended[:, :-2])
    rows = np.arange(batch)[:, None, None] * length + np.arange(length)[None, :, None]
    places = tensor(rows * classes + extended[:, None], backend=x.backend)
    own = gather(x.reshape(-1).maximum(_NEVER), places)

    def there(mask: object) -> Tensor:
        return tensor(np.asarray(mask), backend=x.backend)

    def never(width: int) -> Tensor:
        return full((batch, width), _NEVER, dtype=x.dtype, backend=x.backend)

    skip, alpha = there(skips), never(states)
    begin = there(np.arange(states) < 2)
    alpha = begin.where(own[:, 0], alpha)
    for t in range(1, length):
        moved = concat([never(1), alpha[:, :-1]], 1)
        jumped = concat([never(2), alpha], 1)[:, :states]
        found = _step(alpha, moved, jumped, skip, own[:, t]).maximum(_NEVER)
        alpha = there((t < host[1])[:, None]).where(found, alpha)
    last = there(np.arange(states) == 2 * host[2][:, None])
    before = there(np.arange(states) == 2 * host[2][:, None] - 1)
    return _possible(_sum(*(mask.where(alpha, _NEVER).max(1) for mask in (last, before))))


def ctc(x: Tensor, labels: Tensor, lengths: Tensor, label_lengths: Tensor, blank: int) -> Tensor:
    """-log of the probability that x spells the labels, for each sample.

    x: (batch, length, classes), float32 or float64, logarithms of probabilities. labels: (batch,
        most labels), int32 in [0, classes). lengths, label_lengths: (batch,), int32: the number of
        steps, at least 1, and of labels. The result is infinite if the labels do not fit the steps.
    """
    backend = x._backend
    forward, back = backend.fused("ctc"), backend.fused("ctc_gradient")
    if forward is None or back is None:
        return ctc_primitive(x, labels, lengths, label_lengths, blank)
    batch, length, _ = x.shape
    array, given = x._array, [t._array for t in (labels, lengths, label_lengths)]
    alpha = backend.allocate((batch, length, 2 * labels.shape[1] + 1), x.dtype)
    out = backend.allocate((batch,), x.dtype)
    forward(array, *given, alpha, out, blank)

    def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array]:
        into = backend.allocate(array.shape, gradient.dtype)
        back(array, *given, alpha, out, gradient, into, blank)
        return (into,)

    saved = (x, labels, lengths, label_lengths)
    return result_of("ctc", out, backend, (x,), vjp, saved=saved, reads_result=True)
