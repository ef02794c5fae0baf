"""A run that is stopped anywhere and resumed equals one that never stopped, bit for bit."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

import rumus.train.loop.continuation
from rumus.optim import EMA, SGD, Adam, AdamW, ClipNorm, LossScale, Optimizer, Plateau, warmup
from rumus.optim.options.schedule import cosine
from rumus.tensor import Backend, Generator, Parameter, StateMismatchError, Tensor, float16, float32
from rumus.train import (
    ArrayDataset,
    Callback,
    CheckpointError,
    Checkpoints,
    CheckpointSaved,
    CheckpointWarning,
    DataLoader,
    EarlyStopping,
    Every,
    FeedPlateau,
    Interrupted,
    LocalFileSystem,
    NoCheckpointError,
    Result,
    StepEnd,
    StreamLoader,
    Trainer,
    TrainStart,
    ValidationEnd,
)

STEPS: Final = 60
Batch = tuple[NDArray[Any], NDArray[Any]]


class Shuffled:
    """A loader that saves its position: 41 samples in batches of up to 4, reshuffled each epoch."""

    def __init__(self) -> None:
        self.epoch = self.batch = 0

    def __len__(self) -> int:
        return 11

    def __iter__(self) -> Iterator[Batch]:
        random = np.random.default_rng(self.epoch)
        order = random.permutation(41)
        x = np.sin(np.arange(41 * 3, dtype=np.float32)).reshape(41, 3)
        while self.batch < len(self):
            rows = order[self.batch * 4 : self.batch * 4 + 4]
            self.batch += 1
            yield x[rows], x[rows].sum(axis=1, keepdims=True)
        self.epoch, self.batch = self.epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.epoch, self.batch = state["epoch"], state["batch"]


class Epochs:
    """A loader without a saved position: its batches are counted. `set_epoch` selects the order."""

    def __init__(self) -> None:
        self.source = Shuffled()

    def set_epoch(self, epoch: int) -> None:
        self.source = Shuffled()
        self.source.epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.source)


class Unsynced(LocalFileSystem):
    """Does not wait for the disk, which other tests cover."""

    def fsync(self, descriptor: int) -> None: ...

    def sync_folder(self, folder: Path) -> None: ...


class Losses(Callback):
    """The log of a run: each step's loss, and each validation."""

    def __init__(self, stop_at: int | None) -> None:
        self.log: dict[int, list[str]] = {}
        self.validations: dict[int, list[str]] = {}
        self.stop_at = stop_at

    def on_step_end(self, event: StepEnd) -> None:
        self.log[event.step] = [repr(event.loss.item()), repr(event.learning_rate)]
        if event.step == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_validation_end(self, event: ValidationEnd) -> None:
        self.validations[event.step] = [*map(repr, event.metrics.values())]


@dataclass
class Made:
    """The objects that each process makes anew: an optimizer, its data and its loss."""

    optimizer: Optimizer[Any]
    loss: Callable[..., Tensor]
    parameters: list[Parameter]
    state: dict[str, Any]
    options: dict[str, Any]
    loader: Any
    loss_scale: LossScale | None = None


def made(kind: Callable[..., Optimizer[Any]], loader: Any = None, **options: Any) -> Made:
    random = np.random.default_rng(0)
    hidden = Parameter(random.normal(size=(3, 5)).astype(np.float32), name="hidden")
    output = Parameter(random.normal(size=(5, 1)).astype(np.float32), name="output")

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return (((x @ hidden).tanh() @ output - y) ** 2).mean()

    optimizer = kind([hidden, output])
    return Made(optimizer, loss, [hidden, output], {}, options, loader or Shuffled())


def plain() -> Made:
    return made(lambda p: AdamW(p, 0.01))


def counted() -> Made:
    return made(lambda p: SGD(p, 0.05, momentum=0.9, nesterov=True), Epochs())


def scheduled() -> Made:
    return made(lambda p: Adam(p, warmup(10).then(cosine(0.05, 50))))


def clipped() -> Made:
    """A schedule, and gradients clipped by norm in the update."""
    return made(lambda p: AdamW(p, warmup(10).then(cosine(0.05, 50)), clip=ClipNorm(0.5)))


