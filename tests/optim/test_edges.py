"""Gradients for which a quotient, a root or a product could go wrong in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from optimizer_table import KINDS

from rumus.optim import (
    ASGD,
    LBFGS,
    SGD,
    Accumulation,
    Adam,
    AdamW,
    AdEMAMix,
    FusedOptimizer,
    Lion,
    Lookahead,
    MultiOptimizer,
    ParameterGroup,
    Plateau,
    Prodigy,
    RAdam,
    RMSprop,
    Rprop,
    linear,
)
from rumus.tensor import Backend, NumpyBackend, OwnershipError, Parameter, tensor


def trained(optimizer: FusedOptimizer[Any], w: Parameter, gradient: Any, steps: int = 20) -> Any:
    """The parameter after steps with a constant gradient."""
    factor = tensor(np.asarray(gradient, np.float32), backend=w.backend)
    for _ in range(steps):
        optimizer.step((w * factor).sum().backward())
    return w.numpy()


@pytest.mark.parametrize("given", [None, 1.0, tensor(1.0), {}], ids=lambda x: type(x).__name__)
def test_a_step_takes_a_gradient_store(given: Any) -> None:
    w = Parameter([1.0], name="w")
    shown = repr(given) if given is None or isinstance(given, float) else type(given).__name__
    with pytest.raises(TypeError, match=rf"what loss.backward\(\) returned, not {shown}"):
        SGD([w], 0.1).step(given)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_gradient_no_step(kind: type[FusedOptimizer[Any]], backend: Backend) -> None:
    """If the gradient is always 0, nothing moves except by decay, and everything stays finite."""
    w = Parameter([1.0, -2.0, 0.0], name="w", backend=backend)
    # The default decay, if any. LAMB takes a full step if only the decay gives a direction.
    decays = {
        "AdamW": 3e-4,
        "AdEMAMix": 3e-4,
        "SOAP": 7e-4,
        "StableAdamW": 3e-4,
        "ASGD": 3e-4,
        "Muon": 3e-3,
        "LAMB": 0.02,
        "LARS": 0.06,
    }
    decay = decays.get(kind.__name__, 0.0)
    optimizer = kind([w])  # type: ignore[call-arg]
    np.testing.assert_allclose(trained(optimizer, w, [0.0] * 3), [1.0, -2.0, 0.0], rtol=decay)
    state = optimizer.state_dict()["parameters"]["w"]["state"]
    assert all(np.isfinite(array).all() for array in state.values())


@pytest.mark.parametrize("size", [1e-18, 1e-6, 1e6, 1e18])
@pytest.mark.parametrize(
    "kind", [k for k in KINDS if not k.__name__.endswith("SGD")], ids=lambda kind: kind.__name__
)
def test_gradients_of_any_size(
    kind: type[FusedOptimizer[Any]], size: float, backend: Backend
) -> None:
    """They lead downhill without overflow or NaN; SGD is not bounded, so it is not tested."""
    w = Parameter([1.0, -2.0], name="w", backend=backend)
    after = trained(kind([w]), w, [size, -size])  # type: ignore[call-arg]
    assert np.isfinite(after).all()
    assert after[0] <= 1.0
    assert after[1] >= -2.0


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_variance_does_not_fall_below_0(momentum: float, backend: Backend) -> None:
    """For a constant gradient, v - m^2 is 0 up to rounding of either sign."""
    draw = np.random.default_rng(0)
    w = Parameter(np.zeros(257), name="w", backend=backend)
    optimizer = RMSprop([w], alpha=0.5, eps=1.0, centered=True, momentum=momentum)
    assert np.isfinite(trained(optimizer, w, draw.normal(size=257), steps=60)).all()


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_only_the_sign_counts(size: float, backend: Backend) -> None:
    """In float32 Rprop's product of two gradients would be 0 or infinite; their signs are not."""
    small, plain = (Parameter([1.0, 1.0], name=n, backend=backend) for n in ("small", "plain"))
    found = trained(Rprop([small]), small, [size, -size], steps=5)
    assert found.tolist() == trained(Rprop([plain]), plain, [1.0, -1.0], steps=5).tolist()
    a, b = (Parameter([1.0, 1.0], name=n, backend=backend) for n in "ab")
    lion = trained(Lion([a]), a, [size, -size], steps=5)
    assert lion.tolist() == trained(Lion([b]), b, [1.0, -1.0], steps=5).tolist()


