"""The backend protocol: what a device must be able to do.

A backend owns arrays and computes on them in destination-passing style: the caller allocates the
result and passes it last, as `out`. Arrays make their own views: an array of any backend has
`shape`, `dtype`, `size`, `reshape`, `transpose` and basic indexing as in NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from numpy.typing import NDArray

from rumus.tensor.expression.dtype import DType
from rumus.tensor.expression.kernel import Kernel
from rumus.tensor.memory.fused import FusedName
from rumus.tensor.memory.quantization import BlockTable, Code, Piece
from rumus.tensor.memory.section import Section
from rumus.tensor.memory.slot_table import SlotTable
from rumus.tensor.memory.updater import NonFinite, Updater

Array: TypeAlias = Any  # what a backend stores; opaque to everything else
Shape: TypeAlias = tuple[int, ...]
Reduction: TypeAlias = Literal["sum", "prod", "norm", "max", "min", "argmax", "argmin"]


@dataclass(frozen=True, slots=True)
class Epilogue:
    """An elementwise operation applied to a product before it is written.

    kernel: its first array is the product with its bias; an output of that name replaces it.
    arrays: the kernel's other arrays, of the product's shape. scalars: `kernel.bind(...)`. out: the
    kernel's other outputs in their order, of the product's shape.
    """

    kernel: Kernel
    arrays: Sequence[Array] = ()
    scalars: Sequence[float] = ()
    out: Sequence[Array] = ()

    def run(self, backend: Backend, product: Array) -> None:
        """Apply it to a finished product, for backends that do not fuse it."""
        others = iter(self.out)
        name = self.kernel.arrays[0]
        out = [product if output == name else next(others) for output in self.kernel.outputs]
        backend.elementwise(self.kernel, (product, *self.arrays), self.scalars, out)


class Backend(Protocol):
    """The primitive operations of a device."""

    @property
    def name(self) -> str:
        """Its name in messages."""
        ...

    @property
    def max_array_bytes(self) -> int:
        """The maximum size of an array in bytes."""
        ...

    @property
    def runs_ahead(self) -> bool:
        """Whether it works asynchronously, so that reading an array waits for it."""
        ...

    def allocate(self, shape: Shape, dtype: DType) -> Array:
        """Return a new, uninitialized array.

        shape: lengths of at least 0.
        dtype: of the elements.
        """
        ...

    def upload(self, host: NDArray[Any]) -> Array:
        """Return a new array with a copy of `host`.

        host: a NumPy array.
        """
        ...

    def download(self, array: Array) -> NDArray[Any]:
        """Return a copy of `array` in NumPy.

        array: of this backend.
        """
        ...

    def fill(self, value: float, out: Array) -> None:
        """Set every element to `value`.

        value: a number.
        out: written.
        """
        ...

    def copy(self, source: Array, out: Array) -> None:
        """Write `source` into `out`, broadcasting and casting as needed.

        source: of a shape that broadcasts to that of `out`.
        out: written; it may only overlap `source` if both are the same elements.
        """
        ...

    def elementwise(
        self,
        kernel: Kernel,
        arrays: Sequence[Array],
        scalars: Sequence[float],
        out: Sequence[Array],
    ) -> None:
        """Run `kernel`; inputs broadcast to the outputs, which share one shape.

        `arrays` are in the order of `kernel.arrays`, `scalars` are `kernel.bind(...)`, and `out` is
        in the order of `kernel.outputs`.

        kernel: what is computed for each element.
        arrays: in the order of `kernel.arrays`.
        scalars: what `kernel.bind(...)` returns.
        out: in the order of `kernel.outputs`.
        """
        ...

    def reduce(self, operation: Reduction, array: Array, axes: Shape, out: Array) -> None:
        """Reduce over `axes`; `out` has the shape without them. NaN propagates.

        The sum of no elements is 0, the product 1, the norm 0.

        operation: such as "sum" or "max"; "norm" is the root of the sum of squares of floats, also
            where squares are too large or too small for their dtype.
        array: to reduce.
        axes: distinct, in ascending order.
        out: of the shape without the axes.

        OverflowError for integers whose sum or product `out` cannot hold, if the backend checks.
        """
        ...

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
        """out = a @ b + bias, batches broadcast; `bias` has the length of the last axis.

        a: (..., m, k).
        b: (..., k, n).
        out: (..., m, n).
        bias: (n,), None for none.
        sums: gets the sum of each row of `a`, which then has two axes. A weight's gradient is g^T
            x, so the bias's comes with it.
        epilogue: applied to the product.
        symmetric: promises that `out` equals its transpose, as a a^T does, also after an epilogue,
            so that a backend need compute only half of it. Without bias and sums.
        """
        ...

    def product_dtype(self, dtype: DType) -> DType:
        """Return the dtype in which arrays of `dtype` lose nothing more by being multiplied.

        float16 for float32 where matrix units round operands to it, if their range is known to fit;
        else `dtype`.

        dtype: of the operands.
        """
        ...

    def gather(self, table: Array, index: Array, out: Array) -> None:
        """out[i...] = table[index[i...]], whole rows along the first axis.

        table: of at least one axis.
        index: integers of [0, len(table)).
        out: of the shape of `index`, then that of a row.

        IndexError for an index outside [0, len(table)), before anything is written.
        """
        ...

    def scatter_add(self, source: Array, index: Array, out: Array) -> None:
        """out[index[i...]] += source[i...], repeated indices added in their order.

        source: of the shape of `index`, then that of a row of `out`.
        index: integers of [0, len(out)).
        out: what is added to.
        """
        ...

    def random_words(self, key: int, counter: int, out: Array, behind: Array | None = None) -> None:
        """Fill int32 `out` with Philox4x32-10 words `counter`, `counter` + 1, ... of stream `key`.

        `counter` is a multiple of 4. The words are the same on every backend.

        key: of the stream, 64 bits.
        counter: a multiple of 4.
        out: int32.
        behind: two int32, the low 16 bits and the rest of a number of four-word blocks: the words
            start that many blocks before `counter`. The low one may have more bits.
        """
        ...

    def fused(self, name: FusedName) -> Callable[..., None] | None:
        """Return this backend's fused version of a composite, or None to use primitives.

        The names and arguments are those of `softmaxes`, `norms` and `attention`, where each has a
        decomposition.

        name: of the composite.
        """
        ...

    @property
    def fused_in_half(self) -> Collection[FusedName]:
        """The fused versions that, with their gradients, also take float16."""
        ...

    def sum_of_squares(self, array: Array) -> Array:
        """Return the sum of the squares of all elements as an array without axes.

        Its dtype is the widest in which the backend sums.

        array: of this backend.
        """
        ...

    def slot_sums(
        self,
        array: Array,
        table: SlotTable,
        out: Array,
        *,
        squared: bool = False,
        added: bool = False,
    ) -> None:
        """Write the sum of each slot of a flat array to each of its rows, or the sum of all slots.

        array: of `table.size` elements.
        table: the layout of the slots.
        out: of a floating dtype, float32 on a GPU, and of shape [table.rows, 1], or without axes
            for the sum over all slots.
        squared: sum the squares of the elements.
        added: add to `out`, which then has no axes.

        Gaps between slots do not count. The bits are the same each time; on a GPU it takes two
        dispatches, whatever the number of slots.

        Slot sums are inputs for kernels over arrays of this layout, viewed as [rows, ALIGNMENT].
        This limits each tensor's gradient to the norm `limit`, all in one kernel:

        >>> import numpy as np
        >>> from rumus.tensor import Expr, Kernel, NumpyBackend
        >>> from rumus.tensor.memory.slot_table import ALIGNMENT, SlotTable
        >>> backend, table = NumpyBackend(), SlotTable([2, 1])
        >>> flat = np.zeros(table.size)
        >>> flat[:2], flat[64] = (3.0, 4.0), 0.5
        >>> squares = backend.allocate((table.rows, 1), flat.dtype)
        >>> backend.slot_sums(flat, table, squares, squared=True)
        >>> g, norm = Expr.array("g"), Expr.array("squares").sqrt()
        >>> limited = g * (Expr.scalar("limit") / norm.maximum(Expr.scalar("limit")))
        >>> kernel = Kernel("limit", {"g": limited}, ("g", "squares"))
        >>> rows = flat.reshape(table.rows, ALIGNMENT)
        >>> backend.elementwise(kernel, (rows, squares), kernel.bind({"limit": 1.0}), (rows,))
        >>> flat[[0, 1, 64]].round(6).tolist()
        [0.6, 0.8, 0.5]

        A slot's value is in the row of its start, `table.starts[n] // ALIGNMENT`.
        """
        ...

    def quantize(
        self,
        values: Array,
        code: Code,
        table: BlockTable,
        piece: Piece,
        codes: Array,
        scales: Array,
    ) -> None:
        """Write 8-bit codes, and a scale for each block, of a piece of flat memory.

        values: flat float32, the piece's elements; gaps do not count.
        code: the numbers that a byte can represent.
        table: the blocks that share a scale.
        piece: the part to write.
        codes: flat int32, four codes per word, `table.size // 4` words.
        scales: float32, `table.number` of them, the largest magnitude of each block. Only the
            piece's part of codes and scales is written. The bits are the same on every backend, and
            quantizing the result of `dequantize` gives them again.

        An infinite number counts as the largest finite one. A block with NaN has the scale NaN, so
        all of it becomes NaN. A block of numbers below 2^-80 becomes 0.

        >>> import numpy as np
        >>> from rumus.tensor import NumpyBackend
        >>> from rumus.tensor.memory.quantization import SIGNED, BlockTable
        >>> from rumus.tensor.memory.slot_table import SlotTable
        >>> backend, table = NumpyBackend(), BlockTable(SlotTable([3]))
        >>> flat = np.zeros(64, np.float32)
        >>> flat[:3] = -4.0, 1.0, 0.001
        >>> codes, scales = np.zeros(16, np.int32), np.zeros(1, np.float32)
        >>> backend.quantize(flat, SIGNED, table, table.whole(), codes, scales)
        >>> backend.dequantize(codes, scales, SIGNED, table, table.whole(), flat)
        >>> scales.tolist(), [round(x, 5) for x in flat[:3].tolist()]
        ([4.0], [-4.0, 0.99063, 0.00108])
        """
        ...

    def dequantize(
        self,
        codes: Array,
        scales: Array,
        code: Code,
        table: BlockTable,
        piece: Piece,
        out: Array,
    ) -> None:
        """Decode a piece to flat float32 `out`, with 0 in the gaps.

        codes: see `quantize`.
        scales: see `quantize`.
        code: see `quantize`.
        table: see `quantize`.
        piece: see `quantize`.
        out: the piece's elements, flat float32.
        """
        ...

    def first_not_finite(self, array: Array, limit: float = math.inf) -> int | None:
        """Return the flat index of the first element that is NaN or infinite, or None.

        array: of this backend.
        limit: the magnitude from which a number counts as infinite.
        """
        ...

    def updater(
        self,
        kernel: Kernel,
        sections: Sequence[Section],
        counts: Sequence[int],
        nonfinite: NonFinite,
    ) -> Updater:
        """Return the updater that applies an optimizer's steps to `sections`, all on this backend.

        kernel: the update.
        sections: the arrays of each group.
        counts: the number of steps already applied to each section.
        nonfinite: whether a non-finite gradient refuses its step ("skip"), also all later steps
            until the host knows of it ("raise"), or none ("propagate").
        """
        ...
