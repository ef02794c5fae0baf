"""Elementwise operations on tensors: every one of them is a kernel.

An operator is a kernel of one node; `@elementwise` makes one kernel of a whole function. The
backward pass of either is the kernel of the symbolic derivative, one fused call.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial, wraps
from types import FunctionType
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from rumus.tensor.expression.declared_type import shown
from rumus.tensor.expression.dtype import DType, bool_, float32, float64, int32, is_floating
from rumus.tensor.expression.expr import Expr
from rumus.tensor.expression.kernel import COMPARISONS, GRADIENT, LOGICAL, Kernel, trace
from rumus.tensor.expression.places import check_places
from rumus.tensor.expression.printable import abridged
from rumus.tensor.expression.real_number import CHECKS, real_number
from rumus.tensor.graph.autograd import Product, Spread, Vjp
from rumus.tensor.graph.column_and_row import warn_of_pairs
from rumus.tensor.graph.means import note_alike, note_number
from rumus.tensor.graph.tensor import Tensor, as_tensor, backend_of, refuse_rounded, result_of
from rumus.tensor.memory.backend import Array, Backend, Shape
from rumus.tensor.memory.recording import ask_host

F = TypeVar("F", bound=Callable[..., Any])

_LEAVES: Final = ("a", "b", "c")
_TRUTHS: Final = (bool, np.bool_)
_BELOW: Final = (("lt", "a"), ("le", "b"))  # comparisons that a fraction passes as its floor does
_OF_NUMBERS: Final = ("maximum", "minimum")  # arithmetic with True and False is as in NumPy
_CHOICES: Final = (*_OF_NUMBERS, "where")  # whose results are their operands, converted


@cache
def _kernel_of(operation: str, is_array: tuple[bool, ...]) -> Kernel:
    """The kernel of one node, each operand an array or a scalar."""
    pairs = zip(_LEAVES, is_array, strict=False)
    operands = [Expr.array(name) if array else Expr.scalar(name) for name, array in pairs]
    arrays = [operand.name for operand in operands if operand.operation == "array"]
    return Kernel(operation, {"out": operands[0]._apply(operation, *operands)}, arrays)


def apply(operation: str, operands: Sequence[Any]) -> Tensor:
    """Run one operation on tensors and numbers, at least one of which is a tensor."""
    if operation == "where" and not any(isinstance(o, (Tensor, np.ndarray)) for o in operands[1:]):
        condition, a, b = operands
        operands = (condition, as_tensor(a, condition._backend), b)
    tensors: list[Tensor] = []
    scalars: dict[str, float] = {}
    is_array: list[bool] = []
    if operation in _OF_NUMBERS:
        _check_numbers(operation, operands)
    for name, operand in zip(_LEAVES, operands, strict=False):
        if isinstance(operand, (int, float)):
            scalars[name] = operand
            is_array.append(False)
            continue
        if isinstance(operand, np.ndarray) and operand.ndim:
            first = next(o for o in operands if isinstance(o, Tensor))
            operand = as_tensor(operand, first._backend)
        if isinstance(operand, Tensor):
            tensors.append(operand)
            is_array.append(True)
        elif isinstance(operand, (np.number, np.bool_, np.ndarray)):
            scalars[name] = operand.item()
            is_array.append(False)
        else:
            hint = "; give tensor(x)" if hasattr(operand, "__array__") else ""
            given = abridged(operand)
            raise TypeError(f"{operation}: a tensor cannot be combined with {given}{hint}")
    if tensors[0]._array.dtype.kind != "f" or operation == "where":
        if operation in COMPARISONS:
            are_whole = all(t._array.dtype.kind != "f" for t in tensors)
            if are_whole:
                scalars = {n: _comparable(operation, n, each) for n, each in scalars.items()}
        if operation == "pow":
            _check_exponent(tensors[0], scalars.get("b", 0))
        tensors = _settle(operation, tensors, scalars.values())
    return run(_kernel_of(operation, tuple(is_array)), tensors, scalars)


def _check_numbers(operation: str, operands: Sequence[Any]) -> None:
    """Raise TypeError for True or False beside a tensor of numbers."""
    for operand in operands:
        if type(operand) in _TRUTHS:
            for other in operands:
                if isinstance(other, Tensor) and other.dtype != bool_:
                    raise TypeError(
                        f"{operation}: give a number, not {operand}, beside a tensor of "
                        f"{other.dtype}"
                    )


def _settle(operation: str, tensors: list[Tensor], scalars: Any) -> list[Tensor]:
    """Convert integers and booleans to the dtype in which the operation makes sense."""
    if operation == "where":
        if tensors[0].dtype != bool_:
            raise TypeError(f"where: the condition must be bool, not {tensors[0].dtype}")
        return [tensors[0], *_settle("maximum", tensors[1:], scalars)]
    if any(t.dtype.kind == "f" for t in tensors):
        return tensors
    if any(isinstance(s, float) for s in scalars):
        is_comparison = operation in COMPARISONS  # with infinity, to which no rounding matters
        return [cast(t, float32, by_name=is_comparison) for t in tensors]
    if operation not in COMPARISONS and operation != "div":  # a quotient is float32
        _check_integers(operation, scalars)
    counted = operation not in COMPARISONS and any(not isinstance(s, bool) for s in scalars)
    if counted or operation not in LOGICAL:
        return [cast(t, int32) if t.dtype == bool_ else t for t in tensors]
    return tensors


def _settle_scalars(tensors: list[Tensor], scalars: Iterable[object]) -> list[Tensor]:
    """Convert integers to be computed with beside a fraction, which no integer is."""
    if any(isinstance(each, float) for each in scalars):
        return [cast(t, float32) for t in tensors]
    return tensors


def _check_integers(operation: str, scalars: Iterable[int]) -> None:
    """Raise OverflowError for a number that does not fit the tensor's integer dtype."""
    limits = np.iinfo(int32)
    for scalar in scalars:
        if not limits.min <= scalar <= limits.max:
            raise OverflowError(
                f"{operation}: {scalar} does not fit int32; convert the tensor to float32 first"
            )


