"""Recurrences over sequences: LSTM, GRU and RNN, with two backend calls per step.

A step is one product with the state, and a cell: everything elementwise, in one kernel if the
backend has it. Backward does the same in reverse, and the weight gradient is one product over all
steps. Sequences are (time, batch, features) here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeAlias

from rumus.tensor.expression.dtype import float16, float32
from rumus.tensor.graph.autograd import ACCUMULATE, SoFar
from rumus.tensor.graph.operators import cast
from rumus.tensor.graph.shaping import split, stack
from rumus.tensor.graph.tensor import Tensor, backend_of, result_of
from rumus.tensor.memory.backend import Array, Backend
from rumus.tensor.memory.fused import FusedName
from rumus.tensor.memory.reshaping import reshaped
from rumus.tensor.memory.time_step import TimeStep
from rumus.tensor.operations.linear import linear

Kind: TypeAlias = Literal["lstm", "gru", "rnn_tanh", "rnn_relu"]
LARGE: Final = 8192  # elements of all states from which a whole sequence is one kernel
GATES: Final[dict[Kind, int]] = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
_CELLS: Final[dict[Kind, tuple[FusedName, FusedName]]] = {
    "lstm": ("lstm_cell", "lstm_cell_gradient"),
    "gru": ("gru_cell", "gru_cell_gradient"),
    "rnn_tanh": ("rnn_cell", "rnn_cell_gradient"),
    "rnn_relu": ("rnn_cell", "rnn_cell_gradient"),
}


def recurrence(
    kind: Kind,
    x: Tensor,
    h: Tensor,
    c: Tensor | None,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Run a recurrent layer in one direction, given its inputs' products with the weight.

    kind: "lstm" (Hochreiter, Schmidhuber, 1997, with the forget gate of Gers et al., 2000), "gru"
    (Cho et al.: arXiv:1406.1078, the reset gate after the product), or h = tanh or relu.
    x: (time, batch, gates * hidden), the product of the inputs with their weight, plus bias; the
    gates in PyTorch's order: i f g o, or r z n. h, c: (batch, hidden), the first state; c only for
    an LSTM. weight: (gates * hidden, hidden), of the state. bias: (gates * hidden,), added to the
    state's product. lengths: (batch,), int32, each in [1, time]: beyond its end a sample keeps its
    state. reverse: run from the last step to the first, each sample starting at its own end.
    Returns the states h of all steps, (time, batch, hidden), the last h, and the last c. ValueError
    for other shapes.
    """
    _check_shapes(kind, x, h, c, weight, bias)
    given = [t for t in (x, h, c, weight, bias) if t is not None]
    backend = backend_of("recurrence", given if lengths is None else [*given, lengths])
    if any(t.dtype == float16 for t in given):
        wide = [None if t is None else cast(t, float32) for t in (x, h, c, weight, bias)]
        found = recurrence(
            kind, wide[0], wide[1], wide[2], wide[3], wide[4], lengths=lengths, reverse=reverse  # type: ignore[arg-type]
        )  # fmt: skip
        return tuple(None if t is None else cast(t, x.dtype) for t in found)  # type: ignore[return-value]
    cells = [backend.fused(name) for name in _CELLS[kind]]
    if None in cells:
        return unrolled(kind, x, h, c, weight, bias, lengths, reverse)
    run = _Run(kind, x, h, c, weight, bias, lengths, reverse)
    return run.forward(x._array, given)


def _check_shapes(
    kind: Kind, x: Tensor, h: Tensor, c: Tensor | None, weight: Tensor, bias: Tensor | None
) -> None:
    """Raise ValueError for shapes that do not belong together, which a GPU would not notice."""
    batch, hidden = h.shape
    rows = GATES[kind] * hidden
    is_right = x.shape[1:] == (batch, rows) and weight.shape == (rows, hidden)
    is_right = is_right and (c is None or c.shape == h.shape)
    if not is_right or not (bias is None or bias.shape == (rows,)):
        raise ValueError(
            f"recurrence: a state of {hidden} features takes a weight of shape {(rows, hidden)}, "
            f"not {weight.shape}, and inputs of shape (time, {batch}, {rows}), not {x.shape}"
        )


