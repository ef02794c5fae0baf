"""Attention: a backend's fused version against its decomposition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rumus.tensor import (
    Backend,
    Parameter,
    Tensor,
    attention_weights,
    scaled_dot_product_attention,
    tensor,
    weighted_values,
)


def primitive(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
    return weighted_values(attention_weights(query, key, **options), value)


def outer(x: Tensor) -> Tensor:
    """Heads in front of positions, as they lie."""
    return x


def inner(x: Tensor) -> Tensor:
    """Heads in front of positions, which lie outside of them."""
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