def averaged() -> Made:
    """Validated with an exponential moving average."""
    found = made(lambda p: AdamW(p, 0.01, average=EMA(0.9)))
    output = found.parameters[1]
    found.options = {
        "validate": lambda: float((output * output).sum()),
        "validate_every": Every(steps=4),
    }
    return found


def mixed() -> Made:
    """float16 parameters and activations, and a loss scale that falls and rises."""
    random = np.random.default_rng(0)
    hidden = Parameter(random.normal(size=(3, 5)), dtype=float16, name="hidden")
    output = Parameter(random.normal(size=(5, 1)), dtype=float16, name="output")

    def loss(x: Tensor, y: Tensor) -> Tensor:
        found = (x.astype(float16) @ hidden).tanh() @ output
        return ((found.astype(float32) - y) ** 2).mean()

    optimizer = AdamW([hidden, output], 0.01, master_weights=True)
    policy = LossScale(initial=2.0**20, every=8)
    return Made(optimizer, loss, [hidden, output], {}, {}, Shuffled(), policy)


def dropout() -> Made:
    """Masks from a named generator."""
    found = made(lambda p: AdamW(p, 0.01))
    random, loss = Generator(5), found.loss

    def masked(x: Tensor, y: Tensor) -> Tensor:
        return loss(random.keep(0.7, x.shape).where(x, 0.0), y)

    found.loss = masked
    found.state = {"dropout": random, "unused": np.random.default_rng(1)}
    return found


def validated() -> Made:
    """A plateau schedule, the best metric, and early stopping that does not stop yet."""
    lr = Plateau(0.05, factor=0.5, patience=1, mode="min")
    found = made(lambda p: SGD(p, lr))
    output = found.parameters[1]
    found.options = {
        "validate": lambda: {"norm": float((output * output).sum()), "odd": found.loader.epoch % 2},
        "validate_every": Every(steps=5, epochs=1),
        "callbacks": [FeedPlateau(lr, "norm"), EarlyStopping("norm", patience=50, mode="min")],
        "monitor": "norm",
        "mode": "min",
    }
    return found


def skipping() -> Made:
    found = made(lambda p: AdamW(p, 0.01))
    loss = found.loss

    def sometimes(x: Tensor, y: Tensor) -> Tensor:
        bad = float(x.numpy()[0, 0]) > 0.9
        return loss(x, y) * (np.nan if bad else 1.0)

    found.loss = sometimes
    found.options = {"nonfinite": "skip"}
    return found


def accumulating() -> Made:
    """An epoch has 11 batches; its last step has 2, and the last batch 1 sample instead of 4."""
    return made(lambda p: AdamW(p, 0.01), accumulate=3)


def augment(sample: tuple[Any, ...], random: np.random.Generator) -> tuple[Any, ...]:
    x, y = sample
    return x + random.normal(scale=0.1, size=x.shape).astype(np.float32), y


def augmented(workers: int = 0) -> Made:
    """Shuffled by a `DataLoader`, and augmented at random in each epoch."""
    x = np.sin(np.arange(41 * 3, dtype=np.float32)).reshape(41, 3)
    data = ArrayDataset(x, x.sum(axis=1, keepdims=True))
    loader = DataLoader(data, 4, shuffle=True, transform=augment, workers=workers)
    return made(lambda p: AdamW(p, 0.01), loader)


def workers() -> Made:
    """They make batches ahead, which are made again after a resume."""
    return augmented(2)


VARIANTS: Final = {
    f.__name__: f
    for f in (
        plain, counted, scheduled, clipped, averaged, mixed, dropout, validated, skipping,
        accumulating, augmented, workers,
    )
}  # fmt: skip
EVERY_STEP: Final = ("plain", "validated")


@dataclass
class Done:
    log: dict[int, list[str]]
    validations: dict[int, list[str]]
    result: Result | None
    digest: str


