"""What code must declare while a backend records a step, so that the step can be replayed.

A backend that can replay commands records them while a step runs normally; later only the commands
run again, on new data. Most code declares nothing. Code that depends on more than the data does:
`live` for numbers passed to kernels that change each time, `fed` for arrays that the host makes,
`depends_on` for values that the commands depend on, `refuse` for anything that cannot be replayed.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeAlias, TypeGuard, TypeVar

from numpy.typing import NDArray

from rumus.tensor.expression.kernel import Kernel
from rumus.tensor.memory.backend import Array, Backend
from rumus.tensor.memory.uninterrupted import displaced

T = TypeVar("T")


class Recording(Protocol):
    """One step while it is being recorded."""

    def live(self, act: Callable[[], None]) -> None:
        """Run `act` now, and once in every replay for the numbers that it passes to kernels."""
        ...

    def depends_on(self, thing: object, attribute: str) -> None:
        """Replay the step only while the attribute is unchanged."""
        ...

    def decided(self, index: Array, number: int, may_hold: bool) -> None:
        """Replay the step only with numbers of which the same is known; see `decided_by`."""
        ...

    def asked(self, question: Callable[..., Any], arrays: Sequence[Array]) -> Any:
        """Ask a question about host arrays; see `ask_host`."""
        ...

    def feed(
        self, backend: Backend, make: Callable[[], NDArray[Any]], bounds: tuple[int, int] | None
    ) -> Array:
        """Upload what `make` returns, now and in every replay; see `fed`."""
        ...

    def refuse(self, what: str) -> None:
        """Raise CaptureError: `what` cannot be replayed."""
        ...


class CapturedStep(Protocol):
    """A recorded step."""

    why_not: str | None  # why it cannot be replayed, once it has ended; None if unknown

    @property
    def inputs(self) -> Sequence[Array]:
        """Its own copies of the inputs it was recorded with."""
        ...

    @property
    def memory(self) -> int:
        """The bytes that this step owns: a replay allocates nothing else."""
        ...

    @property
    def is_complete(self) -> bool:
        """Whether it can be replayed: not if its batch took another path than when observed."""
        ...

    def keep(self, arrays: Sequence[Array]) -> None:
        """Declare, before the step ends, which of its arrays are read afterwards."""
        ...

    def is_valid(self) -> bool:
        """Whether everything that it reads and depends on is as it was when recorded."""
        ...

    def fits(self, batch: Sequence[Any]) -> bool:
        """Whether the recorded commands are valid for a batch.

        False if numbers used as indices are now out of range: run the step's code. CaptureError if
        that is unknown without reading them.
        """
        ...

    def replay(self, batch: Sequence[Any]) -> None:
        """Replay the commands on new data: arrays of the backend or of NumPy."""
        ...


class Comparison(Protocol):
    """Compares a recorded step with its code running again; `difference` says how they differ.

    It sees operations as they happen: a difference is known after `keep` at the latest.
    """

    @property
    def inputs(self) -> Sequence[Array]:
        """The arguments for the code."""
        ...

    @property
    def difference(self) -> str | None:
        """How the step differs, None if it does not."""
        ...

    def keep(self, arrays: Sequence[Array]) -> None:
        """Declare the arrays read after the step, in the same order as in `CapturedStep.keep`.

        Call it at the end of the block.
        """
        ...


class Settings:
    """The numbers and texts that a step depends on: with others it may take another path.

    Weakly held: what a step makes ends with it, and other objects are only found in other places.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[int, str], tuple[weakref.ref[Any], object]] = {}

    def add(self, thing: object, attribute: str) -> None:
        """Note the value that an attribute has now."""
        value = getattr(thing, attribute)
        if isinstance(value, (int, float, str)):
            self._found[id(thing), attribute] = weakref.ref(thing), value

    def changed(self) -> str | None:
        """The name of one that has another value now, or None."""
        for (_, name), (holder, value) in self._found.items():
            thing = holder()
            if thing is not None and getattr(thing, name) != value:
                return f"{type(thing).__name__}.{name.lstrip('_')}"
        return None


