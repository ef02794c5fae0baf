"""The laws of ownership, as properties: a refused operation changes not a single bit."""

from __future__ import annotations

import gc
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optimizer_table import ROWS

from rumus.optim import (
    SGD,
    Adam,
    AdamW,
    FusedOptimizer,
    Optimizer,
    ParameterGroup,
    clip_grad_norm,
    clip_grad_value,
)
from rumus.optim.engine.segments import state_views
from rumus.tensor import (
    AutogradError,
    Backend,
    BackendMismatchError,
    DrainedGradientError,
    Expr,
    GradientMismatchError,
    GradientStore,
    MissingGradientError,
    ModifiedTensorError,
    NonFiniteGradientError,
    NumpyBackend,
    OwnershipError,
    Parameter,
    Parameters,
    PrecisionError,
    StateMismatchError,
    Tensor,
    UnclaimedGradientError,
    move_parameters,
    tensor,
)

Shape = tuple[int, ...]
Snapshot = dict[str, object]
SHAPES: Final[Sequence[Shape]] = ((), (1,), (3,), (64,), (65,), (2, 3), (3, 1, 2), (5, 13))
settings.register_profile(
    "laws",
    deadline=None,
    max_examples=20,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
laws = settings.get_profile("laws")


@dataclass(frozen=True)
class Plan:
    """A random collection of parameters in groups, and the steps trained so far."""

    kind: str
    groups: tuple[tuple[Shape, ...], ...]
    warmup: int
    seed: int
    victim: int  # the position of the affected parameter

    @property
    def count(self) -> int:
        return sum(map(len, self.groups))


plans = st.builds(
    Plan,
    kind=st.sampled_from(list(ROWS)),
    groups=st.lists(
        st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3).map(tuple),
        min_size=1,
        max_size=3,
    ).map(tuple),
    warmup=st.integers(0, 2),
    seed=st.integers(0, 2**16),
    victim=st.integers(0, 8),
)


WARM: Final = 1000  # numbers of steps


class Run:
    """A plan carried out: parameters, their optimizer, and one parameter without an owner."""

    def __init__(self, plan: Plan, backend: Backend, **options: Any) -> None:
        self.plan, self.backend = plan, backend
        draw = np.random.default_rng(plan.seed)
        self.groups: list[list[Parameter]] = []
        for shapes in plan.groups:
            self.groups.append(
                [
                    Parameter(draw.normal(size=s), name=f"p{len(self.groups)}.{i}", backend=backend)
                    for i, s in enumerate(shapes)
                ]
            )
        self.parameters = [p for group in self.groups for p in group]
        self.stranger = Parameter(draw.normal(size=3), name="stranger", backend=backend)
        self.victim = self.parameters[plan.victim % plan.count]
        row = ROWS[plan.kind]
        rates: list[dict[str, Any]] = [
            {} if row.is_joint else {"lr": 0.1 / (i + 1)} for i in range(len(self.groups))
        ]
        pairs = zip(self.groups, rates, strict=True)
        self.optimizer = row([ParameterGroup(g, **rate) for g, rate in pairs], **options)
        for t in range(plan.warmup):
            # With other gradients than those of later steps: after SOAP's first step, which only
            # makes a basis, the same gradient again is rounding noise off the basis's diagonal.
            self.step(WARM + t)

    def loss(self, t: int, without: Parameter | None = None) -> Tensor:
        """A loss with a random gradient for everything except `without`, reproducible from t."""
        draw = np.random.default_rng([self.plan.seed, t])
        total = (self.stranger * self.constant(draw.normal(size=3))).sum()
        for parameter in self.parameters:
            factor = self.constant(draw.normal(size=parameter.shape))
            if parameter is not without:
                total = total + (parameter * parameter * factor).sum()
        return total

    def constant(self, data: Any) -> Tensor:
        return tensor(data, backend=self.backend)

    def step(self, t: int) -> None:
        self.optimizer.step(self.loss(t).backward())

    def snapshot(self, store: GradientStore | None = None) -> Snapshot:
        """Every bit: parameters, state, counters and a store's contents."""
        return snapshot(self.optimizer, [*self.parameters, self.stranger], store)

    def snapshot_after_skips(self, skipped: int, blamed: tuple[str, ...]) -> Snapshot:
        """What `snapshot` would be after so many skipped steps, which leave no other trace."""
        found: dict[str, Any] = {**self.snapshot()}
        state, steps, *_ = found["counters"]
        counted = {**state, "skipped": skipped} if "skipped" in state else state
        return {**found, "counters": (counted, steps, skipped, blamed)}


