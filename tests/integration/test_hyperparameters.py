"""A run that resumes with different hyperparameters warns and continues."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rumus import nn
from rumus.optim import (
    EMA,
    SAM,
    SGD,
    Adam,
    AdamW,
    ClipNorm,
    LossScale,
    ParameterGroup,
    cosine,
    warmup,
)
from rumus.tensor import Parameter
from rumus.train import ArrayDataset, Callback, DataLoader, Pad, Spikes, StepEnd, Trainer, images
from rumus.train.loop.hyperparameters import changed


def train(folder: Path, steps: int, *, loader: Any = None, p: float = 0.1, make: Any = SGD) -> None:
    """Train a model with dropout, from a loader of images of 1 x 2 pixels."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(p))
    trainer = Trainer(make(model.parameters(), 0.1), state={"model": model})
    pixels = np.ones((8, 1, 2, 1), np.float32)
    data = DataLoader(ArrayDataset(pixels), 4, shuffle=True, **(loader or {}))
    loss = lambda x: (model(x.reshape(-1, 2)) ** 2).mean()
    trainer.fit(data, loss, steps=steps, checkpoints=folder, resume="auto")


def flipped(sample: Any, generator: np.random.Generator) -> Any:
    return sample


def flipped_again(sample: Any, generator: np.random.Generator) -> Any:
    return sample


SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "transform": (
        {"loader": {"transform": flipped}},
        {"loader": {"transform": flipped_again}},
        "loader.transform was flipped and is flipped_again",
    ),
    "collate": ({}, {"loader": {"collate": Pad()}}, "loader.collate was None and is Pad"),
    "mixtures": (
        {"loader": {"transform": images.Augment(images.Flip("vertical", share=0.5))}},
        {"loader": {"transform": images.Augment(images.Flip("vertical", share=0.25))}},
        r"loader.transform was Augment\(Flip\(.*share=0.5\).* and is Augment\(Flip\(.*share=0.25",
    ),
    "model": ({}, {"p": 0.5}, "model.1.p was 0.1 and is 0.5"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_changes_of_loader_and_model_are_reported(name: str, tmp_path: Path) -> None:
    before, after, told = SETTINGS[name]
    train(tmp_path, 2, **before)
    with pytest.warns(UserWarning, match=f"other hyperparameters than before: {told}"):
        train(tmp_path, 4, **after)


@pytest.mark.parametrize(
    "loader",
    [
        {},
        {"transform": images.Augment(images.Flip("vertical"))},
        {"collate": Pad()},
        {"transform": flipped},
    ],
)
def test_an_unchanged_loader_is_not_reported(loader: dict[str, Any], tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(tmp_path, 2, loader=loader, make=AdamW)
        train(tmp_path, 4, loader=loader, make=AdamW)


def test_a_message_tells_the_first_differences() -> None:
    before = {f"name{i}": i for i in range(20)}
    told = changed(before, {})
    assert told is not None
    assert told.endswith("name7 was 7 and is None, and 12 more")


def fit(folder: Path, steps: int, make: Any, accumulate: int = 1) -> None:
    weight = Parameter([1.0, 2.0], name="weight")
    trainer = Trainer(make(weight))
    data = [(np.ones(2, np.float32),)] * 4
    trainer.fit(
        data, lambda x: ((weight - x) ** 2).mean(), steps=steps, checkpoints=folder, resume="auto",
        accumulate=accumulate,
    )  # fmt: skip


CASES: dict[str, tuple[Any, Any, str]] = {
    "rate": (lambda w: SGD([w], 0.1), lambda w: SGD([w], 0.3), "lr was 0.1 and is 0.3"),
    "schedule": (
        lambda w: SGD([w], cosine(0.1, 10)),
        lambda w: SGD([w], cosine(0.1, 20)),
        r"lr was cosine\(0.1, 10\) and is cosine\(0.1, 20\)",
    ),
    "group": (
        lambda w: SGD([ParameterGroup([w], lr=0.1)], 0.5),
        lambda w: SGD([ParameterGroup([w], lr=0.2)], 0.5),
        "group 0.lr was 0.1 and is 0.2",
    ),
    "wrapped": (
        lambda w: SAM(SGD([w], 0.1)),
        lambda w: SAM(SGD([w], 0.2)),
        "lr was 0.1 and is 0.2",
    ),
    "wrapper": (
        lambda w: SAM(SGD([w], 0.1), rho=0.05),
        lambda w: SAM(SGD([w], 0.1), rho=0.1),
        "SAM.rho was 0.05 and is 0.1",
    ),
    "clip": (
        lambda w: SGD([w], 0.1),
        lambda w: SGD([w], 0.1, clip=ClipNorm(2.0)),
        r"clip was None and is ClipNorm\(max_norm=2.0",
    ),
    "average": (
        lambda w: SGD([w], 0.1, average=EMA(0.9)),
        lambda w: SGD([w], 0.1, average=EMA(0.99)),
        r"average was EMA\(decay=0.9, .* and is EMA\(decay=0.99",
    ),
    "nonfinite": (
        lambda w: SGD([w], 0.1),
        lambda w: SGD([w], 0.1, nonfinite="skip"),
        "nonfinite was raise and is skip",
    ),
    "precision": (
        lambda w: AdamW([w], 0.1),
        lambda w: AdamW([w], 0.1, state_dtype="8bit"),
        r"precision was that of the parameters and is StoredState\(dtype='8bit'\)",
    ),
    "maximize": (
        lambda w: SGD([w], 0.1),
        lambda w: SGD([w], 0.1, maximize=True),
        "maximize was False and is True",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_changes_are_reported(name: str, tmp_path: Path) -> None:
    before, after, told = CASES[name]
    fit(tmp_path, 2, before)
    with pytest.warns(UserWarning, match=f"other hyperparameters than before: {told}"):
        fit(tmp_path, 4, after)


def test_accumulation(tmp_path: Path) -> None:
    fit(tmp_path, 2, lambda w: SGD([w], 0.1))
    with pytest.warns(UserWarning, match="accumulate was 1 and is 2"):
        fit(tmp_path, 4, lambda w: SGD([w], 0.1), accumulate=2)


@pytest.mark.parametrize(
    "make",
    [
        lambda w: Adam([w], warmup(2).then(cosine(0.1, 10))),
        lambda w: SGD([w], lambda step: 0.1 / step),
        lambda w: SGD([w], np.float64(0.1)),
    ],
)
def test_unchanged_values_are_not_reported(make: Any, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(tmp_path, 2, make)
        fit(tmp_path, 4, make)


def tokens(x: Any) -> float:
    return float(np.asarray(x).sum())


def of_fit(folder: Path, epochs: int, factor: Any = 0.5, **given: Any) -> None:
    """Train with these options of `fit`; the loss function names the factor."""
    weight = Parameter([1.0, 2.0], name="weight")
    trainer = Trainer(SGD([weight], 0.1), loss_scale=given.pop("loss_scale", None))
    data = [(np.ones(2, np.float32),)] * given.pop("batches", 4)
    trainer.fit(
        data, lambda x: ((weight - x) ** 2).mean() * factor, epochs=epochs, checkpoints=folder,
        resume="auto", **given,
    )  # fmt: skip


OF_FIT: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "weights": ({}, {"weight_of": tokens}, "weight_of was None and is tokens"),
    "no weights": ({"weight_of": tokens}, {}, "weight_of was tokens and is None"),
    "weights without a name": (
        {"weight_of": lambda x: 1.0},
        {"weight_of": lambda x: tokens(x)},
        r"weight_of was .*<lambda> with 1.0 and is .*<lambda> with tokens",
    ),
    "spikes": ({}, {"spikes": Spikes(window=9)}, r"spikes was None and is Spikes\(.*window=9"),
    "nonfinite": ({}, {"nonfinite": "rollback"}, "nonfinite was raise and is rollback"),
    "batches": ({}, {"batches": 3}, "loader.batches was 4 and is 3"),
    "scale": (
        {"loss_scale": LossScale()},
        {"loss_scale": LossScale(every=7)},
        "loss_scale.every was 2000 and is 7",
    ),
    "a number of the loss": ({}, {"factor": np.float32(0.25)}, "factor was 0.5 and is 0.25"),
}


@pytest.mark.parametrize("name", OF_FIT)
def test_changes_of_what_fit_was_given_are_reported(name: str, tmp_path: Path) -> None:
    before, after, told = OF_FIT[name]
    for folder, again in ((tmp_path / "same", before), (tmp_path / "other", after)):
        of_fit(folder, 1, **before)
        if again is before:
            of_fit(folder, 2, **again)  # a warning fails the test
        else:
            with pytest.warns(UserWarning, match=f"other hyperparameters than before: .*{told}"):
                of_fit(folder, 2, **again)


def test_numbers_of_a_loss_that_the_run_itself_changes_are_not_reported(tmp_path: Path) -> None:
    """They differ from the checkpoint's at each start, as those of a schedule by hand."""

    def train(epochs: int) -> None:
        weight, kl, same = Parameter([1.0], name="weight"), 0.0, 1.0
        other = same

        class Anneal(Callback):
            def on_step_end(self, event: StepEnd) -> None:
                nonlocal kl
                kl += 0.25

        trainer = Trainer(SGD([weight], 0.1))
        trainer.fit(
            [(np.ones(1, np.float32),)] * 3,
            lambda x: (weight * x * kl * same * other).mean(),
            epochs=epochs, callbacks=[Anneal()], checkpoints=tmp_path, resume="auto",
        )  # fmt: skip

    for epochs in (1, 2, 3):
        train(epochs)  # a warning fails the test
