"""Scalars that depend on all steps so far: every query gets the same answer, in any order."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from rumus.optim import FusedOptimizer, NAdam, Running, ScheduleFreeSGD
from rumus.tensor import Backend, Expr, Parameter, tensor


def test_a_sum_and_a_product_of_it() -> None:
    running = Running(
        total=(0.0, lambda before, *, lr: before + lr),
        product=(1.0, lambda before, *, t, total: before * (total + t)),
    )
    assert running.names == ("total", "product")
    assert running.needed == {"lr"}
    assert running.at(0, 3, {"lr": 0.5, "other": 1.0}) == {"total": 1.5, "product": 1.5 * 3 * 4.5}


@pytest.mark.parametrize("asked", [[1000, 1, 999, 3], [5, 4, 700, 5], list(range(600)), [0, 300]])
def test_the_order_of_queries_does_not_matter(asked: list[int]) -> None:
    running = Running(total=(0.0, lambda before, *, t, lr: before + math.sin(t) * lr))
    lr = lambda t: 1 / t
    for t in asked:
        wanted = 0.0
        for s in range(1, t + 1):
            wanted += math.sin(s) * (1 / s)
        assert running.at(0, t, {"lr": lr}) == {"total": wanted}


def test_places_and_changes_are_kept_apart() -> None:
    running = Running(total=(0.0, lambda before, *, lr: before + lr))
    assert running.at(0, 4, {"lr": 1.0}) == {"total": 4.0}
    assert running.at(1, 4, {"lr": 2.0}) == {"total": 8.0}
    assert running.at(0, 5, {"lr": 1.0}) == {"total": 5.0}
    assert running.at(0, 5, {"lr": 3.0}) == {"total": 15.0}


def test_a_schedule_that_fails_leaves_no_trace() -> None:
    running = Running(total=(0.0, lambda before, *, lr: before + lr))
    fails = [True]

    def schedule(t: int) -> float:
        if t == 3 and fails:
            raise ZeroDivisionError("a schedule failed")
        return 1.0

    with pytest.raises(ZeroDivisionError):
        running.at(0, 5, {"lr": schedule})
    fails.clear()
    assert running.at(0, 5, {"lr": schedule}) == {"total": 5.0}


def test_a_user_defined_rule(backend: Backend) -> None:
    def slowing(p: Expr, g: Expr, *, lr: Expr, total: Expr) -> dict[str, Expr]:
        return {"p": p - lr / total * g}

    w = Parameter([0.0], name="w", backend=backend)
    running = Running(total=(0.0, lambda before, *, t, start: before + start * t))
    optimizer = FusedOptimizer([w], slowing, 1.0, running=running, start=2.0)
    for _ in range(3):
        optimizer.step(w.sum().backward())
    assert w.item() == pytest.approx(-(1 / 2 + 1 / 6 + 1 / 12))


@pytest.mark.parametrize("name", ["mu_product", "t"])
def test_nobody_may_set_a_running_scalar(name: str) -> None:
    w = Parameter([1.0], name="w")
    optimizer = NAdam([w])
    with pytest.raises(TypeError, match=name):
        optimizer.set(**{name: 0.5})


@pytest.mark.parametrize("kind", [NAdam, ScheduleFreeSGD])
def test_a_resumed_run_has_the_same_numbers(kind: type[Any], backend: Backend) -> None:
    """Including steps whose numbers are no longer cached."""
    draw = np.random.default_rng(5)
    start, gradients = draw.normal(size=7), draw.normal(size=(320, 7))
    lr = lambda t: 0.05 / (1 + t / 100)

    def trained(w: Parameter, optimizer: FusedOptimizer[Any], steps: range) -> None:
        for t in steps:
            optimizer.step((w * tensor(gradients[t], backend=backend)).sum().backward())

    w = Parameter(start, name="w", backend=backend)
    whole = kind([w], lr)
    trained(w, whole, range(310))
    again = Parameter(w.numpy(), name="w", backend=backend)
    resumed = kind([again], lr)
    resumed.load_state_dict(whole.state_dict())
    trained(w, whole, range(310, 320))
    trained(again, resumed, range(310, 320))
    assert again.numpy().tobytes() == w.numpy().tobytes()
