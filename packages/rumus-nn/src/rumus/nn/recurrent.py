"""`LSTM`, `GRU` and `RNN`: layers that process a sequence step by step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Final, Generic, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from rumus.nn import initialization
from rumus.nn.dropout import Dropout
from rumus.nn.lengths import Lengths, check_lengths
from rumus.nn.module import Module
from rumus.nn.reduction import as_integers, is_readable
from rumus.tensor import (
    Backend,
    Generator,
    Parameter,
    Tensor,
    concat,
    float32,
    linear,
    next_generator,
    stack,
    zeros,
)
from rumus.tensor.expression.choice import check_choice
from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.graph.scan import numbers
from rumus.tensor.graph.tensor import backend_of
from rumus.tensor.operations.recurrent import GATES, Kind, recurrence

Pair: TypeAlias = "tuple[Tensor, Tensor]"
S = TypeVar("S")
_MOST: Final = 10_000  # layers


class _Recurrent(Module, Generic[S]):
    """The common base of the three; S is the type of their state."""

    kind: Kind
    has_cell: ClassVar[bool] = False

    def __init__(
        self,
        inputs: int,
        hidden: int,
        *,
        layers: int = 1,
        bias: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        generator: Generator | None = None,
        dtype: DTypeLike = float32,
        backend: Backend | None = None,
    ) -> None:
        name = type(self).__name__
        if min(inputs, hidden, layers) < 1:
            raise ValueError(
                f"{name} needs sizes of at least 1, not ({inputs}, {hidden}, {layers})"
            )
        if layers > _MOST:  # before one parameter after the other is made
            raise ValueError(f"{name}: layers must be at most {_MOST}, not {layers}")
        self.inputs, self.hidden, self.layers = inputs, hidden, layers
        self.has_bias, self.bidirectional = bias, bidirectional
        generator = next_generator() if generator is None else generator
        bound, rows = 1 / math.sqrt(hidden), GATES[self.kind] * hidden

        def start(parameter: str, role: Literal["weight", "bias"], *shape: int) -> None:
            values = zeros(shape, dtype=dtype, backend=backend)
            made = Parameter(values, name=parameter, role=role)
            initialization.uniform(made, generator=generator, low=-bound, high=bound)
            setattr(self, parameter, made)

        for layer in range(layers):
            width = inputs if layer == 0 else hidden * self._directions
            for suffix in self._suffixes(layer):
                start(f"weight_ih_{suffix}", "weight", rows, width)
                start(f"weight_hh_{suffix}", "weight", rows, hidden)
                if bias:
                    start(f"bias_ih_{suffix}", "bias", rows)
                    start(f"bias_hh_{suffix}", "bias", rows)
        self.dropout = Dropout(dropout, generator=generator)
        if layers == 1 and dropout:
            warn_user(
                f"{name}: dropout={dropout} has no effect with layers=1: it is between the layers; "
                "for the results, use a Dropout after it"
            )

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    def _suffixes(self, layer: int) -> list[str]:
        return [f"l{layer}", f"l{layer}_reverse"][: self._directions]

    def forward(
        self, x: Tensor, state: S | None = None, *, lengths: Lengths | None = None
    ) -> tuple[Tensor, S]:
        """Return the states of the last layer at each step, and the last state of each layer.

        x: (batch, length, inputs), or (length, inputs) without a batch. state: the first one, zeros
            by default. lengths: (batch,), integers in [1, length], for padded sequences: beyond a
            sequence's end the output is 0, and its last state is that at the end.
        """
        name = type(self).__name__
        if x.ndim not in (2, 3) or x.shape[-1] != self.inputs:
            raise ValueError(
                f"{name}: expected (batch, length, {self.inputs}) or (length, {self.inputs}), got "
                f"{x.shape}"
            )
        if x.shape[-2] == 0:
            raise ValueError(f"{name}: a sequence of length 0 has no states: {x.shape}")
        if x.ndim == 2:
            if lengths is not None:
                raise ValueError(f"{name}: lengths need a batch, (batch, length, inputs)")
            single = None if state is None else self._mapped(state, lambda t: t.unsqueeze(1))
            out, end = self.forward(x.unsqueeze(0), single)
            ended: S = self._mapped(end, lambda t: t.squeeze(1))
            return out.squeeze(0), ended
        ends = None if lengths is None else self._ends(x, lengths)
        first = [None] * 2 if state is None else self._parts(x, state)
        return self._run(x.permute(1, 0, 2), first, ends)

    def _run(
        self, x: Tensor, first: Sequence[Tensor | None], ends: Tensor | None
    ) -> tuple[Tensor, Any]:
        """Run all layers over (length, batch, features)."""
        empty = zeros((x.shape[1], self.hidden), dtype=x.dtype, backend=x.backend)
        inside = None
        if ends is not None:
            times = numbers(len(x), x.backend)
            inside = (times.unsqueeze(1) < ends).unsqueeze(2)
        last_h: list[Tensor] = []
        last_c: list[Tensor] = []
        for layer in range(self.layers):
            outs = []
            for direction, suffix in enumerate(self._suffixes(layer)):
                at = layer * self._directions + direction
                h, c = (empty if part is None else part[at] for part in first)
                out, h, c_end = self._direction(x, h, c, suffix, ends, direction == 1)
                outs.append(out)
                last_h.append(h)
                last_c += [] if c_end is None else [c_end]
            x = outs[0] if len(outs) == 1 else concat(outs, 2)
            x = x if inside is None else inside.where(x, 0.0)
            x = self.dropout(x) if layer + 1 < self.layers else x
        result = x.permute(1, 0, 2)
        h_n = stack(last_h)
        return (result, (h_n, stack(last_c))) if self.has_cell else (result, h_n)

    def _direction(
        self, x: Tensor, h: Tensor, c: Tensor, suffix: str, ends: Tensor | None, reverse: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """One layer in one direction."""

        def own(what: str) -> Parameter:
            found: Parameter = getattr(self, f"{what}_{suffix}")
            return found

        bias, of_state = None, None
        if self.has_bias:
            bias, of_state = own("bias_ih"), own("bias_hh")
        given = linear(x, own("weight_ih"), bias)
        cell = c if self.has_cell else None
        return recurrence(
            self.kind, given, h, cell, own("weight_hh"), of_state, lengths=ends, reverse=reverse
        )

    def _mapped(self, state: Any, function: Any) -> Any:
        return tuple(map(function, state)) if self.has_cell else function(state)

    def _parts(self, x: Tensor, state: Any) -> tuple[Tensor, Tensor | None]:
        """The state's h and c, checked."""
        name = type(self).__name__
        parts = state if self.has_cell else (state,)
        wanted = (self.layers * self._directions, x.shape[0], self.hidden)
        is_right = isinstance(parts, tuple) and len(parts) == (2 if self.has_cell else 1)
        if not is_right or any(not isinstance(p, Tensor) or p.shape != wanted for p in parts):
            what = f"(h, c), each of shape {wanted}" if self.has_cell else f"a tensor of {wanted}"
            shapes = [getattr(p, "shape", type(p).__name__) for p in parts] if is_right else state
            raise ValueError(f"{name}: the first state must be {what}, not {shapes}")
        backend_of(name, (x, *parts))
        h, *rest = parts
        return h, rest[0] if rest else None

    def _ends(self, x: Tensor, lengths: Lengths) -> Tensor:
        """The lengths as a tensor on x's backend, checked unless that needs a transfer."""
        name = type(self).__name__
        given = lengths if isinstance(lengths, Tensor) else np.asarray(lengths)
        if given.dtype.kind not in "iu" or given.shape != x.shape[:1]:
            raise ValueError(
                f"{name}: lengths are {x.shape[0]} integers, one a sequence, not {given.dtype} of "
                f"shape {given.shape}"
            )
        if not isinstance(given, Tensor) or is_readable(given):
            check_lengths(name, "lengths", np.asarray(given), 1, x.shape[1])
        return as_integers(x, given)


