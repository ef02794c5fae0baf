"""A training with every optional argument given, and the same one with one of them left out.

The tables hold all optional arguments: one that is added has to be added here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from rumus import nn
from rumus.optim import SGD, LossScale
from rumus.tensor import Generator, NumpyBackend, Tensor, seed
from rumus.train import (
    ArrayDataset,
    Checkpoints,
    DataLoader,
    EarlyStopping,
    Every,
    LocalFileSystem,
    Spikes,
    Trainer,
)

Argument: TypeAlias = tuple[str, str]  # of a function, as it is called here, and its name

RANDOM: Final = np.random.default_rng(0)
X: Final = RANDOM.normal(size=(22, 4)).astype(np.float32)
Y: Final = RANDOM.integers(0, 3, 22).astype(np.int32)

FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "fit": Trainer.fit,
    "trainer": Trainer.__init__,
    "loader": DataLoader.__init__,
    "checkpoints": Checkpoints.__init__,
    "stopping": EarlyStopping.__init__,
}
# What is given; without each of these the result is the same.
SAME: Final[dict[str, dict[str, Any]]] = {
    "fit": {
        "steps": 1000, "seconds": 1e6, "validate_every": Every(epochs=1), "accumulate": 1,
        "weight_of": lambda x, y: float(len(x)), "nonfinite": "rollback",
        "spikes": Spikes("rollback"),
        "rollbacks": 3, "callbacks": (), "save_every": Every(epochs=1), "mode": "max",
        "resume": False, "signals": True, "profile_steps": True, "progress": None,
    },
    "trainer": {"capture": True, "loss_scale": LossScale(), "ranks": None, "zero": False},
    "loader": {
        "drop_last": False, "seed": 0, "transform": None, "workers": 2, "processes": False,
        "prefetch": 3, "backend": NumpyBackend(), "ranks": None, "shards": None,
        "sampler": None, "collate": None, "batch_transform": None,
    },
    "checkpoints": {
        "keep_last": 3, "keep_every": 1000, "on_error": "raise", "asynchronous": True,
        "file_system": LocalFileSystem(),
    },
    "stopping": {"patience": 3, "min_delta": 0.0},
}  # fmt: skip
# Without each of these there is an error, and what it says.
NAMED: Final[dict[Argument, str]] = {
    ("fit", "validate"): "validate=",
    ("fit", "checkpoints"): "checkpoints=",
    ("fit", "monitor"): "monitor is missing",
    ("trainer", "state"): "state=",
    ("checkpoints", "keep_best"): "keep_best=",
    ("stopping", "metric"): "metric is missing",
    ("stopping", "mode"): "mode must say",
}
# What these ask for does not happen without them.
ASKED_FOR: Final = {("fit", "epochs"), ("fit", "restore_best"), ("loader", "shuffle")}


def optional(where: str) -> set[str]:
    """Return the names of a function's optional arguments."""
    parameters = inspect.signature(FUNCTIONS[where]).parameters.values()
    return {p.name for p in parameters if p.default is not inspect.Parameter.empty}


def known(where: str) -> set[str]:
    """Return the names that the tables hold of a function."""
    others = {name for function, name in (*NAMED, *ASKED_FOR) if function == where}
    return {*SAME[where], *others}


def run(folder: Path, leave_out: Argument = ("", "")) -> tuple[Any, ...]:
    """Train with everything given except one argument of one function; return all that comes of it.

    folder: of its checkpoints.
    """

    def given(where: str, options: Mapping[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in {**SAME[where], **options}.items() if (where, k) != leave_out}

    seed(0)  # of the program, which counts where the loader has none
    random = Generator(0)
    model = nn.Sequential(
        nn.Linear(4, 8, generator=random),
        nn.BatchNorm1d(8),
        nn.Dropout(0.2, generator=random),
        nn.Linear(8, 3, generator=random),
    )

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return nn.cross_entropy_loss(model(x), y)

    def accuracy(x: Tensor, y: Tensor) -> dict[str, float]:
        return {"accuracy": float((model(x).numpy().argmax(1) == y.numpy()).mean())}

    loader = DataLoader(ArrayDataset(X, Y), 4, **given("loader", {"shuffle": True}))
    store = Checkpoints(folder, **given("checkpoints", {"keep_best": "max"}))
    stopping = EarlyStopping(**given("stopping", {"metric": "accuracy", "mode": "max"}))
    trainer = Trainer(
        SGD(model.parameters(), 0.05), **given("trainer", {"state": {"model": model}})
    )
    options = {
        "epochs": 3,
        "validate": (DataLoader(ArrayDataset(X, Y), 5), accuracy),
        "checkpoints": store,
        "callbacks": [stopping],
        "monitor": "accuracy",
        "restore_best": True,
    }
    result = trainer.fit(loader, loss, **given("fit", options))
    weights = {name: value.tobytes() for name, value in model.state_dict().items()}
    return weights, result.history, result.best, result.best_step, result.metrics
