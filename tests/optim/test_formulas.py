"""Every optimizer and every option against formulas written out in NumPy float64.

The gradients are given (the loss is linear), so that only the update is under test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.optim import SGD, Adam, AdamW, Optimizer, ParameterGroup
from rumus.tensor import Backend, DType, Parameter, float32, float64, tensor

Real = NDArray[Any]
STEPS: Final = 200
SHAPES: Final = ((), (1,), (7,), (3, 5), (2, 1, 3), (257,), (65, 3))
LARGE: Final = ((129, 131), (11,))  # beyond the size from which numba compiles a loop


def value(hyper: Any, t: int) -> float:
    """A hyper-parameter at step t, 1 at the first."""
    return float(hyper(t) if callable(hyper) else hyper)


def expected_sgd(
    p: Real,
    gradients: Sequence[Real],
    lr: Any = 1e-3,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: Any = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
) -> Real:
    b = np.zeros_like(p)
    for t, given in enumerate(gradients, 1):
        g = (-given if maximize else given) + value(weight_decay, t) * p
        d = g
        if momentum:
            b = g if t == 1 else momentum * b + (1 - dampening) * g
            d = g + momentum * b if nesterov else b
        p = p - value(lr, t) * d
    return p


def expected_adam(
    p: Real,
    gradients: Sequence[Real],
    lr: Any = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: Any = 0.0,
    amsgrad: bool = False,
    maximize: bool = False,
    decoupled: bool = False,
) -> Real:
    m, v, largest = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    for t, given in enumerate(gradients, 1):
        g = -given if maximize else given
        if decoupled:
            p = p * (1 - value(lr, t) * value(weight_decay, t))
        else:
            g = g + value(weight_decay, t) * p
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        largest = np.maximum(largest, v)
        used = largest if amsgrad else v
        correction1, correction2 = 1 - betas[0] ** t, 1 - betas[1] ** t
        p = p - value(lr, t) / correction1 * m / (np.sqrt(used) / np.sqrt(correction2) + eps)
    return p


def expected_adamw(p: Real, gradients: Sequence[Real], **options: Any) -> Real:
    return expected_adam(p, gradients, **{"weight_decay": 0.01, "decoupled": True, **options})


def halving(t: int) -> float:
    return float(0.02 * 0.5 ** (t // 50))


def warming(t: int) -> float:
    return 0.01 * min(1.0, t / 20)


Expected = Callable[..., Real]
CASES: Final[dict[str, tuple[type[Optimizer[Any]], Expected, dict[str, Any]]]] = {
    "sgd": (SGD, expected_sgd, {}),
    "sgd lr": (SGD, expected_sgd, {"lr": 0.05}),
    "sgd momentum": (SGD, expected_sgd, {"lr": 0.01, "momentum": 0.9}),
    "sgd dampening": (SGD, expected_sgd, {"lr": 0.01, "momentum": 0.9, "dampening": 0.3}),
    "sgd nesterov": (SGD, expected_sgd, {"lr": 0.01, "momentum": 0.8, "nesterov": True}),
    "sgd decay": (SGD, expected_sgd, {"lr": 0.01, "weight_decay": 0.1}),
    "sgd maximize": (SGD, expected_sgd, {"lr": 0.01, "maximize": True}),
    "sgd all": (
        SGD,
        expected_sgd,
        {"lr": halving, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.05, "maximize": True},
    ),
    "sgd nesterov decay": (
        SGD,
        expected_sgd,
        {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 0.02, "maximize": True},
    ),
    "sgd schedules": (SGD, expected_sgd, {"lr": warming, "weight_decay": halving}),
    "adam": (Adam, expected_adam, {}),
    "adam betas": (Adam, expected_adam, {"lr": 0.01, "betas": (0.8, 0.95)}),
    "adam betas 0": (Adam, expected_adam, {"lr": 0.01, "betas": (0.0, 0.0)}),
    "adam eps": (Adam, expected_adam, {"lr": 0.01, "eps": 0.1}),
    "adam L2": (Adam, expected_adam, {"lr": 0.01, "weight_decay": 0.1}),
    "adam maximize": (Adam, expected_adam, {"lr": 0.01, "maximize": True, "weight_decay": 0.1}),
    "adam schedule": (Adam, expected_adam, {"lr": warming}),
    "amsgrad": (Adam, expected_adam, {"lr": 0.01, "amsgrad": True}),
    "amsgrad L2": (Adam, expected_adam, {"lr": 0.01, "amsgrad": True, "weight_decay": 0.1}),
    "adamw": (AdamW, expected_adamw, {}),
    "adamw decay": (AdamW, expected_adamw, {"lr": 0.01, "weight_decay": 0.3}),
    "adamw amsgrad": (AdamW, expected_adamw, {"lr": 0.01, "amsgrad": True, "weight_decay": 0.1}),
    "adamw maximize": (AdamW, expected_adamw, {"lr": 0.01, "maximize": True}),
    "adamw schedules": (AdamW, expected_adamw, {"lr": halving, "weight_decay": warming}),
    "adamw all": (
        AdamW,
        expected_adamw,
        {"lr": halving, "betas": (0.7, 0.99), "eps": 1e-4, "weight_decay": 0.2, "maximize": True},
    ),
}


class Problem:
    """Parameters, and for each of them a gradient at each step, random but given."""

    def __init__(self, shapes: Sequence[tuple[int, ...]], dtype: DType, backend: Backend) -> None:
        generator = np.random.default_rng(7)

        def draw(shape: tuple[int, ...]) -> Real:
            return np.asarray(generator.normal(size=shape), dtype)

        self.start = [
            3 * np.sign(a) + a for a in map(draw, shapes)
        ]  # far from 0: errors are relative
        self.gradients = [[draw(shape) for _ in range(STEPS)] for shape in shapes]
        self.parameters = [
            Parameter(a, name=f"p{i}", dtype=dtype, backend=backend)
            for i, a in enumerate(self.start)
        ]

    def run(self, optimizer: Optimizer[Any]) -> None:
        for t in range(STEPS):
            parts = [
                (p * tensor(g[t], dtype=p.dtype, backend=p.backend)).sum()
                for p, g in zip(self.parameters, self.gradients, strict=True)
            ]
            with sum(parts[1:], parts[0]).backward() as grads:
                optimizer.step(grads)

    def errors(self, expected: Expected, options: Sequence[dict[str, Any]]) -> list[float]:
        """The error of each parameter, relative in the 2-norm."""
        found = []
        rows = zip(self.parameters, self.start, self.gradients, options, strict=True)
        for parameter, start, gradients, option in rows:
            wide = [g.astype(np.float64) for g in gradients]
            wanted = expected(start.astype(np.float64), wide, **option)
            error = np.linalg.norm(parameter.numpy().astype(np.float64) - wanted)
            found.append(float(error / np.linalg.norm(wanted)))
        return found


def tolerance(dtype: DType, kind: type[Optimizer[Any]]) -> float:
    """What 200 steps may differ from float64.

    AdamW multiplies its parameters 200 times by a number near 1 that float32 knows to 3e-8
    (PyTorch rounds there too, and test_optim_torch.py agrees to 1e-6).
    """
    if dtype == float64:
        return 1e-10
    return 6e-6 if kind is AdamW else 2e-6


@pytest.mark.parametrize("name", list(CASES))
def test_widest_dtype(name: str, backend: Backend, widest: DType) -> None:
    kind, expected, options = CASES[name]
    problem = Problem(SHAPES, widest, backend)
    problem.run(kind(problem.parameters, **options))
    assert max(problem.errors(expected, [options] * len(SHAPES))) <= tolerance(widest, kind)


@pytest.mark.parametrize("name", ["sgd all", "sgd nesterov decay", "amsgrad L2", "adamw all"])
def test_large_arenas(name: str, backend: Backend, widest: DType) -> None:
    kind, expected, options = CASES[name]
    problem = Problem(LARGE, widest, backend)
    problem.run(kind(problem.parameters, **options))
    assert max(problem.errors(expected, [options] * len(LARGE))) <= tolerance(widest, kind)


@pytest.mark.parametrize("name", list(CASES))
def test_float32(name: str, backend: Backend) -> None:
    kind, expected, options = CASES[name]
    problem = Problem(SHAPES, float32, backend)
    problem.run(kind(problem.parameters, **options))
    errors = problem.errors(expected, [options] * len(SHAPES))
    assert max(errors) <= tolerance(float32, kind)


@pytest.mark.parametrize(
    ("kind", "expected", "own", "groups"),
    [
        (SGD, expected_sgd, {"momentum": 0.9}, [{"lr": 0.1}, {"weight_decay": 0.1}, {}]),
        (SGD, expected_sgd, {"lr": 0.01}, [{"lr": warming}, {"lr": halving}, {"lr": 0.0}]),
        (
            AdamW,
            expected_adamw,
            {"lr": 0.01},
            [{"weight_decay": 0.0}, {"betas": (0.5, 0.9)}, {"eps": 1e-3, "lr": halving}],
        ),
        (Adam, expected_adam, {"amsgrad": True}, [{"weight_decay": 0.1}, {"lr": 0.02}, {}]),
    ],
    ids=["sgd", "sgd lr", "adamw", "amsgrad"],
)
def test_groups_have_their_own_hyper_parameters(
    kind: Any, expected: Expected, own: Any, groups: Any, backend: Backend, widest: DType
) -> None:
    problem = Problem(SHAPES[:6], widest, backend)
    pairs = [problem.parameters[i : i + 2] for i in (0, 2, 4)]
    optimizer = kind(
        [ParameterGroup(pair, **hyper) for pair, hyper in zip(pairs, groups, strict=True)], **own
    )
    problem.run(optimizer)
    options = [{**own, **groups[i // 2]} for i in range(6)]
    assert max(problem.errors(expected, options)) <= tolerance(widest, kind)


def test_two_dtypes_in_one_group(backend: Backend, widest: DType) -> None:
    narrow = Problem([(3, 5)], float32, backend)
    wide = Problem([(7,), (2, 2)], widest, backend)
    both = [narrow.parameters[0], *wide.parameters]
    optimizer = Adam(both, 0.01)
    for t in range(STEPS):
        gradients = [g[t] for g in narrow.gradients + wide.gradients]
        parts = [
            (p * tensor(g, dtype=p.dtype, backend=backend)).sum()
            for p, g in zip(both, gradients, strict=True)
        ]
        optimizer.step((parts[0] + parts[1] + parts[2]).backward())
    assert narrow.errors(expected_adam, [{"lr": 0.01}])[0] <= 1e-6
    assert max(wide.errors(expected_adam, [{"lr": 0.01}] * 2)) <= tolerance(widest, Adam)


def test_hyper_parameters_changed_between_steps(backend: Backend, widest: DType) -> None:
    problem = Problem(SHAPES, widest, backend)
    optimizer = SGD(problem.parameters, 0.01, momentum=0.9)
    for t in range(STEPS):
        if t == 100:
            optimizer.set(lr=0.1, weight_decay=0.2)
        parts = [
            (p * tensor(g[t], dtype=widest, backend=backend)).sum()
            for p, g in zip(problem.parameters, problem.gradients, strict=True)
        ]
        optimizer.step(sum(parts[1:], parts[0]).backward())
    options = {
        "lr": lambda t: 0.01 if t <= 100 else 0.1,
        "momentum": 0.9,
        "weight_decay": lambda t: 0.0 if t <= 100 else 0.2,
    }
    assert max(problem.errors(expected_sgd, [options] * len(SHAPES))) <= tolerance(widest, SGD)
