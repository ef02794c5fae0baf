"""rumus.nn against PyTorch on the CPU: outputs and gradients of every layer and loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rumus import nn
from rumus.tensor import (
    Generator,
    Parameter,
    Tensor,
    float64,
    scaled_dot_product_attention,
    tensor,
)

F = torch.nn.functional
DTYPES = [np.float32, np.float64]
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-11}


def normal(shape: tuple[int, ...], seed: int = 0) -> NDArray[Any]:
    return Generator(seed).normal(shape).numpy()


def compare(
    ours: Callable[[Tensor], Tensor],
    theirs: Callable[[Any], Any],
    shape: tuple[int, ...],
    dtype: Any,
    pairs: list[tuple[Parameter, Any]] | None = None,
) -> None:
    """Compare the result, the input's gradient and the gradients of `pairs` of parameters."""
    start = 2 * normal(shape).astype(dtype)
    x = Parameter(start, dtype=dtype)
    y = torch.tensor(start, requires_grad=True)
    found, wanted = ours(x), theirs(y)
    weights = np.cos(np.arange(found.size)).reshape(found.shape).astype(dtype)
    close: Any = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    assert found.shape == tuple(wanted.shape)
    assert found.dtype == dtype
    np.testing.assert_allclose(found.numpy(), wanted.detach().numpy(), **close)
    grads = (found * tensor(weights, dtype=dtype)).sum().backward()
    grads.write_updates()
    (wanted * torch.tensor(weights)).sum().backward()
    for mine, other in [(x, y), *(pairs or [])]:
        np.testing.assert_allclose(grads[mine].numpy(), other.grad.numpy(), **close)


def copied(module: Any, layer: nn.Module) -> list[tuple[Parameter, Any]]:
    """Copy our weights to PyTorch's module by name; return the pairs."""
    own = dict(layer.named_parameters())
    theirs = dict(module.named_parameters())
    assert own.keys() == theirs.keys()
    with torch.no_grad():
        for name, parameter in own.items():
            theirs[name].copy_(torch.tensor(parameter.numpy()))
    return [(own[name], theirs[name]) for name in own]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(7,), (1, 7), (33, 7), (2, 3, 5, 7)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(shape: tuple[int, ...], bias: bool, dtype: Any) -> None:
    layer = nn.Linear(7, 13, bias=bias, generator=Generator(1), dtype=dtype)
    module = torch.nn.Linear(7, 13, bias=bias).to(torch.tensor(np.zeros(1, dtype)).dtype)
    compare(layer, module, shape, dtype, copied(module, layer))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "over", "options"),
    [
        ((5, 9), 9, {}),
        ((9,), 9, {}),
        ((2, 3, 9), (3, 9), {}),
        ((2, 3, 9), (2, 3, 9), {"eps": 0.1}),
        ((4, 9), 9, {"bias": False}),
        ((4, 9), 9, {"elementwise_affine": False}),
        ((33, 257), 257, {}),
    ],
)
def test_layer_norm(shape: tuple[int, ...], over: Any, options: Any, dtype: Any) -> None:
    layer = nn.LayerNorm(over, dtype=dtype, **options)
    for seed, parameter in enumerate(layer.parameters()):
        nn.initialization.normal(parameter, generator=Generator(seed))
    module = torch.nn.LayerNorm(over, **options).to(torch.tensor(np.zeros(1, dtype)).dtype)
    compare(layer, module, shape, dtype, copied(module, layer))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "over", "options"),
    [
        ((5, 9), 9, {}),
        ((9,), 9, {"eps": 0.1}),
        ((2, 3, 9), (3, 9), {}),
        ((4, 9), 9, {"elementwise_affine": False}),
        ((33, 257), 257, {}),
    ],
)
def test_rms_norm(shape: tuple[int, ...], over: Any, options: Any, dtype: Any) -> None:
    options = {"eps": 1e-5, **options}
    layer = nn.RMSNorm(over, dtype=dtype, **options)
    for seed, parameter in enumerate(layer.parameters()):
        nn.initialization.normal(parameter, generator=Generator(seed))
    module = torch.nn.RMSNorm(over, **options).to(torch.tensor(np.zeros(1, dtype)).dtype)
    compare(layer, module, shape, dtype, copied(module, layer))


