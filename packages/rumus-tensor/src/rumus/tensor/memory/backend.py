"""What a device must be able to do.

A backend owns arrays and computes on them, destination-passing: the caller allocates the result
and gives it as `out`, last. Views (`reshape`, `transpose`, basic indexing) are the array's own
business: an array of any backend has `shape`, `dtype`, `size` and these three as NumPy has them.
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
from rumus.tensor.memory.slot_table import SlotTable
from rumus.tensor.memory.updater import NonFinite, Section, Updater

Array: TypeAlias = Any  # what a backend stores; only that backend looks inside
Shape: TypeAlias = tuple[int, ...]
Reduction: TypeAlias = Literal["sum", "prod", "max", "min", "argmax", "argmin"]


@dataclass(frozen=True, slots=True)
class Epilogue:
    """What is done to each element of a product besides, before it is written.

    kernel: its first array is the product with its bias; an output of that name replaces it.
    arrays: the kernel's other arrays, of the product's shape. scalars: `kernel.bind(...)`. out: the
    kernel's other outputs in their order, of the product's shape.
    """

    kernel: Kernel
    arrays: Sequence[Array] = ()
    scalars: Sequence[float] = ()
    out: Sequence[Array] = ()

    def run(self, backend: Backend, product: Array) -> None:
        """Do it to a product that is complete: for backends that do not take it along."""
        others = iter(self.out)
        name = self.kernel.arrays[0]
        out = [product if output == name else next(others) for output in self.kernel.outputs]
        backend.elementwise(self.kernel, (product, *self.arrays), self.scalars, out)


class Backend(Protocol):
    """The operations that everything else is made of."""

    @property
    def name(self) -> str:
        """What to call it in messages."""
        ...

    @property
    def max_array_bytes(self) -> int:
        """How large one array may be."""
        ...

    @property
    def runs_ahead(self) -> bool:
        """Whether it works while the host goes on: reading an array waits for it."""
        ...

    def allocate(self, shape: Shape, dtype: DType) -> Array:
        """Return a new array; its contents are whatever was there.

        shape: at least 0 each.
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
        out: written; it may overlap `source` where both are the same elements.
        """
        ...

    def elementwise(
        self,
        kernel: Kernel,
        arrays: Sequence[Array],
        scalars: Sequence[float],
        out: Sequence[Array],
    ) -> None:
        """Run `kernel`; inputs broadcast to the outputs, which have one shape.

        `arrays` are in the order of `kernel.arrays`, `scalars` are `kernel.bind(...)`, and `out` is
        in the order of `kernel.outputs`.

        kernel: what is computed for each element.
        arrays: in the order of `kernel.arrays`.
        scalars: what `kernel.bind(...)` returns.
        out: in the order of `kernel.outputs`.
        """
        ...

    def reduce(self, operation: Reduction, array: Array, axes: Shape, out: Array) -> None:
        """Reduce over `axes`; `out` has the shape without them. NaN wins over every number.

        Of nothing there are the sum 0 and the product 1.

        operation: such as "sum" or "max".
        array: what is reduced.
        axes: none twice, in ascending order.
        out: of the shape without the axes.

        OverflowError for integers whose sum or product `out` cannot hold, where the backend is one
        that looks.
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
        sums: gets the sum of each row of `a`, which has two axes then. The gradient of a weight is
            g^T x, so that of the bias comes with it.
        epilogue: what else is done to the product.
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

        IndexError for an index outside of [0, len(table)), before anything is written.
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

        `counter` is a multiple of 4. The same words on every backend.

        key: of the stream, 64 bits.
        counter: a multiple of 4.
        out: int32.
        behind: two int32, the low 16 bits and the others of a number: so many blocks of four words
            before `counter` they begin. The low one may have more bits.
        """
        ...

    def fused(self, name: FusedName) -> Callable[..., None] | None:
        """Return this backend's own version of a composite, or None: it is made of primitives then.

        The names and arguments are those of `softmaxes`, `norms` and `attention`, where each has a
        decomposition.

        name: of the composite.
        """
        ...

    @property
    def fused_in_half(self) -> Collection[FusedName]:
        """Those of its own versions that take float16 too, as do their gradients."""
        ...

    def sum_of_squares(self, array: Array) -> Array:
        """Return the sum of the squares of all elements as an array without axes.

        Its dtype is the widest that the backend adds up in.

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
        """Write the sum of each slot of a flat array, once for each of its rows, or of all slots.

        array: of `table.size` elements.
        table: where the slots begin and end.
        out: of a floating dtype, float32 on a GPU, and of shape [table.rows, 1], or without axes
            for the sum over all slots.
        squared: of the squares of the elements.
        added: to what `out` holds, which has no axes.

        What lies between the slots does not count. The same bits each time; on a GPU two
        dispatches, whatever the number of slots.

        Sums of slots are an input for kernels over arrays of this layout, seen as
        [rows, ALIGNMENT]. So each tensor's gradient is limited to the norm `limit`, all of them in
        one kernel:

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

        The value of one slot is at the row of its start, `table.starts[n] // ALIGNMENT`.
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

        values: flat float32, the piece's elements; its gaps do not count.
        code: the numbers that a byte can stand for.
        table: the blocks that share a scale.
        piece: the part that is written.
        codes: flat int32, four bytes a word, `table.size // 4` of them.
        scales: float32, `table.number` of them, the largest magnitude of each block. Of both only
            what belongs to the piece is written. The same bits on every backend, and again the same
            for what `dequantize` gives back.

        An infinite number counts as the largest finite one. A block with NaN has the scale NaN, and
        all of it is NaN from then on. A block of numbers under 2^-80 becomes 0.

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
        """Write what the codes of a piece stand for to flat float32 `out`, 0 in the gaps.

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
        limit: a magnitude from which one counts as infinite.
        """
        ...

    def updater(
        self,
        kernel: Kernel,
        sections: Sequence[Section],
        counts: Sequence[int],
        nonfinite: NonFinite,
    ) -> Updater:
        """Return what applies an optimizer's steps to `sections`, all of them on this backend.

        kernel: the update.
        sections: the arrays of each group.
        counts: the steps that were applied to each section before.
        nonfinite: whether a gradient that is not finite refuses its step ("skip"), also all later
            ones until the host has heard of it ("raise"), or nothing ("propagate").
        """
        ...
