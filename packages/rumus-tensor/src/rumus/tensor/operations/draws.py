"""`Draws`: the random numbers of a step that may not count, and how they are undone."""

from __future__ import annotations

import random
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from rumus.tensor.expression.expr import Expr
from rumus.tensor.expression.kernel import Kernel
from rumus.tensor.memory.backend import Array, Backend
from rumus.tensor.memory.recording import depends_on
from rumus.tensor.memory.uninterrupted import Uninterrupted, displacing
from rumus.tensor.memory.updater import Outcome

if TYPE_CHECKING:
    from rumus.tensor.operations.generator import Generator

Place: TypeAlias = tuple[int, int, int]  # seed, stream, position

_HALF = 2**16  # kernels compute in float32, so a number of blocks is stored as two 16-bit halves
_MOST = 128  # steps that a device may be ahead: their sums stay exact
_BEHIND, _IS_HIGH = Expr.array("behind"), Expr.array("is_high") > 0.5
_BLOCKS = _IS_HIGH.where(Expr.scalar("high"), Expr.scalar("low"))
_IS_APPLIED = Expr.array("applied") > 0.5
_HOLD = Kernel(
    "hold_draws",
    {"behind": _IS_APPLIED.where(_BEHIND, _BEHIND + _BLOCKS)},
    ("behind", "is_high", "applied"),
)
_LET_GO = Kernel("let_draws_go", {"behind": _BEHIND - _BLOCKS}, ("behind", "is_high"))


class Moved(Protocol):
    """What a step moves, and puts back if it does not count.

    A generator, or the number of streams that `next_generator` has handed out.
    """

    undecided: Undecided
    _position: int

    @property
    def place(self) -> Place:
        """Where it is as the running step sees it."""
        ...

    @place.setter
    def place(self, place: Place) -> None: ...


class Draws:
    """Records what draws in a block, and the positions before.

    placed: the ids of those whose draws the block began elsewhere, such as at a saved state.
    made: the ids of the generators made in the block. Nothing here keeps these alive: streams of
        those that the program does not keep can be handed out again.
    kept: what has drawn and existed before.

    >>> from rumus.tensor import Generator
    >>> generator, draws = Generator(0), Draws()
    >>> with draws.watched():
    ...     first = generator.words((3,)).tolist()
    >>> draws.take_back()
    >>> generator.words((3,)).tolist() == first
    True
    """

    def __init__(self) -> None:
        self._before: dict[int, tuple[weakref.ref[Moved], Place]] = {}
        self._is_lost = False
        self.kept: list[Moved] = []
        self.placed: set[int] = set()
        self.made: set[int] = set()

    @property
    def before(self) -> list[tuple[Moved, Place]]:
        """Everything that has moved and still exists, and where it was."""
        pairs = [(moved(), place) for moved, place in self._before.values()]
        return [(moved, place) for moved, place in pairs if moved is not None]

    @property
    def is_lost(self) -> bool:
        """Whether a generator has drawn that no longer exists."""
        return self._is_lost or any(moved() is None for moved, _ in self._before.values())

    @property
    def generators(self) -> list[Generator]:
        """The generators among it."""
        from rumus.tensor.operations.generator import Generator

        return [moved for moved, _ in self.before if isinstance(moved, Generator)]

    def note(self, moved: Moved) -> None:
        """Note the position of what is about to move."""
        known = self._before.get(id(moved))
        if known is not None and known[0]() is moved:
            return
        self._is_lost = self._is_lost or known is not None
        self._before[id(moved)] = weakref.ref(moved), moved.place
        if id(moved) not in self.made:
            self.kept.append(moved)

    def shift(self, moved: Moved, words: int) -> None:
        """Note that earlier steps turned out not to count."""
        known = self._before.get(id(moved))
        if known is not None and known[0]() is moved:
            seed, stream, position = known[1]
            self._before[id(moved)] = known[0], (seed, stream, position - words)

    def watching(self, given: Any = None) -> Iterator[Any]:
        """Record the generators that draw on this thread until the iterator goes on.

        given: what it yields; see `displacing`.
        """
        return displacing(watching, "all", (*watching.all, self), given)

    watched = contextmanager(watching)

    def take_back(self) -> None:
        """Restore the generators' positions."""
        for moved, place in self.before:
            moved.place = place

    def wait_for(
        self, outcome: Outcome, poll: Callable[[bool], None], applied: tuple[Backend, Array] | None
    ) -> None:
        """Restore them once the step that drew is known not to have been applied.

        poll: fills in the outcome, waiting if asked to; held weakly. applied: for training that
            continues after a refused step: the backend that decides, and its decision, 0 if the
            step was not applied. Its next draws are as if the positions had already been restored.
        """
        for moved, before in self.before:
            is_placed = id(moved) in self.placed
            moved.undecided.add(outcome, before, weakref.WeakMethod(poll), applied, is_placed)


@dataclass(slots=True)
class _Drawn:
    """The draws of one step whose outcome is not yet known."""

    outcome: Outcome
    words: int
    stream: tuple[int, int] | None  # the seed and the stream before, if the step has set them
    poll: weakref.WeakMethod[Callable[[bool], None]]
    is_held: bool  # the device has rewound its draws if the step did not count
    is_awaited: bool  # the next draws need to know


