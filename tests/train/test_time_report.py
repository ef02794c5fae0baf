"""How the time of an epoch was spent."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rumus.optim import LBFGS, SGD, Optimizer
from rumus.tensor import Backend, Parameter, Tensor, tensor
from rumus.train import Callback, EpochEnd, Spans, StepEnd, TimeReport, Trainer

DATA = [(np.array([n, n + 1], np.float32),) for n in range(6)]


class Seen(Callback):
    """The spans of steps and epochs."""

    def __init__(self) -> None:
        self.steps: list[Spans] = []
        self.epochs: list[tuple[Spans, float]] = []

    def on_step_end(self, event: StepEnd) -> None:
        assert event.spans is not None
        self.steps.append(event.spans)

    def on_epoch_end(self, event: EpochEnd) -> None:
        assert event.spans is not None
        self.epochs.append((event.spans, event.seconds))


def train(optimizer: Optimizer[Any], loss: Any, *callbacks: Callback, **options: Any) -> None:
    Trainer(optimizer).fit(
        options.pop("data", DATA),
        loss,
        epochs=2,
        callbacks=callbacks,
        profile_steps=True,
        **options,
    )


def test_each_part_is_where_it_was_spent() -> None:
    """With one slow part, the time is attributed to it; also within accumulation."""
    weight = Parameter([1.0], name="weight")

    class Slow:
        def __iter__(self) -> Any:
            for batch in DATA:
                time.sleep(0.004)
                yield batch

    def slow(x: Tensor) -> Tensor:
        time.sleep(0.002)
        return ((weight - x) ** 2).mean()

    seen = Seen()
    train(SGD([weight], 0.1), slow, seen, data=Slow(), accumulate=3)
    assert len(seen.steps) == 4
    for spans, seconds in seen.epochs:
        assert spans.data >= 6 * 0.004
        assert spans.forward >= 6 * 0.002
        assert spans.backward > 0
        assert spans.optimizer > 0
        assert spans.data + spans.forward_backward + spans.optimizer + spans.reading <= seconds


def test_an_optimizer_that_computes_losses_itself() -> None:
    weight = Parameter([1.0, 2.0], name="weight")

    def slow(x: Tensor) -> Tensor:
        time.sleep(0.002)
        return ((weight - x) ** 2).mean()

    seen = Seen()
    train(LBFGS([weight]), slow, seen)
    for spans, seconds in seen.epochs:
        assert spans.forward >= 6 * 0.002
        assert spans.optimizer > 0
        assert spans.forward_backward + spans.optimizer <= seconds


def test_on_any_backend(backend: Backend) -> None:
    """Recorded steps are still repeated, and kernels can be timed."""
    weight = Parameter(tensor([1.0, 2.0], backend=backend), name="weight")
    trainer = Trainer(SGD([weight], 0.1))
    lines: list[str] = []
    seen = Seen()
    trainer.fit(
        DATA, lambda x: ((weight - x) ** 2).mean(), epochs=2, profile_steps=True,
        callbacks=[seen, TimeReport(kernels=True, write=lines.append)],
    )  # fmt: skip
    is_gpu = hasattr(backend, "gpu")
    assert trainer.counts.captured == 10
    repeated = sum(spans.replayed > 0 for spans in seen.steps[2:])
    assert repeated == trainer.counts.replayed
    assert sum(spans.forward > 0 for spans in seen.steps[2:]) == len(seen.steps) - 2 - repeated
    first, *kernels, last = lines
    assert first.startswith("epoch 1: ")
    assert last.startswith("epoch 2: ")
    assert "replayed" in last
    assert ("(the host's time" in last) == is_gpu
    assert len(kernels) == is_gpu
    assert not is_gpu or "sgd" in kernels[0]


def test_no_object_is_changed_to_be_measured() -> None:
    weight = Parameter([1.0], name="weight")
    trainer = Trainer(SGD([weight], 0.1))
    names: list[set[str]] = []

    class Look(Callback):
        def on_step_end(self, event: StepEnd) -> None:
            names.append({*vars(trainer), *vars(trainer.optimizer), *vars(event.run.batches)})

    for is_on in (False, True):
        trainer.fit(
            DATA, lambda x: ((weight - x) ** 2).mean(), steps=1, callbacks=[Look()],
            profile_steps=is_on,
        )  # fmt: skip
    assert names[1] == names[0]


def test_the_clock_is_removed_after_the_training_even_if_it_fails() -> None:
    weight = Parameter([1.0], name="weight")
    trainer = Trainer(SGD([weight], 0.1))
    seen = Seen()

    class Fail(Callback):
        def on_step_end(self, event: StepEnd) -> None:
            raise RuntimeError("enough")

    def loss(x: Any) -> Any:
        return ((weight - x) ** 2).mean()

    with pytest.raises(RuntimeError, match="enough"):
        trainer.fit(DATA, loss, steps=1, callbacks=[seen, Fail()], profile_steps=True)
    (spans,) = seen.steps
    measured = replace(spans)
    trainer.train_step(loss, DATA[0][0])
    assert spans == measured


def test_it_requires_measured_steps() -> None:
    weight = Parameter([1.0], name="weight")
    with pytest.raises(Exception, match="TimeReport needs step times"):
        Trainer(SGD([weight], 0.1)).fit(
            DATA, lambda x: (weight * x).mean(), epochs=1, callbacks=[TimeReport()]
        )