def snapshot(
    optimizer: FusedOptimizer[Any], parameters: Sequence[Parameter], store: GradientStore | None
) -> Snapshot:
    found: Snapshot = {p.name: bits(p.numpy()) for p in parameters}
    state = optimizer.state_dict()
    for name, entry in state.pop("parameters").items():
        found |= {f"{name} {key}": bits(value) for key, value in entry.pop("state").items()}
        found[f"entry {name}"] = entry
    found["counters"] = (state, optimizer.steps, optimizer.skipped, optimizer.blamed)
    found["owners"] = [p.owner is optimizer for p in parameters]
    if store is not None:
        found["store"] = {p.name: bits(held(store, p)) for p in store}
        found["drained"] = dict(store._drained)
    return found


def held(store: GradientStore, parameter: Parameter) -> Any:
    """A gradient as NumPy, possibly from another backend than the parameter's."""
    array = store.array(parameter)
    return array if isinstance(array, np.ndarray) else parameter.backend.download(array)


def bits(array: Any) -> tuple[Shape, str, bytes]:
    return array.shape, str(array.dtype), array.tobytes()


# Each failure gets a run at step `t`, makes it fail, and yields the store; the caller compares.
Failure = Callable[[Run, int], Iterator[tuple[GradientStore | None, Callable[[], object]]]]


def poisoned(run: Run, t: int, value: float) -> GradientStore:
    store = run.loss(t).backward()
    poison = np.zeros(run.victim.shape, np.float32)
    poison.reshape(-1)[-1] = value
    store.accumulate(run.victim, run.constant(poison))
    return store


def missing(run: Run, t: int) -> Iterator[Any]:
    store = run.loss(t, without=run.victim).backward()
    yield store, lambda: run.optimizer.step(store)


def everything_missing(run: Run, t: int) -> Iterator[Any]:
    store = GradientStore()
    yield store, lambda: run.optimizer.step(store)


def not_finite(run: Run, t: int, value: float) -> Iterator[Any]:
    """A device that decides on its own has drained the store before the host can know."""
    store = poisoned(run, t, value)

    def step() -> None:
        run.optimizer.step(store)
        assert run.backend.runs_ahead
        assert list(store) == [run.stranger]
        run.optimizer.poll(wait=True)

    yield None if run.backend.runs_ahead else store, step


def not_a_number(run: Run, t: int) -> Iterator[Any]:
    yield from not_finite(run, t, np.nan)


def infinite(run: Run, t: int) -> Iterator[Any]:
    yield from not_finite(run, t, -np.inf)


def foreign_array(run: Run, t: int, array: Any, backend: Backend) -> Iterator[Any]:
    """No public function puts such a gradient into a store: `accumulate` refuses it first."""
    store = run.loss(t).backward()
    yield store, lambda: store.accumulate(run.victim, Tensor(array, backend))
    kept = store.array(run.victim), store._backends[run.victim.id]
    store._gradients[run.victim.id], store._backends[run.victim.id] = array, backend
    yield store, lambda: run.optimizer.step(store)
    store._gradients[run.victim.id], store._backends[run.victim.id] = kept


def wrong_shape(run: Run, t: int) -> Iterator[Any]:
    array = run.backend.upload(np.ones((*run.victim.shape, 2), np.float32))
    yield from foreign_array(run, t, array, run.backend)


def wrong_dtype(run: Run, t: int) -> Iterator[Any]:
    array = run.backend.upload(np.ones(run.victim.shape, np.float16))
    yield from foreign_array(run, t, array, run.backend)


def wrong_backend(run: Run, t: int) -> Iterator[Any]:
    other = NumpyBackend()
    array = other.upload(np.ones(run.victim.shape, np.float32))
    yield from foreign_array(run, t, array, other)


def double_step(run: Run, t: int) -> Iterator[Any]:
    store = run.loss(t).backward()
    run.optimizer.step(store)
    yield store, lambda: run.optimizer.step(store)


def mutated_parameter(run: Run, t: int) -> Iterator[Any]:
    loss = run.loss(t)
    run.victim.assign(run.victim.numpy() * 2)
    yield None, loss.backward


def mutated_by_a_step(run: Run, t: int) -> Iterator[Any]:
    late = run.loss(t)
    run.step(t)
    yield None, late.backward


def failing_schedule(run: Run, t: int, schedule: Any) -> Iterator[Any]:
    groups = run.optimizer.groups
    if not ROWS[run.plan.kind].is_joint:  # otherwise all must have the same one
        groups = groups[-1:]
    before = [dict(group.hyper) for group in groups]
    for group in groups:
        group.hyper["lr"] = schedule
    store = run.loss(t).backward()
    yield store, lambda: run.optimizer.step(store)
    for group, hyper in zip(groups, before, strict=True):
        group.hyper = hyper


def schedule_raises(run: Run, t: int) -> Iterator[Any]:
    def schedule(step: int) -> float:
        raise ZeroDivisionError("a schedule failed")

    yield from failing_schedule(run, t, schedule)


