"""Training steps that return dicts: logged values are averaged like the loss, on any backend."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rumus.optim import LBFGS, SGD
from rumus.tensor import Backend, Parameter, Tensor, cross_entropy
from rumus.train import (
    ArrayDataset,
    Callback,
    DataLoader,
    Every,
    RunFolder,
    StepEnd,
    Trainer,
    metrics,
    read_metrics,
)
from rumus.train.base import epoch_sum

X = np.random.default_rng(0).integers(0, 3, (22, 3)).astype(np.float32)
Y = (np.arange(22) % 3).astype(np.int32)


class Model:
    """Its learning rate is 0, so its output for each sample is known."""

    def __init__(self, backend: Backend | None = None, lr: float = 0.0, **options: Any) -> None:
        weight = np.eye(3, dtype=np.float32)
        self.weight = Parameter(weight, name="weight", backend=backend)
        self.trainer = Trainer(SGD([self.weight], lr, **options))

    def step(self, x: Tensor, y: Tensor) -> dict[str, Any]:
        scores = x @ self.weight
        loss = cross_entropy(scores, y).mean()
        return {
            "loss": loss,
            "squares": (x * x).mean(),
            "accuracy": metrics.accuracy(scores, y),
            "f1": metrics.f1(scores, y),
            "rmse": metrics.root_mean_squared_error(scores, x * 2.0),
            "perplexity": metrics.perplexity(scores, y),
        }


EXPECTED = {
    "squares": float((X.astype(np.float64) ** 2).mean()),
    "accuracy": float(metrics.accuracy(X, Y)),
    "f1": float(metrics.f1(X, Y)),
    "rmse": float(metrics.root_mean_squared_error(X, X * 2)),
    "perplexity": float(metrics.perplexity(X, Y)),
}


@pytest.mark.parametrize("accumulate", [1, 3])
def test_an_epochs_metrics_match_the_whole_set(backend: Backend, accumulate: int) -> None:
    """With a smaller last batch, and steps that are captured on a GPU."""
    model = Model(backend)
    loader = DataLoader(ArrayDataset(X, Y), 4)
    result = model.trainer.fit(loader, model.step, epochs=4, accumulate=accumulate)
    assert model.trainer.counts.replayed > 0
    for entry in result.history:
        for name, value in EXPECTED.items():
            assert entry[name] == pytest.approx(value, rel=1e-6), name
    assert np.log(entry["perplexity"]) == pytest.approx(entry["loss"], rel=1e-6)


@pytest.mark.parametrize(
    ("name", "told"), [("classes", r"targets must be in \[0, 3\)"), ("nan", "some are NaN")]
)
def test_a_metric_that_refuses_a_batch_has_no_value(
    backend: Backend, tmp_path: Path, name: str, told: str
) -> None:
    """It is reported once; neither training nor checkpoints fail."""
    model = Model(backend)
    shift, gap = (9 if name == "classes" else 0), (np.nan if name == "nan" else 0.0)

    def step(x: Tensor, y: Tensor) -> dict[str, Any]:
        scores = x @ model.weight
        accuracy = metrics.accuracy(scores + gap, y + shift)
        return {"loss": cross_entropy(scores, y).mean(), "accuracy": accuracy, "one": 1.0}

    with pytest.warns(UserWarning, match="'accuracy', which training steps log") as warned:
        result = model.trainer.fit(
            DataLoader(ArrayDataset(X, Y), 4), step, epochs=3, checkpoints=tmp_path / "steps",
            save_every=Every(steps=2), callbacks=[RunFolder(tmp_path / "run")],
        )  # fmt: skip
    assert re.search(told, str(warned[0].message))
    assert len([each for each in warned if "accuracy" in str(each.message)]) == 1
    assert result.steps == 18
    assert all(np.isnan(entry["accuracy"]) and entry["one"] == 1 for entry in result.history)


def test_in_a_custom_loop() -> None:
    model = Model()
    for at in (slice(0, 5), slice(5, 22)):
        loss = model.trainer.train_step(model.step, X[at], Y[at], weight=at.stop - at.start)
        assert isinstance(loss, Tensor)
    assert model.trainer.epoch_averages() == pytest.approx(EXPECTED)
    assert model.trainer.epoch_averages() == {}
    assert model.trainer.epoch_avg_loss() > 0


def test_steps_that_are_skipped_do_not_count(backend: Backend) -> None:
    weight = Parameter([1.0], name="w", backend=backend)
    trainer = Trainer(SGD([weight], 0.0, nonfinite="skip"))

    def step(x: Tensor) -> dict[str, Any]:
        return {"loss": (weight * x).sum(), "x": x.sum(), "hits": metrics.accuracy(
            x.reshape(1, 1) * 0.0, np.zeros(1, np.int32))}  # fmt: skip

    for value in (1.0, np.inf, 2.0, 6.0):
        trainer.train_step(lambda x: {"loss": (weight * x).sum(), "x": x.sum()}, np.array([value]))
    assert trainer.epoch_averages() == {"x": 3.0}
    assert trainer.optimizer.skipped == 1


def test_pages_that_are_full(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """With counts for many classes, few fit on a page."""
    monkeypatch.setattr(epoch_sum, "ELEMENTS", 30)
    monkeypatch.setattr(epoch_sum, "PAGE", 4)
    monkeypatch.setattr(epoch_sum, "LAG", 2)
    model = Model(backend)
    for at in range(0, 22, 2):
        model.trainer.train_step(model.step, X[at : at + 2], Y[at : at + 2], weight=2)
    assert model.trainer.epoch_averages() == pytest.approx(EXPECTED, rel=1e-6)


def test_an_optimizer_that_computes_the_loss_several_times_logs_once() -> None:
    weight = Parameter([4.0], name="weight")
    trainer = Trainer(LBFGS([weight]))
    step = lambda x: {"loss": ((weight - x) ** 2).sum(), "weight": weight.sum()}
    trainer.train_step(step, np.ones(1))
    assert trainer.epoch_averages() == {"weight": 4.0}


class StopAt(Callback):
    """Ends the training after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, event: StepEnd) -> None:
        if event.step == self.step:
            event.run.stop("here")


