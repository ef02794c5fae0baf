"""Attention: masks, shared heads, dropout, and refused input."""

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
    float16,
    float32,
    scaled_dot_product_attention,
    tensor,
    weighted_values,
)

CPU = NumpyBackend()


def normal(*shape: int, backend: Backend = CPU, seed: int = 0) -> Tensor:
    return Generator(seed).normal(shape, backend=backend)


def expected(q: Any, k: Any, v: Any, visible: Any) -> Any:
    """By loops, in float64."""
    out = np.zeros((*q.shape[:-1], v.shape[-1]))
    for at in np.ndindex(*q.shape[:-1]):
        shared = (*at[:-2], at[-2] * k.shape[-3] // q.shape[-3])
        scores = k[shared].astype(float) @ q[at].astype(float) / np.sqrt(q.shape[-1])
        weights = np.where(visible[at], np.exp(scores - scores.max()), 0.0)
        out[at] = weights @ v[shared].astype(float) / max(weights.sum(), 1e-300)
    return out


def block(**options: Any) -> nn.Module:
    return nn.TransformerBlock(8, 2, **options)


@pytest.mark.parametrize("kind", ["none", "causal", "mask", "mask of heads"])
@pytest.mark.parametrize("shared", [6, 3, 1])
def test_values(kind: str, shared: int, backend: Backend) -> None:
    q, k, v = (
        normal(2, heads, 5, size, backend=backend, seed=seed)
        for seed, (heads, size) in enumerate([(6, 4), (shared, 4), (shared, 3)])
    )
    visible = np.ones((2, 6, 5, 5), bool)
    options: dict[str, Any] = {}
    if kind == "causal":
        visible &= np.tri(5, dtype=bool)
        options["causal"] = True
    elif kind != "none":
        shape = (5, 5) if kind == "mask" else (2, 6, 5, 5)
        chosen = np.random.default_rng(0).random(shape) < 0.5
        chosen[..., 2, :] = False  # one that may attend to nothing
        visible &= chosen
        options["mask"] = tensor(chosen, backend=backend)
    found = scaled_dot_product_attention(q, k, v, **options).numpy()
    wanted = expected(q.numpy(), k.numpy(), v.numpy(), visible)
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


def test_a_floating_mask_is_added(backend: Backend) -> None:
    q = normal(1, 3, 4, backend=backend)
    bias = np.where(np.tri(3) > 0, 0.0, -np.inf).astype(np.float32)
    found = scaled_dot_product_attention(q, q, q, mask=tensor(bias, backend=backend))
    causal = scaled_dot_product_attention(q, q, q, causal=True)
    np.testing.assert_allclose(found.numpy(), causal.numpy(), rtol=1e-5, atol=1e-6)


def test_float16_is_computed_in_float32(backend: Backend) -> None:
    q = (normal(2, 3, 4, backend=backend) * 100).astype(float16)
    found = scaled_dot_product_attention(q, q, q)
    wide = q.astype(float32)
    wanted = scaled_dot_product_attention(wide, wide, wide).astype(float16)
    assert found.dtype == float16
    assert found.numpy().tobytes() == wanted.numpy().tobytes()


def test_a_position_sees_nothing_after_it(backend: Backend) -> None:
    layer = nn.MultiHeadAttention(6, 3, causal=True, generator=Generator(1), backend=backend)
    x = normal(2, 7, 6, backend=backend).numpy()
    whole = layer(tensor(x, backend=backend)).numpy()
    part = layer(tensor(x[:, :4], backend=backend)).numpy()
    np.testing.assert_allclose(whole[:, :4], part, rtol=1e-5, atol=1e-6)


def test_rotary_scores_depend_on_distances_alone() -> None:
    rotary = nn.RotaryEmbedding(8)
    q, k = normal(1, 1, 8), normal(1, 1, 8, seed=1)
    scores = [
        (rotary(q, start=start + 3) * rotary(k, start=start)).sum().item() for start in (0, 5, 90)
    ]
    np.testing.assert_allclose(scores, scores[0], rtol=1e-4)
    assert abs(scores[0] - (rotary(q, start=4) * rotary(k)).sum().item()) > 1e-3


def test_a_context_of_another_size(backend: Backend) -> None:
    layer = nn.MultiHeadAttention(6, 2, context_size=4, generator=Generator(0), backend=backend)
    x, context = normal(3, 5, 6, backend=backend), normal(3, 2, 4, backend=backend)
    assert layer(x, context).shape == (3, 5, 6)


def test_dropout_of_the_weights_only_in_training() -> None:
    layer = nn.MultiHeadAttention(4, 2, dropout=0.5, generator=Generator(0), backend=CPU)
    x = normal(2, 3, 4)
    first, second = (layer(x).numpy() for _ in range(2))
    assert not np.array_equal(first, second)
    layer.eval()
    np.testing.assert_array_equal(layer(x).numpy(), layer(x).numpy())


def dropping() -> nn.MultiHeadAttention:
    return nn.MultiHeadAttention(8, 2, dropout=0.5, causal=True, backend=CPU)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.MultiHeadAttention(10, 3), "size 10 is not a multiple of 3 heads"),
        (lambda: nn.MultiHeadAttention(12, 4, kv_heads=3), "4 heads are not a multiple of kv_hea"),
        (lambda: nn.MultiHeadAttention(8, 2, rotary=nn.RotaryEmbedding(8)), "heads of 4"),
        (lambda: nn.RotaryEmbedding(5), "even size"),
        (lambda: nn.RotaryEmbedding(4, base=0), "base must be finite and positive"),
        (lambda: nn.RotaryEmbedding(4)(normal(3, 6)), r"got \(3, 6\)"),
        (lambda: block(norm="batch"), "'layer' or 'rms'"),
        (lambda: block(activation="swish"), "'gelu', 'gelu_tanh', 'relu'"),
        (lambda: nn.MultiHeadAttention(8, 2, backend=CPU)(normal(8)), r"\(..., positions, size\)"),
        (lambda: dropping()(normal(2, 5, 8), mask=normal(4, 5)), r"mask of shape \(4, 5\)"),
        (lambda: dropping()(normal(2, 5, 8), normal(2, 4, 8)), "as many queries as keys, not 5"),
        (
            lambda: weighted_values(normal(3, 5, 4), normal(2, 4, 3)),
            "3 heads of weights are not a mul",
        ),
    ],
)
def test_sizes_that_do_not_fit(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((2, 3, 4), (2, 3, 5), (2, 3, 5)), {}, "differ in size"),
        (((2, 3, 0), (2, 3, 0), (2, 3, 5)), {}, "or have size 0"),
        (((3, 4), (2, 3, 4), (2, 3, 4)), {}, "same number of axes"),
        (((4,), (4,), (4,)), {}, "same number of axes"),
        (((2, 3, 4), (2, 3, 4), (2, 5, 4)), {}, "lengths differ"),
        (((3, 3, 4), (2, 3, 4), (2, 3, 4)), {}, "3 query heads are not a multiple of 2"),
        (((2, 3, 4), (2, 5, 4), (2, 5, 4)), {"causal": True}, "as many queries as keys"),
        (((2, 3, 4),) * 3, {"mask": np.ones((3, 4), bool)}, r"mask of shape \(3, 4\)"),
    ],
)
def test_shapes_that_do_not_fit(shapes: Any, options: dict[str, Any], message: str) -> None:
    options = {k: tensor(v) if k == "mask" else v for k, v in options.items()}
    with pytest.raises(ValueError, match=message):
        scaled_dot_product_attention(*(normal(*shape) for shape in shapes), **options)


def test_dtypes_that_do_not_fit() -> None:
    q = normal(2, 3, 4)
    with pytest.raises(TypeError, match="one floating dtype"):
        scaled_dot_product_attention(q, q.astype(float16), q)
    with pytest.raises(TypeError, match="a mask must be bool or float32, not int32"):
        scaled_dot_product_attention(q, q, q, mask=tensor([[1, 2, 3]] * 3))
    with pytest.raises(TypeError, match="or float32, not int32: for ones and zeros give mask > 0"):
        dropping()(normal(1, 3, 8), mask=tensor([[1, 2, 3]] * 3))
