"""What code has to say while a backend records a step, so that it can be repeated without the code.

A backend that can repeat commands records them while a step runs as usual; later the commands
alone are run again, on new data. Most code needs to say nothing. What depends on more than the data
does: `live` for what gives kernels other numbers each time, `fed` for arrays that the host makes,
`depends_on` for what the commands were chosen by, `refuse` for what cannot be repeated.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeGuard, TypeVar

from numpy.typing import NDArray

from rumus.tensor.expression.kernel import Kernel
from rumus.tensor.memory.backend import Array, Backend
from rumus.tensor.memory.uninterrupted import displaced

T = TypeVar("T")


class Recording(Protocol):
    """One step while it is being recorded."""

    def live(self, act: Callable[[], None]) -> None:
        """Run `act` now, and once in every repetition for the numbers that it gives to kernels."""
        ...

    def depends_on(self, thing: object, attribute: str) -> None:
        """Repeat the step only while the attribute is what it is now."""
        ...

    def decided(self, index: Array, number: int, may_hold: bool) -> None:
        """Repeat the step only with numbers of which the same is known; see `decided_by`."""
        ...

    def asked(self, question: Callable[..., Any], arrays: Sequence[Array]) -> Any:
        """Ask something of the numbers of arrays of the host; see `ask_host`."""
        ...

    def feed(
        self, backend: Backend, make: Callable[[], NDArray[Any]], bounds: tuple[int, int] | None
    ) -> Array:
        """Upload what `make` returns, now and in every repetition; see `fed`."""
        ...

    def refuse(self, what: str) -> None:
        """Raise CaptureError: `what` cannot be repeated."""
        ...


class CapturedStep(Protocol):
    """A step that was recorded."""

    why_not: str | None  # why nothing like it can be repeated, once it has ended; None if unknown

    @property
    def inputs(self) -> Sequence[Array]:
        """What it was recorded with, in memory of its own."""
        ...

    @property
    def memory(self) -> int:
        """The bytes that belong to this step alone: a repetition allocates nothing besides."""
        ...

    @property
    def is_complete(self) -> bool:
        """Whether it can be repeated: not if its batch took another course than when observed."""
        ...

    def keep(self, arrays: Sequence[Array]) -> None:
        """Say which of the arrays that the step made are looked at after it; before it ends."""
        ...

    def is_valid(self) -> bool:
        """Whether all that it reads and depends on is still as it was recorded."""
        ...

    def fits(self, batch: Sequence[Any]) -> bool:
        """Whether a batch can be had by the recorded commands.

        False for numbers that were used as indices and are out of range now: run the step's code.
        CaptureError if that could not be known without reading them.
        """
        ...

    def replay(self, batch: Sequence[Any]) -> None:
        """Run the commands again on new data: arrays of the backend, or of NumPy."""
        ...


class Comparison(Protocol):
    """What a recorded step's code does when it runs again; `difference` is what it does otherwise.

    It sees dispatches as they come: a difference is known at the latest after `keep`.
    """

    @property
    def inputs(self) -> Sequence[Array]:
        """What the code is to be called with."""
        ...

    @property
    def difference(self) -> str | None:
        """What the step does otherwise, None as long as there is nothing."""
        ...

    def keep(self, arrays: Sequence[Array]) -> None:
        """Say what is looked at after the step, in the order in which `CapturedStep.keep` was told.

        Called at the end of the block.
        """
        ...


class Observed(Protocol):
    """What a step did when it ran as usual; `why_not` is why it cannot be repeated, None if it may.

    A backend that refuses by an error what cannot be repeated does so when it records.
    """

    why_not: str | None


class Capturing(Backend, Protocol):
    """A backend that can record what it is told to do, and repeat it."""

    def observe(self) -> AbstractContextManager[Observed]:
        """Note what a step does, to compare with when it is recorded. Gives the notes."""
        ...

    def record(self, batch: Sequence[Any], observed: Any) -> AbstractContextManager[CapturedStep]:
        """Record a step with these data: arrays of the backend, or of NumPy.

        CaptureError for what cannot be repeated, and if the step did otherwise when `observed`.
        """
        ...

    def compare(self, step: Any, batch: Sequence[Array]) -> AbstractContextManager[Comparison]:
        """Run a recorded step's code in the block, as usual, beside what was recorded.

        step: what `record` gave. batch: the arrays of this backend that the code gets.
        """
        ...

    def prepare(
        self, kernel: Kernel, arrays: Sequence[Array], out: Sequence[Array]
    ) -> Callable[[Sequence[float]], None]:
        """Return what runs an elementwise kernel on these arrays, called with its scalars.

        For what runs again and again, with less work for the host than `elementwise`.
        """
        ...

    def step_finished(self) -> None:
        """Note that a training step is complete: the device may as well start with it."""
        ...


def is_capturing(backend: Backend) -> TypeGuard[Capturing]:
    """Whether a backend can record steps."""
    return hasattr(backend, "record")


class _Current(threading.local):
    recording: Recording | None = None


_current = _Current()


@contextmanager
def recorded_by(recording: Recording) -> Iterator[None]:
    """Let what runs on this thread report to `recording`."""
    with displaced(_current, "recording", recording):
        yield


def live(act: Callable[[], None]) -> None:
    """Run `act`; if a step is being recorded, run it again in each repetition.

    `act` runs the same kernels on the same arrays each time; only the scalars may differ.
    """
    recording = _current.recording
    if recording is None:
        act()
    else:
        recording.live(act)


def depends_on(thing: object, attribute: str) -> None:
    """Say that what is done next would be something else if the attribute had another value."""
    recording = _current.recording
    if recording is not None:
        recording.depends_on(thing, attribute)


def decided_by(index: Array, number: int, may_hold: bool) -> None:
    """Say that what is done next was chosen by whether `index` may hold a number."""
    recording = _current.recording
    if recording is not None:
        recording.decided(index, number, may_hold)


def ask_host(question: Callable[..., T], arrays: Sequence[Array]) -> T:
    """Return what `question` says of arrays of the host, which it only reads.

    A step is repeated only with numbers of which it says the same. It raises an error for numbers
    that are not allowed, now and in a repetition.
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
    """Upload what `make` returns; if a step is being recorded, make it again in each repetition.

    make: returns an array of the same shape and dtype each time, and is called in its turn among
    what `live` runs. bounds: the least and the largest that integers may be.
    """
    recording = _current.recording
    return backend.upload(make()) if recording is None else recording.feed(backend, make, bounds)


def refuse(what: str) -> None:
    """Raise CaptureError if a step is being recorded: `what` cannot be repeated."""
    recording = _current.recording
    if recording is not None:
        recording.refuse(what)