@pytest.mark.parametrize("stop", [2, 6, 7])
def test_a_resume_continues_the_sums(stop: int, tmp_path: Path) -> None:
    def fit(folder: Path, callbacks: list[Callback], resume: Any) -> list[dict[str, Any]]:
        model = Model(lr=0.1)
        loader = DataLoader(ArrayDataset(X, Y), 4, shuffle=True)
        return model.trainer.fit(
            loader, model.step, epochs=2, checkpoints=folder, callbacks=callbacks, resume=resume
        ).history

    whole = fit(tmp_path / "whole", [], False)
    fit(tmp_path / "cut", [StopAt(stop)], False)
    assert fit(tmp_path / "cut", [], True) == whole


def test_the_run_folder_keeps_logged_values(backend: Backend, tmp_path: Path) -> None:
    model = Model(backend)
    run = RunFolder(tmp_path / "run")
    model.trainer.fit(DataLoader(ArrayDataset(X, Y), 4), model.step, epochs=2, callbacks=[run])
    lines = list(read_metrics(run.metrics))
    trained = [line for line in lines if line["split"] == "train"]
    assert trained[0]["logged"] == {"squares": pytest.approx((X[:4] ** 2).mean())}
    (last,) = [line for line in lines if line["split"] == "epoch" and line["epoch"] == 1]
    assert last["logged"] == pytest.approx(EXPECTED, rel=1e-6)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "training: squares" in page


