"""Norms and distances of numbers whose powers leave the dtype, against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.tensor import Backend, Parameter, Tensor

Real = NDArray[Any]
AXES: list[tuple[tuple[int, ...], Any]] = [
    ((40,), None), ((3, 8), 1), ((6, 300), 0), ((2, 3, 5), (0, 2)), ((2, 3, 5), None),
    ((3, 9000), 1), ((4, 5), ()), ((70_000,), 0),
]  # fmt: skip


def exact(x: Real, order: float, axis: Any) -> tuple[Real, Real]:
    """The norm and its gradient in float64."""
    wide = np.abs(x.astype(np.float64))
    axes = tuple(range(x.ndim)) if axis is None else axis
    largest = np.where(wide.max() > 0, wide.max(), 1)
    norm = ((wide / largest) ** order).sum(axes, keepdims=True) ** (1 / order) * largest
    with np.errstate(all="ignore"):
        slope = np.where(wide > 0, np.sign(x) * (wide / norm) ** (order - 1), 0)
    return norm.reshape(norm.sum(axes).shape), slope


@pytest.mark.parametrize("size", [1e-37, 1e-25, 1e-16, 1.0, 1e14, 1e16, 1e25, 1e35])
@pytest.mark.parametrize("order", [2, 3, 10, 1.5, 0.5])
def test_a_norm_is_exact_where_its_powers_are_no_numbers(
    order: float, size: float, backend: Backend
) -> None:
    random = np.random.default_rng(7)
    for shape, axis in AXES:
        x: Any = (random.standard_normal(shape) * size).astype(np.float32)
        norm, slope = exact(x, order, axis)
        if norm.max() > 3e38:
            continue
        p = Parameter(x, backend=backend)
        y = p.norm(order, axis=axis)
        np.testing.assert_allclose(y.numpy(), norm, rtol=2e-6 if order == 2 else 2e-5)
        found = y.sum().backward()[p].numpy()
        np.testing.assert_allclose(found, slope, rtol=1e-4, atol=1e-6)


def test_a_norm_of_large_and_small_numbers(backend: Backend) -> None:
    """Where they meet: neither is lost before the other is known."""
    rows = [[1e15, 1.2e15, 1e14], [9e-16, 8.8e-16, 2e-15], [1e30, 1e-30, 1.0], [0, 1e-30, 1e-31],
            [1e-16, 1e-8, 0], [3e38, 1e20, 0]]  # fmt: skip
    x: Any = np.array(rows, np.float32)
    for shape, axis in (((6, 3), 1), ((3, 6), 0)):
        p = Parameter(x if axis else x.T.copy(), backend=backend)
        norm, slope = exact(p.numpy(), 2, axis)
        assert p.shape == shape
        y = p.norm(axis=axis)
        np.testing.assert_allclose(y.numpy(), norm, rtol=1e-6)
        found = y.sum().backward()[p].numpy()
        np.testing.assert_allclose(found, slope, rtol=1e-5, atol=1e-37)


@pytest.mark.parametrize("order", [0.5, 2, 3])
def test_a_norm_of_infinity_and_of_nan(order: float, backend: Backend) -> None:
    for length in (3, 5000):
        x: Any = np.ones((5, length), np.float32)
        x[0, 1], x[1, 0], x[2, :2], x[3] = np.inf, np.nan, (np.nan, np.inf), 0
        x[4] = 1e25
        p = Parameter(x, backend=backend)
        y = p.norm(order, axis=1)
        found = y.numpy()
        assert found[0] == np.inf
        assert np.isnan(found[1:3]).all()
        assert found[3] == 0
        assert found[4] == pytest.approx(1e25 * length ** (1 / order), rel=1e-5)
        slope = y.sum().backward()[p].numpy()
        assert np.isnan(slope[0, 1])
        assert np.isnan(slope[1:3]).all()
        assert not slope[3].any()
        assert np.isfinite(slope[4]).all()


def test_a_norm_in_float64_beyond_its_squares(widest: Any, backend: Backend) -> None:
    if widest != np.float64:
        pytest.skip("the backend has no float64")
    for size in (1e-200, 1e200):
        p = Parameter(np.array([3.0, 4.0]) * size, dtype=np.float64, backend=backend)
        y: Tensor = p.norm()
        assert y.item() == pytest.approx(5 * size, rel=1e-15)
        np.testing.assert_allclose(y.backward()[p].numpy(), [0.6, 0.8], rtol=1e-15)
