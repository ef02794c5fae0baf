"""Applying an optimizer's steps: each to all of its memory, or to none.

Whether a step is applied may depend on its gradients: a non-finite one refuses the step. If the
host sees the gradients, it decides at once (`ImmediateUpdater`). A device that receives its work in
advance makes the decision, and the host learns the outcome later; see `Updater`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from rumus.tensor.expression.kernel import Kernel
from rumus.tensor.memory.section import Section

if TYPE_CHECKING:
    from rumus.tensor.memory.backend import Array, Backend

NonFinite = Literal["raise", "skip", "propagate"]
# (section, steps) -> for each t, the scalars of its kernels at the t-th applied step.
Scalars: TypeAlias = Callable[[int, Iterable[int]], Iterator[tuple[float, ...]]]


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
        order = self._work
        if len(order) > 1:
            order = sorted(order, key=lambda item: int(item[1].size))
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
