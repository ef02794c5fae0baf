"""The reference backend: NumPy on the CPU.

Elementwise kernels run block by block, so that the output of one step is still in cache when the
next step reads it; threads share large arrays (NumPy releases the interpreter lock inside its
loops).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.backends import numpy_quantization
from rumus.tensor.backends.numpy_class_counts import CLASS_COUNTS
from rumus.tensor.backends.numpy_ctc import CTC
from rumus.tensor.backends.numpy_integers import convert, put_integers
from rumus.tensor.backends.numpy_lapack import LAPACK
from rumus.tensor.backends.numpy_part_means import PART_MEANS
from rumus.tensor.backends.numpy_program import NumpyProgram, compile_program
from rumus.tensor.backends.numpy_recurrent import CELLS
from rumus.tensor.backends.numpy_rows import ROW_KERNELS, check_index
from rumus.tensor.backends.numpy_sorting import SORTING
from rumus.tensor.backends.numpy_sums import (
    add_up,
    as_one_product,
    multiply,
    root_of_squares,
    row_sums,
    without_many_repeats,
)
from rumus.tensor.compiled import numba_blas
from rumus.tensor.compiled.product_blocks import in_blocks
from rumus.tensor.compiled.shared_work import BLOCK, PARALLEL, blocks, run_parts
from rumus.tensor.expression.dtype import DType
from rumus.tensor.expression.kernel import Kernel
from rumus.tensor.expression.other_names import OtherNames
from rumus.tensor.memory.backend import Array, Epilogue, Reduction, Shape
from rumus.tensor.memory.fused import FusedName
from rumus.tensor.memory.philox import as_int32, philox_words
from rumus.tensor.memory.quantization import BLOCK as CODED
from rumus.tensor.memory.quantization import BlockTable, Code, Piece
from rumus.tensor.memory.section import Section
from rumus.tensor.memory.slot_table import ALIGNMENT, SlotTable
from rumus.tensor.memory.updater import ImmediateUpdater, NonFinite, Updater
from rumus.tensor.memory.watching import is_somebody_watching, watched

if TYPE_CHECKING:
    from rumus.tensor.backends.numpy_capture import Capture
    from rumus.tensor.backends.numpy_notes import Notes
    from rumus.tensor.memory.recording import CapturedStep, Comparison

FUSED: Final[Mapping[FusedName, Callable[..., None]]] = {
    name: watched(function)
    for table in (ROW_KERNELS, SORTING, CTC, CELLS, CLASS_COUNTS, LAPACK, PART_MEANS)
    for name, function in table.items()
}
F = TypeVar("F", bound=Callable[..., None])


def _quiet(method: F) -> F:
    """Return NaN and infinity without NumPy's warnings: other backends do not warn either."""
    return np.errstate(all="ignore")(method)


def _add_integers(array: Array, axes: Shape, out: Array) -> None:
    """Add in 64 bits. OverflowError, with `out` unchanged, for a sum beyond its dtype."""
    put_integers("sum", np.add.reduce(array, axes, np.int64), out)


def _multiply_integers(array: Array, axes: Shape, out: Array) -> None:
    """Multiply in float64, which is exact within int32; errors as in `_add_integers`."""
    zero = (array == 0).any(axes)  # even if float64 overflows elsewhere
    put_integers("prod", np.where(zero, 0, np.multiply.reduce(array, axes, np.float64)), out)


