"""`FrozenLinear`: an untrained linear layer whose matrix takes fewer bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final, Literal, TypeAlias
from weakref import WeakValueDictionary

from rumus.nn.linear import Linear
from rumus.nn.module import Module
from rumus.tensor import Backend, OwnershipError, Parameter, Tensor, float16, float32, linear
from rumus.tensor.expression.choice import check_choice
from rumus.tensor.expression.dtype import int32
from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.graph.autograd import Product
from rumus.tensor.graph.tensor import backend_of, result_of
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.quantization import SIGNED, BlockTable
from rumus.tensor.memory.slot_table import SlotTable
from rumus.tensor.operations.linear import check_fit

Storage: TypeAlias = Literal["same", "float16", "8bit"]

# What computes with a layer's own matrix, by the id of that.
_of_weight: Final[WeakValueDictionary[int, FrozenLinear]] = WeakValueDictionary()


class FrozenLinear(Module):
    """A `Linear` whose matrix is not trained, and may be stored in 2 bytes or 1 byte per number.

    A matrix is widened to float32 when needed, forward and backward, and freed at once, so no two
    of them are in memory together. float16 inputs give float16 results.

    base: the layer that provides the matrix and bias, which are frozen. A UserWarning tells of one
        that another such layer has, so that both share its matrix.
    storage: "same" keeps the base's own parameter; "float16" rounds the matrix, OverflowError if a
        number is too large; "8bit" keeps one byte per number and a scale for every 256, as
        optimizers do with `state_dtype="8bit"`.

    OwnershipError if an optimizer trains the matrix or the bias that would be frozen.

    >>> from rumus.nn import FrozenLinear, Linear
    >>> from rumus.tensor import Generator, ones
    >>> layer = FrozenLinear(Linear(256, 4, generator=Generator(0)), storage="8bit")
    >>> layer(ones((2, 256))).shape, sorted(layer.state_dict())
    ((2, 4), ['bias', 'weight_codes', 'weight_scales'])
    """

    def __init__(self, base: Linear, *, storage: Storage = "same") -> None:
        if not isinstance(base, Linear):
            hint = ", whose matrix is frozen already" if isinstance(base, FrozenLinear) else ""
            raise TypeError(
                f"{type(self).__name__}: base must be a Linear, not {type(base).__name__}{hint}"
            )
        check_choice("storage", storage, ("same", "float16", "8bit"))
        is_rounded = storage == "float16" and base.weight.dtype != float16
        is_shared = storage != "8bit" and not is_rounded
        _check_not_trained(type(self).__name__, base.weight if is_shared else None, base.bias)
        self.inputs = base.inputs
        self.outputs = base.outputs
        self.bias = base.bias
        self.storage = storage
        self.weight: Parameter | None = None
        self.weight_codes: Tensor | None = None
        self.weight_scales: Tensor | None = None
        if storage == "8bit":
            self.weight_codes, self.weight_scales = _packed(base.weight.detach())
        elif is_rounded:
            self.weight = Parameter(_rounded(base.weight), name=base.weight.name, role="weight")
        else:
            self._share(base.weight)
        for parameter in (self.weight, self.bias):
            if parameter is not None:
                parameter.requires_grad = False

    def _share(self, weight: Parameter) -> None:
        """Compute with the base's own matrix; a UserWarning tells of another layer that does."""
        other, kind = _of_weight.get(id(weight)), type(self).__name__
        if other is not None and other.weight is weight:
            warn_user(
                f"{kind}: its base is that of another {type(other).__name__}, and they share one "
                "frozen matrix; for two matrices, give it copy.deepcopy(base)",
            )
        self.weight = weight
        _of_weight[id(weight)] = self

    def _kept(self) -> Tensor:
        kept = self.weight if self.weight_codes is None else self.weight_codes
        assert kept is not None
        return kept

    @property
    def backend(self) -> Backend:
        """The backend that holds the matrix."""
        return self._kept().backend

    def full_weight(self) -> Tensor:
        """Return the matrix as float32, (outputs, inputs)."""
        return Tensor(self._expanded(), self.backend)

    def _expanded(self) -> Array:
        shape, backend = (self.outputs, self.inputs), self.backend
        if self.weight is not None:
            kept = self.weight._array
            if kept.dtype == float32:
                return kept
            wide = backend.allocate(shape, float32)
            backend.copy(kept, wide)
            return wide
        assert self.weight_codes is not None
        assert self.weight_scales is not None
        codes, scales = self.weight_codes._array, self.weight_scales._array
        table = _blocks(math.prod(shape))
        flat = backend.allocate((table.size,), float32)
        backend.dequantize(codes, scales, SIGNED, table, table.whole(), flat)
        return flat[: math.prod(shape)].reshape(shape)

    def forward(
        self,
        x: Tensor,
        *,
        activation: Callable[[Tensor], Tensor] | None = None,
        residual: Tensor | None = None,
    ) -> Tensor:
        """Map the last axis from `inputs` to `outputs`: activation(y) + residual, if given.

        x: (..., inputs).
        activation: a function of a tensor.
        residual: (..., outputs).
        """
        if x.dtype != float32:
            wide = None if residual is None else residual.astype(float32)
            y = self.forward(x.astype(float32), activation=activation, residual=wide)
            return y.astype(x.dtype)
        if self.weight is not None and self.weight.dtype == float32:
            return linear(x, self.weight, self.bias, activation=activation, residual=residual)
        y = self._product(x)
        y = y if activation is None else activation(y)
        return y if residual is None else y + residual

    def _product(self, x: Tensor) -> Tensor:
        """The product plus bias; only x has a gradient, g weight."""
        backend = backend_of("FrozenLinear", (x, self._kept()))
        matrix = self._expanded()
        check_fit(x.shape, Tensor(matrix, backend), self.bias, None)
        rows = x._array.reshape((math.prod(x.shape[:-1]), self.inputs))
        out = backend.allocate((rows.shape[0], self.outputs), float32)
        bias = None if self.bias is None else self.bias.astype(float32)._array
        backend.matmul(rows, matrix.transpose((1, 0)), out, bias)
        shape, full = x.shape, rows.shape
        del matrix, rows

        def vjp(gradient: Array, _: Sequence[Array | None]) -> Sequence[Product]:
            g = gradient.reshape((full[0], self.outputs))
            return (Product(backend, g, self._expanded(), full, shape),)

        result = out.reshape((*shape[:-1], self.outputs))
        return result_of("frozen_linear", result, backend, (x,), vjp)

    def thawed(self, added: Tensor | None = None) -> Linear:
        """Return a `Linear` with this matrix plus `added`, in float32; it has no gradient.

        added: (outputs, inputs), None for nothing.
        """
        layer = Linear.__new__(Linear)
        layer.inputs, layer.outputs = self.inputs, self.outputs
        full = self.full_weight()
        name = "weight" if self.weight is None else self.weight.name
        total = full if added is None else full + added
        layer.weight = Parameter(total, name=name, role="weight", requires_grad=False)
        layer.bias = self.bias
        return layer


