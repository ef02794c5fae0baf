"""Dropout: what it keeps, how often, and that it is reproducible."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rumus import nn
from rumus.tensor import Backend, Generator, Parameter, Tensor, tensor


def ones(backend: Backend, *shape: int) -> Tensor:
    return tensor(np.ones(shape), backend=backend)


def test_the_mask_is_the_generator_s(backend: Backend) -> None:
    x = Generator(1).normal((7, 11), backend=backend)
    mask = Generator(5).keep(0.75, (7, 11)).numpy()
    result = nn.Dropout(0.25, generator=Generator(5))(x).numpy()
    np.testing.assert_allclose(result, np.where(mask, x.numpy() / 0.75, 0), rtol=1e-6)


@settings(deadline=None)
@given(p=st.floats(0.01, 0.99), seed=st.integers(0, 2**32 - 1))
def test_how_many_are_dropped(p: float, seed: int) -> None:
    count = 20_000
    result = nn.Dropout(p, generator=Generator(seed))(tensor(np.ones(count))).numpy()
    dropped = int((result == 0).sum())
    assert abs(dropped - p * count) < 6 * math.sqrt(count * p * (1 - p)) + 1
    np.testing.assert_allclose(result[result != 0], 1 / (1 - p), rtol=1e-5)


def test_the_mean_stays() -> None:
    result = nn.Dropout(0.3, generator=Generator(0))(tensor(np.ones(100_000)))
    assert abs(result.mean().item() - 1) < 0.01


def test_masks_go_on_and_come_back(backend: Backend) -> None:
    layer = nn.Dropout(0.5, generator=Generator(0))
    x = ones(backend, 50)
    state = layer.generator.state()
    first, second = layer(x).tolist(), layer(x).tolist()
    assert first != second
    layer.generator.restore(state)
    assert [layer(x).tolist(), layer(x).tolist()] == [first, second]


def test_the_ends_of_p(backend: Backend) -> None:
    x = tensor([1.0, math.nan, math.inf], backend=backend)
    assert nn.Dropout(1.0, generator=Generator(0))(x).tolist() == [0.0, 0.0, 0.0]
    assert nn.Dropout(0.0)(x) is x


def test_what_is_dropped_has_no_gradient(backend: Backend) -> None:
    x = Parameter(np.full(1000, math.nan), backend=backend)
    result = nn.Dropout(0.4, generator=Generator(2))(x)
    gradient = result.sum().backward()[x].numpy()
    kept = np.isnan(result.numpy())
    np.testing.assert_allclose(gradient, np.where(kept, 1 / 0.6, 0), rtol=1e-6)
    assert 500 < kept.sum() < 700


def test_evaluation_is_the_identity_and_draws_nothing() -> None:
    layer = nn.Dropout(0.5, generator=Generator(0)).eval()
    x = tensor([1.0, 2.0])
    assert layer(x) is x
    assert layer.generator.position == 0
    assert layer.train()(x) is not x
    assert layer.generator.position > 0


def test_two_layers_without_a_generator_differ() -> None:
    x = tensor(np.ones(100))
    assert nn.Dropout()(x).tolist() != nn.Dropout()(x).tolist()


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan, math.inf])
def test_p_out_of_range(p: float) -> None:
    with pytest.raises(ValueError, match=r"Dropout: p must be in \[0, 1\]"):
        nn.Dropout(p)


def test_nothing_is_left_of_what_is_dropped(backend: Backend) -> None:
    """Also of an infinity and NaN, of which a product with 0 would be NaN."""
    values = np.resize(np.array([np.inf, -np.inf, np.nan, 1.0], np.float32), 64)
    x = Parameter(values, name="x", backend=backend)
    kept = Generator(5).keep(0.5, (64,)).numpy()
    result = nn.Dropout(0.5, generator=Generator(5))(x)
    np.testing.assert_array_equal(result.numpy(), np.where(kept, values * 2, 0))
    np.testing.assert_array_equal(result.sum().backward()[x].numpy(), np.where(kept, 2, 0))
