"""Recording a step, and replaying its commands without the Python code that issued them.

A recorded step is a list of prepared dispatches. Its new arrays live in its own memory, overwritten
by each replay; existing arrays (parameters, gradients) are used in place. Scalars keep their
recorded values, except those of `live` acts.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import call, is_
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from rumus.gpu.captured_input import CapturedInput
from rumus.gpu.device.array import GPUArray
from rumus.gpu.device.commands import Commands, Dispatched
from rumus.gpu.device.dataflow import Dataflow, Origin
from rumus.gpu.device.memory import Region, Storage
from rumus.gpu.device.pipelines import Pipeline
from rumus.tensor import Backend, CaptureError
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.recording import Relied, Settings, recorded_by, still_there

if TYPE_CHECKING:
    from rumus.gpu.backend import GpuBackend

Grid = tuple[int, int]
_attribute: Final[Callable[..., Any]] = getattr
_REMEDY: Final = "or train with Trainer(optimizer, capture=False)"
_BRANCH: Final = "select data with where() instead of a Python branch"


class Notes:
    """What a step did on its first, ordinary run."""

    def __init__(self) -> None:
        self.dispatches: list[Dispatched] = []
        self.decisions: list[bool] = []  # that depended on numbers in the batch
        self.why_not: str | None = None
        self.settings = Settings()
        self._is_live = False

    def takes(
        self, pipeline: Pipeline, arrays: Sequence[GPUArray], scalars: bytes, grid: Grid
    ) -> bool:
        """Note a dispatch."""
        self.dispatches.append(Dispatched(pipeline, (), scalars, grid, self._is_live))
        return False

    def index_checked(self, index: GPUArray, length: int) -> None:
        """Do nothing: the index has been checked."""

    def refuse_transfer(self, what: str, instead: str) -> None:
        """Do nothing: recording the step will raise."""

    def refuse(self, what: str) -> None:
        """Do nothing: recording the step will raise."""

    def depends_on(self, thing: object, attribute: str) -> None:
        """Note a setting: a step with another one is not this step."""
        self.settings.add(thing, attribute)

    def decided(self, index: GPUArray, number: int, may_hold: bool) -> None:
        """Note whether `index` may hold `number`, which the step branched on."""
        self.decisions.append(may_hold)

    def asked(self, question: Callable[..., Any], arrays: Sequence[Array]) -> Any:
        """Answer on the host, which no replay can do."""
        self.why_not = self.why_not or "it reads numbers of a tensor on the CPU"
        return question(*arrays)

    def feed(
        self, backend: Backend, make: Callable[[], NDArray[Any]], bounds: tuple[int, int] | None
    ) -> Array:
        """Upload the result of `make`."""
        return backend.upload(make())

    def live(self, act: Callable[[], None]) -> None:
        """Run `act`; its scalars may differ the next time."""
        before, self._is_live = self._is_live, True
        try:
            act()
        finally:
            self._is_live = before


@dataclass(slots=True)
class _Facts:
    """The dependencies of a recorded step."""

    attributes: dict[tuple[int, str], Relied] = field(default_factory=dict)
    found: set[Storage] = field(default_factory=set)  # memory from outside its region
    acts: list[Callable[[], None]] = field(default_factory=list)
    fed: list[GPUArray] = field(default_factory=list)  # held for as long as acts write to them


class GpuRecording(Notes):
    """A step being recorded while it runs normally."""

    def __init__(self, backend: GpuBackend, batch: Sequence[GPUArray | NDArray[Any]]) -> None:
        super().__init__()
        self.backend = backend
        self.region = Region()
        self.facts = _Facts()
        self._kept: set[Storage] = set()
        with backend.gpu.watched_by(Nobody(), self.region):
            self.batch = [CapturedInput.of(backend, value) for value in batch]
        self.region.made.clear()
        self.dataflow = Dataflow([given.array for given in self.batch], self.region)
        self.results: list[Origin] = []

    def takes(
        self, pipeline: Pipeline, arrays: Sequence[GPUArray], scalars: bytes, grid: Grid
    ) -> bool:
        """Record a dispatch."""
        bound = []
        for array in arrays:
            storage = array.storage
            bound.append((storage.handle, array.base, storage.size - array.base))
            if self._is_live:
                self._kept.add(storage)
            if storage.block.region is not self.region:
                self.facts.found.add(storage)
        self.dispatches.append(Dispatched(pipeline, tuple(bound), scalars, grid, self._is_live))
        self.dataflow.dispatched(pipeline, arrays)
        return False

    def index_checked(self, index: GPUArray, length: int) -> None:
        """Require an input's numbers to stay below `length` in every replay."""
        for given in self._inputs_of(index):
            given.limit = min(length, given.limit or length)

    def decided(self, index: GPUArray, number: int, may_hold: bool) -> None:
        """Note the answer, and require it of the same input in every replay."""
        super().decided(index, number, may_hold)
        for given in self._inputs_of(index):
            given.decisions[number] = may_hold

    def _inputs_of(self, index: GPUArray) -> list[CapturedInput]:
        origin = index.storage if index.origin is None else index.origin()
        return [given for given in self.batch if given.array.storage is origin]

    def refuse_transfer(self, what: str, instead: str) -> NoReturn:
        """Raise CaptureError: a replay neither reads nor uploads."""
        self.refuse(f"{what}; {instead}, or pass arrays in the batch")

    def refuse(self, what: str) -> NoReturn:
        """Raise CaptureError."""
        raise CaptureError(f"this training step cannot be captured: {what}, {_REMEDY}")

    def depends_on(self, thing: object, attribute: str) -> None:
        """Replay the step only while the attribute is unchanged."""
        known = (weakref.ref(thing), attribute, getattr(thing, attribute))
        self.facts.attributes[id(thing), attribute] = known

    def live(self, act: Callable[[], None]) -> None:
        """Run `act` now, and once in every replay for its scalars."""
        if not self._is_live:  # an act inside another one is run by that one
            self.facts.acts.append(act)
        super().live(act)

    def feed(
        self, backend: Backend, make: Callable[[], NDArray[Any]], bounds: tuple[int, int] | None
    ) -> Array:
        """Upload the result of `make` to memory that the step uses for nothing else."""
        if backend is not self.backend:
            self.refuse(
                f"it draws random numbers for backend {backend.name!r}; draw them for the GPU with "
                "backend="
            )
        gpu = self.backend.gpu
        array = upload_aside(self.backend, make, bounds)
        self.facts.fed.append(array)
        self.dataflow.fed(array)

        def again() -> None:
            with gpu.watched_by(Nobody()):
                host = np.ascontiguousarray(make(), array.stored.memory)
            if array.size:
                gpu.write(array.storage, host)

        self.facts.acts.append(again)
        return array

    def keep(self, arrays: Sequence[GPUArray]) -> None:
        """Set the arrays that are used after the step."""
        self._kept.update(array.storage for array in arrays)
        self.results = self.dataflow.of(arrays)

    def check_same(self, observed: Notes) -> None:
        """Raise CaptureError unless the step repeats the observed one."""
        before, now = observed.dispatches, self.dispatches
        for old, new in zip(before, now, strict=False):
            if (change := course_changed(old, new)) is not None:
                self.refuse(f"{change}; {_BRANCH}")
            if (change := number_changed(old, new)) is not None:
                self.refuse(f"{change}; pass it in the batch, as an array")
        if len(before) != len(now):
            self.refuse(f"it ran {len(before)} kernels before and {len(now)} now; {_BRANCH}")

    def check_kept(self) -> None:
        """Raise CaptureError if an array of the step is still referenced elsewhere."""
        if held := escaped(self.region, self._kept):
            self.refuse(
                f"an array created in it ({held[0].label}) is still referenced after it, and a "
                "replay would overwrite it; assign() its values to a tensor from before the step"
            )


