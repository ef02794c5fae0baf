"""A loss spike: the batch is named and skipped, or the run rolls back."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.optim import LBFGS, AdamW, LossScale, ZClip
from rumus.tensor import Backend, Generator, NumpyBackend, Parameter, tensor
from rumus.train import (
    ArrayDataset,
    DataLoader,
    LossSpikeError,
    Result,
    Spikes,
    Trainer,
)

Batch = tuple[NDArray[np.float32], NDArray[np.float32]]
TRUE = np.array([1.0, -2.0, 3.0], np.float32)


def batches(number: int, seed: int = 0) -> list[Batch]:
    draw = np.random.default_rng(seed)
    rows = draw.normal(size=(number, 8, 3)).astype(np.float32)
    noise = draw.normal(size=(number, 8)).astype(np.float32)
    return [(x, x @ TRUE + e) for x, e in zip(rows, noise, strict=True)]


def bad(seed: int = 9) -> Batch:
    ((x, y),) = batches(1, seed)
    return x, y + 1000


class Epochs:
    """A loader whose epochs are given one by one."""

    def __init__(self, *epochs: Sequence[Batch]) -> None:
        self.epochs, self.epoch = epochs, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.epochs[self.epoch])

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.epochs[self.epoch])


class Regression:
    """A linear model with its own noise, and the results of a training."""

    def __init__(self, backend: Backend | None = None, **options: Any) -> None:
        self.w = Parameter(np.zeros(3), name="w", backend=backend)
        self.generator = Generator(5)
        self.optimizer = AdamW([self.w], 0.05, clip=ZClip(warmup_steps=3))
        state = {"generator": self.generator}
        self.trainer = Trainer(self.optimizer, state=state, **options)

    def loss(self, x: Any, y: Any) -> Any:
        noise = self.generator.normal((8,), backend=x.backend)
        return ((x @ self.w - y + 0.1 * noise) ** 2).mean()

    def fit(self, loader: Any, **options: Any) -> Result:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            return self.trainer.fit(loader, self.loss, signals=False, **{"epochs": 1, **options})

    def bits(self) -> list[Any]:
        state = self.optimizer.state_dict()["parameters"]["w"]["state"]
        found = [self.w.numpy().tobytes(), *(state[name].tobytes() for name in sorted(state))]
        return [*found, self.generator.state()]


@pytest.mark.parametrize("capture", [True, False])
@pytest.mark.parametrize("scaled", [True, False])
def test_a_skipped_batch_leaves_no_trace(backend: Backend, capture: bool, scaled: bool) -> None:
    options: dict[str, Any] = {"capture": capture, "loss_scale": LossScale() if scaled else None}
    good = batches(30)
    spiked, plain = (Regression(backend, **options) for _ in range(2))
    result = spiked.fit(
        [*good[:20], bad(), *good[20:25], bad(), *good[25:]], spikes=Spikes(window=15)
    )
    wanted = plain.fit(good)
    assert spiked.bits() == plain.bits()
    assert result.history[0]["loss"] == wanted.history[0]["loss"]
    assert [(spike.epoch, spike.step, spike.batches) for spike in result.spikes] == [
        (0, 21, (20,)), (0, 27, (26,)),
    ]  # fmt: skip
    assert all(spike.loss > 1e5 > 100 > spike.mean for spike in result.spikes)
    assert spiked.optimizer.steps == 30
    assert result.steps == 32


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("workers", [0, 1])
def test_the_offending_samples_are_named(accumulate: int, workers: int) -> None:
    whole = [np.concatenate(part) for part in zip(*batches(50), strict=True)]
    whole[1][[123, 321]] += 1000
    loader = DataLoader(ArrayDataset(*whole), 8, shuffle=True, seed=3, workers=workers)
    next(iter(loader))  # the loop continues where this one stopped
    regression, spikes = Regression(), Spikes(window=10)
    with (
        pytest.warns(UserWarning, match="which the first epoch of this run lacks"),
        pytest.warns(RuntimeWarning, match=r"skipped: the loss of step \d+ is .* \(samples "),
    ):
        result = regression.trainer.fit(
            loader, regression.loss, epochs=2, accumulate=accumulate, spikes=spikes, signals=False
        )
    late = [spike for spike in result.spikes if spike.epoch == 1]
    named = [set(spike.samples or ()) for spike in late]
    assert {123, 321} <= set.union(*named)
    assert all(samples & {123, 321} for samples in named)
    assert all(len(spike.batches) == accumulate for spike in late)
    assert all(len(spike.samples or ()) == 8 * accumulate for spike in late)


def test_a_rollback_restores_the_start_of_the_epoch(backend: Backend) -> None:
    first, second = batches(30), batches(12, 1)
    rolled, plain = Regression(backend), Regression(backend)
    loader = Epochs(first, [*second[:8], bad(), *second[8:]])
    spikes = Spikes("rollback", window=20)
    result = rolled.fit(loader, epochs=2, spikes=spikes)
    plain.fit(first)
    assert rolled.bits() == plain.bits()
    assert [(s.epoch, s.step, s.batches, s.samples) for s in result.spikes] == [(1, 39, (8,), None)]


def test_a_rollback_checks_32_losses_at_once_and_continues(backend: Backend) -> None:
    first, second = batches(30), batches(50, 1)
    rolled, plain = Regression(backend), Regression(backend)
    spikes = Spikes("rollback", window=20)
    # 30 losses were checked when the epoch ended, 32 more with the 33rd batch of the second
    rolled.fit(Epochs(first, [*second[:8], bad(), *second[8:]]), epochs=2, spikes=spikes)
    rest = [*second[:8], bad(), *second[8:]][32:]
    plain.fit(Epochs(first, rest), epochs=2)
    assert rolled.w.numpy().tobytes() == plain.w.numpy().tobytes()


def test_a_rollback_compares_with_losses_of_the_restored_weights() -> None:
    """The losses of the steps that were rolled back were far lower."""
    draw = np.random.default_rng(0)
    exact = [(x, x @ TRUE) for x in draw.normal(size=(200, 8, 3)).astype(np.float32)]
    regression = Regression()
    result = regression.fit(
        Epochs([*exact, bad(), *exact[:40]]), spikes=Spikes("rollback", window=20), rollbacks=1
    )
    assert len(result.spikes) == 1


def test_rollbacks_have_a_limit() -> None:
    good = batches(20)
    loader = Epochs(good, *([*batches(5, seed), bad()] for seed in range(3)))
    regression = Regression()
    with pytest.raises(LossSpikeError, match="rolled back 2 times before: that is the limit"):
        regression.fit(loader, epochs=4, spikes=Spikes("rollback", window=15), rollbacks=2)


def test_patience_ends_a_run_whose_weights_are_to_blame() -> None:
    regression = Regression()
    epoch = [*batches(20), *(bad(seed) for seed in range(4)), *batches(5, 1)]
    with pytest.raises(LossSpikeError, match="3 steps before it were skipped"):
        regression.fit(epoch, spikes=Spikes(window=15, patience=3))
    assert regression.optimizer.steps == 20
    again = Regression()
    assert len(again.fit(epoch, spikes=Spikes(window=15, patience=4)).spikes) == 4


@pytest.mark.parametrize("stop", [18, 21, 24])
def test_a_resume_knows_the_losses_before(stop: int, tmp_path: Path) -> None:
    epoch = [*batches(20), bad(), bad(8), *batches(8, 1), bad(), *batches(3, 2)]
    spikes = Spikes(window=10, patience=2)
    whole, first, second = (Regression() for _ in range(3))
    wanted = whole.fit(epoch, spikes=spikes)
    first.fit(epoch, steps=stop, epochs=None, checkpoints=tmp_path, spikes=spikes)
    result = second.fit(epoch, checkpoints=tmp_path, resume=True, spikes=spikes)
    assert second.bits() == whole.bits()
    assert result.spikes == wanted.spikes
    assert len(result.spikes) == 3


def test_a_non_finite_loss_is_handled_separately() -> None:
    epoch = batches(30)
    epoch[20] = (epoch[20][0], epoch[20][1] * np.nan)
    regression = Regression()
    result = regression.fit(epoch, spikes=Spikes(window=10), nonfinite="skip")
    assert (result.spikes, regression.optimizer.skipped) == ([], 1)


def test_refused_input() -> None:
    regression = Regression()

    def fit(**options: Any) -> None:
        regression.fit(batches(2), **options)

    with pytest.raises(TypeError, match=re.escape("spikes must be Spikes(...) or None")):
        fit(spikes="skip")
    with pytest.raises(ValueError, match="rollbacks=5 has no effect"):
        fit(spikes=Spikes(), rollbacks=5)
    w = Parameter([1.0], name="w", backend=NumpyBackend())
    trainer = Trainer(LBFGS([w]))
    with pytest.raises(ValueError, match="evaluates a batch several times"):
        trainer.fit([(np.ones(1),)], lambda x: (w * x).sum(), epochs=1, spikes=Spikes())
    for options, message in (
        ({"action": "raise"}, "action must be 'skip' or 'rollback'"),
        ({"z_thresh": 0.0}, "z_thresh"),
        ({"window": 1}, "window must be at least 2"),
        ({"patience": 0}, "patience must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            Spikes(**options)


def test_a_loader_says_which_samples_a_batch_has() -> None:
    loader = DataLoader(ArrayDataset(np.arange(10)), 4, shuffle=True, seed=2)
    for epoch in range(2):
        seen = [batch for (batch,) in loader]
        for number, batch in enumerate(seen):
            assert loader.samples_of(epoch, number).tolist() == tensor(batch).tolist()
    with pytest.raises(ValueError, match="there is no batch 3"):
        loader.samples_of(0, 3)
