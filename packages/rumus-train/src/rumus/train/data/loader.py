"""`DataLoader`: the batches of an epoch, in an order that depends only on the seed."""

from __future__ import annotations

import operator
import os
import weakref
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Self

import numpy as np

from rumus.tensor import Backend, StateMismatchError, Tensor, run_seed
from rumus.tensor.expression.arguments import checked_arguments, place_arguments
from rumus.tensor.expression.decided import check_of_class, decided, is_decided
from rumus.tensor.expression.state_names import name_differences
from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.expression.whole_number import whole_number
from rumus.train.base.fields import values_in
from rumus.train.base.other_names import LOADER, LOADER_OPTIONS
from rumus.train.base.random_stream import Purpose, permutation
from rumus.train.base.ranks import Ranks, check_ranks, note_part
from rumus.train.data.batcher import (
    Batcher,
    Collate,
    Kinds,
    Task,
    Transform,
    kinds_of_batch,
    uploaded,
)
from rumus.train.data.dataset import AnyBatch, Dataset, Indices, refuse_table
from rumus.train.data.part import Part, check_shards
from rumus.train.data.sampler import Sampler

if TYPE_CHECKING:
    from rumus.train.data.process_pool import ProcessPool


@place_arguments
class DataLoader:
    """Batches of a dataset. Each loop over it yields one epoch, or the rest of one.

    A batch is a tuple (a dict if samples are dicts) with one NumPy array for each field of the
    samples, stacked along a new first axis. With `backend` they are tensors on it, with the dtypes
    that `tensor` chooses.

    seed: the seed of the order and of the transforms' generators; by default the program's, set by
        `rumus.tensor.seed`, and after a resume that of the original run.
    shuffle: use a new order in each epoch, a function of the seed, the epoch and the length only.
    drop_last: skip the last batch if it is smaller than batch_size. transform: called with each
        sample and a NumPy generator whose numbers depend only on (seed, epoch, index); returns the
        sample to use. It may modify the sample.
    sampler: chooses the samples of an epoch and their order: `WeightedSampler`, `BalancedSampler`,
        `LengthBuckets`, or your own object with the same methods.
    collate: makes a batch from a list of samples that cannot simply be stacked, such as samples of
        different lengths: `Pad()`. Batches may then differ in shape.
    batch_transform: called with each batch and a generator whose numbers depend only on (seed,
        epoch, index of the batch); returns the batch to use: `Mixup`, `CutMix`.
    workers: the number of threads that prepare batches ahead; with processes=True, processes, which
        suit transforms in Python, as threads share one interpreter. 0 makes each batch on demand.
    prefetch: the number of batches that may wait, besides the one each worker is making. Workers
        also upload to `backend`, so that transfers overlap with training. Neither workers nor
        prefetch change a bit of any batch.

    The first loop starts the processes, and they live until `close` or until the loader is garbage.
    The dataset and the transform are pickled, and sent again if they have changed before a loop;
    the program needs `if __name__ == "__main__":`. Leaving a loop early ends the busy processes;
    the next loop starts new ones.

    ranks: the processes that train together; batch_size is their total. Each rank gets the rows of
        its shards, given by `part`. shards: the number of parts a batch is split into, whatever the
        number of ranks: a run's numbers depend on it, not on which rank computes what. By default,
        the number of ranks.

    The position (epoch, batch) counts the batches that were yielded, not those made ahead. After a
    loop was left early, the next one continues it, with a UserWarning; `seek(loader.epoch)` starts
    over, `seek(loader.epoch, loader.batch)` says that it is meant to continue. After the last batch
    the next loop is over the next epoch, even if the loop before was left there.

    Raises ValueError for an empty dataset, for batch_size, workers, prefetch or seed out of range,
    for a loader that drops everything, and for shards that do not split evenly among the ranks or
    outnumber the samples of a batch. While looping, raises SampleError with the index and the file
    of the offending sample, WorkerError for a process that died, and RuntimeError if a loop
    continues after another one has started or the position was set.

    >>> from rumus.train import ArrayDataset, DataLoader
    >>> loader = DataLoader(ArrayDataset(range(5)), 2)
    >>> [batch.tolist() for batch, in loader]
    [[0, 1], [2, 3], [4]]
    >>> len(loader), loader.epoch, loader.batch
    (3, 1, 0)
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int | None = None,
        transform: Transform | None = None,
        workers: int = 0,
        processes: bool = False,
        prefetch: int = 2,
        backend: Backend | None = None,
        sampler: Sampler | None = None,
        collate: Collate | None = None,
        batch_transform: Transform | None = None,
        ranks: Ranks | None = None,
        shards: int | None = None,
    ) -> None:
        self.dataset, self.transform, self.backend = dataset, transform, backend
        self.batch_size = _at_least(1, "batch_size", batch_size)
        self.seed = run_seed() if seed is None else _at_least(0, "seed", seed)
        self._has_own_seed = seed is not None
        self.workers = _at_least(0, "workers", workers)
        self.prefetch = _at_least(0, "prefetch", prefetch)
        self.shuffle, self.drop_last = bool(shuffle), bool(drop_last)
        self.processes = bool(processes)
        self.sampler, self.collate, self.batch_transform = sampler, collate, batch_transform
        _check_dataset(dataset)
        is_class = isinstance(sampler, type)
        if is_class or not (sampler is None or hasattr(sampler, "order")):
            raise TypeError(
                "sampler must give the order of an epoch, like WeightedSampler(weights), not "
                f"{'a class' if is_class else type(sampler).__name__}"
            )
        self._samples = len(dataset) if sampler is None else sampler.count(dataset)
        if sampler is not None and self.shuffle:
            raise ValueError("shuffle=True and sampler= both set the order: give only one of them")
        if self._samples == 0:
            raise ValueError("the dataset is empty")
        if len(self) == 0:
            raise ValueError(
                f"with drop_last, {self._samples} samples do not fill a batch of {self.batch_size}"
            )
        if self.processes and not self.workers:
            raise ValueError("processes=True needs workers=1 or more")
        if ranks is None and shards is not None:
            raise ValueError("shards= needs ranks= to distribute them to")
        self.ranks = ranks
        self.shards = 1
        if ranks is not None:
            check_ranks("DataLoader", ranks)
            wanted = ranks.size if shards is None else operator.index(shards)
            self.shards = check_shards(wanted, self.batch_size, ranks)
        self._epoch = self._batch = 0
        self._sought = 0, 0  # the position that was set last, and is not where a loop was left
        self._batcher = Batcher(dataset, transform, self.seed, collate, batch_transform)
        self._loop: weakref.ref[_Loop] | None = None
        self._first: tuple[Kinds, int] | None = None  # of the first batch, and one of its samples

    if not TYPE_CHECKING:  # for type checkers

        def __new__(cls, *args: object, **given: object) -> Self:  # noqa: D102
            LOADER_OPTIONS.check_constructor(cls, args, given)
            return super().__new__(cls)

        def __getattr__(self, name: str) -> NoReturn:
            LOADER.refuse(name)

        def __setattr__(self, name: str, value: object) -> None:
            LOADER.check_assignment(self, name)
            check_of_class(self, name, value)
            if name in vars(self) and is_decided(name):
                raise decided(self, name)
            object.__setattr__(self, name, value)

    @property
    def epoch(self) -> int:
        """The epoch of the next batch."""
        return self._epoch

    @property
    def batch(self) -> int:
        """The index of the next batch in its epoch."""
        return self._batch

    @property
    def part(self) -> Part:
        """The rows of the last batch that belong to this rank's shards."""
        number = (self._batch or len(self)) - 1
        return self._part_of(min(self.batch_size, self._samples - number * self.batch_size))

    def _part_of(self, samples: int) -> Part:
        """This rank's part of a batch of so many samples."""
        rank, size = (0, 1) if self.ranks is None else (self.ranks.rank, self.ranks.size)
        return Part.of(samples, self.shards, rank, size)

    def __len__(self) -> int:
        """The number of batches per epoch."""
        whole, rest = divmod(self._samples, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Any]:
        self._leave()
        if self._batch and (self._epoch, self._batch) != self._sought:
            self._continue()
        loop = _Loop(self)
        self._loop = weakref.ref(loop)
        return loop

    def _continue(self) -> None:
        """Go on where a loop was left: with the next epoch if it had handed out all batches."""
        if self._batch == len(self):  # as by zip, which may not ask whether there are more
            self.seek(self._epoch + 1)
            return
        warn_user(
            f"this loop over the loader begins with batch {self._batch} of epoch {self._epoch}, "
            "where an earlier one was left, as by break, next(iter(loader)), islice or zip: before "
            "it, call loader.seek(loader.epoch) to start the epoch over, or "
            "loader.seek(loader.epoch, loader.batch) to continue",
        )

    def seek(self, epoch: int, batch: int = 0) -> None:
        """Start the next loop at this batch of this epoch.

        epoch: the index of the epoch.
        batch: how many of its batches are skipped.

        Raises ValueError if there is no such batch; batch = len(loader) is the end of the epoch.
        """
        epoch, batch = _at_least(0, "epoch", epoch), _at_least(0, "batch", batch)
        if batch > len(self):
            raise ValueError(f"there is no batch {batch}: an epoch has {len(self)}")
        self._leave()
        self._epoch, self._batch = self._sought = epoch, batch

    def _bookmark(self) -> Callable[[], None]:
        return partial(self.seek, self._epoch, self._batch)

    def state_dict(self) -> dict[str, int | bool]:
        """Return the position and the loader's settings, for JSON."""
        return {"epoch": self.epoch, "batch": self.batch, **self._described()}

    @checked_arguments
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`.

        Workers, prefetch and backend may differ. Raises StateMismatchError, listing every
        difference in the dataset's length, batch_size, seed, shuffle, drop_last and shards; the
        loader is then unchanged.
        """
        own = self._described()
        if not self._has_own_seed and type(state.get("seed")) is int:
            own["seed"] = state["seed"]  # of the original run
        wrong = [
            f"{name} is {state.get(name, 'missing')} in the state, {value} here"
            for name, value in own.items()
            if type(state.get(name)) is not type(value) or state[name] != value
        ]
        for name, limit in (("epoch", None), ("batch", len(self))):
            value = state.get(name)
            if type(value) is not int or value < 0 or (limit is not None and value > limit):
                bound = "" if limit is None else f" up to {limit}"
                wrong.append(f"{name} must be a number from 0{bound}, not {value!r}")
        wrong += name_differences(self, state, (), {"epoch", "batch", *own})
        if wrong:
            raise StateMismatchError(f"the loader's state does not fit: {'; '.join(wrong)}")
        self._take_seed(state["seed"])
        self.seek(state["epoch"], state["batch"])

    def _take_seed(self, seed: int) -> None:
        self.seed = self._batcher.seed = seed
        vars(self).pop("_identity_of_sampler", None)

    def _described(self) -> dict[str, int | bool]:
        shards = {} if self.ranks is None else {"shards": self.shards}
        sampler = {} if self.sampler is None else {"sampler": self._identity_of_sampler}
        return {
            "samples": self._samples,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
            **shards,
            **sampler,
        }

    @cached_property
    def _identity_of_sampler(self) -> int:
        """A checksum of the first epoch's order, to recognize the sampler."""
        return zlib.crc32(self._order(0).astype(np.int64).tobytes())

    def samples_of(self, epoch: int, batch: int) -> Indices:
        """Return the dataset indices of a batch's samples, over all ranks.

        epoch: from 0.
        batch: its index in the epoch, from 0.

        Raises ValueError if there is no such batch.

        >>> from rumus.train import ArrayDataset, DataLoader
        >>> DataLoader(ArrayDataset(range(5)), 2).samples_of(epoch=0, batch=2).tolist()
        [4]
        """
        if not 0 <= _at_least(0, "batch", batch) < len(self):
            raise ValueError(f"there is no batch {batch}: an epoch has {len(self)}")
        first = batch * self.batch_size
        return self._order(_at_least(0, "epoch", epoch))[first : first + self.batch_size]

    def _order(self, epoch: int) -> Indices:
        if self.sampler is not None:
            order = self.sampler.order(self.dataset, self.seed, epoch, self.batch_size)
            return self._checked(order)
        if self.shuffle:
            return permutation(self.seed, Purpose.SHUFFLE, self._samples, epoch)
        return np.arange(self._samples, dtype=np.intp)

    def _checked(self, order: Any) -> Indices:
        """A sampler's order; ValueError for what is none: NumPy takes -1 for the last sample."""
        found, size = np.asarray(order), len(self.dataset)
        if found.dtype.kind not in "iu" or found.shape != (self._samples,):
            raise ValueError(
                f"sampler: order must return {self._samples} whole numbers, as many as count says, "
                f"not {found.dtype} of shape {found.shape}"
            )
        if found.size and not (found.min() >= 0 and found.max() < size):
            wrong = found[(found < 0) | (found >= size)][0]
            raise ValueError(f"sampler: order has index {wrong}, outside of [0, {size})")
        return found.astype(np.intp, copy=False)

    def close(self) -> None:
        """End the running loop, if any, and the worker processes.

        The position stays, and a new loop starts new processes. Garbage collection does the same.
        """
        self._leave()
        if (pool := vars(self).pop("_pool", None)) is not None:
            pool.close()

    def _leave(self) -> None:
        """End the running loop, if any."""
        loop = None if self._loop is None else self._loop()
        self._loop = None
        if loop is not None:
            loop.close()

    def _tasks(self) -> Iterator[Task]:
        """The batches from the position to the end of the epoch."""
        epoch, size, order = self.epoch, self.batch_size, self._order(self.epoch)
        for number in range(self.batch, len(self)):
            yield Task(epoch, number, self._own(order[number * size : (number + 1) * size]))

    def _own(self, indices: Indices) -> Indices:
        """This rank's part of a batch: at least one sample, even if its shards are empty."""
        if self.ranks is None:
            return indices
        part = self._part_of(len(indices))
        return indices[part.start : part.stop] if part.stop > part.start else indices[:1]

    def _batches(self) -> Generator[Made, None, None]:
        """These batches, made inline, by threads or by processes."""
        if not self.workers:
            return (self._finish(task, self._batcher.make(task)) for task in self._tasks())
        from rumus.train.data.workers import made_by_processes, made_by_threads

        workers = min(self.workers, len(self))  # more would have nothing to do
        ahead = min(self.workers + self.prefetch, len(self))
        given = self._batcher, self._tasks(), self._finish, workers, ahead
        return made_by_processes(*given, self._pool) if self.processes else made_by_threads(*given)

    @cached_property
    def _pool(self) -> ProcessPool:
        from rumus.train.data.process_pool import ProcessPool

        pool = ProcessPool()
        weakref.finalize(self, pool.close).atexit = False  # the pool has an exit handler
        return pool

    def _finish(self, task: Task, batch: AnyBatch) -> Made:
        """Upload a batch, on the thread that made it or waited for its process."""
        kinds = kinds_of_batch(batch)
        return Made(int(task.indices[0]), kinds, uploaded(batch, self.backend))

    def _check(self, made: Made) -> None:
        """Raise for a batch whose shapes or dtypes differ from the first, naming a sample of each.

        Batches of `collate` may have any shape.
        """
        if self._first is None:
            self._first = made.kinds, made.sample
        elif made.kinds != self._first[0] and self.collate is None:
            raise self._batcher.mismatch(made.sample, made.kinds, self._first[1], self._first[0])


class Made(NamedTuple):
    """A batch to yield, the kinds of its samples, and the index of one of them."""

    sample: int
    kinds: Kinds
    batch: Any


class _Loop(Iterator[Any]):
    """One pass over a loader, from its position to the end of the epoch."""

    def __init__(self, loader: DataLoader) -> None:
        self._loader = loader
        self._batches = loader._batches()
        self._process = os.getpid() if loader.workers else None
        self._is_closed = self._is_done = False

    def __next__(self) -> Any:
        loader = self._loader
        if self._is_done:
            raise StopIteration
        if self._is_closed:
            raise RuntimeError(
                "this loop over the loader has ended: it failed, another loop started, or the "
                "position was set; start a new loop"
            )
        if self._process is not None and self._process != os.getpid():
            raise RuntimeError(
                "this loop began in another process, which has its workers: start a new loop"
            )
        try:
            made = next(self._batches, None)
            if made is not None:
                loader._check(made)
        except BaseException:
            self.close()
            raise
        if made is None:
            self._is_done = True
            loader.seek(loader.epoch + 1)
            raise StopIteration
        loader._batch += 1
        if loader.ranks is not None and loader.ranks.size > 1:
            note_part(values_in(made.batch))
        return made.batch

    def close(self) -> None:
        """End it and its workers."""
        self._is_closed = True
        self._batches.close()


def continue_loop(loader: object) -> None:
    """Let the next loop over a loader of rumus go on in mid-epoch without a warning."""
    if isinstance(loader, DataLoader) and loader.batch < len(loader):
        loader.seek(loader.epoch, loader.batch)
    stream: Any = loader
    if getattr(loader, "was_left", False):
        stream.load_state_dict(stream.state_dict())


def _check_dataset(dataset: object) -> None:
    """Raise TypeError for anything without indexed samples."""
    if isinstance(dataset, type):
        raise TypeError(f"dataset must be made: {dataset.__name__}(...), and not the class")
    if isinstance(dataset, Mapping):
        raise TypeError(
            "dataset must be samples by index, not a dict of arrays: ArrayDataset(*data.values())"
        )
    if isinstance(dataset, tuple) and all(
        isinstance(each, (np.ndarray, Tensor)) for each in dataset
    ):
        raise TypeError("dataset must be samples, not a tuple of arrays: ArrayDataset(*arrays)")
    what, is_single = type(dataset).__name__, getattr(dataset, "ndim", 1) == 0
    refuse_table(dataset)
    if hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__") and not is_single:
        return
    if not is_single and hasattr(dataset, "__iter__"):
        raise TypeError(
            f"a dataset needs samples by index, but {what} can only be iterated over: use "
            "StreamLoader(stream, batch_size)"
        )
    raise TypeError(f"a dataset needs len() and dataset[i], which {what} lacks")


def _at_least(least: int, name: str, value: int) -> int:
    number = whole_number(name, value)
    if number < least:
        raise ValueError(f"{name} must be at least {least}, not {number}")
    return number
