"""`DataLoader`: batches, order, position, errors, and workers that leave nothing behind."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import weakref
from importlib import import_module
from itertools import count, islice
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rumus.optim import SGD
from rumus.tensor import Backend, Parameter, StateMismatchError, Tensor
from rumus.train import (
    ArrayDataset,
    DataLoader,
    Dataset,
    SampleError,
    StreamLoader,
    Subset,
    Trainer,
    WorkerError,
    random_split,
)
from rumus.train.data.batcher import Batcher, Task
from rumus.train.data.dataset import AnyBatch
from rumus.train.data.process_pool import ProcessPool
from rumus.train.data.workers import made_by_processes

IMPORTABLE: Final = Path(__file__).parent / "importable"
Bits = list[tuple[tuple[str, tuple[int, ...], bytes], ...]]


@pytest.fixture
def cases(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of cases, importable by worker processes."""
    monkeypatch.syspath_prepend(str(IMPORTABLE))
    return import_module("worker_cases")


def noise(sample: tuple[Any, ...], generator: np.random.Generator) -> tuple[Any, ...]:
    sample[0][...] += generator.normal(size=sample[0].shape)
    return *sample, generator.integers(1000)


def bits(batches: Any) -> Bits:
    return [tuple((str(a.dtype), a.shape, a.tobytes()) for a in batch) for batch in batches]


def arrays(count: int) -> ArrayDataset:
    return ArrayDataset(np.arange(2.0 * count).reshape(count, 2), np.arange(count))