class LSTM(_Recurrent[Pair]):
    """Long short-term memory. Hochreiter, Schmidhuber, 1997; Gers, Schmidhuber, Cummins, 2000.

    i, f, o = sigmoid, g = tanh of W_ih x + b_ih + W_hh h + b_hh; c = f c + i g; h = o tanh(c).
    Parameters have PyTorch's names and layout: weight_ih_l0 (4 hidden, inputs), weight_hh_l0,
    bias_ih_l0, bias_hh_l0, ..., weight_ih_l0_reverse; all are initialized as U(-b, b), b = 1 /
    sqrt(hidden).

    Called with x of (batch, length, inputs), an optional first state (h, c), and lengths=; returns
    (states, (h, c)): (batch, length, hidden), doubled if bidirectional, and the last state of each
    layer and direction, (layers * directions, batch, hidden).

    inputs: the features of a step.
    hidden: the features of the state.
    layers: the number of layers, each over the states of the previous one.
    bias: False for none.
    dropout: in [0, 1], between the layers, in training; a warning if there is only one.
    bidirectional: add a second direction in each layer, whose states follow those of the first.
    generator: of the initial weights and the dropout, by default a stream of the program's `seed`.
    dtype: floating, of the parameters.
    backend: that holds the parameters, by default the CPU.

    ValueError for shapes that do not fit, a sequence of length 0, and lengths out of range.

    >>> from rumus.nn import LSTM
    >>> from rumus.tensor import Generator, ones
    >>> layer = LSTM(3, 5, layers=2, generator=Generator(0))
    >>> states, (h, c) = layer(ones((4, 7, 3)), lengths=[7, 1, 2, 3])
    >>> states.shape, h.shape
    ((4, 7, 5), (2, 4, 5))
    """

    kind = "lstm"
    has_cell = True


