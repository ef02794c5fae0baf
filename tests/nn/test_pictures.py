"""Picture and sequence layers on every backend: gradients, unusual numbers, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rumus import nn
from rumus.tensor import (
    Backend,
    DType,
    Generator,
    Parameter,
    Tensor,
    interpolate,
    ones,
    pad_edges,
    tensor,
)
from rumus.tensor.memory.window import part_bounds

LAYERS: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "max pool, ceil": (nn.MaxPool2d(2, ceil_mode=True), (1, 2, 5, 3)),
    "max pool 1d": (nn.MaxPool1d(3, padding=1), (2, 2, 5)),
    "avg pool, ceil, not counted": (
        nn.AvgPool2d(3, padding=1, ceil_mode=True, count_include_pad=False), (1, 2, 5, 4)
    ),
    "avg pool 1d, ceil": (nn.AvgPool1d(2, padding=1, ceil_mode=True), (2, 1, 6)),
    "adaptive max": (nn.AdaptiveMaxPool2d((2, 3)), (1, 2, 5, 4)),
    "adaptive mean 1d": (nn.AdaptiveAvgPool1d(3), (2, 2, 7)),
    "global": (nn.GlobalMaxPool(), (2, 2, 3, 2)),
    "nearest": (nn.Upsample(scale_factor=2), (1, 2, 3, 2)),
    "nearest by 1.5": (nn.Upsample((5, 3)), (1, 2, 3, 2)),
    "bilinear": (nn.Upsample(scale_factor=2, mode="bilinear"), (1, 2, 3, 2)),
    "bilinear, aligned": (nn.Upsample((4, 5), mode="bilinear", align_corners=True), (1, 2, 3, 3)),
    "linear, smaller": (nn.Upsample(3, mode="linear"), (2, 2, 7)),
    "shuffle": (nn.PixelShuffle(2), (1, 4, 2, 3)),
    "unshuffle": (nn.PixelUnshuffle(2), (1, 1, 4, 2)),
    "instance norm": (nn.InstanceNorm2d(2), (2, 2, 3, 4)),
    "reflect": (lambda x: pad_edges(x, [(0, 0), (2, 1)], "reflect"), (2, 4)),
    "replicate": (lambda x: pad_edges(x, [(1, 0), (2, 1)], "replicate"), (2, 4)),
    "circular": (lambda x: pad_edges(x, [(0, 0), (3, 4)], "circular"), (2, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_gradients(name: str, check_gradients: Any) -> None:
    function, shape = LAYERS[name]

    def case(dtype: DType, backend: Backend) -> tuple[list[Parameter], Callable[[], Tensor]]:
        x = Parameter(Generator(2).normal(shape).numpy(), dtype=dtype, backend=backend)
        return [x], lambda: function(x)

    check_gradients(case)


def test_convolutions_of_one_example_with_edges(check_gradients: Any) -> None:
    def case(dtype: DType, backend: Backend) -> tuple[list[Parameter], Callable[[], Tensor]]:
        options: Any = {"dtype": dtype, "backend": backend, "generator": Generator(0)}
        layer = nn.Conv2d(2, 2, (2, 3), padding="same", padding_mode="reflect", **options)
        up = nn.ConvTranspose1d(2, 2, 2, stride=2, **options)
        x = Parameter(Generator(2).normal((2, 3, 4)).numpy(), dtype=dtype, backend=backend)
        return [x, layer.weight, up.weight], lambda: up(layer(x)[:, 0])

    check_gradients(case)


@pytest.mark.parametrize("kind", [nn.Dropout2d, nn.DropPath])
def test_channels_are_dropped_together(kind: type[nn.Dropout], backend: Backend) -> None:
    layer = kind(0.25, generator=Generator(0))
    x = ones((40, 3, 2, 2), backend=backend)
    kept = layer(x).numpy().reshape(120 if kind is nn.Dropout2d else 40, -1)
    assert (kept == kept[:, :1]).all()
    values = np.unique(kept[:, 0]).tolist()
    assert values == [0.0, pytest.approx(4 / 3)]
    assert layer.eval()(x) is x
    parameter = Parameter(np.ones((3, 1, 1), np.float32), backend=backend)
    layer.train()
    assert (layer(x * parameter).sum().backward()[parameter].numpy() > 0).all()


def test_nan_stays_where_it_is_seen(backend: Backend) -> None:
    x = np.zeros((1, 1, 5, 5), np.float32)
    x[0, 0, 4, 4] = np.nan
    for layer in (nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(2, ceil_mode=True)):
        found = np.isnan(layer(tensor(x, backend=backend)).numpy()[0, 0])
        assert found.tolist() == [[False] * 3, [False] * 3, [False, False, True]]


X = ones((1, 2, 4, 4))


def any_of(value: object) -> Any:
    return value


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: nn.MaxPool1d(2)(X),
            ValueError,
            r"MaxPool1d: expected \(batch, channels, length\)",
        ),
        (lambda: nn.MaxPool1d((2, 2)), ValueError, "kernel needs one size of at least 1"),
        (lambda: nn.AvgPool2d(0), ValueError, "kernel needs one or two sizes of at least 1, not 0"),
        (lambda: nn.AvgPool2d(2, padding=2, count_include_pad=False)(X), ValueError, "half of the"),
        (lambda: nn.GlobalAvgPool()(X[0, 0]), ValueError, r"\(batch, channels, \*lengths\)"),
        (lambda: nn.GlobalMaxPool()(X[..., :0]), ValueError, "expected .*, got"),
        (lambda: nn.AdaptiveMaxPool2d(2)(X[..., :0]), ValueError, "there is nothing to take"),
        (lambda: nn.Upsample(), ValueError, "give size or scale_factor, one of the two"),
        (lambda: nn.Upsample(2, scale_factor=2), ValueError, "one of the two"),
        (lambda: interpolate(X, 0), ValueError, "a positive number for each of 2 axes"),
        (lambda: interpolate(X, (1, 2, 3)), ValueError, r"each of 2 axes, got \(1, 2"),
        (lambda: interpolate(X, scale_factor=0.1), ValueError, "leaves no elements"),
        (lambda: interpolate(X, 2, mode="linear"), ValueError, r"one of \['nearest', 'bilinear'\]"),
        (lambda: interpolate(X, 2, align_corners=True), ValueError, "needs a linear mode"),
        (lambda: interpolate(X[0, 0], 2), ValueError, "got float32"),
        (lambda: nn.PixelShuffle(3)(X), ValueError, "expected channels that 9 divides"),
        (lambda: nn.PixelUnshuffle(3)(X), ValueError, "expected sizes that 3 divides"),
        (lambda: nn.PixelShuffle(0), ValueError, "the factor must be at least 1"),
        (lambda: nn.InstanceNorm2d(3)(X), ValueError, "expected 3 channels, got"),
        (lambda: nn.InstanceNorm2d(2)(X[..., :1, :1]), ValueError, "one value in each channel"),
        (lambda: nn.Conv2d(2, 2, 3, padding=any_of("full")), ValueError, "'same' or 'valid', not"),
        (lambda: nn.Conv2d(2, 2, 3, padding="same", stride=2), ValueError, "requires stride 1"),
        (lambda: nn.Conv2d(2, 2, 3, padding_mode=any_of("edge")), ValueError, "not 'edge'"),
        (
            lambda: nn.Conv2d(2, 2, 3, padding=4, padding_mode="reflect")(X),
            ValueError,
            "reflect by",
        ),
        (lambda: nn.Conv2d(2, 2, 3)(X[0, 0]), ValueError, "or one without a batch"),
        (lambda: pad_edges(X, [(1, 1)], "circular"), ValueError, "4 pairs of widths >= 0"),
        (lambda: nn.Dropout2d()(ones((3,))), ValueError, r"expected \(batch, channels, ...\)"),
        (lambda: nn.DropPath()(tensor(1.0)), ValueError, "got a number"),
        (lambda: nn.DropPath(1.5), ValueError, r"p must be in \[0, 1\], not 1.5"),
        (lambda: nn.BatchNorm2d(2, momentum=2.0), ValueError, r"in \[0, 1\], or None, not 2.0"),
        (lambda: nn.GLU()(X[..., :3]), ValueError, "does not divide into halves"),
        (lambda: nn.PReLU(3)(X), ValueError, "expected 3 channels on axis 1"),
    ],
)
def test_errors(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(1, 2, 7), (1, 2, 7, 5), (2, 1, 6, 4)])
def test_an_adaptive_mean_keeps_what_is_no_number_in_its_parts(
    shape: tuple[int, ...], bad: float, backend: Backend
) -> None:
    size = (3, 2)[: len(shape) - 2]
    x = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    x[(0, 0, 1, 3)[: len(shape)]] = bad
    pool = nn.AdaptiveAvgPool1d(3) if len(shape) == 3 else nn.AdaptiveAvgPool2d(size)
    parts = [part_bounds(count, n) for count, n in zip(size, shape[2:], strict=True)]
    wanted = np.empty((*shape[:2], *size))
    given = np.ones(wanted.shape, np.float32)
    given[(0, -1, 2, 1)[: len(shape)]] = bad
    slope = np.zeros(shape)
    for place in np.ndindex(*size):
        bounds = [part[i] for part, i in zip(parts, place, strict=True)]
        inside = (slice(None), slice(None), *(slice(*each) for each in bounds))
        axes = tuple(range(2, len(shape)))
        wanted[(..., *place)] = x[inside].mean(axes)
        count = np.prod([stop - start for start, stop in bounds])
        column = given[(..., *place)].reshape(*shape[:2], *[1] * len(size))
        slope[inside] += column / count
    p = Parameter(x, backend=backend)
    y = pool(p)
    np.testing.assert_allclose(y.numpy(), wanted, rtol=1e-5, atol=1e-6)
    found = (y * tensor(given, backend=backend)).sum().backward()[p].numpy()
    np.testing.assert_allclose(found, slope, rtol=1e-5)


def test_float16_is_interpolated_without_rounding_each_axis(backend: Backend) -> None:
    draw = np.random.default_rng(6)
    x = (draw.normal(size=(1, 2, 7, 6)) * 100).astype(np.float16)
    for options in ({"scale_factor": 2}, {"size": (5, 9), "align_corners": True}):
        chosen: Any = {"mode": "bilinear", **options}
        wanted = interpolate(tensor(x.astype(np.float32), backend=backend), **chosen).numpy()
        p = Parameter(x, dtype=np.float16, backend=backend)
        found = interpolate(p, **chosen)
        assert found.dtype == np.float16
        np.testing.assert_array_equal(found.numpy(), wanted.astype(np.float16))
        assert found.sum().backward()[p].dtype == np.float16
