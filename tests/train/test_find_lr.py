"""`find_lr`: the sweep, and that nothing has changed afterwards, bit for bit."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rumus.optim import (
    LBFGS,
    SAM,
    SGD,
    AdamW,
    Lookahead,
    Optimizer,
    ParameterGroup,
    Plateau,
    ScheduleFreeAdamW,
    warmup,
)
from rumus.optim.options.schedule import cosine
from rumus.tensor import Backend, Generator, Parameter, Tensor, tensor, where
from rumus.train import ArrayDataset, DataLoader, Trainer, find_lr
from rumus.train.checkpoints.snapshot import parts_of_model, take
from rumus.train.checkpoints.state_tree import split

Make = Callable[[Parameter, Parameter], Optimizer[Any]]
MAKERS: dict[str, Make] = {
    "momentum": lambda w, b: SGD([w, b], 0.1, momentum=0.9),
    "groups": lambda w, b: AdamW([ParameterGroup([w]), ParameterGroup([b], lr=0.05)], 0.01),
    "schedule": lambda w, b: AdamW([w, b], warmup(3).then(cosine(1e-2, 40))),
    "plateau": lambda w, b: SGD([w, b], Plateau(0.1)),
    "skip": lambda w, b: SGD([w, b], 0.1, momentum=0.9, nonfinite="skip"),
    "propagate": lambda w, b: AdamW([w, b], 0.01, nonfinite="propagate"),
    "schedule-free": lambda w, b: ScheduleFreeAdamW([w, b], 0.01),
    "lookahead": lambda w, b: Lookahead(AdamW([w, b], 0.01)),
    "sam": lambda w, b: SAM(SGD([w, b], 0.1, momentum=0.9)),
    "lbfgs": lambda w, b: LBFGS([w, b], lr=0.5),
}


class Job:
    """A model with noise, a loader in the middle of an epoch, and a few steps done."""

    def __init__(self, name: str, steps: int = 5, backend: Backend | None = None) -> None:
        ones, zeros = np.ones((3, 1), np.float32), np.zeros(1, np.float32)
        self.weight = Parameter(tensor(ones, backend=backend), name="weight")
        self.bias = Parameter(tensor(zeros, backend=backend), name="bias")
        self.is_noisy = name != "lbfgs"  # which must get the same function each time
        self.noise, self.own = Generator(3), np.random.default_rng(5)
        self.calls, self.fails_at = 0, 0
        x = np.sin(np.arange(33, dtype=np.float32)).reshape(11, 3)
        data = ArrayDataset(x, x.sum(axis=1, keepdims=True))
        self.loader = DataLoader(data, 4, shuffle=True, seed=1, transform=self.moved)
        optimizer = MAKERS[name](self.weight, self.bias)
        self.trainer = Trainer(optimizer, state={"noise": self.noise, "own": self.own})
        self.train(steps)

    def moved(self, sample: tuple[Any, ...], generator: np.random.Generator) -> tuple[Any, ...]:
        return sample[0] + np.float32(0.01 * generator.normal()), sample[1]

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.fails_at:
            raise KeyboardInterrupt if self.calls % 2 else RuntimeError("no memory")
        if self.is_noisy:
            x = where(self.noise.keep(0.9, (3,), backend=x.backend), x, 0.0)
        return ((x @ self.weight + self.bias - y) ** 2).mean()

    def train(self, steps: int) -> list[float]:
        losses: list[float] = []
        while len(losses) < steps:
            self.loader.seek(self.loader.epoch, self.loader.batch)
            for batch in self.loader:
                self.own.random()
                losses.append(float(self.trainer.train_step(self.loss, *batch)))
                if len(losses) == steps:
                    break
        return losses

    def bits(self) -> list[Any]:
        """Everything that a step changes."""
        optimizer: Any = self.trainer.optimizer
        tree = take({**parts_of_model(optimizer, self.trainer.state), "loader": self.loader})
        arrays, rest = split(tree)
        owner = getattr(optimizer, "fused", optimizer)
        return [
            [(a.dtype, a.tobytes()) for found in arrays.values() for a in found.values()],
            repr(rest),
            repr([owner.hyper, *(group.hyper for group in owner.groups)]),
            repr([optimizer.outcome, owner.outcome, getattr(owner, "skipped", 0)]),
            getattr(owner, "blamed", ()),
            self.trainer.counts,
            self.trainer.stepper.losses.state_dict(),
        ]


@pytest.mark.parametrize("name", MAKERS)
def test_nothing_has_changed(name: str) -> None:
    """Further training is also what it would have been."""
    swept, other = Job(name), Job(name)
    before = swept.bits()
    sweep = find_lr(swept.trainer, swept.loader, swept.loss, start=1e-4, end=1e8, steps=40)
    assert len(sweep.losses) > 5
    assert swept.calls > other.calls
    assert swept.bits() == before == other.bits()
    assert swept.train(7) == other.train(7)
    assert swept.bits() == other.bits()


@given(
    st.sampled_from(["groups", "schedule", "schedule-free", "lookahead"]),
    st.integers(0, 7),
    st.integers(1, 12),
)
@settings(deadline=None, max_examples=25)
def test_nothing_has_changed_after_a_failure(name: str, steps: int, call: int) -> None:
    swept, other = Job(name, steps), Job(name, steps)
    before = swept.bits()
    swept.fails_at = swept.calls + call
    with pytest.raises((RuntimeError, KeyboardInterrupt)):
        find_lr(swept.trainer, swept.loader, swept.loss, steps=12, stop_factor=math.inf)
    assert swept.bits() == before
    assert swept.train(4) == other.train(4)


def test_nothing_has_changed_on_any_backend(backend: Backend) -> None:
    """On a GPU: including losses that wait to be read, and recorded steps."""
    swept, other = (Job("groups", 5, backend) for _ in range(2))
    before = swept.bits()
    sweep = find_lr(swept.trainer, swept.loader, swept.loss, start=1e-3, end=1e12, steps=30)
    assert sweep.reason in ("diverged", "not finite")
    assert swept.bits() == before
    assert swept.train(5) == other.train(5)
    assert swept.trainer.epoch_avg_loss() == other.trainer.epoch_avg_loss()


def test_the_sweep() -> None:
    """For p^2 with SGD: each step multiplies p by 1 - 2 lr."""
    weight = Parameter([1.0], name="weight")
    trainer = Trainer(SGD([weight], 0.1))
    data = [(np.zeros(1, np.float32),)]
    sweep = find_lr(
        trainer,
        data,
        lambda x: ((weight + x) ** 2).sum(),
        start=1e-3,
        end=10,
        steps=41,
        smoothing=0,
    )
    assert sweep.rates == pytest.approx([1e-3 * 10 ** (n / 10) for n in range(len(sweep.rates))])
    p = 1.0
    for rate, loss, smoothed in zip(sweep.rates, sweep.losses, sweep.smoothed, strict=True):
        assert loss == smoothed == pytest.approx(p * p, rel=1e-4)
        p *= 1 - 2 * rate
    assert sweep.reason == "diverged"
    assert sweep.rates[-1] > 1  # beyond it, each step moves away from the minimum
    assert sweep.suggestion is not None
    assert 0.01 < sweep.suggestion < 1


def test_the_average_has_no_bias() -> None:
    weight = Parameter([1.0], name="weight")
    data = [(np.zeros(1, np.float32),)]
    trainer = Trainer(SGD([weight], 0.1))
    sweep = find_lr(trainer, data, lambda x: (weight * 0 + 3 + x).sum(), steps=5, smoothing=0.9)
    assert sweep.smoothed == pytest.approx([3.0] * 5)
    assert (sweep.reason, sweep.suggestion) == ("end", None)


def test_a_non_finite_loss_ends_it() -> None:
    weight = Parameter([1.0], name="weight")
    trainer = Trainer(SGD([weight], 0.1))
    sweep = find_lr(trainer, [(np.ones(1, np.float32),)], lambda x: (weight * x * math.nan).sum())
    assert (sweep.reason, sweep.losses, sweep.suggestion) == ("not finite", (), None)
    assert weight.tolist() == [1.0]
    trainer.train_step(lambda: (weight**2).sum())


def test_groups_keep_their_ratio() -> None:
    job, seen = Job("groups"), []

    def loss(x: Tensor, y: Tensor) -> Tensor:
        optimizer: Any = job.trainer.optimizer
        seen.append((optimizer.hyper["lr"], optimizer.groups[1].hyper["lr"]))
        return job.loss(x, y)

    find_lr(job.trainer, job.loader, loss, steps=4, start=1e-4, end=1e-1)
    assert [own / main for main, own in seen] == pytest.approx([5.0] * 4)
    assert seen[0][0] == 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": 0.0}, "0 < start < end"),
        ({"start": 2.0, "end": 1.0}, "0 < start < end"),
        ({"end": math.inf}, "0 < start < end"),
        ({"steps": 1}, "steps must be"),
        ({"smoothing": 1.0}, "smoothing must be"),
        ({"stop_factor": 1.0}, "stop_factor must be"),
    ],
)
def test_bad_numbers(options: dict[str, Any], message: str) -> None:
    job = Job("momentum", 0)
    with pytest.raises(ValueError, match=message):
        find_lr(job.trainer, job.loader, job.loss, **options)


def test_state_that_could_not_be_restored_is_refused() -> None:
    job = Job("momentum", 0)
    with pytest.raises(ValueError, match="the loader is an iterator"):
        find_lr(job.trainer, iter([(np.ones((1, 3)), np.ones((1, 1)))]), job.loss)
    with pytest.raises(ValueError, match="the loader yields nothing"):
        find_lr(job.trainer, [], job.loss)
    assert job.calls == 0


def test_drawing_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    job = Job("momentum", 0)
    sweep = find_lr(job.trainer, job.loader, job.loss, steps=3)
    with pytest.raises(ImportError, match=r"pip install 'rumus-train\[plot\]'"):
        sweep.draw(tmp_path / "x.png")
