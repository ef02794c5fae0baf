"""The softmax family: a backend's fused version against its decomposition, and odd rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from rumus.tensor import Backend, Parameter, Tensor, cross_entropy, log_softmax, softmax, tensor
from rumus.tensor.softmaxes import (
    cross_entropy_primitive,
    log_softmax_primitive,
    softmax_primitive,
)

INDEX = [0, 3, 6, 2, 2]
FUSED: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "softmax": (softmax, softmax_primitive),
    "log_softmax": (log_softmax, log_softmax_primitive),
    "cross_entropy": (
        lambda x: cross_entropy(x, tensor(INDEX, backend=x.backend)),
        lambda x: cross_entropy_primitive(x, tensor(INDEX, backend=x.backend)),
    ),
}


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
@pytest.mark.parametrize("name", FUSED)
def test_fused_is_its_decomposition(name: str, scale: float, backend: Backend) -> None:
    rng = np.random.default_rng(5)
    values = scale * rng.normal(size=(5, 7))
    values[1, 2] = -np.inf
    results = []
    for function in FUSED[name]:
        x = Parameter(values, backend=backend)
        y = function(x)
        weights = tensor(np.cos(np.arange(y.size)).reshape(y.shape), backend=backend)
        finite = (y.abs() < float("inf")).where(y, 0.0)
        results.append((y.numpy(), (finite * weights).sum().backward()[x].numpy()))
    (value, gradient), (expected, expected_gradient) = results
    np.testing.assert_allclose(value, expected, rtol=3e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=3e-5, atol=1e-6)


def test_large_logits_do_not_overflow(backend: Backend) -> None:
    x = tensor([[1000.0, 0.0], [-1000.0, -1000.0]], backend=backend)
    assert x.softmax().tolist() == [[1.0, 0.0], [0.5, 0.5]]
    assert x.log_softmax().numpy()[0].tolist() == [0.0, -1000.0]
    assert x.logsumexp().numpy() == pytest.approx([1000.0, -1000 + np.log(2)])
    assert cross_entropy(x, tensor([1, 0], backend=backend)).numpy()[0] == 1000.0


def test_logsumexp_of_infinities(backend: Backend) -> None:
    inf = float("inf")
    x = tensor([[-inf, -inf], [inf, 0.0], [-inf, 1.0]], backend=backend)
    assert x.logsumexp().tolist() == [-inf, inf, 1.0]


@pytest.mark.parametrize("function", [softmax, log_softmax, lambda x: x.logsumexp()])
def test_nan_stays_in_its_row(function: Callable[[Tensor], Tensor], backend: Backend) -> None:
    x = tensor([[1.0, float("nan")], [1.0, 2.0]], backend=backend)
    result = function(x).numpy()
    assert np.isnan(result[0]).all()
    assert np.isfinite(result[1]).all()


def test_integer_logits_become_floating(backend: Backend) -> None:
    assert tensor([0, 0], backend=backend).softmax().tolist() == [0.5, 0.5]
