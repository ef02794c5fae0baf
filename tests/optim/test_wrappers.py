"""SAM and Lookahead: formulas, ownership through the base, and what a failure leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest

from rumus.optim import (
    ASGD,
    SAM,
    SGD,
    AdamW,
    FusedOptimizer,
    Lookahead,
    Muon,
    ParameterGroup,
)
from rumus.tensor import (
    Backend,
    ClosureNeededError,
    DType,
    MissingGradientError,
    NonFiniteGradientError,
    NumpyBackend,
    OwnershipError,
    Parameter,
    StateMismatchError,
    Tensor,
    UnclaimedGradientError,
    tensor,
)

SHAPES: Final = ((3,), (2, 5), ())
BASES: Final[dict[str, Callable[[Any], FusedOptimizer[Any]]]] = {
    "SGD": lambda p: SGD(p, 0.05, momentum=0.9),
    "AdamW": lambda p: AdamW(p, 0.05, weight_decay=0.1),
    "Muon": lambda p: Muon(p, 0.05),
}


class Run:
    """Parameters, an optimizer, and a loss with different gradients at each step."""

    def __init__(
        self, make: Callable[[Any], Any], backend: Backend, dtype: Any = np.float32
    ) -> None:
        draw = np.random.default_rng(1)
        self.backend, self.dtype = backend, np.dtype(dtype)
        self.parameters = [
            Parameter(draw.normal(size=s) + 2, name=f"p{i}", dtype=dtype, backend=backend)
            for i, s in enumerate(SHAPES)
        ]
        self.optimizer = make(
            [ParameterGroup(self.parameters[:1], lr=0.02), ParameterGroup(self.parameters[1:])]
        )

    def loss(self, t: int) -> Tensor:
        draw = np.random.default_rng([2, t])
        factors = [draw.normal(size=p.shape) + 1 for p in self.parameters]
        parts = [
            (p * p * tensor(f, dtype=self.dtype, backend=self.backend)).sum()
            for p, f in zip(self.parameters, factors, strict=True)
        ]
        return sum(parts[1:], parts[0])

    def steps(self, first: int, last: int) -> None:
        for t in range(first, last):
            if isinstance(self.optimizer, SAM):
                self.optimizer.minimize_step(lambda: self.loss(t))  # noqa: B023
            else:
                self.optimizer.step(self.loss(t).backward())

    def values(self) -> list[Any]:
        return [p.numpy() for p in self.parameters]

    def bits(self) -> list[object]:
        state = self.optimizer.state_dict()
        entries = state.pop("parameters")
        arrays = [a for entry in entries.values() for a in entry["state"].values()]
        return [*(a.tobytes() for a in (*self.values(), *arrays)), state, self.optimizer.blamed]


WRAPPERS: Final[dict[str, Callable[[Any], Any]]] = {
    "Lookahead": lambda p: Lookahead(AdamW(p, 0.05), k=2),
    "SAM": lambda p: SAM(AdamW(p, 0.05), rho=0.1),
    "ASAM": lambda p: SAM(SGD(p, 0.05, momentum=0.9), rho=0.5, adaptive=True),
    "both": lambda p: SAM(Lookahead(Muon(p, 0.05), k=2)),
}


@pytest.mark.parametrize("base", list(BASES))
def test_lookahead_goes_back_every_k_steps(base: str, backend: Backend, widest: DType) -> None:
    """Each round of the base starts, with its state, from the slow weights."""
    k, alpha = 3, 0.25
    run = Run(lambda p: Lookahead(BASES[base](p), k, alpha), backend, widest)
    fast = Run(BASES[base], backend, widest)
    slow = fast.values()
    for t in range(8):
        run.steps(t, t + 1)
        fast.steps(t, t + 1)
        if t % k == k - 1:
            slow = [s + alpha * (p - s) for s, p in zip(slow, fast.values(), strict=True)]
            for p, s in zip(fast.parameters, slow, strict=True):
                p.assign(s)
        tolerance = 1e-12 if widest == np.float64 else 2e-4
        for found, wanted in zip(run.values(), fast.values(), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("adaptive", [False, True])
def test_sam_steps_by_the_gradient_from_further_up(
    adaptive: bool, backend: Backend, widest: DType
) -> None:
    rho, eta = 0.3, 0.01
    run = Run(lambda p: SAM(SGD(p, 0.05), rho, adaptive=adaptive, eta=eta), backend, widest)
    values = [p.astype(np.float64) for p in run.values()]
    for t in range(5):
        draw = np.random.default_rng([2, t])
        factors = [draw.normal(size=p.shape) + 1 for p in values]
        gradients = [2 * p * f for p, f in zip(values, factors, strict=True)]
        scales = [np.abs(p) + eta if adaptive else np.ones_like(p) for p in values]
        pairs = list(zip(scales, gradients, strict=True))
        norm = np.sqrt(sum(((s * g) ** 2).sum() for s, g in pairs))
        above = [p + rho * s * s * g / norm for p, (s, g) in zip(values, pairs, strict=True)]
        rates = (0.02, 0.05, 0.05)
        rows = zip(values, above, factors, rates, strict=True)
        values = [p - lr * 2 * a * f for p, a, f, lr in rows]
        run.steps(t, t + 1)
    tolerance = 1e-12 if widest == np.float64 else 1e-5
    for found, wanted in zip(run.values(), values, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=tolerance)


@pytest.mark.parametrize("name", list(WRAPPERS))
def test_saving_loading_and_resuming_changes_nothing(name: str, backend: Backend) -> None:
    run, other = Run(WRAPPERS[name], backend), Run(WRAPPERS[name], backend)
    run.steps(0, 3)
    for p, q in zip(other.parameters, run.values(), strict=True):
        p.assign(q)
    other.optimizer.load_state_dict(run.optimizer.state_dict())
    assert other.bits() == run.bits()
    run.steps(3, 6)
    other.steps(3, 6)
    assert other.bits() == run.bits()


@pytest.mark.parametrize("name", list(WRAPPERS))
def test_they_move_with_the_model(name: str, backend: Backend) -> None:
    run, still = Run(WRAPPERS[name], NumpyBackend()), Run(WRAPPERS[name], NumpyBackend())
    for one in (run, still):
        one.steps(0, 3)
    for p in run.parameters:
        p.move(backend)
    run.backend = backend
    assert run.bits() == still.bits()
    run.steps(3, 5)
    still.steps(3, 5)
    for p, q in zip(run.values(), still.values(), strict=True):
        np.testing.assert_allclose(p, q, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", list(WRAPPERS))
def test_a_bad_batch_leaves_no_trace(name: str, value: float, backend: Backend) -> None:
    """Whichever pass it appears in; the error names the parameter with the bad gradient."""
    for bad_pass in (0, 1) if name != "Lookahead" else (0,):
        run, clean = Run(WRAPPERS[name], backend), Run(WRAPPERS[name], backend)
        for one in (run, clean):
            one.optimizer.fused.nonfinite = "skip"
            one.steps(0, 2)
        poison = tensor(np.array([value, 1, 1], np.float32), backend=backend)
        calls: list[int] = []

        def bad() -> Tensor:
            calls.append(1)  # noqa: B023
            good = run.loss(7)  # noqa: B023
            is_bad = len(calls) - 1 == bad_pass  # noqa: B023
            return good + (run.parameters[0] * poison).sum() if is_bad else good  # noqa: B023

        if name == "Lookahead":
            run.optimizer.step(bad().backward())
        else:
            run.optimizer.minimize_step(bad)
        assert run.optimizer.blamed == ("p0",)
        assert run.optimizer.skipped == 1
        for one in (run, clean):
            one.steps(2, 4)
        before, after = clean.bits(), run.bits()
        assert after[: len(SHAPES)] == before[: len(SHAPES)]


@pytest.mark.parametrize("calls", [1, 2])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("name", ["SAM", "ASAM", "both"])
def test_a_failing_closure_changes_no_bit(
    name: str, error: type[BaseException], calls: int, backend: Backend
) -> None:
    run, clean = Run(WRAPPERS[name], backend), Run(WRAPPERS[name], backend)
    for one in (run, clean):
        one.steps(0, 2)
    seen: list[int] = []

    def fails() -> Tensor:
        seen.append(1)
        if len(seen) == calls:
            raise error
        return run.loss(2)

    with pytest.raises(error):
        run.optimizer.minimize_step(fails)
    assert run.bits() == clean.bits()
    run.steps(2, 3)
    clean.steps(2, 3)
    assert run.bits() == clean.bits()


def test_other_mistakes_change_no_bit(backend: Backend) -> None:
    run = Run(WRAPPERS["SAM"], backend)
    run.steps(0, 2)
    stranger = Parameter([1.0], name="stranger", backend=backend)
    before = run.bits()
    seen: list[int] = []

    def loses_one() -> Tensor:
        seen.append(1)
        return run.loss(2) if len(seen) == 1 else (run.parameters[0] ** 2).sum()

    mistakes: list[tuple[type[Exception], str, Callable[[], Any]]] = [
        (UnclaimedGradientError, "'stranger'", lambda: run.loss(2) + stranger.sum()),
        (MissingGradientError, "'p1'", lambda: (run.parameters[0] ** 2).sum()),
        (MissingGradientError, "'p1'", loses_one),
        (TypeError, "must return the loss as a tensor", lambda: None),
    ]
    for error, message, closure in mistakes:
        with pytest.raises(error, match=message):
            run.optimizer.minimize_step(closure)
        assert run.bits() == before
    grads = run.loss(2).backward()
    with pytest.raises(ClosureNeededError, match="call minimize_step"):
        run.optimizer.step(grads)
    assert len(grads) == 3


def test_a_bad_gradient_raises_by_default() -> None:
    run = Run(WRAPPERS["SAM"], NumpyBackend())
    before = run.bits()
    poison = tensor([np.nan, 1.0, 1.0], backend=run.backend)
    with pytest.raises(NonFiniteGradientError, match="gradients of 'p0' hold"):
        run.optimizer.minimize_step(lambda: run.loss(0) + (run.parameters[0] * poison).sum())
    assert run.bits() == before


def test_the_base_stays_the_owner() -> None:
    run = Run(WRAPPERS["both"], NumpyBackend())
    base = run.optimizer.fused
    assert all(p.owner is base for p in run.parameters)
    with pytest.raises(OwnershipError, match="'p0' is already owned by Muon"):
        SGD(run.parameters, 0.1)
    text = run.optimizer.describe()
    assert "SAM(rho=0.05) of Lookahead(k=2, alpha=0.5) of Muon" in text
    assert "group 1: " in text
    assert run.optimizer.kind == "Lookahead(Muon)"
    plain = Run(BASES["Muon"], NumpyBackend())
    with pytest.raises(StateMismatchError, match=r"saved Lookahead\(Muon\), here Muon"):
        plain.optimizer.load_state_dict(run.optimizer.state_dict())
    run.optimizer.set(lr=0.5)
    assert base.hyper["lr"] == 0.5
    run.optimizer.release()
    assert run.optimizer.groups == ()
    assert all(p.owner is None for p in run.parameters)
    with pytest.raises(OwnershipError, match="was released"):
        run.optimizer.minimize_step(lambda: run.loss(0))


def test_what_cannot_be_wrapped() -> None:
    w = Parameter([1.0], name="w")
    base = SGD([w], 0.1)
    mistakes: list[tuple[type[Exception], str, Callable[[], object]]] = [
        (ValueError, "k must be", lambda: Lookahead(base, 0)),
        (ValueError, "alpha must be", lambda: Lookahead(base, alpha=0.0)),
        (ValueError, "rho must be", lambda: SAM(base, -1.0)),
        (ValueError, "eta must be", lambda: SAM(base, eta=np.nan)),
        (TypeError, "an optimizer, such as SAM", lambda: SAM([w])),  # type: ignore[arg-type]
        (TypeError, "already an average", lambda: Lookahead(ASGD([Parameter([1.0])]))),
        (TypeError, "put it inside", lambda: Lookahead(SAM(base))),  # type: ignore[arg-type]
        (TypeError, "SAM wraps an optimizer that steps", lambda: SAM(SAM(base))),
    ]
    for error, message, make in mistakes:
        with pytest.raises(error, match=message):
            make()
    Lookahead(base)
    with pytest.raises(
        TypeError, match=r"is already wrapped by Lookahead: go on with that one, or release\(\)"
    ):
        Lookahead(base)
    base.release()
    with pytest.raises(OwnershipError, match="was released"):
        SAM(base)


@pytest.mark.parametrize("order", ["state first", "weights first"])
def test_slow_weights_follow_assigned_weights_but_not_restored_ones(
    order: str, backend: Backend
) -> None:
    """Weights loaded into a model start anew; a state goes on with those of its checkpoint."""

    def made() -> tuple[list[Parameter], Lookahead[Any]]:
        ps = [
            Parameter([1.0, 2.0], name="w", backend=backend),
            Parameter([3.0], name="b", backend=backend),
        ]
        return ps, Lookahead(SGD(ps, 0.25), k=2, alpha=0.5)

    def step(ps: list[Parameter], optimizer: Lookahead[Any], times: int) -> list[Any]:
        for _ in range(times):
            optimizer.step(sum(((p * p).sum() for p in ps[1:]), (ps[0] * ps[0]).sum()).backward())
        return [p.tolist() for p in ps]

    ps, optimizer = made()
    ps[0].assign(np.array([8.0, 8.0], np.float32))  # weights that are loaded before the first step
    assert step(ps, optimizer, 2) == [[5.0, 5.0], [1.875]]
    ps[0].assign(np.array([4.0, 8.0], np.float32))  # and between two rounds
    saved = optimizer.state_dict()
    weights = [p.numpy() for p in ps]
    assert step(ps, optimizer, 1) == [[2.0, 4.0], [0.9375]]
    later, weights_later = optimizer.state_dict(), [p.numpy() for p in ps]
    wanted = step(ps, optimizer, 1)
    assert wanted == [[2.5, 5.0], [1.171875]]

    for state, values, times in ((saved, weights, 2), (later, weights_later, 1)):
        ps, optimizer = made()
        if order == "state first":
            optimizer.load_state_dict(state)
        for p, value in zip(ps, values, strict=True):
            p.assign(value)
        if order == "weights first":
            optimizer.load_state_dict(state)
        assert step(ps, optimizer, times) == wanted


def test_weights_assigned_before_a_move_are_followed(backend: Backend) -> None:
    w = Parameter([1.0], name="w")
    optimizer = Lookahead(SGD([w], 0.25), k=1, alpha=0.5)
    w.assign(np.array([8.0], np.float32))
    w.to(backend)
    optimizer.step((w * w).sum().backward())
    assert w.tolist() == [6.0]


def test_assignments_after_every_step_are_told_once() -> None:
    """As of clipped weights: Lookahead does nothing for them."""
    w = Parameter([4.0], name="w")
    optimizer = Lookahead(SGD([w], 0.25), k=3)

    def train() -> None:
        for _ in range(8):
            optimizer.step((w * w).sum().backward())
            w.assign(w.detach().clip(-1.0, 1.0))

    with pytest.warns(UserWarning, match="Lookahead did nothing for them") as told:
        train()
    assert len(told) == 1
