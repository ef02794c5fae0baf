"""`fit` with checkpoints finds the modules that a loss function uses, wherever it keeps them."""

from __future__ import annotations

import sys
import types
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rumus import nn
from rumus.optim import SGD
from rumus.tensor import Generator, Parameter, Tensor, tensor, zeros
from rumus.train import Callback, Checkpoints, Spikes, Trainer, find_batch_size, find_lr

X = np.ones((4, 3), np.float32)


class Task:
    """A separate loss."""

    def __init__(self, model: nn.Module) -> None:
        self.models = {"a": [model]}

    def __call__(self, x: Tensor) -> Tensor:
        result: Tensor = self.models["a"][0](x).sum()
        return result

    def method(self, x: Tensor) -> Tensor:
        return self(x)


def decorated(model: nn.Module) -> Callable[..., Tensor]:
    if not list(model.parameters()):
        later = 1.0  # never assigned a value

    def loss(x: Tensor) -> Tensor:
        result: Tensor = model(x).sum()
        return result if x.shape else result * later

    return lambda x: loss(x)


WHERE: list[Callable[[nn.Module], Any]] = [
    Task,
    lambda model: Task(model).method,
    lambda model: partial(lambda m, x: m(x).sum(), model),
    lambda model: partial(lambda x, m: m(x).sum(), m=model),
    decorated,
    lambda model: lambda x, models=[model]: models[0](x).sum(),
]


@pytest.mark.parametrize("where", WHERE)
def test_a_module_with_a_state_is_declared(
    where: Callable[[nn.Module], Any], tmp_path: Path
) -> None:
    model = nn.Sequential(nn.Linear(3, 2, generator=Generator(0)), nn.BatchNorm1d(2))
    trainer = Trainer(SGD(model.parameters(), 0.1))
    with pytest.raises(ValueError, match=r"running_mean.* changes while training and would not"):
        trainer.fit([(X,)], where(model), epochs=1, checkpoints=tmp_path)
    assert trainer.optimizer.steps == 0
    trainer = Trainer(trainer.optimizer, state={"model": model})
    trainer.fit([(X,)], where(model), epochs=1, checkpoints=tmp_path)
    assert trainer.optimizer.steps == 1


# Where no search of names finds it


def of_code(text: str, **names: Any) -> Any:
    exec(f"{text}\ndef loss(x):\n    return made()(x).sum()", names)
    return names["loss"]


def by_an_import(model: nn.Module) -> Any:
    module: Any = types.ModuleType("a_module_of_models")
    module.model = model
    sys.modules["a_module_of_models"] = module
    return of_code(
        "def made():\n    import a_module_of_models\n    return a_module_of_models.model"
    )


def by_a_method(model: nn.Module) -> Any:
    task = Task(model)
    return lambda x: task.method(x)


def by_a_cache(model: nn.Module) -> Any:
    made = cache(lambda: model)
    return lambda x: made()(x).sum()


def in_a_set(model: nn.Module) -> Any:
    models = {model}
    return lambda x: next(iter(models))(x).sum()


HIDDEN: list[Callable[[nn.Module], Any]] = [
    by_an_import,
    by_a_method,
    by_a_cache,
    in_a_set,
    lambda model: of_code("def made(): return MODEL", MODEL=model),
    lambda model: of_code("def made(): return MODELS[0]", MODELS=[model]),
    lambda model: of_code("made = lambda: SPACE.model", SPACE=types.SimpleNamespace(model=model)),
]
TRIALS: dict[str, Callable[[Trainer[Any], Any, Path], object]] = {
    "checkpoints": lambda trainer, loss, path: trainer.fit(
        [(X,)], loss, epochs=1, checkpoints=path
    ),
    "rollback": lambda trainer, loss, path: trainer.fit(
        [(X,)], loss, epochs=1, nonfinite="rollback"
    ),
    "spikes": lambda trainer, loss, path: trainer.fit(
        [(X,)], loss, epochs=1, spikes=Spikes("rollback")
    ),
    "find_lr": lambda trainer, loss, path: find_lr(trainer, [(X,)], loss, steps=3),
    "find_batch_size": lambda trainer, loss, path: find_batch_size(
        trainer, (X,), loss, memory=1 << 30, most=16
    ),
}


