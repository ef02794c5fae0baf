"""`Section`: memory that an optimizer steps as a whole, and what comes before its kernel."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeGuard

from rumus.tensor.expression.kernel import Kernel
from rumus.tensor.memory.packing import Packing
from rumus.tensor.memory.quantization import Piece
from rumus.tensor.memory.slot_table import ALIGNMENT, SlotTable

if TYPE_CHECKING:
    from rumus.tensor.memory.backend import Array, Backend


@dataclass(frozen=True, slots=True)
class Sum:
    """A sum computed before a section's kernel runs: of an array, by name, or of its squares."""

    of: str
    squared: bool = False


class Preparing(Protocol):
    """A backend that can prepare kernels and looks for fixed arrays."""

    def prepared_look(self, array: Array, limit: float = ...) -> Callable[[], bool]:
        """Return what says whether `first_not_finite` finds anything in this array."""
        ...

    def prepared(
        self, kernel: Kernel, arrays: Sequence[Array], out: Sequence[Array]
    ) -> Callable[[Sequence[float]], None]:
        """Return a function of scalars that runs the kernel on them, like `elementwise`."""
        ...


def is_preparing(backend: object) -> TypeGuard[Preparing]:
    """Whether a backend can prepare kernels."""
    return hasattr(backend, "prepared")


@dataclass(frozen=True, slots=True, eq=False)
class Preparation:
    """What is computed before a section's kernel runs, with the scalars of the same step.

    It writes nothing permanent, so a step can be refused at any time, and a device decides only
    about the kernel itself.

    sums: from the name of an array to the sum it receives; `g` is the gradient. An array of shape
        [table.rows, 1] gets the sum of each slot, and the section's kernel reads one value per
        slot. A scalar array gets the sum over all slots and, if several sections share it, over all
        their slots: it is complete when the last of them is prepared. kernel: runs before the sums,
        to write what they measure: its outputs are among its arrays. small: kernels that run before
        that, each over flat arrays as long as its output. Their scalars precede those of the
        section's kernel, in execution order.
    """

    table: SlotTable
    sums: Mapping[str, Sum]
    kernel: Kernel | None = None
    small: tuple[Kernel, ...] = ()

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """All kernels, in execution order."""
        return self.small if self.kernel is None else (*self.small, self.kernel)

    @property
    def uniforms(self) -> int:
        """The number of scalars that its kernels take."""
        return sum(len(kernel.uniforms) for kernel in self.kernels)


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """Arrays of a section that hold one number each, in all of their few elements.

    The section's kernels read each as a single value. kernel: computes the new numbers, from the
    old ones and from scalar arrays, after the section's kernel.
    """

    names: frozenset[str]
    kernel: Kernel


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """The extra arrays of a section that is one tensor with arrays for its axes.

    shape: the tensor's, as [blocks, rows, columns]. arrays: flat ones, longer than needed, that
        kernels over the tensor read as one value per [block, row, 1], [block, 1, column] or [block,
        1, 1], according to their shapes. small: kernels that run after the section's kernel, each
        over flat arrays as long as its output. Their scalars follow those of the section's kernel.
    """

    shape: tuple[int, int, int]
    arrays: Mapping[str, tuple[int, int, int]]
    small: tuple[Kernel, ...] = ()

    def walk(self, name: str) -> tuple[int, int, int]:
        """Return every, count and length: element e reads e // every % count * length + e % length.

        >>> Factors((2, 3, 5), {"rows": (2, 3, 1), "columns": (2, 1, 5)}).walk("columns")
        (15, 2, 5)
        """
        _, rows, columns = self.shape
        blocks, its_rows, length = self.arrays[name]
        every = columns if its_rows == rows else rows * columns
        return every, blocks * its_rows, length

    def shaped(self, name: str, array: Array) -> Array:
        """Return an array shaped to broadcast over the tensor."""
        if len(array.shape) == 2:  # one value per row of the slot, all equal
            return array[:1]
        shape = self.arrays.get(name, self.shape) if array.shape else ()
        return array[: math.prod(shape)].reshape(shape) if array.shape else array