def unrolled(
    kind: Kind,
    x: Tensor,
    h: Tensor,
    c: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    lengths: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """`recurrence` in primitives, which the tape follows step by step."""
    found: list[Tensor] = []
    steps = range(len(x))
    for t in reversed(steps) if reverse else steps:
        new_h, new_c = _cell(kind, x[t], h, c, weight, bias)
        if lengths is not None:
            goes_on = (lengths > t).unsqueeze(1)
            new_h = goes_on.where(new_h, h)
            new_c = None if new_c is None or c is None else goes_on.where(new_c, c)
        h, c = new_h, new_c
        found.append(h)
    return stack(found[::-1] if reverse else found), h, c


def _cell(
    kind: Kind, x: Tensor, h: Tensor, c: Tensor | None, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """One step in primitives."""
    z = linear(h, weight, bias)
    if kind == "lstm":
        assert c is not None
        i, f, g, o = split(x + z, 4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c
    if kind == "gru":
        (xr, xu, xn), (zr, zu, zn) = split(x, 3, 1), split(z, 3, 1)
        u = (xu + zu).sigmoid()
        n = (xn + (xr + zr).sigmoid() * zn).tanh()
        return n + u * (h - n), None
    return ((x + z).tanh() if kind == "rnn_tanh" else (x + z).relu()), None


class _Run:
    """One pass over a sequence, and what its gradient needs."""

    def __init__(
        self,
        kind: Kind,
        x: Tensor,
        h: Tensor,
        c: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        lengths: Tensor | None,
        reverse: bool,
    ) -> None:
        self.kind, self.reverse, self.has_bias = kind, reverse, bias is not None
        self.backend: Backend = x._backend
        self.time, self.batch, self.hidden = len(x), x.shape[1], h.shape[1]
        self.shape, self.dtype, self.weight = x.shape, x.dtype, weight._array
        self.bias = None if bias is None else bias._array
        self.lengths = None if lengths is None else lengths._array
        self.saved = [t for t in (weight, lengths) if t is not None]
        self.h = self._states(h)
        self.c = None if c is None else self._states(c)
        width = {"lstm": 4, "gru": 4}.get(kind, 0)
        self.gates = self._new(self.time, self.batch, width * self.hidden)
        self.final: dict[str, Array] = {}  # the gradients of the last h and c

    def _new(self, *shape: int) -> Array:
        return self.backend.allocate(shape, self.dtype)

    def _states(self, first: Tensor) -> Array:
        """Memory for all states, including the first."""
        states = self._new(self.time + 1, self.batch, self.hidden)
        self.backend.copy(first._array, states[self.time if self.reverse else 0])
        return states

    def _steps(self) -> list[TimeStep]:
        """The steps in order."""
        if self.reverse:
            return [TimeStep(t, t + 1, t, self.lengths) for t in reversed(range(self.time))]
        return [TimeStep(t, t, t + 1, self.lengths) for t in range(self.time)]

    def _cell(self, which: int) -> Callable[..., None]:
        found = self.backend.fused(_CELLS[self.kind][which])
        assert found is not None
        return found

    def _of_sequences(self, name: FusedName) -> Callable[..., None] | None:
        """A kernel for all steps, if the backend has one that is worth compiling."""
        is_large = self.h.size >= LARGE or self.backend.runs_ahead  # if the host compiles
        return self.backend.fused(name) if is_large and self.dtype == float32 else None

    def forward(self, x: Array, inputs: list[Tensor]) -> tuple[Tensor, Tensor, Tensor | None]:
        """Run all steps."""
        x = reshaped(self.backend, x, -1).reshape(x.shape)  # contiguous, once for all steps
        whole = self._of_sequences("recurrence")
        if whole is not None:
            states = self.c, self.h, self.lengths, self.reverse
            whole(self.kind, x, self.weight, self.bias, self.gates, *states)
        else:
            self._step_by_step(x)
        return self._results(inputs)

    def _step_by_step(self, x: Array) -> None:
        z = self._new(self.batch, GATES[self.kind] * self.hidden)
        turned, cell = self.weight.transpose((1, 0)), self._cell(0)
        for step in self._steps():
            self.backend.matmul(self.h[step.source], turned, z, self.bias)
            if self.kind == "lstm":
                cell(x, z, self.gates, self.c, self.h, step)
            elif self.kind == "gru":
                cell(x, z, self.gates, self.h, step)
            else:
                cell(x, z, self.h, self.kind == "rnn_relu", step)

    def _results(self, inputs: list[Tensor]) -> tuple[Tensor, Tensor, Tensor | None]:
        """The states of all steps, and the last ones, as tensors."""
        first, last = (0, 0) if self.reverse else (1, self.time)
        states = self.h[first : first + self.time]
        options: dict[str, Any] = {"saved": self.saved, "reads_result": True}
        whole = result_of("recurrence", states, self.backend, inputs, self.vjp, **options)
        # Created before anything that reads the states, so backward reaches it after all of them.
        ends = [
            None if of is None else self._end(whole, name, of[last])
            for name, of in (("h", self.h), ("c", self.c))
        ]
        assert ends[0] is not None
        return whole, ends[0], ends[1]

    def _end(self, whole: Tensor, name: str, array: Array) -> Tensor:
        """The last state as a tensor, whose gradient is kept here until that of all states."""

        def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array]:
            self.final[name] = gradient
            so_far = destinations[0]
            if isinstance(so_far, SoFar):
                return (so_far.array,)
            nothing = self._new(self.time, self.batch, self.hidden)
            self.backend.fill(0, nothing)
            return (nothing,)

        return result_of(f"last {name}", array, self.backend, (whole,), vjp, adding=(0,))

    def vjp(self, gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array | None]:
        """Run all steps backward."""
        dh, dc = self._final("h"), self._final("c") if self.c is not None else None
        dx = self._new(*self.shape)
        dz = self._new(*self.shape) if self.kind == "gru" else dx
        gradient = reshaped(self.backend, gradient, -1).reshape(gradient.shape)
        whole = self._of_sequences("recurrence_gradient")
        if whole is not None:
            kept = self.kind, self.weight, self.gates, self.c, self.h
            whole(*kept, gradient, dh, dc, dx, dz, self.lengths, self.reverse)
        else:
            self._step_back(gradient, dh, dc, dx, dz)
        return self._shares(dx, dz, dh, dc, destinations)

    def _step_back(
        self, gradient: Array, dh: Array, dc: Array | None, dx: Array, dz: Array
    ) -> None:
        backend, cell = self.backend, self._cell(1)
        keep = self._new(self.batch, self.hidden)  # what bypasses a step, as in u h of a GRU
        backend.fill(0, keep)
        for step in reversed(self._steps()):
            if self.kind == "lstm":
                cell(self.gates, self.c, gradient, dh, dc, dx, keep, step)
            elif self.kind == "gru":
                cell(self.gates, self.h, gradient, dh, dx, dz, keep, step)
            else:
                cell(self.h, gradient, dh, dx, keep, self.kind == "rnn_relu", step)
            backend.matmul(dz[step.time], self.weight, dh)
        if self.kind == "gru" or self.lengths is not None:
            backend.elementwise(ACCUMULATE, (dh, keep), (), (dh,))

    def _final(self, name: str) -> Array:
        """The gradient of the last state, in our own memory."""
        own = self._new(self.batch, self.hidden)
        found = self.final.get(name)
        if found is None:
            self.backend.fill(0, own)
        else:
            self.backend.copy(found, own)
        return own

    def _shares(
        self, dx: Array, dz: Array, dh: Array, dc: Array | None,
        destinations: Sequence[Array | None],
    ) -> list[Array | None]:  # fmt: skip
        """The gradients of the inputs, in order."""
        rows = self.time * self.batch
        before = self.h[1:] if self.reverse else self.h[: self.time]
        flat = reshaped(self.backend, dz, (rows, dz.shape[2]))
        at = 2 if self.c is None else 3
        into = destinations[at]
        into = self._new(*self.weight.shape) if into is None else into
        sums = None
        if self.has_bias:
            sums = destinations[at + 1]
            sums = self._new(flat.shape[1]) if sums is None else sums
        turned, states = flat.transpose((1, 0)), reshaped(self.backend, before, (rows, self.hidden))
        self.backend.matmul(turned, states, into, sums=sums)
        found: list[Array | None] = [dx, dh]
        found += [] if self.c is None else [dc]
        return [*found, into, *([sums] if self.has_bias else [])]
