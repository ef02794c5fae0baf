"""Running statistics belong to the step: they move once per applied step, whatever runs forward."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus import nn
from rumus.optim import LBFGS, SAM, SGD, SWA, Accumulation, AdamW, LossScale, Optimizer
from rumus.tensor import (
    Backend,
    Generator,
    GradientStore,
    MissingGradientError,
    NonFiniteGradientError,
    NumpyBackend,
    Tensor,
    float16,
    no_grad,
    tensor,
)
from rumus.train import Trainer

X: NDArray[Any] = np.random.default_rng(0).normal(2, 1, (16, 3)).astype(np.float32)
BAD = np.where(np.arange(16)[:, None] == 3, np.nan, X).astype(np.float32)
Y = X[:, :1]


class Net:
    """A batch norm and a layer, in training mode."""

    def __init__(self, backend: Backend) -> None:
        self.norm = nn.BatchNorm1d(3)
        layer = nn.Linear(3, 1, generator=Generator(0))
        self.model = nn.Sequential(self.norm, layer).to(backend)
        self.backend = backend

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return nn.mse_loss(self.model(x), y)

    def of(self, x: NDArray[Any]) -> Tensor:
        return self.loss(tensor(x, backend=self.backend), tensor(Y, backend=self.backend))

    def statistics(self) -> tuple[list[float], list[float]]:
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        return self.norm.running_mean.tolist(), self.norm.running_var.tolist()


def moved(times: int = 1, x: NDArray[Any] = X) -> tuple[NDArray[Any], NDArray[Any]]:
    """The statistics after this many steps, in float64."""
    mean, variance = np.zeros(3), np.ones(3)
    for _ in range(times):
        mean = 0.9 * mean + 0.1 * x.astype(float).mean(0)
        variance = 0.9 * variance + 0.1 * x.astype(float).var(0, ddof=1)
    return mean, variance


def check_moved(net: Net, times: int) -> None:
    for found, wanted in zip(net.statistics(), moved(times), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=1e-6)


# Passes without an applied step


def looked_at(net: Net) -> None:
    net.of(X)


def without_graph(net: Net) -> None:
    with no_grad():
        net.of(X)


def backward_alone(net: Net) -> None:
    net.of(X).backward()


def gradient_check(net: Net) -> None:
    for epsilon in (1e-3, -1e-3):
        net.of(X + np.float32(epsilon)).item()


def accumulated_alone(net: Net) -> None:
    accumulation = Accumulation()
    accumulation.add(net.of(X).backward(), 16)


def skipped(net: Net) -> None:
    optimizer = SGD(net.model.parameters(), 0.1, nonfinite="skip")
    optimizer.step(net.of(BAD).backward())
    assert optimizer.skipped == 1
    optimizer.release()


def raised(net: Net) -> None:
    optimizer = SGD(net.model.parameters(), 0.1)

    def step() -> None:
        optimizer.step(net.of(BAD).backward())
        optimizer.poll(wait=True)

    with pytest.raises(NonFiniteGradientError):
        step()
    optimizer.release()


def refused(net: Net) -> None:
    other = SGD(nn.Linear(2, 2, generator=Generator(1)).parameters(), 0.1)
    with pytest.raises(MissingGradientError):
        other.step(net.of(X).backward())


def failed_forward(net: Net) -> None:
    trainer = Trainer(SGD(net.model.parameters(), 0.1))

    def fails(x: Tensor, y: Tensor) -> Tensor:
        net.loss(x, y)
        raise LookupError("no data")

    with pytest.raises(LookupError, match="no data"):
        trainer.train_step(fails, X, Y)
    trainer.optimizer.release()


def climbed(net: Net) -> None:
    sam = SAM(SGD(net.model.parameters(), 0.1, nonfinite="skip"))
    sam.minimize_step(lambda: net.of(BAD))
    assert sam.skipped == 1
    sam.release()


def searched(net: Net) -> None:
    optimizer = LBFGS(net.model.parameters(), nonfinite="skip")
    optimizer.minimize_step(lambda: net.of(BAD))
    assert optimizer.skipped == 1
    optimizer.release()


WITHOUT: list[Callable[[Net], None]] = [
    looked_at, without_graph, backward_alone, gradient_check, accumulated_alone, skipped, raised,
    refused, failed_forward, climbed, searched,
]  # fmt: skip


@pytest.mark.parametrize("passes", WITHOUT, ids=lambda f: f.__name__)
def test_a_pass_without_a_step_leaves_no_trace(
    passes: Callable[[Net], None], backend: Backend
) -> None:
    net = Net(backend)
    passes(net)
    assert net.statistics() == ([0.0] * 3, [1.0] * 3)


# Steps


def plain(net: Net) -> None:
    SGD(net.model.parameters(), 0.0).step(net.of(X).backward())


def by_trainer(net: Net) -> None:
    Trainer(SGD(net.model.parameters(), 0.0)).train_step(net.loss, X, Y)


def by_sam(net: Net) -> None:
    SAM(SGD(net.model.parameters(), 0.0)).minimize_step(lambda: net.of(X))


def by_lbfgs(net: Net) -> None:
    optimizer = LBFGS(net.model.parameters(), max_iter=5)
    calls = []

    def closure() -> Tensor:
        calls.append(1)
        return net.of(X)

    optimizer.minimize_step(closure)
    assert len(calls) > 1


def by_recomputation(net: Net) -> None:
    x, y = (tensor(a, backend=net.backend) for a in (X, Y))
    loss = nn.mse_loss(nn.checkpoint(net.model, x), y)
    SGD(net.model.parameters(), 0.0).step(loss.backward())


def by_an_own_optimizer(net: Net) -> None:
    class Own(Optimizer[Any]):
        def step(self, grads: GradientStore) -> None:
            for p in self.parameters:
                grads.take(p)

    Own(net.model.parameters()).step(net.of(X).backward())


def after_others(net: Net) -> None:
    for passes in WITHOUT:
        passes(net)
    plain(net)


def frozen(net: Net) -> None:
    """A layer whose parameters are frozen, below one that is trained."""
    net.norm.freeze()
    Trainer(SGD(net.model.parameters(), 0.0)).train_step(net.loss, X, Y)


ONCE: list[Callable[[Net], None]] = [
    plain, by_trainer, by_sam, by_lbfgs, by_recomputation, by_an_own_optimizer, after_others,
    frozen,
]  # fmt: skip


@pytest.mark.parametrize("step", ONCE, ids=lambda f: f.__name__)
def test_a_step_moves_them_once(step: Callable[[Net], None], backend: Backend) -> None:
    net = Net(backend)
    step(net)
    check_moved(net, 1)


def test_accumulated_passes_count_each(backend: Backend) -> None:
    """Two batches for one step: each counts once."""
    net = Net(backend)
    trainer = Trainer(SGD(net.model.parameters(), 0.0))
    trainer.fit([(X, Y)] * 2, net.loss, epochs=1, accumulate=2, signals=False)
    check_moved(net, 2)


def test_a_skipped_batch_was_never_seen(backend: Backend) -> None:
    """Bit for bit, including on a device that decides on its own and repeats the passes."""
    found = []
    for batches in ([X, X + 1, X, X, X + 2, X], [X, X + 1, BAD, X, BAD, X, X + 2, BAD, X]):
        net = Net(backend)
        trainer = Trainer(SGD(net.model.parameters(), 0.01, nonfinite="skip"))
        for x in batches:
            trainer.train_step(net.loss, x.astype(np.float32), Y)
        found.append((net.statistics(), net.model.state_dict()["1.weight"].tolist()))
    assert found[0] == found[1]
    assert trainer.optimizer.skipped == 3


def test_a_device_refuses_until_the_host_knows(backend: Backend) -> None:
    """Nothing moves from the bad step on; training continues after the error."""
    net = Net(backend)
    trainer = Trainer(SGD(net.model.parameters(), 0.0))
    for _ in range(3):
        trainer.train_step(net.loss, X, Y)

    def goes_on() -> None:
        for x in (BAD, X, X):
            trainer.train_step(net.loss, x, Y)
        trainer.optimizer.poll(wait=True)

    with pytest.raises(NonFiniteGradientError):
        goes_on()
    check_moved(net, 3)
    trainer.train_step(net.loss, X, Y)
    check_moved(net, 4)


def test_mixed_precision_leaves_no_infinity(backend: Backend) -> None:
    """One batch exceeds 65504, with the default for non-finite gradients."""
    norm = nn.BatchNorm1d(3)
    layer = nn.Linear(3, 1, generator=Generator(0))
    model = nn.Sequential(norm, layer).half().to(backend)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return nn.mse_loss(model(x.astype(float16)), y)

    optimizer = AdamW(model.parameters(), 1e-3, master_weights=True)
    trainer = Trainer(optimizer, loss_scale=LossScale())
    for x in (X, X * 1e5, X, X, X * 1e5):
        trainer.train_step(loss, x.astype(np.float32), Y)
    assert optimizer.skipped >= 2  # and perhaps some while the scale falls
    assert norm.running_mean is not None
    assert all(map(math.isfinite, norm.running_mean.tolist()))


# Random streams


class Dropped(Net):
    """With dropout."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.masks = Generator(7)
        self.model = nn.Sequential(nn.Dropout(0.5, generator=self.masks), self.model)


