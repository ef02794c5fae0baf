"""Recording a step on the CPU, and replaying its operations without the code that made them.

A recorded step is a list of prepared calls. Its arrays are in one block of memory, planned by their
lifetimes; existing arrays (parameters, gradients, buffers) are used in place and not kept alive.
Nothing here raises an error: a step that cannot be replayed has run normally, and says why.
"""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from operator import call, is_
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.backends.numpy_calls import Call, Place, resolved
from rumus.tensor.backends.numpy_commands import Command, Parts, Scratch, command_of
from rumus.tensor.backends.numpy_notes import Notes, owner_of
from rumus.tensor.backends.numpy_recording import Recording, escaped
from rumus.tensor.compiled.numba_entries import address_of, joined
from rumus.tensor.expression.errors import CaptureError
from rumus.tensor.memory.buffer_plan import ALIGNMENT, Lifetime, planned
from rumus.tensor.memory.recording import recorded_by, still_there
from rumus.tensor.memory.uninterrupted import is_of_handler
from rumus.tensor.memory.watching import watched_by

if TYPE_CHECKING:
    from rumus.tensor.backends.numpy_backend import NumpyBackend


class _Memory:
    """Memory owned elsewhere, as an array interface for NumPy."""

    def __init__(self, place: Place) -> None:
        self.__array_interface__ = {
            "data": (place.offset, not place.is_writeable),
            "shape": place.shape,
            "strides": place.strides,
            "typestr": place.dtype.str,
            "version": 3,
        }


class _Layout:
    """Gives places their arrays after the step has ended."""

    def __init__(self, recording: Recording) -> None:
        self._owners = recording.owners
        self._fed = recording.fed
        self._kept = recording.kept
        self._arrays: dict[Place, NDArray[Any]] = {}
        lives = [n for n in range(len(recording.lives)) if n not in self._kept]
        sizes = [recording.lives[n] for n in lives]
        starts, size = planned([Lifetime(life.size, life.birth, life.death) for life in sizes])
        self._starts = dict(zip(lives, starts, strict=True))
        block = np.empty(size + ALIGNMENT, np.uint8)
        first = -address_of(block) % ALIGNMENT
        self._block = block[first : first + size]
        self.size = size

    def array(self, place: Place) -> NDArray[Any]:
        """Return the array of a place, always the same."""
        found = self._arrays.get(place)
        if found is None:
            found = self._arrays[place] = self._made(place)
        return found

    def _made(self, place: Place) -> NDArray[Any]:
        if not np.prod(place.shape):
            return np.empty(place.shape, place.dtype)
        if place.origin == "outside":
            return np.asarray(_Memory(place))
        memory, offset = self._block, place.offset
        if place.origin == "input":
            memory = self._owners[place.number]
        elif place.origin == "fed":
            memory = self._fed[place.number]
        elif place.number in self._kept:
            memory = self._kept[place.number]
        else:
            offset += self._starts[place.number]
        array: NDArray[Any] = np.ndarray(place.shape, place.dtype, memory, offset, place.strides)
        return array


class Capture:
    """A recorded step. See `CapturedStep` for the methods."""

    def __init__(self, recording: Recording, observed: Notes) -> None:
        self._recording: Recording | None = recording
        self._observed: Notes | None = observed
        self.backend = recording.backend
        self.inputs: list[NDArray[Any]] = recording.inputs
        self.why_not: str | None = None
        self._owners = recording.owners
        self._results: list[Place] = []
        self.lend()

    def keep(self, arrays: Sequence[NDArray[Any]]) -> None:
        """Declare the arrays of the step that are read after it."""
        if self._recording is not None and self._observed is not None:
            self._results = [self._recording.known.place_of(array) for array in arrays]
            self._recording.keep(arrays, self._observed)

    @property
    def memory(self) -> int:
        """The bytes of memory that it owns."""
        return self._size

    @property
    def is_complete(self) -> bool:
        """Whether it can be replayed."""
        return self._recording is None

    def lend(self) -> None:
        """Note that code is about to receive the arrays of the batch."""
        self._counts = self._references()

    def are_inputs_held(self) -> bool:
        """Whether that code kept one of them."""
        if self._references() != self._counts:
            gc.collect()
        return self._references() != self._counts

    def _references(self) -> list[int]:
        return [sys.getrefcount(array) for array in (*self._owners, *self.inputs)]

    def finish(self) -> None:
        """Turn the notes into commands."""
        recording, observed = self._recording, self._observed
        assert recording is not None
        assert observed is not None
        if self.are_inputs_held():
            recording.refuse("an array of its batch is still referenced after it")
        if recording.why_not is None and repr(recording.answers) != repr(observed.answers):
            return  # a valid run, but this batch took another path than the observed one
        recording.check(observed)
        self.why_not = recording.why_not
        if self.why_not is not None:
            return
        layout, scratch = _Layout(recording), Scratch()
        self.calls, self.results = recording.calls, self._results
        self._commands = joined(
            [
                command
                for step in recording.steps
                for command in _commands(step, layout.array, scratch)
            ]
        )
        whole = {recording.known.place_of(array): n for n, array in enumerate(self.inputs)}
        self._asked = [
            (each.question, [whole.get(p, layout.array(p)) for p in each.places], each.answer)
            for each in recording.facts.asked
        ]
        self._asks_for_parts = any(
            place not in whole for each in recording.facts.asked for place in each.places
        )
        relied = recording.facts.attributes.values()
        self._things, self._names, self._values = still_there(relied)
        self._outside = list(recording.known.outside.values())
        held = [*recording.owners, *recording.fed, *recording.kept.values()]
        self._size = layout.size + scratch.size + sum(array.nbytes for array in held)
        self._recording = self._observed = None

    def is_valid(self) -> bool:
        """Whether everything it uses still exists, and everything it depends on is unchanged."""
        if not all(map(is_, map(getattr, self._things, self._names), self._values)):
            return False
        return not any(map(is_, map(call, self._outside), repeat(None)))

    def fill(self, batch: Sequence[NDArray[Any]]) -> None:
        """Copy a batch into the arrays that hold it."""
        for target, value in zip(self.inputs, batch, strict=True):
            target[...] = value

    def fits(self, batch: Sequence[NDArray[Any]]) -> bool:
        """Whether the questions asked about a batch's values have the same answers for this one.

        False if a question raises an error, which the code will raise. A signal handler's passes.
        """
        if self._asks_for_parts:
            self.fill(batch)
        try:
            for question, arrays, answer in self._asked:
                given = [batch[a] if isinstance(a, int) else a for a in arrays]
                if repr(question(*given)) != repr(answer):
                    return False
        except Exception as error:
            if is_of_handler(error):
                raise
            return False
        return True

    def replay(self, batch: Sequence[NDArray[Any]]) -> None:
        """Run the commands on new data."""
        owners = [*map(call, self._outside)]
        if any(map(is_, owners, repeat(None))):
            raise CaptureError("a tensor that a captured step uses was freed by another thread")
        self.fill(batch)
        with np.errstate(all="ignore"), self.backend.undisturbed():
            for command in self._commands:
                command()


