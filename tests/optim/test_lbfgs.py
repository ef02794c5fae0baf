"""LBFGS and its line search: conditions, convergence, and that a failure changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rumus.optim import LBFGS, ClosureOptimizer, ParameterGroup
from rumus.optim.algorithms.line_search import C1, C2, Trial, cubic_minimum, strong_wolfe
from rumus.tensor import (
    Backend,
    ClosureNeededError,
    DType,
    MissingGradientError,
    NonFiniteGradientError,
    NumpyBackend,
    Parameter,
    StateMismatchError,
    Tensor,
    UnclaimedGradientError,
    log,
    tensor,
)

FUNCTIONS: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "parabola": (lambda t: (t - 3) ** 2, lambda t: 2 * (t - 3)),
    "quartic": (lambda t: (t - 2) ** 4 - t, lambda t: 4 * (t - 2) ** 3 - 1),
    "waves": (lambda t: -math.sin(3 * t) - t / 4, lambda t: -3 * math.cos(3 * t) - 0.25),
    "Moré, Thuente": (lambda t: -t / (t * t + 2), lambda t: (t * t - 2) / (t * t + 2) ** 2),
    "a wall at 2": (
        lambda t: -t - math.log(2 - t) if t < 2 else math.inf,
        lambda t: -1 + 1 / (2 - t) if t < 2 else math.nan,
    ),
}


@settings(deadline=None, max_examples=150, derandomize=True)
@given(name=st.sampled_from(list(FUNCTIONS)), exponent=st.floats(-4, 3))
def test_a_search_ends_at_the_strong_wolfe_conditions(name: str, exponent: float) -> None:
    value, slope = FUNCTIONS[name]
    start = Trial(0.0, value(0.0), slope(0.0))
    found = strong_wolfe(lambda t: Trial(t, value(t), slope(t)), start, 10**exponent, limit=40)
    assert found.t > 0
    assert found.value <= start.value + C1 * found.t * start.slope
    assert abs(found.slope) <= -C2 * start.slope


def test_a_search_at_its_limit_returns_the_lowest_trial() -> None:
    value, slope = FUNCTIONS["parabola"]
    tried: list[float] = []

    def phi(t: float) -> Trial:
        tried.append(t)
        return Trial(t, value(t), slope(t))

    start = phi(0.0)
    assert strong_wolfe(phi, start, 100.0, limit=0) is start
    assert strong_wolfe(phi, start, 0.01, limit=0).t == 0.01
    assert tried == [0.0, 100.0, 0.01]


def test_a_cubic_without_a_minimum_gives_the_middle() -> None:
    assert cubic_minimum(Trial(0.0, 0.0, -1.0), Trial(1.0, -0.7, -1.0), 1.0, 3.0) == 2.0
    assert cubic_minimum(Trial(0.0, 0.0, -1.0), Trial(1.0, math.inf, math.nan), 0.0, 1.0) == 0.5


def quadratic(w: Parameter, curvatures: Tensor) -> Tensor:
    return (curvatures * (w - 1) ** 2).sum() / 2


def test_a_quadratic_of_ten_curvatures_is_solved(backend: Backend, widest: DType) -> None:
    """With unlimited history L-BFGS is conjugate gradients here: about ten iterations."""
    w = Parameter(np.zeros(10), dtype=widest, backend=backend)
    curvatures = tensor(np.geomspace(0.1, 10, 10), dtype=widest, backend=backend)
    optimizer = LBFGS([w], max_iter=40, max_eval=80)
    optimizer.minimize_step(lambda: quadratic(w, curvatures))
    np.testing.assert_allclose(w.numpy(), np.ones(10), atol=1e-4)


def test_rosenbrock_of_ten_variables(backend: Backend, widest: DType) -> None:
    w = Parameter(np.linspace(-1, 0.5, 10), dtype=widest, backend=backend)
    optimizer = LBFGS([w], history_size=10)

    def loss() -> Tensor:
        return (100 * (w[1:] - w[:-1] ** 2) ** 2 + (1 - w[:-1]) ** 2).sum()

    first = float(optimizer.minimize_step(loss))
    for _ in range(7):
        optimizer.minimize_step(loss)
    assert float(loss()) < 1e-5 * first


class Run:
    """Three parameters in two groups, and a loss that is defined only on a half line."""

    def __init__(self, backend: Backend, steps: int = 2, **options: Any) -> None:
        draw = np.random.default_rng(3)
        self.backend = backend
        self.parameters = [
            Parameter(np.abs(draw.normal(size=shape)) + 1, name=f"p{i}", backend=backend)
            for i, shape in enumerate([(3,), (2, 70), ()])
        ]
        self.targets = [
            tensor(np.abs(draw.normal(size=p.shape)) + 0.1, backend=backend)
            for p in self.parameters
        ]
        groups = [ParameterGroup(self.parameters[:2]), ParameterGroup(self.parameters[2:])]
        self.optimizer = LBFGS(groups, max_iter=3, max_eval=12, **options)
        for _ in range(steps):
            self.optimizer.minimize_step(self.loss)

    def loss(self) -> Tensor:
        pairs = zip(self.parameters, self.targets, strict=True)
        parts = [(p - target * log(p)).sum() for p, target in pairs]
        return sum(parts[1:], parts[0])

    def bits(self) -> list[object]:
        state = self.optimizer.state_dict()
        entries = state.pop("parameters")
        arrays = [p.numpy() for p in self.parameters]
        arrays += [a for entry in entries.values() for a in entry["state"].values()]
        return [*(a.tobytes() for a in arrays), state, self.optimizer.blamed]


@pytest.mark.parametrize("calls", [1, 2, 3])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failing_closure_changes_no_bit(
    calls: int, error: type[BaseException], backend: Backend
) -> None:
    run = Run(backend, steps=1)
    before, seen = run.bits(), []

    def loss() -> Tensor:
        seen.append(1)
        if len(seen) == calls:
            raise error
        return run.loss()

    with pytest.raises(error):
        run.optimizer.minimize_step(loss)
    assert run.bits() == before
    run.optimizer.minimize_step(run.loss)
    assert run.bits() == Run(backend).bits()


def test_other_mistakes_change_no_bit(backend: Backend) -> None:
    run = Run(backend)
    stranger = Parameter([1.0], name="stranger", backend=backend)
    before = run.bits()
    mistakes: list[tuple[type[Exception], str, Callable[[], Any]]] = [
        (UnclaimedGradientError, "'stranger'", lambda: run.loss() + stranger.sum()),
        (MissingGradientError, "'p1'", lambda: run.parameters[0].sum()),
        (TypeError, "must return the loss as a tensor, not float", lambda: 1.0),
    ]
    for error, message, closure in mistakes:
        with pytest.raises(error, match=message):
            run.optimizer.minimize_step(closure)
        assert run.bits() == before
    grads = run.loss().backward()
    with pytest.raises(ClosureNeededError, match=r"call minimize_step\(closure\)"):
        run.optimizer.step(grads)
    assert len(grads) == 3
    assert run.bits() == before


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_values_at_the_start(bad: float, backend: Backend) -> None:
    run = Run(backend)
    factor = tensor([bad, 1.0, 1.0], backend=backend)
    before = run.bits()
    with pytest.raises(NonFiniteGradientError, match="gradients of 'p0' hold"):
        run.optimizer.minimize_step(lambda: run.loss() + (run.parameters[0] * factor).sum())
    with pytest.raises(NonFiniteGradientError, match="the loss holds NaN or infinity"):
        run.optimizer.minimize_step(lambda: run.loss() + bad)
    assert run.bits() == before
    skipping = Run(backend, nonfinite="skip")
    values = [p.numpy().tobytes() for p in skipping.parameters]
    skipping.optimizer.minimize_step(lambda: run_with(skipping, factor))
    assert skipping.optimizer.skipped == 1
    assert skipping.optimizer.outcome.applied is False
    assert skipping.optimizer.blamed == ("p0",)
    assert [p.numpy().tobytes() for p in skipping.parameters] == values


def run_with(run: Run, factor: Tensor) -> Tensor:
    return run.loss() + (run.parameters[0] * factor).sum()


def test_a_step_into_the_undefined_is_only_too_long(backend: Backend) -> None:
    """The first trial length leads below 0, where the logarithm is NaN."""
    w = Parameter([3.0], name="w", backend=backend)
    optimizer = LBFGS([w], lr=100.0)
    optimizer.minimize_step(lambda: (w - 0.5 * log(w)).sum())
    assert abs(w.item() - 0.5) < 1e-3


def test_saving_loading_and_resuming_changes_nothing(backend: Backend) -> None:
    run, other = Run(backend), Run(backend, steps=0)
    state = run.optimizer.state_dict()
    for p, q in zip(other.parameters, run.parameters, strict=True):
        p.assign(q.detach())
    other.optimizer.load_state_dict(state)
    assert other.bits() == run.bits()
    run.optimizer.minimize_step(run.loss)
    other.optimizer.minimize_step(other.loss)
    assert other.bits() == run.bits()
    before = other.bits()
    entry = state["parameters"].pop("p1")
    with pytest.raises(StateMismatchError, match="'p1': here, not saved"):
        other.optimizer.load_state_dict(state)
    state["parameters"]["p1"] = entry
    short = Run(backend, steps=0, history_size=1)
    with pytest.raises(StateMismatchError, match=r"saved \d steps, here history_size=1"):
        short.optimizer.load_state_dict(state)
    assert other.bits() == before


def test_it_moves_with_its_parameters(backend: Backend) -> None:
    run, still = Run(NumpyBackend()), Run(NumpyBackend())
    for p in run.parameters:
        p.move(backend)
    run.targets = [target.to(backend) for target in run.targets]
    assert run.bits() == still.bits()
    run.optimizer.minimize_step(run.loss)
    still.optimizer.minimize_step(still.loss)
    for p, q in zip(run.parameters, still.parameters, strict=True):
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-3)
    run.optimizer.release()
    assert run.parameters[0].owner is None


def test_bad_options_claim_nothing() -> None:
    w = Parameter([1.0], name="w")
    wide = Parameter([1.0], name="wide", dtype="float64")
    mistakes: list[tuple[type[Exception], str, Callable[[], object]]] = [
        (TypeError, "one dtype, not float32, float64", lambda: LBFGS([w, wide])),
        (TypeError, "has its own options", lambda: LBFGS([ParameterGroup([w], lr=1.0)])),
        (TypeError, "has its own options", lambda: LBFGS([ParameterGroup([w], optional=True)])),
        (ValueError, "max_iter must be", lambda: LBFGS([w], max_iter=0)),
        (ValueError, "history_size must be", lambda: LBFGS([w], history_size=0)),
        (ValueError, "tolerance_grad must be", lambda: LBFGS([w], tolerance_grad=math.nan)),
        (ValueError, "lr must be", lambda: LBFGS([w], -1.0)),
        (ValueError, "must be 'raise' or 'skip'", lambda: LBFGS([w], nonfinite="propagate")),
    ]
    for error, message, make in mistakes:
        with pytest.raises(error, match=message):
            make()
        assert w.owner is None
    optimizer = LBFGS([w])
    assert isinstance(optimizer, ClosureOptimizer)
    assert "w     (1,)   weight  float32" in optimizer.describe()
    assert optimizer.memory().state == 0


def test_a_misspelled_hyperparameter_is_named() -> None:
    w = Parameter([1.0, 2.0], name="w")
    optimizer = LBFGS([w], lr=0.5)
    optimizer.hyper["learning_rate"] = 0.1
    with pytest.raises(TypeError, match="LBFGS has no hyperparameter 'learning_rate'; it has lr"):
        optimizer.minimize_step(lambda: (w * w).sum())
    assert w.tolist() == [1.0, 2.0]