def _comparable(operation: str, side: str, number: float) -> float:
    """The integer to compare integers with for a number; one beyond them compares as infinity does.

    side: of the number, "a" or "b".
    """
    limits = np.iinfo(int32)
    if isinstance(number, bool) or number != number:
        return number
    if not limits.min <= number <= limits.max:
        return math.inf if number > 0 else -math.inf
    if operation == "eq" and number != math.floor(number):
        return math.inf
    return math.floor(number) if (operation, side) in _BELOW else math.ceil(number)


def _check_exponent(base: Tensor, exponent: float) -> None:
    """Raise ValueError for a negative power of integers, a fraction."""
    if isinstance(exponent, int) and exponent < 0:
        raise ValueError(
            f"pow: {base.dtype} to the power of {exponent} is no {base.dtype}: "
            f"use x ** {exponent}.0, or 1 / x ** {-exponent}"
        )


def broadcast_shape(operation: str, shapes: Sequence[Shape]) -> Shape:
    """Return the shape that `shapes` broadcast to; ValueError if they do not."""
    first = shapes[0]
    for shape in shapes:
        if shape != first:
            try:
                return np.broadcast_shapes(*shapes)
            except ValueError:
                text = " and ".join(map(str, shapes))
                raise ValueError(f"{operation}: shapes {text} do not broadcast") from None
    return first


def run(kernel: Kernel, tensors: Sequence[Tensor], scalars: Mapping[str, float]) -> Tensor:
    """Return the output of a single-output kernel, with its inputs broadcast to one shape."""
    backend = backend_of(kernel.name, tensors)
    arrays = [t._array for t in tensors]
    shapes = [array.shape for array in arrays]
    shape = broadcast_shape(kernel.name, shapes)
    if shape is not shapes[0] and shape not in shapes:
        warn_of_pairs(kernel.name, tensors)
    types = kernel.types(tuple([array.dtype for array in arrays]))
    held = types.results[0] if kernel.name in _CHOICES else types.compute
    if held.kind == "f":
        for t in tensors:
            if t._array.dtype == int32:
                _require_exact(t, held)
    out = backend.allocate(shape, types.results[0])
    backend.elementwise(kernel, arrays, kernel.bind(scalars), (out,))
    wanted = tuple([i for i, t in enumerate(tensors) if t.requires_grad])
    if not wanted:
        return note_number(Tensor(out, backend), kernel.name, tensors)
    plan = _plan(kernel, wanted)
    inputs = [tensors[i] for i in wanted]
    saved = [tensors[i] for i in plan.needed if i is not None]
    vjp = _elementwise_vjp(plan, tensors, inputs, scalars)
    is_plain = not plan.is_identity and all(t.shape == shape for t in tensors)
    takes_products = is_plain and all(t.dtype == out.dtype for t in inputs)
    takes: tuple[type, ...] = (Product,) if takes_products else ()
    if takes and backend.runs_ahead:  # where writing one number out costs a dispatch
        takes = (Product, Spread)
    return result_of(
        kernel.name, out, backend, inputs, vjp, saved, takes=takes, fills_places=True, of=tensors
    )