# An attribute that a step relies on. Of what the step makes itself, such as a layer, none is left.
Relied: TypeAlias = tuple["weakref.ref[Any]", str, object]


def still_there(relied: Iterable[Relied]) -> tuple[list[Any], list[str], list[object]]:
    """The objects, attributes and values to compare before a replay: of what still exists."""
    found = [(thing, name, value) for held, name, value in relied if (thing := held()) is not None]
    return [each[0] for each in found], [each[1] for each in found], [each[2] for each in found]


class Observed(Protocol):
    """What a step did when it ran normally; `why_not` says why it cannot be replayed, else None.

    A backend that raises errors for what cannot be replayed does so when it records, and only if
    none of the `settings` has changed.
    """

    why_not: str | None
    settings: Settings


class Capturing(Backend, Protocol):
    """A backend that can record operations and replay them."""

    def observe(self) -> AbstractContextManager[Observed]:
        """Note what a step does, to compare with when it is recorded; yields the notes."""
        ...

    def record(self, batch: Sequence[Any], observed: Any) -> AbstractContextManager[CapturedStep]:
        """Record a step with this data: arrays of the backend or of NumPy.

        CaptureError for anything that cannot be replayed, and if the step differs from `observed`.
        """
        ...

    def compare(self, step: Any, batch: Sequence[Array]) -> AbstractContextManager[Comparison]:
        """Run a recorded step's code in the block, normally, and compare it with the recording.

        step: what `record` yielded. batch: the arrays of this backend that the code gets.
        """
        ...

    def prepare(
        self, kernel: Kernel, arrays: Sequence[Array], out: Sequence[Array]
    ) -> Callable[[Sequence[float]], None]:
        """Return a function of scalars that runs an elementwise kernel on these arrays.

        For kernels that run repeatedly, with less host work than `elementwise`.
        """
        ...

    def step_finished(self) -> None:
        """Note that a training step is complete, so the device can start on it."""
        ...


def is_capturing(backend: Backend) -> TypeGuard[Capturing]:
    """Whether a backend can record steps."""
    return hasattr(backend, "record")


class _Current(threading.local):
    recording: Recording | None = None


_current = _Current()


@contextmanager
def recorded_by(recording: Recording) -> Iterator[None]:
    """Make operations on this thread report to `recording`."""
    with displaced(_current, "recording", recording):
        yield


def live(act: Callable[[], None]) -> None:
    """Run `act`; if a step is being recorded, run it again in each replay.

    `act` must run the same kernels on the same arrays each time; only the scalars may differ.
    """
    recording = _current.recording
    if recording is None:
        act()
    else:
        recording.live(act)


def depends_on(thing: object, attribute: str) -> None:
    """Declare that the next operations depend on the attribute's value."""
    recording = _current.recording
    if recording is not None:
        recording.depends_on(thing, attribute)


def decided_by(index: Array, number: int, may_hold: bool) -> None:
    """Declare that the next operations depend on whether `index` may contain a number."""
    recording = _current.recording
    if recording is not None:
        recording.decided(index, number, may_hold)


def ask_host(question: Callable[..., T], arrays: Sequence[Array]) -> T:
    """Return the answer of `question` about host arrays, which it only reads.

    A step is replayed only with numbers that give the same answer. It raises an error for invalid
    numbers, now and in a replay.
    """
    recording = _current.recording
    if recording is None:
        return question(*arrays)
    answer: T = recording.asked(question, arrays)
    return answer


def is_recorded() -> bool:
    """Whether a step is being observed, recorded or compared on this thread."""
    return _current.recording is not None


def fed(
    backend: Backend,
    make: Callable[[], NDArray[Any]],
    bounds: tuple[int, int] | None = None,
) -> Array:
    """Upload what `make` returns; if a step is being recorded, make it again in each replay.

    make: returns an array of the same shape and dtype each time, and is called in order with what
        `live` runs. bounds: the smallest and largest possible integer.
    """
    recording = _current.recording
    return backend.upload(make()) if recording is None else recording.feed(backend, make, bounds)


def refuse(what: str) -> None:
    """Raise CaptureError if a step is being recorded: `what` cannot be replayed."""
    recording = _current.recording
    if recording is not None:
        recording.refuse(what)