@pytest.mark.parametrize("make", [lambda p: SAM(SGD(p, 0.1)), lambda p: LBFGS(p, max_iter=4)])
@pytest.mark.parametrize("by_trainer", [False, True])
def test_a_step_of_several_passes_draws_once(
    make: Callable[[Any], Any], by_trainer: bool, backend: Backend
) -> None:
    net = Dropped(backend)
    optimizer = make(net.model.parameters())
    for _ in range(4):
        if by_trainer:
            Trainer(optimizer).train_step(net.loss, X, Y)
        else:
            optimizer.minimize_step(lambda: net.of(X))
    assert net.masks.position == 4 * 48  # one mask of 16 x 3 words at each step


def test_a_step_that_fails_or_is_skipped_draws_nothing() -> None:
    """If the host decides; a device keeps drawing masks until the host knows."""
    net = Dropped(NumpyBackend())
    trainer = Trainer(SGD(net.model.parameters(), 0.1, nonfinite="skip"))
    trainer.train_step(net.loss, X, Y)
    trainer.train_step(net.loss, BAD, Y)
    assert net.masks.position == 48

    def fails(x: Tensor, y: Tensor) -> Tensor:
        net.loss(x, y)
        raise LookupError("no data")

    with pytest.raises(LookupError, match="no data"):
        trainer.train_step(fails, X, Y)
    assert net.masks.position == 48