@dataclass(frozen=True, slots=True)
class _Plan:
    """The backward pass of a kernel: its derivative, and the inputs that it needs."""

    derivative: Kernel
    of_product: Kernel  # the same, with its first output replacing the incoming gradient
    needed: tuple[int | None, ...]  # positions among the inputs; None: the incoming gradient
    is_identity: bool  # whether each input simply gets the incoming gradient


@cache
def _plan(kernel: Kernel, wanted: tuple[int, ...]) -> _Plan:
    derivative = kernel.gradient(tuple(kernel.arrays[i] for i in wanted))
    needed = [None if n == GRADIENT else kernel.arrays.index(n) for n in derivative.arrays]
    outputs = derivative.outputs.values()
    is_identity = all(e.operation == "array" and e.name == GRADIENT for e in outputs)
    return _Plan(derivative, in_place(derivative), tuple(needed), is_identity)


def in_place(derivative: Kernel) -> Kernel:
    """Return a derivative whose first output replaces the incoming gradient, its first array."""
    first, *others = derivative.outputs
    outputs = {GRADIENT: derivative.outputs[first]}
    outputs |= {name: derivative.outputs[name] for name in others}
    arrays = [name for name in derivative.arrays if name != GRADIENT]
    return Kernel(derivative.name, outputs, (GRADIENT, *arrays))


def _elementwise_vjp(
    plan: _Plan, tensors: Sequence[Tensor], inputs: Sequence[Tensor], scalars: Mapping[str, float]
) -> Vjp:
    """The backward pass of a kernel: run its derivative, then sum over what was broadcast."""
    arrays = [None if i is None else tensors[i]._array for i in plan.needed]
    targets = [(t.shape, t.dtype) for t in inputs]
    backend = inputs[0]._backend

    def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array | None]:
        if isinstance(gradient, Product):
            saved = [array for array in arrays if array is not None]
            return gradient.through(plan.of_product, saved, plan.of_product.bind(scalars))
        if plan.is_identity:
            return [_fit(backend, gradient, target) for target in targets]
        shape = gradient.shape
        if isinstance(gradient, Spread):
            is_number = gradient.factor == 1
            one = gradient.number.reshape((1,) * len(shape))
            gradient = one if is_number else gradient.computed()
        out = [
            destination
            if destination is not None and target == (shape, gradient.dtype)
            else backend.allocate(shape, gradient.dtype)
            for destination, target in zip(destinations, targets, strict=True)
        ]
        operands = [gradient if array is None else array for array in arrays]
        backend.elementwise(plan.derivative, operands, plan.derivative.bind(scalars), out)
        return [_fit(backend, o, target) for o, target in zip(out, targets, strict=True)]

    return vjp


def _fit(backend: Backend, gradient: Array, target: tuple[Shape, DType]) -> Array:
    """Sum a gradient over the axes along which its input was broadcast; cast it to its dtype."""
    shape, dtype = target
    fitted = sum_to(backend, gradient, shape)
    return fitted if fitted.dtype == dtype else converted(backend, fitted, dtype)


def sum_to(backend: Backend, array: Array, shape: Shape) -> Array:
    """Return `array` summed to `shape`, which broadcasts to its own shape."""
    if array.shape == shape:
        return array
    extra = len(array.shape) - len(shape)
    axes = tuple(
        axis
        for axis, length in enumerate(array.shape)
        if axis < extra or shape[axis - extra] != length
    )
    kept = tuple(n for axis, n in enumerate(array.shape) if axis not in axes)
    out = backend.allocate(kept, array.dtype)
    backend.reduce("sum", array, axes, out)
    return out.reshape(shape)


def converted(backend: Backend, array: Array, dtype: DType) -> Array:
    """Return a copy of `array` in another dtype."""
    out = backend.allocate(array.shape, dtype)
    backend.copy(array, out)
    return out


def cast(x: Tensor, dtype: DType, *, by_name: bool = False) -> Tensor:
    """Return `x` in another dtype; `x` itself if it already has it.

    by_name: whether the program has asked for it; otherwise integers that would be rounded are
        refused.
    """
    if x.dtype == dtype:
        return x
    if not by_name and x.dtype == int32:
        _require_exact(x, dtype)
    backend, before = x._backend, x.dtype
    out = converted(backend, x._array, dtype)
    found = result_of(
        "astype", out, backend, (x,), lambda g, destinations: (converted(backend, g, before),)
    )
    return note_alike(found, x)


