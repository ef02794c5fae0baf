"""`Generator`: random numbers that are a function of (seed, stream, position) and nothing else."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.backends.default_backend import cpu
from rumus.tensor.expression.dtype import DType, float32, int32
from rumus.tensor.expression.expr import Expr
from rumus.tensor.expression.kernel import Kernel
from rumus.tensor.graph.operators import run
from rumus.tensor.graph.tensor import Tensor
from rumus.tensor.memory.backend import Backend
from rumus.tensor.memory.philox import philox_words
from rumus.tensor.memory.recording import fed, live, refuse

_KEEP = Kernel("keep", {"keep": Expr.scalar("threshold") <= Expr.array("word")})


class Generator:
    """Philox4x32-10 with an explicit position: the same numbers on every backend.

    seed: 0 <= seed < 2**32. stream: 0 <= stream < 2**32; streams of one seed are independent.
    ValueError for a number outside. There is no global generator.

    >>> Generator(0).uniform((2,)).tolist() == Generator(0).uniform((2,)).tolist()
    True
    """

    def __init__(self, seed: int, stream: int = 0) -> None:
        for name, value in (("seed", seed), ("stream", stream)):
            if not 0 <= value < 2**32:
                raise ValueError(f"{name} must be in [0, 2**32), not {value}")
        self.seed = seed
        self.stream = stream
        self.position = 0  # in words; always a multiple of 4

    def __repr__(self) -> str:
        return f"Generator(seed={self.seed}, stream={self.stream}, position={self.position})"

    @property
    def key(self) -> int:
        """The 64-bit key of the counter function."""
        return self.stream << 32 | self.seed

    def state(self) -> dict[str, int]:
        """Return what `restore` needs to go on from here."""
        return {"seed": self.seed, "stream": self.stream, "position": self.position}

    def restore(self, state: dict[str, int]) -> None:
        """Go on from a state. KeyError or ValueError, with nothing changed, for a bad one."""
        fresh = Generator(state["seed"], state["stream"])
        if state["position"] < 0 or state["position"] % 4:
            raise ValueError(f"position must be a multiple of 4, not {state['position']}")
        self.seed, self.stream, self.position = fresh.seed, fresh.stream, state["position"]

    def _advance(self, words: int) -> int:
        """Reserve words, in whole blocks of four; return the number of the first."""
        for draws in _watching.all:
            draws.note(self)
        first = self.position
        self.position += -(-words // 4) * 4
        return first

    def _host_words(self, count: int) -> NDArray[np.uint32]:
        return philox_words(self.key, self._advance(count), count)

    def words(self, shape: Sequence[int], *, backend: Backend | None = None) -> Tensor:
        """Return int32 words, every bit pattern equally likely."""
        backend = backend or cpu()
        out = backend.allocate(tuple(shape), int32)
        count = math.prod(shape)
        live(lambda: backend.random_words(self.key, self._advance(count), out))
        return Tensor(out, backend)

    def keep(
        self, probability: float, shape: Sequence[int], *, backend: Backend | None = None
    ) -> Tensor:
        """Return a bool mask, each element True with this probability, equal on every backend.

        probability: in [0, 1]; ValueError outside.
        """
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must be in [0, 1], not {probability}")
        words = self.words(shape, backend=backend)
        threshold = round((1 - probability) * 2**32) - 2**31
        if threshold == 2**31:
            return words < words  # no int32 is above the largest word
        return run(_KEEP, [words], {"threshold": threshold})

    def uniform(
        self,
        shape: Sequence[int],
        low: float = 0.0,
        high: float = 1.0,
        *,
        backend: Backend | None = None,
    ) -> Tensor:
        """Return float32 numbers of [low, high), 24 random bits each."""
        below = np.nextafter(np.float32(high), np.float32(low))  # float32 may round up to `high`

        def draw() -> NDArray[Any]:
            values = low + (high - low) * self._unit(math.prod(shape))
            return np.minimum(values.astype(np.float32), below)

        return _on(backend, shape, float32, draw)

    def _unit(self, count: int) -> NDArray[Any]:
        """float64 numbers k / 2**24 in [0, 1)."""
        return (self._host_words(count) >> np.uint32(8)) * 2.0**-24

    def normal(
        self,
        shape: Sequence[int],
        mean: float = 0.0,
        std: float = 1.0,
        *,
        backend: Backend | None = None,
    ) -> Tensor:
        """Return float32 normal numbers.

        By Box and Muller's transform (1958) in float64 on the host, and uploaded: logarithms and
        cosines differ between devices, weights should not.
        """
        count = math.prod(shape)
        return _on(backend, shape, float32, lambda: mean + std * self._normal(count))

    def _normal(self, count: int) -> NDArray[Any]:
        pairs = -(-count // 2)
        words = self._host_words(2 * pairs).astype(np.float64)
        radius = np.sqrt(-2 * np.log((words[:pairs] + 1) * 2.0**-32))
        angle = 2 * np.pi * 2.0**-32 * words[pairs:]
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]

    def truncated_normal(
        self,
        shape: Sequence[int],
        mean: float = 0.0,
        std: float = 1.0,
        low: float = -2.0,
        high: float = 2.0,
        *,
        backend: Backend | None = None,
    ) -> Tensor:
        """Return float32 normal numbers, drawn again until they lie in [low, high].

        ValueError if the interval holds less than a thousandth of the distribution.
        """
        scale = std * math.sqrt(2)
        if std <= 0 or math.erf((high - mean) / scale) - math.erf((low - mean) / scale) < 2e-3:
            raise ValueError(f"[{low}, {high}] holds next to nothing of mean {mean}, std {std}")

        def draw() -> NDArray[Any]:
            values = mean + std * self._normal(math.prod(shape))
            while (outside := (values < low) | (values > high)).any():
                values[outside] = mean + std * self._normal(int(outside.sum()))
            return values

        return _on(backend, shape, float32, draw)

    def integers(
        self, low: int, high: int, shape: Sequence[int], *, backend: Backend | None = None
    ) -> Tensor:
        """Return int32 numbers of [low, high). ValueError for an empty interval.

        A number is the high part of a word times the length of the interval, so that no value is
        more likely than another by more than one part in 2**32 / (high - low).
        """
        if not -(2**31) <= low < high <= 2**31:
            raise ValueError(f"an interval of int32 numbers is needed, not [{low}, {high})")

        def draw() -> NDArray[Any]:
            words = self._host_words(math.prod(shape)).astype(np.uint64)
            return (words * np.uint64(high - low) >> np.uint64(32)).astype(np.int64) + low

        return _on(backend, shape, int32, draw, (low, high - 1))

    def permutation(self, count: int) -> NDArray[np.int64]:
        """Return the numbers below `count` in random order, every order equally likely.

        By sorting 64-bit random keys; the order of two equal ones, 1 in 2**64, is their own.
        CaptureError in a training step that a GPU records: nothing says where the numbers go.
        """
        refuse(
            "a permutation is drawn on the host, and would be the same in each repetition; draw it "
            "before the step and pass it in the batch"
        )
        words = self._host_words(2 * count).astype(np.uint64)
        keys = words[0::2] << np.uint64(32) | words[1::2]
        return np.argsort(keys, kind="stable")


class Draws:
    """Which generators draw in a block, and where they stood before.

    >>> generator, draws = Generator(0), Draws()
    >>> with draws.watched():
    ...     first = generator.words((3,)).tolist()
    >>> draws.take_back()
    >>> generator.words((3,)).tolist() == first
    True
    """

    def __init__(self) -> None:
        self.before: dict[int, tuple[Generator, dict[str, int]]] = {}

    def note(self, generator: Generator) -> None:
        """Note where a generator stands that is about to draw."""
        if id(generator) not in self.before:
            self.before[id(generator)] = generator, generator.state()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note what draws on this thread."""
        outer = _watching.all
        try:
            _watching.all = (*outer, self)
            yield
        finally:
            _watching.all = outer

    def take_back(self) -> None:
        """Put the generators back to where they stood."""
        for generator, state in self.before.values():
            generator.restore(state)


class _Watching(threading.local):
    all: tuple[Draws, ...] = ()


_watching = _Watching()


def _on(
    backend: Backend | None,
    shape: Sequence[int],
    dtype: DType,
    draw: Callable[[], NDArray[Any]],
    bounds: tuple[int, int] | None = None,
) -> Tensor:
    """A tensor of what `draw` gives, drawn anew in each repetition of a captured step."""
    backend = backend or cpu()

    def make() -> NDArray[Any]:
        return draw().reshape(tuple(shape)).astype(dtype, copy=False)

    return Tensor(fed(backend, make, bounds), backend)
