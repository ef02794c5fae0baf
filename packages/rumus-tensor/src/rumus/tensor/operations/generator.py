"""`Generator`: random numbers that are a function of (seed, stream, position) and nothing else."""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.backends.default_backend import cpu
from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.dtype import DType, float32, int32
from rumus.tensor.expression.expr import Expr
from rumus.tensor.expression.kernel import Kernel
from rumus.tensor.expression.lengths import lengths_of
from rumus.tensor.expression.real_number import real_number
from rumus.tensor.expression.whole_number import whole_number
from rumus.tensor.graph.operators import run
from rumus.tensor.graph.other_names import GENERATOR
from rumus.tensor.graph.tensor import Tensor
from rumus.tensor.memory.backend import Array, Backend
from rumus.tensor.memory.philox import philox_words
from rumus.tensor.memory.recording import depends_on, fed, live, refuse
from rumus.tensor.memory.uninterrupted import Uninterrupted, displaced
from rumus.tensor.memory.updater import Outcome

Place: TypeAlias = tuple[int, int, int]  # seed, stream, position

_set = (
    object.__setattr__
)  # past the check of assigned attributes, which would cost more than a draw
_KEEP = Kernel("keep", {"keep": Expr.scalar("threshold") <= Expr.array("word")})
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


@GENERATOR.of_instances
class Generator:
    """Philox4x32-10 with an explicit position: the same numbers on every backend.

    seed: 0 <= seed < 2**32.
    stream: 0 <= stream < 2**32; streams of one seed are independent.

    ValueError for a number outside. There is no global generator: `rumus.tensor.seed` sets the seed
    of new ones.

    >>> from rumus.tensor import Generator
    >>> Generator(0).uniform((2,)).tolist() == Generator(0).uniform((2,)).tolist()
    True
    """

    def __init__(self, seed: int, stream: int = 0) -> None:
        seed, stream = whole_number("seed", seed), whole_number("stream", stream)
        for name, value in (("seed", seed), ("stream", stream)):
            if not 0 <= value < 2**32:
                raise ValueError(f"{name} must be in [0, 2**32), not {value}")
        self.seed = seed
        self.stream = stream
        self._position = 0
        self.undecided = Undecided(self)

    def __repr__(self) -> str:
        return f"Generator(seed={self.seed}, stream={self.stream}, position={self._position})"

    def __getstate__(self) -> dict[str, int]:
        return self.state()

    def __setstate__(self, state: dict[str, int]) -> None:
        self.__init__(state["seed"], state["stream"])  # type: ignore[misc]
        self._position = state["position"]

    @property
    def position(self) -> int:
        """The number of words drawn, in whole blocks of four, by steps that count.

        If a device decides whether steps count, this waits for it.
        """
        self.undecided.hear(wait=True)
        return self._position

    @position.setter
    def position(self, value: int) -> None:
        self.undecided.hear(wait=True)
        self._position = value

    @property
    def key(self) -> int:
        """The 64-bit key of the counter function."""
        return self.stream << 32 | self.seed

    def state(self) -> dict[str, int]:
        """Return a state for `restore` to continue from here."""
        return {"seed": self.seed, "stream": self.stream, "position": self.position}

    def restore(self, state: dict[str, int]) -> None:
        """Continue from a state. KeyError or ValueError, with nothing changed, for a bad one.

        state: what `state` returned.
        """
        fresh = Generator(state["seed"], state["stream"])
        if state["position"] < 0 or state["position"] % 4:
            raise ValueError(f"position must be a multiple of 4, not {state['position']}")
        self.undecided.hear(wait=True)
        self.seed, self.stream, self._position = fresh.seed, fresh.stream, state["position"]

    @property
    def place(self) -> Place:
        """Seed, stream and position as the running step sees them, without waiting for a device."""
        return self.seed, self.stream, self._position

    @place.setter
    def place(self, place: Place) -> None:
        seed, stream, position = place
        if (seed, stream) != (self.seed, self.stream):
            self.seed, self.stream = seed, stream
        vars(self)["_position"] = position

    def skip(self, words: int) -> None:
        """Skip words, in whole blocks of four, as if they had been drawn.

        words: the number of 32-bit words to skip.

        >>> from rumus.tensor import Generator
        >>> generator = Generator(0)
        >>> generator.skip(5)
        >>> generator.position
        8
        """
        self._advance(words)

    def _advance(self, words: int) -> int:
        """Reserve words, in whole blocks of four; return the index of the first."""
        for draws in _watching.all:
            draws.note(self)
        first = self._position
        vars(self)["_position"] = first + -(-words // 4) * 4  # 0.1 us sooner than self._position
        return first

    def _host_words(self, count: int) -> NDArray[np.uint32]:
        self.undecided.hear_on_host()
        return philox_words(self.key, self._advance(count), count)

    @checked_arguments
    def words(self, shape: int | Sequence[int], *, backend: Backend | None = None) -> Tensor:
        """Return int32 words, every bit pattern equally likely.

        shape: a number or a sequence of numbers.
        backend: where the elements lie, by default the CPU.
        """
        backend = cpu() if backend is None else backend
        lengths = lengths_of("Generator.words", shape)
        out, count = backend.allocate(lengths, int32), math.prod(lengths)
        behind = self.undecided.behind(backend)
        live(lambda: backend.random_words(self.key, self._advance(count), out, behind))
        return Tensor(out, backend)

    @checked_arguments
    def keep(
        self, probability: float, shape: int | Sequence[int], *, backend: Backend | None = None
    ) -> Tensor:
        """Return a bool mask, True with this probability, equal on every backend.

        probability: in [0, 1]; ValueError outside.
        shape: a number or a sequence of numbers.
        backend: where the elements lie, by default the CPU.
        """
        if not 0 <= real_number("Generator.keep: probability", probability) <= 1:
            raise ValueError(f"probability must be in [0, 1], not {probability}")
        words = self.words(shape, backend=backend)
        threshold = round((1 - probability) * 2**32) - 2**31
        if threshold == 2**31:
            return words < words  # no int32 is above the largest word
        return run(_KEEP, [words], {"threshold": threshold})

    @checked_arguments
    def uniform(
        self,
        shape: int | Sequence[int],
        low: float = 0.0,
        high: float = 1.0,
        *,
        backend: Backend | None = None,
    ) -> Tensor:
        """Return float32 numbers in [low, high), with 24 random bits each.

        shape: a number or a sequence of numbers.
        low: the smallest possible number, finite.
        high: above all numbers, finite.
        backend: where the elements lie, by default the CPU.
        """
        lengths = lengths_of("Generator.uniform", shape)
        for name, value in (("low", low), ("high", high)):
            _check_finite(f"Generator.uniform: {name}", value)
        below = np.nextafter(np.float32(high), np.float32(low))  # float32 may round up to `high`

        def draw() -> NDArray[Any]:
            values = low + (high - low) * self._unit(math.prod(lengths))
            return np.minimum(values.astype(np.float32), below)

        return _on(backend, lengths, float32, draw)

    def _unit(self, count: int) -> NDArray[Any]:
        """float64 numbers k / 2**24 in [0, 1)."""
        return (self._host_words(count) >> np.uint32(8)) * 2.0**-24

    @checked_arguments
    def normal(
        self,
        shape: int | Sequence[int],
        mean: float = 0.0,
        std: float = 1.0,
        *,
        backend: Backend | None = None,
    ) -> Tensor:
        """Return float32 normal numbers.

        They are made by the Box-Muller transform (1958) in float64 on the host and uploaded:
        logarithms and cosines differ between devices, weights should not.

        shape: a number or a sequence of numbers.
        mean: finite.
        std: finite, at least 0.
        backend: where the elements lie, by default the CPU.
        """
        lengths = lengths_of("Generator.normal", shape)
        for name, value in (("mean", mean), ("std", std)):
            _check_finite(f"Generator.normal: {name}", value)
        if std < 0:
            raise ValueError(f"Generator.normal: std must be at least 0, not {std}")
        count = math.prod(lengths)
        return _on(backend, lengths, float32, lambda: mean + std * self._normal(count))

    def _normal(self, count: int) -> NDArray[Any]:
        pairs = -(-count // 2)
        words = self._host_words(2 * pairs).astype(np.float64)
        radius = np.sqrt(-2 * np.log((words[:pairs] + 1) * 2.0**-32))
        angle = 2 * np.pi * 2.0**-32 * words[pairs:]
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]

    @checked_arguments
    def truncated_normal(
        self,
        shape: int | Sequence[int],
        mean: float = 0.0,
        std: float = 1.0,
        low: float = -2.0,
        high: float = 2.0,
        *,
        backend: Backend | None = None,
    ) -> Tensor:
        """Return float32 normal numbers, redrawn until they are in [low, high].

        shape: a number or a sequence of numbers.
        mean: of the distribution before truncation.
        std: of the distribution before truncation.
        low: the smallest number.
        high: the largest number.
        backend: where the elements lie, by default the CPU.

        ValueError if the interval has less than a thousandth of the probability.
        """
        lengths = lengths_of("Generator.truncated_normal", shape)
        for name, value in (("mean", mean), ("std", std)):
            _check_finite(f"Generator.truncated_normal: {name}", value)
        for name, value in (("low", low), ("high", high)):
            if math.isnan(real_number(f"Generator.truncated_normal: {name}", value)):
                raise ValueError(f"Generator.truncated_normal: {name} is NaN")
        scale = std * math.sqrt(2)
        if std <= 0 or math.erf((high - mean) / scale) - math.erf((low - mean) / scale) < 2e-3:
            raise ValueError(
                f"[{low}, {high}] has almost no probability for mean {mean}, std {std}"
            )

        def draw() -> NDArray[Any]:
            values = mean + std * self._normal(math.prod(lengths))
            while (outside := (values < low) | (values > high)).any():
                values[outside] = mean + std * self._normal(int(outside.sum()))
            return values

        return _on(backend, lengths, float32, draw)

    @checked_arguments
    def integers(
        self, low: int, high: int, shape: int | Sequence[int], *, backend: Backend | None = None
    ) -> Tensor:
        """Return int32 numbers in [low, high). ValueError for an empty interval.

        A number is the high half of a word times the length of the interval, so no value is more
        likely than another by more than one part in 2**32 / (high - low).

        low: the smallest integer.
        high: above all integers.
        shape: a number or a sequence of numbers.
        backend: where the elements lie, by default the CPU.
        """
        lengths = lengths_of("Generator.integers", shape)
        low, high = (
            whole_number(f"Generator.integers: {name}", value)
            for name, value in (("low", low), ("high", high))
        )
        if not -(2**31) <= low < high <= 2**31:
            raise ValueError(f"expected an interval of int32 numbers, got [{low}, {high})")

        def draw() -> NDArray[Any]:
            words = self._host_words(math.prod(lengths)).astype(np.uint64)
            return (words * np.uint64(high - low) >> np.uint64(32)).astype(np.int64) + low

        return _on(backend, lengths, int32, draw, (low, high - 1))

    @checked_arguments
    def permutation(self, count: int) -> NDArray[np.int64]:
        """Return the numbers below `count` in random order, every order equally likely.

        It sorts 64-bit random keys; equal ones, 1 in 2**64, keep their order.

        count: at least 0.

        ValueError for a negative count; CaptureError in a training step that a GPU records, since
        the numbers could not be redrawn.
        """
        refuse(
            "a permutation is drawn on the host, so every repetition would use the same one; "
            "draw it before the step and pass it in the batch"
        )
        if whole_number("Generator.permutation: count", count) < 0:
            raise ValueError(f"Generator.permutation: count must be at least 0, not {count}")
        words = self._host_words(2 * count).astype(np.uint64)
        keys = words[0::2] << np.uint64(32) | words[1::2]
        return np.argsort(keys, kind="stable")


class Draws:
    """Records which generators draw in a block, and their positions before.

    >>> generator, draws = Generator(0), Draws()
    >>> with draws.watched():
    ...     first = generator.words((3,)).tolist()
    >>> draws.take_back()
    >>> generator.words((3,)).tolist() == first
    True
    """

    def __init__(self) -> None:
        self.before: dict[int, tuple[Generator, Place]] = {}

    @property
    def generators(self) -> list[Generator]:
        """The generators that have drawn."""
        return [generator for generator, _ in self.before.values()]

    def note(self, generator: Generator) -> None:
        """Note the position of a generator that is about to draw."""
        if id(generator) not in self.before:
            self.before[id(generator)] = generator, generator.place

    def shift(self, generator: Generator, words: int) -> None:
        """Note that earlier steps turned out not to count."""
        if id(generator) in self.before:
            seed, stream, position = self.before[id(generator)][1]
            self.before[id(generator)] = generator, (seed, stream, position - words)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Record the generators that draw on this thread."""
        with displaced(_watching, "all", (*_watching.all, self)):
            yield

    def take_back(self) -> None:
        """Restore the generators' positions."""
        for generator, place in self.before.values():
            generator.place = place

    def wait_for(
        self, outcome: Outcome, poll: Callable[[bool], None], applied: tuple[Backend, Array] | None
    ) -> None:
        """Restore them once the step that drew is known not to have been applied.

        poll: fills in the outcome, waiting if asked to; held weakly. applied: for training that
            continues after a refused step: the backend that decides, and its decision, 0 if the
            step was not applied. Its next draws are as if the positions had already been restored.
        """
        for generator, (_, _, position) in self.before.values():
            words = generator._position - position
            generator.undecided.add(outcome, words, weakref.WeakMethod(poll), applied)


@dataclass(slots=True)
class _Drawn:
    """The draws of one step whose outcome is not yet known."""

    outcome: Outcome
    words: int
    poll: weakref.WeakMethod[Callable[[bool], None]]
    is_held: bool  # the device has rewound its draws if the step did not count


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

    def __init__(self, generator: Generator) -> None:
        self._generator = weakref.ref(generator)
        self._steps: deque[_Drawn] = deque()
        self._blocks = 0  # that the device may lag behind
        self._held: _Held | None = None
        self.is_drawn_by_host = False

    def add(
        self,
        outcome: Outcome,
        words: int,
        poll: weakref.WeakMethod[Callable[[bool], None]],
        applied: tuple[Backend, Array] | None,
    ) -> None:
        """Note the draws of the step submitted last."""
        if applied is not None:
            self._hold(words // 4, *applied)
        self._steps.append(_Drawn(outcome, words, poll, applied is not None))

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
        depends_on(self, "_held")
        if self._held is not None and self._held.backend is backend:
            return self._held.behind
        if not backend.runs_ahead:
            self.hear_on_host()
        return None

    def hear_on_host(self) -> None:
        """Wait for all decisions, because the host is about to draw, perhaps in each step."""
        self.is_drawn_by_host = self.is_drawn_by_host or bool(_watching.all)
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

    def _put_back(self, words: int) -> None:
        if (generator := self._generator()) is not None:
            generator._position -= words
            for draws in _watching.all:
                draws.shift(generator, words)

    def _settle(self, step: _Drawn) -> None:
        """Take over the outcome of a step."""
        is_refused = step.outcome.applied is False
        if is_refused:
            self._put_back(step.words)
        if step.is_held and self._held is not None:
            self._blocks -= step.words // 4
            if is_refused:
                self._held.let_go(step.words // 4)


class _Watching(threading.local):
    all: tuple[Draws, ...] = ()


_watching = _Watching()


def _check_finite(name: str, value: float) -> None:
    if not math.isfinite(real_number(name, value)):
        raise ValueError(f"{name} must be finite, not {value}")


def _on(
    backend: Backend | None,
    shape: Sequence[int],
    dtype: DType,
    draw: Callable[[], NDArray[Any]],
    bounds: tuple[int, int] | None = None,
) -> Tensor:
    """A tensor of what `draw` returns, redrawn in each replay of a captured step."""
    backend = cpu() if backend is None else backend

    def make() -> NDArray[Any]:
        return draw().reshape(tuple(shape)).astype(dtype, copy=False)

    return Tensor(fed(backend, make, bounds), backend)