def rumus_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("rumus-data")]


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Any:
    yield
    gc.collect()  # a loader that an exception's traceback refers to
    assert rumus_threads() == []
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [0, 3])
def test_batches(workers: int) -> None:
    loader = DataLoader(arrays(7), 3, workers=workers)
    batches = list(loader)
    assert [batch[1].tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [batch[0].shape for batch in batches] == [(3, 2), (3, 2), (1, 2)]
    assert len(loader) == 3
    dropping = DataLoader(arrays(7), 3, workers=workers, drop_last=True)
    assert [batch[1].tolist() for batch in dropping] == [[0, 1, 2], [3, 4, 5]]
    assert len(dropping) == 2


class Columns(tuple[Any, ...]):
    """A batch, as a user's class makes it."""

    def __new__(cls, samples: Any) -> Columns:
        return super().__new__(cls, map(np.stack, zip(*samples, strict=True)))


class Shifted:
    """A transform that has to be made."""

    def __call__(self, sample: Any, generator: np.random.Generator) -> Any:
        return sample


def test_a_class_may_collate_but_is_no_transform_that_has_to_be_made() -> None:
    ((_, labels),) = DataLoader(arrays(4), 4, collate=Columns)
    assert labels.tolist() == [0, 1, 2, 3]
    with pytest.raises(TypeError, match="transform must be a function, not the class Shifted"):
        DataLoader(arrays(4), 4, transform=Shifted)  # type: ignore[arg-type]


@pytest.mark.parametrize("transform", [None, noise])
def test_writing_into_a_batch_changes_no_dataset(transform: Any) -> None:
    dataset = arrays(4)
    before = dataset.arrays[0].copy()
    for batch in DataLoader(dataset, 2, transform=transform):
        batch[0][...] = -1
    dataset[0][0][...] = -1
    np.testing.assert_array_equal(dataset.arrays[0], before)


def test_each_epoch_has_its_own_order() -> None:
    def orders(seed: int) -> list[tuple[int, ...]]:
        loader = DataLoader(arrays(20), 20, shuffle=True, seed=seed)
        return [tuple(batch[1].tolist()) for _ in range(3) for batch in loader]

    found = [*orders(0), *orders(1)]
    assert len(set(found)) == 6
    assert all(sorted(order) == list(range(20)) for order in found)
    assert orders(1) == found[3:]


def test_a_shuffled_order_is_fair() -> None:
    """Each sample comes first about equally often."""
    loader = DataLoader(arrays(8), 8, shuffle=True)
    first = [batch[1][0] for _ in range(4000) for batch in loader]
    counts = np.bincount(first, minlength=8)
    assert np.sum((counts - 500) ** 2 / 500) < 24.3  # chi-squared, 7 degrees: one in a thousand


def test_random_streams_differ_by_epoch_sample_and_seed() -> None:
    def numbers(seed: int) -> list[list[int]]:
        loader = DataLoader(arrays(8), 8, transform=noise, seed=seed)
        return [batch[2].tolist() for _ in range(2) for batch in loader]

    (first, second), (other, _) = numbers(0), numbers(1)
    assert len(set(first)) > 4
    assert first != second
    assert first != other
    order = DataLoader(arrays(8), 8, transform=noise, shuffle=True)
    (_, index, drawn), *_ = order
    assert drawn.tolist() == [first[i] for i in index]  # by sample, not by position


@given(
    count=st.integers(1, 12), size=st.integers(1, 5), shuffle=st.booleans(), drop=st.booleans(),
    seed=st.integers(0, 2**40), transform=st.sampled_from([None, noise]),
    before=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    after=st.tuples(st.integers(0, 3), st.integers(0, 3)), data=st.data(),
)  # fmt: skip
@settings(deadline=None, max_examples=100, derandomize=True)
def test_resume_anywhere(
    count: int,
    size: int,
    shuffle: bool,
    drop: bool,
    seed: int,
    transform: Any,
    before: tuple[int, int],
    after: tuple[int, int],
    data: st.DataObject,
) -> None:
    """Stopped at any batch, resumed with any number of workers: the rest is the same to the bit."""

    def loader(workers: int, prefetch: int) -> DataLoader:
        return DataLoader(
            arrays(count), size, shuffle=shuffle, drop_last=drop and count >= size, seed=seed,
            transform=transform, workers=workers, prefetch=prefetch,
        )  # fmt: skip

    straight = loader(0, 0)
    wanted = [bits(straight) for _ in range(3)]
    at = data.draw(st.integers(0, 2 * len(straight)))
    stopped = loader(*before)
    seen: Bits = []
    while len(seen) < at:
        seen += bits(islice(stopped, at - len(seen)))
    stopped.seek(stopped.epoch, stopped.batch)
    assert seen == (wanted[0] + wanted[1])[:at]
    state = json.loads(json.dumps(stopped.state_dict()))
    for resumed in (loader(*after), stopped):  # the next loop over the same loader also counts
        resumed.load_state_dict(state) if resumed is not stopped else None
        epoch, batch = resumed.epoch, resumed.batch
        assert epoch * len(straight) + batch == at
        assert bits(resumed) == wanted[epoch][batch:]
        assert (resumed.epoch, resumed.batch) == (epoch + 1, 0)
        assert bits(resumed) == wanted[epoch + 1] if epoch < 2 else True


def test_the_position_counts_yielded_batches() -> None:
    loader = DataLoader(arrays(6), 2, workers=2, prefetch=3)
    positions = [(loader.epoch, loader.batch) for _ in loader]
    assert positions == [(0, 1), (0, 2), (0, 3)]
    assert (loader.epoch, loader.batch) == (1, 0)
    loader.seek(4, 3)
    assert list(loader) == []
    assert (loader.epoch, loader.batch) == (5, 0)


def test_a_state_that_does_not_fit() -> None:
    loader = DataLoader(arrays(6), 2, seed=1)
    other = DataLoader(arrays(7), 3, seed=2, shuffle=True, drop_last=True)
    other.seek(1, 1)
    with pytest.raises(StateMismatchError) as caught:
        loader.load_state_dict(other.state_dict())
    for text in ("samples is 7 in the state, 6 here", "batch_size is 3", "seed is 2",
                 "shuffle is True in the state, False here", "drop_last is True"):  # fmt: skip
        assert text in str(caught.value)
    assert (loader.epoch, loader.batch) == (0, 0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch": 4}, "batch must be a number from 0 up to 3, not 4"),
        ({"batch": -1}, "not -1"),
        ({"epoch": 1.0}, r"epoch must be a number from 0, not 1\.0"),
        ({"epoch": None}, "not None"),
        ({"seed": True}, "seed is True in the state, 1 here"),
        ({"rank": 3}, "rank is unknown"),
    ],
)
def test_a_broken_state(change: dict[str, Any], said: str) -> None:
    loader = DataLoader(arrays(6), 2, seed=1)
    with pytest.raises(StateMismatchError, match=said):
        loader.load_state_dict({**loader.state_dict(), **change})
    with pytest.raises(StateMismatchError, match=r"samples is missing in the state.*batch must be"):
        loader.load_state_dict({})


