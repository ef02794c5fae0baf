"""Picture and sequence layers against PyTorch: pools, padding, interpolation, norms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest
import torch

from rumus import nn
from rumus.tensor import Generator, Parameter, Tensor, interpolate, pad_edges, tensor

F = torch.nn.functional
Function = Callable[[Any], Any]


def hold(ours: Function, theirs: Function, shape: tuple[int, ...], pairs: Any = ()) -> None:
    """Compare the result, the input's gradient and the parameters' gradients, in float64."""
    start = Generator(5).normal(shape).numpy().astype(np.float64)
    x, y = Parameter(start, dtype=np.float64), torch.tensor(start, requires_grad=True)
    found, wanted = ours(x), theirs(y)
    assert found.shape == tuple(wanted.shape)
    close: Any = {"rtol": 1e-9, "atol": 1e-11}
    np.testing.assert_allclose(found.numpy(), wanted.detach().numpy(), **close)
    weights = np.cos(np.arange(found.size)).reshape(found.shape)
    grads = (found * tensor(weights, dtype=np.float64)).sum().backward()
    (wanted * torch.tensor(weights)).sum().backward()
    for mine, other in [(x, y), *pairs]:
        assert other.grad is not None
        np.testing.assert_allclose(grads[mine].numpy(), other.grad.numpy(), **close)


POOLS: Final[dict[str, tuple[Function, Function, tuple[int, ...]]]] = {}
for _length in (7, 8, 9, 10):
    for _kernel, _stride, _padding in ((2, 2, 0), (3, 2, 1), (3, 3, 1), (2, 3, 1), (4, 5, 2)):
        _o: dict[str, Any] = {"stride": _stride, "padding": _padding, "ceil_mode": True}
        _name = f"{_length}-{_kernel}-{_stride}-{_padding}"
        POOLS[f"max {_name}"] = (
            nn.MaxPool1d(_kernel, **_o), torch.nn.MaxPool1d(_kernel, **_o), (2, 3, _length)
        )  # fmt: skip
        for _ceil in (True, False):
            for _counted in (True, False):
                _a = {**_o, "ceil_mode": _ceil, "count_include_pad": _counted}
                POOLS[f"mean {_name} {_ceil} {_counted}"] = (
                    nn.AvgPool2d(_kernel, **_a), torch.nn.AvgPool2d(_kernel, **_a),
                    (2, 3, _length, 6),
                )  # fmt: skip
LAYERS: Final[dict[str, tuple[Function, Function, tuple[int, ...]]]] = {
    **POOLS,
    "max 1d": (nn.MaxPool1d(3), torch.nn.MaxPool1d(3), (2, 3, 10)),
    "max 2d, one example": (nn.MaxPool2d(2), torch.nn.MaxPool2d(2), (3, 5, 6)),
    "max 2d, ceil": (
        nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
        torch.nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True), (2, 3, 8, 9),
    ),
    "max 2d, dilated, ceil": (
        nn.MaxPool2d(2, stride=2, dilation=2, ceil_mode=True),
        torch.nn.MaxPool2d(2, stride=2, dilation=2, ceil_mode=True), (2, 3, 8, 9),
    ),
    "mean 1d": (nn.AvgPool1d(3, padding=1), torch.nn.AvgPool1d(3, padding=1), (2, 3, 10)),
    "mean 1d, one example": (nn.AvgPool1d(3), torch.nn.AvgPool1d(3), (3, 10)),
    "adaptive mean 1d": (nn.AdaptiveAvgPool1d(4), torch.nn.AdaptiveAvgPool1d(4), (2, 3, 10)),
    "adaptive mean 1d, even": (nn.AdaptiveAvgPool1d(5), torch.nn.AdaptiveAvgPool1d(5), (2, 3, 10)),
    "adaptive mean 2d": (nn.AdaptiveAvgPool2d(3), torch.nn.AdaptiveAvgPool2d(3), (3, 7, 10)),
    "adaptive max 1d": (nn.AdaptiveMaxPool1d(4), torch.nn.AdaptiveMaxPool1d(4), (2, 3, 10)),
    "adaptive max 2d": (
        nn.AdaptiveMaxPool2d((3, 4)), torch.nn.AdaptiveMaxPool2d((3, 4)), (2, 3, 7, 10)
    ),
    "adaptive max 2d, kept": (
        nn.AdaptiveMaxPool2d((None, 4)), torch.nn.AdaptiveMaxPool2d((None, 4)), (2, 3, 7, 10)
    ),
    "adaptive max 2d, one": (nn.AdaptiveMaxPool2d(1), torch.nn.AdaptiveMaxPool2d(1), (2, 3, 7, 9)),
    "global mean": (nn.GlobalAvgPool(), lambda y: y.mean((2, 3)), (2, 3, 7, 9)),
    "global max": (nn.GlobalMaxPool(keepdims=True), lambda y: y.amax(2, True), (2, 3, 7)),
    "shuffle": (nn.PixelShuffle(2), torch.nn.PixelShuffle(2), (2, 12, 3, 4)),
    "unshuffle": (nn.PixelUnshuffle(3), torch.nn.PixelUnshuffle(3), (2, 2, 6, 9)),
    "instance norm 1d": (nn.InstanceNorm1d(3), torch.nn.InstanceNorm1d(3), (2, 3, 7)),
    "instance norm 2d": (nn.InstanceNorm2d(3), torch.nn.InstanceNorm2d(3), (2, 3, 4, 5)),
    "instance norm, one example": (nn.InstanceNorm2d(3), torch.nn.InstanceNorm2d(3), (3, 4, 5)),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    ours, theirs, shape = LAYERS[name]
    hold(ours, theirs, shape)


SIZES: Final = [
    {"size": 7}, {"size": 3}, {"scale_factor": 2}, {"scale_factor": 3.0}, {"scale_factor": 0.6},
    {"scale_factor": 1.7}, {"size": 1}, {"size": 5},
]  # fmt: skip


@pytest.mark.parametrize("options", SIZES, ids=str)
@pytest.mark.parametrize("mode", ["nearest", "linear", "linear, aligned"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_interpolation(axes: int, mode: str, options: Any) -> None:
    shape = (2, 3, 5, 6, 4)[: axes + 2]
    given: Any = {"mode": "nearest"}
    if mode != "nearest":
        name = {1: "linear", 2: "bilinear", 3: "trilinear"}[axes]
        given = {"mode": name, "align_corners": "aligned" in mode}
    hold(
        lambda x: interpolate(x, **options, **given),
        lambda y: F.interpolate(y, **options, **given),
        shape,
    )


def test_sizes_of_each_axis() -> None:
    for options in ({"size": (7, 3)}, {"scale_factor": (2.0, 0.5)}):
        layer: Any = nn.Upsample(**options, mode="bilinear")
        hold(layer, torch.nn.Upsample(**options, mode="bilinear"), (2, 3, 5, 6))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding(mode: Any) -> None:
    def ours(x: Tensor) -> Tensor:
        return pad_edges(x, [(0, 0), (0, 0), (1, 2), (3, 0)], mode)

    hold(ours, lambda y: F.pad(y, (3, 0, 1, 2), mode=mode), (2, 3, 4, 5))


CONVOLUTIONS: Final[list[tuple[str, dict[str, Any], tuple[int, ...]]]] = [
    ("Conv1d", {"padding": "same"}, (2, 4, 9)),
    ("Conv1d", {"padding": "same", "dilation": 2}, (4, 9)),
    ("Conv2d", {"padding": "same", "kernel": (3, 4)}, (2, 4, 7, 8)),
    ("Conv2d", {"padding": "valid"}, (2, 4, 7, 8)),
    ("Conv2d", {"padding": 2, "padding_mode": "reflect"}, (2, 4, 7, 8)),
    ("Conv2d", {"padding": (1, 2), "padding_mode": "replicate", "stride": 2}, (4, 7, 8)),
    ("Conv2d", {"padding": 3, "padding_mode": "circular", "groups": 2}, (2, 4, 7, 8)),
    ("Conv1d", {"padding": "same", "padding_mode": "circular", "kernel": 4}, (2, 4, 9)),
    ("ConvTranspose1d", {"stride": 2, "padding": 1, "output_padding": 1}, (2, 4, 9)),
    ("ConvTranspose2d", {"stride": 2}, (4, 5, 6)),
]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(("kind", "options", "shape"), CONVOLUTIONS, ids=str)
def test_convolutions(kind: str, options: dict[str, Any], shape: tuple[int, ...]) -> None:
    rest = {k: v for k, v in options.items() if k != "kernel"}
    kernel = options.get("kernel", 3)
    layer = getattr(nn, kind)(4, 6, kernel, dtype=np.float64, generator=Generator(0), **rest)
    module = getattr(torch.nn, kind)(4, 6, kernel, **rest).double()
    module.load_state_dict({k: torch.tensor(v) for k, v in layer.state_dict().items()})
    pairs = [(layer.weight, module.weight), (layer.bias, module.bias)]
    hold(layer, module, shape, pairs)


def test_batch_norm_without_momentum_takes_the_mean_of_all_batches() -> None:
    layer = nn.BatchNorm1d(3, momentum=None, dtype=np.float64)
    module = torch.nn.BatchNorm1d(3, momentum=None).double()
    assert layer.weight is not None
    for seed in range(3):
        x = Generator(seed).normal((6, 3)).numpy().astype(np.float64)
        layer(tensor(x, dtype=np.float64)).sum().backward().write_updates()
        module(torch.tensor(x))
    assert module.running_mean is not None
    assert module.running_var is not None
    mine = layer.running_mean, layer.running_var
    for a, b in zip(mine, (module.running_mean, module.running_var), strict=True):
        assert a is not None
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12)
    assert layer.batches is not None
    assert layer.batches.tolist() == [3.0] * 3


@pytest.mark.parametrize("size", [(4, 5), (3, 2), (7, 1), (5, 6)])
def test_equal_elements_of_an_adaptive_pool_are_as_in_pytorch(size: tuple[int, int]) -> None:
    x = np.random.default_rng(0).integers(0, 2, (3, 2, 7, 8)).astype(np.float32)
    p, q = Parameter(x), torch.tensor(x, requires_grad=True)
    share = np.random.default_rng(1).standard_normal((3, 2, *size)).astype(np.float32)
    grads = (nn.AdaptiveMaxPool2d(size)(p) * tensor(share)).sum().backward()
    (torch.nn.AdaptiveMaxPool2d(size)(q) * torch.tensor(share)).sum().backward()
    assert q.grad is not None
    np.testing.assert_allclose(grads[p].numpy(), q.grad.numpy(), rtol=1e-5, atol=1e-6)