@pytest.mark.parametrize("padding_idx", [None, 0, -1])
def test_embedding(padding_idx: int | None) -> None:
    layer = nn.Embedding(11, 5, padding_idx=padding_idx, generator=Generator(1))
    module = torch.nn.Embedding(11, 5, padding_idx=padding_idx)
    ((weight, other),) = copied(module, layer)
    index = Generator(2).integers(0, 11, (4, 9)).numpy()
    found, wanted = layer(index), module(torch.tensor(index))
    np.testing.assert_array_equal(found.numpy(), wanted.detach().numpy())
    factors = normal(found.shape)
    grads = (found * factors).sum().backward()
    (wanted * torch.tensor(factors)).sum().backward()
    np.testing.assert_allclose(grads[weight].numpy(), other.grad.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("layer", "module"),
    [
        (nn.ReLU(), torch.nn.ReLU()),
        (nn.LeakyReLU(0.2), torch.nn.LeakyReLU(0.2)),
        (nn.ELU(0.8), torch.nn.ELU(0.8)),
        (nn.GELU(), torch.nn.GELU()),
        (nn.GELU("tanh"), torch.nn.GELU("tanh")),
        (nn.SiLU(), torch.nn.SiLU()),
        (nn.Tanh(), torch.nn.Tanh()),
        (nn.Sigmoid(), torch.nn.Sigmoid()),
        (nn.Softplus(), torch.nn.Softplus(threshold=1000)),
        (nn.Flatten(), torch.nn.Flatten()),
        (nn.Identity(), torch.nn.Identity()),
    ],
    ids=repr,
)
def test_activations(layer: nn.Module, module: Any, dtype: Any) -> None:
    compare(layer, module, (3, 5, 17), dtype)


def test_a_state_dict_of_pytorch_loads() -> None:
    module = torch.nn.Sequential(
        torch.nn.Linear(5, 8), torch.nn.GELU(), torch.nn.LayerNorm(8), torch.nn.Linear(8, 3)
    )
    model = nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3))
    model.load_state_dict({name: t.numpy() for name, t in module.state_dict().items()})
    own, theirs = dict(model.named_parameters()), dict(module.named_parameters())
    compare(model, module, (4, 5), np.float32, [(own[name], theirs[name]) for name in own])


def classes_last(shape: tuple[int, ...]) -> Callable[[Any], Any]:
    """PyTorch has the classes on axis 1; ours are last."""
    return lambda x: x.movedim(-1, 1) if len(shape) > 1 else x