def test_a_recomputed_function_drops_the_same(backend: Backend) -> None:
    """The generators that it uses are found by their draws, also in repeated steps."""
    found = []
    for recomputes in (True, False):
        net = Dropped(backend)
        trainer = Trainer(SGD(net.model.parameters(), 0.1))

        def loss(x: Tensor, y: Tensor, net: Net = net, again: bool = recomputes) -> Tensor:
            def whole(x: Tensor) -> Tensor:
                return net.model(x)

            return nn.mse_loss(nn.checkpoint(whole, x) if again else whole(x), y)

        for _ in range(5):
            trainer.train_step(loss, X, Y)
        found.append((net.model.state_dict()["1.1.weight"].tolist(), net.masks.position))
    assert found[0] == found[1]


def test_a_mean_of_batches_counts_steps_that_count(backend: Backend) -> None:
    layer = nn.BatchNorm1d(2, momentum=None, backend=backend)
    optimizer = SGD(layer.parameters(), lr=0.0, nonfinite="skip")
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(5, 2)).astype(np.float32) for _ in range(3)]
    batches.insert(1, np.full((5, 2), np.nan, np.float32))
    for batch in batches:
        optimizer.step(layer(tensor(batch, backend=backend)).sum().backward())
    good = [b for b in batches if np.isfinite(b).all()]
    assert layer.running_mean is not None
    assert layer.running_var is not None
    assert layer.batches is not None
    np.testing.assert_allclose(
        layer.running_mean.numpy(), np.mean([b.mean(0) for b in good], 0), atol=1e-6
    )
    np.testing.assert_allclose(
        layer.running_var.numpy(), np.mean([b.var(0, ddof=1) for b in good], 0), rtol=1e-5
    )
    assert layer.batches.tolist() == [3.0, 3.0]


def test_the_statistics_of_an_average_are_measured_without_a_step(backend: Backend) -> None:
    """As docs/optimizers.md tells it for SWA."""
    net, average = Net(backend), SWA(start=1, every=1)
    optimizer = SGD(net.model.parameters(), lr=0.1, average=average)
    optimizer.step(net.of(X).backward())
    trained = net.model.state_dict()["1.weight"].tolist()
    before = net.statistics()
    with average.applied():
        net.model(tensor(X, backend=backend))
        assert net.statistics() == before
        net.model(tensor(X, backend=backend)).sum().backward().write_updates()
    for found, wanted in zip(net.statistics(), moved(2), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert net.model.state_dict()["1.weight"].tolist() == trained