def schedule_not_a_number(run: Run, t: int) -> Iterator[Any]:
    yield from failing_schedule(run, t, lambda step: float("nan"))


def schedule_negative(run: Run, t: int) -> Iterator[Any]:
    yield from failing_schedule(run, t, lambda step: -0.1)


def schedule_text(run: Run, t: int) -> Iterator[Any]:
    yield from failing_schedule(run, t, lambda step: "0.1")


def scalar_overflows(run: Run, t: int) -> Iterator[Any]:
    yield from failing_schedule(run, t, lambda step: 1e308 * step * step * 100)


@contextmanager
def failing(backend: Any, name: str, after: int, error: BaseException) -> Iterator[None]:
    """Make a method of a backend or device raise after `after` calls."""
    real, calls = getattr(backend, name), []

    def method(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) > after:
            raise error
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, name, method)
        yield


def fails_in(backend: Backend) -> tuple[Any, str]:
    """The method in which a step can fail halfway: running a kernel, or a device compiling one."""
    device = getattr(backend, "gpu", None)
    return (backend, "elementwise") if device is None else (device, "pipeline")


def backend_fails(run: Run, t: int) -> Iterator[Any]:
    """At the first group, the second, and so on."""
    where, name = fails_in(run.backend)
    for after in range(len(run.groups)):
        store = run.loss(t).backward()

        def step(after: int = after, store: GradientStore = store) -> None:
            with failing(where, name, after, RuntimeError("the device is lost")):
                run.optimizer.step(store)

        yield store, step


def interrupted_backend(run: Run, t: int) -> Iterator[Any]:
    """An exception that is not an error: Ctrl-C when the optimizer cannot delay it."""
    store = run.loss(t).backward()
    where, name = fails_in(run.backend)

    def step() -> None:
        last = len(run.groups) - 1
        with failing(where, name, last, KeyboardInterrupt("pressed")):
            run.optimizer.step(store)

    yield store, step


def finite_check_fails(run: Run, t: int) -> Iterator[Any]:
    store = run.loss(t).backward()
    where, name = (run.backend, "first_not_finite")
    if run.backend.runs_ahead:
        where, name = fails_in(run.backend)

    def step() -> None:
        with failing(where, name, 0, RuntimeError("the device is lost")):
            run.optimizer.step(store)

    yield store, step


FAILURES: Final[dict[str, tuple[Failure, type[BaseException], str]]] = {
    "missing gradient": (missing, MissingGradientError, "VICTIM.*has no gradient"),
    "nothing there": (everything_missing, MissingGradientError, r"p0\.\d+"),
    "NaN": (not_a_number, NonFiniteGradientError, "VICTIM"),
    "infinity": (infinite, NonFiniteGradientError, "VICTIM"),
    "wrong shape": (wrong_shape, GradientMismatchError, "VICTIM.*shape"),
    "wrong dtype": (wrong_dtype, GradientMismatchError, "VICTIM.*dtype"),
    "wrong backend": (wrong_backend, GradientMismatchError, "VICTIM.*backend"),
    "double step": (
        double_step,
        DrainedGradientError,
        r"FIRST.*drained.*made at optimizer_table.py:\d+",
    ),
    "parameter changed": (mutated_parameter, ModifiedTensorError, "VICTIM.*changed in place"),
    "stepped between": (mutated_by_a_step, ModifiedTensorError, "changed in place"),
    "schedule raises": (schedule_raises, ZeroDivisionError, "a schedule failed"),
    "schedule NaN": (schedule_not_a_number, ValueError, "lr.*schedule"),
    "schedule negative": (schedule_negative, ValueError, "lr.*schedule"),
    "schedule text": (schedule_text, TypeError, "lr.*schedule"),
    "scalar overflows": (scalar_overflows, ValueError, "not finite|finite"),
    "backend fails": (backend_fails, RuntimeError, "the device is lost"),
    "interrupted": (interrupted_backend, KeyboardInterrupt, "pressed"),
    "finite check fails": (finite_check_fails, RuntimeError, "the device is lost"),
}


@pytest.mark.parametrize("name", list(FAILURES))
@given(plan=plans)
@laws
def test_a_failure_changes_no_bit(name: str, backend: Backend, plan: Plan) -> None:
    """Laws 3, 4, 6, 7 and 8: and the next good step is the same as without the failure."""
    failure, error, message = FAILURES[name]
    run, good = Run(plan, backend), Run(plan, backend)
    t = plan.warmup
    pattern = message.replace("VICTIM", re.escape(run.victim.name))
    (first, _), *_ = run.optimizer.groups[0].named  # matrices, if they are stepped differently
    pattern = pattern.replace("FIRST", re.escape(first))
    for store, act in failure(run, t):
        before = run.snapshot(store)
        with pytest.raises(error, match=pattern):
            act()
        assert run.snapshot(store) == before
    if name in ("double step", "stepped between"):
        good.step(t)
    if name == "parameter changed":
        good.victim.assign(good.victim.numpy() * 2)
    run.step(t + 1)
    good.step(t + 1)
    assert run.snapshot() == good.snapshot()