class GRU(_Recurrent[Tensor]):
    """Gated recurrent unit. Cho et al.: arXiv:1406.1078, with the reset gate after the product.

    r, z = sigmoid of W_ih x + b_ih + W_hh h + b_hh; n = tanh(W_in x + b_in + r (W_hn h + b_hn)); h
    = (1 - z) n + z h. Parameters and errors are as in `LSTM`, with three gates; the state is h
    alone.

    inputs, hidden, layers, bias, dropout, bidirectional, generator, dtype, backend: as in `LSTM`.

    >>> from rumus.nn import GRU
    >>> from rumus.tensor import Generator, ones
    >>> states, h = GRU(3, 5, bidirectional=True, generator=Generator(0))(ones((4, 7, 3)))
    >>> states.shape, h.shape
    ((4, 7, 10), (2, 4, 5))
    """

    kind = "gru"


class RNN(_Recurrent[Tensor]):
    """h = tanh(W_ih x + b_ih + W_hh h + b_hh). Elman: "Finding structure in time", 1990.

    Parameters and errors are as in `LSTM`, with one gate; the state is h alone.

    inputs, hidden, layers, bias, dropout, bidirectional, generator, dtype, backend: as in `LSTM`.
    nonlinearity: "tanh", or "relu" for max(x, 0); ValueError for another one.

    >>> from rumus.nn import RNN
    >>> from rumus.tensor import Generator, ones
    >>> RNN(3, 5, nonlinearity="relu", generator=Generator(0))(ones((7, 3)))[0].shape
    (7, 5)
    """

    kind: Kind = "rnn_tanh"

    def __init__(
        self,
        inputs: int,
        hidden: int,
        *,
        nonlinearity: Literal["tanh", "relu"] = "tanh",
        layers: int = 1,
        bias: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        generator: Generator | None = None,
        dtype: DTypeLike = float32,
        backend: Backend | None = None,
    ) -> None:
        check_choice("RNN: nonlinearity", nonlinearity, ("tanh", "relu"))
        self.kind = "rnn_relu" if nonlinearity == "relu" else "rnn_tanh"
        super().__init__(
            inputs, hidden, layers=layers, bias=bias, dropout=dropout, bidirectional=bidirectional,
            generator=generator, dtype=dtype, backend=backend,
        )  # fmt: skip