def escaped(region: Region, kept: Collection[Storage]) -> list[Storage]:
    """Return the memory of arrays made in a region and still referenced elsewhere."""

    def held() -> list[Storage]:
        alive = [made() for made in region.made]
        return [storage for storage in alive if storage is not None and storage not in kept]

    if held():
        gc.collect()
    return held()


def upload_aside(
    backend: GpuBackend, make: Callable[[], NDArray[Any]], bounds: tuple[int, int] | None
) -> GPUArray:
    """Upload data that the host makes during a step, to memory outside the step's region."""
    with backend.gpu.watched_by(Nobody()):
        array = backend.upload(make())
    if bounds is not None:
        array.bounds = array.storage.writes, *bounds
    return array


class Nobody(Notes):
    """Watches dispatches outside any step."""

    def takes(
        self, pipeline: Pipeline, arrays: Sequence[GPUArray], scalars: bytes, grid: Grid
    ) -> bool:
        """Let a dispatch pass."""
        return False


def course_changed(old: Dispatched, new: Dispatched) -> str | None:
    """Describe a difference in the kernels or extents of two dispatches."""
    if old.pipeline is new.pipeline and old.grid == new.grid:
        return None
    return (
        f"it took a different path than before: kernel {old.pipeline.program.name!r} ran then, "
        f"{new.pipeline.program.name!r} now"
    )


def number_changed(old: Dispatched, new: Dispatched) -> str | None:
    """Describe a forbidden difference in the numbers of two dispatches of one kernel."""
    if old.scalars == new.scalars or (old.is_live and new.is_live):
        return None
    packer = new.pipeline.packer
    pairs = zip(packer.unpack(old.scalars), packer.unpack(new.scalars), strict=True)
    numbers = next(f"{a} and {b}" for a, b in pairs if repr(a) != repr(b))
    name = new.pipeline.program.name
    return f"a number passed to kernel {name!r} differs from before, {numbers}"


