"""`Trainer`: one call per step, and the mean loss of an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rumus.optim import SGD, Adam, Muon, Optimizer, ParameterGroup
from rumus.tensor import (
    Backend,
    GradientStore,
    GraphError,
    MissingGradientError,
    NonFiniteGradientError,
    Parameter,
    Tensor,
    UnclaimedGradientError,
    no_grad,
    tensor,
)
from rumus.train import Trainer
from rumus.train.capture import outside

quick = settings(
    deadline=None,
    max_examples=30,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


class Line:
    """One weight, fitted to one number."""

    def __init__(self, backend: Backend, **options: Any) -> None:
        self.backend = backend
        self.weight = Parameter([0.0], name="weight", backend=backend)
        self.other = Parameter([1.0], name="other", backend=backend)
        self.optimizer = SGD([self.weight], 0.25, **options)
        self.trainer = Trainer(self.optimizer)

    def loss(self, target: float) -> Tensor:
        return ((self.weight - target) ** 2).mean()

    def constant_loss(self, value: float) -> Tensor:
        """A loss with a given value that does not change the weight."""
        return (self.weight * 0.0).sum() + value

    def bits(self) -> tuple[object, ...]:
        return self.weight.numpy().tobytes(), self.optimizer.steps, self.optimizer.skipped


@pytest.fixture
def line(backend: Backend) -> Line:
    return Line(backend)


def test_both_forms_do_the_same(backend: Backend) -> None:
    closures, batches, by_hand = Line(backend), Line(backend), Line(backend)
    for target in (2.0, 3.0, -1.0):
        first = closures.trainer.train_step(lambda target=target: closures.loss(target))
        second = batches.trainer.train_step(batches.loss, target)
        third = by_hand.loss(target)
        with third.backward() as grads:
            by_hand.optimizer.step(grads)
        assert first.item() == second.item() == third.item()
    assert closures.bits() == batches.bits() == by_hand.bits()
    assert closures.trainer.epoch_avg_loss() == batches.trainer.epoch_avg_loss()


def test_several_arguments_make_a_batch(line: Line) -> None:
    def loss_fn(x: Tensor, y: Tensor) -> Tensor:
        return ((line.weight * x - y) ** 2).mean()

    x, y = (tensor(a, backend=line.backend) for a in ([1.0, 2.0], [2.0, 4.0]))
    loss = line.trainer.train_step(loss_fn, x, y)
    assert loss.item() == 10.0
    assert line.weight.tolist() == [2.5]


def test_the_loss_comes_without_its_graph(line: Line) -> None:
    loss = line.trainer.train_step(line.loss, 2.0)
    assert loss.item() == 4.0
    assert not loss.requires_grad
    with pytest.raises(GraphError):
        loss.backward()


def test_asking_ends_an_epoch(line: Line) -> None:
    trainer = line.trainer
    for value in (1.0, 3.0):
        trainer.train_step(line.constant_loss, value)
    assert [trainer.epoch_avg_loss() for _ in range(3)] == [2.0, 2.0, 2.0]
    trainer.train_step(line.constant_loss, 10.0)
    trainer.train_step(line.constant_loss, 20.0)
    assert [trainer.epoch_avg_loss() for _ in range(2)] == [15.0, 15.0]


def test_reset_epoch_forgets(line: Line) -> None:
    trainer = line.trainer
    with pytest.raises(ValueError, match="before the first train_step"):
        trainer.epoch_avg_loss()
    trainer.train_step(line.constant_loss, 1.0)
    trainer.reset_epoch()
    with pytest.raises(ValueError, match="before the first train_step"):
        trainer.epoch_avg_loss()
    trainer.train_step(line.constant_loss, 5.0)
    assert trainer.epoch_avg_loss() == 5.0
    trainer.reset_epoch()
    trainer.train_step(line.constant_loss, 7.0)
    assert trainer.epoch_avg_loss() == 7.0


@given(epochs=st.lists(st.lists(st.tuples(st.floats(-1e3, 1e3, width=32), st.integers(1, 64)),
                                min_size=1, max_size=5), min_size=1, max_size=4))  # fmt: skip
@quick
def test_weights(backend: Backend, epochs: list[list[tuple[float, int]]]) -> None:
    line = Line(backend)
    for epoch in epochs:
        for value, weight in epoch:
            line.trainer.train_step(line.constant_loss, value, weight=weight)
        total = math.fsum(value * weight for value, weight in epoch)
        wanted = total / sum(weight for _, weight in epoch)
        assert line.trainer.epoch_avg_loss() == pytest.approx(wanted, rel=1e-12, abs=1e-9)


def test_the_mean_is_taken_in_float64(line: Line) -> None:
    """In float32 the small losses would vanish next to the large one."""
    values = [2.0**24] + [1.0] * 200
    for value in values:
        line.trainer.train_step(line.constant_loss, value)
    assert line.trainer.epoch_avg_loss() == (2.0**24 + 200) / 201


def test_more_steps_than_losses_may_wait(line: Line) -> None:
    for value in range(300):
        line.trainer.train_step(line.constant_loss, float(value))
    assert line.trainer.epoch_avg_loss() == 149.5


def raising(line: Line) -> Tensor:
    raise LookupError("no data")


FAILURES: Final[dict[str, tuple[Callable[[Line], Any], type[Exception], str]]] = {
    "loss function raises": (raising, LookupError, "no data"),
    "number": (lambda line: 1.0, TypeError, "float"),
    "array": (lambda line: np.float32(1.0), TypeError, "float32"),
    "nothing": (lambda line: None, TypeError, "NoneType"),
    "tuple": (lambda line: (line.loss(1.0), 1), TypeError, "tuple"),
    "not a scalar": (lambda line: line.weight * tensor([1.0, 2.0], backend=line.backend),
                     GraphError, r"\(2,\)"),
    "no graph": (lambda line: tensor(1.0, backend=line.backend), GraphError, "on any parameter"),
    "detached": (lambda line: line.loss(1.0).detach(), GraphError, "detached"),
    "integer": (lambda line: tensor(1, backend=line.backend), GraphError, "int32"),
    "missing": (lambda line: line.other.sum(), MissingGradientError, "'weight'"),
    "unclaimed": (lambda line: line.loss(1.0) * line.other.sum(), UnclaimedGradientError,
                  r"'other'.*SGD \(made at test_trainer.py"),
    "NaN": (lambda line: line.loss(float("nan")), NonFiniteGradientError, "'weight'"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(FAILURES))
def test_a_step_that_fails_changes_nothing(name: str, line: Line) -> None:
    act, error, message = FAILURES[name]
    line.trainer.train_step(line.loss, 2.0)
    before = line.bits()
    with pytest.raises(error, match=message):
        line.trainer.train_step(lambda: act(line)).item()  # a GPU reports it when the loss is read
    assert line.bits() == before
    assert line.trainer.epoch_avg_loss() == 4.0
    with pytest.raises(error, match=message):
        line.trainer.train_step(lambda: act(line)).item()
    assert line.trainer.epoch_avg_loss() == 4.0  # nor does it start the next epoch
    line.trainer.train_step(line.loss, 2.0)
    assert line.trainer.epoch_avg_loss() == 1.0


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_weights_out_of_range(weight: float, line: Line) -> None:
    before = line.bits()
    with pytest.raises(ValueError, match="weight"):
        line.trainer.train_step(line.loss, 2.0, weight=weight)
    assert line.bits() == before


def test_a_skipped_step_was_never_seen(backend: Backend) -> None:
    """Its loss, NaN, does not enter the mean either."""
    line = Line(backend, nonfinite="skip")
    line.trainer.train_step(line.loss, 2.0)
    assert line.trainer.epoch_avg_loss() == 4.0
    before = line.weight.numpy()
    loss = line.trainer.train_step(line.loss, float("nan"))
    assert math.isnan(loss.item())
    assert line.trainer.epoch_avg_loss() == 4.0
    assert (line.weight.numpy() == before).all()
    assert line.optimizer.skipped == 1
    line.trainer.train_step(line.loss, 2.0)
    assert line.trainer.epoch_avg_loss() == 1.0


def test_optional_and_unclaimed_parameters(backend: Backend) -> None:
    a, b, c = (Parameter([2.0], name=n, backend=backend) for n in "abc")
    optimizer = Adam([ParameterGroup([a]), ParameterGroup([b], optional=True)], 0.1)
    trainer = Trainer(optimizer)
    trainer.train_step(lambda: (a * a).sum())
    before = [p.tolist() for p in (a, b, c)]
    with pytest.raises(UnclaimedGradientError, match="'c'"):
        trainer.train_step(lambda: (a * c).sum())  # as many gradients as parameters are owned
    assert [p.tolist() for p in (a, b, c)] == before
    trainer.train_step(lambda: (a * b).sum())
    assert b.tolist() != before[1]


def test_parameters_of_other_optimizers_are_frozen_for_the_step(backend: Backend) -> None:
    line = Line(backend)
    second = SGD([line.other], 0.1)
    with pytest.raises(UnclaimedGradientError, match="other"):
        line.trainer.train_step(lambda: (line.weight + line.other).sum())
    with no_grad():
        shift = line.other * 1.0
    line.trainer.train_step(lambda: (line.weight + shift).sum())
    assert (line.weight.tolist(), second.steps) == ([-0.25], 0)


def test_a_custom_optimizer(backend: Backend) -> None:
    """Any `Optimizer` works; it need not be rule-based."""

    class Halving(Optimizer[Any]):
        def step(self, grads: GradientStore) -> None:
            gradients = [grads.take(p) for p in self.parameters]
            for p, g in zip(self.parameters, gradients, strict=True):
                p.assign(p.detach() - 0.5 * g)
            self.steps += 1

    w = Parameter([1.0, 3.0], name="w", backend=backend)
    trainer = Trainer(Halving([w]))
    trainer.train_step(lambda: (w * w).sum())
    assert w.tolist() == [0.0, 0.0]
    assert trainer.epoch_avg_loss() == 10.0


@pytest.mark.parametrize(
    "library", ["wgpu.backends.wgpu_native", "wgpudawn._lib._wgpu_dawn", "cffi"]
)
def test_a_capture_trusts_the_libraries_of_both_engines(library: str) -> None:
    assert outside.is_trusted(library)
    assert not outside.is_trusted(library.split(".")[0] + "x")


def test_several_optimizers_as_one(backend: Backend) -> None:
    """A list makes one optimizer, whose steps equal those of a loop that steps each."""
    draw = np.random.default_rng(3)
    x, y = draw.normal(size=(4, 8, 3)), draw.normal(size=(4, 8, 2))

    def made() -> tuple[list[Parameter], list[Any]]:
        w = Parameter(np.full((3, 2), 0.5), name="w", backend=backend)
        b = Parameter(np.zeros(2), name="b", backend=backend)
        return [w, b], [Muon([w], 0.1), SGD([b], 0.1)]

    (w, b), apart = made()
    (v, c), parts = made()
    trainer = Trainer(parts)

    def loss_of(w: Parameter, b: Parameter, x: Tensor, y: Tensor) -> Tensor:
        return ((x @ w + b - y) ** 2).mean()

    def step(x: Tensor, y: Tensor) -> Tensor:
        return loss_of(v, c, x, y)

    for batch in zip(x, y, strict=True):
        given = [tensor(array, backend=backend) for array in batch]
        grads = loss_of(w, b, *given).backward()
        for optimizer in apart:
            optimizer.step(grads)
        trainer.train_step(step, *batch)
    for p, q in ((w, v), (b, c)):
        assert p.numpy().tobytes() == q.numpy().tobytes()
    assert trainer.optimizer.kind == "Muon+SGD"  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="takes rule-based optimizers"):
        Trainer([SGD([Parameter(1.0)]), "SGD"])  # type: ignore[list-item]


def test_a_trainer_whose_step_fit_would_not_call() -> None:
    class Clipped(Trainer[Any]):
        def train_step(self, *arguments: Any, **options: Any) -> Tensor:
            return super().train_step(*arguments, **options)

    weight = Parameter([1.0], name="weight")
    trainer = Clipped(SGD([weight], 0.1))
    with pytest.raises(TypeError, match=r"Clipped\.train_step is called by nothing in fit"):
        trainer.fit([(np.ones(1),)], lambda x: (weight * x).sum(), epochs=1)
    trainer.train_step(lambda x: (weight * x).sum(), np.ones(1))
    assert trainer.optimizer.steps == 1


def test_a_trainer_with_another_librarys_methods() -> None:
    """They were passed over: compute_loss, say, of a class derived from Trainer."""

    class Other(Trainer[Any]):
        def compute_loss(self, x: Tensor) -> Tensor:
            return (weight * x).sum()

        def on_train_epoch_end(self) -> None: ...

    class Called(Other):
        def on_train_epoch_end(self) -> None:
            self.on_train_epoch_end()

        def go(self) -> None:
            self.fit(data, lambda x: self.compute_loss(x), epochs=1)

    weight, data = Parameter([1.0], name="weight"), [(np.ones(1),)]
    trainer = Other(SGD([weight], 0.1))
    with pytest.warns(UserWarning, match="called by nothing in fit; here it is") as told:
        trainer.fit(data, lambda x: (weight * x).sum(), epochs=1)
    assert [str(each.message).split()[0] for each in told] == [
        "Other.compute_loss", "Other.on_train_epoch_end",
    ]  # fmt: skip
    trainer.optimizer.release()
    called = Called(SGD([weight], 0.1))
    called.go()
    called.fit(data, called.compute_loss, epochs=1)


def test_a_loss_function_that_takes_something_else_is_told_what_it_gets() -> None:
    weight = Parameter([1.0], name="weight")
    trainer = Trainer(SGD([weight], 0.1))

    def of_batch(batch: Any) -> Any:
        return batch

    def of_model(model: Any, batch: Any) -> Any:
        return model(batch)

    for loss_fn in (of_batch, of_model):
        with pytest.raises(TypeError) as caught:
            trainer.train_step(loss_fn, np.ones((2, 3), np.float32), np.ones(2, np.int32))
        assert caught.value.__notes__ == [
            "the loss function is called with the fields of a batch, here (float32[2, 3], int32[2])"
        ]
