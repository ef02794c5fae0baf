"""Each optional argument is left out in turn: the same result, or an error that names it.

The tables hold all of them: an argument that is added has to be added here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from rumus import nn
from rumus.optim import SGD, LossScale, Plateau
from rumus.tensor import Generator, NumpyBackend, Tensor
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

RANDOM: Final = np.random.default_rng(0)
X: Final = RANDOM.normal(size=(22, 4)).astype(np.float32)
Y: Final = RANDOM.integers(0, 3, 22).astype(np.int32)

# What is given, by argument; and the names without which nothing runs.
FIT: Final[dict[str, Any]] = {
    "epochs": 3, "steps": 1000, "seconds": 1e6, "validate_every": Every(epochs=1),
    "accumulate": 1, "weight_of": lambda x, y: float(len(x)), "nonfinite": "raise",
    "spikes": Spikes(),
    "rollbacks": 3, "callbacks": (), "save_every": Every(epochs=1), "monitor": "accuracy",
    "mode": "max", "restore_best": True, "resume": False, "signals": True, "profile_steps": True,
    "progress": None,
}  # fmt: skip
FIT_NAMED: Final = {
    "validate": "validate=",
    "checkpoints": "checkpoints=",
    "monitor": "monitor is missing",
}
FIT_OTHER: Final = {"restore_best", "epochs"}  # what they ask for does not happen without them
TRAINER: Final[dict[str, Any]] = {
    "capture": True, "loss_scale": LossScale(), "ranks": None, "zero": False,
}  # fmt: skip
LOADER: Final[dict[str, Any]] = {
    "drop_last": False, "seed": 0, "transform": None, "workers": 2, "processes": False,
    "prefetch": 3, "backend": NumpyBackend(), "ranks": None, "shards": None,
    "sampler": None, "collate": None, "batch_transform": None,
}  # fmt: skip
CHECKPOINTS: Final[dict[str, Any]] = {
    "keep_last": 3, "keep_every": 1000, "on_error": "raise", "asynchronous": True,
    "file_system": LocalFileSystem(),
}  # fmt: skip
STOPPING: Final[dict[str, Any]] = {"patience": 3, "min_delta": 0.0}


def optional(function: Callable[..., Any]) -> set[str]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name for p in parameters if p.default is not inspect.Parameter.empty}


def test_the_tables_are_complete() -> None:
    assert optional(Trainer.fit) == FIT.keys() | FIT_NAMED.keys()
    assert optional(Trainer.__init__) == TRAINER.keys() | {"state"}
    assert optional(DataLoader.__init__) == LOADER.keys() | {"shuffle"}
    assert optional(Checkpoints.__init__) == CHECKPOINTS.keys() | {"keep_best"}
    assert optional(EarlyStopping.__init__) == STOPPING.keys() | {"metric", "mode"}


def run(
    folder: Path,
    *,
    leave_out: tuple[str, str] = ("", ""),
) -> tuple[Any, ...]:
    """Train with everything given except one argument of one function."""

    def given(where: str, options: Mapping[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in options.items() if (where, k) != leave_out}

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

    loader = DataLoader(ArrayDataset(X, Y), 4, **given("loader", {**LOADER, "shuffle": True}))
    kept = given("checkpoints", {**CHECKPOINTS, "keep_best": "max"})
    stopping = given("stopping", {**STOPPING, "metric": "accuracy", "mode": "max"})
    options = {
        **FIT,
        "validate": (DataLoader(ArrayDataset(X, Y), 5), accuracy),
        "checkpoints": Checkpoints(folder, **kept),
        "callbacks": [EarlyStopping(**stopping)],
    }
    state = given("trainer", {**TRAINER, "state": {"model": model}})
    trainer = Trainer(SGD(model.parameters(), 0.05), **state)
    result = trainer.fit(loader, loss, **given("fit", options))
    weights = {name: value.tobytes() for name, value in model.state_dict().items()}
    return weights, result.history, result.best, result.best_step, result.metrics


CASES: Final = [
    *(("fit", name) for name in FIT if name not in FIT_NAMED.keys() | FIT_OTHER),
    *(("trainer", name) for name in TRAINER),
    *(("loader", name) for name in LOADER),
    *(("checkpoints", name) for name in CHECKPOINTS),
    *(("stopping", name) for name in STOPPING),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    return run(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("left_out", CASES, ids=".".join)
def test_the_same_result(left_out: tuple[str, str], whole: tuple[Any, ...], tmp_path: Path) -> None:
    assert run(tmp_path, leave_out=left_out) == whole


@pytest.mark.parametrize(
    ("left_out", "told"),
    [
        *((("fit", name), told) for name, told in FIT_NAMED.items()),
        (("trainer", "state"), "state="),
        (("checkpoints", "keep_best"), "keep_best="),
        (("stopping", "metric"), "metric is missing"),
        (("stopping", "mode"), "mode must say"),
    ],
    ids=str,
)
def test_an_error_that_names_it(left_out: tuple[str, str], told: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=told):
        run(tmp_path, leave_out=left_out)


def test_a_schedule_that_is_fed_upwards_names_its_metric() -> None:
    from rumus.train import FeedPlateau

    with pytest.raises(ValueError, match="metric is missing"):
        FeedPlateau(Plateau(1.0, mode="max"))
