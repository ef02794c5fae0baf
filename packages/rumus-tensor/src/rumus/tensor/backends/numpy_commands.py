"""Prepared calls: calls that run again and again are analyzed only once.

An operation chooses its method by shapes and dtypes and allocates scratch memory. On arrays that
stay the same all of that is known in advance, and only the work itself is left. Callers have
NumPy's warnings turned off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.backends import numba_rows, numpy_rows
from rumus.tensor.backends.numba_backend import NumbaBackend
from rumus.tensor.backends.numba_products import bound_product
from rumus.tensor.backends.numpy_backend import NumpyBackend
from rumus.tensor.backends.numpy_integers import convert
from rumus.tensor.backends.numpy_rows import BoundRows
from rumus.tensor.backends.numpy_sums import add_up, as_one_product, is_cut, is_short, row_sums
from rumus.tensor.compiled import numba_blas
from rumus.tensor.compiled.product_blocks import in_blocks
from rumus.tensor.compiled.shared_work import BLOCK
from rumus.tensor.expression.dtype import DType
from rumus.tensor.expression.kernel import Kernel
from rumus.tensor.memory.backend import Array, Epilogue, Reduction

Command: TypeAlias = Callable[[], object]
# From scratch memory and an operation's arguments to a function that runs it on them; None if there
# is nothing faster than the operation.
Preparing: TypeAlias = Callable[..., Command | None]


class Parts:
    """Commands that are one operation together. Calling it runs them."""

    def __init__(self, parts: Sequence[Command]) -> None:
        self._parts = parts

    def __call__(self) -> None:
        """Run them."""
        for part in self._parts:
            part()

    @staticmethod
    def of(command: Command) -> Sequence[Command]:
        """Return the parts of a command, or the command alone: a list of more has fewer calls."""
        return command._parts if isinstance(command, Parts) else [command]


class Scratch:
    """Scratch memory, used by each command of a step only while it runs.

    kept: the bytes that commands have for themselves.

    >>> first, second = Scratch().arrays((2, 3), [np.dtype(np.float32), np.dtype(np.int32)])
    >>> first.shape, second.dtype.name
    ((2, 3), 'int32')
    """

    def __init__(self) -> None:
        self._blocks: list[NDArray[np.uint8]] = []
        self.kept = 0

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return sum(block.nbytes for block in self._blocks) + self.kept

    def arrays(self, shape: tuple[int, ...], dtypes: Sequence[DType]) -> list[NDArray[Any]]:
        """Return arrays for one command, which do not overlap."""
        found = []
        for number, dtype in enumerate(dtypes):
            needed = math.prod(shape) * dtype.itemsize
            if number == len(self._blocks):
                self._blocks.append(np.empty(max(needed, 64), np.uint8))
            elif self._blocks[number].nbytes < needed:
                self._blocks[number] = np.empty(needed, np.uint8)
            found.append(self._blocks[number][:needed].view(dtype).reshape(shape))
        return found


def command_of(
    operation: Callable[..., Any], args: tuple[Any, ...], named: Mapping[str, Any], scratch: Scratch
) -> Command:
    """Return a function that runs an operation on these arrays, unwatched."""
    preparing = _PREPARED.get(operation)
    found = None if preparing is None else preparing(scratch, *args, **named)
    return partial(operation, *args, **named) if found is None else found


def _elementwise(
    scratch: Scratch,
    backend: NumpyBackend,
    kernel: Kernel,
    arrays: Sequence[Array],
    scalars: Sequence[float],
    out: Sequence[Array],
) -> Command | None:
    shape = out[0].shape
    if out[0].size > BLOCK:
        return None
    program = backend.program(kernel, tuple([array.dtype for array in arrays]))
    between = scratch.arrays(shape, program.scratch)
    with np.errstate(all="ignore"):
        numbers = program.numbers(scalars)
    return partial(program.run, *arrays, *numbers, *out, *between)


def _compiled_elementwise(
    scratch: Scratch,
    backend: NumbaBackend,
    kernel: Kernel,
    arrays: Sequence[Array],
    scalars: Sequence[float],
    out: Sequence[Array],
) -> Command | None:
    found = backend.loop_of(kernel, arrays, out)
    if found is None:
        return _elementwise(scratch, backend, kernel, arrays, scalars, out)
    return found.command(scalars)


def _copy(scratch: Scratch, backend: NumpyBackend, source: Array, out: Array) -> Command:
    if source.dtype.kind == "f" and out.dtype.kind == "i":
        return partial(convert, source, out)
    return partial(np.copyto, out, source, casting="unsafe")


def _fill(scratch: Scratch, backend: NumpyBackend, value: float, out: Array) -> Command:
    return partial(out.fill, value)


def _matmul(
    scratch: Scratch,
    backend: NumpyBackend,
    a: Array,
    b: Array,
    out: Array,
    bias: Array | None = None,
    *,
    sums: Array | None = None,
    epilogue: Epilogue | None = None,
) -> Command | None:
    product = _product(a, b, out) if backend.is_one_product(a, out) else None
    if product is None:
        return None
    parts: list[Command] = [product]
    if bias is not None:
        parts.append(partial(np.add, out, bias, out))
    if sums is not None:
        is_own = type(backend)._sum_rows is not NumpyBackend._sum_rows
        parts.append(partial(backend._sum_rows, a, sums) if is_own else row_sums(a, sums))
    if epilogue is not None:
        others = iter(epilogue.out)
        kernel, name = epilogue.kernel, epilogue.kernel.arrays[0]
        into = [out if output == name else next(others) for output in kernel.outputs]
        given = (out, *epilogue.arrays), epilogue.scalars, into
        operation = type(backend).elementwise.__wrapped__  # type: ignore[attr-defined]
        parts.append(command_of(operation, (backend, kernel, *given), {}, scratch))
    return parts[0] if len(parts) == 1 else Parts(parts)


def _compiled_matmul(
    scratch: Scratch,
    backend: NumbaBackend,
    a: Array,
    b: Array,
    out: Array,
    bias: Array | None = None,
    *,
    sums: Array | None = None,
    epilogue: Epilogue | None = None,
) -> Command | None:
    product = bound_product(a, b, out, bias, sums, epilogue)
    if product is not None:
        return product
    return _matmul(scratch, backend, a, b, out, bias, sums=sums, epilogue=epilogue)


def _cross_entropy(
    scratch: Scratch,
    logits: Array,
    index: Array,
    out: Array,
    statistics: Array,
    smoothing: float = 0.0,
    ignored: int | None = None,
    weight: Array | None = None,
) -> Command | None:
    if not BoundRows.are_usual(logits, index, smoothing, ignored, weight):
        return None
    (shifted,) = scratch.arrays(logits.shape, [logits.dtype])
    rows = BoundRows(logits, index, statistics, shifted)
    scratch.kept += rows.nbytes
    return partial(rows.losses, out)


def _cross_entropy_gradient(
    scratch: Scratch,
    logits: Array,
    index: Array,
    statistics: Array,
    gradient: Array,
    out: Array,
    smoothing: float = 0.0,
    ignored: int | None = None,
    weight: Array | None = None,
) -> Command | None:
    is_usual = BoundRows.are_usual(logits, index, smoothing, ignored, weight)
    if not is_usual or not out.flags.c_contiguous:
        return None
    rows = BoundRows(logits, index, statistics, out)
    scratch.kept += rows.nbytes
    return partial(rows.gradients, gradient)


def _compiled_cross_entropy(
    scratch: Scratch,
    logits: Array,
    index: Array,
    out: Array,
    statistics: Array,
    smoothing: float = 0.0,
    ignored: int | None = None,
    weight: Array | None = None,
) -> Command | None:
    if not numba_rows.may_be_bound(logits, index, weight):
        return None
    bound = numba_rows.bound_cross_entropy
    return bound(logits, index, out, statistics, smoothing, ignored, weight)


def _compiled_cross_entropy_gradient(
    scratch: Scratch,
    logits: Array,
    index: Array,
    statistics: Array,
    gradient: Array,
    out: Array,
    smoothing: float = 0.0,
    ignored: int | None = None,
    weight: Array | None = None,
) -> Command | None:
    if not numba_rows.may_be_bound(logits, index, weight) or not gradient.flags.c_contiguous:
        return None
    bound = numba_rows.bound_cross_entropy_gradient
    return bound(logits, index, statistics, gradient, out, smoothing, ignored, weight)


def _reduce(
    scratch: Scratch,
    backend: NumpyBackend,
    operation: Reduction,
    array: Array,
    axes: tuple[int, ...],
    out: Array,
) -> Command | None:
    if operation != "sum" or array.dtype.kind != "f":
        return None
    if is_short(array, axes):
        return partial(np.add.reduce, array, axes, None, out)
    return partial(add_up, array, axes, out)


def _product(a: Array, b: Array, out: Array) -> Command | None:
    """A single NumPy product, as `NumpyBackend` makes it; None for one that is split."""
    a, out = as_one_product(a, b, out)
    if out.dtype == np.float16 or is_cut(a, out):
        return None
    if (parts := in_blocks(a, b, out)) is not None:
        return partial(np.matmul, *parts)
    return partial(_alone if numba_blas.is_for_one(a, b, out) else np.matmul, a, b, out)


def _alone(a: Array, b: Array, out: Array) -> None:
    with numba_blas.alone():
        np.matmul(a, b, out)


def _plain(operation: Any) -> Callable[..., Any]:
    inner: Callable[..., Any] = operation.__wrapped__
    return inner


_PREPARED: Final[Mapping[Callable[..., Any], Preparing]] = {
    _plain(NumpyBackend.elementwise): _elementwise,
    _plain(NumbaBackend.elementwise): _compiled_elementwise,
    _plain(NumpyBackend.copy): _copy,
    _plain(NumpyBackend.fill): _fill,
    _plain(NumpyBackend.matmul): _matmul,
    _plain(NumbaBackend.matmul): _compiled_matmul,
    _plain(NumpyBackend.reduce): _reduce,
    numpy_rows.cross_entropy: _cross_entropy,
    numpy_rows.cross_entropy_gradient: _cross_entropy_gradient,
    numba_rows.cross_entropy: _compiled_cross_entropy,
    numba_rows.cross_entropy_gradient: _compiled_cross_entropy_gradient,
}
