"""A user's own rule: one function, checked before anything is claimed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rumus.optim import LARS, SGD, FusedOptimizer, Muon, ParameterGroup, RMSprop
from rumus.tensor import Backend, Expr, Parameter, tensor


def lion(
    p: Expr, g: Expr, m: Expr, *, lr: Expr, beta1: Expr, beta2: Expr, weight_decay: Expr
) -> dict[str, Expr]:
    """p = p - lr (sign(beta1 m + (1 - beta1) g) + weight_decay p).

    m = beta2 m + (1 - beta2) g. Chen et al.: arXiv:2302.06675.
    """
    update = (beta1 * m + (1 - beta1) * g).sign() + weight_decay * p
    return {"p": p - lr * update, "m": beta2 * m + (1 - beta2) * g}


def parameter(backend: Backend, name: str = "w") -> Parameter:
    return Parameter(np.linspace(-1.0, 1.0, 7), name=name, backend=backend)


def test_lion(backend: Backend) -> None:
    w = parameter(backend)
    optimizer = FusedOptimizer([w], lion, 0.03125, betas=(0.5, 0.75), weight_decay=0.125)
    assert optimizer.kind == "lion"
    p, m = w.numpy().astype(np.float64), np.zeros(7)
    draw = np.random.default_rng(1)
    for _ in range(50):
        g = draw.normal(size=7).astype(np.float32)
        optimizer.step((w * tensor(g, backend=backend)).sum().backward())
        p = p - 0.03125 * (np.sign(0.5 * m + 0.5 * g) + 0.125 * p)
        m = 0.75 * m + 0.25 * g
    np.testing.assert_allclose(w.numpy(), p, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(
        optimizer.state_dict()["parameters"]["w"]["state"]["m"], m, rtol=1e-5
    )


def refused(rule: Any, message: str, backend: Backend, **hyper: Any) -> None:
    w = parameter(backend)
    before = w.numpy()
    with pytest.raises(TypeError, match=message):
        FusedOptimizer([w], rule, **hyper)
    assert w.owner is None
    assert (w.numpy() == before).all()


def test_an_unknown_keyword(backend: Backend) -> None:
    refused(lion, "gamma", backend, betas=(0.9, 0.99), weight_decay=0.0, gamma=1.0)


def test_an_unknown_keyword_of_a_group(backend: Backend) -> None:
    w = parameter(backend)
    with pytest.raises(TypeError, match="gamma"):
        FusedOptimizer(
            [ParameterGroup([w], gamma=1.0)], lion, 0.1, betas=(0.9, 0.99), weight_decay=0.0
        )
    assert w.owner is None


def test_a_missing_scalar(backend: Backend) -> None:
    refused(lion, "lion needs a value for 'beta1'", backend, weight_decay=0.0)


def test_a_state_that_is_not_returned(backend: Backend) -> None:
    refused(lambda p, g, m, *, lr: {"p": p - lr * (g + m)}, "m.*no new value", backend)


def test_an_unexpected_value(backend: Backend) -> None:
    refused(lambda p, g, *, lr: {"p": p - lr * g, "m": g}, "returns.*m", backend)


def test_nothing_returned(backend: Backend) -> None:
    refused(lambda p, g, *, lr: None, "must return", backend)
    refused(lambda p, g, *, lr: p - lr * g, "must return", backend)
    refused(lambda p, g, *, lr: {"m": g}, "must return", backend)


def test_a_value_that_is_not_an_expression(backend: Backend) -> None:
    refused(lambda p, g, *, lr: {"p": "p - lr g"}, "str", backend)


def test_a_rule_without_gradient(backend: Backend) -> None:
    refused(lambda p, *, lr: {"p": p}, "p and g first", backend)


def test_a_number_is_a_value(backend: Backend) -> None:
    w = parameter(backend)
    optimizer = FusedOptimizer([w], lambda p, g, m, *, lr: {"p": p - lr * g + m, "m": 0.5}, 0.25)
    for _ in range(2):
        optimizer.step(w.sum().backward())
    assert w.tolist() == pytest.approx((np.linspace(-1.0, 1.0, 7)).tolist())


def test_defaults_of_a_rule(backend: Backend) -> None:
    def signed(p: Expr, g: Expr, *, lr: Any, scale: Any = 2.0) -> dict[str, Expr]:
        return {"p": p - lr * scale * g.sign()}

    w = parameter(backend)
    start = w.numpy()
    optimizer = FusedOptimizer([w], signed, 0.25)
    optimizer.step(w.sum().backward())
    assert w.tolist() == (start - 0.5).tolist()
    optimizer.set(scale=4.0)
    optimizer.step(w.sum().backward())
    assert w.tolist() == (start - 0.5 - 1.0).tolist()


def test_weight_decay_and_maximize_for_a_rule_without_them(backend: Backend) -> None:
    w = parameter(backend)
    p = w.numpy().astype(np.float64)
    plain = lambda p, g, *, lr: {"p": p - lr * g}
    optimizer = FusedOptimizer([w], plain, 0.125, weight_decay=0.5, maximize=True)
    optimizer.step(w.sum().backward())
    p = p - 0.125 * (-1.0 + 0.5 * p)
    np.testing.assert_allclose(w.numpy(), p, rtol=1e-6, atol=1e-7)


def test_set_refuses_unknown_scalars(backend: Backend) -> None:
    optimizer = FusedOptimizer([parameter(backend)], lion, 0.1, betas=(0.9, 0.99), weight_decay=0.0)
    before = dict(optimizer.hyper)
    with pytest.raises(TypeError, match="gamma"):
        optimizer.set(lr=0.5, gamma=1.0)
    with pytest.raises(ValueError, match="beta2"):
        optimizer.set(lr=0.5, betas=(0.9, 1.0))
    assert optimizer.hyper == before


@pytest.mark.parametrize(
    "alpha", [5.0, -2.0, lambda t: min(5 * t / 4, 5.0)], ids=["large", "negative", "function"]
)
def test_a_rule_may_name_its_scalars_freely(alpha: Any) -> None:
    """Other optimizers have ranges for these names, and their own meanings."""

    def mixing(p: Expr, g: Expr, *, lr: Expr, alpha: Expr, rho: Expr, momentum: Any = 3.0) -> Any:
        return {"p": p - lr * (alpha + rho + momentum) * g}

    groups = [ParameterGroup([Parameter([1.0], name="p")], rho=-1.0)]
    optimizer = FusedOptimizer(groups, mixing, lr=0.5, alpha=alpha, rho=7.0)
    (p,) = optimizer.parameters
    expected = 1.0
    for t in range(1, 7):
        optimizer.step(p.sum().backward())
        expected -= 0.5 * ((alpha(t) if callable(alpha) else alpha) - 1.0 + 3.0)
    assert p.item() == pytest.approx(expected)
    optimizer.set(alpha=-9.0)
    for name in ("lr", "weight_decay"):
        with pytest.raises(ValueError, match=f"{name} must be finite and >= 0, not -1"):
            optimizer.set(**{name: -1.0})


@pytest.mark.parametrize("make", [SGD, RMSprop, LARS, Muon])
def test_a_momentum_of_1_forgets_nothing(make: Callable[..., Any]) -> None:
    p = Parameter(np.ones((2, 2)), name="p")
    for momentum in (1.0, 1.5):
        with pytest.raises(ValueError, match=r"momentum must be finite and in \[0, 1\)"):
            make([p], 0.1, momentum=momentum)
    assert p.owner is None


def test_the_ranges_of_an_optimizer_hold_for_its_groups() -> None:
    p = Parameter([1.0], name="p")
    with pytest.raises(ValueError, match="alpha must be finite and in"):
        RMSprop([ParameterGroup([p], alpha=5.0)])
    assert p.owner is None