@pytest.mark.parametrize("decoupled", [False, True])
def test_radam_without_eps_before_it_adapts(decoupled: bool, backend: Backend) -> None:
    """PyTorch gives [1.0, 0.9] too: a v of 0 is not divided by yet."""
    w = Parameter([1.0, 1.0], name="w", backend=backend)
    optimizer = RAdam([w], 0.1, eps=0.0, decoupled_weight_decay=decoupled, nonfinite="propagate")
    np.testing.assert_allclose(trained(optimizer, w, [0.0, 1.0], steps=1), [1.0, 0.9], rtol=1e-6)


@pytest.mark.parametrize("lr", [np.float32(0.5), np.float64(0.5), np.int64(1), np.array(0.5)])
def test_a_number_of_numpy_is_a_learning_rate(lr: Any) -> None:
    found, plain = Parameter([1.0], name="found"), Parameter([1.0], name="plain")
    assert trained(SGD([found], lr), found, [1.0], 2) == trained(
        SGD([plain], float(lr)), plain, [1.0], 2
    )


def test_asgd_takes_any_alpha_that_is_not_negative() -> None:
    """PyTorch's formula by hand: eta of a step is lr / (1 + lambd lr (t - 1))^alpha."""
    w = Parameter([1.0], name="w", backend=NumpyBackend())
    found = trained(ASGD([w], 0.5, alpha=2.0, lambd=0.25), w, [1.0], 3)
    p = 1.0
    for step in range(3):
        eta = 0.5 / (1 + 0.25 * 0.5 * step) ** 2.0
        p = p * (1 - 0.25 * eta) - eta
    np.testing.assert_allclose(found, [p], rtol=1e-6)


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (lambda p: SGD(p, 1e300), "lr"),
        (lambda p: SGD([ParameterGroup(p, lr=1e39)], 0.1), "lr"),
        (lambda p: SGD([ParameterGroup(p, lr_scale=1e39)], 0.1), "lr_scale"),
        (lambda p: RMSprop(p, weight_decay=1e39), "weight_decay"),
        (lambda p: ASGD(p, lambd=1e39), "lambd"),
        (lambda p: SGD(p, 0.1).set(momentum=-(10**400)), "momentum"),
        (lambda p: SGD(p, 0.1).set(lr=1e39), "lr"),
        (lambda p: SGD(p, linear(1.0, 3e39, 3)), "lr"),
    ],
)
def test_a_number_beyond_float32_is_refused_by_name(made: Any, name: str) -> None:
    """A kernel would take it for infinity, and blame the gradients."""
    with pytest.raises(ValueError, match=f"{name} must be .*, not "):
        made([Parameter([1.0])])


@pytest.mark.parametrize("lr", [Plateau(1e39), lambda t: 1e300])
def test_a_schedule_beyond_float32_is_refused_at_its_step(lr: Any) -> None:
    w = Parameter([1.0], name="w")
    optimizer = SGD([w], lr)
    seen: list[Any] = []

    def train() -> None:
        for _ in range(3):
            seen.append(w.tolist())
            optimizer.step((w * w).sum().backward())

    with pytest.raises(ValueError, match=r"lr must be at most 3.403e\+38.*its schedule, at step"):
        train()
    assert w.tolist() == seen[-1]


def test_numbers_whose_product_leaves_float32_are_refused() -> None:
    w = Parameter([1.0], name="w")
    optimizer = SGD([ParameterGroup([w], lr_scale=1e30)], 1e30)
    with pytest.raises(ValueError, match="the scalars of step 1 are not finite in float32"):
        optimizer.step((w * w).sum().backward())
    accumulation = Accumulation()
    with pytest.raises(ValueError, match=r"weight must be from 0 to 3.403e\+38, not 1e\+39"):
        accumulation.add((w * w).sum().backward(), 1e39)


