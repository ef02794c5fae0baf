"""Angles and distances of very large and very small vectors, against float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rumus import nn
from rumus.tensor import Backend, Parameter, Tensor


def cosine(x: Any, y: Any, axis: int, eps: float) -> tuple[Any, Any, Any]:
    """The cosine and the gradients of its sum, in float64."""
    x, y = (np.asarray(each, np.float64) for each in np.broadcast_arrays(x, y))
    norms = [np.sqrt((each**2).sum(axis, keepdims=True)) for each in (x, y)]
    a, b = (np.maximum(norm, eps) for norm in norms)
    u, v = x / a, y / b
    found = (u * v).sum(axis, keepdims=True)
    moved = [np.where(norm < eps, 0, found) for norm in norms]
    return found.squeeze(axis), (v - moved[0] * u) / a, (u - moved[1] * v) / b


@pytest.mark.parametrize("second", [1e-25, 1e-12, 1.0, 1e25])
@pytest.mark.parametrize("first", [1e-37, 1e-9, 1.0, 1e12, 1e20, 1e37])
def test_a_cosine_where_products_are_no_numbers(
    first: float, second: float, backend: Backend
) -> None:
    for eps in (1e-8, 1e-35):
        random = np.random.default_rng(5)
        x, y = ((random.standard_normal((4, 6)) * s).astype(np.float32) for s in (first, second))
        for axis in (0, -1):
            value, of_x, of_y = cosine(x, y, axis, eps)
            p, q = Parameter(x, backend=backend), Parameter(y, backend=backend)
            found = nn.cosine_similarity(p, q, axis=axis, eps=eps)
            np.testing.assert_allclose(found.numpy(), value, rtol=2e-5, atol=1e-6)
            grads = found.sum().backward()
            for each, slope in ((p, of_x), (q, of_y)):
                if np.abs(slope).max() < 1e38:
                    largest = np.abs(slope).max()
                    np.testing.assert_allclose(
                        grads[each].numpy(), slope, rtol=1e-4, atol=1e-5 * largest + 1e-37
                    )


@pytest.mark.parametrize(
    ("first", "second", "axis"),
    [((5, 3), (3,), -1), ((5, 3), (3,), 1), ((5, 1), (5, 3), 1), ((4, 1, 3), (1, 5, 3), -1),
     ((2, 3), (1, 3), 0), ((3,), (3,), 0)],
)  # fmt: skip
def test_a_cosine_of_shapes_that_broadcast(
    first: tuple[int, ...], second: tuple[int, ...], axis: int, backend: Backend
) -> None:
    """The norm of a number that stands for three is that of the three."""
    random = np.random.default_rng(5)
    x, y = (random.standard_normal(shape).astype(np.float32) for shape in (first, second))
    value, of_x, of_y = cosine(x, y, axis, 1e-8)
    p, q = Parameter(x, backend=backend), Parameter(y, backend=backend)
    found = nn.cosine_similarity(p, q, axis=axis)
    np.testing.assert_allclose(found.numpy(), value, rtol=1e-5, atol=1e-6)
    grads = found.sum().backward()
    for each, slope in ((p, of_x), (q, of_y)):
        extra = slope.ndim - each.ndim
        ones = [extra + i for i, n in enumerate(each.shape) if n == 1]
        summed = slope.sum((*range(extra), *ones)).reshape(each.shape)
        rounded = 1e-6 * abs(slope).max()  # large slopes may add up to 0
        np.testing.assert_allclose(grads[each].numpy(), summed, rtol=1e-4, atol=1e-5 + rounded)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "pairwise": lambda x, y: nn.pairwise_distance(x, y, eps=0.0),
    "cubic": lambda x, y: nn.pairwise_distance(x, y, p=3.0, eps=0.0),
    "triplet": lambda x, y: nn.triplet_margin_loss(
        x, y, -y, p=3.0, eps=0.0, margin=1e30, reduction="none"
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_distances_of_huge_vectors(name: str, backend: Backend) -> None:
    random = np.random.default_rng(5)
    x, y = ((random.standard_normal((4, 6)) * 1e25).astype(np.float32) for _ in range(2))
    p = Parameter(x, backend=backend)
    found = LOSSES[name](p, Parameter(y, backend=backend))
    order = 2 if name == "pairwise" else 3
    wide = x.astype(np.float64), y.astype(np.float64)
    distance = (np.abs(wide[0] - wide[1]) ** order).sum(1) ** (1 / order)
    if name == "triplet":
        distance += 1e30 - (np.abs(wide[0] + wide[1]) ** order).sum(1) ** (1 / order)
    np.testing.assert_allclose(found.numpy(), distance, rtol=1e-5)
    assert np.isfinite(found.sum().backward()[p].numpy()).all()