class Capture:
    """A recorded step. See `CapturedStep` for the methods."""

    def __init__(self, recording: GpuRecording) -> None:
        self._recording: GpuRecording | None = recording
        self.backend = recording.backend
        self.why_not: str | None = None
        self._batch = recording.batch
        self.region = recording.region

    @property
    def inputs(self) -> list[GPUArray]:
        """The arrays that stand for the batch while the step is recorded."""
        return [given.array for given in self._batch]

    @property
    def memory(self) -> int:
        """The bytes of its region."""
        return sum(block.size for block in self.region.blocks)

    def keep(self, arrays: Sequence[GPUArray]) -> None:
        """Set which arrays of the step are used after it."""
        if self._recording is not None:
            self._recording.keep(arrays)

    def finish(self) -> None:
        """Turn the recording into commands."""
        recording, self._recording = self._recording, None
        assert recording is not None
        facts = recording.facts
        self._things, self._names, self._values = still_there(facts.attributes.values())
        self._acts = facts.acts
        found = list(facts.found)
        self._found = [weakref.ref(storage) for storage in found]
        self._commands = Commands(self.backend.gpu, recording.dispatches)
        self.dispatches = recording.dispatches
        self.dataflow, self.results = recording.dataflow.origins, recording.results
        self._live = [n for n, seen in enumerate(self.dispatches) if seen.is_live]
        written = {handle for seen in self.dispatches for handle in seen.written()}
        self._is_written = [storage.handle in written for storage in found]
        for given in self._batch:
            given.is_kept = given.array.storage.handle not in written

    def __del__(self) -> None:
        gpu = self.backend.gpu
        for block in self.region.blocks:
            block.batch = gpu.batch  # commands that use it may not be submitted yet
        gpu.give_up(self.region)

    @property
    def is_complete(self) -> bool:
        """Whether it can be replayed."""
        return self._recording is None

    def is_valid(self) -> bool:
        """Whether everything it uses exists, and everything it depends on is unchanged."""
        now = map(_attribute, self._things, self._names)
        return all(map(is_, now, self._values)) and all(map(call, self._found))

    def fits(self, batch: Sequence[GPUArray | NDArray[Any]]) -> bool:
        """Whether the numbers used as indices are in range in this batch as well."""
        return all(given.fits(value) for given, value in zip(self._batch, batch, strict=True))

    def fill(self, batch: Sequence[GPUArray]) -> None:
        """Copy a batch into `inputs`; what is known of its numbers is then known of theirs."""
        with self.backend.gpu.lock:
            for given, value in zip(self._batch, batch, strict=True):
                given.fill(self.backend.gpu, value)
                given.learn(value)

    def replay(self, batch: Sequence[GPUArray | NDArray[Any]]) -> None:
        """Run the commands on new data."""
        gpu = self.backend.gpu
        with gpu.lock:
            found = [ref() for ref in self._found]
            if None in found:
                raise CaptureError("a tensor that a captured step uses was freed by another thread")
            for given, value in zip(self._batch, batch, strict=True):
                given.fill(gpu, value)
            if self._acts:
                self._act()
            self._commands.record()
            number = gpu.batch
            for given in self._batch:
                given.array.storage.block.batch = number
            for storage, is_written in zip(found, self._is_written, strict=True):
                assert storage is not None
                storage.block.batch = number
                storage.writes += is_written

    def _act(self) -> None:
        """Run the live acts for the scalars of their dispatches."""
        patch = _Patch(self)
        with self.backend.gpu.watched_by(patch):
            for act in self._acts:
                act()
        patch.check_complete()


class _Patch(Nobody):
    """Collects the scalars of dispatches for the recorded ones."""

    def __init__(self, capture: Capture) -> None:
        super().__init__()
        self._capture = capture
        self._places = iter(capture._live)

    def takes(
        self, pipeline: Pipeline, arrays: Sequence[GPUArray], scalars: bytes, grid: Grid
    ) -> bool:
        """Store the scalars where the recorded dispatch reads them."""
        place = next(self._places, None)
        if place is None or self._capture.dispatches[place].pipeline is not pipeline:
            raise CaptureError(
                f"a captured step ran kernel {pipeline.program.name!r} where its recording has "
                "another; use Trainer(optimizer, capture=False)"
            )
        self._capture._commands.put(place, scalars)
        return True

    def check_complete(self) -> None:
        """Raise CaptureError if a dispatch of the recording got no scalars."""
        if next(self._places, None) is not None:
            raise CaptureError(
                "a captured step ran fewer kernels than its recording; use "
                "Trainer(optimizer, capture=False)"
            )


@contextmanager
def observe(backend: GpuBackend) -> Iterator[Notes]:
    """Observe a step."""
    notes = Notes()
    with backend.gpu.watched_by(notes), recorded_by(notes):
        yield notes


@contextmanager
def record(
    backend: GpuBackend, batch: Sequence[GPUArray | NDArray[Any]], observed: Notes
) -> Iterator[Capture]:
    """Record a step that did the same as `observed`."""
    recording = GpuRecording(backend, batch)
    capture = Capture(recording)
    with backend.gpu.watched_by(recording, recording.region), recorded_by(recording):
        yield capture
    if observed.decisions != recording.decisions:
        return  # a valid run, but this batch took another path than the observed one
    capture.why_not = recording.why_not
    if capture.why_not is not None:
        return
    recording.check_same(observed)
    recording.check_kept()
    with backend.gpu.lock:
        capture.finish()
