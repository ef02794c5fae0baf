"""Averages that the update keeps: EMA and SWA."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.optim import (
    ASGD,
    EMA,
    SGD,
    SWA,
    AdamW,
    Average,
    Lookahead,
    ParameterGroup,
    ScheduleFreeSGD,
)
from rumus.tensor import (
    Backend,
    GradientStore,
    NumpyBackend,
    OwnershipError,
    Parameter,
    StateMismatchError,
    float16,
    tensor,
)

Real = NDArray[Any]
SHAPES: Final = ((3, 5), (70,), ())
KINDS: Final[dict[str, Callable[[], Average]]] = {
    "ema": lambda: EMA(0.9),
    "warmup": lambda: EMA(0.5, warmup=True),
    "unbiased": lambda: EMA(0.9, unbiased=True),
    "swa": SWA,
    "swa late": lambda: SWA(start=3, every=2),
}


class Run:
    """AdamW with an average, and gradients that depend only on the step number."""

    def __init__(self, backend: Backend, average: Average | None) -> None:
        draw = np.random.default_rng(0)
        self.parameters = [
            Parameter(draw.normal(size=s), name=f"p{i}", backend=backend, dtype=np.float32)
            for i, s in enumerate(SHAPES)
        ]
        self.average = average
        self.optimizer = AdamW(self.parameters, 0.1, average=average)

    def step(self, t: int, poison: float = 0.0) -> list[Real]:
        draw, store = np.random.default_rng([1, t]), GradientStore()
        for p in self.parameters:
            gradient = draw.normal(size=p.shape) + poison
            store.accumulate(p, tensor(gradient, backend=p.backend, dtype=np.float32))
        self.optimizer.step(store)
        return self.values()

    def values(self) -> list[Real]:
        return [p.numpy().astype(np.float64) for p in self.parameters]

    def averaged(self) -> list[Real]:
        assert self.average is not None
        with self.average.applied():
            return self.values()


def wanted(kind: str, history: list[list[Real]]) -> list[Real]:
    """The papers' definitions, in float64, over all points so far."""
    points, n = np.array([np.concatenate([x.ravel() for x in h]) for h in history]), len(history)
    if kind.startswith("swa"):
        chosen = points if kind == "swa" else points[2::2]
        mean = chosen.mean(0)
    elif kind == "unbiased":
        weights = 0.1 * 0.9 ** np.arange(n - 1, -1, -1.0)
        mean = weights @ points / (1 - 0.9**n)
    else:
        mean = points[0]
        for t, point in enumerate(points[1:], 2):
            decay = 0.9 if kind == "ema" else min(0.5, (1 + t) / (10 + t))
            mean = decay * mean + (1 - decay) * point
    ends = np.cumsum([int(np.prod(s)) for s in SHAPES])[:-1]
    return [part.reshape(s) for part, s in zip(np.split(mean, ends), SHAPES, strict=True)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_average_is_that_of_the_definition(backend: Backend, kind: str) -> None:
    run, plain = Run(backend, KINDS[kind]()), Run(backend, None)
    history = []
    for t in range(1, 9):
        history.append(run.step(t))
        for mine, other in zip(history[-1], plain.step(t), strict=True):
            np.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-7)  # it disturbs nothing
        if kind != "swa late" or t >= 3:
            for mine, other in zip(run.averaged(), wanted(kind, history), strict=True):
                np.testing.assert_allclose(mine, other, rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_parameters_come_back_bit_by_bit(backend: Backend, kind: str) -> None:
    run = Run(backend, KINDS[kind]())
    assert run.average is not None
    for t in range(5):
        run.step(t)
    before = [x.tobytes() for x in run.values()]

    def interrupted() -> None:
        assert run.average is not None
        with run.average.applied():
            assert [x.tobytes() for x in run.values()] != before
            run.parameters[0].assign(np.zeros(SHAPES[0]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [x.tobytes() for x in run.values()] == before
    run.step(6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_average_of_master_weights_is_float32(backend: Backend, kind: str) -> None:
    average = KINDS[kind]()
    start = np.float16(np.random.default_rng(0).normal(size=(3, 30)))
    p = Parameter(start, name="p", dtype=float16, backend=backend)
    optimizer = AdamW([p], 1e-3, average=average, master_weights=True)
    plain = Parameter(start, name="p", dtype=np.float32, backend=backend)
    beside = KINDS[kind]()
    other = AdamW([plain], 1e-3, average=beside)
    for t in range(5):
        gradient = np.float16(np.random.default_rng(t).normal(size=p.shape))
        for parameter, owner in ((p, optimizer), (plain, other)):
            store = GradientStore()
            store.accumulate(parameter, tensor(gradient, backend=backend, dtype=parameter.dtype))
            owner.step(store)
    kept = optimizer.state_dict()["parameters"]["p"]["state"]["average"]
    assert kept.dtype == np.float32
    with average.applied(), beside.applied():
        np.testing.assert_allclose(kept, plain.numpy(), rtol=1e-6, atol=1e-7)
        assert (p.numpy() == kept.astype(np.float16)).all()


def test_lookahead_changes_what_an_average_would_be_of() -> None:
    base = SGD([Parameter([1.0])], 1.0, average=EMA())
    with pytest.raises(TypeError, match=r"keeps \['average'\] in addition to p"):
        Lookahead(base)


def test_before_there_is_an_average_nothing_changes(backend: Backend) -> None:
    for kind, steps in (("ema", 0), ("swa late", 2)):
        run = Run(backend, KINDS[kind]())
        for t in range(steps):
            run.step(t)
        for shown, there in zip(run.averaged(), run.values(), strict=True):
            assert (shown == there).all()


def test_inside_nothing_is_stepped_saved_moved_or_released(backend: Backend) -> None:
    run = Run(backend, EMA(0.5))
    run.step(1)
    optimizer, average = run.optimizer, run.average
    assert average is not None
    state = optimizer.state_dict()
    with average.applied():
        misuses: list[Callable[[], object]] = [
            lambda: run.step(7),
            optimizer.state_dict,
            lambda: optimizer.load_state_dict(state),
            lambda: optimizer.move(run.parameters, NumpyBackend()),
            optimizer.release,
            lambda: average.applied().__enter__(),
        ]
        for misuse in misuses:
            with pytest.raises(OwnershipError, match="inside eval_params"):
                misuse()


@pytest.mark.parametrize("kind", KINDS)
def test_it_continues_from_a_saved_state(backend: Backend, kind: str) -> None:
    whole = Run(backend, KINDS[kind]())
    for t in range(1, 8):
        whole.step(t)
    first, second = Run(backend, KINDS[kind]()), Run(backend, KINDS[kind]())
    for t in range(1, 4):
        first.step(t)
    for p, q in zip(first.parameters, second.parameters, strict=True):
        q.assign(p.numpy())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    for t in range(4, 8):
        second.step(t)
    for mine, other in zip(second.averaged(), whole.averaged(), strict=True):
        assert (mine == other).all()


def test_a_state_without_the_average_does_not_fit(backend: Backend) -> None:
    plain, run = Run(backend, None), Run(backend, EMA())
    with pytest.raises(StateMismatchError, match="'p0': saved state"):
        run.optimizer.load_state_dict(plain.optimizer.state_dict())


def test_it_moves_with_the_parameters(backend: Backend) -> None:
    run, stays = Run(backend, EMA(0.5)), Run(backend, EMA(0.5))
    for t in range(1, 4):
        run.step(t)
        stays.step(t)
    run.optimizer.move(run.parameters, NumpyBackend())
    for mine, other in zip(run.averaged(), stays.averaged(), strict=True):
        assert (mine == other).all()


def test_a_skipped_step_does_not_count(backend: Backend) -> None:
    runs = []
    for bad in (True, False):
        run = Run(backend, SWA())
        run.optimizer.nonfinite = "skip"
        for t in range(1, 4):
            if bad and t == 2:
                run.step(9, poison=float("nan"))
            run.step(t)
        runs.append(run.averaged())
    for one, other in zip(*runs, strict=True):
        assert (one == other).all()


def test_an_optional_group_has_an_average_of_its_own_steps(backend: Backend) -> None:
    w = Parameter([1.0], name="w", backend=backend)
    other = Parameter([1.0], name="other", backend=backend)
    swa = SWA()
    optimizer = SGD([ParameterGroup([w]), ParameterGroup([other], optional=True)], 1.0, average=swa)
    for _ in range(2):
        optimizer.step(w.sum().backward())
    optimizer.step((w.sum() + other.sum()).backward())
    with swa.applied():
        assert w.tolist() == [-1.0]
        assert other.tolist() == [0.0]


def test_an_average_belongs_to_one_optimizer() -> None:
    ema = EMA()
    with pytest.raises(OwnershipError, match="no optimizer keeps"):
        ema.applied()
    AdamW.planned_memory([Parameter([1.0])], 0.1, average=ema)
    first = SGD([Parameter([1.0])], 1.0, average=ema)
    w = Parameter([1.0])
    with pytest.raises(OwnershipError, match="make another one"):
        SGD([w], 1.0, average=ema)
    assert w.owner is None
    first.release()
    SGD([w], 1.0, average=ema)
    with pytest.raises(ValueError, match="average of its own"):
        ScheduleFreeSGD([Parameter([1.0])], 1.0, average=EMA())
    with pytest.raises(ValueError, match="keeps no average"):
        SGD([Parameter([1.0])], 1.0).eval_params().__enter__()


BAD: Final[tuple[Callable[[], object], ...]] = (
    lambda: EMA(1.0),
    lambda: EMA(-0.1),
    lambda: EMA(0.9, warmup=True, unbiased=True),
    lambda: SWA(start=0),
    lambda: SWA(every=0),
)


@pytest.mark.parametrize("make", BAD)
def test_bad_averages(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"decay|warmup|whole number"):
        make()


@pytest.mark.parametrize(
    "make", [lambda p: SGD(p, 0.25, average=EMA(0.5)), lambda p: ASGD(p, 0.25)]
)
def test_an_average_evaluated_instead_of_assigned_weights_is_told(
    make: Callable[[Any], Any],
) -> None:
    """Weights that are loaded enter it with the next step."""
    w = Parameter([1.0], name="w")
    optimizer = make([w])

    def step() -> None:
        optimizer.step((w * w).sum().backward())

    w.assign(np.array([2.0], np.float32))  # before the first step there is no average
    step()
    with optimizer.eval_params():
        pass
    w.assign(np.array([4.0], np.float32))
    told = "'w' was assigned after the last step, and what is"
    with pytest.warns(UserWarning, match=told), optimizer.eval_params():
        assert w.tolist() != [4.0]
    state = optimizer.state_dict()
    step()
    with optimizer.eval_params():
        pass
    w.assign(np.array([4.0], np.float32))
    optimizer.load_state_dict(state)  # it belongs to weights loaded before or after it
    with optimizer.eval_params():
        pass


def test_a_schedule_free_average_moves_with_assigned_weights() -> None:
    w = Parameter([1.0], name="w")
    optimizer = ScheduleFreeSGD([w], 0.25)
    optimizer.step((w * w).sum().backward())
    w.assign(np.array([100.0], np.float32))
    with optimizer.eval_params():
        assert abs(w.tolist()[0] - 100.0) < 1.0
