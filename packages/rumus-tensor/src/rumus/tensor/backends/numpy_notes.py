"""`Notes`: the calls of a step on the CPU, and where its arrays are from, seen while it runs."""

from __future__ import annotations

import sys
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.backends.numpy_calls import Call, Origin, Place, described
from rumus.tensor.compiled.numba_entries import address_of
from rumus.tensor.memory.backend import Array, Backend
from rumus.tensor.memory.recording import Settings
from rumus.tensor.memory.watching import watched_by

if TYPE_CHECKING:
    from rumus.tensor.backends.numpy_backend import NumpyBackend


Question: TypeAlias = Callable[..., Any]
TRANSFERS: Final = {
    "upload": "it makes a tensor from numbers of the host",
    "download": "it reads numbers of a tensor",
    "first_not_finite": "it looks for numbers that are not finite",
}


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
        self.settings = Settings()
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
        if name in TRANSFERS:
            self.refuse(TRANSFERS[name])
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
        """Note a setting: a step with another one is not this step."""
        self.settings.add(thing, attribute)

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
