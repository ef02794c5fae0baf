"""`Batcher`: makes a batch from sample indices, and names the sample if that fails."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rumus.tensor import Backend, tensor
from rumus.tensor.expression.declared_type import makes_functions, shown
from rumus.tensor.memory.uninterrupted import is_of_handler
from rumus.train.base.data_errors import SampleError
from rumus.train.base.exact_joining import exact_array
from rumus.train.base.fields import Names, fields_of, names_of, values_in
from rumus.train.base.random_stream import Purpose, random_stream
from rumus.train.data.dataset import AnyBatch, Dataset, Indices, batch_of, named, samples_of

Kinds: TypeAlias = tuple[Names, tuple[tuple[tuple[int, ...], np.dtype[Any]], ...]]
Transform: TypeAlias = Callable[[Any, np.random.Generator], Any]  # of a sample, or of a batch
Collate: TypeAlias = Callable[[list[Any]], Any]  # of samples, to a batch


class Stopped(Exception):
    """The batch is no longer wanted."""


_ARGUMENTS: Final = {
    "transform": ("sample", "generator"),
    "collate": ("samples",),
    "batch_transform": ("batch", "generator"),
}


def _check_takes(function: Callable[..., Any], name: str) -> None:
    """Refuse a function that cannot be called as it will be, before a worker finds out."""
    wanted = _ARGUMENTS[name]
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # unknown for a built-in function
        return
    try:
        signature.bind(*wanted)
    except TypeError as error:
        raise TypeError(
            f"{name} is called with {' and '.join(wanted)}, and {shown(function)} takes "
            f"{signature} ({error}): {name}=lambda {', '.join(wanted)}: ..."
        ) from None


class Task(NamedTuple):
    """A batch to make."""

    epoch: int
    number: int
    indices: Indices


@dataclass(slots=True)
class Batcher:
    """Makes the batches of a dataset, on any thread or (pickled) in any process."""

    dataset: Dataset
    transform: Transform | None
    seed: int
    collate: Collate | None = None
    batch_transform: Transform | None = None
    _is_new: bool = True

    def __post_init__(self) -> None:
        for name in ("transform", "collate", "batch_transform"):
            function = getattr(self, name)
            is_one = callable(function) and not makes_functions(function)
            if function is not None and not is_one:
                raise TypeError(f"{name} must be a function, not {shown(function)}")
            if function is not None:
                _check_takes(function, name)

    def is_new(self) -> bool:
        """Whether this is the first call in this process."""
        is_new, self._is_new = self._is_new, False
        return is_new

    def make(self, task: Task, is_stopped: Callable[[], bool] = lambda: False) -> AnyBatch:
        """Return the samples of a task, transformed and stacked.

        Raises SampleError if one of them fails, Stopped as soon as `is_stopped`.
        """
        return self._finished(self._gathered(task, is_stopped), task)

    def make_of(self, samples: Sequence[Any], task: Task) -> AnyBatch:
        """Do the same with samples already read; `task` holds their indices."""
        done = [
            self._transformed(self._checked(sample, index, "the item"), task.epoch, index)
            for index, sample in zip(task.indices.tolist(), samples, strict=True)
        ]
        return self._finished(self._collated(done, task), task)

    def _finished(self, batch: AnyBatch, task: Task) -> AnyBatch:
        if self.batch_transform is None:
            return batch
        stream = random_stream(self.seed, Purpose.BATCH, task.epoch, task.number)
        try:
            return _as_batch(self.batch_transform(batch, stream))
        except Exception as error:
            if is_of_handler(error):
                raise
            raise self._of_batch(task, "batch_transform", error) from error

    def _gathered(self, task: Task, is_stopped: Callable[[], bool]) -> AnyBatch:
        whole = batch_of(self.dataset)
        samples: Iterable[Any]
        if whole is None:
            samples = self._samples(task.indices)
        else:
            batch = self._read_batch(whole, task.indices)
            if self.transform is None and self.collate is None:
                return batch
            names, rows = names_of(batch), zip(*values_in(batch), strict=True)
            samples = (fields_of(names, row) for row in rows)
        done = []
        for index, sample in zip(task.indices.tolist(), samples, strict=True):
            if is_stopped():
                raise Stopped
            done.append(self._transformed(sample, task.epoch, index))
        return self._collated(done, task)

    def _collated(self, done: list[Any], task: Task) -> AnyBatch:
        if self.collate is None:
            return self._stacked(done, task.indices)
        try:
            return _as_batch(self.collate(done))
        except Exception as error:
            if is_of_handler(error):
                raise
            raise self._of_batch(task, "collate", error) from error

    def _samples(self, indices: Indices) -> Iterator[Any]:
        try:
            together = samples_of(self.dataset, indices.tolist())
        except Exception as error:
            if is_of_handler(error):
                raise
            together = None  # one by one, to know which one fails
        if together is None:
            return (self._read(int(index)) for index in indices)
        pairs = zip(indices.tolist(), together, strict=True)
        return (self._checked(sample, index, "the dataset's item") for index, sample in pairs)

    def _read(self, index: int) -> Any:
        try:
            sample = self.dataset[index]
        except Exception as error:
            if is_of_handler(error):
                raise
            raise self._failed(index, "could not be read", error) from error
        return self._checked(sample, index, "the dataset's item")

    def _read_batch(self, whole: Callable[[Indices], AnyBatch], indices: Indices) -> AnyBatch:
        try:
            batch = whole(indices)
        except Exception as error:
            if is_of_handler(error):
                raise
            first = named(self.dataset, int(indices[0]))
            raise SampleError(
                f"{first} or one of the {len(indices) - 1} others of its batch could not be read: "
                f"{_text(error)}"
            ) from error
        lengths = [len(field) for field in values_in(batch)]
        if any(length != len(indices) for length in lengths):
            raise SampleError(
                f"the dataset's batch() returned {lengths} rows for {len(indices)} indices"
            )
        return batch

    def _transformed(self, sample: Any, epoch: int, index: int) -> Any:
        if self.transform is None:
            return sample
        stream = random_stream(self.seed, Purpose.TRANSFORM, epoch, index)
        try:
            result = self.transform(sample, stream)
            _check_fields(result, sample, stream)
        except Exception as error:
            if is_of_handler(error):
                raise
            raise self._failed(index, "could not be transformed", error) from error
        return self._checked(result, index, "the transform's result")

    def _checked(self, sample: object, index: int, what: str) -> Any:
        found = type(sample).__name__
        if isinstance(sample, (tuple, Mapping)):
            if sample:
                return sample
            found = f"an empty {found}"
        raise SampleError(
            f"{named(self.dataset, index)}: {what} must be a tuple or dict of arrays and numbers, "
            f"not {found}; a single array x is (x,)",
            index,
        )

    def _of_batch(self, task: Task, what: str, error: Exception) -> SampleError:
        first = named(self.dataset, int(task.indices[0]))
        return SampleError(f"{what}= failed for the batch starting with {first}: {_text(error)}")

    def _failed(self, index: int, what: str, error: Exception) -> SampleError:
        return SampleError(f"{named(self.dataset, index)} {what}: {_text(error)}", index)

    def _stacked(self, samples: list[Any], indices: Indices) -> AnyBatch:
        """Stack each field to one array. Raises SampleError for two samples that do not match."""
        names = names_of(samples[0])
        arrays = [self._arrays(s, i) for s, i in zip(samples, indices.tolist(), strict=True)]
        first = _kinds(names, arrays[0])
        for index, sample, values in zip(indices.tolist(), samples, arrays, strict=True):
            if any(value.dtype.kind not in "biufc" for value in values):
                raise self._no_numbers(index, names_of(sample), values)
            if (kinds := _kinds(names_of(sample), values)) != first:
                raise self.mismatch(index, kinds, int(indices[0]), first)
        columns = [np.stack(field) for field in zip(*arrays, strict=True)]
        batch: AnyBatch = fields_of(names, columns)
        return batch

    def _arrays(self, sample: Any, index: int) -> tuple[NDArray[Any], ...]:
        try:
            return tuple([exact_array(value) for value in values_in(sample)])
        except ValueError as error:
            raise self._failed(index, "has a field that makes no array", error) from error

    def _no_numbers(
        self, index: int, names: Names, values: tuple[NDArray[Any], ...]
    ) -> SampleError:
        types = _spoken(_kinds(names, values))
        return SampleError(
            f"{named(self.dataset, index)} is {types}; its fields must be arrays of numbers: drop "
            "other fields in the dataset or with transform=, or convert them to numbers with "
            "collate=",
            index,
        )

    def mismatch(self, index: int, kinds: Kinds, other: int, others: Kinds) -> SampleError:
        """Return the error of two samples that differ in structure, shape or dtype."""
        return SampleError(
            f"{named(self.dataset, index)} is {_spoken(kinds)}, but {named(self.dataset, other)} "
            f"is {_spoken(others)}; samples must agree in structure, shapes and dtypes",
            index,
        )


def _kinds(names: Names, values: tuple[NDArray[Any], ...]) -> Kinds:
    """The names, shapes and dtypes of a sample."""
    return names, tuple([(value.shape, value.dtype) for value in values])


def kinds_of_batch(batch: AnyBatch) -> Kinds:
    """Return the names, shapes and dtypes of each sample of a batch."""
    return names_of(batch), tuple([(v.shape[1:], v.dtype) for v in values_in(batch)])


def uploaded(batch: AnyBatch, backend: Backend | None) -> Any:
    """Return a batch as tensors of a backend, or as it is without one."""
    if backend is None:
        return batch
    tensors = [tensor(field, backend=backend) for field in values_in(batch)]
    return fields_of(names_of(batch), tensors)


def _as_batch(made: Any) -> AnyBatch:
    """Check that a user function returned a batch. Raises TypeError otherwise."""
    if isinstance(made, (np.ndarray, list)):
        made = (exact_array(made),)
    if not isinstance(made, (tuple, Mapping)) or not made:
        raise TypeError(f"it must return a tuple or dict of arrays, not {type(made).__name__}")
    arrays = [exact_array(value) for value in values_in(made)]
    if bad := [array for array in arrays if array.dtype.kind not in "biufc" or not array.ndim]:
        raise TypeError(
            f"it must return arrays of numbers with an axis for the samples, not {bad[0].dtype} of "
            f"shape {bad[0].shape}"
        )
    batch: AnyBatch = fields_of(names_of(made), arrays)
    return batch


def _spoken(kinds: Kinds) -> str:
    names, values = kinds
    told = [f"{dtype}{list(shape)}" for shape, dtype in values]
    if names is None:
        return f"({', '.join(told)})"
    return f"{{{', '.join(f'{name}: {each}' for name, each in zip(names, told, strict=True))}}}"


def _text(error: BaseException) -> str:
    name = type(error).__name__
    try:
        text = str(error)
    except Exception as failure:  # whatever the user's class does: the sample is to be named
        return f"{name}, whose text failed with {type(failure).__name__}"
    return f"{name}: {text}" if text else name


def portable(error: BaseException) -> BaseException:
    """Return an error that can be sent to another process: itself, or one with the same message."""
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(_text(error))
    return error if type(copy) is type(error) else RuntimeError(_text(error))


def _check_fields(result: object, sample: object, generator: object) -> None:
    """Raise TypeError for a transform that took what it is given for two fields."""
    if isinstance(result, (tuple, list)) and any(e is sample or e is generator for e in result):
        raise TypeError(
            "transform is called with the sample, which has all fields, and a generator, and has "
            "returned one of these as a field: write def transform(sample, generator): x, y = "
            "sample"
        )