def train(variant: str, folder: Path | None, stop_at: int | None = None, **options: Any) -> Done:
    """Run a variant with its objects, from the newest checkpoint if there is one."""
    found = VARIANTS[variant]()
    losses = Losses(stop_at)
    checkpoints = None if folder is None else Checkpoints(folder, file_system=Unsynced())
    resume = folder is not None and "auto"
    options = {"callbacks": [], "resume": resume, "save_every": Every(), **found.options, **options}
    options["callbacks"] = [losses, *options["callbacks"]]
    trainer = Trainer(found.optimizer, state=found.state, loss_scale=found.loss_scale)
    fit = partial(trainer.fit, found.loader, found.loss, steps=STEPS, checkpoints=checkpoints)
    result = None
    if stop_at is None:
        result = fit(**options)
    else:
        with pytest.raises(Interrupted) as interrupted:
            fit(**options)
        assert (interrupted.value.code, interrupted.value.step) == (143, stop_at)
    digest = hashlib.sha256()
    for parameter in found.parameters:
        digest.update(parameter.numpy().tobytes())
    state = found.optimizer.state_dict()  # type: ignore[attr-defined]
    for entry in state["parameters"].values():
        for value in entry["state"].values():
            digest.update(value.tobytes())
    digest.update(repr([state["steps"], state["skipped"]]).encode())
    scale = trainer.loss_scale
    digest.update(repr(None if scale is None else scale.item()).encode())
    return Done(losses.log, losses.validations, result, digest.hexdigest())


def steps_to_stop_at(variant: str, request: pytest.FixtureRequest) -> list[int]:
    """All steps for some variants, or if requested; the last of an epoch for all."""
    if variant in EVERY_STEP or request.config.getoption("--every-step"):
        return list(range(1, STEPS + 1))
    return [*range(7, STEPS, 7), 11, STEPS]


