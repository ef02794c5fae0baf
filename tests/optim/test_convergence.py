"""Every optimizer with its defaults on two problems that are hard in different ways.

Rosenbrock's valley is curved; the quadratic is a hundred times steeper in one direction than in
another. Losses are relative to the first. Steps along the gradient itself, not its direction, need
a problem of a suitable scale: the valley's loss is divided by 1000 for schedule-free SGD, whose
default learning rate is 1, and by 20 for ASGD.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray
from optimizer_table import KINDS

from rumus import optim
from rumus.optim import AveragingOptimizer, FusedOptimizer
from rumus.tensor import Backend, GradientStore, NumpyBackend, Parameter, float64, tensor

Real = NDArray[Any]
Problem = Callable[[Real], tuple[float, Real]]
STEPS: Final = 4000
CURVATURES: Final = np.geomspace(0.01, 1.0, 10)
# optimizer -> the largest loss at the end, relative to the first: in the valley, on the quadratic
BOUNDS: Final[dict[type[FusedOptimizer[Any]], tuple[float, float]]] = {
    optim.SGD: (1e-3, 0.2),
    optim.Adagrad: (0.04, 0.01),
    optim.RMSprop: (0.02, 1e-3),
    optim.Adadelta: (0.1, 1e-9),
    optim.Adafactor: (0.02, 1e-3),  # as LAMB
    optim.Adam: (0.02, 1e-9),
    optim.AdamW: (0.02, 1e-9),
    optim.Adamax: (0.02, 1e-9),
    optim.NAdam: (0.02, 1e-9),
    optim.RAdam: (0.02, 1e-9),
    optim.Rprop: (1e-6, 1e-9),
    optim.ASGD: (0.01, 0.01),
    optim.LAMB: (0.02, 1e-3),  # each step moves a tensor by lr times its norm
    optim.LARS: (0.02, 1e-9),
    optim.Lion: (0.04, 1e-6),
    optim.Muon: (0.02, 1e-9),  # AdamW: there is no matrix here; see test_muon.py
    optim.AdaBelief: (0.02, 1e-9),
    optim.Yogi: (0.02, 1e-9),
    optim.Adan: (0.02, 1e-9),
    optim.LaProp: (0.02, 1e-9),
    optim.AdEMAMix: (0.02, 1e-3),  # its slow average remembers more than these steps
    optim.SOAP: (0.02, 1e-7),  # AdamW with betas of 0.95; see test_soap.py
    optim.StableAdamW: (0.02, 1e-3),  # with a beta2 of 0.99 the last steps stay large
    optim.MARS: (0.02, 1e-3),
    optim.Prodigy: (0.02, 1e-9),
    optim.DAdaptAdam: (0.02, 1e-9),
    optim.ADOPT: (0.02, 1e-9),
    optim.ScheduleFreeSGD: (0.04, 1e-3),
    optim.ScheduleFreeAdamW: (0.02, 1e-3),
}
SCALES: Final[dict[type[FusedOptimizer[Any]], float]] = {
    optim.ScheduleFreeSGD: 1000.0,
    optim.ASGD: 20.0,
}


def rosenbrock(p: Real, scale: float) -> tuple[float, Real]:
    x, y = p.tolist()
    across = y - x * x
    gradient = np.array([-2 * (1 - x) - 400 * x * across, 200 * across])
    return ((1 - x) ** 2 + 100 * across**2) / scale, gradient / scale


def quadratic(p: Real) -> tuple[float, Real]:
    return float((CURVATURES * p * p).sum()) / 2, CURVATURES * p


def final_loss(kind: type[FusedOptimizer[Any]], problem: Problem, start: Real) -> float:
    """The loss after training, relative to the first; the average's if there is one."""
    backend: Backend = NumpyBackend()
    w = Parameter(start, dtype=float64, backend=backend)
    optimizer = kind([w])  # type: ignore[call-arg]
    for _ in range(STEPS):
        grads = GradientStore()
        _, gradient = problem(w.numpy())
        grads.accumulate(w, tensor(gradient, dtype=float64, backend=backend))
        optimizer.step(grads)
    with optimizer.eval_params() if isinstance(optimizer, AveragingOptimizer) else nullcontext():
        return problem(w.numpy())[0] / problem(start)[0]


@pytest.mark.parametrize("kind", list(BOUNDS), ids=lambda kind: kind.__name__)
def test_rosenbrock(kind: type[FusedOptimizer[Any]]) -> None:
    scale = SCALES.get(kind, 1.0)
    loss = final_loss(kind, lambda p: rosenbrock(p, scale), np.array([0.5, 0.5]))
    assert loss <= BOUNDS[kind][0]


@pytest.mark.parametrize("kind", list(BOUNDS), ids=lambda kind: kind.__name__)
def test_an_ill_conditioned_quadratic(kind: type[FusedOptimizer[Any]]) -> None:
    assert final_loss(kind, quadratic, np.full(10, 0.25)) <= BOUNDS[kind][1]


def test_there_is_every_optimizer() -> None:
    assert set(BOUNDS) == set(KINDS)
