"""Assignments in `forward`: buffers belong to the step, and others are reported by name."""

from __future__ import annotations

import re
import threading
from collections import abc
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from uncounted_passes import KINDS, left

from rumus import nn
from rumus.optim import LBFGS, SAM, SGD, Accumulation
from rumus.tensor import (
    Backend,
    Generator,
    NonFiniteGradientError,
    SideEffectWarning,
    Tensor,
    cpu,
    int32,
    no_grad,
    tensor,
    zeros,
)
from rumus.tensor.graph import assignment
from rumus.train import Trainer

X: NDArray[Any] = np.random.default_rng(0).normal(1, 1, (8, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def _not_said_yet() -> None:
    assignment._told.clear()


class Counting(nn.Module):
    """Assigns a running mean, a count and, in place, the rows that it saw last."""

    def __init__(self, backend: Backend) -> None:
        self.linear = nn.Linear(3, 2, generator=Generator(0))
        self.mean, self.seen, self.last = zeros((3,)), zeros((), dtype=int32), zeros((2, 3))
        self.to(backend)

    def forward(self, x: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        self.seen = self.seen + 1
        self.last[1] = self.last[0]
        self.last[0] = x[0]
        return self.linear(x - self.mean)

    def check(self, batches: list[NDArray[Any]]) -> None:
        """Check that these batches were seen, in this order, and no others."""
        mean = np.zeros(3)
        for x in batches:
            mean = 0.9 * mean + 0.1 * x.astype(float).mean(0)
        np.testing.assert_allclose(self.mean.numpy(), mean, rtol=2e-6, atol=1e-7)
        assert self.seen.item() == len(batches)
        last = [*(x[0] for x in reversed(batches)), np.zeros(3), np.zeros(3)][:2]
        np.testing.assert_array_equal(self.last.numpy(), last)


def loss_of(model: Counting) -> Callable[[Tensor], Tensor]:
    return lambda x: (model(x) ** 2).mean()


@pytest.mark.parametrize("seed", [4, 7], ids=["eager", "captured"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_pass_without_an_applied_step_leaves_no_trace(
    kind: str, seed: int, backend: Backend
) -> None:
    act, is_step = KINDS[kind]
    assert not left(backend, seed, act, is_step).total()


@pytest.mark.parametrize("capture", [True, False])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_each_batch_is_seen_once(accumulate: int, capture: bool, backend: Backend) -> None:
    model, batches = Counting(backend), [X + i for i in range(12)]
    trainer = Trainer(SGD(model.parameters(), 0.1), capture=capture)
    trainer.fit(
        [(x,) for x in batches], loss_of(model), epochs=1, accumulate=accumulate, signals=False
    )
    model.check(batches)
    assert trainer.counts.replayed == (9 if capture else 0)


@pytest.mark.parametrize("make", [lambda p: SAM(SGD(p, 0.1)), lambda p: LBFGS(p, max_iter=4)])
@pytest.mark.parametrize("by_trainer", [False, True])
def test_a_step_of_several_passes_sees_its_batch_once(
    make: Callable[[Any], Any], by_trainer: bool, backend: Backend
) -> None:
    model, batches = Counting(backend), [X + i for i in range(4)]
    optimizer = make(model.parameters())
    trainer = Trainer(optimizer)
    for x in batches:
        if by_trainer:
            trainer.train_step(loss_of(model), x)
        else:
            given = tensor(x, backend=backend)
            optimizer.minimize_step(lambda given=given: loss_of(model)(given))
    model.check(batches)


def test_two_calls_in_one_loss_follow_one_another(backend: Backend) -> None:
    """Including in your own loop, where nothing marks which passes belong to a step."""
    for own_loop in (True, False):
        model = Counting(backend)
        optimizer = SGD(model.parameters(), 0.1)
        trainer = Trainer(optimizer)
        for _ in range(3):
            if own_loop:
                x, y = (tensor(each, backend=backend) for each in (X, X + 1))
                optimizer.step((loss_of(model)(x) + loss_of(model)(y)).backward())
            else:
                loss = loss_of(model)
                trainer.train_step(lambda x, y, f=loss: f(x) + f(y), X, X + 1)
        model.check([X, X + 1] * 3)


def test_accumulation_in_a_custom_loop(backend: Backend) -> None:
    model, accumulation = Counting(backend), Accumulation()
    optimizer = SGD(model.parameters(), 0.1)
    for x in (X, X + 1, X + 2):
        accumulation.add(loss_of(model)(tensor(x, backend=backend)).backward())
    model.check([])
    optimizer.step(accumulation.gradients())
    model.check([X, X + 1, X + 2])


def test_a_failed_accumulation_is_undone(backend: Backend) -> None:
    model = Counting(backend)
    trainer = Trainer(SGD(model.parameters(), 0.1))
    bad = np.full_like(X, np.nan)
    trainer.fit([(X,)] * 2, loss_of(model), epochs=1, accumulate=2, signals=False)
    with pytest.raises(NonFiniteGradientError):
        trainer.fit([(X,), (bad,)], loss_of(model), epochs=1, accumulate=2, signals=False)
    model.check([X, X])


def test_a_recomputed_part(backend: Backend) -> None:
    """Twice in one pass: the second call and its recomputation start from the first assignment."""
    found = []
    for recomputes in (True, False):
        model = Counting(backend)
        trainer = Trainer(SGD(model.parameters(), 0.1))

        def loss(x: Tensor, model: Counting = model, again: bool = recomputes) -> Tensor:
            y = nn.checkpoint(model, x) if again else model(x)
            z = nn.checkpoint(model, x * 2) if again else model(x * 2)
            return (y**2).mean() + (z**2).mean()

        for _ in range(4):
            trainer.train_step(loss, X)
        found.append({name: array.tobytes() for name, array in model.state_dict().items()})
    assert found[0] == found[1]


def test_a_recomputation_without_a_trainer(backend: Backend) -> None:
    model = Counting(backend)
    optimizer = SGD(model.parameters(), 0.1)
    for i in range(3):
        x = tensor(X + i, backend=backend)
        optimizer.step((nn.checkpoint(model, x) ** 2).mean().backward())
    model.check([X, X + 1, X + 2])


class OfActivations(nn.Module):
    """A mean of values that depend on parameters."""

    def __init__(self) -> None:
        self.linear, self.center = nn.Linear(3, 2, generator=Generator(0)), zeros((2,))

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        self.center = 0.5 * self.center + 0.5 * y.mean(0)
        return y - self.center


def test_a_value_with_a_graph_is_written_without_it(backend: Backend) -> None:
    model, wanted = OfActivations().to(backend), np.zeros(2)
    optimizer = SGD(model.parameters(), 0.0)
    for _ in range(3):
        optimizer.step((model(tensor(X, backend=backend)) ** 2).sum().backward())
        weight, bias = model.linear.weight.numpy(), model.linear.bias.numpy()  # type: ignore[union-attr]
        wanted = 0.5 * wanted + 0.5 * (X.astype(float) @ weight.astype(float).T + bias).mean(0)
    assert list(model.state_dict()) == ["linear.weight", "linear.bias", "center"]
    np.testing.assert_allclose(model.center.numpy(), wanted, rtol=1e-5)


def test_assignments_in_the_loss_function() -> None:
    """Like the center of DINO: assigned outside a module's forward, yet part of the step."""
    model = OfActivations()
    trainer = Trainer(SGD(model.linear.parameters(), 0.1, nonfinite="skip"))

    def loss(x: Tensor) -> Tensor:
        y = model.linear(x)
        model.center = 0.9 * model.center + 0.1 * y.mean(0)
        return (y**2).mean()

    trainer.train_step(loss, X)
    before = model.center.tolist()
    trainer.train_step(loss, np.full_like(X, np.inf))
    assert model.center.tolist() == before != [0.0, 0.0]


def test_a_used_buffer_may_be_overwritten_in_the_same_pass(backend: Backend) -> None:
    """A queue of keys, as in MoCo: backward still sees the old contents."""

    class Queue(nn.Module):
        def __init__(self) -> None:
            self.linear = nn.Linear(3, 3, generator=Generator(0))
            self.queue = tensor(X[:4])

        def forward(self, x: Tensor) -> Tensor:
            y = self.linear(x)
            found = y @ self.queue.T
            self.queue[:2] = y[:2].detach()
            return found

    model = Queue().to(backend)
    optimizer, x = SGD(model.parameters(), 0.0), tensor(X, backend=backend)
    grads = model(x).sum().backward()
    wanted = np.outer(X[:4].sum(0), X.sum(0))
    np.testing.assert_allclose(grads[model.linear.weight].numpy(), wanted, rtol=1e-5)
    np.testing.assert_array_equal(model.queue.numpy(), X[:4])
    optimizer.step(grads)
    np.testing.assert_array_equal(model.queue.numpy()[:2], model.linear(x).numpy()[:2])
    np.testing.assert_array_equal(model.queue.numpy()[2:], X[2:4])


def test_evaluation_keeps_assignments() -> None:
    """A state that is carried from call to call, as in a recurrent network."""
    model = Counting(cpu()).eval()
    for i in range(3):
        model(tensor(X + i))
    model.check([X, X + 1, X + 2])


def test_training_without_a_graph_says_that_it_is_put_back() -> None:
    model = Counting(cpu())
    with no_grad(), pytest.warns(SideEffectWarning) as found:
        model(tensor(X))
    assert len(found) == 3  # buffers
    assert "Counting.mean is a buffer" in str(found[0].message)
    model.check([])


def test_a_value_of_another_pass_is_noticed() -> None:
    """The loss depends on one pass, but its buffer has also seen another."""
    model = Counting(cpu())
    looked_at = model(tensor(X))
    loss = loss_of(model)(tensor(X + 1))
    with pytest.warns(SideEffectWarning, match=r"Counting\.\w+ was assigned by several passes"):
        loss.backward()
    assert looked_at.requires_grad


# Assignments that cannot belong to the step


class Slots:
    """An object without a dict."""

    __slots__ = ("mean",)

    def __init__(self) -> None:
        self.mean = zeros((3,))


def carrying() -> abc.Generator[Tensor, Tensor, None]:
    """Keep a mean of what is sent."""
    mean = zeros((3,))
    while True:
        mean = 0.5 * mean + 0.5 * (yield mean)


class Says(nn.Module):
    """Does something in forward besides computing."""

    shared: Any = None

    def __init__(self, effect: Callable[[Any, Tensor], None]) -> None:
        self.linear, self.effect = nn.Linear(3, 2, generator=Generator(0)), effect
        self.count, self.flag, self.history = 0, False, [0.0]
        self.array, self.none, self.table = np.zeros(3), None, {"a": 1}
        self.buffer, self.whole, self.kept = zeros((3,)), zeros((1,), dtype=int32), None
        self.held = SimpleNamespace(mean=zeros((3,)), rate=1.0, kept=None, array=np.zeros(3))
        self.deep: Any = {"a": [{"b": zeros((3,))}], "array": np.zeros(3)}
        self.running = zeros((3,))
        self.pair, self.slots, self.carried = (zeros((3,)), 1.0), Slots(), carrying()
        next(self.carried)

    @property
    def mean(self) -> Tensor:
        """A buffer by another name."""
        return self.running

    @mean.setter
    def mean(self, value: Tensor) -> None:
        self.running = value

    @property
    def rate(self) -> int:
        """A number by another name."""
        return self.count

    @rate.setter
    def rate(self, value: int) -> None:
        self.count = value

    def forward(self, x: Tensor) -> Tensor:
        self.effect(self, x)
        return self.linear(x)


def _adds(model: Any, x: Tensor) -> None:
    model.array += 1.0


def _looks(model: Any, x: Tensor) -> None:
    model.array[...] = x.numpy().mean(0)


def _in_thread(model: Any, x: Tensor) -> None:
    thread = threading.Thread(target=lambda: setattr(model, "buffer", model.buffer + x.mean(0)))
    thread.start()
    thread.join()


def _through_class(model: Any, x: Tensor) -> None:
    if Says.shared is not None:
        Says.shared = Says.shared + x.mean(0)


def _with_default(model: Any, x: Tensor, *, kept: dict[str, Any] = {"mean": 0}) -> None:  # noqa: B006
    kept["mean"] = kept["mean"] + x.mean(0)


def _closing_over() -> Callable[[Any, Tensor], None]:
    mean = zeros((3,))

    def effect(model: Any, x: Tensor) -> None:
        nonlocal mean
        mean = 0.5 * mean + x.mean(0)

    return effect


GLOBAL: dict[str, Any] = {}


def _in_global(model: Any, x: Tensor) -> None:
    GLOBAL["mean"] = GLOBAL.get("mean", 0.0) + x.mean(0)


def _cached_in_global(model: Any, x: Tensor) -> None:
    if "mask" not in GLOBAL:
        GLOBAL["mask"] = x.sign()


def _deep(model: Any, x: Tensor) -> None:
    model.deep["a"][0]["b"] = model.deep["a"][0]["b"] + x.mean(0)


def _counts_in_object(model: Any, x: Tensor) -> None:
    model.held.rate += 1.0


def _adds_in_object(model: Any, x: Tensor) -> None:
    model.held.array += 1.0


def _adds_deep(model: Any, x: Tensor) -> None:
    model.deep["array"] += 1.0


def _set(name: str, value: Callable[[Any, Tensor], Any]) -> Callable[[Any, Tensor], None]:
    return lambda model, x: setattr(model, name, value(model, x))


TOLD: dict[str, tuple[Callable[[Any, Tensor], None], str]] = {
    "a counter": (_set("count", lambda m, x: m.count + 1), "count is a number"),
    "a counter by a property": (_set("rate", lambda m, x: m.rate + 1), "count is a number"),
    "a flag": (_set("flag", lambda m, x: True), "flag is a number"),
    "a list that grows": (lambda m, x: m.history.append(1.0), "history is changed"),
    "another list": (_set("history", lambda m, x: [*m.history, 1.0]), "history is a list"),
    "a dict": (lambda m, x: m.table.update(a=x), "table is changed"),
    "an array in place": (_adds, "array is"),
    "a part of an array": (_looks, "array is changed"),
    "another array": (_set("array", lambda m, x: m.array + 1.0), "array is a NumPy array"),
    "a buffer that was None": (_set("none", lambda m, x: x.mean(0)), "none is made a buffer"),
    "a buffer of another shape": (_set("buffer", lambda m, x: x), r"float32 \(3,\).*\(8, 3\)"),
    "a buffer of another dtype": (
        _set("whole", lambda m, x: m.whole + 0.5), r"int32 \(1,\).*float32"
    ),
    "a tensor of another object": (
        lambda m, x: setattr(m.held, "mean", m.held.mean + x.mean(0)), "held is changed"
    ),
    "a tensor of another object in place": (
        lambda m, x: m.held.mean.assign(x.mean(0)), "held is changed"
    ),
    "a parameter": (lambda m, x: m.linear.bias.assign(0.0), "bias is a parameter"),
    "a buffer through vars": (
        lambda m, x: vars(m).update(buffer=m.buffer + x.mean(0)), "buffer is .* past its module"
    ),
    "a buffer through object": (
        lambda m, x: object.__setattr__(m, "buffer", m.buffer + x.mean(0)), "past its module"
    ),
    "a buffer in another thread": (_in_thread, r"Says\.buffer is .* past its module"),
    "a tensor deep in containers": (_deep, r"Says\.deep\['a'\]\[0\]\['b'\] is changed"),
    "an array in a container": (_adds_deep, r"Says\.deep\['array'\] is changed"),
    "a tensor of a tuple": (lambda m, x: m.pair[0].assign(x.mean(0)), r"Says\.pair\[0\] is"),
    "a tensor in slots": (
        lambda m, x: setattr(m.slots, "mean", m.slots.mean + x.mean(0)), r"Says\.slots\.mean is"
    ),
    "a number of another object": (_counts_in_object, r"Says\.held\.rate is changed"),
    "an array of another object": (_adds_in_object, r"Says\.held\.array is changed"),
    "a tensor of a generator": (
        lambda m, x: m.carried.send(x.mean(0)), "'mean' in the generator Says.carried is changed"
    ),
    "a tensor of a class": (_through_class, r"Says\.shared is changed"),
    "a default": (_with_default, r"_with_default\.kept\['mean'\] is changed"),
    "a tensor of a closure": (_closing_over(), "'mean', which effect closes over, is changed"),
    "a global": (_in_global, r"the global 'GLOBAL'\['mean'\] is changed"),
}  # fmt: skip
SILENT: dict[str, Callable[[Any, Tensor], None]] = {
    "a cache of activations": _set("kept", lambda m, x: m.linear(x)),
    "a buffer by a property": _set("mean", lambda m, x: 0.5 * m.mean + x.mean(0)),
    "a number that stays": _set("count", lambda m, x: 0),
    "a new number": _set("batch", lambda m, x: x.shape[0]),
    "a cache of another object": lambda m, x: vars(m.held).setdefault("mask", x.sign()),
    "activations in another object": lambda m, x: setattr(m.held, "kept", m.linear(x)),
    "a part": _set("other", lambda m, x: nn.ReLU()),
    "a global cache": _cached_in_global,
}


@pytest.fixture(name="train")
def _train() -> Iterator[Callable[[Any], None]]:
    GLOBAL.clear()

    def train(effect: Callable[[Any, Tensor], None]) -> None:
        Says.shared, model = zeros((3,)), Says(effect)
        trainer = Trainer(SGD(model.parameters(), 0.1), capture=False)
        for _ in range(3):
            trainer.train_step(lambda x: (model(x) ** 2).mean(), X)

    return train  # type: ignore[return-value]


@pytest.mark.parametrize("what", TOLD)
def test_assignments_outside_the_step_are_reported_once(what: str, train: Any) -> None:
    effect, text = TOLD[what]
    with pytest.warns(SideEffectWarning) as found:
        train(effect)
    assert len(found) == 1
    assert found[0].filename == __file__
    assert re.search(text, str(found[0].message))


@pytest.mark.parametrize("what", SILENT)
def test_values_that_are_not_state_are_not_reported(what: str, train: Any) -> None:
    train(SILENT[what])


class Rewarded:
    """A loss with a baseline, which moves with each batch, kept in several places."""

    def __init__(self) -> None:
        self.model = nn.Linear(3, 1, generator=Generator(0))
        self.mean, self.last, self.table = zeros(()), zeros(()), {"mean": zeros(())}

    def kept(self, x: Tensor) -> Tensor:
        loss: Tensor = (self.model(x) ** 2).mean()
        self.mean = 0.9 * self.mean + 0.1 * loss.detach()
        return loss - self.mean

    def written(self, x: Tensor) -> Tensor:
        loss: Tensor = (self.model(x) ** 2).mean()
        self.mean.assign(0.9 * self.mean + 0.1 * loss.detach())
        return loss - self.mean

    def move(self, loss: Tensor) -> None:
        self.table["mean"] = 0.9 * self.table["mean"] + 0.1 * loss.detach()

    def moved(self, x: Tensor) -> Tensor:
        loss: Tensor = (self.model(x) ** 2).mean()
        self.move(loss)
        return loss - self.table["mean"]


def closed_over(of: Rewarded) -> Callable[[Tensor], Tensor]:
    mean = zeros(())

    def loss(x: Tensor) -> Tensor:
        nonlocal mean
        found: Tensor = (of.model(x) ** 2).mean()
        mean = 0.9 * mean + 0.1 * found.detach()
        return found - mean

    return loss


def logged(of: Rewarded) -> Callable[[Tensor], Tensor]:
    last, table = zeros(()), {"loss": zeros(())}

    def loss(x: Tensor) -> Tensor:
        nonlocal last
        found: Tensor = (of.model(x) ** 2).mean()
        last = table["loss"] = found.detach()
        return found

    return loss


KEEPING: dict[str, tuple[Callable[[Rewarded], Callable[[Tensor], Tensor]], str]] = {
    "an attribute": (lambda of: of.kept, r"self\.mean is a tensor"),
    "an attribute in place": (lambda of: of.written, r"self\.mean is a tensor"),
    "an element, by a method": (lambda of: of.moved, r"self\.table\['mean'\] is a tensor"),
    "a partial": (lambda of: partial(of.kept), r"self\.mean is a tensor"),
    "a closure": (closed_over, "'mean', which loss closes over, is a tensor"),
}


@pytest.mark.parametrize("capture", [True, False])
@pytest.mark.parametrize("where", KEEPING)
def test_a_tensor_that_a_loss_function_keeps_is_reported_once(where: str, capture: bool) -> None:
    """A skipped step would leave its NaN there for ever."""
    loss_of, text = KEEPING[where]
    of = Rewarded()
    loss = loss_of(of)
    trainer = Trainer(SGD(of.model.parameters(), 0.1, nonfinite="skip"), capture=capture)

    def train() -> None:
        for _ in range(3):
            trainer.train_step(loss, X)

    with pytest.warns(SideEffectWarning) as found:
        train()
    assert len(found) == 1
    assert re.match(text, str(found[0].message))


def test_what_a_loss_function_only_notes_is_not_reported() -> None:
    of = Rewarded()
    trainer = Trainer(SGD(of.model.parameters(), 0.1))
    loss = logged(of)
    for _ in range(3):
        trainer.train_step(loss, X)


def test_a_view_of_a_buffer_is_not_written_past_the_step() -> None:
    model = Says(lambda m, x: m.buffer[:2].assign(1.0))
    with pytest.raises(TypeError, match=r"Says\.buffer is a buffer, and forward writes to a view"):
        model(tensor(X))
    assert model.buffer.tolist() == [0.0] * 3
