"""Steps of a trainer with a signal at any of their lines: each optimizer, on each backend.

See `interrupted`. The step is the sixth, and a replayed one where steps are captured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from interrupted import Prepared, Seen
from uncounted_passes import Centered

from rumus import nn
from rumus.optim import (
    EMA,
    LBFGS,
    SAM,
    SGD,
    SOAP,
    Adafactor,
    AdamW,
    ClipNorm,
    Lookahead,
    LossScale,
    MultiOptimizer,
    Muon,
    ScheduleFreeAdamW,
    ZClip,
)
from rumus.tensor import Backend, Generator, Parameter
from rumus.train import Trainer

X: Final = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)
BEFORE: Final = 5  # steps


def _scaled(parameters: Any) -> Any:
    optimizer = AdamW(parameters, nonfinite="skip")
    scaling = optimizer.scale_losses(LossScale(initial=4.0, every=1))
    assert scaling.scale == 4  # as code that multiplies a loss asks
    return optimizer


def _two(parameters: Any) -> Any:
    first, *rest = parameters
    return MultiOptimizer([SGD([first], 0.1), AdamW(rest)])


OPTIMIZERS: Final[dict[str, Callable[[Any], Any]]] = {
    "AdamW, clipped, with an average": lambda p: AdamW(p, clip=ClipNorm(0.5), average=EMA(0.9)),
    "AdamW with a loss scale": _scaled,
    "AdamW of 8 bits, ZClip": lambda p: AdamW(p, state_dtype="8bit", clip=ZClip()),
    "AdamW with its state on the host": lambda p: AdamW(p, state_device="host"),
    "Adafactor": Adafactor,
    "Muon": Muon,
    "SOAP, refreshing": lambda p: SOAP(p, precondition_frequency=1),
    "schedule-free AdamW": ScheduleFreeAdamW,
    "SAM": lambda p: SAM(AdamW(p)),
    "Lookahead": lambda p: Lookahead(AdamW(p), k=2),
    "LBFGS": lambda p: LBFGS(p, max_iter=3),
    "two optimizers": _two,
}


def bits(value: Any) -> Any:
    """Return a state with its arrays as bytes."""
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    if isinstance(value, list):
        return [bits(item) for item in value]
    return value.tobytes() if isinstance(value, np.ndarray) else value


def step_of(make: Callable[[Any], Any], place: Backend) -> Prepared:
    """A step of a model with running statistics, a buffer that it assigns, and random masks."""
    masks = Generator(7)
    model = nn.Sequential(
        nn.BatchNorm1d(3),
        Centered(3),
        nn.Linear(3, 4, generator=Generator(0)),
        nn.Dropout(0.5, generator=masks),
        nn.Linear(4, 2, generator=Generator(1)),
    ).to(place)
    optimizer = make(model.parameters())
    trainer = Trainer(optimizer)

    def act() -> None:
        trainer.train_step(lambda x: (model(x) ** 2).mean(), X)

    def seen() -> Seen:
        states = (model.state_dict(), optimizer.state_dict(), trainer.stepper.losses.state_dict())
        return *map(bits, states), masks.position, optimizer.steps

    for _ in range(BEFORE):
        act()
    return act, seen


def pass_of(place: Backend) -> Prepared:
    """An update and the next passes, which a device may be given together.

    What raises in the passes leaves the update as it is, and what is computed next is right.
    """
    weight = Parameter(X[:3], name="weight", backend=place)
    optimizer = AdamW([weight], 0.1)
    optimizer.step((weight**2).sum().backward())
    grads = (weight**3).sum().backward()

    def act() -> None:
        optimizer.step(grads)
        loss = ((weight @ weight).relu() + weight.exp()).mean()
        loss.backward()
        loss.item()

    def seen() -> Seen:
        found = (weight * 2.0).exp().numpy()
        return weight.numpy().tobytes(), found.tobytes(), bits(optimizer.state_dict())

    return act, seen