@OtherNames("a backend", {}).of_instances
class NumpyBackend:
    """The NumPy backend; its arrays are NumPy's. See `Backend` for the methods."""

    name = "numpy"
    max_array_bytes = sys.maxsize
    runs_ahead = False

    def __init__(self) -> None:
        self._programs: dict[tuple[Kernel, tuple[DType, ...]], NumpyProgram] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @watched
    def allocate(self, shape: Shape, dtype: DType) -> Array:
        return np.empty(shape, dtype)

    def memory_of(self, array: NDArray[Any]) -> object | None:
        """Return the array that owns the memory; see `rumus.tensor.memory.last_use.Sharing`.

        array: of this backend.
        """
        owner: object = array if array.base is None else array.base
        if not (isinstance(owner, np.ndarray) and owner.flags.owndata):
            return None  # perhaps of another library
        return owner if array.flags.c_contiguous and array.flags.writeable else None

    @watched
    def upload(self, host: NDArray[Any]) -> Array:
        return np.array(host, order="C")

    @watched
    def download(self, array: Array) -> NDArray[Any]:
        return np.array(array, order="C")

    @watched
    def fill(self, value: float, out: Array) -> None:
        out.fill(value)

    @watched
    @_quiet
    def copy(self, source: Array, out: Array) -> None:
        convert(source, out)

    @watched
    def elementwise(
        self,
        kernel: Kernel,
        arrays: Sequence[Array],
        scalars: Sequence[float],
        out: Sequence[Array],
    ) -> None:
        program = self.program(kernel, tuple([array.dtype for array in arrays]))
        shape, size = out[0].shape, out[0].size
        with np.errstate(all="ignore"):
            if size <= BLOCK:
                scratch = [np.empty(shape, dtype) for dtype in program.scratch]
                program.run(*arrays, *program.numbers(scalars), *out, *scratch)
            else:
                _run_in_blocks(program, arrays, scalars, out)

    def prepared(
        self, kernel: Kernel, arrays: Sequence[Array], out: Sequence[Array]
    ) -> Callable[[Sequence[float]], None]:
        """Return a function of scalars that runs a kernel on these arrays, like `elementwise`.

        For kernels that run often: the arrays are analyzed once.

        kernel: as in `elementwise`.
        arrays: its inputs, in the order of `kernel.arrays`.
        out: its outputs, in the order of `kernel.outputs`.
        """
        run = self._prepared(kernel, arrays, out)
        is_own = not hasattr(type(self).elementwise, "is_watched")

        def prepared(scalars: Sequence[float]) -> None:
            if run is None or is_own or self._is_looked_at("elementwise"):
                self.elementwise(kernel, arrays, scalars, out)
            else:
                run(scalars)

        return prepared

    def prepared_look(self, array: Array, limit: float = math.inf) -> Callable[[], bool]:
        """Return what says whether `first_not_finite` finds anything in this very array.

        array: that is looked at often.
        limit: as in `first_not_finite`.
        """
        look = self._prepared_look(array, limit)
        is_own = not hasattr(type(self).first_not_finite, "is_watched")

        def prepared() -> bool:
            if look is None or is_own or self._is_looked_at("first_not_finite"):
                return self.first_not_finite(array, limit) is not None
            return look()

        return prepared

    def _prepared_look(self, array: Array, limit: float) -> Callable[[], bool] | None:
        """What `prepared_look` runs where nobody looks on; None if there is nothing better."""
        is_usual = array.dtype in (np.float32, np.float64) and array.flags.c_contiguous
        if array.size >= PARALLEL or not is_usual:
            return None
        flat, most = array.reshape(-1), limit * limit

        def look() -> bool:
            if np.dot(flat, flat) < most:
                return False
            return self.first_not_finite(array, limit) is not None

        return np.errstate(all="ignore")(look)

    def _is_looked_at(self, operation: str) -> bool:
        """Whether somebody looks on, or has put something in the place of this object's method."""
        return is_somebody_watching() or operation in vars(self)

    def _prepared(
        self, kernel: Kernel, arrays: Sequence[Array], out: Sequence[Array]
    ) -> Callable[[Sequence[float]], object] | None:
        """What `prepared` returns if no call is watched; None if there is nothing faster."""
        if out[0].size > BLOCK:
            return None
        program = self.program(kernel, tuple([array.dtype for array in arrays]))
        scratch = [np.empty(out[0].shape, dtype) for dtype in program.scratch]
        if program.compute.kind != "f":
            return _quiet(lambda scalars: program.run(*arrays, *scalars, *out, *scratch))
        held = np.empty(len(kernel.uniforms), program.compute)
        numbers = [held[at : at + 1].reshape(()) for at in range(held.size)]
        bound = partial(program.run, *arrays, *numbers, *out, *scratch)

        def run(scalars: Sequence[float]) -> None:
            held[:] = scalars
            bound()

        return _quiet(run)

    def program(self, kernel: Kernel, dtypes: tuple[DType, ...]) -> NumpyProgram:
        """Return the NumPy program of `kernel` for inputs of `dtypes`; `.source` is its text.

        kernel: what is computed for each element.
        dtypes: of its arrays.
        """
        found = self._programs.get((kernel, dtypes))
        if found is None:
            found = self._programs[kernel, dtypes] = compile_program(kernel, dtypes)
        return found

    @watched
    @_quiet
    def reduce(self, operation: Reduction, array: Array, axes: Shape, out: Array) -> None:
        if operation in ("argmax", "argmin"):
            flat = np.moveaxis(array, axes, range(-len(axes), 0)) if axes else array[..., None]
            flat = flat.reshape(*out.shape, math.prod(array.shape[a] for a in axes))
            found = flat.argmax(-1) if operation == "argmax" else flat.argmin(-1)
            np.copyto(out, found, casting="same_kind")
        elif operation == "sum" and array.dtype.kind == "i":
            _add_integers(array, axes, out)
        elif operation == "sum":
            add_up(array, axes, out)
        elif operation == "norm":
            root_of_squares(array, axes, out)
        elif operation == "prod" and array.dtype.kind == "i":
            _multiply_integers(array, axes, out)
        elif operation == "prod":
            np.multiply.reduce(array, axes, array.dtype, out)
        else:
            function = np.maximum if operation == "max" else np.minimum
            function.reduce(array, axes, None, out)

    @watched
    def matmul(
        self,
        a: Array,
        b: Array,
        out: Array,
        bias: Array | None = None,
        *,
        sums: Array | None = None,
        epilogue: Epilogue | None = None,
        symmetric: bool = False,
    ) -> None:
        self._multiply(a, b, out, bias)
        if sums is not None:
            self._sum_rows(a, sums)
        if epilogue is not None:
            epilogue.run(self, out)

    def product_dtype(self, dtype: DType) -> DType:
        return dtype

    def is_one_product(self, a: Array, out: Array) -> bool:
        """Whether a product is a single NumPy call, to be made within `undisturbed`.

        a: the first factor.
        out: what is written.
        """
        return True

    def undisturbed(self) -> AbstractContextManager[None]:
        """Return the context in which a captured step is replayed."""
        return nullcontext()

    def _sum_rows(self, a: Array, out: Array) -> None:
        with np.errstate(all="ignore"):
            row_sums(a, out)()

    @_quiet
    def _multiply(self, a: Array, b: Array, out: Array, bias: Array | None) -> None:
        if out.dtype == np.float16:
            _half_matmul(a, b, out, bias)
            return
        left, into = as_one_product(a, b, out)
        if (parts := in_blocks(left, b, into)) is not None:
            np.matmul(*parts)
        elif numba_blas.is_for_one(left, b, into):
            with numba_blas.alone():
                multiply(left, b, into)
        else:
            multiply(left, b, into)
        if bias is not None:
            np.add(out, bias, out)

    @watched
    def gather(self, table: Array, index: Array, out: Array) -> None:
        check_index(index, len(table))
        np.take(table, index, 0, out, "clip")  # checked above; "raise" would buffer the result

    @watched
    @_quiet
    def scatter_add(self, source: Array, index: Array, out: Array) -> None:
        check_index(index, len(out))
        total = _at_least_single(out)
        rows, numbers = source.reshape(index.size, *out.shape[1:]), index.reshape(-1)
        if out.dtype.kind == "f":
            rows, numbers = without_many_repeats(rows, numbers)
        np.add.at(total, numbers, rows)
        if total is not out:
            np.copyto(out, total, casting="same_kind")

    @watched
    def random_words(self, key: int, counter: int, out: Array, behind: Array | None = None) -> None:
        if behind is not None:
            low, high = behind.tolist()
            counter -= 4 * (low + (high << 16))
        out[...] = as_int32(philox_words(key, counter, out.size)).reshape(out.shape)

    @watched
    def fused(self, name: FusedName) -> Callable[..., None] | None:
        return FUSED.get(name)

    @property
    def fused_in_half(self) -> Collection[FusedName]:
        return ()

    @watched
    def sum_of_squares(self, array: Array) -> Array:
        flat = array.reshape(-1)
        parts: dict[int, float] = {}

        @_quiet
        def work(start: int, stop: int) -> None:
            cuts = range(start, stop, BLOCK)  # float32 within a block, float64 across blocks
            views = (flat[cut : min(cut + BLOCK, stop)] for cut in cuts)
            parts[start] = sum(float(np.dot(wide, wide)) for wide in map(_at_least_single, views))

        run_parts(work, flat.size, flat.size >= PARALLEL)
        return np.array(sum(parts[start] for start in sorted(parts)), np.float64)

    @watched
    @_quiet
    def slot_sums(
        self,
        array: Array,
        table: SlotTable,
        out: Array,
        *,
        squared: bool = False,
        added: bool = False,
    ) -> None:
        is_whole = not out.shape
        if not table.rows:
            if is_whole and not added:
                out[...] = 0
            return
        rows = array.reshape(table.rows, ALIGNMENT)
        sums = np.empty(table.rows, np.float64)

        @_quiet
        def work(start: int, stop: int) -> None:  # by rows: no thread changes the bits
            part = rows[start:stop]
            part = part.astype(np.float32) if array.dtype == np.float16 else part
            sums[start:stop] = np.einsum("ij,ij->i", part, part) if squared else part.sum(1)

        run_parts(work, table.rows, array.size >= PARALLEL)
        at, inside = table.ragged
        last = np.where(inside, rows[at], 0).astype(np.float64)
        sums[at] = (np.square(last) if squared else last).sum(1)
        if is_whole:
            out[...] = sums.sum() + (out if added else 0)
            return
        totals = np.add.reduceat(sums, table.filled[:, 0] // ALIGNMENT)
        out[:, 0] = np.repeat(totals, table.counts)

    @watched
    @_quiet
    def quantize(
        self,
        values: Array,
        code: Code,
        table: BlockTable,
        piece: Piece,
        codes: Array,
        scales: Array,
    ) -> None:
        numpy_quantization.quantize(values, code, table, piece, codes, scales, share_blocks)

    @watched
    @_quiet
    def dequantize(
        self,
        codes: Array,
        scales: Array,
        code: Code,
        table: BlockTable,
        piece: Piece,
        out: Array,
    ) -> None:
        numpy_quantization.dequantize(codes, scales, code, table, piece, out, share_blocks)

    @watched
    def first_not_finite(self, array: Array, limit: float = math.inf) -> int | None:
        flat = array.reshape(-1)
        if flat.size < PARALLEL and array.dtype != np.float16:
            with np.errstate(all="ignore"):
                if np.dot(flat, flat) < limit * limit:
                    return None
        suspects: list[tuple[int, int]] = []

        @_quiet
        def work(start: int, stop: int) -> None:
            # One pass at the speed of memory: a sum of squares is finite only if every element is,
            # and below the square of the limit only if every element is below the limit. It may
            # exceed it without any such element, so a bad sum is checked again.
            part = flat[start:stop]
            if part.dtype == np.float16 and limit > 65504:  # ten times as fast as a product
                if ((part.view(np.uint16) & 0x7C00) == 0x7C00).any():
                    suspects.append((start, stop))
                return
            if not np.dot(part, part) < limit * limit:
                suspects.append((start, stop))

        run_parts(work, flat.size, flat.size >= PARALLEL)
        for start, stop in sorted(suspects):
            bad = np.flatnonzero(~(np.abs(flat[start:stop]) < limit))
            if bad.size:
                return start + int(bad[0])
        return None

    def updater(
        self,
        kernel: Kernel,
        sections: Sequence[Section],
        counts: Sequence[int],
        nonfinite: NonFinite,
    ) -> Updater:
        return ImmediateUpdater(kernel, sections, counts, nonfinite)

    # Steps that are replayed without their code: see `rumus.tensor.memory.recording.Capturing`

    @classmethod
    def hidden_operations(cls) -> list[str]:
        """Return the names of operations that a subclass overrides without watching them."""
        return [name for name in OPERATIONS if not hasattr(getattr(cls, name), "is_watched")]

    def observe(self) -> AbstractContextManager[Notes]:
        from rumus.tensor.backends.numpy_capture import observe

        return observe(self)

    def record(
        self, batch: Sequence[Array], observed: Notes
    ) -> AbstractContextManager[CapturedStep]:
        """batch: the arrays that change from step to step.
        observed: what was noted about each call.
        """
        from rumus.tensor.backends.numpy_capture import record

        return record(self, batch, observed)

    def compare(self, step: Capture, batch: Sequence[Array]) -> AbstractContextManager[Comparison]:
        """step: the recorded step.
        batch: the arrays of this step.
        """
        from rumus.tensor.backends.numpy_capture import compare

        return compare(step, batch)

    def prepare(
        self, kernel: Kernel, arrays: Sequence[Array], out: Sequence[Array]
    ) -> Callable[[Sequence[float]], None]:
        """kernel: what is computed for each element.
        arrays: what it reads.
        out: what it writes.
        """
        arrays, out = list(arrays), list(out)
        return lambda scalars: self.elementwise(kernel, arrays, scalars, out)

    def step_finished(self) -> None:
        """Do nothing: the work is done."""


OPERATIONS: Final = tuple(
    name for name, operation in vars(NumpyBackend).items() if hasattr(operation, "is_watched")
)


def share_blocks(work: Callable[[int, int], None], blocks: int) -> None:
    """Divide blocks of codes among threads."""
    run_parts(_quiet(work), blocks, blocks * CODED >= PARALLEL)


def _half_matmul(a: Array, b: Array, out: Array, bias: Array | None) -> None:
    """A float16 product, summed in float32 including the bias, and rounded once.

    It runs by blocks of rows, so `a` and the result are never copied whole to float32.
    """
    right = b.astype(np.float32)
    width = math.prod(out.shape[:-2]) * max(a.shape[-1], out.shape[-1], 1)
    step = max(64, 8 * BLOCK // max(1, width))
    for start in range(0, out.shape[-2], step):
        rows = np.s_[..., start : start + step, :]
        found = np.empty((*out.shape[:-2], *out[rows].shape[-2:]), np.float32)
        multiply(a[rows].astype(np.float32), right, found)
        if bias is not None:
            found += bias
        np.copyto(out[rows], found, casting="same_kind")


def _at_least_single(array: Array) -> Array:
    """Convert float16 to float32: a sum of squares in float16 overflows at 65504."""
    return array.astype(np.float32) if array.dtype == np.float16 else array


def flatten(arrays: Sequence[Array], shape: Shape) -> list[Array] | None:
    """Flatten all arrays, leaving scalars; None if their layouts differ."""
    flat = []
    for array in arrays:
        if array.size == 1:
            flat.append(array.reshape(()))
        elif array.shape == shape and array.flags.c_contiguous:
            flat.append(array.reshape(-1))
        else:
            return None
    return flat


def _run_in_blocks(
    program: NumpyProgram, arrays: Sequence[Array], scalars: Sequence[float], out: Sequence[Array]
) -> None:
    """Evaluate a large kernel block by block; threads share the blocks."""
    shape = out[0].shape
    operands = [*arrays, *out]
    flat = flatten(operands, shape)
    if flat is not None:
        shape, operands = (out[0].size,), flat
    else:
        operands = [np.broadcast_to(a, shape) for a in arrays] + list(out)
    cuts = list(blocks(shape, BLOCK))
    with np.errstate(all="ignore"):
        numbers = program.numbers(scalars)

    def work(start: int, stop: int) -> None:
        scratch = [np.empty(BLOCK, dtype) for dtype in program.scratch]
        with np.errstate(all="ignore"):  # the setting belongs to each thread
            for cut in cuts[start:stop]:
                parts = [operand[cut] if operand.ndim else operand for operand in operands]
                block = parts[-1]
                temporaries = [s[: block.size].reshape(block.shape) for s in scratch]
                split = len(arrays)
                program.run(*parts[:split], *numbers, *parts[split:], *temporaries)

    run_parts(work, len(cuts), out[0].size >= PARALLEL)