@pytest.mark.parametrize("trial", TRIALS)
@pytest.mark.parametrize("where", HIDDEN)
def test_a_buffer_that_moves_is_declared(
    where: Callable[[nn.Module], Any], trial: str, tmp_path: Path
) -> None:
    """The first step that would move it is refused, and changes nothing."""
    model = nn.Sequential(nn.Linear(3, 2, generator=Generator(0)), nn.BatchNorm1d(2))
    before = {name: value.tobytes() for name, value in model.state_dict().items()}
    trainer, loss = Trainer(SGD(model.parameters(), 0.1)), where(model)
    with pytest.raises(ValueError, match=r"loss_fn moves 'BatchNorm1d\.running_mean'.*state="):
        TRIALS[trial](trainer, loss, tmp_path)
    assert {name: value.tobytes() for name, value in model.state_dict().items()} == before
    trainer = Trainer(trainer.optimizer, state={"model": model})
    TRIALS[trial](trainer, loss, tmp_path)


def test_an_object_that_saves_a_module_is_trusted(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 2, generator=Generator(0)), nn.BatchNorm1d(2))

    class Saved(Task):
        def state_dict(self) -> dict[str, Any]:
            return dict(model.state_dict())

        def load_state_dict(self, state: Any) -> None:
            model.load_state_dict(state)

    task = Saved(model)
    trainer = Trainer(SGD(model.parameters(), 0.1), state={"task": task})
    trainer.fit([(X,)], lambda x: task.method(x), epochs=1, checkpoints=tmp_path)
    assert trainer.optimizer.steps == 1


class Follows(Callback):
    """A teacher that follows the trained parameters."""

    def __init__(self, teacher: nn.Module, student: nn.Module) -> None:
        self.pairs = list(zip(teacher.parameters(), student.parameters(), strict=True))

    def on_step_end(self, event: object) -> None:
        for mine, others in self.pairs:
            mine.assign(0.5 * mine.detach() + 0.5 * others.detach())


def test_a_teacher_that_no_checkpoint_holds_is_reported(tmp_path: Path) -> None:
    student, teacher = (nn.Linear(3, 2, generator=Generator(seed)) for seed in (0, 1))
    teacher.freeze()

    def fit(folder: str, **state: Any) -> None:
        trainer = Trainer(SGD(student.parameters(), 0.1), state={"student": student, **state})
        trainer.fit(
            [(X,)],
            lambda x: ((student(x) - teacher(x)) ** 2).mean(),
            epochs=2,
            callbacks=[Follows(teacher, student)],
            checkpoints=tmp_path / folder,
        )
        trainer.optimizer.release()

    with pytest.warns(UserWarning, match=r"'(weight|bias)', a parameter without") as heard:
        fit("a")
    assert len(heard) == 2
    fit("b", teacher=teacher)


def test_a_tensor_that_a_loss_function_writes_is_reported(tmp_path: Path) -> None:
    weight, center = Parameter([1.0, 2.0, 3.0], name="weight"), zeros((3,))

    def loss(x: Tensor) -> Tensor:
        center.assign(0.5 * center + 0.5 * x.mean(0))
        result: Tensor = ((x * weight - center) ** 2).mean()
        return result

    trainer = Trainer(SGD([weight], 0.1))
    with pytest.warns(UserWarning, match="'center'") as heard:
        trainer.fit([(X,)], loss, epochs=1, checkpoints=tmp_path)
    told = [str(warning.message) for warning in heard]
    assert "'center', which loss closes over, is a tensor that the loss function changes" in told[0]
    assert "'center', a tensor, was written in this run" in told[1]
    assert len(told) == 2