SHAPES = [(4,), (3, 4), (33, 10), (2, 3, 4), (2, 3, 5, 4)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("ignored", [-100, 2])
def test_cross_entropy_of_classes(
    shape: tuple[int, ...], reduction: Any, smoothing: float, ignored: int, dtype: Any
) -> None:
    targets = Generator(3).integers(0, shape[-1], shape[:-1]).numpy()
    if ignored == -100 and targets.ndim:
        targets.reshape(-1)[1::3] = -100
    if not targets.ndim:
        targets[...] = 1
    second = classes_last(shape)
    options: Any = {
        "ignore_index": ignored, "label_smoothing": smoothing, "reduction": reduction
    }  # fmt: skip
    compare(
        lambda x: nn.cross_entropy_loss(x, targets, **options),
        lambda y: F.cross_entropy(second(y), torch.tensor(targets).long(), **options),
        shape,
        dtype,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(4,), (33, 10), (2, 4, 3), (2, 5, 3, 4), (7, 30, 9, 10)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("soft", [False, True])
def test_cross_entropy_with_class_weights_over_the_axis_of_pytorch(
    shape: tuple[int, ...], reduction: Any, smoothing: float, soft: bool, dtype: Any
) -> None:
    axis = 0 if len(shape) == 1 else 1
    classes, others = shape[axis], (*shape[:axis], *shape[axis + 1 :])
    weight = Generator(8).uniform((classes,)).numpy().astype(dtype)
    weight[0] = 0
    targets = Generator(3).integers(0, classes, others).numpy()
    theirs: Any = torch.tensor(targets).long()
    if soft:
        targets = np.abs(normal(shape, 5)).astype(dtype)
        targets /= targets.sum(axis).max()
        theirs = torch.tensor(targets)
    elif targets.ndim:
        targets.reshape(-1)[1::3] = -100
        theirs = torch.tensor(targets).long()
    else:
        targets[...] = 1
        theirs = torch.tensor(1)
    options: Any = {"label_smoothing": smoothing, "reduction": reduction}
    compare(
        lambda x: nn.cross_entropy_loss(x, targets, axis=axis, weight=weight, **options),
        lambda y: F.cross_entropy(y, theirs, torch.tensor(weight), **options),
        shape,
        dtype,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_probabilities(
    shape: tuple[int, ...], reduction: Any, smoothing: float, dtype: Any
) -> None:
    targets = np.abs(normal(shape, 5)).astype(dtype)
    targets /= targets.sum(-1, keepdims=True)
    second = classes_last(shape)
    options: Any = {"label_smoothing": smoothing, "reduction": reduction}
    compare(
        lambda x: nn.cross_entropy_loss(x, targets, **options),
        lambda y: F.cross_entropy(second(y), second(torch.tensor(targets)), **options),
        shape,
        dtype,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (nn.mse_loss, F.mse_loss),
        (nn.l1_loss, F.l1_loss),
        (nn.huber_loss, F.huber_loss),
        (
            lambda x, t, **o: nn.huber_loss(x, t, delta=0.3, **o),
            lambda x, t, **o: F.huber_loss(x, t, delta=0.3, **o),
        ),
    ],
)
def test_elementwise_losses(ours: Any, theirs: Any, reduction: str, dtype: Any) -> None:
    target = normal((5, 17), 5).astype(dtype)
    compare(
        lambda x: ours(x, target, reduction=reduction),
        lambda y: theirs(y, torch.tensor(target), reduction=reduction),
        (5, 17),
        dtype,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weight", [None, (5, 1), (17,)])
@pytest.mark.parametrize("positive", [None, (), (17,)])
def test_binary_cross_entropy(weight: Any, positive: Any, reduction: Any, dtype: Any) -> None:
    target = np.abs(np.sin(normal((5, 17), 5))).astype(dtype)
    given = {
        name: np.abs(normal(shape, 7)).astype(dtype)
        for name, shape in (("weight", weight), ("pos_weight", positive))
        if shape is not None
    }
    compare(
        lambda x: nn.binary_cross_entropy_with_logits(x, target, reduction=reduction, **given),
        lambda y: F.binary_cross_entropy_with_logits(
            y,
            torch.tensor(target),
            reduction=reduction,
            **{name: torch.tensor(array) for name, array in given.items()},
        ),
        (5, 17),
        dtype,
    )


def test_the_starts_have_the_spread_of_pytorch_s() -> None:
    torch.manual_seed(0)
    ours = nn.Linear(300, 400, generator=Generator(0))
    theirs = torch.nn.Linear(300, 400)
    assert ours.bias is not None
    for mine, other in ((ours.weight, theirs.weight), (ours.bias, theirs.bias)):
        spread = mine.numpy().std() / other.detach().numpy().std()
        assert abs(spread - 1) < 0.1
        assert np.abs(mine.numpy()).max() <= 1 / np.sqrt(300) + 1e-7
    embedding = nn.Embedding(300, 40, generator=Generator(0), dtype=float64)
    assert abs(embedding.weight.numpy().std() - 1) < 0.05


@pytest.mark.parametrize("name", ["linear", "sigmoid", "tanh", "relu", "leaky_relu"])
def test_gains(name: Any) -> None:
    assert nn.initialization.gain(name) == pytest.approx(torch.nn.init.calculate_gain(name))


MASKS: dict[str, Callable[[int, int], dict[str, Any]]] = {
    "none": lambda n, m: {},
    "causal": lambda n, m: {"causal": True},
    "bool": lambda n, m: {"mask": np.tri(n, m, 2, dtype=bool)},
    "floating": lambda n, m: {"mask": normal((n, m), 5)},
    "scale": lambda n, m: {"scale": 0.3},
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mask", list(MASKS))
@pytest.mark.parametrize("shape", [(2, 6, 5, 4), (1, 4, 33, 8), (3, 2, 1, 7)])
@pytest.mark.parametrize("shared", [1, 2])
def test_attention(shape: tuple[int, ...], shared: int, mask: str, dtype: Any) -> None:
    batch, heads, n, size = shape
    others = (batch, heads // shared, n, size)
    k, v = (Parameter(normal(others, i).astype(dtype), dtype=dtype) for i in (1, 2))
    k2, v2 = (torch.tensor(p.numpy(), requires_grad=True) for p in (k, v))
    options = MASKS[mask](n, n)
    given = options.pop("mask", None)
    if given is not None and given.dtype != bool:
        given = given.astype(dtype)
    ours = {**options, **({} if given is None else {"mask": tensor(given, dtype=given.dtype)})}
    theirs = {"is_causal": options.pop("causal", False), "enable_gqa": True, **options}
    theirs["attn_mask"] = None if given is None else torch.tensor(given)
    compare(
        lambda x: scaled_dot_product_attention(x, k, v, **ours),
        lambda y: F.scaled_dot_product_attention(y, k2, v2, **theirs),
        shape,
        dtype,
        [(k, k2), (v, v2)],
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("causal", [False, True])
def test_multi_head_attention(causal: bool, dtype: Any) -> None:
    size, heads = 12, 3
    layer = nn.MultiHeadAttention(size, heads, causal=causal, generator=Generator(1), dtype=dtype)
    module = torch.nn.MultiheadAttention(size, heads, batch_first=True)
    module = module.to(torch.tensor(np.zeros(1, dtype)).dtype)
    own = {name: torch.tensor(p.numpy()) for name, p in layer.named_parameters()}
    with torch.no_grad():
        for kind in ("weight", "bias"):
            getattr(module, f"in_proj_{kind}").copy_(own[f"query_key_value.{kind}"])
            getattr(module.out_proj, kind).copy_(own[f"output.{kind}"])
    hidden = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1) if causal else None
    compare(
        layer,
        lambda y: module(y, y, y, attn_mask=hidden, need_weights=False)[0],
        (2, 5, size),
        dtype,
        [
            (layer.output.weight, module.out_proj.weight),
            (layer.query_key_value.weight, module.in_proj_weight),
        ],
    )
    if not causal:
        module.zero_grad()
        context = np.random.default_rng(2).standard_normal((2, 4, size)).astype(dtype)
        there = torch.tensor(context)
        compare(
            lambda y: layer(y, tensor(context, dtype=dtype)),
            lambda y: module(y, there, there, need_weights=False)[0],
            (2, 5, size),
            dtype,
            [(layer.query_key_value.weight, module.in_proj_weight)],
        )


def of_dtype(dtype: Any) -> Any:
    return torch.tensor(np.zeros(1, dtype)).dtype


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "sizes", "options"),
    [
        ((3, 2, 9), (2, 4, 3), {}),
        ((1, 6, 11), (6, 4, 4), {"stride": 3, "padding": 2, "groups": 2, "bias": False}),
        ((5, 1, 8, 8), (1, 16, 3), {"padding": 1}),
        ((2, 4, 7, 9), (4, 6, (3, 2)), {"stride": (2, 1), "padding": (0, 1), "dilation": (2, 3)}),
        ((2, 6, 5, 6), (6, 12, 3), {"groups": 6, "padding": 1}),
        ((33, 3, 5, 5), (3, 5, 1), {}),
    ],
)
def test_convolutions(
    shape: tuple[int, ...], sizes: Any, options: dict[str, Any], dtype: Any
) -> None:
    name = "Conv1d" if len(shape) == 3 else "Conv2d"
    layer = getattr(nn, name)(*sizes, generator=Generator(1), dtype=dtype, **options)
    module = getattr(torch.nn, name)(*sizes, **options).to(of_dtype(dtype))
    compare(layer, module, shape, dtype, copied(module, layer))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        ((2, 3, 3), {}),
        ((2, 3, (2, 4)), {"stride": 2, "padding": (1, 0), "output_padding": 1}),
        ((4, 6, 3), {"groups": 2, "dilation": (2, 1), "bias": False}),
    ],
)
def test_transposed_convolutions(sizes: Any, options: dict[str, Any], dtype: Any) -> None:
    layer = nn.ConvTranspose2d(*sizes, generator=Generator(1), dtype=dtype, **options)
    module = torch.nn.ConvTranspose2d(*sizes, **options).to(of_dtype(dtype))
    compare(layer, module, (3, sizes[0], 4, 5), dtype, copied(module, layer))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "sizes", "options"),
    [
        ("MaxPool2d", 2, {}),
        ("MaxPool2d", (3, 2), {"stride": (1, 2), "padding": 1}),
        ("MaxPool2d", 2, {"dilation": 2, "stride": 1}),
        ("AvgPool2d", (2, 3), {}),
        ("AvgPool2d", 3, {"stride": 2, "padding": 1}),
        ("AdaptiveAvgPool2d", 1, {}),
        ("AdaptiveAvgPool2d", (3, 5), {}),
        ("AdaptiveAvgPool2d", (None, 2), {}),
        ("AdaptiveAvgPool2d", (5, None), {}),
    ],
)
def test_pooling(name: str, sizes: Any, options: dict[str, Any], dtype: Any) -> None:
    ours, theirs = (getattr(m, name)(sizes, **options) for m in (nn, torch.nn))
    compare(ours, theirs, (2, 3, 9, 8), dtype)