# Law 1: one owner


@given(plan=plans)
@laws
def test_law_1_a_parameter_has_one_owner(backend: Backend, plan: Plan) -> None:
    run = Run(plan, backend)
    before = run.snapshot()
    for claim in ([run.stranger, run.victim], [run.victim], [ParameterGroup([run.victim])]):
        with pytest.raises(
            OwnershipError, match=rf"{run.victim.name}.*made at optimizer_table.py:\d+"
        ):
            SGD(claim, 0.1)
    with pytest.raises(OwnershipError, match=r"stranger.*twice"):
        SGD([run.stranger, run.stranger], 0.1)
    with pytest.raises(OwnershipError, match=r"stranger.*twice"):
        SGD([ParameterGroup([run.stranger]), ParameterGroup([run.stranger])], 0.1)
    assert run.stranger.owner is None
    assert run.snapshot() == before


@given(plan=plans)
@laws
def test_law_1_release_and_end_of_life_free_the_parameters(backend: Backend, plan: Plan) -> None:
    run = Run(plan, backend)
    values = [bits(p.numpy()) for p in run.parameters]
    run.optimizer.release()
    assert all(p.owner is None for p in run.parameters)
    with pytest.raises(OwnershipError, match="released"):
        run.step(9)
    second = AdamW(run.parameters, 0.1)
    assert all(p.owner is second for p in run.parameters)
    del second
    gc.collect()
    third = SGD(run.parameters, 0.1)
    assert all(p.owner is third for p in run.parameters)
    assert [bits(p.numpy()) for p in run.parameters] == values
    third.step(run.loss(0).backward())
    fresh = Run(plan, backend)
    fresh.optimizer.release()
    SGD(fresh.parameters, 0.1).step(fresh.loss(0).backward())
    assert [bits(p.numpy()) for p in run.parameters] == [bits(p.numpy()) for p in fresh.parameters]


def test_law_1_an_optimizer_that_cannot_be_made_claims_nothing(backend: Backend) -> None:
    a, b = (Parameter([1.0, 2.0], name=n, backend=backend) for n in "ab")
    frozen = Parameter([1.0], name="frozen", backend=backend, requires_grad=False)

    def broken(p: Expr, g: Expr, *, lr: Expr) -> dict[str, Expr]:
        raise ArithmeticError("no such rule")

    group = ParameterGroup([a, b, frozen])
    with pytest.raises(ArithmeticError, match="no such rule"):
        FusedOptimizer([group], broken, 0.1)
    with failing(backend, "allocate", 0, MemoryError()), pytest.raises(MemoryError):
        SGD([group], 0.1)
    with pytest.raises(TypeError, match="rho"):
        SGD([ParameterGroup([a]), ParameterGroup([b], rho=0.1)], 0.1)
    gc.collect()
    assert a.owner is None
    assert b.owner is None
    assert [name for name, _ in group.named] == ["a", "b", "frozen"]
    assert SGD([group], 0.1).parameters == (a, b)


# Laws 2 and 5: what is drained, and what remains


@given(plan=plans)
@laws
def test_law_2_a_step_drains_what_it_owns(backend: Backend, plan: Plan) -> None:
    run = Run(plan, backend)
    store = run.loss(5).backward()
    left = bits(store[run.stranger].numpy())
    run.optimizer.step(store)
    assert list(store) == [run.stranger]
    assert bits(store[run.stranger].numpy()) == left
    assert not any(p in store for p in run.parameters)


@given(plan=plans)
@laws
def test_law_2_two_optimizers_share_a_store_in_either_order(backend: Backend, plan: Plan) -> None:
    runs = [Run(plan, backend), Run(plan, backend)]
    for order, run in enumerate(runs):
        second = Adam([run.stranger], 0.1)
        both = [run.optimizer, second]
        with run.loss(5).backward() as store:
            for optimizer in both if order else reversed(both):
                optimizer.step(store)
        assert len(store) == 0
    assert runs[0].snapshot() == runs[1].snapshot()


@given(plan=plans)
@laws
def test_law_5_a_finished_block_has_no_gradients_left(backend: Backend, plan: Plan) -> None:
    run = Run(plan, backend)
    with (
        pytest.raises(UnclaimedGradientError, match="stranger"),
        run.loss(5).backward() as store,
    ):
        run.optimizer.step(store)
    assert list(store) == [run.stranger]


# Law 3: optional groups