@pytest.mark.parametrize(
    "make", [lambda: Generator(3), lambda: np.random.default_rng(3)], ids=["rumus", "NumPy"]
)
def test_a_sweep_restores_generators_that_nobody_declared(make: Callable[[], Any]) -> None:
    noise, model = make(), nn.Linear(3, 2, generator=Generator(0))
    is_own = isinstance(noise, Generator)

    def loss(x: Tensor) -> Tensor:
        drawn = noise.uniform((4, 3)) if is_own else tensor(noise.random((4, 3), np.float32))
        result: Tensor = model(x + drawn).sum()
        return result

    def state() -> str:
        return str(noise.state() if is_own else noise.bit_generator.state)

    before = state()
    find_lr(Trainer(SGD(model.parameters(), 0.1)), [(X,)], loss, steps=3)
    assert state() == before


def test_another_model_than_the_trained_one_is_told_of(tmp_path: Path) -> None:
    """As after a second run of a notebook's cell: load_model would give the untrained weights."""

    def fit(place: str | None, others: dict[str, nn.Module]) -> list[str]:
        model = nn.Linear(3, 2)
        state = {name: model if each is same else each for name, each in others.items()}
        trainer = Trainer(SGD(model.parameters(), 0.1), state=state)
        checkpoints = None if place is None else Checkpoints(tmp_path / place)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            trainer.fit(
                [(X,)], lambda x: model(x).sum(), epochs=1, progress=None, checkpoints=checkpoints
            )
        assert all(each.filename == __file__ for each in told)
        return [str(each.message) for each in told]

    same, frozen = nn.Identity(), nn.Linear(3, 2).freeze()
    (message,) = fit("other", {"model": nn.Linear(3, 2)})
    assert "no optimizer trains state['model'], and SGD" in message
    assert "is it another Linear than the one that the optimizer was made for?" in message
    assert fit(None, {"model": nn.Linear(3, 2)}) == [message]
    quiet: list[dict[str, nn.Module]] = [
        {}, {"model": same}, {"model": same, "old": nn.Linear(3, 2)}, {"teacher": frozen}
    ]  # fmt: skip
    for number, others in enumerate(quiet):
        assert fit(str(number), others) == []
    trained = nn.Linear(3, 2)  # by another optimizer, as in adversarial training
    other = SGD(trained.parameters(), 0.1)
    assert fit("two", {"critic": trained}) == []
    other.release()


def test_another_model_than_the_trained_one_is_told_of_when_it_is_asked() -> None:
    trainer = Trainer(SGD(nn.Linear(3, 2).parameters(), 0.1), state={"model": nn.Linear(3, 2)})
    with pytest.warns(UserWarning, match="no optimizer trains state"):
        trainer.predict([(X,)])
    with pytest.warns(UserWarning, match="no optimizer trains state"):
        trainer.evaluate([(X, X[:, :2])], [nn.mse_loss])


def test_a_parameter_whose_constructor_failed_does_not_matter(tmp_path: Path) -> None:
    """A notebook keeps the traceback of a failed cell, and so what was being made in it."""
    kept: list[BaseException] = []
    wrong: Any = "gain"
    makers: list[Callable[[], object]] = [
        lambda: Parameter([1.0], role=wrong),
        lambda: Parameter([1], name="counts"),
        lambda: Parameter([1.0], name=wrong.encode()),
        lambda: Generator(wrong),
    ]
    for make in makers:
        with pytest.raises((TypeError, ValueError)) as caught:
            make()
        kept.append(caught.value)
    model = nn.Linear(2, 1)
    trainer = Trainer(SGD(model.parameters(), 0.1), state={"model": model})
    trainer.fit(
        [np.ones((4, 2), np.float32)],
        lambda x: model(tensor(x)).sum(),
        epochs=1,
        checkpoints=tmp_path,
        progress=None,
    )
    assert len(kept) == 4