@pytest.mark.parametrize("made", [SGD, LBFGS, lambda p: Lookahead(SGD(p))])
def test_what_was_released_says_what_to_make(made: Any) -> None:
    w = Parameter([1.0], name="w")
    optimizer = made([w])
    state = optimizer.state_dict()
    optimizer.release()

    def step() -> None:
        if isinstance(optimizer, LBFGS):
            optimizer.minimize_step(lambda: (w * w).sum())
        else:
            optimizer.step((w * w).sum().backward())

    acts = [step, optimizer.state_dict, lambda: optimizer.load_state_dict(state)]
    if not isinstance(optimizer, LBFGS):
        acts.append(lambda: optimizer.set(lr=0.1))
    for act in acts:
        with pytest.raises(OwnershipError, match=r"was released and owns nothing: .* make another"):
            act()


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
def test_what_is_assigned_to_hyper_is_checked_by_the_step(kind: Any, steps: int) -> None:
    rows: list[tuple[str, Any, type[Exception], str]] = [
        ("lr", -1.0, ValueError, "lr must be finite and >= 0, not -1.0"),
        ("lr", "fast", TypeError, "lr must be a number or a function"),
        ("weight_deacy", 0.1, TypeError, "no hyperparameter 'weight_deacy'; did you mean 'weight_"),
    ]
    if kind is not AdamW:
        rows.append(("weight_decay", 0.1, ValueError, r"changed by set\(weight_decay=\.\.\.\)"))
    for name, value, error, message in rows:
        w = Parameter([1.0, 2.0], name="w")
        optimizer = kind([w], 0.1)
        for _ in range(steps):
            optimizer.step((w * w).sum().backward())
        before, held = w.tolist(), dict(optimizer.hyper)
        optimizer.hyper[name] = value
        with pytest.raises(error, match=message):
            optimizer.step((w * w).sum().backward())
        assert (w.tolist(), optimizer.steps) == (before, steps)
        optimizer.hyper.clear()
        optimizer.hyper.update(held, lr=0.0)
        optimizer.step((w * w).sum().backward())
        assert (optimizer.steps, w.tolist()) == (steps + 1, before)


def test_a_weight_decay_that_was_not_0_may_be_assigned() -> None:
    w = Parameter([1.0], name="w")
    optimizer = SGD([w], 0.5, weight_decay=0.5)
    optimizer.hyper["weight_decay"] = 0.0
    optimizer.step((w * 0.0).sum().backward())
    assert w.tolist() == [1.0]
    optimizer.hyper["weight_decay"] = 1.0
    optimizer.step((w * 0.0).sum().backward())
    assert w.tolist() == [0.5]


def test_the_hyperparameters_of_several_optimizers_are_read_only() -> None:
    both = [SGD([Parameter([1.0], name=name)], 0.1) for name in "ab"]
    hyper: Any = MultiOptimizer(both).hyper
    with pytest.raises(TypeError):
        hyper["0.lr"] = 0.5  # which no step would read
    assert hyper == {"0.lr": 0.1, "0.weight_decay": 0.0, "1.lr": 0.1, "1.weight_decay": 0.0}


@pytest.mark.parametrize("kind", [AdamW, Prodigy])
def test_betas_are_any_two_numbers(kind: Any) -> None:
    for betas in (np.array([0.5, 0.75]), (each for each in (0.5, 0.75))):
        hyper = kind([Parameter([1.0])], betas=betas).hyper
        assert (hyper["beta1"], hyper["beta2"]) == (0.5, 0.75)
    for wrong in ("ab", {0.5: 1, 0.75: 2}, 0.5, [0.5]):
        with pytest.raises(TypeError, match="betas must be "):
            kind([Parameter([1.0])], betas=wrong)


def test_three_betas_are_any_three_numbers() -> None:
    betas: Any = (each for each in (0.5, 0.75, 0.875))
    assert AdEMAMix([Parameter([1.0])], betas=betas).hyper["beta3"] == 0.875
    for wrong in (3, [0.5, 0.75]):
        with pytest.raises(TypeError, match="betas must be "):
            AdEMAMix([Parameter([1.0])], betas=wrong)  # type: ignore[arg-type]