def _require_exact(x: Tensor, dtype: DType) -> None:
    """Raise PrecisionError for an integer that a floating dtype has not.

    On a device nobody can look: it is rounded there.
    """
    if dtype.kind == "f" and dtype != float64 and not x._backend.runs_ahead:
        ask_host(partial(refuse_rounded, dtype), (x._array,))


def compute(
    backend: Backend, kernel: Kernel, arrays: Sequence[Array], scalars: Sequence[float] = ()
) -> Array:
    """Run a single-output kernel on arrays, outside any graph, and return the output."""
    types = kernel.types(tuple([array.dtype for array in arrays]))
    shape = broadcast_shape(kernel.name, [array.shape for array in arrays])
    out = backend.allocate(shape, types.results[0])
    backend.elementwise(kernel, arrays, scalars, (out,))
    return out


def elementwise(function: F) -> F:
    """Turn a function of several tensors into one fused, differentiable kernel.

    The function is traced once: its positional parameters are tensors, its keyword-only ones are
    scalars, which may differ at each call without recompiling. Its body may use operators, the
    elementwise functions of this package, numbers, and other such functions. Called with `Expr`s it
    returns an `Expr`, so it can be part of a larger kernel.

    function: of expressions and numbers, which returns an expression.

    >>> from rumus.tensor import elementwise, sigmoid, tensor
    >>> @elementwise
    ... def swish(x, *, beta=1.0):
    ...     return x * sigmoid(beta * x)
    >>> swish(tensor([0.0, 1.0]), beta=2.0).tolist()
    [0.0, 0.8807970285415649]
    """
    if not callable(function):
        raise TypeError(f"elementwise: function must be a function, not {shown(function)}")
    signature = inspect.signature(function)
    scalars = [p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]
    defaults = {p.name: p.default for p in scalars if p.default is not p.empty}
    required = {p.name for p in scalars} - set(defaults)
    checks = {p.name: CHECKS.get(str(p.annotation), real_number) for p in scalars}
    kernels: list[Kernel] = []

    @wraps(function)
    def call(*operands: Any, **kwargs: Any) -> Any:
        if any(isinstance(operand, Expr) for operand in operands):
            return function(*operands, **kwargs)
        if not kernels:
            kernels.append(trace(function))
        if unknown := set(kwargs) - set(signature.parameters):
            raise TypeError(f"{function.__name__}() has no parameter {sorted(unknown)[0]!r}")
        if len(operands) != len(kernels[0].arrays) or not required <= set(kwargs):
            check_places(function.__name__, function, operands, kwargs)
            bound = signature.bind(*operands, **kwargs)
            bound.apply_defaults()
            operands, kwargs = bound.args, bound.kwargs
        for name, value in kwargs.items():
            checks[name](f"{function.__name__}: {name}", value)
        first = next((o for o in operands if isinstance(o, Tensor)), None)
        if first is None:
            given = ", ".join(type(operand).__name__ for operand in operands)
            raise TypeError(
                f"{function.__name__}() needs a tensor, not {given}: call it with tensor(x)"
            )
        dtype = first.dtype if is_floating(first.dtype) else None
        for number, operand in enumerate(operands):
            if type(operand) in _TRUTHS:
                name = [*signature.parameters][number]
                raise TypeError(f"{function.__name__}: {name} must be numbers, not {operand}")
        tensors = [as_tensor(o, first._backend, dtype) for o in operands]
        scalars = {**defaults, **kwargs}
        if not any(t._array.dtype.kind == "f" for t in tensors):
            tensors = _settle_scalars(tensors, scalars.values())
        return run(kernels[0], tensors, scalars)

    def traced() -> tuple[Kernel, Mapping[str, float]]:
        if not kernels:
            kernels.append(trace(function))
        return kernels[0], defaults

    _traced[call] = traced
    return call  # type: ignore[return-value]


# Keyed by the function itself: `wraps` would copy an attribute to functions that do something else.
_traced: Final[WeakKeyDictionary[Callable[..., Any], Callable[[], Any]]] = WeakKeyDictionary()


def kernel_of(function: Callable[..., Any]) -> tuple[Kernel, Mapping[str, float]] | None:
    """Return the kernel and scalars of an `elementwise` function; None for anything else.

    A `functools.partial` of such a function may set scalars; one that sets anything else counts as
    an ordinary function.
    """
    given: Mapping[str, float] = {}
    if isinstance(function, partial) and not function.args:
        given, function = function.keywords, function.func
    traced = _traced.get(function) if isinstance(function, FunctionType) else None
    if traced is None:
        return None
    kernel, defaults = traced()
    return (kernel, {**defaults, **given}) if set(given) <= set(kernel.scalars) else None
