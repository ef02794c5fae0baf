"""Convolutions, pools and channel norms: refused input, and what training changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rumus import nn
from rumus.tensor import (
    Backend,
    Generator,
    NumpyBackend,
    Tensor,
    convolution,
    convolution_transpose,
    float16,
    float32,
    max_pool,
    no_grad,
    tensor,
)

CPU = NumpyBackend()


def normal(*shape: int, backend: Backend = CPU) -> Tensor:
    return Generator(0).normal(shape, backend=backend)


def expected(x: Any, weight: Any, stride: int, padding: int) -> Any:
    """By loops, in float64."""
    x = np.pad(x.astype(float), ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    size = weight.shape[-1]
    places = [(n - size) // stride + 1 for n in x.shape[2:]]
    out = np.zeros((x.shape[0], weight.shape[0], *places))
    for i, j in np.ndindex(*places):
        part = x[:, :, i * stride : i * stride + size, j * stride : j * stride + size]
        out[:, :, i, j] = np.einsum("nchw,ochw->no", part, weight.astype(float))
    return out


@pytest.mark.parametrize(
    ("stride", "padding", "size"), [(1, 0, 3), (2, 1, 3), (3, 2, 4), (1, 0, 1)]
)
def test_values(stride: int, padding: int, size: int, backend: Backend) -> None:
    x, weight = normal(3, 2, 7, 9, backend=backend), normal(4, 2, size, size, backend=backend)
    found = convolution(x, weight, stride=stride, padding=padding).numpy()
    wanted = expected(x.numpy(), weight.numpy(), stride, padding)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_large_batch_is_that_of_its_parts(backend: Backend) -> None:
    """With more columns than are built at a time."""
    x, weight = normal(200, 4, 12, 12, backend=backend), normal(3, 4, 5, 5, backend=backend)
    found = convolution(x, weight).numpy()
    parts = [convolution(x[i : i + 40], weight).numpy() for i in range(0, 200, 40)]
    np.testing.assert_allclose(found, np.concatenate(parts), rtol=1e-4, atol=1e-4)


def test_the_transpose_is_the_adjoint(backend: Backend) -> None:
    """<conv(x), y> = <x, conv_transpose(y)>."""
    x, weight = normal(2, 3, 8, 7, backend=backend), normal(4, 3, 3, 3, backend=backend)
    out = convolution(x, weight, stride=2, padding=1)
    y = Generator(1).normal(out.shape, backend=backend)
    back = convolution_transpose(y, weight, stride=2, padding=1, output_padding=(1, 0))
    assert back.shape == x.shape
    left, right = ((a.numpy().astype(float) * b.numpy()).sum() for a, b in ((out, y), (x, back)))
    assert abs(left - right) < 1e-3


def test_float16_is_computed_in_float32(backend: Backend) -> None:
    x, weight = (normal(*s, backend=backend).astype(float16) for s in ((2, 3, 5), (4, 3, 3)))
    wide = convolution(x.astype(float32), weight.astype(float32)).astype(float16)
    assert convolution(x, weight).numpy().tobytes() == wide.numpy().tobytes()


def test_nan_wins_in_a_pool(backend: Backend) -> None:
    x = tensor([[[1.0, np.nan, 3.0, 2.0]]], backend=backend)
    assert np.isnan(max_pool(x, 2).numpy()).tolist() == [[[True, False]]]


def test_batch_norm_updates_its_statistics_only_in_training(backend: Backend) -> None:
    layer = nn.BatchNorm2d(2, momentum=0.5, backend=backend)
    x = normal(3, 2, 4, 5, backend=backend) * 2 + 1
    assert layer.running_mean is not None
    with no_grad():
        layer(x)
    loss = layer(x).sum()
    layer(x)  # a pass without a step
    assert layer.running_mean.tolist() == [0.0, 0.0]
    loss.backward().write_updates()  # as if the gradients had been drained
    host = x.numpy().astype(float)
    mean, variance = host.mean((0, 2, 3)), host.var((0, 2, 3), ddof=1)
    assert layer.running_var is not None
    np.testing.assert_allclose(layer.running_mean.numpy(), 0.5 * mean, rtol=1e-5)
    np.testing.assert_allclose(layer.running_var.numpy(), 0.5 + 0.5 * variance, rtol=1e-5)
    kept = layer.state_dict()
    assert list(kept) == ["weight", "bias", "running_mean", "running_var"]
    found = layer.eval()(x).numpy()
    column = kept["running_mean"].reshape(2, 1, 1), kept["running_var"].reshape(2, 1, 1)
    np.testing.assert_allclose(
        found, (host - column[0]) / np.sqrt(column[1] + 1e-5), rtol=1e-4, atol=1e-5
    )
    for name, array in layer.state_dict().items():
        assert array.tobytes() == kept[name].tobytes()


def of(kind: Any, *arguments: Any, **options: Any) -> Any:
    return lambda: kind(*arguments, **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (of(nn.Conv2d, 3, 4, 2, groups=2), "3 inputs and 4 outputs do not divide into 2 groups"),
        (of(nn.Conv2d, 0, 4, 2), "at least 1"),
        (of(nn.Conv2d, 2, 4, (2, 2, 2)), "kernel needs 2 sizes"),
        (of(nn.Conv2d, 2, 4, 3, stride=0), "stride needs 2 sizes of at least 1"),
        (of(nn.Conv1d, 2, 4, 3, padding=-1), "padding needs 1 sizes of at least 0"),
        (lambda: nn.Conv2d(2, 4, 5, backend=CPU)(normal(1, 2, 4, 4)), r"larger than the padded"),
        (lambda: nn.Conv2d(2, 4, 5, backend=CPU)(normal(1, 3, 9, 9)), r"\(batch, 2, height, width"),
        (lambda: nn.Conv1d(2, 4, 5, backend=CPU)(normal(3, 9)), r"\(batch, 2, length\)"),
        (lambda: convolution(normal(1, 2, 5), normal(3, 1, 2)), "for 1 inputs in each of 1 groups"),
        (lambda: convolution(normal(1, 2, 5), normal(3, 2, 2), normal(2)), r"bias of shape \(3,\)"),
        (lambda: convolution(normal(2, 5), normal(3, 2)), r"\(batch, inputs, \*lengths\)"),
        (lambda: convolution_transpose(normal(1, 2, 5), normal(3, 2, 2)), "expected .*, got"),
        (
            lambda: convolution_transpose(normal(1, 2, 5), normal(2, 2, 2), output_padding=1),
            r"output_padding 1 must be in \[0, 1\)",
        ),
        (
            lambda: convolution_transpose(normal(1, 2, 1), normal(2, 2, 2), padding=1),
            "leaves nothing",
        ),
        (lambda: max_pool(normal(1, 2, 5), 2, padding=2), "more than half of the kernel"),
        (lambda: max_pool(normal(1, 2, 5), 6), "larger than the padded input"),
        (lambda: nn.MaxPool2d(2)(normal(2, 5)), r"\(batch, channels, height, width\)"),
        (of(nn.AvgPool2d, (1, 2, 3)), "one or two sizes"),
        (of(nn.AdaptiveAvgPool2d, 0), "at least 1"),
        (lambda: nn.AdaptiveAvgPool2d(2)(normal(1, 2, 0, 4)), "nothing to average"),
        (of(nn.GroupNorm, 3, 4), "4 channels do not divide into 3 groups"),
        (lambda: nn.GroupNorm(2, 4, backend=CPU)(normal(3, 2)), r"\(batch, 4, ...\)"),
        (of(nn.BatchNorm1d, 3, momentum=1.5), r"momentum must be in \[0, 1\]"),
        (of(nn.BatchNorm1d, 3, eps=0.0), "eps must be finite and positive"),
        (lambda: nn.BatchNorm1d(3, backend=CPU)(normal(1, 3)), "more than one value"),
        (lambda: nn.BatchNorm2d(3, backend=CPU)(normal(2, 3)), r"\(batch, 3, height, width\)"),
    ],
)
def test_misfits(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_dtypes_that_do_not_fit() -> None:
    with pytest.raises(TypeError, match="one floating dtype, not float32, float16"):
        convolution(normal(1, 2, 5), normal(3, 2, 2).astype(float16))
    with pytest.raises(TypeError, match="must be floating"):
        max_pool(tensor(np.zeros((1, 2, 5), np.int32)), 2)
