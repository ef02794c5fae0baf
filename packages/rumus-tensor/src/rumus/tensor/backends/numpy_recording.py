"""`Recording`: a step on the CPU as a list of calls, with the lifetimes of its arrays."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.backends.numpy_calls import Call, Place, described
from rumus.tensor.backends.numpy_commands import Command
from rumus.tensor.backends.numpy_notes import TRANSFERS, Notes, Question, owner_of
from rumus.tensor.memory.backend import Array, Backend
from rumus.tensor.memory.recording import Relied

if TYPE_CHECKING:
    from rumus.tensor.backends.numpy_backend import NumpyBackend

_FOREVER: Final = sys.maxsize


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

    attributes: dict[tuple[int, str], Relied] = field(default_factory=dict)
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
        if self._is_live and operation.__name__ not in (*TRANSFERS, "allocate"):
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
        known = (weakref.ref(thing), attribute, getattr(thing, attribute))
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
            if place.origin == "outside" and not was_there(owner_of(array), observed):
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
            if (owner := found()) is None or not was_there(owner, observed):
                return "an array is copied outside any operation, or is not the same as before"
        return None

    def _left_behind(self) -> str | None:
        """Find arrays of the step that something else still holds, and may read."""

        if found := escaped([life.owner for life in self.lives], self.kept.values()):
            shown = f"{found[0].dtype}{list(found[0].shape)}"
            return f"an array created in it ({shown}) is still referenced after it"
        return None


def escaped(made: Iterable[weakref.ref[Any]], kept: Iterable[NDArray[Any]]) -> list[NDArray[Any]]:
    """Return the arrays made in a step that something else holds."""
    known = {id(array) for array in kept}

    def held() -> list[NDArray[Any]]:
        alive = [array() for array in made]
        return [array for array in alive if array is not None and id(array) not in known]

    if held():
        gc.collect()
    return held()


def was_there(owner: NDArray[Any], observed: Notes) -> bool:
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
