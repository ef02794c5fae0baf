"""`DeviceUpdater`: an optimizer's steps, applied or refused by the device. See `Updater`.

A step has three kinds of dispatches: one per section that searches its gradients for non-finite
values, one that decides (decide.wgsl), and one per section that updates it or does nothing. A
section's preparation, if it has one, runs before the updates, with the scalars that the decision
has selected. It also runs in refused steps: nothing that it writes outlives the step.

The dispatches are the same in every step: the device counts the steps applied to each section, and
takes the next step's scalars from a table filled many steps ahead. The host refills the table now
and then, and uses the occasion to read the counts without waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from rumus.gpu.device.array_backend import ArrayBackend
from rumus.gpu.device.commands import Call, Series
from rumus.gpu.device.late_read import LateRead
from rumus.gpu.device.layout import Layout, Walk
from rumus.gpu.device.pipelines import Program
from rumus.gpu.device.shaders import shader
from rumus.gpu.elementwise.wgsl import WORKGROUP, update_program
from rumus.gpu.optimizer.slots import slot_sums
from rumus.tensor import Kernel, float32
from rumus.tensor.memory.packing import Packing
from rumus.tensor.memory.quantization import Piece
from rumus.tensor.memory.section import Factors, Section
from rumus.tensor.memory.uninterrupted import Uninterrupted
from rumus.tensor.memory.updater import NonFinite, Outcome, Scalars

if TYPE_CHECKING:
    from rumus.gpu.device.array import GPUArray
    from rumus.gpu.optimizer.quantization import Quantization
    from rumus.tensor.memory.slot_table import SlotTable

ROWS: Final = 128  # of the table: steps whose outcome is still unknown, and steps ahead
AHEAD: Final = 64  # maximum steps ahead
HEAD: Final = 8  # words of the control block before the counts
SEEN: Final = 3
HISTORY: Final = 4
REMEMBERED: Final = 128  # steps in the history, at least ROWS
LOOKED_AT: Final = 1024  # vectors that a workgroup of finite.wgsl checks
VECTOR: Final = 16  # bytes: four elements of float32, or eight of float16
WALKS: Final[tuple[Walk, ...]] = ("one", "same", "slot")  # of an update's arrays, by axis count
AT_ONCE: Final = 128  # sections per dispatch of decide.wgsl


class OptimizerBackend(ArrayBackend, Protocol):
    """The part of its backend that an updater uses. quantization: of packed state."""

    quantization: Quantization

    def cut(self, table: SlotTable) -> GPUArray:
        """Return the parts that a table's slots are split into, uploaded once per table."""

    def watch(self, updater: DeviceUpdater) -> None:
        """Notify an updater of reads, which wait for the device anyway."""