def _check_not_trained(kind: str, *parameters: Parameter | None) -> None:
    """Raise OwnershipError if an optimizer trains what will be frozen."""
    for parameter in parameters:
        if parameter is not None and parameter.requires_grad and parameter.owner is not None:
            raise OwnershipError(
                f"{kind}: {parameter.label} of its base is owned by {parameter.owner}, whose "
                "training of it would end: make the optimizer afterwards, or give copy.deepcopy("
                "base)"
            )


@cache
def _blocks(size: int) -> BlockTable:
    """The blocks of a matrix: always the same object, so that a device keeps one copy."""
    return BlockTable(SlotTable([size]))


def _rounded(weight: Tensor) -> Tensor:
    """A matrix in float16. OverflowError for finite numbers that become infinite there."""
    half = weight.detach().astype(float16)
    backend = half.backend
    found = backend.first_not_finite(half._array)
    if found is not None and backend.first_not_finite(weight._array) is None:
        raise OverflowError(f"{weight.label}: a number is too large for float16; use '8bit'")
    return half


def _packed(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The codes of a matrix, and the scale of each block."""
    backend = weight.backend
    table = _blocks(weight.size)
    flat = backend.allocate((table.size,), float32)
    backend.fill(0, flat)
    backend.copy(weight._array.reshape((weight.size,)), flat[: weight.size])
    codes = backend.allocate((table.size // 4,), int32)
    backend.fill(0, codes)  # the last block may be shorter than its slot
    scales = backend.allocate((table.number,), float32)
    backend.quantize(flat, SIGNED, table, table.whole(), codes, scales)
    return Tensor(codes, backend), Tensor(scales, backend)