@pytest.mark.parametrize("is_part", [False, True], ids=["beside the model", "part of it"])
def test_other_frozen_weights_than_before_are_told_of(is_part: bool, tmp_path: Path) -> None:
    """No checkpoint has them, unless state names them: the same ones are to be there each time."""

    def fit(place: str, number: int, steps: int, *, is_named: bool = False) -> list[str]:
        base = nn.Linear(3, 4, generator=Generator(number)).freeze()
        head = nn.Linear(4, 1, generator=Generator(number))
        whole = nn.Sequential(base, head)
        state = {"whole": whole} if is_named else {}
        trainer = Trainer(SGD(head.parameters(), 0.1), state=state)

        loss = (lambda x: whole(x).sum()) if is_part else (lambda x: head(base(x)).sum())
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            trainer.fit([(X,)] * 4, loss, steps=steps, checkpoints=tmp_path / place, resume="auto")
        return [str(each.message) for each in told]

    assert fit("same", 1, 2) == fit("same", 1, 4) == []
    assert fit("named", 1, 2, is_named=True) == fit("named", 2, 4, is_named=True) == []
    assert fit("other", 1, 2) == []
    (message,) = fit("other", 2, 4)
    name = "whole" if is_part else "base"
    assert f"with other weights of '{name}', which no optimizer trains and no checkpoint" in message


@pytest.mark.parametrize("make", [tensor, np.asarray], ids=["tensor", "array"])
def test_other_fixed_numbers_than_before_are_told_of(make: Any, tmp_path: Path) -> None:
    """Such as a projection drawn at the start of the program, which each start draws anew."""

    def fit(place: str, number: int, steps: int) -> list[str]:
        projection = make(np.random.default_rng(number).normal(size=(3, 2)).astype(np.float32))
        head = nn.Linear(2, 1, generator=Generator(1))
        trainer = Trainer(SGD(head.parameters(), 0.1))
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            loss = lambda x: head(x @ tensor(np.asarray(projection))).sum()
            trainer.fit([(X,)] * 4, loss, steps=steps, checkpoints=tmp_path / place, resume="auto")
        return [str(each.message) for each in told]

    assert fit("same", 1, 2) == fit("same", 1, 4) == []
    assert fit("other", 1, 2) == []
    (message,) = fit("other", 2, 4)
    assert "with other weights of 'projection', which no optimizer trains" in message
    assert "a tensor becomes the buffer of one" in message


def test_an_array_that_a_run_writes_is_not_fixed(tmp_path: Path) -> None:
    """Such as one for notes: that of a resumed run begins anew, or goes on."""
    notes, head = np.zeros(8), nn.Linear(3, 1, generator=Generator(1))
    trainer = Trainer(SGD(head.parameters(), 0.1), state={"head": head})

    def loss(x: Tensor) -> Tensor:
        notes[int(np.count_nonzero(notes))] = 1
        result: Tensor = head(x).sum()
        return result

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for steps in (2, 4):
            trainer.fit([(X,)] * 4, loss, steps=steps, checkpoints=tmp_path, resume="auto")


@pytest.mark.parametrize("dtype", ["datetime64[s]", "timedelta64[D]", "U3", "S2", "?", "i4,M8[s]"])
def test_a_loss_function_may_hold_arrays_of_any_kind(dtype: str, tmp_path: Path) -> None:
    """Such as the times of its samples."""
    times, head = np.zeros(4, dtype), nn.Linear(3, 1, generator=Generator(1))
    trainer = Trainer(SGD(head.parameters(), 0.1), state={"head": head})
    loss = lambda x: head(x).sum() * (1.0 * len(times))
    result = trainer.fit([(X,)] * 4, loss, epochs=1, checkpoints=tmp_path)
    assert result.history[0]["step"] == 4
