"""`linear` with everything that may follow it, against separate steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from rumus.tensor import (
    Backend,
    ModifiedTensorError,
    NumpyBackend,
    Parameter,
    Tensor,
    elementwise,
    gelu,
    leaky_relu,
    linear,
    maximum,
    no_grad,
    relu,
    tanh,
    tensor,
)

SHAPES = {"x": (2, 5, 6), "weight": (4, 6), "bias": (4,), "residual": (2, 5, 4), "last": (3, 4)}


@elementwise
def halved(x: Any) -> Any:
    """An activation whose derivative does not need x."""
    return 0.5 * x


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor] | None] = {
    "none": None,
    "relu": relu,
    "gelu": gelu,
    "slope": partial(leaky_relu, slope=0.3),
    "halved": halved,
    "no kernel": lambda x: x * x.sum(-1, keepdims=True),
}


def parameters(backend: Backend, dtype: Any) -> dict[str, Parameter]:
    normal = np.random.default_rng(5).standard_normal
    return {n: Parameter(normal(s), dtype=dtype, backend=backend) for n, s in SHAPES.items()}


def gradients(y: Tensor, of: dict[str, Parameter], names: str) -> list[Any]:
    weights = np.cos(np.arange(y.size)).reshape(y.shape)
    grads = (y * tensor(weights, dtype=y.dtype, backend=y.backend)).sum().backward()
    return [y.numpy(), *(grads[of[name]].numpy() for name in names.split())]


def one_by_one(p: dict[str, Parameter], activation: Any, has_bias: bool, has_residual: bool) -> Any:
    y = p["x"] @ p["weight"].transpose()
    y = y + p["bias"] if has_bias else y
    y = y if activation is None else activation(y)
    return y + p["residual"] if has_residual else y


@pytest.mark.parametrize("ends", ["", "bias", "residual", "bias residual"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_equals_the_steps(name: str, ends: str, backend: Backend) -> None:
    activation, given = ACTIVATIONS[name], ends.split()
    names = f"x weight last {ends}"
    exact = parameters(NumpyBackend(), np.float64)
    z = one_by_one(exact, activation, "bias" in given, "residual" in given)
    expected = gradients(z @ exact["last"].transpose(), exact, names)
    p = parameters(backend, np.float32)
    more = {end: p[end] for end in given}
    y = linear(p["x"], p["weight"], activation=activation, **more)
    found = gradients(linear(y, p["last"]), p, names)
    for got, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=2e-5)


def test_gradients_of_several_uses_add_up(backend: Backend) -> None:
    def value(p: dict[str, Parameter]) -> Tensor:
        h = linear(p["x"], p["weight"], p["bias"], activation=tanh)
        return linear(h, p["last"]) + linear(h, p["last"], activation=relu) + (h @ p["last"].T)

    exact, p = parameters(NumpyBackend(), np.float64), parameters(backend, np.float32)
    names = "x weight bias last"
    results = (gradients(value(each), each, names) for each in (p, exact))
    for got, wanted in zip(*results, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("frozen", ["x", "weight", "bias", "residual"])
def test_frozen_parameters_get_no_gradient(frozen: str, backend: Backend) -> None:
    p = parameters(backend, np.float32)
    p[frozen].requires_grad = False
    y = linear(p["x"], p["weight"], p["bias"], activation=gelu, residual=p["residual"])
    grads = y.sum().backward()
    trained = {"x", "weight", "bias", "residual"} - {frozen}
    assert {name for name in SHAPES if p[name] in grads} == trained


def test_behind_two_inputs(backend: Backend) -> None:
    """The gradient of a gate's output is computed in the product, for both inputs."""

    @elementwise
    def gated(a: Any, b: Any) -> Any:
        return a.sigmoid() * b

    def value(p: dict[str, Parameter], gate: Callable[..., Tensor]) -> Tensor:
        a, b = linear(p["x"], p["weight"]), linear(p["x"], p["weight"], p["bias"])
        return linear(gate(a, b), p["last"])

    exact, p = parameters(NumpyBackend(), np.float64), parameters(backend, np.float32)
    found = gradients(value(p, gated), p, "x weight bias")
    wanted = gradients(value(exact, lambda a, b: a.sigmoid() * b), exact, "x weight bias")
    for got, expected in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)


def test_evaluation_is_the_same(backend: Backend) -> None:
    p = parameters(backend, np.float32)
    y = linear(p["x"], p["weight"], p["bias"], activation=gelu)
    with no_grad():
        np.testing.assert_array_equal(
            linear(p["x"], p["weight"], p["bias"], activation=gelu).numpy(), y.numpy()
        )


def test_a_result_that_is_needed_must_not_change() -> None:
    p = parameters(NumpyBackend(), np.float32)
    y = linear(p["x"], p["weight"], activation=relu)
    loss = y.sum()
    y.detach()[0] = 1.0
    with pytest.raises(ModifiedTensorError, match="linear"):
        loss.backward()


def test_bad_input() -> None:
    p = parameters(NumpyBackend(), np.float32)
    with pytest.raises(ValueError, match=r"residual of shape \(2, 5, 4\), got \(4,\)"):
        linear(p["x"], p["weight"], residual=p["bias"])
    two: Any = elementwise(lambda a, b: maximum(a, b))
    with pytest.raises(TypeError, match="function of one tensor"):
        linear(p["x"], p["weight"], activation=two)
    function: Any = relu
    with pytest.raises(TypeError, match="has no parameter 'slope'"):
        linear(p["x"], p["weight"], activation=partial(function, slope=0.1))


def test_an_activation_with_a_tensor_of_its_own_runs_after_the_product() -> None:
    p = parameters(NumpyBackend(), np.float32)
    larger: Any = partial(elementwise(lambda a, b: maximum(a, b)), b=p["bias"])
    np.testing.assert_array_equal(
        linear(p["x"], p["weight"], activation=larger).numpy(),
        maximum(linear(p["x"], p["weight"]), p["bias"]).numpy(),
    )