@pytest.mark.parametrize("variant", VARIANTS)
def test_stopped_anywhere_and_resumed(
    variant: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    whole = train(variant, None)
    assert whole.result is not None
    assert len(whole.log) == STEPS
    for step in steps_to_stop_at(variant, request):
        folder = tmp_path / str(step)
        first = train(variant, folder, stop_at=step)
        assert list(first.log) == list(range(1, step + 1))
        second = train(variant, folder)
        assert {**first.log, **second.log} == whole.log, step
        assert {**first.validations, **second.validations} == whole.validations, step
        assert list(second.log) == list(range(step + 1, STEPS + 1))
        assert second.digest == whole.digest, step
        assert second.result is not None
        assert second.result.history == whole.result.history, step
        assert second.result.best == whole.result.best


def test_killed_and_resumed_from_an_earlier_checkpoint(tmp_path: Path) -> None:
    class Killed(Callback):
        def on_step_end(self, event: StepEnd) -> None:
            if event.step == 33:
                raise SystemExit("killed")

    whole = train("dropout", None)
    with pytest.raises(SystemExit, match="killed"):
        train("dropout", tmp_path, save_every=Every(steps=10), callbacks=[Killed()])
    shutil.rmtree(tmp_path / "step-00000033")  # as SIGKILL would have prevented it
    found = train("dropout", tmp_path)
    assert list(found.log) == list(range(31, 61))
    assert found.digest == whole.digest


@pytest.mark.parametrize("steps", [1, 7, 22])
def test_saving_changes_nothing(steps: int, tmp_path: Path) -> None:
    whole = train("plain", None)
    saved = train("plain", tmp_path, save_every=Every(steps=steps))
    assert (saved.log, saved.digest) == (whole.log, whole.digest)


def test_a_run_that_is_complete(tmp_path: Path) -> None:
    first = train("plain", tmp_path)
    second = train("plain", tmp_path)
    assert second.log == {}
    assert second.digest == first.digest
    assert second.result is not None
    assert second.result.reason == "steps"


# What to resume


def test_nothing_to_resume(tmp_path: Path) -> None:
    found = plain()
    trainer = Trainer(found.optimizer)
    with pytest.raises(NoCheckpointError, match="holds no checkpoint"):
        trainer.fit(found.loader, found.loss, steps=1, checkpoints=tmp_path, resume=True)
    with pytest.raises(NoCheckpointError, match="step 7"):
        trainer.fit(found.loader, found.loss, steps=1, resume=tmp_path / "step-00000007")
    with pytest.raises(ValueError, match="give checkpoints=folder"):
        trainer.fit(found.loader, found.loss, steps=1, resume=True)
    with pytest.raises(ValueError, match='resume="auto" has no effect without checkpoints='):
        trainer.fit(found.loader, found.loss, steps=1, resume="auto")


def test_a_fresh_start_among_old_checkpoints(tmp_path: Path) -> None:
    train("plain", tmp_path)
    found = plain()
    with pytest.raises(CheckpointError, match="of another run, up to step 60"):
        Trainer(found.optimizer).fit(found.loader, found.loss, steps=1, checkpoints=tmp_path)


def test_a_path(tmp_path: Path) -> None:
    """From an earlier checkpoint of the folder, and from another folder into a new one."""
    whole = train("plain", tmp_path / "a", save_every=Every(steps=20))
    for folder in ("a", "b"):
        found = train("plain", tmp_path / folder, resume=tmp_path / "a" / "step-00000040")
        assert list(found.log) == list(range(41, 61))
        assert found.digest == whole.digest
        assert Checkpoints(tmp_path / folder).latest == 60


# What does not fit


def test_a_checkpoint_of_another_model(tmp_path: Path) -> None:
    """Every difference in one error, and nothing has changed."""
    train("dropout", tmp_path)
    weight = Parameter([1.0, 2.0], name="hidden")
    extra = Parameter([3.0], name="extra")
    trainer = Trainer(SGD([weight, extra], 0.1, momentum=0.9), state={"noise": Generator(1)})
    before = weight.tolist(), extra.tolist()
    with pytest.raises(StateMismatchError, match="does not fit; nothing was loaded") as error:
        trainer.fit([(1.0,)], lambda x: (weight * x).sum(), steps=70, resume=tmp_path)
    for told in (
        "'extra' is here, not saved",
        "'output' was saved, but is not here",
        "'hidden': shape (3, 5) was saved, but here it is (2,)",
        "kind: saved AdamW, here SGD",
        "random: saved ['dropout', 'unused'], here ['noise']",
        "the loader's position was saved by its state_dict, but here it is found by counting",
    ):
        assert told in str(error.value)
    assert (weight.tolist(), extra.tolist()) == before
    assert trainer.optimizer.steps == 0


def test_a_fitting_part_is_restored(tmp_path: Path) -> None:
    train("plain", tmp_path)
    found = plain()
    trainer = Trainer(found.optimizer, state={"counter": Shuffled()})
    before = [p.tolist() for p in found.parameters]
    with pytest.raises(StateMismatchError, match="counter: here, not saved"):
        trainer.fit(found.loader, found.loss, steps=70, resume=tmp_path)
    assert [p.tolist() for p in found.parameters] == before
    assert (found.optimizer.steps, found.loader.batch) == (0, 0)


def test_a_shorter_loader(tmp_path: Path) -> None:
    train("counted", tmp_path, stop_at=9)
    found = counted()
    batches = list(Shuffled())[:3]
    with pytest.raises(ValueError, match=r"had yielded 9 batches .*has fewer now"):
        Trainer(found.optimizer).fit(batches, found.loss, steps=70, resume=tmp_path)


@pytest.mark.parametrize("name", ["a b", "optimizer", "ä", ""])
def test_names_of_state(name: str) -> None:
    with pytest.raises(ValueError, match="state: "):
        Trainer(plain().optimizer, state={name: Shuffled()})


def test_unsaveable_state() -> None:
    found = plain()
    others: list[Any] = [0, [], np.ones(2)]  # an empty one was taken for none
    for other in others:
        with pytest.raises(TypeError, match="state must map names to objects"):
            Trainer(found.optimizer, state=other)
    with pytest.raises(TypeError, match="'model' is object, which holds no state"):
        Trainer(found.optimizer, state={"model": object()})


class Kept:
    """An object whose state no checkpoint can hold."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]


@pytest.mark.parametrize("value", [np.float32(1), (1, 2), b"x"])
@pytest.mark.parametrize("is_callback", [False, True])
def test_a_state_that_cannot_be_saved_is_refused_before_the_first_step(
    tmp_path: Path, value: Any, is_callback: bool
) -> None:
    class Own(Kept, Callback): ...

    found = plain()
    before = found.optimizer.steps
    trainer = Trainer(found.optimizer, state={} if is_callback else {"own": Kept(value)})
    with pytest.raises(TypeError, match=r"\['value'\] is a"):
        trainer.fit(
            found.loader,
            found.loss,
            steps=1,
            checkpoints=tmp_path,
            callbacks=[Own(value)] if is_callback else [],
        )
    assert found.optimizer.steps == before
    assert not list(tmp_path.glob("step-*"))


def test_a_callback_may_have_its_state_only_once_the_run_has_begun(tmp_path: Path) -> None:
    class Late(Callback):
        value: list[int]

        def on_train_start(self, event: TrainStart) -> None:
            self.value = [3]

        def state_dict(self) -> dict[str, Any]:
            return {"value": self.value}

    found = plain()
    trainer = Trainer(found.optimizer)
    trainer.fit(found.loader, found.loss, steps=1, checkpoints=tmp_path, callbacks=[Late()])
    assert [each.step for each in Checkpoints(tmp_path).list()] == [1]


def test_a_failed_save_does_not_end_the_training(tmp_path: Path) -> None:
    paths: list[Path | None] = []

    class Look(Callback):
        def on_checkpoint(self, event: CheckpointSaved) -> None:
            paths.append(event.path)

    class Full(Unsynced):
        def fsync(self, descriptor: int) -> None:
            if len(paths) == 1:
                raise OSError(28, "No space left on device")

    found = plain()
    with pytest.warns(CheckpointWarning, match=r"step 2 was not saved: .*No space left"):
        Trainer(found.optimizer).fit(
            found.loader, found.loss, steps=3, callbacks=[Look()], save_every=Every(steps=1),
            checkpoints=Checkpoints(tmp_path, file_system=Full()),
        )  # fmt: skip
    assert paths == [tmp_path / "step-00000001", None, tmp_path / "step-00000003"]


@pytest.mark.parametrize("saved", [True, False])
def test_a_last_save_that_fails_is_told_of(tmp_path: Path, *, saved: bool) -> None:
    class Full(Unsynced):
        def fsync(self, descriptor: int) -> None:
            if not saved or found.optimizer.steps == 3:
                raise OSError(28, "No space left on device")

    found = plain()
    told = r"the last is .*step-00000002\. " if saved else r"there is no checkpoint\. "
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Trainer(found.optimizer).fit(
            found.loader, found.loss, steps=3, save_every=Every(steps=2),
            checkpoints=Checkpoints(tmp_path, file_system=Full()),
        )  # fmt: skip
    assert caught[-1].category is CheckpointWarning
    assert re.search(rf"ended after step 3, which is not saved: {told}", str(caught[-1].message))


class Damaged:
    """Twelve samples, one of which cannot be read."""

    def __init__(self, damaged: int | None) -> None:
        self.damaged = damaged

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        if index == self.damaged:
            raise ValueError("damaged")
        return (np.full(1, index, np.float32),)


@pytest.mark.parametrize("loads", ["a loader", "a loader with workers", "a generator", "a stream"])
@pytest.mark.parametrize(("accumulate", "damaged"), [(1, 6), (2, 8), (2, 6), (4, 11)])
def test_what_was_trained_is_not_lost_to_a_loader_that_fails(
    loads: str, accumulate: int, damaged: int, tmp_path: Path
) -> None:
    """Some batch of a step fails: others that the step has taken are trained after the resume."""

    class Batches:
        def __init__(self, data: Damaged) -> None:
            self.data = data

        def __iter__(self) -> Iterator[tuple[Any, ...]]:
            for n in range(6):
                yield (np.stack([self.data[2 * n][0], self.data[2 * n + 1][0]]),)

        def set_epoch(self, epoch: int) -> None: ...

    def trained(damaged: int | None, **options: Any) -> NDArray[Any]:
        weight = Parameter(np.zeros(1, np.float32), name="weight")
        data, workers = Damaged(damaged), 2 if "workers" in loads else 0
        loader: Any = DataLoader(data, 2, shuffle=False, seed=0, workers=workers)
        if loads == "a stream":
            loader = StreamLoader(lambda epoch: (data[n] for n in range(12)), 2, seed=0)
        Trainer(Adam([weight], 0.1)).fit(
            Batches(data) if loads == "a generator" else loader,
            lambda x: ((weight - x) ** 2).mean(),
            epochs=2,
            accumulate=accumulate,
            **options,
        )
        return weight.numpy()

    with pytest.raises((ValueError, RuntimeError), match="damaged") as raised:
        trained(damaged, checkpoints=tmp_path)
    saved = Checkpoints(tmp_path).load()
    assert saved.step == damaged // 2 // accumulate
    assert f"the last checkpoint is {saved.path}" in raised.value.__notes__
    found = trained(None, checkpoints=tmp_path, resume=True)
    np.testing.assert_array_equal(found, trained(None))


class Listed:
    """A loader of a user, with a state of its own."""

    def __init__(self) -> None:
        self.at = 0

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        while self.at < 6:
            self.at += 1
            yield (np.full(2, self.at, np.float32),)
        self.at = 0

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: Any) -> None:
        self.at = state["at"]


@pytest.mark.parametrize("loads", ["DataLoader", "StreamLoader", "list", "Listed"])
@pytest.mark.parametrize(("accumulate", "fails"), [(1, 3), (1, 8), (2, 4), (2, 5), (4, 6), (4, 11)])
def test_what_was_trained_is_not_lost_to_a_loss_function_that_fails(
    loads: str, accumulate: int, fails: int, backend: Backend, tmp_path: Path
) -> None:
    """It is as if the step had not begun; of a loader that cannot go back the last save counts."""
    rows = [(np.full(1, n, np.float32),) for n in range(12)]

    def trained(fails: int | None, **options: Any) -> tuple[list[float], float]:
        weight, calls = Parameter(np.zeros(1, np.float32), name="weight", backend=backend), 0
        loader: Any = {
            "DataLoader": lambda: DataLoader(ArrayDataset(np.concatenate(rows)), 2, seed=0),
            "StreamLoader": lambda: StreamLoader(lambda epoch: iter(rows), 2, shuffle=4, seed=0),
            "list": lambda: [(np.full(2, n, np.float32),) for n in range(6)],
            "Listed": Listed,
        }[loads]()

        def loss(x: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            if calls == fails:
                raise LookupError("no such key")
            return ((weight - x) ** 2).mean()

        trainer = Trainer(Adam([weight], 0.1), capture=False)
        result = trainer.fit(loader, loss, epochs=2, accumulate=accumulate, **options)
        return weight.tolist(), result.history[-1]["loss"]

    with pytest.raises(LookupError, match="no such key") as raised:
        trained(fails, checkpoints=tmp_path, save_every=Every(epochs=1))
    per_epoch = -(-6 // accumulate)
    epoch, batch = divmod(fails - 1, 6)
    done = epoch * per_epoch + batch // accumulate
    saved = done if loads != "Listed" else epoch * per_epoch
    assert [each.step for each in Checkpoints(tmp_path).list()][-1:] == ([saved] if saved else [])
    if saved:
        path = Checkpoints(tmp_path).load().path
        assert raised.value.__notes__[-1] == f"the last checkpoint is {path}"
    assert trained(None, checkpoints=tmp_path, resume="auto") == trained(None)


@pytest.mark.parametrize("draw", [random.random, np.random.random])
def test_what_a_failed_step_drew_from_elsewhere_is_told(
    draw: Callable[[], float], tmp_path: Path
) -> None:
    weight, calls = Parameter(np.zeros(1, np.float32), name="weight"), 0

    def loss(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        found = ((weight - x) ** 2).mean() * draw()
        if calls == 3:
            raise LookupError("no such key")
        return found

    data = [(np.full(1, n, np.float32),) for n in range(6)]
    with pytest.raises(LookupError) as raised:
        Trainer(Adam([weight], 0.1)).fit(data, loss, epochs=1, checkpoints=tmp_path)
    assert "draws other numbers when it is repeated" in "".join(raised.value.__notes__)
    assert Checkpoints(tmp_path).load().step == 2


def test_an_epoch_that_cannot_begin_loses_nothing(tmp_path: Path) -> None:
    class Broken:
        def __iter__(self) -> Iterator[tuple[Any, ...]]:
            return iter([(np.ones(1, np.float32),)] * 3)

        def set_epoch(self, epoch: int) -> None:
            if epoch == 1:
                raise OSError("the share is gone")

    weight = Parameter(np.zeros(1, np.float32), name="weight")
    with pytest.raises(OSError, match="the share is gone"):
        Trainer(Adam([weight], 0.1)).fit(
            Broken(), lambda x: ((weight - x) ** 2).mean(), epochs=3,
            checkpoints=tmp_path, save_every=Every(epochs=10),
        )  # fmt: skip
    assert Checkpoints(tmp_path).load().step == 3


def test_an_impossible_folder(tmp_path: Path) -> None:
    """Reported before the first step, not after the first epoch."""
    (tmp_path / "file").write_text("")
    found = plain()
    for resume in (False, "auto"):
        with pytest.raises(OSError, match=r"Not a directory|File exists"):
            Trainer(found.optimizer).fit(
                found.loader, found.loss, steps=3, checkpoints=tmp_path / "file", resume=resume
            )
    assert found.optimizer.steps == 0


class Reshuffled:
    """A loader without a state, which reshuffles every time it is iterated over."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def __iter__(self) -> Iterator[tuple[NDArray[np.float32]]]:
        order = self.random.permutation(16).astype(np.float32)
        return iter([(part.reshape(4, 1),) for part in order.reshape(4, 4)])

    def __len__(self) -> int:
        return 4


class Seeded(Reshuffled):
    def set_epoch(self, epoch: int) -> None:
        self.random = np.random.default_rng(epoch)


@pytest.mark.filterwarnings("ignore:.random., a NumPy generator has drawn:UserWarning")
@pytest.mark.parametrize("stopped", [1, 2, 3, 5, 6])
def test_a_loader_that_shuffles_anew_is_refused(tmp_path: Path, stopped: int) -> None:
    """Some samples would come again, and others never."""

    def fit(loader: Any, steps: int, folder: str, **options: Any) -> list[float]:
        weight, seen = Parameter([0.0], name="weight"), list[float]()

        def loss(x: Tensor) -> Tensor:
            seen.extend(x.numpy().ravel().tolist())
            return ((weight - x) ** 2).mean()

        trainer = Trainer(SGD([weight], 0.01))
        trainer.fit(loader, loss, steps=steps, checkpoints=tmp_path / folder, **options)
        return seen

    fit(Reshuffled(0), stopped, "shuffled")
    with pytest.raises(ValueError, match=r"starts it with other batches than .*set_epoch\(epoch\)"):
        fit(Reshuffled(1), 8, "shuffled", resume=True)
    seen = fit(Seeded(0), stopped, "seeded") + fit(Seeded(1), 8, "seeded", resume=True)
    assert sorted(seen[:16]) == sorted(seen[16:]) == [*range(16)]


@pytest.mark.parametrize(
    ("there", "told"),
    [
        ({"cpu": ["AVX1024", "AVX2048"]}, "CPU features: AVX1024 AVX2048 there"),
        ({"numpy": "1.0"}, r"numpy: 1\.0 there"),
        ({"device": "another GPU"}, "device: another GPU there"),
    ],
)
def test_a_resume_on_another_machine_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: dict[str, Any], told: str
) -> None:
    """The results are as good, but the last bits may differ."""
    continuation: Any = rumus.train.loop.continuation
    weight, data = Parameter([4.0], name="weight"), [(np.ones(2, np.float32),)]
    trainer = Trainer(SGD([weight], 0.25))
    loss = lambda x: ((weight - x) ** 2).mean()
    real = continuation.machine
    monkeypatch.setattr(continuation, "machine", lambda backend: {**real(backend), **there})
    trainer.fit(data, loss, epochs=1, checkpoints=tmp_path)
    monkeypatch.setattr(continuation, "machine", real)
    with pytest.warns(UserWarning, match=rf"may differ in the last bits.*{told}"):
        trainer.fit(data, loss, epochs=2, checkpoints=tmp_path, resume=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.fit(data, loss, epochs=3, checkpoints=tmp_path, resume=True)
