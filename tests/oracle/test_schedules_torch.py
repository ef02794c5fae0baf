"""Schedules against PyTorch: its epoch 0 is step 1, so its T_max and total_iters are n - 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest
import torch
from torch.optim import lr_scheduler

from rumus.optim import (
    Plateau,
    Schedule,
    constant,
    cosine,
    cyclic,
    exponential,
    linear,
    multi_step,
    one_cycle,
    polynomial,
    step_decay,
    warm_restarts,
    warmup,
)

START: Final = 0.8
Make = Callable[[Any], Any]
CASES: Final[list[tuple[Schedule, Make]]] = [
    (constant(START), lambda o: lr_scheduler.ConstantLR(o, 1.0)),
    (
        linear(START * 0.25, START * 0.5, 31),
        lambda o: lr_scheduler.LinearLR(o, 0.25, 0.5, total_iters=30),
    ),
    (polynomial(START, 31, power=2.5), lambda o: lr_scheduler.PolynomialLR(o, 30, 2.5)),
    (exponential(START, 0.9), lambda o: lr_scheduler.ExponentialLR(o, 0.9)),
    (step_decay(START, 7, 0.3), lambda o: lr_scheduler.StepLR(o, 7, 0.3)),
    (multi_step(START, [5, 6, 30], 0.3), lambda o: lr_scheduler.MultiStepLR(o, [5, 6, 30], 0.3)),
    (
        warm_restarts(START, 5, 2, 0.1),
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 5, 2, 0.1),
    ),
    (warm_restarts(START, 7), lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 7)),
    (
        cyclic(0.1, START, 4, 7),
        lambda o: lr_scheduler.CyclicLR(o, 0.1, START, 4, 7, cycle_momentum=False),
    ),
    (
        cyclic(0.1, START, 4, shrink=0.5),
        lambda o: lr_scheduler.CyclicLR(o, 0.1, START, 4, mode="triangular2", cycle_momentum=False),
    ),
    (
        exponential(START, 0.5, 10).then(linear(0.5 * START, 0.0, 21)),
        lambda o: lr_scheduler.SequentialLR(
            o,
            [
                lr_scheduler.ExponentialLR(o, 0.5),
                lr_scheduler.LinearLR(o, 0.5, 0.0, total_iters=20),
            ],
            [10],
        ),
    ),
    (
        warmup(10).then(constant(START)),
        lambda o: lr_scheduler.LinearLR(o, 0.1, 1.0, total_iters=9),
    ),
]


def theirs(make: Make, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], START)
    scheduler = make(optimizer)
    found = []
    for _ in range(steps):
        found.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(("schedule", "make"), CASES, ids=[repr(s) for s, _ in CASES])
@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")  # with SequentialLR itself
def test_as_pytorch(schedule: Schedule, make: Make) -> None:
    expected = theirs(make, 80)
    assert [schedule(t) for t in range(1, 81)] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_cosine_as_pytorch_until_its_end() -> None:
    """Afterwards theirs rises again; ours stays."""
    expected = theirs(lambda o: lr_scheduler.CosineAnnealingLR(o, 30, 0.1), 31)
    ours = cosine(START, 31, 0.1)
    assert [ours(t) for t in range(1, 32)] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("options", [{}, {"rise": 0.5, "divide": 10.0, "final_divide": 100.0}])
def test_one_cycle_as_pytorch(options: dict[str, float]) -> None:
    names = {"rise": "pct_start", "divide": "div_factor", "final_divide": "final_div_factor"}
    given = {names[name]: value for name, value in options.items()}
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], START)
    scheduler = lr_scheduler.OneCycleLR(optimizer, 2.0, 37, cycle_momentum=False, **given)
    expected = [float(optimizer.param_groups[0]["lr"])]
    for _ in range(36):
        optimizer.step()
        scheduler.step()
        expected.append(float(optimizer.param_groups[0]["lr"]))
    ours = one_cycle(2.0, 37, **options)
    assert [ours(t) for t in range(1, 38)] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize(("patience", "cooldown"), [(0, 0), (2, 0), (1, 3)])
def test_plateau_as_pytorch(mode: Any, patience: int, cooldown: int) -> None:
    draw = torch.Generator().manual_seed(5)
    metrics = (torch.rand(120, generator=draw) + 1).tolist()
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], START)
    options: dict[str, Any] = {"mode": mode, "factor": 0.7, "patience": patience}
    scheduler = lr_scheduler.ReduceLROnPlateau(
        optimizer, **options, cooldown=cooldown, threshold=0.01, min_lr=0.01, eps=0.0
    )
    ours = Plateau(START, **options, cooldown=cooldown, threshold=0.01, lowest=0.01)
    for step, metric in enumerate(metrics, 1):
        scheduler.step(metric)
        ours.report(metric)
        assert ours(step) == pytest.approx(float(optimizer.param_groups[0]["lr"]), rel=1e-9)