def _commands(
    call: Call | Command, array_of: Callable[[Place], NDArray[Any]], scratch: Scratch
) -> Sequence[Command]:
    """The functions that run a call again."""
    if not isinstance(call, Call):
        return [call]
    args, named = resolved(call.args, array_of), resolved(dict(call.named), array_of)
    if call.result is None:
        return Parts.of(command_of(call.operation, args, named, scratch))
    result, operation = array_of(call.result), call.operation
    return [lambda: np.copyto(result, operation(*args, **named))]


@contextmanager
def observe(backend: NumpyBackend) -> Iterator[Notes]:
    """Note what a step does."""
    notes = Notes(backend)
    with watched_by(notes), recorded_by(notes):
        yield notes


@contextmanager
def record(
    backend: NumpyBackend, batch: Sequence[NDArray[Any]], observed: Notes
) -> Iterator[Capture]:
    """Record a step that was `observed` on its previous run."""
    recording = Recording(backend, batch)
    capture = Capture(recording, observed)
    with watched_by(recording), recorded_by(recording):
        yield capture
    capture.finish()


class Comparison(Notes):
    """A running step, compared with its recording call by call.

    difference: how the step differs, None if it does not. inputs: the arguments for the code.
    """

    def __init__(self, capture: Capture, batch: Sequence[NDArray[Any]]) -> None:
        super().__init__(capture.backend)
        self._capture = capture
        self.inputs = capture.inputs
        capture.fill(batch)
        capture.lend()
        for owner in capture._owners:
            self.known.add("input", owner)
        self._own: list[weakref.ref[Any]] = []

    @property
    def difference(self) -> str | None:
        """How the step differs from the recording."""
        return self.why_not

    def refuse(self, what: str) -> None:
        """Note a difference; only the first counts."""
        self.why_not = self.why_not or what

    def note(self, call: Call) -> None:
        """Compare a call with the recorded one."""
        number = len(self.calls)
        super().note(call)
        recorded = self._capture.calls
        if number < len(recorded) and self.why_not is None:
            self.why_not = recorded[number].difference(call, is_exact=True)

    def made(self, array: NDArray[Any]) -> None:
        """Note an array, to check later whether something still holds it."""
        super().made(array)
        self._own.append(weakref.ref(array))

    def keep(self, arrays: Sequence[NDArray[Any]]) -> None:
        """Compare the origin of the step's results, and check that no array is held elsewhere."""
        before, now = len(self._capture.calls), len(self.calls)
        if now != before:
            self.refuse(f"it ran {before} operations before and {now} now")
        if [self.known.place_of(array) for array in arrays] != self._capture.results:
            self.refuse("its loss or gradients are different arrays than before")
        if escaped(self._own, [owner_of(array) for array in arrays]):
            self.refuse("an array created in it is still referenced after it")


@contextmanager
def compare(capture: Capture, batch: Sequence[NDArray[Any]]) -> Iterator[Comparison]:
    """Compare this thread's operations in the block with a recorded step."""
    comparison = Comparison(capture, batch)
    with watched_by(comparison), recorded_by(comparison):
        yield comparison
    if capture.are_inputs_held():
        comparison.refuse("an array of its batch is still referenced after it")
