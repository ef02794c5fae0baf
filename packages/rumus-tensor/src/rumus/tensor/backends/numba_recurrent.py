"""Recurrences in compiled loops: all steps of LSTM, GRU and RNN, samples shared among threads.

A sample is independent of others, so threads meet only at the end of the sequence. A step is a
product and a few short loops over the states of a sample, which the compiler vectorizes. A product
has few samples: a weight that stays in the cache is multiplied by tiles (`numba_tile`), since a
BLAS would pack it again in each step; for a larger one the BLAS of NumPy is called. Arrays are
those of `numpy_recurrent`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import numpy as np

from rumus.tensor.compiled import numba_blas, numba_math, numba_tile
from rumus.tensor.compiled.numba_blas import PLAIN, ROWS, TURNED
from rumus.tensor.compiled.numba_math import exp
from rumus.tensor.compiled.numba_tile import aligned, tiles
from rumus.tensor.compiled.shared_work import run_parts
from rumus.tensor.compiled.whole_numba import whole_numba
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.fused import FusedName

PARALLEL: Final = 1 << 16  # from this many elements of all states on, starting threads pays off
TILED: Final = 1 << 18  # up to this many elements, a weight is multiplied by tiles
_KINDS: Final = {"lstm": 0, "gru": 1, "rnn_tanh": 2, "rnn_relu": 3}
LSTM, GRU, RELU = 0, 1, 3


def recurrence(
    kind: str, x: Array, weight: Array, bias: Array | None, gates: Array, c: Array | None, h: Array,
    lengths: Array | None, reverse: bool,
) -> None:  # fmt: skip
    """Run all steps: write the gates, and the states after the first."""
    rows, loop = x.shape[2], _compiled()["forward"]
    limits, is_tiled = numba_tile.limits(), weight.size <= TILED
    x = np.ascontiguousarray(x)
    weight = _whole_vectors(weight.T, limits) if is_tiled else np.ascontiguousarray(weight)
    shift = np.zeros(rows, x.dtype) if bias is None else np.ascontiguousarray(bias)
    cells = h if c is None else c
    ends = _ends(h, lengths)

    def work(start: int, stop: int) -> None:
        loop(
            numba_blas.single(), _KINDS[kind], x, weight, shift, gates, cells, h, ends, reverse,
            is_tiled, limits, start, stop,
        )  # fmt: skip

    with numba_blas.alone():
        run_parts(work, h.shape[1], h.size >= PARALLEL)


def recurrence_gradient(
    kind: str, weight: Array, gates: Array, c: Array | None, h: Array, gradient: Array, dh: Array,
    dc: Array | None, dx: Array, dz: Array, lengths: Array | None, reverse: bool,
) -> None:  # fmt: skip
    """Run all steps backward: write dx, dz, and to dh and dc the gradients of the first states."""
    loop, limits = _compiled()["backward"], numba_tile.limits()
    given, is_tiled = np.ascontiguousarray(gradient), weight.size <= TILED
    weight = _whole_vectors(weight, limits) if is_tiled else np.ascontiguousarray(weight)
    cells, share = h if c is None else c, dh if dc is None else dc
    ends = _ends(h, lengths)

    def work(start: int, stop: int) -> None:
        loop(
            numba_blas.single(), _KINDS[kind], weight, gates, cells, h, given, dh, share, dx, dz,
            ends, reverse, is_tiled, limits, start, stop,
        )  # fmt: skip

    with numba_blas.alone():
        run_parts(work, h.shape[1], h.size >= PARALLEL)


def _ends(h: Array, lengths: Array | None) -> Array:
    """The length of each sample."""
    if lengths is None:
        return np.full(h.shape[1], len(h) - 1, np.int32)
    return np.ascontiguousarray(lengths)


def _whole_vectors(matrix: Array, limits: tuple[int, int, int, int]) -> Array:
    """A copy of a matrix whose rows are padded with zeros to whole vectors."""
    (rows, columns), lanes = matrix.shape, limits[0]
    wide = aligned((rows, -(-columns // lanes) * lanes))
    wide[:, :columns] = matrix
    return wide


def _sigmoids(gate: Any) -> None:
    one = np.float32(1)
    for i in range(len(gate)):
        gate[i] = one / (one + exp(-gate[i]))


def _tangents(gate: Any) -> None:
    """tanh(x) from exp(2 |x|); near 0, where that loses digits, from the series."""
    one, two, zero = np.float32(1), np.float32(2), np.float32(0)
    for i in range(len(gate)):
        x = gate[i]
        square = x * x
        series = square * (T1 + square * (T2 + square * (T3 + square * (T4 + square * T5))))
        size = abs(x)
        held = FAR if size > FAR else size
        far = one - two / (exp(held + held) + one)
        signed = -far if x < zero else far
        gate[i] = x + x * series if size < NEAR else signed


def _turn(x: Any, out: Any) -> None:
    """out = the transpose of x, flat."""
    rows, columns = x.shape
    for i in range(rows):
        for j in range(columns):
            out[np.uintp(j * rows + i)] = x[i, np.uintp(j)]


def _forward(
    product: Any, kind: int, x: Any, weight: Any, bias: Any, gates: Any, c: Any, h: Any,
    lengths: Any, reverse: bool, is_tiled: bool, limits: Any, start: int, stop: int,
) -> None:  # fmt: skip
    """For numba to compile: the samples from start to stop. weight: transposed if tiled."""
    time, batch, width = x.shape
    hidden, rows, one = h.shape[2], stop - start, np.float32(1)
    wide = weight.shape[1] if is_tiled else width
    z, turned = np.empty((rows, wide), np.float32), np.empty(hidden * rows, np.float32)
    heads, columns = np.arange(hidden) * rows, np.arange(hidden) * wide
    for number in range(time):
        t = time - 1 - number if reverse else number
        source, target = (t + 1, t) if reverse else (t, t + 1)
        for row in range(rows):
            own = z[row]
            given = x[t, start + row]
            for i in range(width):
                own[i] = bias[i] if kind == GRU else given[i] + bias[i]
        if is_tiled:
            for row in range(rows):
                for i in range(width, wide):
                    z[row, i] = 0
            _turn(h[source, start:stop], turned)
            tiles(turned.ctypes.data, heads.ctypes.data, weight.ctypes.data, columns.ctypes.data,
                  hidden, z.ctypes.data, wide, rows, wide, limits)  # fmt: skip
        else:
            state = h.ctypes.data + 4 * hidden * (source * batch + start)
            product(ROWS, PLAIN, TURNED, rows, width, hidden, one, state, hidden,
                    weight.ctypes.data, hidden, one, z.ctypes.data, width)  # fmt: skip
        for row in range(rows):
            b = start + row
            if t >= lengths[b]:
                for i in range(hidden):
                    h[target, b, i] = h[source, b, i]
                    c[target, b, i] = c[source, b, i]
            elif kind == LSTM:
                _lstm(z[row, :width], gates[t, b], c[source, b], c[target, b], h[target, b])
            elif kind == GRU:
                _gru(x[t, b], z[row, :width], gates[t, b], h[source, b], h[target, b])
            else:
                _rnn(z[row, :width], h[target, b], kind == RELU)


def _lstm(z: Any, gates: Any, before: Any, after: Any, h: Any) -> None:
    # Separate views: loops vectorize when the compiler knows that the index is not negative.
    hidden = len(h)
    f, g, o = z[hidden : 2 * hidden], z[2 * hidden : 3 * hidden], z[3 * hidden :]
    _sigmoids(z[: 2 * hidden])
    _tangents(g)
    _sigmoids(o)
    for i in range(hidden):
        after[i] = f[i] * before[i] + z[i] * g[i]
    for i in range(len(z)):
        gates[i] = z[i]
    for i in range(hidden):
        h[i] = after[i]
    _tangents(h)
    for i in range(hidden):
        h[i] *= o[i]


def _gru(x: Any, z: Any, gates: Any, before: Any, h: Any) -> None:
    hidden = len(h)
    both, kept = z[: 2 * hidden], gates[3 * hidden :]
    u, n, given = z[hidden : 2 * hidden], z[2 * hidden :], x[2 * hidden :]
    for i in range(hidden):
        kept[i] = n[i]
    for i in range(2 * hidden):
        both[i] += x[i]
    _sigmoids(both)
    for i in range(hidden):
        n[i] = given[i] + both[i] * n[i]
    _tangents(n)
    for i in range(len(z)):
        gates[i] = z[i]
    for i in range(hidden):
        h[i] = n[i] + u[i] * (before[i] - n[i])


def _rnn(z: Any, h: Any, is_relu: bool) -> None:
    zero = np.float32(0)
    if is_relu:
        for i in range(len(h)):
            h[i] = zero if z[i] <= zero else z[i]
    else:
        for i in range(len(h)):
            h[i] = z[i]
        _tangents(h)


def _backward(
    product: Any, kind: int, weight: Any, gates: Any, c: Any, h: Any, gradient: Any, dh: Any,
    dc: Any, dx: Any, dz: Any, lengths: Any, reverse: bool, is_tiled: bool, limits: Any,
    start: int, stop: int,
) -> None:  # fmt: skip
    """For numba to compile: the samples from start to stop."""
    time, batch, width = dz.shape
    hidden, rows, one = h.shape[2], stop - start, np.float32(1)
    wide = weight.shape[1]
    share, turned = np.empty((rows, wide), np.float32), np.empty(width * rows, np.float32)
    heads, columns = np.arange(width) * rows, np.arange(width) * wide
    total, other = np.empty(hidden, np.float32), np.empty(hidden, np.float32)
    for number in range(time):
        t = number if reverse else time - 1 - number
        source, target = (t + 1, t) if reverse else (t, t + 1)
        for b in range(start, stop):
            for i in range(hidden):
                total[i] = gradient[t, b, i] + dh[b, i]
            if t >= lengths[b]:
                for i in range(width):
                    dx[t, b, i] = 0
                    dz[t, b, i] = 0
                for i in range(hidden):
                    dh[b, i] = total[i]
            elif kind == LSTM:
                states = c[source, b], c[target, b]
                _lstm_back(gates[t, b], states, total, other, dc[b], dx[t, b])
                for i in range(hidden):
                    dh[b, i] = 0
            elif kind == GRU:
                _gru_back(gates[t, b], h[source, b], total, dh[b], dx[t, b], dz[t, b])
            else:
                _rnn_back(h[target, b], total, dx[t, b], kind == RELU)
                for i in range(hidden):
                    dh[b, i] = 0
        if is_tiled:
            share[:] = 0
            _turn(dz[t, start:stop], turned)
            tiles(turned.ctypes.data, heads.ctypes.data, weight.ctypes.data, columns.ctypes.data,
                  width, share.ctypes.data, wide, rows, wide, limits)  # fmt: skip
            for row in range(rows):
                for i in range(hidden):
                    dh[start + row, i] += share[row, i]
        else:
            change = dz.ctypes.data + 4 * width * (t * batch + start)
            product(ROWS, PLAIN, PLAIN, rows, hidden, width, one, change, width,
                    weight.ctypes.data, hidden, one, dh.ctypes.data + 4 * hidden * start,
                    hidden)  # fmt: skip


def _lstm_back(gates: Any, states: Any, total: Any, through: Any, dc: Any, dx: Any) -> None:
    before, after = states
    hidden, one = len(dc), np.float32(1)
    f, g, o = gates[hidden : 2 * hidden], gates[2 * hidden : 3 * hidden], gates[3 * hidden :]
    df, dg, do = dx[hidden : 2 * hidden], dx[2 * hidden : 3 * hidden], dx[3 * hidden :]
    for i in range(hidden):
        through[i] = after[i]
    _tangents(through)
    for i in range(hidden):
        do[i] = total[i] * through[i] * o[i] * (one - o[i])
    for i in range(hidden):
        through[i] = dc[i] + total[i] * o[i] * (one - through[i] * through[i])
    for i in range(hidden):
        dx[i] = through[i] * g[i] * gates[i] * (one - gates[i])
    for i in range(hidden):
        dg[i] = through[i] * gates[i] * (one - g[i] * g[i])
    for i in range(hidden):
        df[i] = through[i] * before[i] * f[i] * (one - f[i])
    for i in range(hidden):
        dc[i] = through[i] * f[i]


def _gru_back(gates: Any, before: Any, total: Any, dh: Any, dx: Any, dz: Any) -> None:
    hidden, one = len(dh), np.float32(1)
    u, n = gates[hidden : 2 * hidden], gates[2 * hidden : 3 * hidden]
    q, du, dn, dzn = (
        gates[3 * hidden :],
        dx[hidden : 2 * hidden],
        dx[2 * hidden :],
        dz[2 * hidden :],
    )
    for i in range(hidden):
        dn[i] = total[i] * (one - u[i]) * (one - n[i] * n[i])
    for i in range(hidden):
        dx[i] = dn[i] * q[i] * gates[i] * (one - gates[i])
    for i in range(hidden):
        du[i] = total[i] * (before[i] - n[i]) * u[i] * (one - u[i])
    for i in range(2 * hidden):
        dz[i] = dx[i]
    for i in range(hidden):
        dzn[i] = dn[i] * gates[i]
    for i in range(hidden):
        dh[i] = total[i] * u[i]


def _rnn_back(after: Any, total: Any, dx: Any, is_relu: bool) -> None:
    one = np.float32(1)
    if is_relu:
        for i in range(len(after)):
            dx[i] = total[i] if after[i] > 0 else np.float32(0)
    else:
        for i in range(len(after)):
            dx[i] = total[i] * (one - after[i] * after[i])


T1, T2, T3, T4, T5 = (
    np.float32(value) for value in (-1 / 3, 2 / 15, -17 / 315, 62 / 2835, -1382 / 155925)
)
NEAR, FAR = np.float32(0.45), np.float32(10)


@cache
def _compiled() -> Mapping[str, Callable[..., None]]:
    numba = whole_numba()
    from numba.extending import register_jitable

    numba_math.compiled()
    numba_tile.compiled()
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
    parts: tuple[Callable[..., Any], ...] = (
        tiles, _turn, _sigmoids, _tangents, _lstm, _gru, _rnn, _lstm_back, _gru_back, _rnn_back,
    )  # fmt: skip
    for function in parts:
        register_jitable(**options)(function)  # a dispatcher in a closure could not be cached
    njit = numba.njit(**options, cache=True)
    return {"forward": njit(_forward), "backward": njit(_backward)}


RECURRENT: Final[Mapping[FusedName, Callable[..., None]]] = {
    "recurrence": recurrence,
    "recurrence_gradient": recurrence_gradient,
}
