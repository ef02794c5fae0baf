"""The cost of `Trainer.fit` over the same loop by hand: microseconds per step, on the CPU.

Everything that costs something in a step is on: callbacks that see each one, validation and
checkpoints that are due now and then (none during a measurement), early stopping, signals, limits,
a counted loader. The model is as small as possible, so that the overhead is what is measured. The
same is measured for Lightning Fabric and Accelerate over PyTorch, if they are installed. The
figures are processor time of the training thread, so that other programs count little. Prints one
line for each, and one without what a call of `fit` costs once: the lowest tenth of single steps, on
one core. Run with `python tests/bench/fit.py`, or `python tests/bench/fit.py steps` for that alone.
"""

from __future__ import annotations

import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from rumus.optim import AdamW
from rumus.tensor import Parameter, Tensor
from rumus.train import Callback, EarlyStopping, Every, LiveView, RunFolder, StepEnd, Trainer

STEPS = 2000
ROUNDS = 15
REACH = 50.0  # microseconds
REACH_STEP = 15.0  # of a step alone
IN_A_ROW, TURNS = 20, 800  # steps


class Watch(Callback):
    """Sees each step, as a display does, and reads nothing."""

    def __init__(self) -> None:
        self.samples = 0.0
        self.rate: float | None = None

    def on_step_end(self, event: StepEnd) -> None:
        """Count."""
        self.samples += event.samples
        self.rate = event.learning_rate


class Terminal(io.StringIO):
    """Receives what a terminal would show."""

    def isatty(self) -> bool:
        """Return that it is one."""
        return True


def watched(folder: str) -> list[Callback]:
    """Return what shows a training and keeps it; the page at the end is no cost of a step."""
    return [LiveView(Terminal()), RunFolder(folder, report=False)]


def small_model(rate: float = 1e-3) -> tuple[Trainer[Any], Callable[..., Tensor]]:
    """Return a trainer of three parameters, and the loss."""
    weight = Parameter(np.ones(3, np.float32), name="weight")
    return Trainer(AdamW([weight], rate)), lambda x: ((weight * x - 1.0) ** 2).mean()


def fit_once(trainer: Trainer[Any], data: Any, loss: Callable[..., Tensor], kept: bool) -> None:
    """Train for an epoch with everything on.

    kept: also with a live view and a run folder.
    """
    run = tempfile.mkdtemp()
    trainer.fit(
        data, loss, epochs=1, steps=10**9, seconds=3600,
        validate=lambda: {"loss": 0.0}, validate_every=Every(steps=10**9, seconds=3600),
        callbacks=[Watch(), EarlyStopping("loss"), Watch(), *(watched(run) if kept else ())],
        nonfinite="skip", checkpoints=f"{run}/checkpoints",
        save_every=Every(steps=10**9, seconds=3600),
    )  # fmt: skip


