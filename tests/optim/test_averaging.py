"""`eval_params`: swaps the average in, and restores the parameters whatever happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest

from rumus.optim import (
    ASGD,
    AveragingOptimizer,
    ParameterGroup,
    ScheduleFreeAdamW,
    ScheduleFreeSGD,
)
from rumus.tensor import (
    Backend,
    ModifiedTensorError,
    NonFiniteGradientError,
    NumpyBackend,
    OwnershipError,
    Parameter,
    tensor,
)

KINDS: Final[dict[str, Callable[[Any], AveragingOptimizer[Any]]]] = {
    "ASGD": lambda p: ASGD(p, 0.1, t0=1),
    "SGD": lambda p: ScheduleFreeSGD(p, 0.1),
    "AdamW": lambda p: ScheduleFreeAdamW(p, 0.1, weight_decay=0.1),
}


class Run:
    def __init__(self, kind: str, backend: Backend, steps: int = 4) -> None:
        draw = np.random.default_rng(2)
        self.backend = backend
        self.parameters = [
            Parameter(draw.normal(size=s), name=f"p{i}", backend=backend)
            for i, s in enumerate([(3,), (2, 5), ()])
        ]
        groups = [ParameterGroup(self.parameters[:2]), ParameterGroup(self.parameters[2:])]
        self.optimizer = KINDS[kind](groups)
        for t in range(steps):
            self.step(t)

    def step(self, t: int) -> None:
        draw = np.random.default_rng([3, t])
        factors = [tensor(draw.normal(size=p.shape), backend=self.backend) for p in self.parameters]
        parts = [(p * p * f).sum() for p, f in zip(self.parameters, factors, strict=True)]
        self.optimizer.step(sum(parts[1:], parts[0]).backward())

    def bits(self) -> list[bytes]:
        state = self.optimizer.state_dict()["parameters"]
        arrays = [p.numpy() for p in self.parameters]
        arrays += [a for entry in state.values() for a in entry["state"].values()]
        return [a.tobytes() for a in arrays]


@pytest.fixture(params=list(KINDS))
def run(request: pytest.FixtureRequest, backend: Backend) -> Run:
    return Run(request.param, backend)


def test_evaluation_does_not_affect_the_run(run: Run, request: pytest.FixtureRequest) -> None:
    kind = request.node.callspec.params["run"]
    still = Run(kind, run.backend)
    trained = [p.numpy() for p in run.parameters]
    with run.optimizer.eval_params():
        shown = [p.numpy() for p in run.parameters]
    assert all((a != b).all() for a, b in zip(trained, shown, strict=True))
    assert run.bits() == still.bits()
    run.step(9)
    still.step(9)
    assert run.bits() == still.bits()


def test_errors_inside_restore_the_parameters_too(run: Run) -> None:
    before = run.bits()

    def interrupted() -> None:
        with run.optimizer.eval_params():
            run.parameters[0].assign(np.zeros(3))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert run.bits() == before
    run.step(5)


def test_a_point_that_cannot_be_computed_changes_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run.bits()
    real, calls = run.optimizer._put, []

    def second_fails(segment: Any) -> None:
        calls.append(segment)
        if len(calls) == 2:
            raise MemoryError
        real(segment)

    monkeypatch.setattr(run.optimizer, "_put", second_fails)
    with pytest.raises(MemoryError), run.optimizer.eval_params():
        pass
    assert len(calls) == 2
    assert run.bits() == before


def test_before_the_first_step_there_is_no_average(backend: Backend) -> None:
    for kind in KINDS:
        run = Run(kind, backend, steps=0)
        before = run.bits()
        with run.optimizer.eval_params():
            shown = [p.numpy().tobytes() for p in run.parameters]
        assert shown == before[: len(shown)]
        assert run.bits() == before


def test_nothing_is_trained_saved_moved_or_released_inside(run: Run) -> None:
    optimizer, w = run.optimizer, run.parameters[0]
    state = optimizer.state_dict()
    before = run.bits()
    with optimizer.eval_params():
        misuses: list[Callable[[], object]] = [
            lambda: run.step(7),
            optimizer.state_dict,
            lambda: optimizer.load_state_dict(state),
            lambda: w.move(NumpyBackend()),
            optimizer.release,
            lambda: optimizer.eval_params().__enter__(),
        ]
        for misuse in misuses:
            with pytest.raises(OwnershipError, match=r"inside eval_params\(\)"):
                misuse()
    assert run.bits() == before
    run.step(7)


def test_a_graph_does_not_reach_across(run: Run) -> None:
    """A loss of the average has no gradient at the trained point, nor the other way round."""
    w = run.parameters[0]
    outside = (w * w).sum()
    with run.optimizer.eval_params():
        with pytest.raises(ModifiedTensorError):
            outside.backward()
        inside = (w * w).sum()
    with pytest.raises(ModifiedTensorError):
        inside.backward()


def test_a_refused_step_is_reported_first(backend: Backend) -> None:
    run = Run("SGD", backend)
    before = run.bits()
    poison = tensor(np.full(3, np.nan), backend=backend)
    others = sum((p * p).sum() for p in run.parameters[1:])
    grads = ((run.parameters[0] * poison).sum() + others).backward()

    def look() -> None:
        run.optimizer.step(grads)
        with run.optimizer.eval_params():
            pass

    with pytest.raises(NonFiniteGradientError, match="p0"):
        look()
    assert run.bits() == before
