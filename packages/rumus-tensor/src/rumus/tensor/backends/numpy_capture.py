"""Recording a step on the CPU, and replaying its operations without the code that made them.

A recorded step is a list of prepared calls. Its arrays are in one block of memory, planned by their
lifetimes; existing arrays (parameters, gradients, buffers) are used in place and not kept alive.
Nothing here raises an error: a step that cannot be replayed has run normally, and says why.
"""

from __future__ import annotations

import gc
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import is_
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.backends.numpy_calls import Call, Origin, Place, described, resolved
from rumus.tensor.backends.numpy_commands import Command, Scratch, command_of
from rumus.tensor.compiled.numba_entries import address_of, joined
from rumus.tensor.expression.errors import CaptureError
from rumus.tensor.memory.backend import Array, Backend
from rumus.tensor.memory.buffer_plan import ALIGNMENT, Lifetime, planned
from rumus.tensor.memory.recording import recorded_by
from rumus.tensor.memory.uninterrupted import is_of_handler
from rumus.tensor.memory.watching import watched_by

if TYPE_CHECKING:
    from rumus.tensor.backends.numpy_backend import NumpyBackend

Question: TypeAlias = Callable[..., Any]
_TRANSFERS: Final = {
    "upload": "it makes a tensor from numbers of the host",
    "download": "it reads numbers of a tensor",
    "first_not_finite": "it looks for numbers that are not finite",
}
_FOREVER: Final = sys.maxsize


