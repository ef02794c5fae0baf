"""Blocks in which a trainer displaces something, with a signal whose handler raises at any line.

Everything is restored afterwards, wherever the signal arrived: see `interrupted`.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
from interrupted import Prepared, Refused

from rumus.optim import EMA, AdamW
from rumus.tensor import Generator, Parameter, Tensor, no_grad, tensor
from rumus.tensor.graph.autograd import is_recording
from rumus.tensor.graph.evaluation import current_evaluation
from rumus.tensor.graph.means import _listening, noting_means
from rumus.tensor.memory.uninterrupted import displaced
from rumus.tensor.operations.draws import Draws, watching
from rumus.train import ArrayDataset, Checkpoints, DataLoader, Trainer
from rumus.train.base.step_clock import StepClock
from rumus.train.data.batches import whole_epoch
from rumus.train.loop.lr_sweep import _swept
from rumus.train.loop.undone import undone
from rumus.train.loop.validation import evaluating

X: Final = np.random.default_rng(0).standard_normal((8, 2)).astype(np.float32)


class _Learner:
    """A trainer, and everything that these blocks displace."""

    def __init__(self) -> None:
        self.weight = Parameter([1.0, 2.0], name="weight")
        self.noise = Generator(3)
        self.optimizer = AdamW([self.weight], 0.1, average=EMA(0.9))
        self.trainer = Trainer(self.optimizer, state={"noise": self.noise})
        self.loader = DataLoader(ArrayDataset(X), 4, shuffle=True, seed=0)
        self.module = _Module()
        self.step()
        self.losses, self.steps = self.trainer.stepper.losses, self.trainer.stepper.captured

    def loss(self, x: Tensor) -> Tensor:
        return ((self.weight - x + self.noise.normal((8, 2))) ** 2).mean()

    def step(self) -> None:
        """A step that is not captured: capturing runs code as arrays are freed.

        Python swallows exceptions that a handler raises there.
        """
        x = tensor(X)
        self.trainer.train_step(lambda: self.loss(x))

    def seen(self) -> tuple[Any, ...]:
        stepper = self.trainer.stepper
        state = {name: _bits(value) for name, value in self.optimizer.state_dict().items()}
        return (
            self.weight.numpy().tobytes(), state, self.optimizer.hyper["lr"], self.noise.position,
            stepper.clock, stepper.losses is self.losses, stepper.captured is self.steps,
            stepper.losses.state_dict(), self.loader.state_dict(), self.module.training,
            is_recording(), current_evaluation(), _listening.means, watching.all,
        )  # fmt: skip


class _Module:
    """An object for a trainer's state that is not a rumus module."""

    def __init__(self) -> None:
        self.training = True

    def modules(self) -> list[_Module]:
        return [self]


def _bits(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _bits(item) for key, item in value.items()}
    return value.tobytes() if isinstance(value, np.ndarray) else value


def _within(
    block: Callable[[_Learner], AbstractContextManager[Any]],
    act: Callable[[_Learner], object],
    *,
    refused: bool,
) -> Prepared:
    """A block that displaces something; refused: it ends with an error."""
    learner = _Learner()

    def run() -> None:
        with suppress(Refused), block(learner):
            act(learner)
            if refused:
                raise Refused

    return run, learner.seen


def _sweep(learner: _Learner) -> None:
    with _swept(learner.optimizer) as set_rate:
        set_rate(0.5)
        learner.optimizer.poll()


def _evaluating(learner: _Learner) -> AbstractContextManager[Any]:
    return evaluating([learner.module], learner.optimizer)


def _looks(learner: _Learner) -> None:
    learner.loader.seek(3)
    learner.loader.state_dict()


def _nothing(learner: _Learner) -> None:
    """Only enter and leave the block."""


_BLOCKS: Final[dict[str, tuple[Callable[[_Learner], Any], Callable[[_Learner], object]]]] = {
    "trying a trainer out": (lambda o: undone(o.trainer, o.loader), _Learner.step),
    "sweeping a learning rate": (lambda o: nullcontext(), _sweep),
    "timing steps": (
        lambda o: o.trainer.stepper.clocked(StepClock(o.loss, passes_in_update=False)), _nothing
    ),
    "stepping apart": (lambda o: o.trainer.stepper.apart(), _Learner.step),
    "evaluating": (_evaluating, _nothing),
    "reading a loader": (lambda o: whole_epoch(o.loader), _looks),
    "computing without a graph": (lambda o: no_grad(), _nothing),
    "noting means": (lambda o: noting_means(), _nothing),
    "watching draws": (lambda o: Draws().watched(), _nothing),
    "another value": (lambda o: displaced(o.optimizer, "nonfinite", "skip"), _nothing),
}  # fmt: skip


def _case(name: str, *, refused: bool) -> Callable[[], Prepared]:
    block, act = _BLOCKS[name]
    return lambda: _within(block, act, refused=refused)


DISPLACED: Final[dict[str, Callable[[], Prepared]]] = {
    **{name: _case(name, refused=False) for name in _BLOCKS},
    **{f"{name}, refused": _case(name, refused=True) for name in _BLOCKS},
}


def saving(folder: Path, *, asynchronous: bool = False) -> Prepared:
    """A save next to an earlier checkpoint, which must remain if the save fails."""
    store = Checkpoints(tempfile.mkdtemp(dir=folder), keep_last=1, asynchronous=asynchronous)
    store.save(1, {"model": {"weight": np.zeros(50)}})

    def seen() -> tuple[Any, ...]:
        assert store.latest is not None  # what is being written in a thread is there
        found = Checkpoints(store.folder).load()
        return found.step, found.state["model"]["weight"].tobytes(), found.skipped

    return lambda: store.save(2, {"model": {"weight": np.ones(50)}}), seen


def saving_in_a_thread(folder: Path) -> Prepared:
    """The same, while a thread writes the earlier one, and then this one."""
    return saving(folder, asynchronous=True)


def loading(folder: Path) -> Prepared:
    """A load of the newest of two checkpoints, which must not fall back to the older one."""
    store = Checkpoints(tempfile.mkdtemp(dir=folder), keep_last=2)
    for step in (1, 2):
        store.save(step, {"model": {"weight": np.full(50, step)}})
    found = []
    return lambda: found.append(store.load().step), lambda: (2 if found == [] else found[-1],)


def looping() -> Prepared:
    """A loop over a loader with threads, which is left early: none of them stays."""
    loader = DataLoader(ArrayDataset(X), 2, workers=2)

    def act() -> None:
        for _ in loader:
            break

    def seen() -> tuple[Any, ...]:
        for thread in threading.enumerate():
            if thread.name.startswith("rumus-data"):
                thread.join(1)  # the signal may have ended the wait for it
        left = [each.name for each in threading.enumerate() if each.name.startswith("rumus-data")]
        return (left,)

    return act, seen
