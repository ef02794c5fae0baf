"""`Batcher`: from the numbers of samples to a batch, with the sample to blame if that fails."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from rumus.train.base.data_errors import SampleError
from rumus.train.base.random_stream import Purpose, random_stream
from rumus.train.data.dataset import Batch, Dataset, Indices, Sample, batch_of, named

Kinds: TypeAlias = tuple[tuple[tuple[int, ...], np.dtype[Any]], ...]
Transform: TypeAlias = Callable[[Sample, np.random.Generator], Sample]


class Stopped(Exception):
    """Nobody waits for the batch any more."""


class Task(NamedTuple):
    """One batch to make."""

    epoch: int
    number: int
    indices: Indices


@dataclass(slots=True)
class Batcher:
    """Makes the batches of a dataset, on any thread or, pickled, in any process."""

    dataset: Dataset
    transform: Transform | None
    seed: int

    def make(self, task: Task, is_stopped: Callable[[], bool] = lambda: False) -> Batch:
        """Return the samples of a task, transformed and stacked.

        SampleError if one of them fails; Stopped as soon as `is_stopped`.
        """
        whole = batch_of(self.dataset)
        samples: Iterable[Sample]
        if whole is None:
            samples = (self._read(int(index)) for index in task.indices)
        else:
            batch = self._read_batch(whole, task.indices)
            if self.transform is None:
                return batch
            samples = zip(*batch, strict=True)
        done = []
        for index, sample in zip(task.indices.tolist(), samples, strict=True):
            if is_stopped():
                raise Stopped
            done.append(self._transformed(sample, task.epoch, index))
        return self._stacked(done, task.indices)

    def _read(self, index: int) -> Sample:
        try:
            sample = self.dataset[index]
        except Exception as error:
            raise self._failed(index, "could not be read", error) from error
        return self._checked(sample, index, "the dataset's item")

    def _read_batch(self, whole: Callable[[Indices], Batch], indices: Indices) -> Batch:
        try:
            batch = whole(indices)
        except Exception as error:
            first = named(self.dataset, int(indices[0]))
            raise SampleError(
                f"{first} or one of the {len(indices) - 1} others of its batch could not be read: "
                f"{_text(error)}"
            ) from error
        if any(len(field) != len(indices) for field in batch):
            raise SampleError(
                f"the dataset's batch() returned {[len(field) for field in batch]} rows for "
                f"{len(indices)} indices"
            )
        return batch

    def _transformed(self, sample: Sample, epoch: int, index: int) -> Sample:
        if self.transform is None:
            return sample
        stream = random_stream(self.seed, Purpose.TRANSFORM, epoch, index)
        try:
            result = self.transform(sample, stream)
        except Exception as error:
            raise self._failed(index, "could not be transformed", error) from error
        return self._checked(result, index, "the transform's result")

    def _checked(self, sample: object, index: int, what: str) -> Sample:
        found = type(sample).__name__
        if isinstance(sample, tuple):
            if sample:
                return sample
            found = "an empty one"
        raise SampleError(
            f"{named(self.dataset, index)}: {what} must be a tuple of arrays and numbers, not "
            f"{found}; a single array x is (x,)",
            index,
        )

    def _failed(self, index: int, what: str, error: Exception) -> SampleError:
        return SampleError(f"{named(self.dataset, index)} {what}: {_text(error)}", index)

    def _stacked(self, samples: list[Sample], indices: Indices) -> Batch:
        """One array for each field. SampleError with two samples that do not fit together."""
        arrays = [tuple([np.asarray(value) for value in sample]) for sample in samples]
        first = _kinds(arrays[0])
        for index, sample in zip(indices.tolist(), arrays, strict=True):
            if any(value.dtype.kind not in "biufc" for value in sample):
                types = ", ".join(str(value.dtype) for value in sample)
                raise SampleError(
                    f"{named(self.dataset, index)} has fields of dtype {types}; they must be "
                    "arrays of numbers",
                    index,
                )
            if (kinds := _kinds(sample)) != first:
                raise self.mismatch(index, kinds, int(indices[0]), first)
        return tuple([np.stack(field) for field in zip(*arrays, strict=True)])

    def mismatch(self, index: int, kinds: Kinds, other: int, others: Kinds) -> SampleError:
        """Return the error of two samples that differ in structure, shape or dtype."""
        return SampleError(
            f"{named(self.dataset, index)} is {_spoken(kinds)}, but {named(self.dataset, other)} "
            f"is {_spoken(others)}; samples must agree in structure, shapes and dtypes",
            index,
        )


def _kinds(sample: Batch) -> Kinds:
    """The shapes and dtypes of a sample."""
    return tuple([(value.shape, value.dtype) for value in sample])


def kinds_of_batch(batch: Batch) -> Kinds:
    """Return the shapes and dtypes of each sample of a batch."""
    return tuple([(value.shape[1:], value.dtype) for value in batch])


def _spoken(kinds: Kinds) -> str:
    return f"({', '.join(f'{dtype}{list(shape)}' for shape, dtype in kinds)})"


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def portable(error: BaseException) -> BaseException:
    """Return an error that can be sent to another process: itself, or one of the same words."""
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(_text(error))
    return error if type(copy) is type(error) else RuntimeError(_text(error))
