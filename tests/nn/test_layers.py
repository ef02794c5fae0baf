"""Layers: values against formulas in NumPy, gradients against finite differences, and errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rumus import nn
from rumus.tensor import (
    Backend,
    DType,
    Generator,
    NumpyBackend,
    Parameter,
    Tensor,
    float16,
    float32,
    float64,
    gelu,
    ones,
    tensor,
)

CPU = NumpyBackend()


def case_of(
    make: Callable[[DType, Backend], nn.Module], shape: tuple[int, ...], shift: float = 0.0
) -> Callable[[DType, Backend], tuple[Sequence[Parameter], Callable[[], Tensor]]]:
    """A layer on a random input, which is also a parameter."""

    def case(dtype: DType, backend: Backend) -> tuple[list[Parameter], Callable[[], Tensor]]:
        x = Parameter(Generator(7).normal(shape, shift), dtype=dtype, backend=backend, name="x")
        layer = make(dtype, backend)
        return [x, *layer.parameters()], lambda: layer(x)

    return case


def linear(**options: Any) -> Callable[[DType, Backend], nn.Module]:
    return lambda dtype, backend: nn.Linear(
        5, 3, generator=Generator(1), dtype=dtype, backend=backend, **options
    )


def layer_norm(*arguments: Any, **options: Any) -> Callable[[DType, Backend], nn.Module]:
    def make(dtype: DType, backend: Backend) -> nn.Module:
        layer = nn.LayerNorm(*arguments, dtype=dtype, backend=backend, **options)
        for i, parameter in enumerate(layer.parameters()):
            nn.initialization.normal(parameter, generator=Generator(i))
        return layer

    return make


def rms_norm(*arguments: Any, **options: Any) -> Callable[[DType, Backend], nn.Module]:
    def make(dtype: DType, backend: Backend) -> nn.Module:
        layer = nn.RMSNorm(*arguments, dtype=dtype, backend=backend, **options)
        for parameter in layer.parameters():
            nn.initialization.normal(parameter, generator=Generator(2))
        return layer

    return make


def fixed(layer: nn.Module) -> Callable[[DType, Backend], nn.Module]:
    return lambda dtype, backend: layer


def attention(**options: Any) -> Callable[[DType, Backend], nn.Module]:
    return lambda dtype, backend: nn.MultiHeadAttention(
        8, 4, generator=Generator(2), dtype=dtype, backend=backend, **options
    )


def block(**options: Any) -> Callable[[DType, Backend], nn.Module]:
    return lambda dtype, backend: nn.TransformerBlock(
        8, 2, generator=Generator(2), dtype=dtype, backend=backend, **options
    )


def made(kind: Any, *arguments: Any, **options: Any) -> Callable[[DType, Backend], nn.Module]:
    """A layer with random parameters."""

    def make(dtype: DType, backend: Backend) -> nn.Module:
        layer: nn.Module = kind(*arguments, dtype=dtype, backend=backend, **options)
        for i, parameter in enumerate(layer.parameters()):
            nn.initialization.normal(parameter, generator=Generator(i))
        return layer

    return make


def pool(layer: nn.Module) -> Callable[[DType, Backend], nn.Module]:
    return lambda dtype, backend: layer


CASES = {
    "convolution of sequences": case_of(made(nn.Conv1d, 2, 3, 3, padding=1), (2, 2, 5)),
    "convolution": case_of(made(nn.Conv2d, 2, 4, (3, 2), stride=(2, 1), padding=1), (2, 2, 5, 4)),
    "convolution in groups": case_of(
        made(nn.Conv2d, 4, 4, 2, groups=2, dilation=2, bias=False), (1, 4, 4, 5)
    ),
    "convolution, depthwise": case_of(made(nn.Conv2d, 3, 3, 3, groups=3), (2, 3, 4, 3)),
    "convolution, transposed": case_of(
        made(nn.ConvTranspose2d, 2, 3, 3, stride=2, padding=1, output_padding=1), (2, 2, 3, 2)
    ),
    "convolution, transposed in groups": case_of(
        made(nn.ConvTranspose2d, 4, 2, 2, groups=2, bias=False), (1, 4, 2, 3)
    ),
    "max pool": case_of(pool(nn.MaxPool2d(3, stride=2, padding=1)), (2, 2, 5, 4)),
    "average pool": case_of(pool(nn.AvgPool2d(2, stride=1, padding=1)), (1, 2, 3, 4)),
    "adaptive average pool": case_of(pool(nn.AdaptiveAvgPool2d((2, 3))), (1, 2, 5, 4)),
    "mean of pictures": case_of(pool(nn.AdaptiveAvgPool2d(1)), (2, 2, 3, 4)),
    "batch norm": case_of(made(nn.BatchNorm1d, 3), (5, 3), shift=2.0),
    "batch norm of pictures": case_of(made(nn.BatchNorm2d, 2), (2, 2, 2, 3)),
    "batch norm, not affine": case_of(made(nn.BatchNorm1d, 2, affine=False), (2, 2, 4)),
    "group norm": case_of(made(nn.GroupNorm, 2, 4), (2, 4, 3)),
    "group norm, not affine": case_of(made(nn.GroupNorm, 4, 4, affine=False), (2, 4, 2, 3)),
    "attention": case_of(attention(), (2, 3, 8)),
    "causal attention": case_of(attention(causal=True, bias=False), (3, 8)),
    "attention of shared heads": case_of(attention(kv_heads=2), (2, 3, 8)),
    "attention with turned positions": case_of(
        attention(rotary=nn.RotaryEmbedding(2), causal=True), (2, 4, 8)
    ),
    "rotary embedding": case_of(lambda dtype, backend: nn.RotaryEmbedding(4), (2, 3, 4)),
    "transformer block": case_of(block(hidden=5), (2, 3, 8)),
    "transformer block of Llama's kind": case_of(
        block(norm="rms", activation="swiglu", bias=False, causal=True, hidden=5), (3, 8)
    ),
    "linear": case_of(linear(), (4, 5)),
    "linear of one example": case_of(linear(), (5,)),
    "linear in three axes": case_of(linear(), (2, 3, 5)),
    "linear without bias": case_of(linear(bias=False), (7, 5)),
    "layer norm": case_of(layer_norm(5), (3, 5)),
    "layer norm of one example": case_of(layer_norm(5), (5,)),
    "layer norm over two axes": case_of(layer_norm((3, 5)), (2, 3, 5), shift=4.0),
    "layer norm without bias": case_of(layer_norm(5, bias=False), (3, 5)),
    "layer norm, not affine": case_of(layer_norm(5, elementwise_affine=False), (2, 3, 5)),
    "GLU": case_of(fixed(nn.GLU()), (3, 4)),
    "GLU over 0": case_of(fixed(nn.GLU(0)), (4, 3)),
    "PReLU": case_of(lambda dtype, backend: nn.PReLU(dtype=dtype, backend=backend), (3, 5)),
    "PReLU of channels": case_of(
        lambda dtype, backend: nn.PReLU(5, 0.3, dtype=dtype, backend=backend), (2, 5, 3)
    ),
    "layer norm, large eps": case_of(layer_norm(3, eps=0.5), (1, 3)),
    "RMS norm": case_of(rms_norm(5), (3, 5)),
    "RMS norm of one example": case_of(rms_norm(5, eps=0.5), (5,)),
    "RMS norm over two axes": case_of(rms_norm((3, 5)), (2, 3, 5), shift=4.0),
    "RMS norm, not affine": case_of(rms_norm(5, elementwise_affine=False), (2, 3, 5)),
    **{
        repr(layer): case_of(fixed(layer), (3, 5))
        for layer in (
            nn.ReLU(), nn.LeakyReLU(), nn.LeakyReLU(0.3), nn.ELU(), nn.ELU(0.7), nn.GELU(),
            nn.GELU("tanh"), nn.SiLU(), nn.Tanh(), nn.Sigmoid(), nn.Softplus(), nn.Identity(),
            nn.Flatten(), nn.Flatten(0), nn.Mish(), nn.ReLU6(), nn.Hardsigmoid(), nn.Hardswish(),
            nn.SELU(), nn.CELU(0.7), nn.LogSigmoid(), nn.Softsign(), nn.Hardtanh(-0.5, 0.8),
            nn.Softmax(), nn.LogSoftmax(0),
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str, check_gradients: Any) -> None:
    check_gradients(CASES[name])


@pytest.mark.parametrize("padding_idx", [None, 2, -1])
def test_gradients_of_an_embedding(padding_idx: int | None, check_gradients: Any) -> None:
    index = np.array([[0, 3, 3], [1, 3, 0]])  # without the padding row, tested elsewhere

    def case(dtype: DType, backend: Backend) -> tuple[list[Parameter], Callable[[], Tensor]]:
        table = nn.Embedding(
            5, 3, padding_idx=padding_idx, generator=Generator(2), dtype=dtype, backend=backend
        )
        return [table.weight], lambda: table(index)

    check_gradients(case)


def test_gradients_of_a_model(check_gradients: Any) -> None:
    def case(dtype: DType, backend: Backend) -> tuple[list[Parameter], Callable[[], Tensor]]:
        at: Any = {"dtype": dtype, "backend": backend}
        g = Generator(3)
        shared = nn.Linear(4, 4, generator=g, **at)
        model = nn.Sequential(shared, nn.GELU(), nn.LayerNorm(4, **at), shared, nn.Tanh())
        x = Tensor(backend.upload(Generator(4).normal((3, 4)).numpy().astype(dtype)), backend)
        return list(model.parameters()), lambda: model(x)

    check_gradients(case)


# Values


def test_linear_is_the_formula(backend: Backend) -> None:
    layer = nn.Linear(5, 3, generator=Generator(0), backend=backend)
    assert layer.bias is not None
    x = Generator(1).normal((2, 4, 5), backend=backend)
    wanted = x.numpy() @ layer.weight.numpy().T + layer.bias.numpy()
    np.testing.assert_allclose(layer(x).numpy(), wanted, rtol=1e-5, atol=1e-6)


def test_linear_starts_within_its_bound() -> None:
    layer = nn.Linear(400, 300, generator=Generator(0))
    assert layer.bias is not None
    for parameter in (layer.weight, layer.bias):
        values = parameter.numpy()
        assert np.abs(values).max() <= 1 / math.sqrt(400)
        assert abs(values.std() * math.sqrt(3 * 400) - 1) < 0.1
        assert abs(values.mean()) < 0.01
    assert not np.array_equal(layer.weight.numpy()[0, :300], layer.bias.numpy())


def test_linear_takes_float16_integers_and_no_rows(backend: Backend) -> None:
    layer = nn.Linear(3, 2, generator=Generator(0), backend=backend)
    ints = tensor([[1, 2, 3]], backend=backend)
    assert layer(ints).tolist() == layer(ints.astype(float32)).tolist()
    assert layer(tensor(np.ones((1, 3), np.float16), backend=backend)).dtype == float32
    assert layer(tensor(np.ones((0, 3)), backend=backend)).shape == (0, 2)


@settings(deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    over=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_layer_norm_is_the_formula(shape: list[int], over: int, seed: int) -> None:
    last = tuple(shape[-over:])
    x = Generator(seed).normal(tuple(shape), 2.0, 3.0)
    layer = layer_norm(last)(float32, CPU)
    weight, bias = (p.numpy() for p in layer.parameters())
    axes = tuple(range(len(shape) - len(last), len(shape)))
    values = x.numpy().astype(np.float64)
    centered = values - values.mean(axes, keepdims=True)
    wanted = centered / np.sqrt(values.var(axes, keepdims=True) + 1e-5) * weight + bias
    on_cpu = Tensor(CPU.upload(x.numpy()), CPU)
    np.testing.assert_allclose(layer(on_cpu).numpy(), wanted, rtol=1e-3, atol=1e-4)


def test_layer_norm_of_a_large_mean_keeps_its_digits(backend: Backend) -> None:
    x = tensor([[10000.0, 10001.0, 10002.0]], backend=backend)
    wanted = [-math.sqrt(1.5), 0.0, math.sqrt(1.5)]
    np.testing.assert_allclose(nn.LayerNorm(3, backend=backend)(x).numpy()[0], wanted, atol=1e-4)


def test_layer_norm_of_float16_is_computed_in_float32(backend: Backend) -> None:
    x = tensor(np.array([[300.0, -300.0, 100.0]], np.float16), backend=backend)  # 300^2 > 65504
    result = nn.LayerNorm(3, backend=backend)(x)
    assert result.dtype == float16
    np.testing.assert_allclose(
        result.numpy(), nn.LayerNorm(3, backend=backend)(x.astype(float32)).numpy(), rtol=1e-2
    )


@pytest.mark.parametrize("shape", [(3,), (2, 3)])
def test_rms_norm_is_the_formula(shape: tuple[int, ...], backend: Backend) -> None:
    x = Generator(4).normal((5, 2, 3), 2.0, 3.0, backend=backend)
    layer = rms_norm(shape)(float32, backend)
    values, axes = x.numpy().astype(float), tuple(range(-len(shape), 0))
    mean = (values**2).mean(axes, keepdims=True)
    (weight,) = layer.parameters()
    wanted = values / np.sqrt(mean + 1e-5) * weight.numpy()
    np.testing.assert_allclose(layer(x).numpy(), wanted, rtol=1e-5)


def test_rms_norm_of_float16_is_computed_in_float32(backend: Backend) -> None:
    x = tensor(np.array([[300.0, -300.0, 100.0]], np.float16), backend=backend)  # 300^2 > 65504
    result = nn.RMSNorm(3, backend=backend)(x)
    assert result.dtype == float16
    wanted = np.array([300, -300, 100]) / np.sqrt((2 * 300**2 + 100**2) / 3)
    np.testing.assert_allclose(result.numpy()[0], wanted, rtol=1e-3)


def test_embedding_looks_up(backend: Backend) -> None:
    table = nn.Embedding(6, 2, generator=Generator(0), backend=backend)
    index = np.array([[5, 0, 5]])
    assert table(index).tolist() == table.weight.numpy()[index].tolist()
    assert table(tensor(index, backend=backend)).tolist() == table(index).tolist()
    assert table(np.zeros((0, 4), np.int32)).shape == (0, 4, 2)
    assert table([]).shape == (0, 2)


def test_the_padding_starts_at_zero_and_gets_no_gradient(backend: Backend) -> None:
    table = nn.Embedding(4, 3, padding_idx=-2, generator=Generator(0), backend=backend)
    assert table.padding_idx == 2
    assert table.weight[2].tolist() == [0.0] * 3
    gradient = table([2, 1, 2, 1]).sum().backward()[table.weight].numpy()
    assert gradient.tolist() == [[0.0] * 3, [2.0] * 3, [0.0] * 3, [0.0] * 3]


@pytest.mark.parametrize(
    ("layer", "formula"),
    [
        (nn.ReLU(), lambda x: max(x, 0)),
        (nn.LeakyReLU(0.1), lambda x: x if x > 0 else 0.1 * x),
        (nn.ELU(2.0), lambda x: x if x > 0 else 2 * math.expm1(x)),
        (nn.GELU(), lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2)))),
        (
            nn.GELU("tanh"),
            lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        ),
        (nn.SiLU(), lambda x: x / (1 + math.exp(-x))),
        (nn.Tanh(), math.tanh),
        (nn.Sigmoid(), lambda x: 1 / (1 + math.exp(-x))),
        (nn.Softplus(), lambda x: math.log1p(math.exp(x))),
        (nn.Mish(), lambda x: x * math.tanh(math.log1p(math.exp(x)))),
        (nn.ReLU6(), lambda x: min(max(x, 0), 6)),
        (nn.Hardtanh(-0.5, 0.8), lambda x: min(max(x, -0.5), 0.8)),
        (nn.Hardsigmoid(), lambda x: min(max(x + 3, 0), 6) / 6),
        (nn.Hardswish(), lambda x: x * min(max(x + 3, 0), 6) / 6),
        (nn.LogSigmoid(), lambda x: -math.log1p(math.exp(-x))),
        (nn.Softsign(), lambda x: x / (1 + abs(x))),
        (nn.Identity(), lambda x: x),
    ],
    ids=lambda value: repr(value) if isinstance(value, nn.Module) else "formula",
)
def test_activations_are_their_formulas(
    layer: nn.Module, formula: Callable[[float], float], backend: Backend
) -> None:
    values = [-7.5, -1.0, -0.1, 0.0, 0.3, 1.0, 6.0]
    result = layer(tensor(values, backend=backend)).numpy()
    np.testing.assert_allclose(result, [formula(x) for x in values], rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    "layer",
    [nn.ReLU(), nn.LeakyReLU(), nn.ELU(), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Tanh(),
     nn.Sigmoid(), nn.Softplus(), nn.Identity(), nn.Flatten(0), nn.LayerNorm(3), nn.RMSNorm(3),
     nn.Linear(3, 2), nn.Sequential(nn.Linear(3, 3), nn.ReLU())],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_nan_stays_nan(layer: nn.Module) -> None:
    assert np.isnan(layer(tensor([math.nan, 1.0, 2.0])).numpy()).any()


def test_flatten_and_identity(backend: Backend) -> None:
    x = Generator(0).normal((2, 3, 4), backend=backend)
    assert nn.Flatten()(x).shape == (2, 12)
    assert nn.Flatten(0)(x).shape == (24,)
    assert nn.Flatten(-1)(x).shape == (2, 3, 4)
    assert nn.Flatten()(x[:0]).shape == (0, 12)
    assert nn.Identity()(x) is x


# Errors


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.Linear(0, 3), ValueError, r"sizes of at least 1, not \(0, 3\)"),
        (lambda: nn.Linear(3, -1), ValueError, "at least 1"),
        (lambda: nn.Linear(3, 2, dtype=np.int32), TypeError, "int32 has no gradient"),
        (lambda: nn.Embedding(0, 3), ValueError, "at least 1"),
        (lambda: nn.Embedding(4, 3, padding_idx=4), ValueError, r"outside \[-4, 4\)"),
        (lambda: nn.LayerNorm(()), ValueError, "at least 1"),
        (lambda: nn.LayerNorm((3, 0)), ValueError, "at least 1"),
        (lambda: nn.LayerNorm(3, eps=0.0), ValueError, "eps must be finite and positive"),
        (lambda: nn.LayerNorm(3, eps=math.nan), ValueError, "eps must be finite and positive"),
        (lambda: nn.RMSNorm(()), ValueError, "at least 1"),
        (lambda: nn.RMSNorm(3, eps=0.0), ValueError, "eps must be finite and positive"),
        (lambda: nn.RMSNorm(3)(tensor([1.0])), ValueError, r"over \(3,\).*\(1,\) differ"),
        (lambda: nn.RMSNorm(2)(tensor([1, 2])), TypeError, "must be floating, not int32"),
        (lambda: nn.GELU("relu"), ValueError, "'none' or 'tanh', not 'relu'"),  # type: ignore[arg-type]
        (lambda: nn.Linear(3, 2)(tensor([[1.0, 2.0]])), ValueError, r"last axis must be 3"),
        (lambda: nn.LayerNorm(3)(tensor([1.0])), ValueError, r"over \(3,\).*\(1,\) differ"),
        (lambda: nn.LayerNorm((2, 3))(tensor([1.0])), ValueError, "differ"),
        (lambda: nn.LayerNorm(2)(tensor([1, 2])), TypeError, "must be floating, not int32"),
        (lambda: nn.Embedding(3, 2)([0, 3]), IndexError, "3 is outside"),
        (lambda: nn.Embedding(3, 2)([-1]), IndexError, "-1 is outside"),
        (lambda: nn.Embedding(3, 2)([0.5]), TypeError, "int32, not float32"),
        (lambda: nn.Flatten(3)(tensor([[1.0]])), IndexError, "no axis 3"),
        (lambda: nn.Flatten(0)(tensor(1.0)), IndexError, "no axis 0"),
    ],
)
def test_errors(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


# Random initial values


def test_layers_without_a_generator_differ() -> None:
    a, b = nn.Linear(8, 8), nn.Linear(8, 8)
    assert not np.array_equal(a.weight.numpy(), b.weight.numpy())


def test_a_generator_decides_the_weights_on_every_backend(backend: Backend) -> None:
    here = nn.Linear(8, 4, generator=Generator(5), backend=backend)
    there = nn.Linear(8, 4, generator=Generator(5))
    assert here.weight.tolist() == there.weight.tolist()
    assert here.weight.backend is backend
    wide = nn.Linear(8, 4, generator=Generator(5), dtype=float64)
    assert wide.weight.dtype == float64
    np.testing.assert_array_equal(wide.weight.numpy(), there.weight.numpy())


class Doubled(nn.Linear):
    def forward(self, x: Tensor, **options: Any) -> Tensor:
        return super().forward(x, **options) * 2.0


class Called(nn.Linear):
    def __call__(self, x: Tensor, **options: Any) -> Tensor:
        return super().__call__(x, **options) * 2.0


def patched(*sizes: int, generator: Generator) -> nn.Linear:
    layer = nn.Linear(*sizes, generator=generator)
    plain = layer.forward
    layer.forward = lambda x, **options: plain(x, **options) * 2.0  # type: ignore[method-assign]
    return layer


@pytest.mark.parametrize("make", [Doubled, Called, patched])
def test_a_linear_layer_of_ones_own_is_called(make: Callable[..., nn.Linear]) -> None:
    """Nothing is fused with a layer that computes something else."""
    x, layer = ones((5, 3)), make(3, 3, generator=Generator(1))
    model = nn.Sequential(layer, nn.GELU())
    np.testing.assert_array_equal(model(x).numpy(), gelu(layer(x)).numpy())
    part = nn.FeedForward(3, 3, generator=Generator(0))
    part.up = layer
    np.testing.assert_array_equal(part(x).numpy(), part.down(layer(x, activation=gelu)).numpy())
    part.up, part.down = nn.Linear(3, 3, generator=Generator(2)), layer
    np.testing.assert_array_equal(part(x).numpy(), layer(part.up(x, activation=gelu)).numpy())


def test_group_norm_of_an_empty_batch() -> None:
    layer = nn.GroupNorm(2, 4)
    y = layer(ones((0, 4, 2)))
    assert y.shape == (0, 4, 2)
    assert layer.weight is not None
    assert y.sum().backward()[layer.weight].tolist() == [0.0] * 4
