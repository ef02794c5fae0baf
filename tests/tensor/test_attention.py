"""Attention: a backend's fused version against its decomposition."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rumus.tensor import (
    Backend,
    NumbaBackend,
    NumpyBackend,
    Parameter,
    Tensor,
    attention_weights,
    float16,
    float32,
    float64,
    scaled_dot_product_attention,
    tensor,
    weighted_values,
)


def primitive(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
    return weighted_values(attention_weights(query, key, **options), value)


def outer(x: Tensor) -> Tensor:
    """Heads before positions, also in memory."""
    return x


def inner(x: Tensor) -> Tensor:
    """Heads before positions, but inside them in memory."""
    return x.transpose(-3, -2)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {"outer": outer, "inner": inner}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shared", [4, 2])
@pytest.mark.parametrize("options", [{}, {"causal": True, "scale": 0.7}])
def test_fused_is_its_decomposition(
    options: dict[str, Any], shared: int, layout: str, backend: Backend
) -> None:
    view = LAYOUTS[layout]
    draw = np.random.default_rng(5)
    shapes = [view(tensor(np.zeros((2, n, 6, size)))).shape for n, size in
              [(4, 8), (shared, 8), (shared, 5)]]  # fmt: skip
    values = [draw.normal(size=shape) for shape in shapes]
    results = []
    for function in (scaled_dot_product_attention, primitive):
        parameters = [Parameter(value, backend=backend) for value in values]
        y = function(*[view(p) for p in parameters], **options)
        weights = tensor(np.cos(np.arange(y.size)).reshape(y.shape), backend=backend)
        grads = (y * weights).sum().backward()
        results.append([y.numpy(), *(grads[p].numpy() for p in parameters)])
    for found, wanted in zip(*results, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=3e-5, atol=3e-6)


def test_heads_that_are_too_wide_for_a_fused_version(backend: Backend) -> None:
    x = tensor(np.random.default_rng(0).normal(size=(1, 3, 260)), backend=backend)
    found, wanted = (f(x, x, x).numpy() for f in (scaled_dot_product_attention, primitive))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_queries_without_keys_are_refused(backend: Backend) -> None:
    some, none = (tensor(np.ones((2, n, 4)), backend=backend) for n in (3, 0))
    with pytest.raises(ValueError, match=r"there is no key.*query \(2, 3, 4\), key \(2, 0, 4\)"):
        scaled_dot_product_attention(some, none, none)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_float16_is_computed_in_float32(layout: str, backend: Backend) -> None:
    view = LAYOUTS[layout]
    draw = np.random.default_rng(5)
    values = [draw.normal(size=view(tensor(np.zeros((2, 300, 8)))).shape) for _ in range(3)]
    values = [value.astype(np.float16) for value in values]
    results = []
    for dtype in (float16, float32):
        parameters = [Parameter(value, dtype=dtype, backend=backend) for value in values]
        y = scaled_dot_product_attention(*[view(p) for p in parameters], causal=True)
        cosines = np.cos(np.arange(y.size)).reshape(y.shape).astype(np.float16)
        grads = (y * tensor(cosines, dtype=dtype, backend=backend)).sum().backward()
        results.append([y.numpy(), *(grads[p].numpy() for p in parameters)])
    for found, wanted in zip(*results, strict=True):
        assert found.dtype == float16
        assert np.linalg.norm(found - wanted) < 4e-4 * np.linalg.norm(wanted)


def test_scores_beyond_float16(backend: Backend) -> None:
    x = np.random.default_rng(5).normal(size=(2, 40, 8)).astype(np.float16)
    queries = (x * 1000).astype(np.float16)
    found, wanted = (
        scaled_dot_product_attention(
            *(tensor(a, dtype=dtype, backend=backend) for a in (queries, 100 * x, x))
        ).numpy()
        for dtype in (float16, float32)
    )
    np.testing.assert_allclose(found, wanted, rtol=2**-10, atol=2**-24)


@pytest.mark.parametrize("size", [1e3, 1e5, 1e7, 1e20])
@pytest.mark.parametrize(
    "shape", [(1, 1, 4, 4), (1, 2, 4, 8), (2, 2, 40, 16), (1, 1, 40, 32), (1, 2, 70, 64)]
)
def test_the_weights_of_large_scores_are_those_of_the_forward_pass(
    shape: tuple[int, ...], size: float, backend: Backend
) -> None:
    """A backward pass that computes them again must not round a score differently."""
    draw = np.random.default_rng(0)
    q, k, v = (draw.normal(size=shape).astype(np.float32) for _ in range(3))
    values = Parameter(v, backend=backend)
    keys = tensor(k * np.float32(size), backend=backend)
    y = scaled_dot_product_attention(tensor(q, backend=backend), keys, values)
    scores = q.astype(np.float64) @ (k * np.float32(size)).astype(np.float64).swapaxes(-1, -2)
    scores /= np.sqrt(shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    found = y.sum().backward()[values].numpy()
    np.testing.assert_allclose(found.sum(-2), shape[-2], rtol=3e-5)  # weights add up to 1
    exact = np.broadcast_to(weights.sum(-2)[..., None], shape)
    np.testing.assert_allclose(found, exact, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("size", [-1e9, -1e12, 1e12, -1e30, -1e36])
@pytest.mark.parametrize("length", [3, 70])
def test_hidden_keys_have_no_share_of_scores_without_digits(
    length: int, size: float, backend: Backend
) -> None:
    """A hidden key next to such a score must be further away than a number that rounds off."""
    ones = np.ones((1, length, 4), np.float32)
    values = np.random.default_rng(0).normal(size=(1, length, 4)).astype(np.float32)
    v = Parameter(values, backend=backend)
    q, k = (tensor(x, backend=backend) for x in (ones, ones * np.float32(size)))
    y = scaled_dot_product_attention(q, k, v, causal=True)
    np.testing.assert_allclose(
        y.numpy(), np.cumsum(values, 1) / np.arange(1, length + 1)[:, None], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("how", ["causal", "mask", "numbers"])
@pytest.mark.parametrize("length", [3, 70])
def test_a_score_that_overflows_lets_no_hidden_key_in(
    length: int, how: str, backend: Backend
) -> None:
    """The result is NaN, which the look for bad gradients finds."""
    far = np.full((1, length, 4), 1e20, np.float32)
    v = Parameter(np.ones((1, length, 4)), backend=backend)
    seen = np.tri(length, dtype=bool)
    mask = {"mask": seen, "numbers": np.where(seen, 0, -np.inf).astype(np.float32)}.get(how)
    q, k = (tensor(x, backend=backend) for x in (far, -far))
    y = scaled_dot_product_attention(
        q,
        k,
        v,
        mask=None if mask is None else tensor(mask, backend=backend),
        causal=how == "causal",
    )
    assert np.isnan(y.numpy()).all()
    assert np.isnan(y.sum().backward()[v].numpy()).all()


@pytest.mark.parametrize("how", ["causal", "mask", "numbers"])
@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_scores_in_float64_may_be_lower_than_any_in_float32(name: str, how: str) -> None:
    backend = NumpyBackend() if name == "numpy" else NumbaBackend()
    draw = np.random.default_rng(0)
    q, k, v = (draw.normal(size=(1, 5, 4)) for _ in range(3))
    scores = (q * 1e150) @ k.swapaxes(-1, -2)
    seen = np.tri(5, dtype=bool)
    wanted = v[0][np.where(seen, scores, -np.inf).argmax(-1)]
    mask = {"mask": seen, "numbers": np.where(seen, 0, np.finfo(np.float32).min)}.get(how)
    query, key, value = (tensor(x, dtype=float64, backend=backend) for x in (q * 1e150, k, v))
    found = scaled_dot_product_attention(
        query,
        key,
        value,
        mask=None
        if mask is None
        else tensor(mask, dtype=None if mask.dtype == bool else float64, backend=backend),
        causal=how == "causal",
    )
    np.testing.assert_array_equal(found.numpy(), wanted)


def test_a_mask_of_ones_and_zeros_as_numbers_hides_nothing() -> None:
    x = tensor(np.random.default_rng(0).normal(size=(1, 3, 4)).astype(np.float32))
    seen = np.tri(3, dtype=np.float32)
    with pytest.warns(UserWarning, match="added to the scores, and hides nothing: give mask > 0"):
        scaled_dot_product_attention(x, x, x, mask=tensor(seen))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for mask in (tensor(seen) > 0, (tensor(seen) - 1) * 1e9, tensor(seen * 0.5)):
            scaled_dot_product_attention(x, x, x, mask=mask)
        scaled_dot_product_attention(x, x, x, mask=Parameter(seen, name="bias"))
