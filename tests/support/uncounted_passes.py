"""Forward passes that belong to no applied step, and must leave no trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final
from warnings import catch_warnings, simplefilter

import numpy as np

from rumus import nn
from rumus.optim import LBFGS, SAM, SGD, Accumulation, LossScale
from rumus.tensor import (
    Backend,
    Generator,
    GraphError,
    NonFiniteGradientError,
    SideEffectWarning,
    Tensor,
    int32,
    no_grad,
    tensor,
    zeros,
)
from rumus.train import Trainer


class Centered(nn.Module):
    """Subtracts a running mean that forward itself assigns, along with a count and a queue."""

    def __init__(self, width: int) -> None:
        self.mean, self.steps = zeros((width,)), zeros((), dtype=int32)
        self.last = zeros((2, width))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean = 0.7 * self.mean + 0.3 * x.mean(0)
            self.steps = self.steps + 1
            self.last[1] = self.last[0]
            self.last[0] = x[0].detach()
        return x - self.mean + 0.1 * self.last[1]


class Learner:
    """A model with running statistics, masks and noise, and its trainer, all from one seed."""

    def __init__(self, backend: Backend, seed: int, nonfinite: Any = "raise") -> None:
        random = np.random.default_rng(seed)
        width, self.rows = int(random.integers(2, 6)), int(random.integers(4, 9))
        self.masks, self.noise, self.backend = Generator(seed), Generator(seed, 1), backend
        self.model = nn.Sequential(
            nn.Linear(3, width, generator=self.masks),
            nn.BatchNorm1d(width, momentum=float(random.uniform(0.1, 0.9))),
            Centered(width),
            nn.Dropout(0.5, generator=self.masks),
            nn.Linear(width, 1, generator=self.masks),
        ).to(backend)
        self.optimizer: Any = SGD(self.model.parameters(), 0.05, nonfinite=nonfinite)
        self.trainer = Trainer(self.optimizer, capture=bool(seed % 2))
        self.data = random.normal(size=(self.rows, 3)).astype(np.float32)

    def loss(self, x: Tensor) -> Tensor:
        noise = self.noise.normal((self.rows, 3), backend=self.backend)
        result: Tensor = (self.model(x + noise) ** 2).mean()
        return result

    def passed(self) -> Tensor:
        """The loss of a pass that is called directly."""
        return self.loss(tensor(self.data, backend=self.backend))

    def step(self, data: Any = None) -> None:
        self.trainer.train_step(self.loss, self.data if data is None else data)

    def buffers(self) -> list[bytes]:
        return [buffer.numpy().tobytes() for buffer in self.model.buffers()]

    def streams(self) -> tuple[int, int]:
        return self.masks.position, self.noise.position

    def weights(self) -> list[bytes]:
        return [parameter.numpy().tobytes() for parameter in self.model.parameters()]


def bad(learner: Learner) -> Any:
    """Data with non-finite gradients."""
    data = learner.data.copy()
    data[0, 0] = np.inf
    return data


def alone(learner: Learner) -> None:
    learner.passed()


def without_graph(learner: Learner) -> None:
    with no_grad(), catch_warnings():
        simplefilter("ignore", SideEffectWarning)
        learner.passed()


def backward_alone(learner: Learner) -> None:
    grads = learner.passed().backward()
    assert len(grads)


def accumulated_and_dropped(learner: Learner) -> None:
    accumulation = Accumulation()
    for _ in range(2):
        accumulation.add(learner.passed().backward())


def recomputed(learner: Learner) -> None:
    loss = nn.checkpoint(learner.loss, tensor(learner.data, backend=learner.backend))
    loss.backward()


def evaluated(learner: Learner) -> None:
    data = [(learner.data,)]
    learner.trainer.evaluate(data, lambda x: {"loss": (learner.model(x) ** 2).mean()})


def refused(learner: Learner) -> None:
    with suppress(NonFiniteGradientError):
        learner.step(bad(learner))
        learner.optimizer.poll(wait=True)


def raised(learner: Learner) -> None:
    with suppress(Stopped):
        learner.trainer.train_step(raising_in(learner, 1), learner.data)


def skipped(learner: Learner) -> None:
    learner.step(bad(learner))


def refused_by_sam(learner: Learner) -> None:
    trainer = Trainer(SAM(learner.optimizer))
    with suppress(NonFiniteGradientError):
        trainer.train_step(learner.loss, bad(learner))
        learner.optimizer.poll(wait=True)


class Stopped(Exception):
    """Ends a pass."""


def raising_in(learner: Learner, number: int, error: type[BaseException] = Stopped) -> Any:
    """The loss function, which raises at the end of this pass."""
    passes = 0

    def loss(x: Tensor) -> Tensor:
        nonlocal passes
        result, passes = learner.loss(x), passes + 1
        if passes == number:
            raise error
        return result

    return loss


def interrupted(learner: Learner) -> None:
    with suppress(KeyboardInterrupt):
        learner.trainer.train_step(raising_in(learner, 1, KeyboardInterrupt), learner.data)


def accumulated_until_it_raises(learner: Learner) -> None:
    with suppress(Stopped):
        loss = raising_in(learner, 2)
        batches = [(learner.data,)] * 3
        learner.trainer.fit(batches, loss, epochs=1, accumulate=3, signals=False)


def raised_by_the_second_pass_of_sam(learner: Learner) -> None:
    with suppress(Stopped):
        Trainer(SAM(learner.optimizer)).train_step(raising_in(learner, 2), learner.data)


def raised_when_computed_again(learner: Learner) -> None:
    loss = raising_in(learner, 2)
    with suppress(Stopped):
        learner.trainer.train_step(lambda x: nn.checkpoint(loss, x), learner.data)


def without_a_scalar(learner: Learner) -> None:
    with suppress(GraphError, TypeError, ValueError):
        learner.trainer.train_step(lambda x: learner.model(x) + learner.loss(x), learner.data)


def overflowing(learner: Learner) -> None:
    trainer = Trainer(learner.optimizer, loss_scale=LossScale(2.0**24))
    with suppress(NonFiniteGradientError):
        trainer.train_step(lambda x: learner.loss(x) * 1e35, learner.data)
        learner.optimizer.poll(wait=True)


def predicted(learner: Learner) -> None:
    learner.trainer.predict([(learner.data,)] * 2, learner.model)


def refused_by_lbfgs(learner: Learner) -> None:
    learner.optimizer.release()
    learner.optimizer = LBFGS(learner.model.parameters(), max_iter=3)
    learner.trainer = Trainer(learner.optimizer)
    with suppress(NonFiniteGradientError):
        learner.trainer.train_step(learner.loss, bad(learner))


# Each kind, and whether the pass is part of a step: a pass that is not advances its generators.
KINDS: Final[dict[str, tuple[Callable[[Learner], None], bool]]] = {
    "a pass alone": (alone, False),
    "a pass without a graph": (without_graph, False),
    "a pass and its backward": (backward_alone, False),
    "an accumulation that is dropped": (accumulated_and_dropped, False),
    "a pass that is computed again": (recomputed, False),
    "a validation": (evaluated, True),
    "a step that is refused": (refused, True),
    "a step that is skipped": (skipped, True),
    "a step whose loss function raises": (raised, True),
    "a step of SAM that is refused": (refused_by_sam, True),
    "a step of LBFGS that is refused": (refused_by_lbfgs, True),
    "a step whose loss function is interrupted": (interrupted, True),
    "an accumulation that raises": (accumulated_until_it_raises, True),
    "a step of SAM that raises in its second pass": (raised_by_the_second_pass_of_sam, True),
    "a step that raises when it is computed again": (raised_when_computed_again, True),
    "a step whose loss is no scalar": (without_a_scalar, True),
    "a step that overflows its loss scale": (overflowing, True),
    "a prediction": (predicted, True),
}


def left(
    backend: Backend, seed: int, act: Callable[[Learner], None], is_step: bool
) -> Counter[str]:
    """Count the changes that a pass leaves: right after it, and after one more step."""
    nonfinite = "skip" if act is skipped else "raise"
    with_it, without = (Learner(backend, seed, nonfinite) for _ in range(2))
    for learner in (with_it, without):
        for _ in range(seed % 4):
            learner.step()
    buffers, streams = with_it.buffers(), with_it.streams()
    act(with_it)
    found = Counter[str](buffers=with_it.buffers() != buffers)
    if not is_step:
        with_it.masks.position, with_it.noise.position = streams
    found["streams"] = int(with_it.streams() != streams)
    if act is not refused_by_lbfgs:
        for learner in (with_it, without):
            learner.step()
        found["weights"] = int(with_it.weights() != without.weights())
    return found
