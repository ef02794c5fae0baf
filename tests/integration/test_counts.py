"""Counts must be whole numbers and callables functions: reported where they are given."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rumus import nn, tensor
from rumus.optim import LBFGS, SAM, SGD, ClipNorm, Lookahead, multi_step, warmup
from rumus.tensor import Generator, NonFiniteGradientError, Parameter, ones
from rumus.train import (
    Checkpoints,
    CsvDataset,
    DataLoader,
    EarlyStopping,
    Mixup,
    Trainer,
    WeightedSampler,
    evaluate,
)

WEIGHT = [Parameter([1.0], name="weight")]


def fit(**options: Any) -> object:
    trainer = Trainer(SGD([Parameter([1.0], name="w")], 0.1))
    return trainer.fit([], lambda x: x, epochs=1, **options)


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "seed": (lambda: tensor.seed(1.5), "seed: value must be a whole number, not 1.5"),
    "seed text": (lambda: tensor.seed("7"), "seed: value must be a whole number, not '7'"),
    "generator": (lambda: Generator(True), "seed must be a whole number, not True"),
    "tril": (lambda: tensor.tril(ones((2, 2)), 0.5), "tril: diagonal must be a whole number"),
    "topk": (lambda: ones((3,)).topk(True), "topk: k must be a whole number, not True"),
    "einsum": (lambda: tensor.einsum(None, ones((3,))), "must be text such as 'ij,jk->ik'"),
    "interpolate": (
        lambda: tensor.interpolate(ones((1, 1, 3)), 2.5),
        "interpolate: size must be whole numbers, not 2.5",
    ),
    "keep_last": (lambda: Checkpoints("c", keep_last=2.5), "keep_last must be a whole number"),
    "keep_every": (lambda: Checkpoints("c", keep_every="9"), "keep_every must be a whole number"),
    "classes": (lambda: Mixup(float("nan")), "classes must be a whole number, not nan"),
    "count": (lambda: WeightedSampler([1, 2], 1.5), "count must be a whole number, not 1.5"),
    "accumulate": (lambda: fit(accumulate="2"), "accumulate must be a whole number, not '2'"),
    "accumulate True": (lambda: fit(accumulate=True), "accumulate must be a whole number"),
    "weight_of": (lambda: fit(weight_of=3), "weight_of must be a function of a batch, not 3"),
    "callbacks": (lambda: fit(callbacks=EarlyStopping()), r"callbacks must be a list, .*=\[...\]"),
    "callback": (lambda: fit(callbacks=[3]), "callbacks: 3 is not a Callback"),
    "a class": (lambda: fit(callbacks=[EarlyStopping]), "is not a Callback"),
    "state": (lambda: Trainer(SGD(WEIGHT, 0.1), state="model"), "state must map names to objects"),
    "scale": (lambda: Trainer(SGD(WEIGHT, 0.1), loss_scale=8), r"must be LossScale\(...\), not 8"),
    "batch_size": (lambda: DataLoader([(1,)], True), "batch_size must be a whole number, not True"),
    "loader": (lambda: DataLoader([(1,)], 1, seed="7"), "seed must be a whole number, not '7'"),
    "target": (lambda: CsvDataset(__file__, target=1), "target must be one or more column names"),
    "rank": (lambda: nn.lora(nn.Linear(2, 2), 2.5), "lora: rank must be a whole number, not 2.5"),
    "alpha": (
        lambda: nn.lora(nn.Sequential(nn.Linear(2, 2)), 1, alpha="2"),
        "alpha must be a number, not '2'",
    ),
    "lora": (lambda: nn.lora(3, 2), "lora: model must be a Module, not 3"),
    "onnx": (
        lambda: nn.export_onnx(abs, "x", ones((1,))),
        "must be a Module, not builtin_function",
    ),
    "dropout": (lambda: nn.Dropout(True), "Dropout: p must be a number, not True"),
    "eps": (lambda: nn.LayerNorm(3, eps="1"), "eps must be a number, not '1'"),
    "group eps": (lambda: nn.GroupNorm(1, 3, eps="1"), "GroupNorm: eps must be a number, not '1'"),
    "gamma": (
        lambda: nn.focal_loss(ones((1, 2)), [0], gamma="2"),
        "focal_loss: gamma must be a number, not '2'",
    ),
    "smoothing": (
        lambda: nn.cross_entropy_loss(ones((1, 2)), [0], label_smoothing="0"),
        "label_smoothing must be a number, not '0'",
    ),
    "metric": (lambda: EarlyStopping(3), "give the metric by its name, not as 3"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_by_name(name: str) -> None:
    call, message = REFUSED[name]
    with pytest.raises(TypeError, match=message):
        call()


def test_whole_numbers_of_numpy_are_taken() -> None:
    assert tensor.seed(np.int64(3)) == 3
    assert ones((3,)).topk(np.int32(2))[0].shape == (2,)
    assert tensor.interpolate(ones((1, 1, 3)), np.int64(2)).shape == (1, 1, 2)


@pytest.mark.parametrize("two", [np.int64(2), np.array(2), np.array([2, 2]), [np.int64(2), 2]])
def test_sizes_are_numbers_and_arrays_of_numpy(two: Any) -> None:
    picture = ones((1, 2, 6, 6))
    sizes = [
        nn.Conv2d(2, 3, two)(picture),
        nn.Conv2d(2, 3, 2, stride=two, padding=two, dilation=two)(picture),
        nn.ConvTranspose2d(2, 3, two, stride=two)(picture),
        nn.MaxPool2d(two)(picture),
        tensor.avg_pool(picture, two),
        tensor.interpolate(picture, two),
        tensor.interpolate(picture, scale_factor=two),
        nn.Upsample(two)(picture),
    ]
    found = [each.shape[2:] for each in sizes]
    assert nn.AdaptiveAvgPool2d(two)(picture).shape == (1, 2, 2, 2)
    assert nn.LayerNorm(np.int64(6))(picture).shape == picture.shape
    assert found == [(5, 5), (4, 4), (12, 12), (3, 3), (3, 3), (2, 2), (12, 12), (2, 2)]
    assert picture.reshape(np.array([12, 6])).shape == (12, 6)
    assert picture.reshape(np.array(72)).shape == (72,)
    with pytest.raises(TypeError, match="Conv2d: stride must be whole numbers, not list"):
        nn.Conv2d(2, 3, 2, stride=[np.float64(2.5), 2])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="kernel needs 2 sizes of at least 1"):
        nn.Conv2d(2, 3, np.array([2, 2, 2]))


def test_steps_of_schedules_are_numbers_of_numpy() -> None:
    halved = multi_step(1.0, np.array([2, 4]), 0.5)
    assert [halved(step) for step in (2, 3, 5)] == [1.0, 0.5, 0.25]
    assert str(halved) == str(multi_step(1.0, [2, 4], 0.5))
    assert warmup(np.int32(4))(2) == 0.5
    assert LBFGS([Parameter([1.0], name="weight")], max_iter=np.int64(8)).max_eval == 10
    slow = Parameter([4.0], name="slow")
    ahead = Lookahead(SGD([slow], 0.25), k=np.int64(2))
    for _ in range(2):
        ahead.step((slow * slow).sum().backward())
    assert slow.tolist() == [2.5]
    with pytest.raises(TypeError, match=r"steps must be a whole number, not 2\.5"):
        warmup(2.5)


def test_one_of_a_few_texts_is_text_of_numpy() -> None:
    for per in np.array(["all", "group"]):
        assert ClipNorm(1.0, per=per).per == per
    with pytest.raises(ValueError, match=r"per must be 'all', 'group' or 'tensor', not .*every"):
        ClipNorm(1.0, per=np.str_("every"))


def test_sampling_works_with_weights_whose_sum_overflows() -> None:
    order = WeightedSampler([1e308, 1e308], 1000).order(range(2), seed=0, epoch=0, batch_size=1)
    assert 400 < int((order == 0).sum()) < 600


def test_a_non_finite_factor_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a positive number for each of 1 axes, got inf"):
        tensor.interpolate(ones((1, 1, 3)), scale_factor=float("inf"))


def test_between_two_infinities_is_infinity() -> None:
    x = tensor.tensor([[[np.inf, np.inf, 1.0]]])
    found = tensor.interpolate(x, 5, mode="linear", align_corners=True)
    np.testing.assert_array_equal(found.numpy()[0, 0, 1], np.inf)
    same = tensor.tensor([[[1.0, np.nan, np.inf]]])
    np.testing.assert_array_equal(tensor.interpolate(same, 3, mode="linear").numpy(), same.numpy())


def test_a_score_used_as_a_loss_is_reported() -> None:
    weight = Parameter([1.0], name="w")
    data = [(np.ones(2, np.float32),)]

    def accuracy() -> np.float32:
        return np.float32(0.5)

    trainer = Trainer(SGD([weight], 0.1))
    with pytest.warns(UserWarning, match="accuracy returns one number, which is called 'loss'"):
        trainer.fit(data, lambda x: (weight * x).sum(), epochs=1, validate=accuracy)


def test_the_norm_of_sam_is_blamed_where_it_overflows() -> None:
    weight = Parameter([1e30], name="w")
    optimizer = SAM(SGD([weight], 0.1))
    with pytest.raises(NonFiniteGradientError, match="squares, for the norm, are out of range"):
        optimizer.minimize_step(lambda: (weight * 1e30).sum())


def test_metrics_are_functions() -> None:
    with pytest.raises(TypeError, match=r"metrics must be functions .* not 'accuracy'"):
        evaluate(lambda x: x, [(ones((2,)), ones((2,)))], "accuracy")
