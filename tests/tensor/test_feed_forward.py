"""`feed_forward` against the two products that it consists of."""

from __future__ import annotations

import weakref
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
    feed_forward,
    float16,
    gelu,
    leaky_relu,
    linear,
    no_grad,
    relu,
    tanh,
    tensor,
)

SHAPES = {
    "x": (2, 5, 6), "up": (12, 6), "up_bias": (12,), "down": (4, 12), "down_bias": (4,),
    "residual": (2, 5, 4),
}  # fmt: skip
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": relu,
    "gelu": gelu,
    "tanh": tanh,
    "slope": partial(leaky_relu, slope=0.3),
    "no kernel": lambda x: x * x.sum(-1, keepdims=True),
}


def parameters(backend: Backend, dtype: Any = np.float32) -> dict[str, Parameter]:
    normal = np.random.default_rng(5).standard_normal
    return {n: Parameter(normal(s), dtype=dtype, backend=backend) for n, s in SHAPES.items()}


def gradients(y: Tensor, of: dict[str, Parameter], names: list[str]) -> list[Any]:
    weights = np.cos(np.arange(y.size)).reshape(y.shape)
    grads = (y * tensor(weights, dtype=y.dtype, backend=y.backend)).sum().backward()
    return [y.numpy(), *(grads[of[name]].numpy() for name in names)]


def fused(p: dict[str, Parameter], activation: Any, ends: list[str]) -> Tensor:
    given = {name: p[name] if name in ends else None for name in ("up_bias", "down_bias")}
    return feed_forward(
        p["x"], p["up"], given["up_bias"], p["down"], given["down_bias"], activation=activation,
        residual=p["residual"] if "residual" in ends else None,
    )  # fmt: skip


def one_by_one(p: dict[str, Parameter], activation: Any, ends: list[str]) -> Tensor:
    z = p["x"] @ p["up"].transpose()
    hidden: Tensor = activation(z + p["up_bias"] if "up_bias" in ends else z)
    y = hidden @ p["down"].transpose()
    y = y + p["down_bias"] if "down_bias" in ends else y
    return y + p["residual"] if "residual" in ends else y


@pytest.mark.parametrize(
    "ends", ["", "up_bias", "down_bias residual", "up_bias down_bias residual"]
)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_equals_the_steps(name: str, ends: str, backend: Backend) -> None:
    names = ["x", "up", "down", *ends.split()]
    exact = parameters(NumpyBackend(), np.float64)
    expected = gradients(one_by_one(exact, ACTIVATIONS[name], ends.split()), exact, names)
    p = parameters(backend)
    found = gradients(fused(p, ACTIVATIONS[name], ends.split()), p, names)
    for got, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=3e-5, atol=3e-5)


@pytest.mark.parametrize("frozen", [["x"], ["up", "up_bias"], ["down"], ["x", "up", "down_bias"]])
def test_inputs_that_need_no_gradient_get_none(frozen: list[str], backend: Backend) -> None:
    p = parameters(backend)
    for name in frozen:
        p[name].requires_grad = False
    names = [name for name in p if name not in frozen]
    found = gradients(fused(p, gelu, list(p)), p, names)
    wanted = gradients(one_by_one(p, gelu, list(p)), p, names)
    for got, expected in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, expected, rtol=3e-5, atol=3e-5)


def test_without_backward_it_is_two_products(backend: Backend) -> None:
    p = parameters(backend)
    with no_grad():
        y = fused(p, gelu, list(p))
        hidden = linear(p["x"], p["up"], p["up_bias"], activation=gelu)
        again = linear(hidden, p["down"], p["down_bias"], residual=p["residual"])
    assert not y.requires_grad
    assert (y.numpy() == again.numpy()).all()


def test_dtypes_are_promoted(backend: Backend) -> None:
    p = parameters(backend) | {"up": parameters(backend, float16)["up"]}
    y = fused(p, relu, [])
    assert y.dtype == np.float32
    assert gradients(y, p, ["up"])[1].dtype == np.float16


def test_a_weight_that_changed_in_between_is_an_error(backend: Backend) -> None:
    p = parameters(backend)
    loss = fused(p, gelu, []).sum()
    p["down"].detach()[0] = 1.0
    with pytest.raises(ModifiedTensorError, match="changed in place"):
        loss.backward()


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("up", (12, 5), "the last axis must be 5"),
        ("up_bias", (11,), "a bias of shape"),
        ("down", (4, 11), "the last axis must be 11"),
        ("residual", (2, 5, 5), "a residual of shape"),
    ],
)
def test_misfits(name: str, shape: tuple[int, ...], message: str) -> None:
    p = parameters(NumpyBackend())
    p[name] = Parameter(np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match=message):
        fused(p, gelu, list(p))


def test_only_the_argument_of_the_activation_is_kept(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = parameters(backend)
    made: list[weakref.ref[Any]] = []
    allocate = backend.allocate

    def noted(shape: Any, dtype: Any) -> Any:
        array = allocate(shape, dtype)
        if shape == (10, 12):
            made.append(weakref.ref(array))
        return array

    monkeypatch.setattr(backend, "allocate", noted)
    y = fused(p, gelu, [])
    assert [array() is None for array in made] == [False, True]
    y.sum().backward()
    assert all(array() is None for array in made)
