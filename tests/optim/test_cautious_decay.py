"""`cautious_weight_decay`: against its formula in float64, and with other options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.optim import (
    SGD,
    Adam,
    AdamW,
    FusedOptimizer,
    Lion,
    ParameterGroup,
    ScheduleFreeAdamW,
    linear,
)
from rumus.tensor import Backend, DType, Expr, GradientStore, Parameter, float16, float64, tensor

Real = NDArray[Any]
# The rest of the rule's step, which lowers p by lr u: computes u from the gradients so far.
Update = Callable[[Sequence[Real]], Real]
STEPS: Final = 200


def of_sgd(gradients: Sequence[Real]) -> Real:
    b = gradients[0]
    for g in gradients[1:]:
        b = 0.9 * b + g
    return b


def of_adam(gradients: Sequence[Real]) -> Real:
    m, v = np.zeros_like(gradients[0]), np.zeros_like(gradients[0])
    for g in gradients:
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    t = len(gradients)
    return m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)


def of_lion(gradients: Sequence[Real]) -> Real:
    m = np.zeros_like(gradients[0])
    for g in gradients[:-1]:
        m = 0.99 * m + 0.01 * g
    return np.sign(0.9 * m + 0.1 * gradients[-1])


KINDS: Final[dict[str, tuple[Callable[..., FusedOptimizer[Any]], dict[str, Any], Update]]] = {
    "SGD": (SGD, {"momentum": 0.9}, of_sgd),
    "Adam": (Adam, {}, of_adam),
    "AdamW": (AdamW, {}, of_adam),
    "Lion": (Lion, {}, of_lion),
}


def expected(p: Real, gradients: Sequence[Real], update: Update, lr: float, decay: Any) -> Real:
    for t in range(1, len(gradients) + 1):
        u = update(gradients[:t])
        weight_decay = decay(t) if callable(decay) else decay
        p = p - lr * u - lr * weight_decay * np.where(u * p >= 0, p, 0.0)
    return p


def drawn(steps: int = STEPS) -> tuple[Real, list[Real]]:
    draw = np.random.default_rng(5)
    return draw.normal(size=(7, 9)), [draw.normal(size=(7, 9)) for _ in range(steps)]


def train(optimizer: FusedOptimizer[Any], gradients: Sequence[Real]) -> None:
    for gradient in gradients:
        grads = GradientStore()
        for p in optimizer.parameters:
            grads.accumulate(p, tensor(gradient, dtype=p.dtype, backend=p.backend))
        optimizer.step(grads)


def parameter(values: Real, dtype: DType = float64, backend: Backend | None = None) -> Parameter:
    return Parameter(tensor(values, dtype=dtype, backend=backend), name="w")


@pytest.mark.parametrize("decay", [0.3, linear(0.5, 0.1, STEPS)], ids=["number", "schedule"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_formula(kind: str, decay: Any, backend: Backend, widest: DType) -> None:
    make, options, update = KINDS[kind]
    start, gradients = drawn()
    w = parameter(start, widest, backend)
    options = {**options, "weight_decay": decay, "cautious_weight_decay": True}
    train(make([w], 0.01, **options), gradients)
    wanted = expected(start, gradients, update, 0.01, decay)
    tolerance = 1e-12 if widest == float64 else 2e-5
    np.testing.assert_allclose(w.numpy(), wanted, rtol=tolerance, atol=tolerance)


def test_float16_with_master_weights_and_compensation() -> None:
    """The arithmetic is float32; only the rounding of p to float16 is lost."""
    start, gradients = drawn(50)
    start = start.astype(np.float16).astype(np.float64)
    gradients = [g.astype(np.float16).astype(np.float64) for g in gradients]
    w = parameter(start, float16)
    options: dict[str, Any] = {"master_weights": True, "compensated": True}
    optimizer = AdamW([w], 0.01, weight_decay=0.3, cautious_weight_decay=True, **options)
    train(optimizer, gradients)
    wanted = expected(start, gradients, of_adam, 0.01, 0.3)
    (entry,) = optimizer.state_dict()["parameters"].values()
    np.testing.assert_allclose(entry["state"]["master"], wanted, rtol=1e-5, atol=1e-5)


def test_elements_moving_away_from_zero_do_not_decay(backend: Backend) -> None:
    """Not a single bit changes, since the rule's own decay is 0 everywhere."""
    values = np.array([1.0, -1.0, 2.0, -2.0])
    away = -np.sign(values)
    found = []
    for decay in (0.0, 0.5):
        w = parameter(values, np.dtype(np.float32), backend)
        options: dict[str, Any] = {"weight_decay": decay, "cautious_weight_decay": True}
        train(AdamW([w], 0.1, **options), [away] * 5)
        found.append(w.numpy().tobytes())
    assert found[0] == found[1]


def test_an_element_that_does_not_move_decays(backend: Backend) -> None:
    """The paper's condition is u p >= 0, so 0 agrees with either sign."""
    w = parameter(np.array([1.0, -4.0]), np.dtype(np.float32), backend)
    optimizer = SGD([w], 0.5, weight_decay=0.5, cautious_weight_decay=True)
    train(optimizer, [np.zeros(2)])
    assert w.tolist() == [0.75, -3.0]


def test_signs_are_compared_where_a_product_would_underflow(backend: Backend) -> None:
    w = parameter(np.array([1e-30, 1e-30]), np.dtype(np.float32), backend)
    optimizer = SGD([w], 1.0, weight_decay=0.5, cautious_weight_decay=True)
    train(optimizer, [np.array([-1e-30, 1e-30])])
    np.testing.assert_allclose(w.numpy(), [2e-30, -0.5e-30], rtol=1e-6)


def test_maximize_and_groups() -> None:
    start, gradients = drawn(20)
    decaying, free = parameter(start), parameter(start)
    groups = [ParameterGroup([decaying], weight_decay=0.3), ParameterGroup([free])]
    train(SGD(groups, 0.01, maximize=True, cautious_weight_decay=True), gradients)
    minus = [-g for g in gradients]
    wanted = (expected(start, minus, lambda g: g[-1], 0.01, decay) for decay in (0.3, 0.0))
    for found, by_formula in zip((decaying, free), wanted, strict=True):
        np.testing.assert_allclose(found.numpy(), by_formula, rtol=1e-12)


def test_it_may_be_set() -> None:
    w = parameter(np.array([1.0]))
    optimizer = SGD([w], 0.5, weight_decay=0.0, cautious_weight_decay=True)
    train(optimizer, [np.zeros(1)])
    optimizer.set(weight_decay=1.0)
    train(optimizer, [np.zeros(1)])
    assert w.tolist() == [0.5]


def test_a_rule_without_a_derivable_update_is_refused() -> None:
    def product(p: Expr, g: Expr, *, lr: Expr) -> dict[str, Expr]:
        return {"p": p * g * lr}

    w = parameter(np.ones(2))
    with pytest.raises(TypeError, match="cautious_weight_decay: the rule product must return p"):
        FusedOptimizer([w], product, cautious_weight_decay=True)
    assert w.owner is None


def test_an_optimizer_with_an_average_of_its_own_is_refused() -> None:
    w = parameter(np.ones(2))
    with pytest.raises(TypeError, match="but not the average that this optimizer keeps"):
        ScheduleFreeAdamW([w], cautious_weight_decay=True)
    assert w.owner is None
