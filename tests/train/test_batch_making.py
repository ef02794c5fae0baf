"""Dicts, samplers, padding, mixing and image transforms: how batches are made."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rumus.optim import SGD
from rumus.tensor import Backend, Parameter, StateMismatchError, Tensor
from rumus.train import (
    ArrayDataset,
    BalancedSampler,
    CutMix,
    DataLoader,
    LengthBuckets,
    Mixup,
    Pad,
    SampleError,
    Subset,
    Trainer,
    WeightedSampler,
    images,
)
from rumus.train.base.random_stream import Purpose, random_stream


class Named:
    """Samples that are dicts, with a field that the loss does not take."""

    def __init__(self, count: int = 10) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"label": index % 3, "x": np.array([index, 1.0], np.float32), "weight": 2.0}


class Model:
    def __init__(self, backend: Backend | None = None) -> None:
        self.weight = Parameter(np.ones(2, np.float32), name="weight", backend=backend)
        self.trainer = Trainer(SGD([self.weight], 0.001))

    def loss(self, x: Tensor, label: Tensor) -> Tensor:
        return (((x * self.weight).sum(1) - label.astype(np.float32)) ** 2).mean()

    def of_dict(self, batch: dict[str, Tensor]) -> Tensor:
        return self.loss(batch["x"], batch["label"])


# Dicts


def trained(loss: Callable[[Model], Any], backend: Backend) -> bytes:
    model = Model(backend)
    function = loss(model)
    result = model.trainer.fit(
        DataLoader(Named(), 4, shuffle=True), function, epochs=6,
        validate=(DataLoader(Named(), 4), function), weight_of=lambda x: len(x),
    )  # fmt: skip
    assert result.metrics["loss"] > 0
    assert model.trainer.counts.replayed > 0 or backend.name != "gpu"
    return model.weight.numpy().tobytes()


def test_a_dict_is_passed_by_names_or_whole(backend: Backend) -> None:
    by_name = trained(lambda model: model.loss, backend)
    assert trained(lambda model: model.of_dict, backend) == by_name
    assert trained(lambda model: lambda x, label: model.loss(x, label), backend) == by_name
    assert trained(lambda model: lambda **b: model.loss(b["x"], b["label"]), backend) == by_name


def test_dicts_through_predictions_and_workers() -> None:
    model = Model()
    for workers in (0, 2):
        loader = DataLoader(Named(), 4, workers=workers)
        found = model.trainer.predict(loader, lambda x: (x * model.weight).sum(1))
        assert found.tolist() == [index + 1 for index in range(10)]
    found = model.trainer.evaluate(loader, lambda x, label: {"mean": x.mean()})
    assert found["mean"] == pytest.approx(2.75)


def test_a_key_that_the_loss_wants() -> None:
    model = Model()
    told = r"loss wants 'label', and a batch has 'x', 'labels'.*did you mean 'labels'"
    batch = {"x": np.ones((2, 2), np.float32), "labels": np.zeros(2, np.int32)}
    with pytest.raises(ValueError, match=told):
        model.trainer.train_step(model.loss, batch)
    with pytest.raises(ValueError, match=told):
        model.trainer.fit([batch], model.loss, epochs=1)
    with pytest.raises(SampleError, match=r"sample 1 is \{y: .*but sample 0.* is \{x: "):
        list(DataLoader([{"x": 1.0}, {"y": 1.0}], 2))
    with pytest.raises(SampleError, match=r"\{name: <U1\[\]\}; its fields must be arrays of num"):
        list(DataLoader([{"name": "a"}], 1))
    with pytest.raises(TypeError, match=r"can only be iterated over: use StreamLoader"):
        DataLoader((x for x in [1]), 1)  # type: ignore[arg-type]


# Samplers


@given(seed=st.integers(0, 99), epoch=st.integers(0, 9), size=st.integers(1, 9))
def test_a_sampler_is_a_function_of_seed_and_epoch(seed: int, epoch: int, size: int) -> None:
    whole, lengths = range(40), np.arange(40) % 7
    for sampler in (
        WeightedSampler(lengths), BalancedSampler(lengths), LengthBuckets(lengths),
        WeightedSampler(lengths, 20, replacement=False),
    ):  # fmt: skip
        order = [sampler.order(whole, seed, epoch, size) for _ in range(2)]  # type: ignore[arg-type]
        assert (order[0] == order[1]).all()
        other = sampler.order(whole, seed, epoch + 1, size)  # type: ignore[arg-type]
        assert len(other) == len(order[0])
        assert (other != order[0]).any()


def test_weights_are_met() -> None:
    weights = np.array([0.0, 1.0, 2.0, 5.0, 0.0])
    order = WeightedSampler(weights, 80_000).order(range(5), 0, 0, 1)  # type: ignore[arg-type]
    counts = np.bincount(order, minlength=5)
    assert counts[[0, 4]].tolist() == [0, 0]
    expected = weights * 10_000
    inside = weights > 0
    chi2 = ((counts - expected)[inside] ** 2 / expected[inside]).sum()
    assert chi2 < 13.8  # of 2 degrees of freedom: 1 in 1000
    classes = np.array([0] * 90 + [1] * 9 + [2])
    balanced = BalancedSampler(classes, 30_000).order(range(100), 1, 0, 1)  # type: ignore[arg-type]
    assert np.abs(np.bincount(classes[balanced]) - 10_000).max() < 400
    texts = BalancedSampler(["a", "b", "a"], 1000)
    assert 400 < (texts.order(range(3), 0, 0, 1) == 1).sum() < 600  # type: ignore[arg-type]


def test_without_replacement_each_comes_once() -> None:
    sampler = WeightedSampler([1.0, 0.0, 9.0, 1.0], replacement=False)
    first = [sampler.order(range(4), seed, 0, 1) for seed in range(2000)]  # type: ignore[arg-type]
    assert all(sorted(order) == [0, 2, 3] for order in first)
    assert 0.78 < np.mean([order[0] == 2 for order in first]) < 0.86  # 9 of 11


@given(seed=st.integers(0, 99), count=st.integers(1, 300), size=st.integers(1, 8))
def test_buckets_have_each_sample_once_and_little_padding(seed: int, count: int, size: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 100, count)
    order = LengthBuckets(lengths).order(range(count), seed, 0, size)  # type: ignore[arg-type]
    assert sorted(order) == list(range(count))
    if count == 300:
        batches = [lengths[order[i : i + size]] for i in range(0, count, size)]
        padded = sum(len(batch) * batch.max() for batch in batches)
        assert padded < 1.3 * lengths.sum()
    longest = LengthBuckets(lengths, shuffle=False).order(range(count), 0, 0, 1)  # type: ignore[arg-type]
    assert (np.diff(lengths[longest]) <= 0).all()


def test_a_loader_with_a_sampler_resumes() -> None:
    dataset, weights = ArrayDataset(np.arange(30.0)), np.arange(30)

    def make(w: NDArray[Any] = weights) -> DataLoader:
        return DataLoader(dataset, 4, sampler=WeightedSampler(w), seed=3)

    whole = [batch[0].tolist() for batch in make()]
    loader, rest = make(), make()
    loop = iter(loader)
    for position in range(len(whole)):
        rest.load_state_dict(loader.state_dict())
        assert [batch[0].tolist() for batch in rest] == whole[position:]
        next(loop)
    with pytest.raises(StateMismatchError, match="sampler is"):
        make(weights + 1).load_state_dict(loader.state_dict())
    with pytest.raises(ValueError, match="shuffle=True and sampler="):
        DataLoader(dataset, 4, sampler=WeightedSampler(weights), shuffle=True)
    subset = Subset(dataset, [3, 4])
    with pytest.raises(ValueError, match="weights are for 30 samples, but the dataset has 2"):
        DataLoader(subset, 1, sampler=WeightedSampler(weights))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: WeightedSampler([1.0, -0.5]), r"not negative; that of sample 1 is -0\.5"),
        (lambda: WeightedSampler([math.nan, 1.0]), "that of sample 0 is nan"),
        (lambda: WeightedSampler([math.inf, 1.0]), "that of sample 0 is inf"),
        (lambda: WeightedSampler([0.0, 0.0]), "all weights are 0"),
        (lambda: WeightedSampler([]), "one number for each sample"),
        (lambda: WeightedSampler([[1.0]]), "one number for each sample"),
        (lambda: WeightedSampler(["a"]), "not <U1 of shape"),
        (lambda: WeightedSampler([1.0], 0), "count must be at least 1"),
        (lambda: WeightedSampler([1.0, 0.0], 2, replacement=False), "only the 1 samples"),
        (lambda: BalancedSampler([]), "labels must be one per sample"),
        (lambda: BalancedSampler([0.5]), "whole numbers or text, not float64"),
        (lambda: LengthBuckets([-1, 2]), "must not be negative"),
        (lambda: LengthBuckets([[1]]), "one number for each sample"),
        (lambda: Pad(multiple=0), "multiple must be"),
        (lambda: Mixup(2, 0.0), "alpha must be"),
        (lambda: Mixup(2, share=1.5), "share must be"),
        (lambda: Mixup(0), "classes must be"),
        (lambda: images.Flip("left"), "axis must be"),  # type: ignore[arg-type]
        (lambda: images.Flip(share=2), "share must be"),
        (lambda: images.ColorJitter(contrast=2.0), "contrast must be"),
        (lambda: images.Normalize(0.5, 0.0), "std must be"),
    ],
)
def test_bad_options(make: Callable[[], object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make()


def test_weights_are_no_sampler() -> None:
    weights: Any = np.ones(2)
    with pytest.raises(TypeError, match=r"like WeightedSampler\(weights\), not ndarray"):
        DataLoader(ArrayDataset(weights), 2, sampler=weights)


# Padding


def texts(index: int) -> tuple[Any, ...]:
    return np.arange(1, index % 5 + 2), np.full((index % 5 + 2, 2), index, np.float32), index


class Texts:
    def __len__(self) -> int:
        return 13

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return texts(index)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_different_lengths(workers: int) -> None:
    pad = Pad((0, -1, 0), multiple=4, mask=True)
    loader = DataLoader(Texts(), 4, collate=pad, shuffle=True, workers=workers)
    seen = []
    for tokens, rows, index, mask in loader:
        assert tokens.shape[1] % 4 == 0
        for at, number in enumerate(index):
            expected, values, _ = texts(number)
            assert tokens[at][mask[at]].tolist() == expected.tolist()
            assert (tokens[at][~mask[at]] == 0).all()
            assert (rows[at, : len(values)] == values).all()
            assert (rows[at, len(values) :] == -1).all()
        seen += index.tolist()
    assert sorted(seen) == list(range(13))


def test_padding_of_dicts_and_unpaddable_input() -> None:
    batch = Pad({"t": -100}, length=3, mask=True)([{"x": [1], "t": [2]}, {"x": [3, 4], "t": [5]}])
    assert {name: value.tolist() for name, value in batch.items()} == {
        "x": [[1, 0, 0], [3, 4, 0]],
        "t": [[2, -100, -100], [5, -100, -100]],
        "mask": [[True, False, False], [True, True, False]],
    }
    with pytest.raises(ValueError, match="longer than length=1"):
        Pad(length=1)([([1, 2],)])
    with pytest.raises(ValueError, match="only the first axis"):
        Pad()([(np.ones((1, 2)),), (np.ones((1, 3)),)])
    with pytest.raises(ValueError, match="no field has an axis"):
        Pad(mask=True)([(1,), (2,)])
    with pytest.raises(SampleError, match=r"collate= failed for the batch .* with sample 0"):
        list(DataLoader(Texts(), 4, collate=Pad(length=1)))
    with pytest.raises(SampleError, match="must return a tuple or dict of arrays, not NoneType"):
        list(DataLoader(Texts(), 4, collate=lambda samples: None))


# Mixing


@pytest.mark.parametrize("mix", [Mixup(5, 1.0), CutMix(5)], ids=["mixup", "cutmix"])
@pytest.mark.parametrize("workers", [0, 2])
def test_mixtures(mix: Mixup, workers: int) -> None:
    """Image i is filled with its class, so the image determines its target."""
    labels = np.arange(20) % 5
    pixels = np.eye(5, dtype=np.float32)[labels][:, :, None, None] * np.ones((8, 6), np.float32)
    epochs = [
        list(
            DataLoader(
                ArrayDataset(pixels, labels), 10, batch_transform=mix, workers=workers, shuffle=True
            )
        )
        for _ in range(2)
    ]
    for (x, targets), (other, _) in zip(*epochs, strict=True):
        assert x.tobytes() == other.tobytes()
        assert targets.dtype == np.float32
        np.testing.assert_allclose(x.mean((2, 3)), targets, atol=1e-6)
    assert any((targets.max(1) < 1).any() for _, targets in epochs[0])


def test_unmixable_input() -> None:
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"class numbers in \[0, 2\)"):
        Mixup(2)((np.ones((2, 1)), np.array([0, 2])), generator)
    with pytest.raises(ValueError, match="needs a target"):
        Mixup(2)((np.ones((2, 1)),), generator)
    for mix, targets, told in (
        (Mixup(3), np.array([0.0, 2.0], np.float32), r"float32 of shape \(2,\).*classes=None"),
        (Mixup(3), np.ones((2, 2)), r"probabilities of shape \(2, 3\)"),
        (Mixup(3), np.array([True, False]), "must be class numbers"),
        (Mixup(None), np.array([0, 2]), "give classes="),
    ):
        with pytest.raises(ValueError, match=told):
            mix((np.ones((2, 1)), targets), generator)
    x = np.arange(8, dtype=np.float32)[:, None]
    mixed, targets = Mixup(None, 1.0)((x, 2 * x[:, 0]), generator)
    assert (mixed != x).any()
    np.testing.assert_allclose(targets, 2 * mixed[:, 0], rtol=1e-6)
    with pytest.raises(ValueError, match="CutMix needs images"):
        CutMix(2)((np.ones((2, 1)), np.array([0, 1])), generator)

    x = np.ones((2, 1), np.float32)
    same, targets = Mixup(2, share=0.0)((x, np.array([0, 1])), generator)
    assert same is x
    assert targets.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_rectangle_is_cut_out_of_an_image_not_of_its_channels(channels: int) -> None:
    generator, targets = np.random.default_rng(0), np.array([0, 1])
    first, last = np.ones((2, channels, 8, 9)), np.ones((2, 8, 9, channels))
    with pytest.raises(ValueError, match=r"channels last, .* CutMix\(channels_last=True\)"):
        CutMix(2)((last, targets), generator)
    with pytest.raises(ValueError, match=r"channels first, .* CutMix\(channels_last=False\)"):
        CutMix(2, channels_last=True)((first, targets), generator)
    for mix, batch in ((CutMix(2), first), (CutMix(2, channels_last=True), last)):
        assert mix((batch, targets), generator)[0].shape == batch.shape


# Images


def image(*shape: int, dtype: Any = np.uint8) -> NDArray[Any]:
    values = np.random.default_rng(1).integers(0, 256, shape)
    return values.astype(dtype) if dtype is np.uint8 else (values / 255).astype(dtype)


@given(seed=st.integers(0, 999), size=st.integers(1, 12), padding=st.integers(0, 4))
def test_crops_are_parts(seed: int, size: int, padding: int) -> None:
    whole = image(9, 8, 3)
    padded = np.pad(whole, ((padding,) * 2, (padding,) * 2, (0, 0)))
    crop = images.Crop((size, size), padding)
    if size > 8 + 2 * padding:
        with pytest.raises(ValueError, match="smaller than the crop"):
            crop(whole, np.random.default_rng(seed))
        return
    found = crop(whole, np.random.default_rng(seed))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (0, 1))
    assert (windows.transpose(0, 1, 3, 4, 2) == found).all((2, 3, 4)).any()
    middle = images.Crop(2, center=True)(whole, np.random.default_rng(seed))
    assert (middle == whole[3:5, 3:5]).all()


def test_flips() -> None:
    whole, generator = image(4, 5, 3), np.random.default_rng(0)
    assert (images.Flip(share=1.0)(whole, generator) == whole[:, ::-1]).all()
    assert (images.Flip("vertical", 1.0)(whole, generator) == whole[::-1]).all()
    assert (images.Flip(share=0.0)(whole, generator) == whole).all()
    flips = [(images.Flip()(whole, generator) != whole).any() for _ in range(400)]
    assert 0.4 < np.mean(flips) < 0.6


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", [(9, 9), (9, 9, 3)])
def test_rotation_by_right_angles_is_exact(shape: tuple[int, ...], dtype: Any) -> None:
    whole = image(*shape, dtype=dtype)
    for quarter in range(4):
        found = images.turned(whole, quarter * math.pi / 2)
        np.testing.assert_allclose(found, np.rot90(whole, quarter), atol=1e-5)
        assert found.dtype == dtype


def test_rotation_is_bilinear() -> None:
    """A plane stays a plane when rotated: bilinear interpolation is exact for it."""
    y, x = np.mgrid[:21, :21].astype(np.float32) - 10
    angle = 0.4
    found = images.turned(2 * x + 3 * y, angle, fill=np.nan)
    expected = 2 * (x * math.cos(angle) - y * math.sin(angle)) + 3 * (
        y * math.cos(angle) + x * math.sin(angle)
    )
    inside = np.isfinite(found)
    assert inside.sum() > 300
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-3)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_colors(dtype: Any) -> None:
    whole = image(6, 5, 3, dtype=dtype)
    limit = 255 if dtype is np.uint8 else 1
    for seed in range(20):
        found = images.ColorJitter(0.4, 0.4, 0.4)(whole, np.random.default_rng(seed))
        assert found.dtype == dtype
        draws = np.random.default_rng(seed).uniform(-1, 1, 3)
        bright, contrast, saturation = 1 + 0.4 * draws
        value = whole.astype(np.float64) * bright
        weights = np.array([0.299, 0.587, 0.114])
        mean = (value @ weights).mean()
        value = mean + contrast * (value - mean)
        gray = (value @ weights)[..., None]
        value = (gray + saturation * (value - gray)).clip(0, limit)
        np.testing.assert_allclose(found, value, atol=0.51 if dtype is np.uint8 else 1e-5)
    with pytest.raises(ValueError, match="saturation needs images"):
        images.ColorJitter(saturation=0.1)(image(4, 4), np.random.default_rng(0))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_normalizing(dtype: Any) -> None:
    whole, mean, std = image(4, 5, 3, dtype=dtype), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    share = whole / (255 if dtype is np.uint8 else 1)
    found = images.Normalize(mean, std)(whole, np.random.default_rng(0))
    assert found.shape == (3, 4, 5)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.transpose(1, 2, 0), (share - mean) / std, atol=1e-5)
    assert images.Normalize()(image(4, 5), np.random.default_rng(0)).shape == (1, 4, 5)
    last = images.Normalize(mean, std, channels_first=False)(whole, np.random.default_rng(0))
    np.testing.assert_array_equal(last, found.transpose(1, 2, 0))


@pytest.mark.parametrize(
    "transform",
    [
        images.Crop(3),
        images.Flip(),
        images.Rotate(10),
        images.ColorJitter(0.1),
        images.Normalize(),
        images.Augment(images.Normalize(), images.Flip()),
    ],
    ids=repr,
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_image_with_its_channels_first_is_refused(transform: Any, channels: int) -> None:
    """Flip would swap top and bottom, Rotate mix the channels; nothing would show it."""
    whole = np.zeros((channels, 8, 9), np.uint8)
    is_sample = isinstance(transform, images.Augment)
    given = (np.moveaxis(whole, 0, -1), 1) if is_sample else whole
    with pytest.raises(ValueError, match=rf"of shape \({channels}, 8, 9\) has its channels"):
        transform(given, np.random.default_rng(0))


@pytest.mark.parametrize("shape", [(3, 3, 3), (1, 1, 3), (3, 9, 1), (8, 9, 7), (3, 9), (8, 9, 3)])
def test_images_with_their_channels_last_are_taken(shape: tuple[int, ...]) -> None:
    for transform in (images.Flip(share=1.0), images.Rotate(10), images.Normalize()):
        transform(np.zeros(shape, np.uint8), np.random.default_rng(0))


def test_integers_that_normalize_would_wipe_out_are_refused() -> None:
    """A mean of undivided numbers, or division by 2**63, would leave the same number everywhere."""
    draw = np.random.default_rng(0)
    whole = draw.integers(0, 256, (4, 5, 3))
    for dtype in (np.int32, np.uint32, np.int64, np.uint64):
        with pytest.raises(ValueError, match=f"for {np.dtype(dtype)} little would be left"):
            images.Normalize(0.5, 0.25)(whole.astype(dtype), draw)
    pixels = whole.astype(np.uint8)
    for mean in (127.5, [123.7, 116.3, 103.5]):
        with pytest.raises(ValueError, match="divide mean and std by 255, too"):
            images.Normalize(mean, 58.0)(pixels, draw)
        found = images.Normalize(mean, 58.0)(pixels.astype(np.float32), draw)
        np.testing.assert_allclose(found[0], (whole[..., 0] - np.ravel(mean)[0]) / 58, rtol=1e-4)


def test_augment_takes_a_field() -> None:
    flip = images.Augment(images.Flip(share=1.0), key="image")
    whole = image(4, 5, 3)
    found = flip({"label": 1, "image": whole}, np.random.default_rng(0))
    assert (found["image"] == whole[:, ::-1]).all()
    with pytest.raises(ValueError, match="no field 'image'"):
        flip((1, 2), np.random.default_rng(0))


@given(
    seed=st.integers(0, 2**32 + 5), epoch=st.integers(0, 2**32 + 1), sample=st.integers(0, 2**33)
)
def test_streams_are_those_of_numpys_spawn_keys(seed: int, epoch: int, sample: int) -> None:
    for purpose in Purpose:
        sequence = np.random.SeedSequence(seed, spawn_key=(int(purpose), epoch, sample))
        expected = np.random.Generator(np.random.PCG64(sequence)).random(3)
        assert (random_stream(seed, purpose, epoch, sample).random(3) == expected).all()


@pytest.mark.parametrize(
    ("mean", "std", "shape"),
    [
        ((0.5, 0.5, 0.5), 0.5, (4, 4, 1)),
        (0.5, (0.5, 0.5, 0.5), (4, 4)),
        ((0.5, 0.5, 0.5), 0.5, (4, 3)),
        ((0.5, 0.5), 0.5, (4, 4, 3)),
    ],
)
def test_normalize_makes_no_channels(mean: Any, std: Any, shape: tuple[int, ...]) -> None:
    """A gray image and the means of a colored one made an image of three channels."""
    with pytest.raises(ValueError, match=r"(mean|std) has [23] numbers, but the image has [13] ch"):
        images.Normalize(mean, std)(np.zeros(shape, np.uint8), np.random.default_rng(0))
    one = images.Normalize([0.5], [0.5])(np.zeros((4, 4, 3), np.uint8), np.random.default_rng(0))
    assert one.shape == (3, 4, 4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"transform": lambda sample: sample}, "transform is called with sample and generator"),
        ({"transform": lambda s, g, scale: s}, "missing a required argument: 'scale'"),
        ({"batch_transform": np.flipud}, "batch_transform is called with batch and generator"),
        ({"collate": lambda x, y: (x, y)}, r"collate=lambda samples: \.\.\."),
        ({"transform": lambda s, *, generator: s}, "too many positional arguments"),
    ],
)
def test_functions_of_other_arguments_are_refused_at_once(
    options: dict[str, Any], said: str
) -> None:
    """As are those of torchvision, of one argument: the first batch may be made much later."""
    with pytest.raises(TypeError, match=said):
        DataLoader(ArrayDataset(np.zeros((4, 2))), 2, **options)


@pytest.mark.parametrize("transform", [lambda x, y: (x, y), lambda x, y: (x[0] * 2, y)])
def test_a_transform_of_the_fields_is_told_what_it_is_given(transform: Callable[..., Any]) -> None:
    loader = DataLoader(ArrayDataset(np.zeros((4, 2)), np.zeros(4)), 2, transform=transform)
    with pytest.raises(SampleError, match=r"write def transform\(sample, generator\): x, y = s"):
        next(iter(loader))


@pytest.mark.parametrize(
    "transform", [lambda *given: given[0], lambda sample, generator, scale=2: sample]
)
def test_functions_that_take_more_are_taken(transform: Callable[..., Any]) -> None:
    loader = DataLoader(ArrayDataset(np.zeros((4, 2))), 2, transform=transform)
    assert [x.shape for (x,) in loader] == [(2, 2), (2, 2)]


@pytest.mark.parametrize("shape", [(4,), (2, 4, 4, 3), ()])
def test_transforms_of_images_take_one_image_at_a_time(shape: tuple[int, ...]) -> None:
    """The second axis of a batch of images is their height, which was mirrored instead."""
    image = np.ones(shape, np.float32)
    transforms: list[Any] = [
        images.Flip(share=1.0), images.Flip("vertical", 1.0), images.Crop(2), images.Rotate(10),
        images.ColorJitter(0.1), images.Normalize(),
    ]  # fmt: skip
    for transform in transforms:
        with pytest.raises(ValueError, match="transforms take one image at a time"):
            transform(image, np.random.default_rng(0))


def test_an_augmentation_names_the_field_that_a_sample_lacks() -> None:
    sample = np.ones((2, 2)), 1
    generator = np.random.default_rng(0)
    for key in (2, -3):
        with pytest.raises(ValueError, match=f"the sample has 2 fields, and none at {key}"):
            images.Augment(images.Flip(), key=key)(sample, generator)
    with pytest.raises(ValueError, match="ColorJitter needs numbers, not an image of bool"):
        images.ColorJitter(0.1)(np.ones((2, 2), np.bool_), generator)