@given(
    plan=plans.filter(lambda plan: not ROWS[plan.kind].is_joint),
    present=st.lists(st.booleans(), min_size=4, max_size=4),
)
@laws
def test_law_3_optional_parameters_count_for_themselves(
    backend: Backend, plan: Plan, present: list[bool]
) -> None:
    """An optional parameter steps as if the steps without its gradient had not happened."""
    run, alone = Run(plan, backend), Run(plan, backend)
    for each in (run, alone):
        each.optimizer.release()
    row = ROWS[plan.kind]
    rest = [p for p in run.parameters if p is not run.victim]
    groups = [ParameterGroup([run.victim], optional=True)]
    groups += [ParameterGroup(rest)] if rest else []
    optimizer = row(groups)
    reference = row([alone.victim])
    for t, is_present in enumerate(present):
        store = run.loss(t, without=None if is_present else run.victim).backward()
        optimizer.step(store)
        if is_present:
            loss = alone.loss(t).backward()
            reference.step(loss)
    saved, wanted = optimizer.state_dict(), reference.state_dict()
    entry, other = saved["parameters"][run.victim.name], wanted["parameters"][run.victim.name]
    assert entry["steps"] == other["steps"] == sum(present)
    assert optimizer.steps == len(present)
    assert bits(run.victim.numpy()) == bits(alone.victim.numpy())
    for key in entry["state"]:
        assert bits(entry["state"][key]) == bits(other["state"][key])


def test_law_4_holds_for_optional_parameters(backend: Backend) -> None:
    w = Parameter([1.0, 2.0], name="w", backend=backend)
    optimizer = AdamW([ParameterGroup([w], optional=True)], 0.1)
    store = (w * w).sum().backward()
    optimizer.step(store)
    before = snapshot(optimizer, [w], store)
    with pytest.raises(DrainedGradientError, match=r"'w'.*AdamW"):
        optimizer.step(store)
    assert snapshot(optimizer, [w], store) == before


def test_law_4_a_store_filled_again_can_be_used_again(backend: Backend) -> None:
    a, b = (Parameter([1.0], name=n, backend=backend) for n in "ab")
    optimizer = SGD([ParameterGroup([a]), ParameterGroup([b], optional=True)], 0.25)
    store = GradientStore()
    optimizer.step((a * b).sum().backward(into=store))
    optimizer.step((a * a).sum().backward(into=store))
    assert (a.tolist(), b.tolist()) == ([0.375], [0.75])


# Law 8


@given(plan=plans, bad=st.sets(st.integers(0, 4)), value=st.sampled_from([np.nan, np.inf, -np.inf]))
@laws
def test_law_8_a_skipped_batch_leaves_no_trace(
    backend: Backend, plan: Plan, bad: set[int], value: float
) -> None:
    run, good = Run(plan, backend, nonfinite="skip"), Run(plan, backend, nonfinite="skip")
    for t in range(5):
        if t in bad:
            store = poisoned(run, t, value)
            run.optimizer.step(store)
            assert list(store) == [run.stranger]
            assert run.optimizer.blamed == (run.victim.name,)
            with pytest.raises(DrainedGradientError):
                run.optimizer.step(store)
        else:
            run.step(t)
            good.step(t)
    assert run.optimizer.skipped == len(bad)
    assert run.optimizer.steps == good.optimizer.steps == plan.warmup + 5 - len(bad)
    assert run.snapshot() == good.snapshot_after_skips(len(bad), run.optimizer.blamed)


@given(plan=plans, bad=st.integers(0, 3), later=st.integers(1, 3))
@laws
def test_law_8_raise_applies_nothing_from_that_step_on(
    backend: Backend, plan: Plan, bad: int, later: int
) -> None:
    """The error comes at the latest when the bad step's loss is read; then training continues."""
    run, good = Run(plan, backend), Run(plan, backend)
    for t in range(bad):
        run.step(t)
        good.step(t)

    def go_on() -> None:
        loss = run.loss(bad)
        run.optimizer.step(poisoned(run, bad, np.nan))
        for t in range(bad + 1, bad + later):
            run.step(t)
        loss.item()

    with pytest.raises(NonFiniteGradientError, match=re.escape(run.victim.name)):
        go_on()
    run.optimizer.poll(wait=True)
    assert run.snapshot() == good.snapshot()
    for t in range(9, 12):
        run.step(t)
        good.step(t)
    assert run.snapshot() == good.snapshot()