@pytest.mark.parametrize(
    ("count", "options", "error", "said"),
    [
        (0, {}, ValueError, "the dataset is empty"),
        (4, {"batch_size": 0}, ValueError, "batch_size must be at least 1, not 0"),
        (4, {"batch_size": 2.0}, TypeError, "whole number, not 2.0"),
        (4, {"workers": -1}, ValueError, "workers must be at least 0"),
        (4, {"prefetch": -1}, ValueError, "prefetch must be at least 0"),
        (4, {"seed": -1}, ValueError, "seed must be at least 0"),
        (4, {"batch_size": 5, "drop_last": True}, ValueError, "4 samples do not fill a batch of 5"),
        (4, {"processes": True}, ValueError, "needs workers"),
    ],
)
def test_bad_arguments(
    count: int, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        DataLoader(arrays(count), **{"batch_size": 2, **options})


def test_seeking_outside() -> None:
    loader = DataLoader(arrays(4), 2)
    with pytest.raises(ValueError, match="no batch 3: an epoch has 2"):
        loader.seek(0, 3)
    with pytest.raises(ValueError, match="epoch must be at least 0"):
        loader.seek(-1)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"missing": 5}, r"sample 5 \(5.bin\) could not be read: FileNotFoundError: no file 5.bin"),
        ({"long": 5}, r"sample 5 \(5.bin\) is \(float64\[3\], int64\[\]\), but sample 4 \(4.bin\)"),
        ({"single": 5}, r"sample 5 .* is \(float64\[2\]\), but sample 4"),
        ({"whole": 5}, r"is \(float32\[2\], int64\[\]\), but sample 4"),
        ({"text": 5}, r"sample 5 \(5.bin\) is \(float64\[2\], <U5\[\]\); its fields must be"),
        ({"bare": 5}, "sample 5 .* must be a tuple or dict of arrays and numbers, not ndarray"),
    ],
)
def test_a_bad_sample_is_named(cases: Any, workers: int, bad: dict[str, int], said: str) -> None:
    loader = DataLoader(cases.Numbers(8, **bad), 2, workers=workers)
    seen: list[list[int]] = []
    with pytest.raises(SampleError, match=said) as caught:
        seen.extend(batch[1].tolist() for batch in loader)
    assert seen == [[0, 1], [2, 3]]
    assert caught.value.index == 5
    assert isinstance(caught.value.__cause__, FileNotFoundError) == ("missing" in bad)
    assert (loader.epoch, loader.batch) == (0, 2)


def test_batches_that_do_not_fit_each_other(cases: Any) -> None:
    loader = DataLoader(cases.Numbers(8, long=5), 1)
    with pytest.raises(SampleError, match=r"sample 5 \(5.bin\) is .* but sample 0 \(0.bin\) is"):
        list(loader)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("transform", "said", "cause"),
    [
        (lambda sample, _: 1 / (sample[1] - 5),
         "sample 0: the transform's result must be a tuple .* not float64", None),
        (lambda sample, _: dict[int, int]()[int(sample[1])],
         "sample 0 could not be transformed: KeyError: 0", KeyError),
        (lambda sample, _: (), "not an empty tuple", None),
    ],
)  # fmt: skip
def test_a_bad_transform(workers: int, transform: Any, said: str, cause: Any) -> None:
    loader = DataLoader(arrays(4), 2, transform=transform, workers=workers)
    with pytest.raises(SampleError, match=said) as caught:
        next(iter(loader))
    assert type(caught.value.__cause__) is (cause or type(None))
    assert caught.value.index == 0


class Lying(ArrayDataset):
    """Its `batch` fails, or returns other rows than requested."""

    def batch(self, indices: Any) -> Any:
        if len(self) == 3:
            raise OSError("disk on fire")
        return tuple(array[:1] for array in self.arrays)


def test_a_bad_batch() -> None:
    with pytest.raises(SampleError, match=r"sample 0 or one of the 1 others .* OSError: disk"):
        next(iter(DataLoader(Lying(np.zeros(3)), 2)))
    with pytest.raises(SampleError, match=r"returned \[1\] rows for 2 indices"):
        next(iter(DataLoader(Lying(np.zeros(4)), 2)))


