"""The cells of recurrent networks in NumPy: the elementwise part of one step, and its gradient.

Arrays are whole sequences, (time, batch, features) or, for states, (time + 1, batch, hidden);
arrays of a single step are (batch, features). Gates are concatenated in PyTorch's order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.compiled.special import sigmoid
from rumus.tensor.memory.fused import FusedName
from rumus.tensor.memory.time_step import TimeStep

Real = NDArray[Any]


def _quarters(gates: Real) -> tuple[Real, ...]:
    """The four gates of (batch, 4 hidden)."""
    hidden = gates.shape[1] // 4
    return tuple(gates[:, k * hidden : (k + 1) * hidden] for k in range(4))


def _ended(step: TimeStep) -> Real | None:
    """Which samples have ended and keep their state; None if none can."""
    return None if step.lengths is None else step.lengths <= step.time


def lstm_cell(x: Real, z: Real, gates: Real, c: Real, h: Real, step: TimeStep) -> None:
    """gates = i, f, g, o of x + z; c' = f c + i g; h' = o tanh(c')."""
    with np.errstate(all="ignore"):
        whole = gates[step.time]
        np.add(x[step.time], z, whole)
        i, f, g, o = _quarters(whole)
        for gate in (i, f, o):
            sigmoid(gate, gate)
        np.tanh(g, g)
        before, after = c[step.source], c[step.target]
        np.multiply(f, before, after)
        after += i * g
        np.multiply(o, np.tanh(after), h[step.target])
    ended = _ended(step)
    if ended is not None:
        for states in (c, h):
            states[step.target][ended] = states[step.source][ended]


def lstm_cell_gradient(
    gates: Real, c: Real, gradient: Real, dh: Real, dc: Real, dgates: Real, keep: Real,
    step: TimeStep,
) -> None:  # fmt: skip
    """dgates from the gradient of h', gradient + dh + keep, and dc, which becomes that of c.

    keep: becomes the part of the previous state's gradient that bypasses the gates.
    """
    ended = _ended(step)
    with np.errstate(all="ignore"):
        i, f, g, o = _quarters(gates[step.time])
        di, df, dg, do = _quarters(dgates[step.time])
        flat = np.tanh(c[step.target])
        total = gradient[step.time] + dh + keep
        through = dc + total * o * (1 - flat * flat)
        np.multiply(through * g, i * (1 - i), di)
        np.multiply(through * c[step.source], f * (1 - f), df)
        np.multiply(through * i, 1 - g * g, dg)
        np.multiply(total * flat, o * (1 - o), do)
        through *= f
        if ended is not None:
            dgates[step.time][ended] = 0
            through[ended] = dc[ended]
        dc[...] = through
        _kept(keep, total, ended)


def _kept(keep: Real, total: Real, ended: Real | None) -> None:
    if ended is None:
        keep.fill(0)
    else:
        np.multiply(total, ended[:, None], keep)


def gru_cell(x: Real, z: Real, gates: Real, h: Real, step: TimeStep) -> None:
    """gates = r, u, n, q with q the last third of z; h' = (1 - u) n + u h."""
    hidden = h.shape[2]
    with np.errstate(all="ignore"):
        r, u, n, q = _quarters(gates[step.time])
        given = x[step.time]
        both = gates[step.time][:, : 2 * hidden]
        np.add(given[:, : 2 * hidden], z[:, : 2 * hidden], both)
        sigmoid(both, both)
        q[...] = z[:, 2 * hidden :]
        np.tanh(given[:, 2 * hidden :] + r * q, n)
        h[step.target] = n + u * (h[step.source] - n)
    ended = _ended(step)
    if ended is not None:
        h[step.target][ended] = h[step.source][ended]


def gru_cell_gradient(
    gates: Real, h: Real, gradient: Real, dh: Real, dx: Real, dz: Real, keep: Real, step: TimeStep
) -> None:
    """dx and dz from the gradient of h', gradient + dh + keep; keep: becomes u times that."""
    hidden, ended = h.shape[2], _ended(step)
    with np.errstate(all="ignore"):
        r, u, n, q = _quarters(gates[step.time])
        into, beside = dx[step.time], dz[step.time]
        total = gradient[step.time] + dh + keep
        dn = total * (1 - u) * (1 - n * n)
        np.multiply(dn * q, r * (1 - r), into[:, :hidden])
        shift = h[step.source] - n
        np.multiply(total * shift, u * (1 - u), into[:, hidden : 2 * hidden])
        into[:, 2 * hidden :] = dn
        np.multiply(total, u, keep)
        if ended is not None:
            into[ended] = 0
            keep[ended] = total[ended]
        beside[:, : 2 * hidden] = into[:, : 2 * hidden]
        np.multiply(into[:, 2 * hidden :], r, beside[:, 2 * hidden :])


def rnn_cell(x: Real, z: Real, h: Real, is_relu: bool, step: TimeStep) -> None:
    """h' = tanh(x + z), or max(x + z, 0)."""
    after = h[step.target]
    with np.errstate(all="ignore"):
        np.add(x[step.time], z, after)
        if is_relu:
            np.maximum(after, 0, out=after)
        else:
            np.tanh(after, after)
    ended = _ended(step)
    if ended is not None:
        after[ended] = h[step.source][ended]


def rnn_cell_gradient(
    h: Real, gradient: Real, dh: Real, dx: Real, keep: Real, is_relu: bool, step: TimeStep
) -> None:
    """dx from the gradient of h', gradient + dh + keep; keep: as in the LSTM."""
    ended = _ended(step)
    with np.errstate(all="ignore"):
        after, total = h[step.target], gradient[step.time] + dh + keep
        slope = (after > 0).astype(after.dtype) if is_relu else 1 - after * after
        np.multiply(total, slope, dx[step.time])
        if ended is not None:
            dx[step.time][ended] = 0
        _kept(keep, total, ended)


CELLS: Final[Mapping[FusedName, Callable[..., None]]] = {
    "gru_cell": gru_cell,
    "gru_cell_gradient": gru_cell_gradient,
    "lstm_cell": lstm_cell,
    "lstm_cell_gradient": lstm_cell_gradient,
    "rnn_cell": rnn_cell,
    "rnn_cell_gradient": rnn_cell_gradient,
}
