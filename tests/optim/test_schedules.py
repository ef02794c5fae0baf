"""Schedules depend only on the step, are exact at their ends, and compose."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any, Final, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rumus.optim import (
    SGD,
    AdamW,
    Plateau,
    Schedule,
    constant,
    cosine,
    cyclic,
    exponential,
    inverse_sqrt,
    linear,
    multi_step,
    one_cycle,
    polynomial,
    step_decay,
    warm_restarts,
    warmup,
)
from rumus.tensor import Backend, Parameter

quick = settings(deadline=None, max_examples=60, derandomize=True)
values = st.floats(-10, 10)
lengths = st.integers(1, 60)
factors = st.floats(0.25, 1.5)
# (a schedule, its first value, its last value)
finite = st.one_of(
    st.builds(lambda v, n: (constant(v, n), v, v), values, lengths),
    st.builds(lambda a, b, n: (linear(a, b, n), a, b if n > 1 else a), values, values, lengths),
    st.builds(lambda a, b, n: (cosine(a, n, b), a, b if n > 1 else a), values, values, lengths),
    st.builds(
        lambda a, b, n, p: (polynomial(a, n, b, p), a, b if n > 1 else a),
        values,
        values,
        lengths,
        st.floats(0.5, 3),
    ),
    st.builds(
        lambda a, f, n: (exponential(a, f, n), a, a * f ** (n - 1)), values, factors, lengths
    ),
    st.builds(
        lambda a, f, n, k: (step_decay(a, k, f, n), a, a * f ** ((n - 1) // k)),
        values,
        factors,
        lengths,
        st.integers(1, 9),
    ),
)
endless = st.one_of(
    st.builds(constant, values),
    st.builds(inverse_sqrt, values, lengths),
    st.builds(cyclic, values, values, lengths),
    st.builds(warm_restarts, values, lengths, st.integers(1, 3)),
    st.builds(multi_step, values, st.sets(lengths, min_size=1).map(sorted), factors),
)


@given(part=finite, extra=st.integers(1, 1000))
@quick
def test_the_ends_are_exact_and_the_last_value_stays(
    part: tuple[Schedule, float, float], extra: int
) -> None:
    schedule, first, last = part
    assert schedule.length is not None
    assert schedule(1) == first
    assert schedule(schedule.length) == last
    assert schedule(schedule.length + extra) == last


@given(
    parts=st.lists(finite, min_size=1, max_size=4),
    last=endless,
    steps=st.lists(st.integers(1, 300), min_size=1),
)
@quick
def test_a_chain_is_its_parts_one_after_the_other(
    parts: list[tuple[Schedule, float, float]], last: Schedule, steps: list[int]
) -> None:
    schedules = [part for part, _, _ in parts]
    left = schedules[0]
    for each in [*schedules[1:], last]:
        left = left.then(each)
    right = last
    for each in reversed(schedules):
        right = each.then(right)
    expected = [part(t) for part in schedules for t in range(1, (part.length or 0) + 1)]
    expected += [last(t) for t in range(1, 301)]
    for step in steps:  # in any order: nothing is remembered
        assert left(step) == right(step) == expected[step - 1]
    finite_chain = schedules[0].then(schedules[-1])
    assert finite_chain.length == (schedules[0].length or 0) + (schedules[-1].length or 0)
    assert left.length is None


@given(steps=lengths, before=finite, following=st.one_of(finite.map(lambda f: f[0]), endless))
@quick
def test_warmup_rises_to_where_the_next_one_starts(
    steps: int, before: tuple[Schedule, float, float], following: Schedule
) -> None:
    risen = warmup(steps).then(following)
    for t in range(1, steps + 1):
        assert risen(t) == t / steps * following(1)
    assert risen(steps) == risen(steps + 1) == following(1)
    assert risen(steps + 7) == following(7)
    first = before[0]
    assert first.length is not None
    for whole in (first.then(warmup(steps)).then(following), first.then(risen)):
        assert whole(first.length) == before[2]
        assert whole(first.length + 1) == risen(1)
        assert whole(first.length + steps + 1) == following(1)


@given(a=endless, b=finite, number=values, step=st.integers(1, 200))
@quick
def test_products(a: Schedule, b: tuple[Schedule, float, float], number: float, step: int) -> None:
    other = b[0]
    assert (a * other)(step) == a(step) * other(step)
    assert (a * number)(step) == (number * a)(step) == a(step) * number
    assert (a * other).length is None
    assert (other * number).length == other.length
    assert (other * constant(1.0, 100)).length == max(other.length or 0, 100)


@given(schedule=endless, steps=st.lists(st.integers(1, 10_000), min_size=1))
@quick
def test_schedules_are_values(schedule: Schedule, steps: list[int]) -> None:
    copied = pickle.loads(pickle.dumps(schedule))
    assert copied == schedule
    assert [copied(step) for step in reversed(steps)] == [schedule(s) for s in reversed(steps)]
    assert eval(repr(schedule)) == schedule


def test_their_repr_is_the_call() -> None:
    lr = warmup(100).then(cosine(1e-3, 10_000))
    assert repr(lr) == "warmup(100).then(cosine(0.001, 10000))"
    assert repr((lr * 0.5).then(1e-5)) == f"({lr} * 0.5).then(constant(1e-05))"
    assert repr(constant(1, steps=3)) == "constant(1, steps=3)"
    frozen: Any = lr
    with pytest.raises(FrozenInstanceError):
        frozen.length = 3


def test_the_schedule_of_the_introduction() -> None:
    lr = warmup(100).then(cosine(1e-3, 10_000))
    assert lr.length == 10_100
    assert (lr(1), lr(50), lr(100), lr(101)) == (1e-5, 5e-4, 1e-3, 1e-3)
    assert lr(100 + 5000) == pytest.approx(5e-4, rel=1e-3)
    assert (lr(10_100), lr(20_000)) == (0.0, 0.0)
    assert warmup(4, start=0.5).then(2.0)(1) == 1.25


def test_an_optimizer_counts_applied_steps(backend: Backend) -> None:
    w = Parameter([0.0], name="w", backend=backend, dtype="float32")
    optimizer = SGD([w], warmup(2).then(linear(1.0, 0.5, 2)), nonfinite="skip")
    seen = [0.0]
    for factor in (1.0, 1.0, float("nan"), 1.0, 1.0, 1.0):
        optimizer.step((w * factor).sum().backward())
        seen.append(w.item())
    assert seen == [0.0, -0.5, -1.5, -1.5, -2.5, -3.0, -3.5]
    assert (optimizer.steps, optimizer.skipped) == (5, 1)


BAD: Final[list[tuple[Callable[[], object], type[Exception], str]]] = [
    (lambda: warmup(0), ValueError, "at least 1, not 0"),
    (lambda: warmup(-3), ValueError, "at least 1, not -3"),
    (lambda: cosine(1.0, -1), ValueError, "at least 1"),
    (lambda: constant(1.0, 0), ValueError, "at least 1"),
    (lambda: linear(1.0, 0.0, True), TypeError, "whole number"),
    (lambda: cosine(float("nan"), 3), ValueError, "start must be finite"),
    (lambda: linear(0.0, float("inf"), 3), ValueError, "end must be finite"),
    (lambda: constant(float("inf")), ValueError, "finite"),
    (lambda: polynomial(1.0, 3, power=0.0), ValueError, "power must be positive"),
    (lambda: exponential(1.0, -0.5), ValueError, "factor must be positive"),
    (lambda: step_decay(1.0, 0), ValueError, "every"),
    (lambda: multi_step(1.0, []), ValueError, "increasing"),
    (lambda: multi_step(1.0, [3, 2]), ValueError, "increasing"),
    (lambda: multi_step(1.0, [-1]), ValueError, "at least 1"),
    (lambda: inverse_sqrt(1.0, 0), ValueError, "after"),
    (lambda: one_cycle(1.0, 3), ValueError, "between 1 and 3"),
    (lambda: one_cycle(1.0, 10, rise=1.0), ValueError, "between 1 and 10"),
    (lambda: cyclic(0.0, 1.0, 2, -2), ValueError, "down"),
    (lambda: warm_restarts(1.0, 5, 0), ValueError, "growth"),
    (lambda: constant(1.0).then(constant(2.0)), ValueError, r"constant\(1.0\) never ends"),
    (lambda: warmup(2).then(cyclic(0, 1, 2)).then(1.0), ValueError, "never ends"),
    (lambda: warmup(2).then(warmup(3)), ValueError, "needs a value to rise to"),
    (lambda: constant(1.0, 3).then("x"), TypeError, "'x'"),  # type: ignore[arg-type]
    (lambda: constant(1.0) * "x", TypeError, "'x'"),  # type: ignore[operator]
    (lambda: constant(1.0) * float("nan"), ValueError, "finite"),
    (lambda: cosine(1.0, 3)(0), ValueError, "counted from 1, not 0"),
    (lambda: exponential(1.0, 2.0)(5000), ValueError, "step 5000 is not finite"),
    (lambda: Schedule(lambda t: float("nan"))(1), ValueError, "not finite"),
    (lambda: Plateau(1.0, factor=1.0), ValueError, "factor"),
    (lambda: Plateau(1.0, patience=-1), ValueError, "patience"),
    (lambda: Plateau(1.0, lowest=float("nan")), ValueError, "lowest"),
    (lambda: Plateau(1.0, mode="low"), ValueError, "mode"),  # type: ignore[arg-type]
    (lambda: Plateau(1.0).load_state_dict({}), ValueError, "reductions"),
]


@pytest.mark.parametrize(("make", "error", "message"), BAD, ids=[m for _, _, m in BAD])
def test_refused_input(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_a_bare_warmup_is_not_a_hyperparameter() -> None:
    w = Parameter([1.0], name="w")
    with pytest.raises(ValueError, match=r"lr: warmup\(10\) only scales the schedule"):
        AdamW([w], warmup(10))
    assert w.owner is None
    assert AdamW([w], warmup(10) * 1e-3).hyper["lr"] == warmup(10) * 1e-3


def test_plateau_waits_reduces_rests_and_stops() -> None:
    lr = Plateau(linear(1.0, 2.0, 2), factor=0.5, patience=1, cooldown=2, lowest=0.3)
    found = []
    for metric in (5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 4.0, 5.0, 5.0, 5.0):
        lr.report(metric)
        found.append(lr(1))
    assert found == [1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.3, 0.3, 0.3, 0.3, 0.3]
    assert (lr.reductions, lr(2)) == (3, 0.3)
    rising = Plateau(1.0, factor=0.5, patience=0, mode="max", threshold=0.1)
    for metric in (1.0, 1.2, 1.25):
        rising.report(metric)
    assert (rising.reductions, rising(9)) == (1, 0.5)


def test_plateau_resumes_from_its_state() -> None:
    metrics = [3.0, 2.0, 2.5, 2.5, 2.5, 1.0, 1.5, 1.5, 1.5]
    whole, first, second = (Plateau(1.0, patience=1, cooldown=1) for _ in range(3))
    for metric in metrics:
        whole.report(metric)
    for metric in metrics[:4]:
        first.report(metric)
    second.load_state_dict(first.state_dict())
    for metric in metrics[4:]:
        second.report(metric)
    assert second.state_dict() == whole.state_dict()
    bad = {**whole.state_dict(), "waited": -1}
    with pytest.raises(ValueError, match="waited: saved -1"):
        first.load_state_dict(bad)


def test_plateau_in_an_optimizer(backend: Backend) -> None:
    w = Parameter([0.0], name="w", backend=backend)
    lr = Plateau(1.0, factor=0.5, patience=0)
    optimizer = SGD([w], lr)
    for metric in (1.0, 1.0, 1.0):
        optimizer.step(w.sum().backward())
        lr.report(metric)
    assert w.item() == -2.5


def test_a_plot_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"rumus-optim\[plot\]"):
        cosine(1.0, 10).plot()


@pytest.mark.parametrize("first", [1.0, -1.0, 0.0])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_plateau_of_a_metric_of_any_sign(first: float, mode: Any) -> None:
    """A metric that stays or slowly worsens is no better; the threshold is relative to its size."""
    worse = 5e-5 if mode == "min" else -5e-5
    for drift in (0.0, worse):
        rate = Plateau(1.0, patience=1, mode=mode)
        for step in range(8):
            rate.report(first + drift * step)
        assert (rate.reductions, rate.best) == (3, first)
    rate = Plateau(1.0, patience=1, mode=mode)
    for step in range(8):
        rate.report(first + (step if mode == "max" else -step))
    assert rate.reductions == 0


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_metric_of_nan_is_no_improvement(mode: Literal["min", "max"]) -> None:
    """As with PyTorch's ReduceLROnPlateau."""
    rate = Plateau(1.0, factor=0.5, patience=1, mode=mode)
    for metric in (float("nan"), 1.0, float("nan")):
        rate.report(metric)
    assert (rate(1), rate.best) == (1.0, 1.0)
    rate.report(float("nan"))
    assert (rate(1), rate.best) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lr": linear(0.1, -0.1, 10)}, "lr must be finite and >= 0, not -0.01.* at step 6"),
        ({"lr": cosine(0.1, 1000, end=-0.01)}, "lr must be finite and >= 0, not -0.0"),
        ({"lr": warmup(5).then(linear(1.0, -1.0, 3))}, r"lr must be .* not -1.0 .* at step 8"),
        ({"lr": cosine(0.1, 10) * -1}, "lr must be .* not -0.1 .* at step 1"),
        ({"lr": 0.1, "momentum": linear(0.5, 1.5, 9)}, "momentum must be .* at step 5"),
        ({"lr": 0.1, "weight_decay": constant(-1)}, "weight_decay must be .* at step 1"),
    ],
)
def test_a_schedule_that_leaves_its_range_is_refused_before_the_first_step(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        SGD([Parameter([1.0])], **given)
    optimizer = SGD([Parameter([1.0])], 0.5, momentum=0.9)
    with pytest.raises(ValueError, match=message):
        optimizer.set(**given)
    assert optimizer.hyper["lr"] == 0.5


@pytest.mark.parametrize(
    "lr",
    [
        linear(0.1, 0.0, 10),
        exponential(1e-7, 1.2),  # as of a test of rates, which ends before 1e38
        cosine(0.1, 1) * 2,
        warmup(10, start=0.5).then(0.1),
        one_cycle(0.1, 10_000_000),
    ],
)
def test_a_schedule_within_its_range(lr: Schedule) -> None:
    assert SGD([Parameter([1.0])], lr, momentum=linear(0.85, 0.95, 10)).hyper["lr"] is lr