def rumus_sides(kept: bool = False) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return an epoch by hand and one by `fit`, each with its own model.

    kept: also with a live view and a run folder, each with its own model.
    """
    data = [(np.ones((4, 3), np.float32),)] * STEPS
    by_hand, loss = small_model()

    def hand() -> None:
        for batch in data:
            by_hand.train_step(loss, *batch, weight=4)
        by_hand.epoch_avg_loss()

    fitted, fitted_loss = small_model()
    return hand, lambda: fit_once(fitted, data, fitted_loss, kept)


class Timed:
    """A loader that times each step of a `fit`, and between turns of these as many by hand."""

    def __init__(self) -> None:
        self.batch = (np.ones((4, 3), np.float32),)
        self.trainer, self.loss = small_model(1e-7)  # so small that the model hardly changes
        self.hand: list[int] = []  # nanoseconds
        self.fitted: list[int] = []

    def __len__(self) -> int:
        return IN_A_ROW * TURNS

    def __iter__(self) -> Iterator[Any]:
        clock, train_step = time.thread_time_ns, self.trainer.train_step
        for _ in range(TURNS):
            for _ in range(IN_A_ROW):
                start = clock()
                train_step(self.loss, *self.batch, weight=4)
                self.hand.append(clock() - start)
            for _ in range(IN_A_ROW):
                start = clock()
                yield self.batch
                self.fitted.append(clock() - start)


def lowest(times: list[int]) -> float:
    """The mean of the lowest tenth, in microseconds."""
    return statistics.mean(sorted(times)[: len(times) // 10]) / 1e3


def measure_steps() -> None:
    """Print what a step of `fit` takes beyond one by hand."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    timed = Timed()
    trainer, loss = small_model(1e-7)
    fit_once(trainer, timed, loss, kept=False)
    hand, with_it = lowest(timed.hand), lowest(timed.fitted)
    word = "reached" if with_it - hand <= REACH_STEP else "not reached"
    print(
        f"{'a step of Trainer.fit':24} by hand {hand:7.1f} us  with it {with_it:7.1f} us  more "
        f"{with_it - hand:6.1f} us; to reach: at most {REACH_STEP:.0f} us; {word}"
    )


def torch_sides(wrap: Callable[..., Any]) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return an epoch of PyTorch by hand, and one with the wrapped model and optimizer."""
    import torch

    data = [torch.ones(4, 3)] * STEPS

    def epoch(model: Any, optimizer: Any, backward: Callable[[Any], object]) -> None:
        for x in data:
            optimizer.zero_grad()
            loss = ((model(x) - 1.0) ** 2).mean()
            backward(loss)
            optimizer.step()

    def made() -> tuple[Any, Any]:
        model = torch.nn.Linear(3, 1)
        return model, torch.optim.AdamW(model.parameters(), 1e-3)

    plain = made()
    model, optimizer, backward = wrap(*made())
    return (
        lambda: epoch(*plain, lambda loss: loss.backward()),
        lambda: epoch(model, optimizer, backward),
    )


def fabric(model: Any, optimizer: Any) -> tuple[Any, Any, Any]:
    """Wrap by Lightning Fabric."""
    tool = import_module("lightning_fabric").Fabric(accelerator="cpu", devices=1)
    return (*tool.setup(model, optimizer), tool.backward)


def accelerate(model: Any, optimizer: Any) -> tuple[Any, Any, Any]:
    """Wrap by Hugging Face Accelerate."""
    tool = import_module("accelerate").Accelerator(cpu=True)
    return (*tool.prepare(model, optimizer), tool.backward)


def measure(name: str, sides: tuple[Callable[[], object], Callable[[], object]]) -> float:
    """Time both sides in turn; print and return the difference of the medians per step."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for side, found in zip(sides, times, strict=True):
            start = time.thread_time()
            side()
            found.append((time.thread_time() - start) / STEPS * 1e6)
    hand, with_it = map(statistics.median, times)
    spread = statistics.median(b - a for a, b in zip(*times, strict=True))
    print(f"{name:24} by hand {hand:7.1f} us  with it {with_it:7.1f} us  more {spread:6.1f} us")
    return spread


def main(chosen: list[str]) -> None:
    """Measure everything that is installed."""
    if chosen == ["steps"]:
        measure_steps()
        return
    cost = measure("rumus Trainer.fit", rumus_sides())
    kept = measure("with view and folder", rumus_sides(kept=True))
    for name, package, wrap in (
        ("Lightning Fabric", "lightning_fabric", fabric),
        ("Accelerate", "accelerate", accelerate),
    ):
        if find_spec("torch") is None or find_spec(package) is None:
            print(f"{name}: not installed")
            continue
        measure(name, torch_sides(wrap))
    word = "reached" if max(cost, kept) <= REACH else "not reached"
    print(f"to reach: at most {REACH:.0f} us; {word}")
    measure_steps()  # last, as all that follows stays on one core


if __name__ == "__main__":
    main(sys.argv[1:])