@given(plan=plans)
@laws
def test_law_8_propagate_checks_nothing(backend: Backend, plan: Plan) -> None:
    run = Run(plan, backend, nonfinite="propagate")
    with failing(backend, "first_not_finite", 0, RuntimeError("looked")):
        run.optimizer.step(poisoned(run, 3, np.nan))
    if plan.kind == "SOAP":  # the first step moves no matrix
        run.optimizer.step(run.loss(4).backward())
    # The norm or product of a tensor is NaN if one of its elements is.
    spreads = plan.kind in ("LAMB", "LARS", "Adafactor", "StableAdamW", "MARS")
    # These flatten tensors with more axes.
    spreads |= plan.kind in ("Muon", "SOAP") and run.victim.ndim >= 2
    if ROWS[plan.kind].is_joint:  # the next step uses the shared number, which is NaN now
        run.optimizer.step(run.loss(4).backward())
        assert all(np.isnan(p.numpy()).all() for p in run.parameters)
        return
    assert np.isnan(run.victim.numpy()).sum() == (run.victim.size if spreads else 1)
    assert all(np.isfinite(p.numpy()).all() for p in run.parameters if p is not run.victim)


@given(plan=plans)
@laws
def test_law_8_names_all_offenders(backend: Backend, plan: Plan) -> None:
    run = Run(plan, backend)
    store = run.loss(3).backward()
    for p in run.parameters:
        store.accumulate(p, run.constant(np.full(p.shape, np.nan)))
    with pytest.raises(NonFiniteGradientError) as caught:  # noqa: PT012
        run.optimizer.step(store)
        run.optimizer.poll(wait=True)
    assert all(repr(p.name) in str(caught.value) for p in run.parameters)
    assert "stranger" not in str(caught.value)


# Law 9


@given(plan=plans, at=st.integers(0, 2), pieces=st.booleans())
@laws
def test_law_9_state_moves_with_the_parameters(
    backend: Backend, plan: Plan, at: int, pieces: bool
) -> None:
    """In either order, whole or in pieces: the run equals one that was never moved."""
    home = NumpyBackend()
    moved, still = Run(plan, home), Run(plan, backend)
    if at == 0:
        moved.optimizer.release()
        moved = Run(Plan(plan.kind, plan.groups, 0, plan.seed, plan.victim), home)
        still = Run(Plan(plan.kind, plan.groups, 0, plan.seed, plan.victim), backend)
    for t in range(at):
        moved.step(t)
        still.step(t)
    state = moved.snapshot()
    order = moved.parameters[::-1] if pieces else moved.parameters
    for p in order:
        p.move(backend)
    moved.stranger.move(backend)
    moved.backend = backend
    assert moved.snapshot() == state
    assert all(s.arena.backend is backend for s in moved.optimizer.segments)
    for t in range(at, 4):
        moved.step(t)
        still.step(t)
    if plan.kind != "SOAP" or has_determined_bases(plan):
        close(moved, still)


def has_determined_bases(plan: Plan) -> bool:
    """Whether SOAP's factors have full rank after two gradients.

    Otherwise rounding decides about the rest of a basis, on each backend in its own way.
    """
    return all(max(shape) <= 2 * min(shape) for group in plan.groups for shape in group if shape)


def close(first: Run, second: Run) -> None:
    """Equal up to the rounding in which backends may differ."""
    for p, q in zip(first.parameters, second.parameters, strict=True):
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=2e-5, atol=2e-6)


@given(plan=plans)
@laws
def test_law_9_a_group_moved_in_part_is_refused_until_the_rest_follows(
    backend: Backend, plan: Plan
) -> None:
    run, still = Run(plan, backend), Run(plan, backend)
    other = NumpyBackend()
    # An arena moves as a whole; Muon and SOAP have one for matrices and one for the rest.
    arenas = [state_views([s], [s.state]).keys() for s in run.optimizer.segments]
    together = next(ids for ids in arenas if run.victim.id in ids)
    run.victim.move(other)
    states = [segment.state for segment in run.optimizer.segments]
    assert state_views(run.optimizer.segments, states).keys() == {p.id for p in run.parameters}
    if len(together) > 1:
        store = GradientStore()
        for p in run.parameters:
            store.accumulate(p, tensor(np.ones(p.shape), backend=p.backend))
        before = run.snapshot(store)
        with pytest.raises(BackendMismatchError, match=re.escape(run.victim.name)):
            run.optimizer.step(store)
        assert run.snapshot(store) == before
    for p in run.parameters:
        p.move(other)
    run.stranger.move(other)
    run.backend = other
    run.step(7)
    still.step(7)
    close(run, still)


@given(plan=plans)
@laws
def test_law_9_a_gradient_from_before_the_move_is_refused(backend: Backend, plan: Plan) -> None:
    run = Run(plan, NumpyBackend())
    store = run.loss(3).backward()
    for p in run.parameters:
        p.move(backend)
    before = snapshot(run.optimizer, run.parameters, None)
    for act in (
        lambda: run.optimizer.step(store),
        lambda: clip_grad_norm(store, run.optimizer, 1.0),
        lambda: clip_grad_value(store, run.optimizer, 1.0),
    ):
        with pytest.raises(GradientMismatchError, match="backend"):
            act()
    assert snapshot(run.optimizer, run.parameters, None) == before
    assert len(store) == len(run.parameters) + 1


