"""Finite gradients with infinite squares: refused before a step like infinite ones, or harmless.

Otherwise the state would stay infinite, and the parameter would be NaN or never move again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import optimizer_table
import pytest

from rumus.optim import AGC, SGD, Adam, AdamW, ClipNorm, ClipValue
from rumus.tensor import (
    Backend,
    GradientStore,
    NonFiniteGradientError,
    NumpyBackend,
    Parameter,
    float16,
    tensor,
)

SQUARING_NONE = ("SGD", "Lion", "Adamax", "Rprop", "ASGD", "schedule-free SGD")


def parameter(backend: Backend, dtype: Any = np.float32) -> Parameter:
    values = 1 + np.random.default_rng(0).random((8, 8))
    return Parameter(values, name="w", dtype=dtype, backend=backend)


def store_of(w: Parameter, value: float) -> GradientStore:
    signs = np.where(np.arange(w.size) % 3 == 0, -1.0, 1.0).reshape(w.shape)
    store = GradientStore()
    store.accumulate(w, tensor(value * signs, dtype=w.dtype, backend=w.backend))
    return store


@pytest.mark.parametrize("name", optimizer_table.ROWS)
@pytest.mark.parametrize("value", [5e18, 1e20, 1e21, 3e38])
def test_a_huge_gradient_is_refused_or_does_no_harm(
    name: str, value: float, backend: Backend
) -> None:
    w = parameter(backend)
    optimizer = optimizer_table.ROWS[name]([w])
    optimizer.step(store_of(w, 1.0))
    before = w.numpy()
    refused = ""
    try:
        optimizer.step(store_of(w, value))
        optimizer.poll(wait=True)
    except NonFiniteGradientError as error:
        refused = str(error)
    if refused:
        assert "'w'" in refused
        assert "e+18 or more, which cannot be squared" in refused or "e+17 or more" in refused
        np.testing.assert_array_equal(w.numpy(), before)
    assert name.startswith(SQUARING_NONE) is not bool(refused)
    after = w.numpy()
    for _ in range(3):
        optimizer.step(store_of(w, 1.0))
    optimizer.poll(wait=True)
    if refused:
        assert np.isfinite(w.numpy()).all()
        assert (w.numpy() != after).all()


def test_skipped_steps_leave_no_trace(backend: Backend) -> None:
    found = []
    for values in ((1.0, 1e21, 2.0, 5e18, 3.0), (1.0, 2.0, 3.0)):
        w = parameter(backend)
        optimizer = AdamW([w], nonfinite="skip")
        for value in values:
            optimizer.step(store_of(w, value))
        optimizer.poll(wait=True)
        found.append((w.numpy(), optimizer.skipped))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert [skipped for _, skipped in found] == [2, 0]


def test_just_under_the_limit_is_a_step(backend: Backend) -> None:
    w = parameter(backend)
    optimizer = AdamW([w], 0.1, weight_decay=0.0)
    before = w.numpy()
    optimizer.step(store_of(w, 4.6e18))
    optimizer.poll(wait=True)
    np.testing.assert_allclose(abs(w.numpy() - before), 0.1, rtol=1e-5)


@pytest.mark.parametrize("clip", [ClipValue(1.0), ClipNorm(1.0), ClipNorm(1.0, per="tensor")])
def test_gradients_clipped_first_may_be_large(clip: Any, backend: Backend) -> None:
    w = Parameter([1.5], name="w", backend=backend)
    optimizer = Adam([w], 0.1, clip=clip)
    optimizer.step(store_of(w, 1e19))
    optimizer.poll(wait=True)
    np.testing.assert_allclose(w.numpy(), [1.6], rtol=1e-4)


def test_float64_has_room_for_more() -> None:
    w = parameter(NumpyBackend(), np.float64)
    optimizer = AdamW([w])
    optimizer.step(store_of(w, 1e150))
    with pytest.raises(NonFiniteGradientError, match=r"3.35e\+153 or more"):
        optimizer.step(store_of(w, 1e154))


def test_every_float16_number_can_be_squared(backend: Backend) -> None:
    w = parameter(backend, float16)
    optimizer = AdamW([w], 0.1, master_weights=True, weight_decay=0.0)
    optimizer.step(store_of(w, 65504.0))
    optimizer.poll(wait=True)
    assert np.isfinite(w.numpy()).all()


@pytest.mark.parametrize("value", [1e18, 1e21, 1e30])
def test_agc_limits_gradients_that_cannot_be_squared(value: float, backend: Backend) -> None:
    """With nonfinite="propagate" nothing is refused, so the factor must be right."""
    w, p = parameter(backend), parameter(NumpyBackend(), np.float64)
    for each in (w, p):
        optimizer = SGD([each], 1.0, clip=AGC(0.1), nonfinite="propagate")
        optimizer.step(store_of(each, value))
    np.testing.assert_allclose(w.numpy(), p.numpy(), rtol=1e-5)
    assert (w.numpy() != parameter(backend).numpy()).all()


@pytest.mark.parametrize("bad", [1e14, np.inf, np.nan])
@pytest.mark.parametrize("size", [100, 300_000])
def test_the_first_element_beyond_a_limit(bad: float, size: int, backend: Backend) -> None:
    host = np.full(size, 9e13, np.float32)
    host[::2] *= -1
    assert backend.first_not_finite(backend.upload(host), 1e14) is None
    host[size - 3 :] = bad
    assert backend.first_not_finite(backend.upload(host), 1e14) == size - 3
    assert (backend.first_not_finite(backend.upload(host)) is None) is bool(np.isfinite(bad))