class DeviceUpdater:
    """Records the steps of one optimizer on one device, and learns their outcomes later."""

    def __init__(
        self,
        backend: OptimizerBackend,
        kernel: Kernel,
        sections: Sequence[Section],
        counts: Sequence[int],
        nonfinite: NonFinite,
    ) -> None:
        self.backend = backend
        self.sections = list(sections)
        self._kernels = [section.kernel or kernel for section in sections]
        self._own = [s.preparation.uniforms if s.preparation else 0 for s in sections]
        self._width = max(
            first + sum(len(each.uniforms) for each in (kernel, *section.after, *section.beside))
            for first, kernel, section in zip(self._own, self._kernels, sections, strict=True)
        )
        self.counts = list(counts)
        self.nonfinite = nonfinite
        self.heard: Callable[[], None] = lambda: None
        self._pending: deque[tuple[Outcome, tuple[int, ...]]] = deque()
        self.issued = list(counts)
        self._seen = 0
        self._allocate()
        self._steps: dict[tuple[int, ...], Series] = {}
        self._prepared: tuple[Callable[[], None], Outcome, tuple[int, ...]] | None = None
        backend.watch(self)

    def _allocate(self) -> None:
        """Allocate the control block, the table of scalars and the starts of the parameters."""
        backend, sections = self.backend, self.sections
        number = sum(len(section.starts) for section in sections)
        self._words = -(-number // 32)
        self._scalars_at = HEAD + len(sections) + 2 * self._words
        control = np.zeros(self._scalars_at + len(sections) * self._width, np.int32)
        control[HEAD : HEAD + len(sections)] = self.counts
        self._control = backend.upload(control)
        self.applied: GPUArray | None = self._control[:1].reshape(())
        report = HEAD + len(sections) + self._words
        self._report = LateRead(backend.gpu, self._control[:report])
        self._table = np.zeros((len(sections), ROWS, max(1, self._width)), np.float32)
        self._rows: list[dict[int, tuple[float, ...]]] = [{} for _ in sections]
        self._ahead = 1
        self._device_table = backend.allocate(self._table.shape, float32)
        self._starts = [backend.upload(np.array(s.starts, np.int32)) for s in sections]
        self._unknown = backend.upload(np.array(np.nan, np.float32))
        self._firsts = np.cumsum([0, *(len(s.starts) for s in sections)]).tolist()

    # The scalars of future steps

    def prepare(
        self, ready: Sequence[int], gradients: Sequence[GPUArray], scalars: Scalars
    ) -> Outcome:
        """Prepare the next step; see `Updater.prepare`."""
        with self.backend.gpu.lock:  # another thread's read may report outcomes meanwhile
            return self._prepare(ready, gradients, scalars)

    def _prepare(
        self, ready: Sequence[int], gradients: Sequence[GPUArray], scalars: Scalars
    ) -> Outcome:
        if max([self.issued[n] - self.counts[n] for n in ready], default=0) >= ROWS - 1:
            self.poll(wait=True)
        found = [next(scalars(n, (self.issued[n] + 1,))) for n in ready]
        known = [self._rows[n].get(self.issued[n] + 1) for n in ready]
        if found != known:
            with Uninterrupted():  # the host's copy of the rows must match the device's
                self._fill_table(ready, found, scalars, is_new=known.count(None) == len(known))
        outcome = Outcome()
        which = tuple(ready)
        self._prepared = self._work(which, gradients), outcome, which
        return outcome

    def _fill_table(
        self,
        ready: Sequence[int],
        found: Sequence[tuple[float, ...]],
        scalars: Scalars,
        *,
        is_new: bool,
    ) -> None:
        """Upload the scalars of the steps that may come next, and request earlier outcomes.

        is_new: the table has run out; otherwise its scalars have changed, and may change again at
        the next step.
        """
        self._ahead = min(2 * self._ahead, AHEAD) if is_new else 1
        with np.errstate(over="ignore"):
            for n, now in zip(ready, found, strict=True):
                rows = self._rows[n] = self._to_come(n, now, scalars)
                self._table[n, [t % ROWS for t in rows], : len(now)] = list(rows.values())
        if self._pending and not self._report.is_under_way:
            self._report.start()
        self.backend.gpu.write(self._device_table.storage, self._table)

    def _to_come(
        self, n: int, now: tuple[float, ...], scalars: Scalars
    ) -> dict[int, tuple[float, ...]]:
        """The scalars of every step that may be a section's next, by step number.

        now: the next step's scalars if no pending step is refused.
        """
        known, next_ = self.counts[n], self.issued[n] + 1
        pending = range(known + 1, next_)
        rows = dict(zip(pending, scalars(n, pending), strict=True))
        rows[next_] = now
        ahead = range(next_ + 1, min(next_ + self._ahead, known + ROWS))
        with suppress(Exception):  # raised again when that step is due
            for t, row in zip(ahead, scalars(n, ahead), strict=True):
                rows[t] = row
        return rows

    # The step

    def _work(self, ready: tuple[int, ...], gradients: Sequence[GPUArray]) -> Callable[[], None]:
        """The function that records a step, kept while gradients stay in their usual arrays."""
        found = self._steps.get(ready)
        for n, gradient in zip(ready, gradients, strict=True):
            if gradient is not self.sections[n].gradients:
                return partial(self._dispatch, self._calls(ready, gradients))
        if found is None:
            found = Series(self.backend.gpu, self._calls(ready, gradients))
            if len(self._steps) < 64:
                self._steps[ready] = found
        return found.run

    def _dispatch(self, calls: Sequence[Call]) -> None:
        for call in calls:
            self.backend.gpu.dispatch(*call)

    def _calls(self, ready: tuple[int, ...], gradients: Sequence[GPUArray]) -> list[Call]:
        pairs = list(zip(ready, gradients, strict=True))
        found = [self._look(n, g) for n, g in pairs]
        found += [self._decide(ready, n) for n in range(0, len(self.sections), AT_ONCE)]
        begun: set[int] = set()
        found += [call for n, g in pairs for call in self._before(n, g, begun)]
        found += [call for n, g in pairs for call in self._update(n, g)]
        return found

    def _look(self, number: int, gradient: GPUArray) -> Call:
        starts, itemsize = self._starts[number], gradient.stored.itemsize
        vectors = gradient.size * itemsize // VECTOR
        bits = self._scalars_at - self._words
        section, each = self.sections[number], VECTOR // itemsize
        limits = map(_bits, (section.too_large, section.too_large**2))
        values = (vectors, starts.size, self._firsts[number], bits, each, *limits)
        make = partial(Program, "finite", shader("finite"), "rrrw", "IIIIIII")
        pipeline = self.backend.gpu.pipeline("finite", make)
        squares = section.squares
        known = self._unknown if squares is None else squares
        return pipeline, (gradient, starts, known, self._control), values, -(-vectors // LOOKED_AT)

    def _decide(self, ready: Sequence[int], first: int) -> Call:
        count = min(AT_ONCE, len(self.sections) - first)
        bits = sum(1 << (n - first) for n in ready if first <= n < first + count)
        words = tuple((bits >> shift) & 0xFFFFFFFF for shift in (0, 32, 64, 96))
        values = (*words, first, count, len(self.sections), self._words, self._width,
                  ROWS, self.nonfinite == "raise", first + count == len(self.sections))  # fmt: skip
        make = partial(Program, "decide", shader("decide"), "rw", "I" * len(values))
        pipeline = self.backend.gpu.pipeline("decide", make)
        return pipeline, (self._device_table, self._control), values, 1

    def _before(self, number: int, gradient: GPUArray, begun: set[int]) -> Iterator[Call]:
        """The dispatches of a section's preparation. begun: see `Section.prepare`."""
        section, gpu = self.sections[number], self.backend.gpu
        preparation = section.preparation
        if preparation is None:
            return
        first = 0
        for small in preparation.small:
            yield self._run(number, small, gradient, first, is_small=True)
            first += len(small.uniforms)
        if preparation.kernel is not None:
            yield from self._measured(number, preparation.kernel, gradient, first)
        cut = self.backend.cut(preparation.table)
        for name, what in preparation.sums.items():
            array = gradient if what.of == "g" else section.arrays[what.of]
            out = section.arrays[name]
            yield from slot_sums(gpu, array, cut, out, what.squared, id(out) in begun)
            begun.update([] if out.shape else [id(out)])

    def _measured(
        self, number: int, kernel: Kernel, gradient: GPUArray, first: int
    ) -> Iterator[Call]:
        """The kernel that writes the values to be summed, over the whole section."""
        packing = self.sections[number].packing
        if packing is None:
            yield self._run(number, kernel, gradient, first)
            return
        for piece in packing.pieces:
            yield from self._unpack(packing, piece)
            yield self._run(number, kernel, gradient, first, piece=piece)

    def _update(self, number: int, gradient: GPUArray) -> Iterator[Call]:
        first = self._own[number]
        kernel, section = self._kernels[number], self.sections[number]
        if section.packing is not None:
            yield from self._update_packed(number, kernel, gradient, first)
        else:
            yield self._run(number, kernel, gradient, first)
        for small in (*section.after, *section.beside):
            first += len(kernel.uniforms)
            kernel = small
            yield self._run(number, small, gradient, first, is_small=True)

    def _update_packed(
        self, number: int, kernel: Kernel, gradient: GPUArray, first: int
    ) -> Iterator[Call]:
        """The update of packed state, which is repacked even where it did not change."""
        packing = self.sections[number].packing
        assert packing is not None
        for piece in packing.pieces:
            yield from self._unpack(packing, piece)
            yield self._run(number, kernel, gradient, first, piece=piece)
            for part in packing.parts.values():
                values, to = part.scratch[: piece.size], (part.codes, part.scales)
                yield self.backend.quantization.quantize(
                    values, part.code, packing.table, piece, *to
                )

    def _unpack(self, packing: Packing, piece: Piece) -> Iterator[Call]:
        for part in packing.parts.values():
            kept, values = (part.codes, part.scales, part.code), part.scratch[: piece.size]
            yield self.backend.quantization.dequantize(*kept, packing.table, piece, values)

    def _run(
        self,
        number: int,
        kernel: Kernel,
        gradient: GPUArray,
        first: int,
        *,
        is_small: bool = False,
        piece: Piece | None = None,
    ) -> Call:
        """One kernel over a section; its scalars start at `first` among the section's.

        is_small: run over flat arrays as long as the output, not over the whole section. piece: the
        part of the section to run over.
        """
        section = self.sections[number]
        arrays, out = section.operands(kernel, gradient, piece)
        if is_small:  # one value per row of a slot: the second axis goes
            arrays = [array.reshape(-1) if array.ndim == 2 else array for array in arrays]
        factors = None if is_small else section.factors
        pairs = zip(kernel.arrays, arrays, strict=True)
        layouts = [_layout(array, factors, name) for name, array in pairs]
        stored, vectors = [array.stored for array in arrays], out[0].size // 4
        types = kernel.types(tuple([array.dtype for array in arrays]))
        make = partial(update_program, kernel, types, stored, layouts)
        walks = tuple([layout.walk for layout in layouts])
        key = ("update", kernel.key, walks, *[each.name for each in stored])
        pipeline = self.backend.gpu.pipeline(key, make)
        at = self._scalars_at + number * self._width + first
        numbers = (vectors, at, *[n for layout in layouts for n in layout.numbers])
        return pipeline, (*arrays, self._control), numbers, -(-vectors // WORKGROUP)

    def commit(self) -> None:
        """Record the step. Only the device itself can fail here."""
        assert self._prepared is not None
        work, outcome, ready = self._prepared
        with self.backend.gpu.lock:
            work()
            for n in ready:
                self.issued[n] += 1
            self._pending.append((outcome, ready))
        self._prepared = None

    # The outcomes of steps

    def poll(self, wait: bool = False) -> None:
        """Process outcomes that have arrived; see `Updater.poll`."""
        if not wait and not self._report.is_under_way:
            return
        with self.backend.gpu.lock:
            self._take(wait)
            if wait and self._pending:
                self._report.start()
                self._take(wait=True)

    def ask(self) -> bool:
        """Request outcomes if steps are pending; the host is about to wait anyway."""
        with self.backend.gpu.lock:  # two threads starting one read would use a mapped buffer
            if self._pending and not self._report.is_under_way:
                self._report.start()
            return bool(self._pending)

    def _take(self, wait: bool) -> None:
        report = self._report.take(wait)
        if report is not None:
            with Uninterrupted():
                self._absorb(report)

    def _absorb(self, report: NDArray[Any]) -> None:
        """Fill in the outcomes of the steps decided by the time of the report."""
        words = report.view(np.uint32)
        sections = len(self.sections)
        refused: list[Outcome] = []
        while self._seen != int(words[SEEN]):
            outcome, _ = self._pending.popleft()
            at = self._seen % REMEMBERED
            outcome.applied = not (int(words[HISTORY + at // 32]) >> (at % 32)) & 1
            if not outcome.applied:
                refused.append(outcome)
            self._seen = (self._seen + 1) % 2**32
        self.counts = words[HEAD : HEAD + sections].tolist()
        self.issued = list(self.counts)
        for _, ready in self._pending:
            for n in ready:
                self.issued[n] += 1
        if refused:
            which = refused[0] if self.nonfinite == "raise" else refused[-1]
            which.blamed = self._blamed(words[HEAD + sections :])
            if self.nonfinite == "raise":
                self._open_again()

    def _blamed(self, words: NDArray[np.uint32]) -> tuple[tuple[int, int], ...]:
        bits = np.unpackbits(words.view(np.uint8), bitorder="little")
        found = []
        for bit in np.flatnonzero(bits).tolist():
            section = int(np.searchsorted(self._firsts, bit, "right")) - 1
            found.append((section, bit - self._firsts[section]))
        return tuple(found)

    def _open_again(self) -> None:
        """Accept steps again: after a refused one, the device refused all later ones too."""
        if self._pending:
            self._report.start()
            report = self._report.take(wait=True)
            assert report is not None
            while self._pending:
                self._pending.popleft()[0].applied = False
            self._seen = int(report.view(np.uint32)[SEEN])
            self.issued = list(self.counts)
        head = np.zeros(HEAD + len(self.sections), np.int32)
        head[SEEN], head[HEAD:] = self._seen, self.counts
        self.backend.gpu.write(self._control.storage, head)


def _bits(value: float) -> int:
    """The bits of a number as a float32."""
    return int(np.float32(value).view(np.uint32))


def _layout(array: GPUArray, factors: Factors | None, name: str) -> Layout:
    """How an update walks one of its arrays."""
    if factors is not None and name in factors.arrays:
        return Layout("block", factors.walk(name))
    return Layout(WALKS[array.ndim])