@dataclass(frozen=True, slots=True)
class _Held:
    """How far a device's draws lag behind: the low and the high half of a number of blocks."""

    backend: Backend
    behind: Array
    is_high: Array

    @classmethod
    def on(cls, backend: Backend) -> _Held:
        """Start at zero."""
        upload = backend.upload
        return cls(backend, upload(np.zeros(2, np.int32)), upload(np.arange(2, dtype=np.int32)))

    def hold(self, blocks: int, applied: Array) -> None:
        """Add blocks if the last decided step is not applied."""
        self._run(_HOLD, blocks, self.behind, self.is_high, applied)

    def blocks(self) -> int:
        """Return its value, read from the device."""
        low, high = self.backend.download(self.behind).tolist()
        return int(low) + _HALF * int(high)

    def let_go(self, blocks: int) -> None:
        """Subtract blocks that the host has also subtracted."""
        self._run(_LET_GO, blocks, self.behind, self.is_high)

    def _run(self, kernel: Kernel, blocks: int, *arrays: Array) -> None:
        numbers = kernel.bind({"low": blocks % _HALF, "high": blocks // _HALF})
        self.backend.elementwise(kernel, arrays, numbers, (self.behind,))


class Undecided:
    """The draws of a generator in steps that a device applies or refuses on its own.

    The device stores by how many four-word blocks its draws lag behind the host's position: those
    of refused steps that the host does not know of yet. When the host learns of them, it rewinds
    its position and tells the device.
    """

    def __init__(self, generator: Moved) -> None:
        self._generator = weakref.ref(generator)
        self._steps: deque[_Drawn] = deque()
        self._blocks = 0  # that the device may lag behind
        self._held: _Held | None = None
        self.is_drawn_by_host = False

    def add(
        self,
        outcome: Outcome,
        before: Place,
        poll: weakref.WeakMethod[Callable[[bool], None]],
        applied: tuple[Backend, Array] | None,
        is_placed: bool,
    ) -> None:
        """Note the draws of the step submitted last; a device rewinds none that it placed."""
        if (generator := self._generator()) is None:
            return
        seed, stream, position = generator.place
        words, is_held = position - before[2], applied is not None and not is_placed
        changed = None if before[:2] == (seed, stream) else before[:2]
        if applied is not None and is_held:
            self._hold(words // 4, *applied)
        is_awaited = applied is not None and is_placed
        self._steps.append(_Drawn(outcome, words, changed, poll, is_held, is_awaited))

    def forget(self) -> None:
        """Begin elsewhere, wherever the steps before have led."""
        self._steps.clear()
        self._held, self._blocks = None, 0

    def _hold(self, blocks: int, backend: Backend, applied: Array) -> None:
        is_full = self._blocks + blocks >= 2**31 or len(self._steps) >= _MOST
        if is_full or (self._held is not None and self._held.backend is not backend):
            self.hear(wait=True)
        if self._held is None or self._held.backend is not backend:
            self._held = _Held.on(backend)
        self._blocks += blocks
        self._held.hold(blocks, applied)

    def behind(self, backend: Backend) -> Array | None:
        """Return a backend's lag, as `Backend.random_words` takes it."""
        if any(id(self._generator()) in draws.placed for draws in watching.all):
            return None
        if any(step.is_awaited for step in self._steps):
            self.hear(wait=True)
        depends_on(self, "_held")
        if self._held is not None and self._held.backend is backend:
            return self._held.behind
        if not backend.runs_ahead:
            self.hear_on_host()
        return None

    def hear_on_host(self) -> None:
        """Wait for all decisions, because the host is about to draw, perhaps in each step."""
        self.is_drawn_by_host = self.is_drawn_by_host or bool(watching.all)
        self.hear(wait=True)

    def hear(self, wait: bool = False) -> None:
        """Rewind the generator for steps known not to count; with `wait`, wait for all outcomes.

        Raises the optimizer's error about a refused step.
        """
        while self._steps:
            first = self._steps[0]
            if first.outcome.applied is None:
                if not wait:
                    return
                if (poll := first.poll()) is not None:
                    poll(True)
                elif first.is_held:
                    self._ask_device()
                    continue
            with Uninterrupted():
                if self._steps and self._steps[0] is first:
                    self._steps.popleft()
                    self._settle(first)

    def _ask_device(self) -> None:
        """Take over the device's value for all steps: an optimizer is gone and reports nothing."""
        assert self._held is not None
        blocks = self._held.blocks()
        with Uninterrupted():
            self._held.backend.fill(0, self._held.behind)
            self._blocks = 0
            self._steps = deque(step for step in self._steps if not step.is_held)
            self._put_back(4 * blocks)

    def _put_back(self, words: int, stream: tuple[int, int] | None = None) -> None:
        if (generator := self._generator()) is not None:
            seed, number, position = generator.place
            generator.place = *(stream or (seed, number)), position - words
            for draws in watching.all:
                draws.shift(generator, words)

    def _settle(self, step: _Drawn) -> None:
        """Take over the outcome of a step."""
        is_refused = step.outcome.applied is False
        if is_refused:
            self._put_back(step.words, step.stream)
        if step.is_held and self._held is not None:
            self._blocks -= step.words // 4
            if is_refused:
                self._held.let_go(step.words // 4)


def places_of_program() -> tuple[object, ...]:
    """Where the generators of `random`, `numpy.random` and PyTorch are: equal if none has drawn."""
    found: dict[str, Any] = dict(np.random.get_state(legacy=False)["state"])
    numbers = tuple(
        each.tobytes() if isinstance(each, np.ndarray) else each for each in found.values()
    )
    # By code in C: a step that is captured would follow torch's Python code.
    of_torch: Any = getattr(sys.modules.get("torch"), "default_generator", None)
    state = b"" if of_torch is None else of_torch.get_state().numpy().tobytes()
    return random.getstate(), numbers, state


class _Watching(threading.local):
    all: tuple[Draws, ...] = ()


watching = _Watching()