def test_equal_elements_of_a_pool_are_as_in_pytorch() -> None:
    x = np.maximum(normal((2, 3, 8, 8)), 0)
    ours, theirs = Parameter(x), torch.tensor(x, requires_grad=True)
    weights = normal((2, 3, 4, 4), 1)
    grads = (nn.MaxPool2d(2)(ours) * tensor(weights)).sum().backward()
    (torch.nn.MaxPool2d(2)(theirs) * torch.tensor(weights)).sum().backward()
    np.testing.assert_array_equal(grads[ours].numpy(), theirs.grad.numpy())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(7, 3), (4, 3, 5), (2, 3, 5, 4)])
def test_batch_norm(shape: tuple[int, ...], affine: bool, dtype: Any) -> None:
    name = "BatchNorm2d" if len(shape) == 4 else "BatchNorm1d"
    options = {"affine": affine, "momentum": 0.3, "eps": 1e-3}
    layer = getattr(nn, name)(3, dtype=dtype, **options)
    module = getattr(torch.nn, name)(3, **options).to(of_dtype(dtype))
    for i, parameter in enumerate(layer.parameters()):
        nn.initialization.normal(parameter, generator=Generator(i))
    pairs = copied(module, layer)
    compare(layer, module, shape, dtype, pairs)
    for what in ("running_mean", "running_var"):
        close = getattr(module, what).numpy()
        np.testing.assert_allclose(getattr(layer, what).numpy(), close, rtol=1e-5, atol=1e-6)
    for parameter in module.parameters():
        parameter.grad = None
    compare(layer.eval(), module.eval(), shape, dtype, pairs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(("groups", "shape"), [(2, (3, 4, 5)), (1, (2, 4)), (4, (2, 4, 3, 3))])
def test_group_norm(groups: int, shape: tuple[int, ...], affine: bool, dtype: Any) -> None:
    layer = nn.GroupNorm(groups, 4, affine=affine, dtype=dtype)
    for i, parameter in enumerate(layer.parameters()):
        nn.initialization.normal(parameter, generator=Generator(i))
    module = torch.nn.GroupNorm(groups, 4, affine=affine).to(of_dtype(dtype))
    compare(layer, module, shape, dtype, copied(module, layer))
