"""float16 models: how they are converted, what they store, and what they compute in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rumus import nn
from rumus.tensor import (
    Backend,
    Generator,
    OwnershipError,
    Parameter,
    Tensor,
    float16,
    float32,
    int32,
    tensor,
)

LAYERS: list[tuple[str, Callable[[Generator], nn.Module], tuple[int, ...]]] = [
    ("Linear", lambda g: nn.Linear(6, 4, generator=g), (5, 6)),
    ("Conv1d", lambda g: nn.Conv1d(3, 4, 2, generator=g), (2, 3, 6)),
    ("LayerNorm", lambda g: nn.LayerNorm(6), (5, 6)),
    ("RMSNorm", lambda g: nn.RMSNorm(6), (5, 6)),
    ("GroupNorm", lambda g: nn.GroupNorm(2, 4), (3, 4, 5)),
    ("BatchNorm1d", lambda g: nn.BatchNorm1d(6), (8, 6)),
    ("SwiGLU", lambda g: nn.SwiGLU(6, 8, generator=g), (5, 6)),
    ("MultiHeadAttention", lambda g: nn.MultiHeadAttention(6, 2, generator=g), (2, 4, 6)),
    (
        "stack",
        lambda g: nn.Sequential(
            nn.Linear(6, 8, generator=g), nn.GELU(), nn.Dropout(0.3, generator=g),
            nn.LayerNorm(8), nn.Linear(8, 3, generator=g), nn.Tanh(),
        ),
        (5, 6),
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "shape"), [case[1:] for case in LAYERS], ids=[c[0] for c in LAYERS]
)
def test_float16_flows_through(
    make: Callable[[Generator], nn.Module], shape: tuple[int, ...], backend: Backend
) -> None:
    """Results and gradients are float16, and close to those of the same values in float32."""
    half = make(Generator(1)).half().to(backend)
    wide = make(Generator(1)).half().to_dtype(float32).to(backend)
    start = Generator(2).normal(shape).numpy()
    found: list[tuple[Any, list[Any]]] = []
    for model, dtype in ((half, float16), (wide, float32)):
        x = Parameter(start, dtype=dtype, backend=backend)
        y: Tensor = model(x)
        assert y.dtype == dtype
        weight = Generator(3).normal(y.shape, backend=backend)
        grads = (y.astype(float32) * weight).sum().backward()
        gradients = [grads[p] for p in (x, *model.parameters())]
        assert {gradient.dtype for gradient in gradients} == {dtype}
        found.append((y.numpy(), [gradient.numpy() for gradient in gradients]))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=0.01, atol=0.01)
    for mine, theirs in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0.02, atol=0.02 * abs(theirs).max() + 1e-3)


def test_an_embedding_adds_up_in_float32(backend: Backend) -> None:
    """4000 gradients of one row: in float16 the sum would stop at 2048."""
    layer = nn.Embedding(3, 2, generator=Generator(0)).half().to(backend)
    y = layer(tensor(np.ones(4000), dtype=int32, backend=backend))
    assert y.dtype == float16
    grads = y.astype(float32).sum().backward()
    assert grads[layer.weight].tolist() == [[0.0, 0.0], [4000.0, 4000.0], [0.0, 0.0]]


@pytest.mark.parametrize("loss", [nn.mse_loss, nn.l1_loss, nn.huber_loss])
def test_losses_are_float32(loss: Callable[..., Tensor], backend: Backend) -> None:
    """The squares and the sum exceed float16; a mean of so many terms would lose most of them."""
    x = tensor(np.full(3000, 300.0, np.float16), backend=backend)
    for reduction in ("mean", "sum"):
        found = loss(x, np.zeros(3000), reduction=reduction)
        assert found.dtype == float32
        wanted = loss(x.astype(float32), np.zeros(3000), reduction=reduction)
        assert found.item() == wanted.item()


def test_parameters_are_converted_and_buffers_are_not() -> None:
    model = nn.Sequential(nn.Linear(2, 3, generator=Generator(0)), nn.BatchNorm1d(3))
    before = list(model.parameters())
    assert model.half() is model
    assert {p.dtype for p in model.parameters()} == {np.dtype(float16)}
    assert all(a is b for a, b in zip(before, model.parameters(), strict=True))
    assert {b.dtype for b in model.buffers() if b.dtype.kind == "f"} == {np.dtype(float32)}
    assert {p.dtype for p in model.to_dtype(np.float32).parameters()} == {np.dtype(float32)}


def test_what_cannot_be_converted() -> None:
    class Owner:
        def move(self, parameters: Any, backend: Any) -> None: ...

    model = nn.Linear(2, 3, generator=Generator(0))
    owner = Owner()
    assert model.bias is not None
    model.bias._owner = lambda: owner  # type: ignore[assignment]
    with pytest.raises(
        OwnershipError, match=r"'bias' is float32 and owned by .*before making the optimizer"
    ):
        model.half()
    assert model.weight.dtype == float32
    with pytest.raises(TypeError, match="int32 has no gradient"):
        model.to_dtype(int32)
