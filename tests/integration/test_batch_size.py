"""`find_batch_size`: what fits, according to captured steps; it leaves the trainer unchanged."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from rumus import nn
from rumus.optim import AdamW
from rumus.tensor import Backend, Tensor
from rumus.train import Trainer, find_batch_size

X = np.random.default_rng(0).normal(size=(5, 32)).astype(np.float32)
Y = (np.arange(5) % 3).astype(np.int32)


class Case:
    """A small model that has trained for a step."""

    def __init__(self, backend: Backend) -> None:
        self.model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 3))
        self.model.to(backend)
        self.trainer = Trainer(AdamW(self.model.parameters(), 1e-2), state={"model": self.model})
        self.trainer.train_step(self.loss, X, Y)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return nn.cross_entropy_loss(self.model(x), y)

    def bits(self) -> list[bytes]:
        return [p.numpy().tobytes() for p in self.model.parameters()]


@pytest.fixture
def case(backend: Backend) -> Case:
    return Case(backend)


def peak(case: Case, count: int) -> int:
    """The memory of a step with this many samples, measured differently."""
    rows = np.arange(count) % 5
    with case.trainer.stepper.apart():
        for _ in range(2):
            case.trainer.train_step(case.loss, X[rows], Y[rows])
        found = case.trainer.memory_report().peak
    assert found is not None
    return found


def test_the_largest_that_fits(case: Case) -> None:
    memory = peak(case, 200) + 100
    found = find_batch_size(case.trainer, (X, Y), case.loss, memory=memory, multiple=4)
    assert found.size % 4 == 0
    assert found.peak == found.peaks[found.size]
    assert found.peak <= memory
    larger = found.peaks[found.size + 4]
    assert larger is None or larger > memory
    assert 150 <= found.size <= 250
    assert len(found.peaks) <= 12


def test_the_trainer_is_unchanged(case: Case) -> None:
    memory = peak(case, 64)
    optimizer: Any = case.trainer.optimizer
    before, state = case.bits(), repr(optimizer.state_dict())
    find_batch_size(case.trainer, (X, Y), case.loss, memory=memory)
    assert case.bits() == before
    assert repr(optimizer.state_dict()) == state
    assert np.isfinite(case.trainer.epoch_avg_loss())


def test_a_bound(case: Case) -> None:
    found = find_batch_size(case.trainer, (X, Y), case.loss, memory=1 << 40, multiple=8, most=100)
    assert found.size == 96


def test_too_little_memory(case: Case) -> None:
    with pytest.raises(ValueError, match=r"a step of 8 samples takes .* memory= is 1000 bytes"):
        find_batch_size(case.trainer, (X, Y), case.loss, memory=1000)


class Full(Exception):
    """Raised by the device."""


def test_a_device_without_room(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is full at 50 samples, although `memory` would allow more."""
    step = Trainer.train_step
    full = type("OutOfMemoryError", (Full,), {})

    def limited(self: Any, loss_fn: Any, *batch: Any, **named: Any) -> Any:
        if len(batch[0]) >= 50:
            raise full("the device is full")
        return step(self, loss_fn, *batch, **named)

    monkeypatch.setattr(Trainer, "train_step", limited)
    found = find_batch_size(case.trainer, (X, Y), case.loss, memory=1 << 40)
    assert found.size == 48
    assert None in found.peaks.values()
    with pytest.raises(Full):  # not even the first
        find_batch_size(case.trainer, (X, Y), case.loss, memory=1 << 40, multiple=64)


def test_dicts(case: Case) -> None:
    batch = {"x": X, "y": Y}
    found = find_batch_size(case.trainer, batch, case.loss, memory=1 << 40, most=16)
    assert found.size == 16


@pytest.mark.parametrize(
    ("options", "batch", "said"),
    [
        ({"memory": 0}, (X, Y), "memory and multiple must be at least 1"),
        ({"memory": 9, "multiple": 0}, (X, Y), "memory and multiple must be at least 1"),
        ({"memory": 9, "most": 7}, (X, Y), "most at least multiple"),
        ({"memory": 9}, (X, Y[:4]), "same number of samples"),
        ({"memory": 9}, (X[:0], Y[:0]), "along the first axis, not [0]"),
        ({"memory": 9}, (1.0,), "no array"),
    ],
)
def test_bad_arguments(options: dict[str, Any], batch: Any, said: str) -> None:
    from rumus.tensor import cpu

    case = Case(cpu())
    with pytest.raises(ValueError, match=re.escape(said)):
        find_batch_size(case.trainer, batch, case.loss, **options)


def test_a_step_that_is_not_captured() -> None:
    from rumus.tensor import cpu

    case = Case(cpu())
    loss = lambda x, y: case.loss(x, y) * float(x.numpy().shape[0] > 0)
    with pytest.raises(
        ValueError, match="known only if it is captured, and it is not: it reads numbers"
    ):
        find_batch_size(case.trainer, (X, Y), loss, memory=1 << 30)