def owner_of(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array that owns the memory of an array, which may be a view."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


class Known:
    """The arrays of a running step: those it allocates, those of its batch, and those fed.

    Freed ones are noted by C code and looked at later: Python swallows what a signal handler raises
    while a function is called for a freed object.
    """

    def __init__(self) -> None:
        self._numbers: dict[int, tuple[Place, weakref.ref[Any]]] = {}  # by identity of the owner
        self._freed: deque[weakref.ref[Any]] = deque()
        self._watched: dict[int, tuple[int, int, Callable[[int], None] | None]] = {}
        self.outside: dict[int, weakref.ref[Any]] = {}
        self.counts: dict[Origin, int] = {"own": 0, "input": 0, "fed": 0}

    def add(
        self, origin: Origin, array: NDArray[Any], died: Callable[[int], None] | None = None
    ) -> int:
        """Register an array that owns its memory.

        Once it is freed, `died` is called with its number, before the next array is looked at.
        """
        self._forget_freed()
        number = self.counts[origin]
        self.counts[origin] += 1
        key = id(array)
        place = Place(
            origin, number, address_of(array), array.shape, array.strides, array.dtype, True
        )
        watch = weakref.ref(array, self._freed.append)
        self._numbers[key], self._watched[id(watch)] = (place, watch), (key, number, died)
        return number

    def _forget_freed(self) -> None:
        while self._freed:
            watch = self._freed.popleft()
            key, number, died = self._watched.pop(id(watch))
            del self._numbers[key]
            if died is not None:
                died(number)

    def place_of(self, array: NDArray[Any]) -> Place:
        """Return the place of an array."""
        self._forget_freed()
        owner, address = owner_of(array), address_of(array)
        found = self._numbers.get(id(owner))
        layout = array.shape, array.strides, array.dtype, bool(array.flags.writeable)
        if found is not None:
            return Place(found[0].origin, found[0].number, address - found[0].offset, *layout)
        known = self.outside.get(id(owner))
        if known is None or known() is None:
            self.outside[id(owner)] = weakref.ref(owner)
        return Place("outside", 0, address, *layout)

    def holds(self, array: NDArray[Any]) -> bool:
        """Whether an array is in memory registered for the step or its batch."""
        self._forget_freed()
        return id(owner_of(array)) in self._numbers


class Notes:
    """What a step did when it first ran, without recording.

    why_not: why it cannot be replayed, None if no reason is known.
    """

    def __init__(self, backend: NumpyBackend) -> None:
        self.backend = backend
        self.calls: list[Call] = []
        self.answers: list[Any] = []
        self.why_not: str | None = None
        self.known = Known()
        self._is_live = False
        if type(backend).hidden_operations():
            self.why_not = f"its backend, {type(backend).__name__}, has operations of its own"

    def called(self, operation: Callable[..., Any], args: tuple[Any, ...], named: Any) -> Any:
        """Note a call, and run it outside the tracing of Python code."""
        tracer = sys.gettrace()
        sys.settrace(None)
        try:
            return self._called(operation, args, named)
        finally:
            sys.settrace(tracer)

    def _called(self, operation: Callable[..., Any], args: tuple[Any, ...], named: Any) -> Any:
        name = operation.__name__
        if name == "fused":
            return operation(*args, **named)
        if name in _TRANSFERS:
            self.refuse(_TRANSFERS[name])
            return operation(*args, **named)
        if name == "allocate":
            result = operation(*args, **named)
            self.made(result)
            return result
        place_of = self.known.place_of
        call = Call(operation, described(args, place_of), described(named, place_of), self._is_live)
        self.note(call)
        try:
            result = operation(*args, **named)
        except BaseException:
            self.refuse(f"{call.label!r} has raised an error in it")
            raise
        if isinstance(result, np.ndarray):
            self.made(result)
            call.result = place_of(result)
        return result

    def note(self, call: Call) -> None:
        """Note a call that is about to run."""
        self.calls.append(call)

    def made(self, array: NDArray[Any]) -> None:
        """Note an array that the step has made."""
        self.known.add("own", array)

    def refuse(self, what: str) -> None:
        """Do nothing: if the next step does it too, recording refuses it."""

    def depends_on(self, thing: object, attribute: str) -> None:
        """Do nothing: it is noted when the step is recorded."""

    def decided(self, index: Array, number: int, may_hold: bool) -> None:
        """Do nothing: numbers are checked where they are used."""

    def asked(self, question: Question, arrays: Sequence[Array]) -> Any:
        """Ask the question, and note the answer."""
        with watched_by(None):
            answer = question(*arrays)
        self.answers.append(answer)
        return answer

    def feed(
        self, backend: Backend, make: Callable[[], NDArray[Any]], bounds: tuple[int, int] | None
    ) -> Array:
        """Return a copy of what `make` returns."""
        if backend is not self.backend:
            self.refuse(f"it draws random numbers for backend {backend.name!r}")
            return backend.upload(make())
        with watched_by(None):
            array = backend.upload(make())
        self.known.add("fed", array)
        return array

    def live(self, act: Callable[[], None]) -> None:
        """Run `act`, whose numbers may change from step to step."""
        before, self._is_live = self._is_live, True
        try:
            act()
        finally:
            self._is_live = before


@dataclass(slots=True)
class _Life:
    """The lifetime of an array, counted in calls."""

    owner: weakref.ref[Any]
    size: int
    birth: int
    death: int = _FOREVER


@dataclass(slots=True)
class _Asked:
    """A question about the values of arrays, and the answer."""

    question: Question
    places: tuple[Place, ...]
    answer: Any


@dataclass(slots=True)
class _Facts:
    """The facts that a recorded step relies on."""

    attributes: dict[tuple[int, str], tuple[object, str, object]] = field(default_factory=dict)
    asked: list[_Asked] = field(default_factory=list)  # of the batch


class Recording(Notes):
    """A step being recorded: it runs normally, and its calls are noted.

    steps: its calls, and what else a replay runs between them.
    """

    def __init__(self, backend: NumpyBackend, batch: Sequence[NDArray[Any]]) -> None:
        super().__init__(backend)
        self.steps: list[Call | Command] = []
        self.facts = _Facts()
        self.lives: list[_Life] = []
        self.kept: dict[int, NDArray[Any]] = {}  # by number: these keep their addresses
        self.fed: list[NDArray[Any]] = []
        self.owners, self.inputs = [], []
        for value in batch:
            owner, array = like(value)
            self.owners.append(owner)
            self.inputs.append(array)
            self.known.add("input", owner)

    def refuse(self, what: str) -> None:
        """Note why it cannot be replayed; the first reason counts."""
        self.why_not = self.why_not or what

    def note(self, call: Call) -> None:
        """Note a call."""
        super().note(call)
        if self._is_live:
            return  # the enclosing act runs again as a whole
        self.steps.append(call)
        if any(place.origin == "input" for place in call.written()):
            self.refuse(f"{call.label!r} writes into an array of the batch")

    def called(self, operation: Callable[..., Any], args: tuple[Any, ...], named: Any) -> Any:
        """Keep the address of what a live act uses: the act refers to it."""
        result = super().called(operation, args, named)
        if self._is_live and operation.__name__ not in (*_TRANSFERS, "allocate"):
            self._keep_all((args, named))
        return result

    def _keep_all(self, value: Any) -> None:
        def keep(array: NDArray[Any]) -> Place:
            self._keep(array)
            return self.known.place_of(array)

        described(value, keep)

    def _keep(self, array: NDArray[Any]) -> None:
        place = self.known.place_of(array)
        if place.origin == "own":
            self.kept[place.number] = owner_of(array)

    def made(self, array: NDArray[Any]) -> None:
        """Note an array and its end of life."""
        lives = self.lives
        calls = self.calls

        def died(number: int) -> None:
            lives[number].death = len(calls)

        lives.append(_Life(weakref.ref(array), array.nbytes, len(calls)))
        self.known.add("own", array, died)

    def depends_on(self, thing: object, attribute: str) -> None:
        """Replay the step only while the attribute is unchanged."""
        known = (thing, attribute, getattr(thing, attribute))
        self.facts.attributes[id(thing), attribute] = known

    def asked(self, question: Question, arrays: Sequence[Array]) -> Any:
        """Ask now and in every replay: about a batch before it is used, otherwise in order."""
        answer = super().asked(question, arrays)
        found = tuple(map(self.known.place_of, arrays))
        asked = _Asked(question, found, answer)
        if all(place.origin == "input" for place in found):
            self.facts.asked.append(asked)
        elif answer is None:
            self.steps.append(Call(question, found, {}, False))
        else:
            self.refuse("it reads numbers that it has computed")
        return answer

    def live(self, act: Callable[[], None]) -> None:
        """Run `act` now, and once in every replay, in order."""
        if not self._is_live:  # an act inside another is run by that one
            self.steps.append(act)
        super().live(act)

    def feed(
        self, backend: Backend, make: Callable[[], NDArray[Any]], bounds: tuple[int, int] | None
    ) -> Array:
        """Make an array now, and new values for it in every replay, in order."""
        array = super().feed(backend, make, bounds)
        if backend is self.backend:
            owner = owner_of(array)
            self.fed.append(owner)
            self.steps.append(lambda: np.copyto(owner, make(), casting="unsafe"))
        return array

    def keep(self, arrays: Sequence[NDArray[Any]], observed: Notes) -> None:
        """Declare the arrays that are read after the step."""
        for array in arrays:
            self._keep(array)
            place = self.known.place_of(array)
            if place.origin == "outside" and not _was_there(owner_of(array), observed):
                self.refuse("no operation wrote the array that it returns")

    def check(self, observed: Notes) -> None:
        """Refuse a step that differed from the previous one, or that left arrays behind."""
        self.why_not = self.why_not or self._unlike(observed) or self._left_behind()

    def _unlike(self, observed: Notes) -> str | None:
        before, now = observed.calls, self.calls
        for old, new in zip(before, now, strict=False):
            if (how := old.difference(new, is_exact=False)) is not None:
                return how
        if len(before) != len(now):
            return f"it ran {len(before)} operations before and {len(now)} now"
        for found in self.known.outside.values():
            if (owner := found()) is None or not _was_there(owner, observed):
                return "an array is copied outside any operation, or is not the same as before"
        return None

    def _left_behind(self) -> str | None:
        """Find arrays of the step that something else still holds, and may read."""

        if found := _escaped([life.owner for life in self.lives], self.kept.values()):
            shown = f"{found[0].dtype}{list(found[0].shape)}"
            return f"an array created in it ({shown}) is still referenced after it"
        return None


def _escaped(made: Iterable[weakref.ref[Any]], kept: Iterable[NDArray[Any]]) -> list[NDArray[Any]]:
    """Return the arrays made in a step that something else holds."""
    known = {id(array) for array in kept}

    def held() -> list[NDArray[Any]]:
        alive = [array() for array in made]
        return [array for array in alive if array is not None and id(array) not in known]

    if held():
        gc.collect()
    return held()


def _was_there(owner: NDArray[Any], observed: Notes) -> bool:
    """Whether the previous step used the same memory."""
    found = observed.known.outside.get(id(owner))
    return found is not None and found() is owner


def like(value: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return a copy with the same layout, and the array that owns its memory."""
    if value.flags.c_contiguous or any(stride < 0 for stride in value.strides) or not value.size:
        owner = np.array(value, order="C")
        return owner, owner[...]
    pairs = zip(value.shape, value.strides, strict=True)
    span = value.itemsize + sum((length - 1) * stride for length, stride in pairs)
    owner = np.empty(-(-span // value.itemsize), value.dtype)
    if any(stride % value.itemsize for stride in value.strides):
        owner = np.array(value, order="C")
        return owner, owner[...]
    array: NDArray[Any] = np.ndarray(value.shape, value.dtype, owner, 0, value.strides)
    np.copyto(array, value)
    return owner, array


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
                _command(step, layout.array, scratch) if isinstance(step, Call) else step
                for step in recording.steps
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
        facts = list(recording.facts.attributes.values())
        self._things = [thing for thing, _, _ in facts]
        self._names = [name for _, name, _ in facts]
        self._values = [value for _, _, value in facts]
        self._outside = list(recording.known.outside.values())
        held = [*recording.owners, *recording.fed, *recording.kept.values()]
        self._size = layout.size + scratch.size + sum(array.nbytes for array in held)
        self._recording = self._observed = None

    def is_valid(self) -> bool:
        """Whether everything it uses still exists, and everything it depends on is unchanged."""
        if not all(map(is_, map(getattr, self._things, self._names), self._values)):
            return False
        return all(owner() is not None for owner in self._outside)

    def fill(self, batch: Sequence[NDArray[Any]]) -> None:
        """Copy a batch into the arrays that hold it."""
        for target, value in zip(self.inputs, batch, strict=True):
            np.copyto(target, value, casting="unsafe")

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
        owners = [owner() for owner in self._outside]
        if any(owner is None for owner in owners):
            raise CaptureError("a tensor that a captured step uses was freed by another thread")
        self.fill(batch)
        with np.errstate(all="ignore"), self.backend.undisturbed():
            for command in self._commands:
                command()


def _command(
    call: Call, array_of: Callable[[Place], NDArray[Any]], scratch: Scratch
) -> Callable[[], object]:
    """A function that runs a call again."""
    args, named = resolved(call.args, array_of), resolved(dict(call.named), array_of)
    if call.result is None:
        return command_of(call.operation, args, named, scratch)
    result, operation = array_of(call.result), call.operation
    return lambda: np.copyto(result, operation(*args, **named))


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
        if _escaped(self._own, [owner_of(array) for array in arrays]):
            self.refuse("an array created in it is still referenced after it")


@contextmanager
def compare(capture: Capture, batch: Sequence[NDArray[Any]]) -> Iterator[Comparison]:
    """Compare this thread's operations in the block with a recorded step."""
    comparison = Comparison(capture, batch)
    with watched_by(comparison), recorded_by(comparison):
        yield comparison
    if capture.are_inputs_held():
        comparison.refuse("an array of its batch is still referenced after it")
