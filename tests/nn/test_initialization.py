"""Initial weights: their distribution, and that a generator determines them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rumus.nn import initialization as init
from rumus.tensor import Backend, Generator, Parameter, float64, tensor, zeros

OUT, IN = 300, 200


def filled(fill: Callable[..., Parameter], *shape: int, **options: Any) -> Any:
    parameter = Parameter(zeros(shape or (OUT, IN)))
    assert fill(parameter, generator=Generator(11), **options) is parameter
    return parameter.numpy().astype(np.float64)


@pytest.mark.parametrize(
    ("fill", "options", "std"),
    [
        (init.kaiming_normal, {}, math.sqrt(2 / IN)),
        (init.kaiming_normal, {"fan": "out"}, math.sqrt(2 / OUT)),
        (init.kaiming_normal, {"nonlinearity": "tanh"}, 5 / 3 / math.sqrt(IN)),
        (init.kaiming_normal, {"nonlinearity": "leaky_relu", "slope": 1.0}, 1 / math.sqrt(IN)),
        (init.kaiming_uniform, {}, math.sqrt(2 / IN)),
        (init.kaiming_uniform, {"fan": "out", "nonlinearity": "linear"}, math.sqrt(1 / OUT)),
        (init.xavier_normal, {}, math.sqrt(2 / (IN + OUT))),
        (init.xavier_normal, {"scale": 3.0}, 3 * math.sqrt(2 / (IN + OUT))),
        (init.xavier_uniform, {}, math.sqrt(2 / (IN + OUT))),
        (init.normal, {"std": 0.2}, 0.2),
        (init.uniform, {"low": -1.0, "high": 1.0}, 1 / math.sqrt(3)),
    ],
)
def test_mean_and_deviation(fill: Callable[..., Parameter], options: Any, std: float) -> None:
    values = filled(fill, **options)
    count = values.size
    assert abs(values.mean()) < 5 * std / math.sqrt(count)
    assert abs(values.std() / std - 1) < 5 / math.sqrt(2 * count)


@pytest.mark.parametrize(
    ("fill", "bound"),
    [
        (init.kaiming_uniform, math.sqrt(6 / IN)),
        (init.xavier_uniform, math.sqrt(6 / (IN + OUT))),
    ],
)
def test_uniform_fills_its_interval(fill: Callable[..., Parameter], bound: float) -> None:
    values = filled(fill)
    assert np.abs(values).max() <= bound * (1 + 1e-6)
    assert np.abs(values).max() > 0.999 * bound
    histogram, _ = np.histogram(values, 10, (-bound, bound))
    assert np.abs(histogram - values.size / 10).max() < 5 * math.sqrt(values.size / 10)


def test_normal_has_normal_tails() -> None:
    values = filled(init.normal, mean=1.0, std=2.0)
    for within, share in ((1, 0.6827), (2, 0.9545), (3, 0.9973)):
        found = (np.abs(values - 1) < 2 * within).mean()
        assert abs(found - share) < 5 * math.sqrt(share * (1 - share) / values.size)


def test_truncated_normal_stays_inside() -> None:
    values = filled(init.truncated_normal, std=2.0, low=-1.0, high=3.0)
    assert values.min() >= -1.0
    assert values.max() <= 3.0
    assert values.mean() > 0.5
    inside = filled(init.truncated_normal, std=0.02)
    assert abs(inside.std() - 0.02) < 0.001


def test_kaiming_keeps_the_size_through_rectifiers() -> None:
    x = Generator(0).normal((64, IN))
    start = x.numpy().std()
    for layer in range(8):
        weight = Parameter(zeros((IN, IN)))
        init.kaiming_normal(weight, generator=Generator(layer + 1))
        x = (x @ weight.T).relu()
    root_mean_square = float((x * x).mean().item()) ** 0.5
    assert 0.5 < root_mean_square / start < 2.0


def test_constants() -> None:
    parameter = Parameter([[1.0, 2.0]])
    assert init.zeros(parameter).tolist() == [[0.0, 0.0]]
    assert init.ones(parameter).tolist() == [[1.0, 1.0]]
    assert init.constant(parameter, -2.5).tolist() == [[-2.5, -2.5]]


@pytest.mark.parametrize(
    "fill",
    [init.kaiming_normal, init.kaiming_uniform, init.xavier_normal, init.xavier_uniform,
     init.normal, init.uniform, init.truncated_normal],
)  # fmt: skip
def test_a_generator_decides(fill: Callable[..., Parameter], backend: Backend) -> None:
    here = Parameter(np.zeros((5, 3)), backend=backend)
    there = Parameter(np.zeros((5, 3)), dtype=float64)
    generator = Generator(1)
    fill(here, generator=generator)
    fill(there, generator=Generator(1))
    np.testing.assert_array_equal(here.numpy(), there.numpy())
    fill(here, generator=generator)
    assert not np.array_equal(here.numpy(), there.numpy())
    assert here.backend is backend


def test_fans_count_the_kernel() -> None:
    assert init.fans((4, 3)) == (3, 4)
    assert init.fans((4, 3, 2, 5)) == (30, 40)
    values = filled(init.kaiming_normal, 40, 30, 5, 2)
    assert abs(values.std() / math.sqrt(2 / 300) - 1) < 0.03


def test_gains() -> None:
    assert [init.gain("linear"), init.gain("sigmoid"), init.gain("tanh")] == [1.0, 1.0, 5 / 3]
    assert init.gain("relu") == math.sqrt(2)
    assert init.gain("leaky_relu", slope=math.sqrt(5)) == pytest.approx(1 / math.sqrt(3))


WEIGHT = Parameter([[1.0, 2.0]], name="weight")
BIAS = Parameter([1.0, 2.0], name="bias")


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (lambda g: init.kaiming_normal(BIAS, generator=g), r"to have a fan, not \(2,\)"),
        (lambda g: init.xavier_uniform(BIAS, generator=g), r"to have a fan, not \(2,\)"),
        (lambda g: init.kaiming_uniform(WEIGHT, generator=g, fan="both"), "'in' or 'out'"),  # type: ignore[arg-type]
        (
            lambda g: init.kaiming_normal(WEIGHT, generator=g, nonlinearity="gelu"),  # type: ignore[arg-type]
            "must be .linear.",
        ),
        (lambda g: init.normal(WEIGHT, generator=g, std=-1.0), "must not be negative: -1.0"),
        (lambda g: init.normal(WEIGHT, generator=g, std=math.nan), "must not be negative: nan"),
        (lambda g: init.uniform(WEIGHT, generator=g, low=1.0, high=0.0), "low 1.0 is above"),
        (lambda g: init.truncated_normal(WEIGHT, generator=g, low=9.0, high=10.0), "almost no"),
    ],
)  # fmt: skip
def test_errors_change_nothing(fill: Callable[[Generator], object], message: str) -> None:
    generator = Generator(0)
    with pytest.raises(ValueError, match=message):
        fill(generator)
    assert WEIGHT.tolist() == [[1.0, 2.0]]
    assert BIAS.tolist() == [1.0, 2.0]
    assert generator.position == 0


def test_filling_counts_as_a_change() -> None:
    weight = Parameter([[1.0, 2.0]], name="weight")
    loss = (weight * tensor([[3.0, 4.0]])).sum()
    init.zeros(weight)
    with pytest.raises(RuntimeError, match="'weight' was changed in place"):
        loss.backward()