@dataclass(slots=True, eq=False)
class Section:
    """Flat memory that one kernel updates.

    arrays: what the kernel updates or reads, by name: all but the gradient, `g`. gradients: the
    usual memory of the gradients. starts: the start of each parameter. kernel: the section's own,
    if it is not the updater's. preparation: computed before the kernel. squares: one element, the
    sum of squares of these and perhaps more gradients, written before each step: if it is finite,
    so are they, and no check is needed. If it has overflowed, a gradient too large to square counts
    as non-finite. factors: for one tensor with arrays for its axes. numbers: for arrays that hold
    one number. packing: other state that the kernel updates, stored as codes; in one piece if the
    kernel reads one value per slot. A section has this or factors. part: the part of the gradients
    that the kernel uses, if not all; the arrays are as long as it. too_large: the magnitude from
    which a gradient counts as non-finite, because state computed from its square would not be
    finite. beside: small kernels of the same step, each over flat arrays as long as its output,
    that read and write nothing which the kernel or those after it write; their scalars come last.
    """

    backend: Backend
    arrays: dict[str, Array]
    gradients: Array
    starts: tuple[int, ...]
    kernel: Kernel | None = None
    preparation: Preparation | None = None
    squares: Array | None = None
    factors: Factors | None = None
    packing: Packing | None = None
    part: slice | None = None
    too_large: float = math.inf
    numbers: Numbers | None = None
    beside: tuple[Kernel, ...] = ()
    _prepared: tuple[Kernel, Array, Callable[[Sequence[float]], None]] | None = None
    _look: Callable[[], bool] | None = None

    @property
    def after(self) -> tuple[Kernel, ...]:
        """The kernels that run after its kernel."""
        return after(self.factors, self.numbers)

    def operands(
        self, kernel: Kernel, gradient: Array, piece: Piece | None = None
    ) -> tuple[list[Array], list[Array]]:
        """Return what `kernel` reads and writes for one piece of the packed state."""
        by_name = {**self.arrays, "g": gradient if self.part is None else gradient[self.part]}
        numbers = self.numbers
        if numbers is not None and kernel is not numbers.kernel:
            by_name |= {name: by_name[name][:1].reshape(()) for name in numbers.names}
        if self.packing is not None and piece is not None:
            by_name = self.packing.operands(by_name, piece)
        return [by_name[name] for name in kernel.arrays], [by_name[n] for n in kernel.outputs]

    def is_known_good(self, gradient: Array) -> bool:
        """Whether one quick check shows that its gradient is fine."""
        backend, limit = self.backend, self.too_large
        if self.squares is not None:
            return backend.first_not_finite(self.squares, limit * limit) is None
        if gradient is not self.gradients or not is_preparing(backend):
            return backend.first_not_finite(gradient, limit) is None
        if self._look is None:
            self._look = backend.prepared_look(gradient, limit)
        return not self._look()

    def run(self, kernel: Kernel, gradient: Array, scalars: Sequence[float]) -> None:
        """Run a kernel that does not change packed state, over the whole section."""
        for piece in self.packing.pieces if self.packing is not None else (None,):
            if self.packing is not None and piece is not None:
                self.packing.unpack(self.backend, piece)
            self._elementwise(kernel, gradient, scalars, piece)

    def prepare(self, gradient: Array, scalars: Sequence[float], begun: set[int]) -> None:
        """Compute what its kernel needs. It may fail, and writes nothing permanent.

        scalars: of the preparation and the kernel. begun: ids of the sums over several sections to
            which one has already added in this step.
        """
        preparation = self.preparation
        if preparation is None:
            return
        at = self._small(preparation.small, gradient, scalars, 0)
        if preparation.kernel is not None:
            self.run(preparation.kernel, gradient, scalars[at : preparation.uniforms])
        for name, what in preparation.sums.items():
            array = gradient if what.of == "g" else self.arrays[what.of]
            out = self.arrays[name]
            self.backend.slot_sums(
                array, preparation.table, out, squared=what.squared, added=id(out) in begun
            )
            begun.update([] if out.shape else [id(out)])

    def update(self, kernel: Kernel, gradient: Array, scalars: Sequence[float]) -> None:
        """Run the kernel on the host's command, after `prepare`, and those after and beside it."""
        first = self.preparation.uniforms if self.preparation is not None else 0
        stop = first + len(kernel.uniforms)
        following = self.after
        if self.beside:
            last = stop + sum(len(each.uniforms) for each in following)
            self._small(self.beside, gradient, scalars, last)
        if self.packing is not None:
            for piece in self.packing.pieces:
                self.packing.unpack(self.backend, piece)
                self._elementwise(kernel, gradient, scalars[first:stop], piece)
                self.packing.pack(self.backend, piece)
        elif self.factors is None and is_preparing(self.backend):
            prepared = self._prepared
            if prepared is None or prepared[0] is not kernel or prepared[1] is not gradient:
                operands = _as_rows(*self.operands(kernel, gradient))
                prepared = kernel, gradient, self.backend.prepared(kernel, *operands)
                if gradient is self.gradients:
                    self._prepared = prepared
            prepared[2](scalars[first:stop])
        else:
            self._elementwise(kernel, gradient, scalars[first:stop])
        if following:
            self._small(following, gradient, scalars, stop)

    def _small(
        self, kernels: Sequence[Kernel], gradient: Array, scalars: Sequence[float], at: int
    ) -> int:
        """Run kernels over flat arrays with scalars from `at` on; return where these end."""
        for kernel in kernels:
            stop = at + len(kernel.uniforms)
            arrays, out = self.operands(kernel, gradient)
            self.backend.elementwise(kernel, _flat(arrays), scalars[at:stop], out)
            at = stop
        return at

    def _elementwise(
        self,
        kernel: Kernel,
        gradient: Array,
        scalars: Sequence[float],
        piece: Piece | None = None,
    ) -> None:
        arrays, out = self.operands(kernel, gradient, piece)
        if self.factors is not None:
            shaped = self.factors.shaped
            arrays = [shaped(n, a) for n, a in zip(kernel.arrays, arrays, strict=True)]
            out = [shaped(n, a) for n, a in zip(kernel.outputs, out, strict=True)]
        else:
            arrays, out = _as_rows(arrays, out)
        self.backend.elementwise(kernel, arrays, scalars, out)

    def written_beside(self) -> list[Array]:
        """Return what the kernels beside its own change."""
        return [self.arrays[name] for each in self.beside for name in each.outputs]

    def written(self, kernel: Kernel) -> list[Array]:
        """Return what its kernels change, and what is packed afterwards."""
        packed = self.packing.parts if self.packing is not None else {}
        kernels = (kernel, *self.after, *self.beside)
        names = [name for each in kernels for name in each.outputs]
        found = [self.arrays[name] for name in names if name not in packed]
        return [*found, *(a for part in packed.values() for a in (part.codes, part.scales))]


def after(factors: Factors | None, numbers: Numbers | None) -> tuple[Kernel, ...]:
    """Return the small kernels that run after a section's own, in their order."""
    small = factors.small if factors is not None else ()
    return small if numbers is None else (*small, numbers.kernel)


def _flat(arrays: list[Array]) -> list[Array]:
    """The same, those with one value for each row of a slot without their second axis."""
    return [array.reshape(-1) if len(array.shape) == 2 else array for array in arrays]


def _as_rows(arrays: list[Array], out: list[Array]) -> tuple[list[Array], list[Array]]:
    """View flat arrays as rows if there are others with one value per row."""
    if all(len(array.shape) <= 1 for array in arrays):
        return arrays, out
    rows = (-1, ALIGNMENT)
    first, second = (
        [a.reshape(rows) if len(a.shape) == 1 else a for a in each] for each in (arrays, out)
    )
    return first, second
