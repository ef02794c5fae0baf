"""Logging services, each without a network: Weights & Biases, MLflow, Trackio."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rumus.optim import SGD
from rumus.tensor import Parameter
from rumus.train import LogTo, Trainer


def fit(callback: LogTo) -> None:
    weight = Parameter([4.0], name="weight")
    data = [(np.full(2, value, np.float32),) for value in (1.0, 2.0, 3.0)]
    Trainer(SGD([weight], 0.1)).fit(
        data, lambda x: ((weight - x) ** 2).mean(), epochs=2, callbacks=[callback],
        validate=lambda: {"score": 0.5},
    )  # fmt: skip


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb: Any = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        run = wandb.init(mode="offline", dir=str(tmp_path), project="test")
        fit(LogTo(run, seconds=0.0))
        found = dict(run.summary)
        run.finish()
    assert found["validation/score"] == 0.5
    assert found["train/lr"] == 0.1


def test_mlflow_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow: Any = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
        with mlflow.start_run() as run:
            identity = run.info.run_id
            function = lambda values, step: mlflow.log_metrics(values, step, run_id=identity)
            fit(LogTo(function, seconds=0.0))
        found = mlflow.MlflowClient().get_metric_history(identity, "train/loss")
    assert [metric.step for metric in found] == [1, 2, 3, 4, 5, 6]


def test_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    trackio: Any = pytest.importorskip("trackio")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = trackio.init(project="test", embed=False)
        fit(LogTo(run, seconds=0.0))
        trackio.finish()
        logs = importlib.import_module("trackio.sqlite_storage").SQLiteStorage.get_logs(
            "test", run.name
        )
    assert [log["step"] for log in logs if "train/loss" in log] == [1, 2, 3, 4, 5, 6]
