"""`Pass`: what a forward pass assigns to buffers, held back until its step counts.

`self.running = 0.9 * self.running + 0.1 * x.mean(0)` within `forward` is seen by the rest of the
pass. When the pass ends, the buffer is what it was, and its new value is proposed as running
statistics are; see `BufferUpdate`. So a pass that is only looked at, repeated, refused or skipped
leaves nothing, and a step of several passes moves a buffer once.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from typing import Any, Final, Protocol, TypeGuard, TypeVar

from rumus.tensor.expression.expr import Expr
from rumus.tensor.expression.kernel import Kernel
from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.graph.autograd import is_recording
from rumus.tensor.graph.buffer_update import BufferUpdate, propose
from rumus.tensor.graph.tensor import Tensor
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.uninterrupted import put_back_after

R = TypeVar("R")
_ASSIGN: Final = Kernel("assign", {"buffer": Expr.array("value")}, ("buffer", "value"))


class SideEffectWarning(UserWarning):
    """A forward pass changes something outside its step, or something that its step would lose."""


class Root(Protocol):
    """A tree of modules, as those of `rumus.nn`."""

    def named_modules(self) -> Iterator[tuple[str, Any]]:
        """Iterate over the modules with their dotted paths."""
        ...


class Assigned(BufferUpdate):
    """The new value of a buffer. label: how messages call it.

    base: the update whose value its pass began with; None for the value that the buffer had.
    """

    def __init__(self, buffer: Tensor, value: Array, label: str, base: Assigned | None) -> None:
        super().__init__(_ASSIGN, (buffer,), (value,), {})
        self.label, self.base = label, base
        self.is_kept = False

    def kept(self) -> Assigned:
        """Return the same update with a copy of the value, for passes to come to begin with."""
        kept = copy(super().kept())
        assert isinstance(kept, Assigned)
        kept.is_kept = True
        return kept


class _Current(threading.local):
    running: Pass | None = None

    def __init__(self) -> None:
        # What passes without a trainer have proposed, and no backward has taken along yet.
        self.pending: dict[int, weakref.ref[Assigned]] = {}


_current = _Current()
_told: Final[set[str]] = set()  # the places that were warned of


class Pass:
    """One forward pass of this thread. root: the module whose call is the outermost one now."""

    def __init__(self) -> None:
        self.root: Root | None = None
        self._roots: list[Root] = []
        # Attributes that were assigned, with the buffer that each had before the pass.
        self._places: dict[tuple[int, str], tuple[dict[str, Any], str, Tensor]] = {}
        # Buffers that have other memory within the pass, with their own.
        self._arrays: dict[int, tuple[Tensor, Array]] = {}
        self._written: set[int] = set()
        self._labels: dict[int, str] = {}
        self._bases: dict[int, Assigned] = {}
        self._found: dict[int, tuple[Tensor, str]] | None = None

    def enter(self, root: Root) -> None:
        """Begin the call of a module that no other module calls."""
        self.root = root
        if not any(root is known for known in self._roots):
            self._roots.append(root)
            self._found = None

    def assign(self, names: dict[str, Any], name: str, before: Tensor, label: str) -> None:
        """Note that an attribute which holds a buffer is about to be assigned.

        names: the attributes of its module. before: the buffer.
        """
        if (id(names), name) not in self._places:
            self._places[id(names), name] = names, name, before
            self._labels.setdefault(id(before), label)

    def before(self, names: dict[str, Any], name: str) -> Any:
        """Return what an attribute was before the pass assigned it, or is.

        names: the attributes of its module.
        """
        place = self._places.get((id(names), name))
        return names[name] if place is None else place[2]

    def write(self, tensor: Tensor) -> bool:
        """Have a buffer that is about to be written in place lie elsewhere for the pass.

        Returns False for what is not a buffer of a module that was called. TypeError for a view of
        one, which would lead to the old place.
        """
        if id(tensor) in self._written:
            return True
        found = self._tensors().get(id(tensor._version))
        if found is None:
            return False
        buffer, label = found
        if type(buffer) is not Tensor:
            warn_once(
                label,
                "is a parameter that forward writes into, which stays written when the step is "
                "skipped or raises: write between the steps",
            )
            return False
        if buffer is not tensor:
            raise TypeError(
                f"{label} is a buffer, and forward writes to a view of it: write with one index, "
                "self.name[...] = value, or assign the attribute"
            )
        self._arrays.setdefault(id(tensor), (tensor, tensor._array))
        self._labels.setdefault(id(tensor), label)
        tensor._array = _copied(tensor)
        self._written.add(id(tensor))
        return True

    def _tensors(self) -> dict[int, tuple[Tensor, str]]:
        """What the modules had before the pass, with its label, by what tells its memory."""
        if self._found is None:
            self._found = {}
            for root in self._roots:
                for _, module in root.named_modules():
                    names = vars(module)
                    for name, value in module.named_members():
                        _, _, tensor = self._places.get((id(names), name), (None, None, value))
                        if isinstance(tensor, Tensor):
                            label = f"{type(module).__name__}.{name}"
                            self._found.setdefault(id(tensor._version), (tensor, label))
        return self._found

    def show(self, state: State) -> None:
        """Begin with what passes before have assigned."""
        for update in state.updates:
            buffer, array = update.buffers[0], update.arrays[0]
            self._arrays[id(buffer)] = buffer, buffer._array
            self._bases[id(buffer)] = update
            buffer._array = array
        for names, name, before, value in state.places:
            self._places[id(names), name] = names, name, before
            names[name] = value
        for changed, now in state.arrays:
            self._arrays[id(changed)] = changed, changed._array
            changed._array = now

    def state(self) -> State:
        """Return what a part of the pass that is computed again has to begin with."""
        places = [(names, name, old, names.get(name)) for names, name, old in self._places.values()]
        arrays = [(buffer, buffer._array) for buffer, _ in self._arrays.values()]
        return State((), places, arrays)

    def _values(self) -> list[tuple[Tensor, Tensor]]:
        """The buffers, each with a tensor that has its new value."""
        found: dict[int, tuple[Tensor, Tensor]] = {}
        for names, name, buffer in self._places.values():
            value = names.get(name)
            if value is not buffer and fits(value, buffer):
                found[id(buffer)] = buffer, value
        for number in self._written:
            buffer = self._arrays[number][0]
            found.setdefault(number, (buffer, buffer))
        return list(found.values())

    def propose(self, result: object) -> list[Assigned]:
        """Have the buffers get their new values when a step counts that goes back to `result`."""
        values = self._values()
        if not values:
            return []
        if not is_recording():
            for buffer, _ in values:
                warn_once(
                    self._labels[id(buffer)],
                    "is a buffer that a pass without a graph assigns while it trains: no step "
                    "counts, and it is put back; call eval() for passes that belong to no step",
                )
            return []
        behind, found = _recorded_in(result), []
        for buffer, value in values:
            base = self._bases.get(id(buffer))
            update = Assigned(buffer, _copied(value), self._labels[id(buffer)], base)
            propose(update, buffer if behind is None else behind)
            found.append(update)
        return found

    def put_back(self) -> None:
        """Let modules hold their buffers, and buffers what they held, before the pass."""
        for names, name, buffer in self._places.values():
            if fits(names.get(name), buffer):
                names[name] = buffer
        for buffer, array in self._arrays.values():
            buffer._array = array
        self._places, self._arrays, self._written = {}, {}, set()


class State:
    """What a pass, or a part of one, begins with besides the buffers themselves."""

    def __init__(
        self,
        updates: Sequence[Assigned] = (),
        places: Sequence[tuple[dict[str, Any], str, Tensor, Any]] = (),
        arrays: Sequence[tuple[Tensor, Array]] = (),
    ) -> None:
        self.updates, self.places, self.arrays = updates, places, arrays


def running_pass() -> Pass | None:
    """Return the pass that this thread is in, if any."""
    return _current.running


def within_pass(act: Callable[[], R]) -> R:
    """Return what `act` returns, a loss: all that it calls is one pass."""
    return _run(Pass(), act, Pass.propose)


def as_pass(root: Root, act: Callable[[], R]) -> R:
    """Return what `act` returns, the call of a module outside others.

    Where nobody has said what else belongs to the pass, it is one by itself, which begins with what
    those before have assigned that belong to the same step.
    """
    running = _current.running
    if running is not None:
        running.enter(root)
        try:
            return act()
        finally:
            running.root = None  # if not, as the pass has ended, nobody asks
    running = Pass()
    running.show(_pending())
    running.enter(root)
    return _run(running, act, _propose_pending)


def again(state: State, act: Callable[[], R]) -> R:
    """Return what `act` returns, a part of a pass that is computed again: it assigns nothing."""
    running = Pass()
    running.show(state)
    return _run(running, act, lambda running, result: None)


def state_now() -> State:
    """Return what `again` has to begin with to do what is done from here on."""
    running = _current.running
    return _pending() if running is None else running.state()


def _run(running: Pass, act: Callable[[], R], end: Callable[[Pass, R], object]) -> R:
    outer = _current.running

    def whole() -> R:
        _current.running = running
        result = act()
        end(running, result)
        return result

    def leave() -> None:
        running.put_back()
        _current.running = outer

    return put_back_after(whole, leave)


def _propose_pending(running: Pass, result: object) -> None:
    hold(running.propose(result))


def hold(updates: Iterable[BufferUpdate]) -> None:
    """Have the passes to come begin with what these have assigned: they belong to one step."""
    for update in updates:
        if isinstance(update, Assigned):
            _current.pending[id(update.buffers[0])] = weakref.ref(update)


def _pending() -> State:
    return State([found for one in _current.pending.values() if (found := one()) is not None])


def take_in(updates: Sequence[BufferUpdate]) -> None:
    """Hear which updates a backward has found: what passes assign from now on is of another step.

    Warns of a buffer that was assigned by a pass whose value another one overwrites unseen.
    """
    _current.pending.clear()
    last: dict[int, Assigned] = {}
    for update in updates:
        if not isinstance(update, Assigned):
            continue
        before = last.get(id(update.buffers[0]))
        last[id(update.buffers[0])] = update
        if update.base is not before and not (update.base is not None and update.base.is_kept):
            warn_once(
                update.label,
                "was assigned by several passes that do not all belong to this loss, or did not "
                "see each other's values: it gets the last value. Trainer.train_step and "
                "fit(accumulate=) know which passes belong to a step",
            )


class WrittenAhead:
    """Buffers that have, between the passes of one step, what the passes so far have assigned."""

    def __init__(self) -> None:
        self._before: dict[int, tuple[Tensor, Array]] = {}

    def write(self, updates: Iterable[BufferUpdate]) -> None:
        """Write what a pass has assigned, for the next pass to begin with."""
        for update in updates:
            if isinstance(update, Assigned):
                (buffer,) = update.buffers
                if id(buffer) not in self._before:
                    self._before[id(buffer)] = buffer, _copied(buffer)
                _write(buffer, update.arrays[0])

    def put_back(self) -> None:
        """Write what the buffers held before: it is the step that counts."""
        for buffer, array in self._before.values():
            _write(buffer, array)


def fits(value: object, buffer: Tensor) -> TypeGuard[Tensor]:
    """Whether a value can be written into a buffer."""
    return (
        type(value) is Tensor
        and value.shape == buffer.shape
        and value.dtype == buffer.dtype
        and value._backend is buffer._backend
    )


def warn_once(label: str, why: str) -> None:
    """Warn of an attribute, the first time."""
    if label not in _told:
        _told.add(label)
        warn_user(f"{label} {why}", SideEffectWarning)


def _write(buffer: Tensor, value: Array) -> None:
    buffer._backend.copy(value, buffer._array)
    buffer._version.written()


def _copied(tensor: Tensor) -> Array:
    array = tensor._backend.allocate(tensor.shape, tensor.dtype)
    tensor._backend.copy(tensor._array, array)
    return array


def _recorded_in(result: object) -> Tensor | None:
    """The first tensor with a graph in what a module returns."""
    if isinstance(result, Tensor):
        return result if result._node is not None else None
    if isinstance(result, dict):
        result = list(result.values())
    if isinstance(result, (list, tuple)):
        return next((found for one in result if (found := _recorded_in(one)) is not None), None)
    return None
