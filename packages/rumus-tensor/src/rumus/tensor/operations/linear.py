"""`linear`: a product with everything that usually follows it, in one dispatch each way."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import compress
from typing import Any

from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.expr import Expr
from rumus.tensor.expression.kernel import GRADIENT, Kernel
from rumus.tensor.graph.autograd import Product, Vjp, is_recording
from rumus.tensor.graph.linear_algebra import dtype_of_product
from rumus.tensor.graph.operators import cast, in_place, kernel_of
from rumus.tensor.graph.tensor import Tensor, backend_of, result_of
from rumus.tensor.memory.backend import Array, Backend, Epilogue, Shape
from rumus.tensor.memory.reshaping import reshaped


@checked_arguments
def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: Callable[[Any], Any] | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """activation(x @ weight^T + bias) + residual: one product, with the rest as its epilogue.

    x: (..., in).
    weight: (out, in).
    bias: (out,), None for none.
    activation: a function of a tensor. An `elementwise` function, such as `gelu` or a
        `functools.partial` of `leaky_relu`, is fused with the product; any other runs after it.
    residual: (..., out), added to the result, which has this shape.

    ValueError if they do not fit, TypeError if neither x nor weight is floating. The leading axes
    are joined, so the weight gradient is also one product, which includes the bias gradient.

    >>> from rumus.tensor import linear, relu, tensor
    >>> x, weight = tensor([[1.0, 2.0]]), tensor([[3.0, 1.0], [-1.0, 0.0]])
    >>> linear(x, weight, activation=relu, residual=tensor([[0.5, 0.5]])).tolist()
    [[5.5, 0.5]]
    """
    check_fit(x.shape, weight, bias, residual)
    known = None if activation is None else kernel_of(activation)
    if activation is not None and known is None:
        y: Tensor = activation(linear(x, weight, bias))
        return y if residual is None else y + residual
    tensors = [t for t in (x, weight, bias, residual) if t is not None]
    backend = backend_of("linear", tensors)
    dtype = dtype_of_product("linear", *tensors)
    if any(t.dtype != dtype for t in tensors):
        b, r = (None if t is None else cast(t, dtype) for t in (bias, residual))
        return linear(cast(x, dtype), cast(weight, dtype), b, activation=activation, residual=r)
    saves = is_recording() and any(t.requires_grad for t in tensors)
    kernel, scalars = known or (None, {})
    after = ending(kernel, residual is not None, saves)
    rows = reshaped(backend, x._array, (math.prod(x.shape[:-1]), x.shape[-1]))
    shape = (rows.shape[0], weight.shape[0])
    product = out = backend.allocate(shape, dtype)
    if after.keeps_product:
        product = backend.allocate(shape, dtype)
    added = None if residual is None else reshaped(backend, residual._array, shape)
    epilogue = after.epilogue(scalars, out, added)
    turned = weight._array.transpose((1, 0))
    backend.matmul(rows, turned, product, None if bias is None else bias._array, epilogue=epilogue)
    derivative = after.derivative
    back = None if derivative is None else _Activation(backend, derivative, scalars, product)
    vjp = _linear_vjp(x, weight, bias, residual, rows, back)
    name = "linear" if kernel is None or residual is not None else f"linear and {kernel.name}"
    return result_of(
        name, out.reshape((*x.shape[:-1], shape[1])), backend, tensors, vjp, (x, weight),
        reads_result=back is not None and not after.keeps_product,
        takes=(Product,) if back is not None and residual is None else (), fills_places=True,
    )  # fmt: skip


def check_fit(x: Shape, weight: Tensor, bias: Tensor | None, residual: Tensor | None) -> None:
    """Raise ValueError for arguments that do not fit an input of shape `x`."""
    if weight.ndim != 2:
        raise ValueError(f"linear: expected a weight of shape (out, in), got {weight.shape}")
    outputs, inputs = weight.shape
    if bias is not None and bias.shape != (outputs,):
        raise ValueError(f"linear: expected a bias of shape {(outputs,)}, got {bias.shape}")
    if not x or x[-1] != inputs:
        raise ValueError(
            f"linear: input of shape {x} for a weight of shape {weight.shape}: "
            f"the last axis must be {inputs}"
        )
    shape = (*x[:-1], outputs)
    if residual is not None and residual.shape != shape:
        raise ValueError(f"linear: expected a residual of shape {shape}, got {residual.shape}")


@dataclass(frozen=True, slots=True)
class Ending:
    """The epilogue of a product, and its backward."""

    kernel: Kernel | None  # its first array is the product, the second is added
    derivative: Kernel | None  # of the activation
    keeps_product: bool  # for the derivative; else it is replaced by the result

    def epilogue(
        self, scalars: Mapping[str, float], out: Array, residual: Array | None
    ) -> Epilogue | None:
        """Return the epilogue; `out` is for the result if the product itself is kept."""
        if self.kernel is None:
            return None
        arrays = () if residual is None else (residual,)
        more = (out,) if self.keeps_product else ()
        return Epilogue(self.kernel, arrays, self.kernel.bind(scalars), more)


@cache
def ending(activation: Kernel | None, has_residual: bool, saves: bool) -> Ending:
    """The epilogue of a product. saves: whether backward will run."""
    if activation is None and not has_residual:
        return Ending(None, None, False)
    if activation is not None and len(activation.arrays) != 1:
        raise TypeError(
            f"linear: an activation must be a function of one tensor; {activation.name!r} takes "
            f"{', '.join(activation.arrays)}"
        )
    name = "x" if activation is None else activation.arrays[0]
    result = Expr.array(name)
    if activation is not None:
        (result,) = activation.outputs.values()
    # relu's derivative follows from its result, which is positive where its argument is.
    is_relu = result.operation == "relu" and result.operands[0].operation == "array"
    keeps = saves and activation is not None and (has_residual or not is_relu)
    arrays = [name]
    if has_residual:
        arrays.append(f"{name}_residual")
        result = result + Expr.array(arrays[1])
    title = "linear" if activation is None else f"linear_{activation.name}"
    kernel = Kernel(title, {f"{name}_result" if keeps else name: result}, arrays)
    derivative = None if activation is None else activation.gradient((name,))
    return Ending(kernel, derivative, keeps)


@dataclass(frozen=True, slots=True)
class _Activation:
    """Backward through an activation, from its argument or its result."""

    backend: Backend
    derivative: Kernel
    scalars: Mapping[str, float]
    saved: Array

    def gradient(self, gradient: Array | Product) -> Array:
        """Return the gradient of the product."""
        kernel = self.derivative
        values = kernel.bind(self.scalars)
        others = [self.saved] if len(kernel.arrays) - (GRADIENT in kernel.arrays) else []
        if isinstance(gradient, Product):
            return gradient.through(_in_place(kernel), others, values)[0]
        g = reshaped(self.backend, gradient, self.saved.shape)
        out = self.backend.allocate(g.shape, g.dtype)
        arrays = [g if name == GRADIENT else self.saved for name in kernel.arrays]
        self.backend.elementwise(kernel, arrays, values, (out,))
        return out


_in_place = cache(in_place)


def _linear_vjp(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    rows: Array,
    activation: _Activation | None,
) -> Vjp:
    backend, matrix, shape = x._backend, weight._array, x.shape
    present = True, True, bias is not None, residual is not None
    wanted = weight.requires_grad, bias is not None and bias.requires_grad
    wants_x, wants_residual = x.requires_grad, residual is not None and residual.requires_grad

    def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array | None]:
        g = gradient if activation is None else activation.gradient(gradient)
        g = reshaped(backend, g, (rows.shape[0], matrix.shape[0]))
        into = destinations[1], destinations[2] if present[2] else None
        of_weight, of_bias = weight_gradients(backend, g, rows, into, wanted)
        of_x = Product(backend, g, matrix, rows.shape, shape) if wants_x else None
        of_residual = gradient if wants_residual else None
        return list(compress((of_x, of_weight, of_bias, of_residual), present))

    return vjp


def weight_gradients(
    backend: Backend,
    g: Array,
    rows: Array,
    into: tuple[Array | None, Array | None],
    wanted: tuple[bool, bool],
) -> tuple[Array | None, Array | None]:
    """Return the weight and bias gradients: g^T rows and, in the same product, sum(g).

    g: (n, out). rows: (n, in). into: optional destinations. wanted: which gradients are needed.
    """
    weight = bias = None
    if wanted[1]:
        bias = backend.allocate(g.shape[1:], g.dtype) if into[1] is None else into[1]
    if wanted[0]:
        shape = g.shape[1], rows.shape[1]
        weight = backend.allocate(shape, g.dtype) if into[0] is None else into[0]
        backend.matmul(g.transpose((1, 0)), rows, weight, sums=bias)
    elif bias is not None:
        backend.reduce("sum", g, (0,), bias)
    return weight, bias