@given(plan=plans, after=st.integers(0, 8))
@laws
def test_law_9_a_move_that_fails_moves_nothing(backend: Backend, plan: Plan, after: int) -> None:
    run = Run(plan, NumpyBackend())
    before = run.snapshot()
    with (
        failing(backend, "upload", after % plan.count, MemoryError()),
        pytest.raises(MemoryError),
    ):
        move_parameters(run.parameters, backend)
    assert run.snapshot() == before
    assert all(p.backend is run.backend for p in run.parameters)
    run.step(5)


# Law 10


@given(plan=plans, seen=st.integers(0, 3))
@laws
def test_law_10_a_resumed_run_is_bitwise_the_same(backend: Backend, plan: Plan, seen: int) -> None:
    run, resumed = Run(plan, backend), Run(plan, backend)
    for t in range(seen):
        run.step(t)
    state = run.optimizer.state_dict()
    for p, q in zip(run.parameters, resumed.parameters, strict=True):
        q.assign(p.numpy())
    resumed.optimizer.load_state_dict(state)
    assert resumed.snapshot() == run.snapshot()
    for entry in state["parameters"].values():  # neither saving nor loading may share memory
        for array in entry["state"].values():
            array[...] = np.nan
    for t in range(seen, 4):
        run.step(t)
        resumed.step(t)
    assert resumed.snapshot() == run.snapshot()


Damage = Callable[[dict[str, Any], str], object]
DAMAGES: Final[dict[str, tuple[Damage, str]]] = {
    "kind": (lambda s, n: s.update(kind="Unheard"), "Unheard"),
    "format": (lambda s, n: s.update(format=99), "99"),
    "no steps": (lambda s, n: s.pop("steps"), "steps"),
    "negative steps": (lambda s, n: s.update(steps=-1), "steps"),
    "steps as text": (lambda s, n: s.update(steps="many"), "steps"),
    "skipped as text": (lambda s, n: s.update(skipped=None), "skipped"),
    "a name less": (lambda s, n: s["parameters"].pop(n), "NAME.*not saved"),
    "a name more": (lambda s, n: s["parameters"].update(new=s["parameters"][n]), "new.*not here"),
    "shape": (lambda s, n: s["parameters"][n].update(shape=[99]), r"NAME.*\(99,\)"),
    "dtype": (lambda s, n: s["parameters"][n].update(dtype="int32"), "NAME.*int32"),
    "own steps": (lambda s, n: s["parameters"][n].update(steps="x"), "NAME.*steps"),
    "no own steps": (lambda s, n: s["parameters"][n].pop("steps"), "NAME.*steps"),
    "no shape": (lambda s, n: s["parameters"][n].pop("shape"), "NAME.*shape"),
    "no state": (lambda s, n: s["parameters"][n].pop("state"), "NAME.*state"),
    "no entry": (lambda s, n: s["parameters"].update({n: None}), "NAME"),
    "parameters no mapping": (lambda s, n: s.update(parameters=[1]), "parameters"),
    "state more": (lambda s, n: s["parameters"][n]["state"].update(z=np.ones(1)), "NAME.*z"),
}


@pytest.mark.parametrize("name", list(DAMAGES))
@given(plan=plans)
@laws
def test_law_10_a_misfit_is_not_loaded(name: str, backend: Backend, plan: Plan) -> None:
    run, source = Run(plan, backend), Run(plan, backend)
    source.step(8)
    state = source.optimizer.state_dict()
    damage, message = DAMAGES[name]
    damage(state, run.victim.name)
    before = run.snapshot()
    pattern = message.replace("NAME", re.escape(run.victim.name))
    with pytest.raises(StateMismatchError, match=pattern):
        run.optimizer.load_state_dict(state)
    assert run.snapshot() == before


def test_law_10_lists_every_difference(backend: Backend) -> None:
    a, b, c = (Parameter(np.ones(2), name=n, backend=backend) for n in "abc")
    optimizer = Adam([a, b, c], 0.1)
    state = optimizer.state_dict()
    state["kind"] = "SGD"
    state["parameters"]["a"]["shape"] = [3]
    state["parameters"]["b"]["state"]["m"] = np.zeros(5, np.float32)
    state["parameters"]["d"] = state["parameters"].pop("c")
    with pytest.raises(StateMismatchError) as caught:
        optimizer.load_state_dict(state)
    text = str(caught.value)
    for part in ("kind", "'a'", "(3,)", "'b'", "'m'", "(5,)", "'c'", "'d'"):
        assert part in text