@pytest.mark.parametrize("workers", [0, 2])
def test_two_loops_over_one_loader(workers: int) -> None:
    loader = DataLoader(arrays(8), 2, workers=workers)
    first = iter(loader)
    next(first)
    with pytest.warns(UserWarning, match="begins with batch 1 of epoch 0, where an earlier one"):
        second = iter(loader)
    assert rumus_threads() == []
    assert next(second)[1].tolist() == [2, 3]
    with pytest.raises(RuntimeError, match="this loop over the loader has ended"):
        next(first)
    loader.seek(0)
    with pytest.raises(RuntimeError, match="this loop over the loader has ended"):
        next(second)
    assert [batch[1][0] for batch in loader] == [0, 2, 4, 6]


def test_a_loop_that_failed_does_not_end_the_epoch(cases: Any) -> None:
    loader = DataLoader(cases.Numbers(4, missing=2), 2)
    loop = iter(loader)
    next(loop)
    with pytest.raises(SampleError):
        next(loop)
    with pytest.raises(RuntimeError, match="has ended"):
        next(loop)
    assert (loader.epoch, loader.batch) == (0, 1)


def test_leaving_a_loop_stops_its_threads() -> None:
    loader = DataLoader(arrays(100), 1, workers=3, prefetch=5)
    for _ in loader:
        assert rumus_threads() != []
        break
    assert rumus_threads() == []
    loader.seek(0)

    def fail() -> None:
        for _ in loader:
            raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        fail()
    assert rumus_threads() == []


def test_no_more_than_requested_is_made_ahead() -> None:
    made = []

    def note(sample: tuple[Any, ...], _: np.random.Generator) -> tuple[Any, ...]:
        made.append(1)
        return sample

    loop = iter(DataLoader(arrays(100), 1, workers=2, prefetch=3, transform=note))
    assert made == []
    next(loop)
    deadline = time.monotonic() + 60
    while len(made) < 6 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    assert len(made) == 6  # the one that was yielded, one for each worker, three waiting


