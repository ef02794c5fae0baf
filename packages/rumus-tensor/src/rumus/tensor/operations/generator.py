"""`Generator`: random numbers that are a function of (seed, stream, position) and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.backends.default_backend import cpu
from rumus.tensor.expression.arguments import checked_arguments, checked_first
from rumus.tensor.expression.dtype import DType, float32, int32
from rumus.tensor.expression.expr import Expr
from rumus.tensor.expression.kernel import Kernel
from rumus.tensor.expression.lengths import lengths_of
from rumus.tensor.expression.real_number import real_number
from rumus.tensor.expression.state_names import check_names
from rumus.tensor.expression.whole_number import whole_number
from rumus.tensor.graph.operators import run
from rumus.tensor.graph.other_names import DRAW, GENERATOR
from rumus.tensor.graph.tensor import Tensor
from rumus.tensor.memory.backend import Backend
from rumus.tensor.memory.philox import philox_words
from rumus.tensor.memory.recording import fed, live, refuse
from rumus.tensor.operations.draws import Place, Undecided, watching

_KEEP = Kernel("keep", {"keep": Expr.scalar("threshold") <= Expr.array("word")})


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

    _rereads: ClassVar = frozenset({"position"})

    def __init__(self, seed: int, stream: int = 0) -> None:
        seed, stream = whole_number("seed", seed), whole_number("stream", stream)
        for name, value in (("seed", seed), ("stream", stream)):
            if not 0 <= value < 2**32:
                raise ValueError(f"{name} must be in [0, 2**32), not {value}")
        self.seed = seed
        self.stream = stream
        self._begin_at(lambda: (seed, stream, 0))

    def _begin_at(self, place: Callable[[], Place]) -> None:
        """Begin at a place, as what the code of a step makes does in a replay of it."""
        self._position = 0
        self.undecided = Undecided(self)

        def begin() -> None:
            self.undecided.forget()  # that was another object
            for draws in watching.all:
                draws.placed.add(id(self))
                draws.made.add(id(self))
            self.place = place()

        live(begin)

    def __repr__(self) -> str:
        return f"Generator(seed={self.seed}, stream={self.stream}, position={self._position})"

    def __getstate__(self) -> dict[str, int]:
        return self.state()

    def __setstate__(self, state: dict[str, int]) -> None:
        self.seed, self.stream, position = (state[n] for n in ("seed", "stream", "position"))
        self._begin_at(lambda: (self.seed, self.stream, position))

    @property
    def position(self) -> int:
        """The number of words drawn, in whole blocks of four, by steps that count.

        It can be set; ValueError for none that draws lead to. If a device decides whether steps
        count, this waits for it.
        """
        self.undecided.hear(wait=True)
        return self._position

    @position.setter
    def position(self, value: int) -> None:
        position = _in_blocks(value)
        self.undecided.hear_on_host()
        self._go_to(lambda: (self.seed, self.stream, position))

    def _go_to(self, place: Callable[[], Place]) -> None:
        """Go to a place, as a replay of the step that does so does again."""

        def go() -> None:
            for draws in watching.all:
                draws.note(self)
                draws.placed.add(id(self))
            self.place = place()

        live(go)

    @property
    def key(self) -> int:
        """The 64-bit key of the counter function."""
        return self.stream << 32 | self.seed

    def state(self) -> dict[str, int]:
        """Return a state for `restore` to continue from here."""
        return {"seed": self.seed, "stream": self.stream, "position": self.position}

    @checked_first
    def restore(self, state: dict[str, int]) -> None:
        """Continue from a state. ValueError, with nothing changed, for a bad one.

        state: what `state` returned.
        """
        check_names(self, state, ("seed", "stream", "position"), saved_by="state")
        fresh, position = Generator(state["seed"], state["stream"]), _in_blocks(state["position"])
        self.undecided.hear_on_host()
        self._go_to(lambda: (fresh.seed, fresh.stream, position))

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

    @checked_arguments
    def skip(self, words: int) -> None:
        """Skip words, in whole blocks of four, as if they had been drawn.

        words: the number of 32-bit words to skip.

        >>> from rumus.tensor import Generator
        >>> generator = Generator(0)
        >>> generator.skip(5)
        >>> generator.position
        8
        """

        def advance() -> None:
            self._advance(words)

        live(advance)

    def _advance(self, words: int) -> int:
        """Reserve words, in whole blocks of four; return the index of the first."""
        for draws in watching.all:
            draws.note(self)
        first = self._position
        vars(self)["_position"] = first + -(-words // 4) * 4  # 0.1 us sooner than self._position
        return first

    def _host_words(self, count: int) -> NDArray[np.uint32]:
        self.undecided.hear_on_host()
        return philox_words(self.key, self._advance(count), count)

    @DRAW.as_keywords
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

    @DRAW.as_keywords
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

    @DRAW.as_keywords
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

        ValueError if float32 has no number between them.
        """
        _check_one_shape("uniform", shape, low)
        lengths = lengths_of("Generator.uniform", shape)
        for name, value in (("low", low), ("high", high)):
            _check_finite(f"Generator.uniform: {name}", value)
        if low > high:
            raise ValueError(f"Generator.uniform: low must be at most high, not {low} and {high}")
        first = np.float32(low)
        if float(first) < low:  # the next one is the first in the interval
            first = np.nextafter(first, np.float32(np.inf))
        if low < high <= float(first):
            raise ValueError(f"Generator.uniform: float32 has no number in [{low}, {high})")
        below = np.nextafter(np.float32(high), np.float32(low))  # float32 may round up to `high`

        def draw() -> NDArray[Any]:
            values = low + (high - low) * self._unit(math.prod(lengths))
            return np.minimum(values.astype(np.float32), below)

        return _on(backend, lengths, float32, draw)

    def _unit(self, count: int) -> NDArray[Any]:
        """float64 numbers k / 2**24 in [0, 1)."""
        return (self._host_words(count) >> np.uint32(8)) * 2.0**-24

    @DRAW.as_keywords
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
        _check_one_shape("normal", shape, mean)
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

    @DRAW.as_keywords
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

    @DRAW.as_keywords
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
        if not 0 <= whole_number("Generator.permutation: count", count) < 2**32:
            end = "at least 0" if count < 0 else "below 2**32"
            raise ValueError(f"Generator.permutation: count must be {end}, not {count}")
        words = self._host_words(2 * count).astype(np.uint64)
        keys = words[0::2] << np.uint64(32) | words[1::2]
        return np.argsort(keys, kind="stable")


def _in_blocks(position: int) -> int:
    """A position that draws lead to. ValueError for another."""
    position = whole_number("position", position)
    if position < 0 or position % 4:
        raise ValueError(f"position must be a multiple of 4, not {position}")
    return position


def _check_one_shape(name: str, shape: object, second: object) -> None:
    """Raise TypeError for lengths that are given one by one, of which all but one were a mean."""
    is_whole = all(isinstance(each, int) and not isinstance(each, bool) for each in (shape, second))
    if is_whole and second:
        raise TypeError(
            f"Generator.{name} takes the shape as one tuple: {name}(({shape}, {second})); "
            f"if {second} is no length, write {second}.0"
        )


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
