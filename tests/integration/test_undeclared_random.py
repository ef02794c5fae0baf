"""A run that draws random numbers resumes exactly, or says why it would not."""

from __future__ import annotations

import functools
import gc
import os
import random
import secrets
import sys
import tempfile
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from noisy_transform import noisy

from rumus import nn
from rumus.optim import SAM, SGD
from rumus.tensor import Generator, Tensor, next_generator, tensor
from rumus.train import (
    ArrayDataset,
    Callback,
    Checkpoints,
    DataLoader,
    Trainer,
    find_lr,
)

X = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
Number = Callable[[], float]
MODULE = np.random.default_rng(7)


class Holder:
    """A user-defined object."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(5)

    def draw(self) -> float:
        return float(self._rng.random())


class Noise(nn.Module):
    """A layer with a generator from another library."""

    def __init__(self, rng: Any) -> None:
        super().__init__()
        self.rng = rng

    def forward(self, x: Tensor) -> Tensor:
        return x * float(self.rng.random())


def of_numpy() -> Number:
    rng = np.random.default_rng(3)
    return rng.random


def old_of_numpy() -> Number:
    rng = np.random.RandomState(3)
    return lambda: rng.rand()


def of_python() -> Number:
    rng = random.Random(3)
    return lambda: rng.random()


def of_rumus() -> Number:
    rng = Generator(3)
    return lambda: float(rng.uniform((1,)).item())


def made_in_each_step() -> Number:
    return lambda: float(next_generator().uniform((1,)).item())


def twister() -> Number:
    rng = np.random.Generator(np.random.MT19937(3))
    return lambda: float(rng.random())


def raw_bits() -> Number:
    rng = np.random.PCG64(3)
    return lambda: float(rng.random_raw()) / 2**64


def hidden_in_an_object() -> Number:
    return Holder().draw


def of_a_module() -> Number:
    return lambda: float(MODULE.random())


def in_a_list() -> Number:
    rngs = [np.random.default_rng(3)]
    return lambda: float(rngs[0].random())


def made_when_first_needed() -> Number:
    @functools.cache
    def rng() -> np.random.Generator:
        return np.random.default_rng(3)

    return lambda: float(rng().random())


def behind_an_iterator() -> Number:
    rng = np.random.default_rng(3)
    numbers: Iterator[float] = iter(lambda: float(rng.random()), None)
    return lambda: next(numbers)


def fitted(
    number: Number,
    folder: Path | None,
    epochs: int,
    *,
    state: Callable[[nn.Module], dict[str, Any]] | None = None,
    wrap: Callable[[Any], Any] = lambda optimizer: optimizer,
    capture: bool = True,
    **options: Any,
) -> tuple[bytes, list[Any]]:
    """The weights and the history of a training whose loss is multiplied by a number."""
    model = nn.Linear(4, 1, generator=Generator(0))
    trainer = Trainer(
        wrap(SGD(model.parameters(), 0.1)),
        state=None if state is None else state(model),
        capture=capture,
    )
    options.setdefault("loader", DataLoader(ArrayDataset(X), 4))
    result = trainer.fit(
        options.pop("loader"),
        lambda x: (model(x) * number()).mean(),
        epochs=epochs,
        checkpoints=None if folder is None else Checkpoints(folder),
        resume=folder is not None and "auto",
        **options,
    )
    return model.weight.numpy().tobytes(), result.history


@pytest.mark.parametrize("capture", [True, False])
@pytest.mark.parametrize(
    ("make", "named"),
    [
        (of_numpy, r"'rng'.*state=\{'rng': rng\}|a NumPy generator"),
        (old_of_numpy, r"'rng', a NumPy generator.*state=\{'rng': rng\}"),
        (of_python, r"'rng', a Python generator.*state=\{'rng': rng\}"),
        (of_rumus, r"'rng', Generator\(seed=3.*state=\{'rng': rng\}"),
        (made_in_each_step, r"a generator that it makes itself.*state=\{'noise': noise\}"),
        (twister, r"'rng', a NumPy generator"),
        (raw_bits, r"'rng', a NumPy generator"),
        (hidden_in_an_object, r"'_rng'.*state=\{'rng': _rng\}"),
        (of_a_module, "'MODULE'"),
        (in_a_list, r"'rngs\[0\]'.*state=\{'noise': rngs\[0\]\}"),
        (made_when_first_needed, r"a NumPy generator.*state=\{'noise': noise\}"),
        (behind_an_iterator, "'rng'"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_state_missing_from_checkpoints_is_refused(
    make: Callable[[], Number], named: str, capture: bool, tmp_path: Path
) -> None:
    fitted(make(), None, 2, capture=capture)  # without checkpoints it does not matter
    with pytest.raises(ValueError, match=f"loss_fn draws from .*({named})"):
        fitted(make(), tmp_path, 2, capture=capture)
    assert not list(tmp_path.glob("step-*"))


def test_whatever_the_optimizer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="loss_fn draws from 'rng'"):
        fitted(of_rumus(), tmp_path, 1, wrap=SAM)
    with pytest.raises(ValueError, match="loss_fn draws from 'rng'"):
        fitted(of_rumus(), tmp_path, 1, accumulate=2)


def goes_on(make: Callable[[], dict[str, Any]], folder: Path) -> bool:
    """Whether a stopped run, resumed with fresh objects, equals an uninterrupted one."""

    def run(folder: Path | None, epochs: int) -> object:
        random.seed(3)
        np.random.seed(3)
        return fitted(folder=folder, epochs=epochs, **make())

    whole = run(None, 4)
    run(folder, 2)
    return run(folder, 4) == whole


@pytest.mark.parametrize("draw", [random.random, np.random.random, lambda: np.random.normal()])
def test_objects_of_the_program_are_followed(draw: Number, tmp_path: Path) -> None:
    def validated() -> dict[str, Any]:
        return {"number": lambda: float(draw()), "validate": lambda: float(draw())}

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert goes_on(validated, tmp_path)


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.random.default_rng(3),
        lambda: np.random.Generator(np.random.MT19937(3)),
        lambda: np.random.RandomState(3),
        lambda: random.Random(3),
        lambda: Noise(np.random.default_rng(3)),
        lambda: Noise(random.Random(3)),
    ],
)
def test_declared_state_resumes(make: Callable[[], Any], tmp_path: Path) -> None:
    def declared() -> dict[str, Any]:
        rng = make()
        if isinstance(rng, Noise):
            number = lambda: rng(tensor([1.0])).item()
        else:
            number = lambda: float(rng.rand() if hasattr(rng, "rand") else rng.random())
        return {"number": number, "state": lambda model: {"model": model, "rng": rng}}

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert goes_on(declared, tmp_path)


def test_an_object_that_saves_its_own_is_trusted(tmp_path: Path) -> None:
    class Saving(Holder):
        def state_dict(self) -> dict[str, Any]:
            return dict(self._rng.bit_generator.state)

        def load_state_dict(self, state: Any) -> None:
            self._rng.bit_generator.state = state

    def declared() -> dict[str, Any]:
        noise = Saving()
        return {"number": noise.draw, "state": lambda model: {"model": model, "noise": noise}}

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert goes_on(declared, tmp_path)


def late() -> dict[str, Any]:
    rng, calls = np.random.default_rng(3), [0]

    def number() -> float:
        calls[0] += 1
        return float(rng.random()) if calls[0] > 4 else 1.0

    return {"number": number}


def in_validation() -> dict[str, Any]:
    rng = Generator(1)
    return {"number": lambda: 1.0, "validate": lambda: float(rng.uniform((1,)).item())}


def in_a_transform() -> dict[str, Any]:
    rng = np.random.default_rng(1)
    transform = lambda sample, _: (sample[0] * np.float32(rng.random()),)
    return {
        "number": lambda: 1.0,
        "loader": DataLoader(ArrayDataset(X), 4, transform=transform),
    }


def in_a_dataset() -> dict[str, Any]:
    class Noisy:
        def __init__(self) -> None:
            self.rng = random.Random(1)

        def __len__(self) -> int:
            return 12

        def __getitem__(self, index: int) -> tuple[Any, ...]:
            return (X[index] * np.float32(self.rng.random()),)

    return {"number": lambda: 1.0, "loader": DataLoader(Noisy(), 4)}


def in_a_loader() -> dict[str, Any]:
    class Own:
        def __init__(self) -> None:
            self.rng = np.random.default_rng(1)

        def __iter__(self) -> Iterator[Any]:
            for start in (0, 4, 8):
                yield (X[start : start + 4] * np.float32(self.rng.random()),)

    return {"number": lambda: 1.0, "loader": Own()}


@pytest.mark.parametrize(
    "make",
    [late, in_validation, in_a_transform, in_a_dataset, in_a_loader],
    ids=lambda f: f.__name__,
)
def test_other_draws_are_reported_when_a_checkpoint_is_saved(
    make: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    """The training may not need it, so it continues."""
    with pytest.warns(UserWarning, match=r"'rng'.* no checkpoint saves it.* state=") as heard:
        fitted(folder=tmp_path, epochs=2, **make())
    assert len(heard) == 1


@pytest.mark.parametrize(
    "draw",
    [lambda: os.urandom(1)[0], lambda: os.getrandom(1)[0], lambda: secrets.randbelow(100),
     random.SystemRandom().random, lambda: np.random.default_rng().random(),
     lambda: uuid.uuid4().int % 100, lambda: random.Random().random(),
     lambda: [random.seed(), random.random()][1]],
)  # fmt: skip
def test_draws_from_the_system_are_told_once(draw: Number, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"draws from the system's random.*Generator") as heard:
        fitted(lambda: float(draw()), tmp_path, 2, capture=False)
    assert len(heard) == 1
    assert sys.getprofile() is None


def test_names_of_temporary_files_are_no_draws(tmp_path: Path) -> None:
    def number() -> float:
        with tempfile.NamedTemporaryFile(dir=tmp_path) as file:
            return float(len(file.name) > 0)

    fitted(number, tmp_path / "run", 2, capture=False)


def test_a_profiler_of_the_program_stays(tmp_path: Path) -> None:
    seen = []
    sys.setprofile(lambda *event: seen.append(event[1]))
    try:
        before = sys.getprofile()
        fitted(lambda: float(os.urandom(1)[0]), tmp_path, 1, capture=False)
        assert sys.getprofile() is before
    finally:
        sys.setprofile(None)
    assert seen


def test_draws_of_other_libraries_do_not_matter(tmp_path: Path) -> None:
    """For example the standard library for its own names, and a loader that is told its epoch."""

    class Temporary(Callback):
        def on_step_end(self, event: object) -> None:
            tempfile.NamedTemporaryFile().close()

    class Told:
        def __init__(self) -> None:
            self.rng = np.random.RandomState(0)

        def set_epoch(self, epoch: int) -> None:
            self.rng.seed(epoch)

        def __iter__(self) -> Iterator[Any]:
            yield (X[:4] * np.float32(self.rng.rand()),)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert goes_on(
            lambda: {"number": lambda: 1.0, "loader": Told(), "callbacks": [Temporary()]}, tmp_path
        )


def drawing(sample: tuple[Any, ...], given: np.random.Generator) -> tuple[Any, ...]:
    return (sample[0] * np.float32(given.random()),)


def batches(**workers: Any) -> list[str]:
    """The warnings while two epochs are made."""
    loader = DataLoader(ArrayDataset(X), 2, **workers)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        assert len([batch for _ in range(2) for batch in loader]) == 12
    return [str(each.message) for each in heard]


@pytest.mark.parametrize("processes", [False, True])
def test_workers_say_once_that_a_transform_draws_from_elsewhere(processes: bool) -> None:
    """Their draws would depend on which worker comes first."""
    workers = 1 if processes else 2
    (said,) = batches(transform=noisy, workers=workers, processes=processes)
    assert "draws from 'numpy.random', a NumPy generator: with workers" in said


def test_workers_say_nothing_of_a_transform_that_draws_as_it_should() -> None:
    assert batches(transform=drawing, workers=2) == []


def test_a_sweep_of_learning_rates_leaves_no_trace() -> None:
    model = nn.Linear(4, 1, generator=Generator(0))
    before = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    trainer = Trainer(SGD(model.parameters(), 0.1))
    find_lr(
        trainer,
        [(X,)],
        lambda x: (model(x) * random.random() * float(np.random.random())).mean(),
        steps=4,
    )
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # type: ignore[index]


def test_objects_that_the_collector_does_not_list(tmp_path: Path) -> None:
    """After `gc.freeze()`, which forking programs call, a module's generator is still found."""
    gc.freeze()
    with pytest.raises(ValueError, match="loss_fn draws from 'MODULE'"):
        fitted(of_a_module(), tmp_path, 2)


