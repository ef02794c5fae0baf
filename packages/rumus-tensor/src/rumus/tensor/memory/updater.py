"""Applying an optimizer's steps: each to all of its memory, or to none.

Whether a step is applied may depend on its gradients: a non-finite one refuses the step. If the
host sees the gradients, it decides at once (`ImmediateUpdater`). A device that receives its work in
advance makes the decision, and the host learns the outcome later; see `Updater`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, TypeGuard

from rumus.tensor.expression.kernel import Kernel
from rumus.tensor.memory.packing import Packing
from rumus.tensor.memory.quantization import Piece
from rumus.tensor.memory.slot_table import ALIGNMENT, SlotTable

if TYPE_CHECKING:
    from rumus.tensor.memory.backend import Array, Backend

NonFinite = Literal["raise", "skip", "propagate"]
# (section, steps) -> for each t, the scalars of its kernels at the t-th applied step.
Scalars: TypeAlias = Callable[[int, Iterable[int]], Iterator[tuple[float, ...]]]


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
        last = stop + sum(len(each.uniforms) for each in self.after)
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
        self._small(self.after, gradient, scalars, stop)

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


@dataclass(slots=True, eq=False)
class Outcome:
    """The outcome of a step.

    applied: None until it is known. blamed: if it was not applied, the parameters whose gradients
        were not finite, as (section, position); of several such steps between two polls only for
        one: the first under "raise", the last under "skip".
    """

    applied: bool | None = None
    blamed: tuple[tuple[int, int], ...] = ()


class Updater(Protocol):
    """Applies steps to its sections, in order.

    counts: the number of steps applied to each section, as far as known. issued: what they will be
        if no step of unknown outcome is refused. heard: called when outcomes become known without a
        call to `poll`; its exceptions propagate. applied: if a device decides, one int32 in its
        memory, 0 if the last committed step is not applied, for the device's next operations; None
        if the host decides.
    """

    counts: list[int]
    heard: Callable[[], None]
    applied: Array | None

    @property
    def issued(self) -> Sequence[int]:
        """How many steps will have been applied to each section, if none is refused."""
        ...

    def prepare(
        self, ready: Sequence[int], gradients: Sequence[Array], scalars: Scalars
    ) -> Outcome:
        """Prepare the next step, and return its outcome, as far as known.

        ready: its sections, ascending; gradients: a flat array for each. Everything that can fail
            fails here, with nothing written; exceptions from `scalars` propagate.
        """
        ...

    def commit(self) -> None:
        """Apply the step prepared last, to all sections or, if one raises, to none."""
        ...

    def poll(self, wait: bool = False) -> None:
        """Fill in outcomes that have become known; with `wait`, all of them."""
        ...


class ImmediateUpdater:
    """Decides on the host, which waits for each check of a gradient. See `Updater`.

    Works with any backends, even several at once.
    """

    def __init__(
        self,
        kernel: Kernel,
        sections: Sequence[Section],
        counts: Sequence[int],
        nonfinite: NonFinite,
    ) -> None:
        self.kernel = kernel
        self.sections = list(sections)
        self.counts = list(counts)
        self.heard: Callable[[], None] = lambda: None  # never called: there is nothing to wait for
        self.applied: Array | None = None
        backends = {id(section.backend): section.backend for section in sections}
        self._fails_first = len(backends) == 1 and sections[0].backend.runs_ahead
        self.checks = nonfinite != "propagate"
        self._work: list[tuple[int, Array, tuple[float, ...]]] = []
        self._outcome = Outcome()

    @property
    def issued(self) -> Sequence[int]:
        """The steps that were applied: nothing is pending here."""
        return self.counts

    def prepare(
        self, ready: Sequence[int], gradients: Sequence[Array], scalars: Scalars
    ) -> Outcome:
        """Check the gradients and run the preparations; see `Updater.prepare`."""
        bound = [next(scalars(number, (self.counts[number] + 1,))) for number in ready]
        blamed = self._blamed(ready, gradients) if self.checks else ()
        self._outcome = Outcome(False if blamed else None, blamed)
        self._work = list(zip(ready, gradients, bound, strict=True))
        if not blamed:
            begun: set[int] = set()
            for number, gradient, own in self._work:
                self.sections[number].prepare(gradient, own, begun)
        return self._outcome

    def _blamed(
        self, ready: Sequence[int], gradients: Sequence[Array]
    ) -> tuple[tuple[int, int], ...]:
        found: list[tuple[int, int]] = []
        suspects: list[tuple[int, int]] = []
        for number, flat in zip(ready, gradients, strict=True):
            section = self.sections[number]
            if section.is_known_good(flat):
                continue
            own = [(number, position) for position in range(len(section.starts))]
            stops = (*section.starts[1:], flat.size)
            spans = zip(own, section.starts, stops, strict=True)
            found += [at for at, start, stop in spans if _is_bad(section, flat[start:stop])]
            squares = section.squares
            if squares is not None and section.backend.first_not_finite(squares) is not None:
                suspects += own  # finite sums may overflow when added
        return tuple(found or suspects)

    def commit(self) -> None:
        """Run the kernel over every section, unless the step is refused.

        A backend raises before it writes, so one section needs no undoing, but for one that is
        packed, which several kernels write, and for the little that is written beside it before. Of
        several all but the largest, which comes last, are copied before. A backend that runs ahead
        can fail only where it compiles the kernel, which is at the first section.
        """
        if self._outcome.applied is False:
            return
        undo: list[tuple[Section, list[tuple[Array, Array]]]] = []
        order = sorted(self._work, key=lambda item: int(item[1].size))
        try:
            for number, gradient, scalars in order:
                section = self.sections[number]
                kernel = section.kernel or self.kernel
                is_one = not section.after and section.packing is None
                if not self._fails_first:
                    is_last = is_one and number == order[-1][0]
                    arrays = section.written_beside() if is_last else section.written(kernel)
                    undo.append((section, _copies(section.backend, arrays)))
                section.update(kernel, gradient, scalars)
        except BaseException:
            for section, copies in undo:
                for array, kept in copies:
                    section.backend.copy(kept, array)
            raise
        for number, _, _ in order:
            self.counts[number] += 1
        self._outcome.applied = True

    def poll(self, wait: bool = False) -> None:
        """Do nothing: every outcome is known at once."""


def _is_bad(section: Section, gradient: Array) -> bool:
    """Whether a parameter's gradient is bad, or its sum of squares, if that is needed."""
    backend = section.backend
    if backend.first_not_finite(gradient, section.too_large) is not None:
        return True
    is_summed = section.squares is not None
    return is_summed and backend.first_not_finite(backend.sum_of_squares(gradient)) is not None


def _copies(backend: Backend, arrays: Sequence[Array]) -> list[tuple[Array, Array]]:
    """Arrays that are about to change, each with a copy of it."""
    found = []
    for array in arrays:
        kept = backend.allocate(array.shape, array.dtype)
        backend.copy(array, kept)
        found.append((array, kept))
    return found
