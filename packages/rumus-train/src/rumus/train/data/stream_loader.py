"""`StreamLoader`: batches of a stream of samples, which may be infinite."""

from __future__ import annotations

import math
import sys
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice, repeat
from typing import Any, Final, TypeAlias

import numpy as np

from rumus.tensor import Backend, StateMismatchError, run_seed
from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.declared_type import shown
from rumus.tensor.expression.state_names import is_count, name_differences
from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.expression.whole_number import whole_number
from rumus.tensor.memory.uninterrupted import is_of_handler
from rumus.train.base.data_errors import SampleError
from rumus.train.base.other_names import LOADER
from rumus.train.base.random_stream import Purpose, permutation
from rumus.train.data.batcher import Batcher, Collate, Task, Transform, uploaded
from rumus.train.data.dataset import AnyBatch

_MOST_AHEAD: Final = 2**16  # batches
# Samples in order: iterated over once per epoch, or made by a function of the epoch.
Stream: TypeAlias = Iterable[Any] | Callable[[int], Iterable[Any]]


@dataclass(frozen=True, slots=True)
class _Place:
    """The place of the next sample: `offset` samples after the start of a block.

    state: the stream's at the start of the block; None if it has none, or at the start of an epoch.
        start: the index of the block's first sample in the epoch.
    """

    epoch: int = 0
    batch: int = 0
    block: int = 0
    start: int = 0
    offset: int = 0
    state: Any = None