@pytest.mark.parametrize(
    ("found", "error", "told"),
    [
        ({"los": 1.0}, ValueError, "must name the loss.*'los'"),
        ({}, ValueError, "not nothing"),
        ({"loss": 1.0}, TypeError, "must return the loss as a tensor, not float"),
        ({"loss": "w", "step": 1.0}, ValueError, "'step'"),
        ({"loss": "w", 3: 1.0}, ValueError, "under text names"),
        ({"loss": "w", "x": "text"}, TypeError, "'x' is 'text'"),
        ({"loss": "w", "x": "vector"}, TypeError, r"shape \(3,\)"),
        ({"loss": "w", "x": metrics.auroc([0.5], [1])}, TypeError, "measure auroc in a validation"),
    ],
)
def test_invalid_results_of_a_step(found: Any, error: type[Exception], told: str) -> None:
    weight = Parameter([1.0, 2.0, 3.0], name="weight")
    trainer = Trainer(SGD([weight], 0.1))
    made = {"w": lambda: weight.sum(), "vector": lambda: weight * 1.0}
    step = lambda: {k: made[v]() if v in made else v for k, v in found.items()}
    with pytest.raises(error, match=told):
        trainer.train_step(step)
    assert weight.tolist() == [1.0, 2.0, 3.0]


def test_a_name_has_one_meaning() -> None:
    weight = Parameter([1.0], name="weight")
    trainer = Trainer(SGD([weight], 0.1))
    trainer.train_step(lambda: {"loss": weight.sum(), "x": 1.0})
    with pytest.raises(ValueError, match="'x' is logged with shapes"):
        trainer.train_step(
            lambda: {"loss": weight.sum(), "x": metrics.confusion_matrix([[1.0, 0.0]], [0])}
        )


def logging(names: list[str], batches: list[int], **options: Any) -> None:
    """A training of two epochs whose steps log 0.5 under these names."""
    model = Model()
    step = lambda x, y: {"loss": (x @ model.weight).mean(), **dict.fromkeys(names, 0.5)}
    loader = [(X[:n], Y[:n]) for n in batches]
    model.trainer.fit(loader, step, epochs=2, **options)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("f1", r"log metrics\.f1\("), ("macro_F1", r"log metrics\.f1\("),
        ("rmse", r"log metrics\.root_mean_squared_error\("), ("ppl", r"metrics\.perplexity\("),
        ("train_auc", r"measure metrics\.auroc .* in a validation"),
        ("r2_score", r"measure metrics\.r2 .* in a validation"),
        ("sensitivity", r"metrics\.recall\("), ("kappa", "MetricState"),
    ],
)  # fmt: skip
def test_a_logged_number_that_is_no_mean_is_told_of_once(name: str, advice: str) -> None:
    with pytest.warns(UserWarning, match=f"'{name}', .*averaged over batches.*{advice}") as told:
        logging([name], [4, 5])
    assert len(told) == 1
    with pytest.warns(UserWarning, match="averaged over batches"):
        logging([name], [4, 5], accumulate=2)


def test_logged_numbers_that_may_be_means_are_not_told_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logging(["f1", "rmse"], [6])  # of the whole set
        logging(
            [
                "accuracy", "f1_loss", "auc_loss", "precision@5", "recall_at_10", "sample_f1",
                "f1_per_image", "n_tokens", "max_activation", "std", "dice", "map", "formula1",
            ],
            [4, 5],
        )  # fmt: skip


@pytest.mark.parametrize("right", [lambda x: 3, lambda x: (x > 0).sum(), lambda x: x.sum()])
def test_a_logged_count_is_told_of_once(right: Any) -> None:
    """Its mean over batches is no count."""
    model = Model()
    step = lambda x, y: {"loss": (x @ model.weight).mean(), "right": right(x)}
    with pytest.warns(
        UserWarning, match="'right' is a sum or a whole number for each batch"
    ) as told:
        model.trainer.fit([(X[:4], Y[:4]), (X[:5], Y[:5])], step, epochs=2)
    assert len(told) == 1


class Unshown:
    def __repr__(self) -> str:
        raise AssertionError("it was asked for its text")


def test_a_value_that_is_refused_is_not_asked_for_its_text() -> None:
    """PyTorch's took 15 seconds in a step that is watched, with hundreds of warnings."""
    model, value = Model(), Unshown()
    loader = DataLoader(ArrayDataset(X, Y), 11)
    with pytest.raises(TypeError, match=r"a step can log numbers, .*; 'v' is Unshown"):
        model.trainer.fit(loader, lambda x, y: {**model.step(x, y), "v": value}, epochs=1)