def test_runs_in_other_threads_are_not_blamed(tmp_path: Path) -> None:
    """What one declares, draws and saves, another one beside it has nothing to do with."""
    draws, is_drawing = np.random.default_rng(3), threading.Event()

    def declared() -> float:
        is_drawing.set()
        return float(draws.random())

    def other() -> float:
        is_drawing.clear()
        is_drawing.wait(10)  # until the first one has drawn beside it
        return 1.0

    failed: list[BaseException] = []

    def first() -> None:
        state = lambda model: {"model": model, "rng": draws}
        try:
            while training.is_alive():
                with tempfile.TemporaryDirectory() as folder:
                    fitted(declared, Path(folder), 1, state=state, capture=False)
        except BaseException as error:
            failed.append(error)

    def second() -> None:
        try:
            fitted(other, tmp_path, 2, capture=False)
        except BaseException as error:
            failed.append(error)

    training, beside = threading.Thread(target=second), threading.Thread(target=first)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for thread in (training, beside):
            thread.start()
        for thread in (training, beside):
            thread.join(60)
    assert [*map(str, failed), *(str(warning.message) for warning in heard)] == []


def test_a_run_beside_others_is_blamed_for_its_own_draws(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    is_seen, is_done = threading.Event(), threading.Event()

    def waiting() -> float:
        is_seen.set()
        is_done.wait(20)
        return 1.0

    beside = threading.Thread(target=fitted, args=(waiting, tmp_path / "other", 1))
    beside.start()
    assert is_seen.wait(20)
    try:
        with pytest.raises(ValueError, match="loss_fn draws from 'rng'"):
            fitted(lambda: float(rng.random()), tmp_path / "own", 2)
    finally:
        is_done.set()
        beside.join(20)