@LOADER.of_instances
class StreamLoader:
    """Batches of a stream, whose samples have no index.

    Streams are files read sequentially, a network, a streaming dataset of Hugging Face, or an
    infinite source.

    stream: an iterable, iterated over once per epoch, or a function from the epoch to an iterable.
        An epoch must always yield the same samples; `set_epoch(epoch)` is called first, if it
        exists. With `state_dict` and `load_state_dict`, a resume continues at the stream's place:
        the next loop after `load_state_dict` begins there, and an epoch at the state of the stream
        when the loader was made. Otherwise earlier samples are read again and skipped.
    batch_size: at least 1.
    shuffle: the number of samples that are read and shuffled at a time, by (seed, epoch); 0 keeps
        the stream's order.
    seed, drop_last, transform, collate, batch_transform, backend: as in `DataLoader`; the index of
        a sample is its place in the epoch.
    prefetch: the number of batches that a thread makes ahead; it does not change a bit of any
        batch.

    Raises TypeError for an object that is not iterable, and for an iterator, which can be used only
    once; ValueError for numbers out of range. While looping, raises SampleError for a sample that
    cannot be read or does not fit.

    A loop over it yields an epoch, or the rest of one in which an earlier loop was left, which a
    UserWarning says, and never ends if the stream is infinite: `fit` then needs `steps=` or
    `seconds=`. The position counts the batches that were yielded, and `state_dict` holds it.

    >>> from itertools import count
    >>> from rumus.train import StreamLoader
    >>> loader = StreamLoader(lambda epoch: ((i,) for i in count()), 3)
    >>> batches = iter(loader)
    >>> next(batches)[0].tolist(), next(batches)[0].tolist()
    ([0, 1, 2], [3, 4, 5])
    >>> again = StreamLoader(lambda epoch: ((i,) for i in count()), 3)
    >>> again.load_state_dict(loader.state_dict())
    >>> next(iter(again))[0].tolist()
    [6, 7, 8]
    """

    @checked_arguments
    def __init__(
        self,
        stream: Stream,
        batch_size: int,
        *,
        shuffle: int = 0,
        drop_last: bool = False,
        seed: int | None = None,
        transform: Transform | None = None,
        collate: Collate | None = None,
        batch_transform: Transform | None = None,
        prefetch: int = 0,
        backend: Backend | None = None,
    ) -> None:
        _check_stream(stream)
        for name, value, least, most in (
            ("batch_size", batch_size, 1, sys.maxsize), ("shuffle", shuffle, 0, sys.maxsize),
            ("seed", seed or 0, 0, math.inf), ("prefetch", prefetch, 0, _MOST_AHEAD),
        ):  # fmt: skip
            if value > most:
                raise ValueError(f"{name} must be at most {most}, not {value!r}")
            if value < least or value != int(value):
                raise ValueError(f"{name} must be a whole number, {least} or more, not {value!r}")
        self.stream, self.batch_size = stream, int(batch_size)
        self.seed = run_seed() if seed is None else int(seed)
        self._has_own_seed = seed is not None
        self.drop_last, self.prefetch, self.backend = drop_last, prefetch, backend
        self.shuffle = int(shuffle)
        self._batcher = Batcher([], transform, self.seed, collate, batch_transform)
        self._beginning = self._state()  # of every epoch
        self._place = self._sought = _Place()
        self._loop: weakref.ref[Generator[AnyBatch, None, None]] | None = None

    @property
    def epoch(self) -> int:
        """The epoch of the next batch."""
        return self._place.epoch

    @property
    def batch(self) -> int:
        """The index of the next batch in its epoch."""
        return self._place.batch

    def __iter__(self) -> Iterator[AnyBatch]:
        self._leave()
        loop = self._batches()
        self._loop = weakref.ref(loop)  # garbage collection ends it
        return loop

    @property
    def was_left(self) -> bool:
        """Whether a loop ended within the epoch, and the place was not set since then."""
        return self.batch > 0 and self._place is not self._sought

    @checked_arguments
    def seek(self, epoch: int) -> None:
        """Start the next loop at the beginning of an epoch.

        epoch: the index of the epoch.

        ValueError for one below 0. `load_state_dict` goes to any other place.
        """
        if whole_number("epoch", epoch) < 0:
            raise ValueError(f"epoch must be 0 or more, not {epoch}")
        self._leave()
        self._place = self._sought = _Place(epoch=int(epoch))

    def _bookmark(self) -> Callable[[], None]:
        place = self._place

        def rewind() -> None:
            self._leave()
            self._place = self._sought = place

        return rewind

    def state_dict(self) -> dict[str, Any]:
        """Return the position and the loader's settings."""
        return {**asdict(self._place), **self._described()}

    @checked_arguments
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`. Raises StateMismatchError, changing nothing, if it differs."""
        own, names = self._described(), set(asdict(self._place))
        if not self._has_own_seed and type(state.get("seed")) is int:
            own["seed"] = state["seed"]  # of the original run
        wrong = [
            f"{name} is {state.get(name, 'missing')} in the state, {value} here"
            for name, value in own.items()
            if type(state.get(name)) is not type(value) or state[name] != value
        ]
        wrong += [
            f"{name} must be a whole number, 0 or more, not {state[name]!r}"
            for name in asdict(self._place)
            if name in state and name != "state" and not is_count(state[name])
        ]
        if is_count(offset := state.get("offset", 0)) and offset >= self._block_size:
            wrong.append(f"offset must be below {self._block_size}, not {offset}")
        wrong += name_differences(self, state, names, own)
        if state.get("state") is not None and not self._is_stateful:
            wrong.append("the stream had a state_dict when it was saved, but has none here")
        if wrong:
            raise StateMismatchError(f"the loader's state does not fit: {'; '.join(wrong)}")
        self._leave()
        self.seed = self._batcher.seed = state["seed"]
        self._place = self._sought = _Place(**{name: state[name] for name in names})

    def _described(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
        }

    @property
    def _block_size(self) -> int:
        """How many samples are read at a time."""
        return self.shuffle or self.batch_size

    @property
    def _is_stateful(self) -> bool:
        return hasattr(self.stream, "state_dict") and hasattr(self.stream, "load_state_dict")

    def _leave(self) -> None:
        loop = None if self._loop is None else self._loop()
        self._loop = None
        if loop is not None:
            loop.close()

    def _batches(self) -> Generator[AnyBatch, None, None]:
        """Yield the batches of an epoch, and keep the place after each."""
        first = self._place
        made = self._made(first)
        if self.prefetch:
            made = self._ahead(made)
        is_told = not self.was_left
        for batch, place in made:
            if not is_told:
                is_told = True
                warn_user(
                    f"this loop over the StreamLoader begins with batch {first.batch} of epoch "
                    f"{first.epoch}, where an earlier one was left, as by break, "
                    "next(iter(loader)), islice or zip: before it, call loader.seek(loader.epoch) "
                    "to start the epoch over, or loader.load_state_dict(loader.state_dict()) to "
                    "continue"
                )
            self._place = place
            yield batch
        was_over = self._place is first and first.batch > 0 and first is not self._sought
        self._place = _Place(epoch=self._place.epoch + 1)
        if was_over:  # an earlier loop was left after the last batch, as by zip
            yield from self._batches()

    def _ahead(
        self, made: Generator[tuple[AnyBatch, _Place], None, None]
    ) -> Generator[tuple[AnyBatch, _Place], None, None]:
        """The same, made by a thread."""
        from rumus.train.data.workers import in_order

        ahead = in_order(lambda _: next(made, None), repeat(None), 1, self.prefetch, lambda: None)
        try:
            for each in ahead:
                if each is None:
                    return
                yield each
        finally:
            ahead.close()
            made.close()

    def _made(self, place: _Place) -> Generator[tuple[AnyBatch, _Place], None, None]:
        """Each batch, and the place after it."""
        samples = self._samples(place)
        while taken := list(islice(samples, self.batch_size)):
            if len(taken) < self.batch_size and self.drop_last:
                return
            numbers = np.array([number for number, _, _ in taken], np.intp)
            task = Task(place.epoch, place.batch, numbers)
            batch = self._batcher.make_of([sample for _, sample, _ in taken], task)
            place = replace(taken[-1][2], batch=place.batch + 1)
            yield uploaded(batch, self.backend), place

    def _samples(self, place: _Place) -> Generator[tuple[int, Any, _Place], None, None]:
        """The index of each sample, the sample, and the place after it."""
        read, offset = self._open(place), place.offset
        while True:
            block = self._block(read, self._block_size, place)
            if offset > len(block):
                raise _differs(place.epoch, place.start + offset, place.start + len(block))
            if not block:
                return
            order = np.arange(len(block))
            if self.shuffle:
                order = permutation(self.seed, Purpose.STREAM, len(block), place.epoch, place.block)
            after = _Place(
                place.epoch, 0, place.block + 1, place.start + len(block), 0, self._state()
            )
            for at in range(offset, len(block)):
                is_last = at + 1 == len(block)
                behind = after if is_last else replace(place, offset=at + 1)
                number = int(order[at])
                yield place.start + number, block[number], behind
            place, offset = after, 0

    def _block(self, read: Iterator[Any], size: int, place: _Place) -> list[Any]:
        block: list[Any] = []
        try:
            block.extend(islice(read, size))
        except Exception as error:
            if is_of_handler(error):
                raise
            raise SampleError(
                f"sample {place.start + len(block)} of epoch {place.epoch} of the stream could not "
                f"be read: {type(error).__name__}: {error}"
            ) from error
        return block

    def _open(self, place: _Place) -> Iterator[Any]:
        """The samples from the start of the place's block."""
        set_epoch = getattr(self.stream, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(place.epoch)
        if self._is_stateful:
            state = self._beginning if place.state is None else place.state
            self.stream.load_state_dict(state)  # type: ignore[union-attr]
            return iter(self.stream)  # type: ignore[arg-type]
        found = self.stream if isinstance(self.stream, Iterable) else self.stream(place.epoch)
        read = iter(found)
        skipped = sum(1 for _ in islice(read, place.start))
        if skipped < place.start:
            raise _differs(place.epoch, place.start, skipped)
        return read

    def _state(self) -> Any:
        return self.stream.state_dict() if self._is_stateful else None  # type: ignore[union-attr]


def _differs(epoch: int, before: int, now: int) -> ValueError:
    return ValueError(
        f"epoch {epoch} had yielded {before} samples when it was saved, but the stream has {now} "
        "now: it is a different stream, or its epochs differ"
    )


_ONCE: Final = "it can be iterated only once, but each epoch and each resume starts over"


def _check_stream(stream: object) -> None:
    """Raise TypeError for anything but a stream."""
    what = type(stream).__name__
    if isinstance(stream, (type, str, bytes)):
        raise TypeError(f"a stream must yield samples, not {shown(stream)}")
    if isinstance(stream, Iterator):
        raise TypeError(
            f"a stream must not be an iterator like this {what}: {_ONCE}. Give a function of the "
            "epoch that makes one: StreamLoader(lambda epoch: read(), batch_size)"
        )
    if not isinstance(stream, Iterable) and not callable(stream):
        raise TypeError(f"a stream must be iterable or a function; {what} is neither")