def test_ctrl_c_stops_threads_between_samples() -> None:
    main, done = threading.main_thread().ident, []

    def interrupting(sample: Any, _: np.random.Generator) -> Any:
        done.append(1)
        if len(done) == 20:
            assert main is not None
            signal.pthread_kill(main, signal.SIGINT)
        time.sleep(0.002)
        return sample

    loader = DataLoader(arrays(5000), 5000, transform=interrupting, workers=1)
    with pytest.raises(KeyboardInterrupt):
        next(iter(loader))
    assert len(done) < 5000
    assert (loader.epoch, loader.batch) == (0, 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_tensors(backend: Backend, workers: int) -> None:
    plain = DataLoader(arrays(9), 2, shuffle=True)
    loader = DataLoader(arrays(9), 2, shuffle=True, workers=workers, backend=backend)
    for wanted, found in zip(plain, loader, strict=True):
        x, y = found
        assert isinstance(x, Tensor)
        assert x.backend is backend
        assert (x * 2).sum().item() == 2 * wanted[0].sum()
        np.testing.assert_array_equal(x.numpy(), wanted[0])
        np.testing.assert_array_equal(y.numpy(), wanted[1])


def test_training_while_batches_are_uploaded(backend: Backend) -> None:
    """Including while a step is recorded, which an upload on its own thread would disturb."""

    def trained(workers: int, ahead: Backend | None) -> bytes:
        loader = DataLoader(arrays(40), 2, shuffle=True, workers=workers, backend=ahead)
        weight = Parameter([0.5, -0.5], name="weight", backend=backend)
        trainer = Trainer(SGD([weight], 1e-4))
        for x, y in loader:
            trainer.train_step(lambda x, y: ((x @ weight - y) ** 2).mean(), x, y)
        assert trainer.epoch_avg_loss() > 0
        return weight.numpy().tobytes()

    assert trained(2, backend) == trained(0, backend) == trained(0, None)


def test_data_that_cannot_be_uploaded() -> None:
    from rumus.tensor import NumpyBackend

    loader = DataLoader(ArrayDataset(np.array([2**40, 1])), 2, workers=1, backend=NumpyBackend())
    with pytest.raises(OverflowError, match="int32"):
        next(iter(loader))


def test_processes_make_the_same_batches(cases: Any) -> None:
    def loader(**options: Any) -> DataLoader:
        dataset: Dataset = random_split(cases.Numbers(12), [9, 3])[0]
        return DataLoader(dataset, 2, shuffle=True, transform=cases.noisy, **options)

    wanted = bits(loader())
    found = loader(workers=2, processes=True, prefetch=1)
    assert bits(islice(found, 2)) == wanted[:2]
    found.seek(0, 2)
    assert bits(found) == wanted[2:]


def children() -> set[int]:
    return {int(str(child.pid)) for child in multiprocessing.active_children()}


def test_processes_live_until_the_loader_goes_away(cases: Any) -> None:
    def loader(**options: Any) -> DataLoader:
        return DataLoader(cases.Numbers(9), 2, shuffle=True, transform=cases.noisy, **options)

    plain, found = loader(), loader(workers=2, processes=True)
    alive = set()
    for _ in range(2):
        assert bits(found) == bits(plain)
        assert rumus_threads() == []
        alive |= children()
    assert alive == children()
    assert 1 <= len(alive) <= 2
    found.close()
    assert children() == set()
    assert bits(found) == bits(plain)  # `close` does not end the loader
    assert children()
    assert not children() & alive
    del found
    assert children() == set()


def test_leaving_a_loop_ends_busy_processes(cases: Any) -> None:
    loader = DataLoader(cases.Sleeping(6), 2, workers=1, processes=True, prefetch=1)
    start = time.monotonic()
    next(iter(loader))  # the process is working on the next batch, for a minute
    assert children() == set()
    assert time.monotonic() - start < 50
    assert (loader.epoch, loader.batch) == (0, 1)


@pytest.mark.parametrize("change", ["attribute", "array", "dataset"])
def test_a_changed_dataset_is_sent_again(cases: Any, change: str) -> None:
    dataset = cases.Scaled(4, 1.0)
    loader = DataLoader(dataset, 2, workers=1, processes=True)
    assert [batch["row"][0, 1] for batch in loader] == [1.0, 6001.0]
    before = children()
    if change == "attribute":
        dataset.factor = 2.0
    elif change == "array":
        dataset.values *= 2
    else:
        loader = DataLoader(cases.Scaled(4, 2.0), 2, workers=1, processes=True)
        assert children() == set()
    assert [batch["row"][0, 1] for batch in loader] == [2.0, 12002.0]
    assert change == "dataset" or children() == before


def test_large_batches_come_through_shared_memory(cases: Any) -> None:
    """Growing batches: each equals the one without processes, in its own memory."""

    def loader(**options: Any) -> DataLoader:
        lengths = cases.Scaled(12, 1.5)
        return DataLoader(lengths, 5, **options)

    def told(batches: Any) -> list[Any]:
        return [{n: (a.dtype, a.shape, a.tobytes()) for n, a in b.items()} for b in batches]

    descriptors = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    wanted, found = told(loader()), loader(workers=2, processes=True)
    for _ in range(2):
        batches = list(found)
        batches[0]["row"][...] = 0  # writable, and not shared with anyone
        assert told(batches)[1:] == wanted[1:]
    found.close()
    if descriptors:
        assert len(os.listdir("/proc/self/fd")) <= descriptors + 1  # of the resource tracker


def test_a_process_makes_the_next_batch_while_one_is_taken(cases: Any) -> None:
    tasks = [Task(0, number, np.array([number])) for number in range(2)]
    is_next_made = threading.Event()

    def finish(task: Task, batch: AnyBatch) -> int:
        if task.number == 1:
            is_next_made.set()
        assert is_next_made.wait(30)
        return task.number

    pool = ProcessPool()
    batcher = Batcher(cases.Numbers(2), None, 0)
    assert list(made_by_processes(batcher, tasks, finish, 1, 1, pool)) == [0, 1]
    assert len(children()) == 1
    pool.close()
    assert children() == set()


def test_processes_killed_between_two_loops_are_replaced(cases: Any) -> None:
    loader = DataLoader(cases.Numbers(8), 2, workers=1, processes=True)
    wanted, killed = bits(loader), children()
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    for child in multiprocessing.active_children():
        child.join()
    assert bits(loader) == wanted
    assert not killed & children()


def test_a_fork_has_processes_of_its_own(cases: Any) -> None:
    loader = DataLoader(cases.Numbers(8), 2, workers=1, processes=True)
    wanted, alive = bits(loader), children()
    if not (child := os.fork()):
        code = 1
        try:
            code = 0 if bits(loader) == wanted else 2
            loader.close()
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert children() == alive
    assert bits(loader) == wanted


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("processes", [False, True])
def test_a_fork_does_not_go_on_with_a_loop(cases: Any, processes: bool) -> None:
    """It has neither the threads nor the processes, and would wait for them for ever."""
    loader = DataLoader(cases.Numbers(8), 2, workers=1, processes=processes)
    loop = iter(loader)
    next(loop)
    if not (child := os.fork()):
        code = 1
        try:
            next(loop)
        except RuntimeError as error:
            code = 0 if "another process" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert len(list(loop)) == 3
    loader.close()


def test_a_loader_that_was_left_is_freed_at_once(cases: Any) -> None:
    """Not by the collector of cycles, until which its processes would stay."""
    loader = DataLoader(cases.Sleeping(6), 2, workers=1, processes=True, prefetch=1)
    next(iter(loader))
    gc.collect()
    gc.disable()
    try:
        freed = weakref.ref(loader)
        del loader
        assert freed() is None
    finally:
        gc.enable()


def test_a_daemon_starts_no_processes(cases: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(multiprocessing.current_process()), "daemon", True)
    with pytest.raises(RuntimeError, match="use threads, processes=False"):
        next(iter(DataLoader(cases.Numbers(8), 2, workers=1, processes=True)))


@pytest.mark.parametrize("late", [0, 3])
def test_a_killed_process(cases: Any, late: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """late: how often its exit code is not known yet, as another thread has asked for it."""
    asked, known = count(), cast("property", BaseProcess.exitcode).fget
    assert known is not None
    monkeypatch.setattr(
        BaseProcess,
        "exitcode",
        property(lambda process: known(process) if next(asked) >= late else None),
    )
    loader = DataLoader(cases.Numbers(8), 2, transform=cases.deadly, workers=1, processes=True)
    with pytest.raises(
        WorkerError, match="was killed by signal 9 while it made batch 2 of epoch 0"
    ):
        list(loader)
    assert (loader.epoch, loader.batch) == (0, 2)


@pytest.mark.parametrize(
    ("bad", "transform", "cause", "said"),
    [
        ({"missing": 5}, None, FileNotFoundError, "no file 5.bin"),
        ({}, "strange", RuntimeError, "Unpicklable: 1 and 2"),
    ],
)
def test_an_error_in_a_process(
    cases: Any, bad: dict[str, int], transform: str | None, cause: type[Exception], said: str
) -> None:
    chosen = None if transform is None else getattr(cases, transform)
    loader = DataLoader(cases.Numbers(8, **bad), 2, transform=chosen, workers=1, processes=True)
    with pytest.raises(SampleError, match=r"sample 5 \(5.bin\) could not be") as caught:
        list(loader)
    assert type(caught.value.__cause__) is cause
    assert said in str(caught.value.__cause__)
    assert "In worker process" in caught.value.__notes__[0]
    assert caught.value.index == 5


def test_unsendable_datasets(cases: Any) -> None:
    local = lambda sample, _: sample
    loader = DataLoader(arrays(4), 2, transform=local, workers=1, processes=True)
    with pytest.raises(TypeError, match=r"cannot be sent to a process.*top level of a module"):
        list(loader)
    loader = DataLoader(arrays(4), 2, transform=cases.Refusing(), workers=1, processes=True)
    with pytest.raises(SampleError, match=r"cannot make the dataset or the transform.*not here"):
        list(loader)


def program(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a program in its own process group."""
    path = os.pathsep.join([str(IMPORTABLE), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-c", f"import sys, worker_cases; worker_cases.{code}", *arguments],
        env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
@pytest.mark.parametrize(
    ("number", "to_group"),
    [(signal.SIGINT, True), (signal.SIGTERM, False), (signal.SIGTERM, True), (9, False)],
)
def test_idle_processes_end_with_the_program(tmp_path: Path, number: int, to_group: bool) -> None:
    with program("idle(sys.argv[1])", str(tmp_path)) as running:
        while not (tmp_path / "begun").exists() and running.poll() is None:
            time.sleep(0.01)
        assert (tmp_path / "begun").read_text()
        (os.killpg if to_group else os.kill)(running.pid, number)
        running.communicate(timeout=50)  # ends when the last process has closed stderr
    assert running.returncode in (-number, 128 + number)


def test_ctrl_c_ends_processes_too(tmp_path: Path) -> None:
    """As a terminal sends it, to the whole group: one traceback, and no process remains."""
    with program("busy(sys.argv[1])", str(tmp_path)) as running:
        while not (tmp_path / "begun").exists() and running.poll() is None:
            time.sleep(0.01)
        os.killpg(running.pid, signal.SIGINT)
        _, said = running.communicate(timeout=50)  # ends when the last process has closed it
    assert running.returncode in (-signal.SIGINT, 130)
    assert said.count("Traceback") == 1
    assert said.rstrip().endswith("KeyboardInterrupt")


def test_a_loop_that_is_open_at_exit() -> None:
    with program("open_at_exit()") as running:
        _, said = running.communicate(timeout=50)
    assert (running.returncode, said) == (0, "")


def test_errors_are_picklable() -> None:
    copy = pickle.loads(pickle.dumps(SampleError("sample 3 is bad", 3)))
    assert (str(copy), copy.index) == ("sample 3 is bad", 3)


def test_a_subset_names_the_sample_in_the_whole() -> None:
    dataset = Subset(Lying(np.zeros(3)), [2, 0])
    with pytest.raises(SampleError, match=r"sample 0 \(2 of the whole dataset\) or one"):
        next(iter(DataLoader(dataset, 2)))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_whose_text_fails_names_its_sample(workers: int) -> None:
    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise ZeroDivisionError

    class Dataset:
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> tuple[int]:
            if index == 3:
                raise Unspeakable
            return (index,)

    loader = DataLoader(Dataset(), 2, workers=workers)
    with pytest.raises(SampleError, match="sample 3 could not be read: Unspeakable, whose text"):
        list(loader)
    assert loader.state_dict()["batch"] == 1


@pytest.mark.parametrize("kind", ["data", "stream"])
def test_a_loop_that_was_left_after_the_last_batch_is_over(kind: str) -> None:
    """As by zip, which asks the shorter one first, and by islice."""
    data = arrays(6)
    samples = [data[i] for i in range(6)]
    loader: Any = DataLoader(data, 2) if kind == "data" else StreamLoader(samples, 2)
    whole = bits(loader)
    for leave in (
        lambda: list(zip(range(3), loader, strict=False)),
        lambda: list(islice(loader, 3)),
        lambda: [next(each) for each in [iter(loader)] for _ in range(3)],
    ):
        before = loader.epoch
        leave()
        assert bits(loader) == whole
        assert (loader.epoch, loader.batch) == (before + 2, 0)
    list(islice(loader, 3))
    again: Any = DataLoader(data, 2) if kind == "data" else StreamLoader(samples, 2)
    again.load_state_dict(loader.state_dict())
    assert bits(again) == []  # the rest of the epoch of a checkpoint


def test_a_loop_over_a_stream_that_begins_in_the_middle_is_told() -> None:
    loader = StreamLoader([(row,) for row in range(6)], 2)
    next(iter(loader))
    with pytest.warns(UserWarning, match="begins with batch 1 of epoch 0, where an earlier one"):
        assert len([*loader]) == 2
    next(iter(loader))
    loader.load_state_dict(loader.state_dict())
    assert len([*loader]) == 2
    next(iter(loader))
    loader.seek(loader.epoch)
    assert len([*loader]) == 3


def test_a_loop_that_begins_in_the_middle_is_told() -> None:
    loader = DataLoader(arrays(6), 2)
    whole = bits(loader)
    next(iter(loader))
    with pytest.warns(UserWarning, match="begins with batch 1 of epoch 1, where an earlier one"):
        assert bits(loader) == whole[1:]
    next(iter(loader))
    loader.seek(loader.epoch, loader.batch)
    assert bits(loader) == whole[1:]
    next(iter(loader))
    loader.seek(loader.epoch)
    assert bits(loader) == whole
