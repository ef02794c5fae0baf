"""Streams: batches of samples without indices, ends or lengths, and resuming."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.optim import SGD
from rumus.tensor import Backend, Parameter, StateMismatchError
from rumus.train import Every, SampleError, StreamLoader, Trainer

POSITIONS = 60


def endless(epoch: int) -> Iterator[tuple[NDArray[Any]]]:
    return ((np.array([i, epoch], np.float32),) for i in count())


class Counter:
    """A stream with a state, which counts what was read again."""

    def __init__(self, end: int | None = None) -> None:
        self.end, self.at, self.reads = end, 0, 0
        self._goes_on = False

    def __iter__(self) -> Iterator[tuple[NDArray[Any]]]:
        if not self._goes_on:
            self.at = 0
        self._goes_on = False
        while self.end is None or self.at < self.end:
            self.reads += 1
            self.at += 1
            yield (np.array([self.at - 1, 0], np.float32),)

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.at, self._goes_on = state["at"], True


def fields(loader: StreamLoader) -> Iterator[NDArray[Any]]:
    """The only field of each batch."""
    for batch in loader:
        assert isinstance(batch, tuple)
        yield batch[0]


def noisy(sample: tuple[Any, ...], generator: np.random.Generator) -> tuple[Any, ...]:
    return (sample[0] + generator.random(2).astype(np.float32),)


KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "function": (lambda: endless, {}),
    "function, shuffled": (lambda: endless, {"shuffle": 7}),
    "state": (Counter, {}),
    "state, shuffled": (Counter, {"shuffle": 7}),
    "state, ahead": (Counter, {"prefetch": 3}),
    "state, shuffled, ahead": (Counter, {"shuffle": 7, "prefetch": 2}),
}


@pytest.mark.parametrize("name", KINDS)
def test_an_endless_stream_resumes_at_each_position(name: str) -> None:
    """The batches after each of 60 positions equal those of an uninterrupted loop."""
    make, options = KINDS[name]
    loader = StreamLoader(make(), 3, transform=noisy, seed=5, **options)
    whole = [*islice(fields(loader), POSITIONS + 4)]
    loader = StreamLoader(make(), 3, transform=noisy, seed=5, **options)
    loop = iter(loader)
    for position in range(POSITIONS):
        state = json.loads(json.dumps(loader.state_dict()))
        again = StreamLoader(make(), 3, transform=noisy, seed=5, **options)
        again.load_state_dict(state)
        found = [*islice(fields(again), 3)]
        assert (again.epoch, again.batch) == (0, position + 3)
        for one, other in zip(found, whole[position : position + 3], strict=True):
            assert one.tobytes() == other.tobytes()
        next(loop)


def test_a_stream_with_a_state_reads_nothing_again() -> None:
    loader = StreamLoader(Counter(), 4)
    list(islice(iter(loader), 50))
    stream = Counter()
    again = StreamLoader(stream, 4)
    again.load_state_dict(loader.state_dict())
    assert next(fields(again))[:, 0].tolist() == [200, 201, 202, 203]
    assert stream.reads == 4


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("shuffle", [0, 4])
def test_epochs_of_a_stream_that_ends(shuffle: int, prefetch: int) -> None:
    stream = lambda epoch: ((float(i),) for i in range(10))
    loader = StreamLoader(stream, 3, shuffle=shuffle, prefetch=prefetch)
    epochs = [[batch.tolist() for batch in fields(loader)] for _ in range(2)]
    assert [len(batch) for batch in epochs[0]] == [3, 3, 3, 1]
    for epoch in epochs:
        assert sorted(chain.from_iterable(epoch)) == list(range(10))
    assert (epochs[0] == epochs[1]) == (not shuffle)
    assert (loader.epoch, loader.batch) == (2, 0)
    whole = StreamLoader(stream, 3, drop_last=True)
    assert [len(batch) for batch in fields(whole)] == [3, 3, 3]


@pytest.mark.parametrize("value", [-1, "3", None, 2.5, float("nan"), True, [1], {}])
def test_a_place_is_counts(value: Any) -> None:
    loader = StreamLoader(Counter(20), 3, shuffle=4)
    next(iter(loader))
    before = loader.state_dict()
    for name in ("epoch", "batch", "block", "start", "offset"):
        with pytest.raises(StateMismatchError, match=f"{name} must be a whole number, 0 or more"):
            loader.load_state_dict(before | {name: value})
    assert loader.state_dict() == before


def test_an_abandoned_loop_is_resumed() -> None:
    for prefetch in (0, 3):
        loader = StreamLoader(Counter(20), 3, prefetch=prefetch)
        first = [batch[0, 0] for batch in islice(fields(loader), 2)]
        with pytest.warns(UserWarning, match="begins with batch 2 of epoch 0"):
            rest = [batch[0, 0] for batch in fields(loader)]
        assert first + rest == [0, 3, 6, 9, 12, 15, 18]


def parameters_after(stream: Any, folder: Path, steps: int, resume: Any) -> tuple[bytes, Any]:
    weight = Parameter(np.ones(2, np.float32), name="weight")
    trainer = Trainer(SGD([weight], 0.001))
    loader = StreamLoader(stream, 2, shuffle=5, transform=noisy)
    loss = lambda x: ((weight * x - 1.0) ** 2).mean()
    result = trainer.fit(
        loader, loss, steps=steps, checkpoints=folder, resume=resume, save_every=Every(steps=1)
    )
    return weight.numpy().tobytes(), result


@pytest.mark.parametrize("make", [lambda: endless, Counter], ids=["function", "state"])
def test_fit_resumes_an_endless_stream(make: Callable[[], Any], tmp_path: Path) -> None:
    whole, result = parameters_after(make(), tmp_path / "whole", 20, False)
    assert (result.reason, result.steps) == ("steps", 20)
    for stop in (1, 7, 13):
        folder = tmp_path / str(stop)
        parameters_after(make(), folder, stop, False)
        assert parameters_after(make(), folder, 20, True)[0] == whole


def test_batches_on_a_device(backend: Backend) -> None:
    loader = StreamLoader(lambda epoch: iter([{"x": 1.0}, {"x": 2.0}]), 2, backend=backend)
    (batch,) = list(loader)
    assert isinstance(batch, dict)
    assert batch["x"].tolist() == [1.0, 2.0]


def test_bad_input() -> None:
    with pytest.raises(TypeError, match=r"must not be an iterator.*a function of the epoch"):
        StreamLoader(iter([(1.0,)]), 2)
    with pytest.raises(TypeError, match="int is neither"):
        StreamLoader(3, 2)  # type: ignore[arg-type]
    for name, value in (("batch_size", 0), ("shuffle", -1), ("prefetch", -1), ("seed", -1)):
        options: dict[str, Any] = {"batch_size": 1, name: value}
        with pytest.raises(ValueError, match=name):
            StreamLoader(endless, **options)

    def broken(epoch: int) -> Iterator[tuple[float]]:
        yield (1.0,)
        raise OSError("the line is down")

    with pytest.raises(SampleError, match=r"sample 1 of epoch 0 .* OSError: the line is down"):
        list(StreamLoader(broken, 4))
    mixed = lambda epoch: iter([(1.0,), {"x": 1.0}])
    with pytest.raises(SampleError, match="sample 1 is"):
        list(StreamLoader(mixed, 2))
    with pytest.raises(SampleError, match=r"must be a tuple or dict.*not float"):
        list(StreamLoader(lambda epoch: iter([1.0]), 2))
    loader = StreamLoader(endless, 2)
    next(iter(loader))
    changes: list[tuple[dict[str, Any], str]] = [
        ({"batch_size": 3}, "batch_size is 3 in the state, 2 here"),
        ({"extra": 3}, "extra is unknown"),
        ({"state": {}}, "the stream had a state_dict when it was saved"),
        ({"seed": -1.5}, "seed is -1.5 in the state"),
        ({"offset": 2}, "offset must be below 2, not 2"),
    ]
    for change, told in changes:
        with pytest.raises(StateMismatchError, match=told):
            loader.load_state_dict({**loader.state_dict(), **change})
    shorter = StreamLoader(lambda epoch: iter([(1.0,)]), 2)
    shorter.load_state_dict(loader.state_dict())
    with pytest.raises(ValueError, match="had yielded 2 samples when it was saved"):
        next(iter(shorter))


def test_a_block_that_has_become_shorter_is_another_stream() -> None:
    """Its samples would be left out silently."""
    loader = StreamLoader(lambda epoch: iter([(n,) for n in range(8)]), 2, shuffle=8, seed=0)
    batches = iter(loader)
    next(batches), next(batches)
    shorter = StreamLoader(lambda epoch: iter([(n,) for n in range(3)]), 2, shuffle=8, seed=0)
    shorter.load_state_dict(loader.state_dict())
    with pytest.raises(ValueError, match=r"had yielded 4 samples when it was saved.* has 3 now"):
        list(shorter)
