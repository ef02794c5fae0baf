"""Softmaxes and norms: a backend's fused version against its decomposition, and odd rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rumus.tensor import (
    Backend,
    Parameter,
    Tensor,
    cross_entropy,
    layer_norm,
    log_softmax,
    rms_norm,
    softmax,
    stack,
    tensor,
)
from rumus.tensor.graph.softmaxes import log_softmax_primitive, softmax_primitive
from rumus.tensor.operations.batch_norm import batch_norm
from rumus.tensor.operations.cross_entropy import cross_entropy_primitive
from rumus.tensor.operations.norms import layer_norm_primitive, rms_norm_primitive

INDEX = [0, 3, 6, 2, 2]
WEIGHTS = [0.5, 3.0, 0.0, 1.0, 2.0, 0.1, 0.25]


ENTROPIES: dict[str, tuple[bool, float, int | None, list[float] | None]] = {
    "plain": (False, 0.0, None, None),
    "smoothed": (False, 0.1, None, None),
    "ignoring": (False, 0.0, 2, None),
    "weighted": (False, 0.0, None, WEIGHTS),
    "weighted, smoothed, ignoring": (False, 0.3, 2, WEIGHTS),
    "of places": (True, 0.0, None, None),
    "of places, weighted": (True, 0.0, 0, WEIGHTS[:5]),
}


def entropies(
    of_places: bool, smoothing: float, ignored: int | None, weight: list[float] | None
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """The losses of the rows of x, or of twice its columns: fused, and in primitives."""

    def given(x: Tensor) -> tuple[Any, ...]:
        w = None if weight is None else tensor(weight, dtype=x.dtype, backend=x.backend)
        targets = [[0, 3, 4, 2, 2, 1, 1], [4, 0, 0, 1, 3, 2, 1]] if of_places else INDEX
        rows = stack([x, x * 0.5]) if of_places else x * 1.0
        return rows, tensor(targets, backend=x.backend), smoothing, ignored, w

    return (
        lambda x: cross_entropy(*given(x)),
        lambda x: cross_entropy_primitive(*given(x))[0],
    )


FUSED: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "softmax": (softmax, softmax_primitive),
    "log_softmax": (log_softmax, log_softmax_primitive),
    **{f"cross_entropy, {name}": entropies(*given) for name, given in ENTROPIES.items()},
    "layer_norm": (layer_norm, layer_norm_primitive),
    "layer_norm of the whole": (
        lambda x: layer_norm(x.reshape(35), x.reshape(35).exp(), x.reshape(35), 0.1),
        lambda x: layer_norm_primitive(x.reshape(35), x.reshape(35).exp(), x.reshape(35), 0.1),
    ),
    "layer_norm scaled": (
        lambda x: layer_norm(x, x[0]),
        lambda x: layer_norm_primitive(x, x[0]),
    ),
    "rms_norm": (rms_norm, rms_norm_primitive),
    "rms_norm scaled": (
        lambda x: rms_norm(x.T, x[:, 3], 0.1),
        lambda x: rms_norm_primitive(x.T, x[:, 3], 0.1),
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


@pytest.mark.parametrize("function", [layer_norm, rms_norm])
def test_a_norm_of_nan_stays_in_its_row(
    function: Callable[[Tensor], Tensor], backend: Backend
) -> None:
    x = tensor([[1.0, float("nan")], [1.0, 2.0]], backend=backend)
    result = function(x).numpy()
    assert np.isnan(result[0]).all()
    assert np.isfinite(result[1]).all()


@pytest.mark.parametrize("width", [3, 700])
def test_a_norm_of_no_rows_gives_its_weight_zeros(width: int, backend: Backend) -> None:
    x = Parameter(np.ones((0, width)), backend=backend)
    weight, bias = (Parameter(np.ones(width), backend=backend) for _ in range(2))
    result = layer_norm(x, weight, bias)
    assert result.shape == (0, width)
    grads = result.sum().backward()
    assert grads[x].shape == (0, width)
    for parameter in (weight, bias):
        assert grads[parameter].tolist() == [0.0] * width


def test_norms_compute_in_the_widest_dtype_of_their_operands(backend: Backend) -> None:
    low = tensor(np.array([[300, -300, 100]], np.float16), backend=backend)
    single = tensor([1.0, 2.0, 3.0], backend=backend)
    assert rms_norm(low).dtype == np.float16
    assert rms_norm(low, single).dtype == np.float16
    assert layer_norm(single, low[0]).dtype == np.float32
    assert np.isfinite(layer_norm(low, single, single).numpy()).all()


def test_a_frozen_weight_and_a_constant_input_get_no_gradient(backend: Backend) -> None:
    x = tensor([[1.0, 2.0, 4.0]], backend=backend)
    weight, bias = (Parameter([1.0, 2.0, 3.0], backend=backend) for _ in range(2))
    weight.requires_grad = False
    grads = layer_norm(x, weight, bias).sum().backward()
    assert list(grads) == [bias]
    assert grads[bias].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda x: layer_norm(x, bias=x[0]), ValueError, "a bias needs a weight"),
        (lambda x: layer_norm(x, x), ValueError, r"weight of shape \(3,\).*got \(2, 3\)"),
        (lambda x: layer_norm(x, x[0], x[0, :2]), ValueError, r"bias of shape \(3,\)"),
        (lambda x: rms_norm(x[0, 0]), ValueError, "no elements along its last axis"),
        (lambda x: rms_norm(x[:, :0]), ValueError, "no elements along its last axis"),
        (lambda x: rms_norm(x, eps=0.0), ValueError, "eps must be finite and positive, not 0.0"),
        (lambda x: layer_norm(x, eps=math.inf), ValueError, "eps must be finite and .*not inf"),
        (lambda x: batch_norm(x, eps=math.inf)[0], ValueError, "eps must be finite and .*not inf"),
        (lambda x: rms_norm(x.astype(np.int32)), TypeError, "must be floating, not int32"),
    ],
)
def test_norms_refuse_misfits(
    make: Callable[[Tensor], Tensor], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make(tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
