"""Loggers: what they are given, and how one that raises or hangs is handled."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from rumus.optim import SGD
from rumus.tensor import Backend, Parameter, Tensor
from rumus.train import LoggerWarning, LogTo, Trainer


class Kept:
    def __init__(self) -> None:
        self.entries: list[tuple[int, dict[str, float]]] = []

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.entries.append((step, dict(values)))


def fit(callback: LogTo, backend: Backend | None = None, epochs: int = 2) -> Any:
    weight = Parameter([4.0], name="weight", backend=backend)

    def loss(x: Tensor) -> dict[str, Any]:
        error = weight - x
        return {"loss": (error * error).mean(), "error": error.mean()}

    data = [(np.full(2, value, np.float32),) for value in (1.0, 2.0, 3.0)]
    return Trainer(SGD([weight], 0.1)).fit(
        data, loss, epochs=epochs, callbacks=[callback], validate=lambda: {"score": 0.5}
    )


def test_logged_values(backend: Backend) -> None:
    kept = Kept()
    result = fit(LogTo(kept, seconds=0.0), backend)
    steps = [(step, values) for step, values in kept.entries if "train/loss" in values]
    assert [step for step, _ in steps] == [1, 2, 3, 4, 5, 6]
    assert set(steps[0][1]) == {"train/loss", "train/lr", "train/grad_norm", "train/error"}
    assert steps[0][1] == pytest.approx(
        {"train/loss": 9.0, "train/lr": 0.1, "train/grad_norm": 6.0, "train/error": 3.0}
    )
    epochs = [values for _, values in kept.entries if "epoch/loss" in values]
    assert [each["epoch/loss"] for each in epochs] == [
        entry["loss"] for entry in result.history if "loss" in entry
    ]
    assert (3, {"validation/score": 0.5}) in kept.entries


def test_a_raising_logger_is_reported_once() -> None:
    calls = []

    def broken(values: Mapping[str, float], step: int) -> None:
        calls.append(step)
        raise OSError("no network")

    with pytest.warns(
        LoggerWarning, match="broken is not called any more.*OSError: no network"
    ) as told:
        result = fit(LogTo(broken, seconds=0.0), epochs=20)
    assert result.steps == 60
    assert len(told) == 1
    assert len(calls) == 1


def test_a_logger_that_exits_is_reported() -> None:
    def leaving(values: Mapping[str, float], step: int) -> None:
        raise SystemExit(3)

    with pytest.warns(LoggerWarning, match="leaving is not called any more.*SystemExit: 3") as told:
        result = fit(LogTo(leaving, seconds=0.0), epochs=20)
    assert result.steps == 60
    assert len(told) == 1


def test_a_hanging_logger_does_not_stop_training() -> None:
    go_on = threading.Event()
    with pytest.warns(LoggerWarning, match="takes nothing any more") as told:
        result = fit(LogTo(lambda values, step: go_on.wait(), seconds=0.0, patience=0.2))
    go_on.set()
    assert result.steps == 6
    assert len(told) == 1


def test_invalid_loggers() -> None:
    for other in (logging.getLogger(), lambda values: None):  # failed at the first step's end
        with pytest.raises(TypeError, match=r"called as log\(values, step\), which"):
            LogTo(other)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="3 is neither"):
        LogTo(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must not be negative"):
        LogTo(Kept(), seconds=-1)