def test_law_10_an_upload_that_fails_loads_nothing(backend: Backend) -> None:
    a, b = (Parameter(np.ones(2), name=n, backend=backend) for n in "ab")
    optimizer = Adam([a, b], 0.1)
    optimizer.step((a * b).sum().backward())
    state = optimizer.state_dict()
    optimizer.step((a * b).sum().backward())
    before = snapshot(optimizer, [a, b], None)
    with failing(backend, "upload", 2, MemoryError()), pytest.raises(MemoryError):
        optimizer.load_state_dict(state)
    assert snapshot(optimizer, [a, b], None) == before


def test_law_10_parameters_of_one_segment_have_one_count(backend: Backend) -> None:
    """An optional group may have stepped one parameter more often, so no shared count fits."""
    a, b = (Parameter(np.ones(2), name=n, backend=backend) for n in "ab")
    optional = Adam([ParameterGroup([a, b], optional=True)], 0.1)
    optional.step((a * b).sum().backward())
    optional.step((a * a).sum().backward())
    state = optional.state_dict()
    optional.release()
    together = Adam([a, b], 0.1)
    with pytest.raises(StateMismatchError, match=r"steps"):
        together.load_state_dict(state)
    together.release()
    again = Adam([ParameterGroup([a, b], optional=True)], 0.1)
    again.load_state_dict(state)
    assert [state["parameters"][n]["steps"] for n in "ab"] == [2, 1]
    assert again.state_dict()["parameters"]["b"]["steps"] == 1


def test_law_10_names_must_be_different(backend: Backend) -> None:
    a, b = Parameter([1.0], name="w", backend=backend), Parameter([1.0], name="w", backend=backend)
    optimizer = SGD([a, b], 0.1)
    with pytest.raises(ValueError, match="'w'"):
        optimizer.state_dict()
    optimizer.release()
    named = SGD(Parameters({"first.w": a, "second.w": b}), 0.1)
    assert list(named.state_dict()["parameters"]) == ["first.w", "second.w"]


# Law 11, and Ctrl-C


def test_law_11_low_precision_is_refused(backend: Backend) -> None:
    half = Parameter(np.ones(3, np.float16), name="half", backend=backend)
    whole = Parameter(np.ones(3), name="whole", backend=backend)
    with pytest.raises(PrecisionError, match=r"'half'.*float32"):
        AdamW([whole, half], 0.1)
    assert whole.owner is None
    assert half.owner is None


@given(plan=plans, skip=st.booleans())
@laws
def test_ctrl_c_waits_until_the_step_is_whole(backend: Backend, plan: Plan, skip: bool) -> None:
    run, good = Run(plan, backend, nonfinite="skip"), Run(plan, backend, nonfinite="skip")
    store = poisoned(run, 3, np.nan) if skip else run.loss(3).backward()
    where: Any = run.backend
    methods = ["first_not_finite" if skip else "elementwise"]
    if backend.runs_ahead:
        where, methods = backend.gpu, ["_record", "replay"]  # type: ignore[attr-defined]
    pressed: list[int] = []

    def press(real: Callable[..., Any], *arguments: Any) -> Any:
        if not pressed:
            pressed.append(1)
            signal.raise_signal(signal.SIGINT)
        return real(*arguments)

    handler = signal.getsignal(signal.SIGINT)
    before = run.snapshot(store)
    with pytest.MonkeyPatch.context() as patch:
        for method in methods:
            patch.setattr(where, method, partial(press, getattr(where, method)))
        with pytest.raises(KeyboardInterrupt):
            run.optimizer.step(store)
    assert signal.getsignal(signal.SIGINT) is handler
    # Steps that optimizers prepare themselves:
    axes = {"Adafactor": (2, 3), "Muon": (2, 3), "SOAP": (2, 3)}.get(plan.kind, ())
    prepares = any(len(shape) in axes for group in plan.groups for shape in group)
    measures = plan.kind in ("LAMB", "Adafactor", "StableAdamW", "MARS", "Prodigy", "DAdaptAdam")
    is_before = skip or measures or prepares
    if backend.runs_ahead:  # where the host issues all commands, and then the device decides
        is_before = prepares
    if is_before:  # pressed before anything was decided
        assert run.snapshot(store) == before
        return
    assert list(store) == [run.stranger]
    if skip:
        assert run.optimizer.skipped == 1
        assert run.optimizer.blamed == (run.victim.name,)
    else:
        good.step(3)
    skips = (1, (run.victim.name,)) if skip else (0, ())
    assert run.snapshot() == good.snapshot_after_skips(*skips)


def test_every_law_is_an_autograd_error() -> None:
    for error in (OwnershipError, MissingGradientError, DrainedGradientError):
        assert issubclass(error, AutogradError)
    assert issubclass(Adam, Optimizer)
