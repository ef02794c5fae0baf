"""Every optimizer and every option against PyTorch, over 200 steps of problems of odd shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from optimizer_table import IN_TORCH

from rumus.optim import (
    ASGD,
    SGD,
    Adadelta,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Muon,
    NAdam,
    ParameterGroup,
    RAdam,
    RMSprop,
    Rprop,
    clip_grad_norm,
    clip_grad_value,
)
from rumus.tensor import Backend, DType, Parameter, Tensor, tensor

torch.set_num_threads(1)  # these tensors are small: threads would only wait for each other

Real = NDArray[Any]
STEPS: Final = 200
SHAPES: Final = ((1,), (7,), (3, 5), (2, 1, 3), (257,), (65, 3))
LARGE: Final = (*SHAPES, (131, 129))  # beyond the size from which numba compiles a loop
OPTIONS: Final[Sequence[tuple[type[Any], dict[str, Any]]]] = (
    (SGD, {"lr": 0.05}),
    (SGD, {"lr": 0.05, "momentum": 0.9}),
    (SGD, {"lr": 0.05, "momentum": 0.9, "dampening": 0.5}),
    (SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    (SGD, {"lr": 0.05, "weight_decay": 0.1}),
    (SGD, {"lr": 0.01, "maximize": True}),
    (SGD, {"lr": 0.01, "momentum": 0.7, "dampening": 0.1, "weight_decay": 0.1, "maximize": True}),
    (Adam, {}),
    (Adam, {"lr": 0.01, "betas": (0.8, 0.95)}),
    (Adam, {"lr": 0.01, "eps": 1e-3}),
    (Adam, {"lr": 0.01, "weight_decay": 0.1}),
    (Adam, {"lr": 0.01, "amsgrad": True}),
    (Adam, {"lr": 0.01, "amsgrad": True, "weight_decay": 0.1, "maximize": True}),
    (Adam, {"lr": 0.01, "maximize": True}),
    (AdamW, {}),
    (AdamW, {"lr": 0.01, "weight_decay": 0.1}),
    (AdamW, {"lr": 0.01, "amsgrad": True}),
    (AdamW, {"lr": 0.01, "betas": (0.5, 0.9), "eps": 1e-5, "maximize": True}),
    (Adagrad, {}),
    (Adagrad, {"lr": 0.1, "lr_decay": 0.01, "eps": 1e-4}),
    (Adagrad, {"lr": 0.1, "initial_accumulator_value": 0.5, "weight_decay": 0.1}),
    (Adagrad, {"lr": 0.1, "maximize": True}),
    (RMSprop, {}),
    (RMSprop, {"alpha": 0.9, "eps": 1e-3, "weight_decay": 0.1}),
    (RMSprop, {"lr": 1e-3, "momentum": 0.9}),
    (RMSprop, {"lr": 1e-3, "centered": True}),
    (RMSprop, {"lr": 1e-3, "centered": True, "momentum": 0.5, "maximize": True}),
    (Adadelta, {}),
    (Adadelta, {"lr": 0.5, "rho": 0.8, "eps": 1e-4, "weight_decay": 0.1}),
    (Adadelta, {"maximize": True}),
    (Adafactor, {}),
    (Adafactor, {"lr": 0.2, "weight_decay": 0.01, "d": 1.5}),
    (Adafactor, {"eps": (0.5, 5.0), "beta2_decay": -0.5, "weight_decay": 0.1}),
    (Adafactor, {"maximize": True}),
    (Adamax, {}),
    (Adamax, {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-2, "weight_decay": 0.1}),
    (Adamax, {"maximize": True}),
    (NAdam, {}),
    (NAdam, {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.1}),
    (NAdam, {"momentum_decay": 0.1, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    (NAdam, {"maximize": True}),
    (RAdam, {}),
    (RAdam, {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.1}),
    (RAdam, {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    (RAdam, {"maximize": True}),
    (Rprop, {}),
    (Rprop, {"lr": 0.02, "etas": (0.25, 1.5), "step_sizes": (1e-3, 0.0625)}),
    (Rprop, {"maximize": True}),
    (ASGD, {}),
    (ASGD, {"lr": 0.02, "lambd": 0.01, "alpha": 0.6, "t0": 50, "weight_decay": 0.1}),
    (ASGD, {"maximize": True}),
)


COMBINED: Final = [  # for each optimizer, the variant with the most options
    (kind, max((o for k, o in OPTIONS if k is kind), key=len))
    for kind in dict.fromkeys(kind for kind, _ in OPTIONS)
]


class Problem:
    """Weighted distances to random points: the gradient depends on the parameter."""

    def __init__(
        self, dtype: DType, backend: Backend, sign: float = 1.0, shapes: Any = SHAPES
    ) -> None:
        draw = np.random.default_rng(3)

        def normal(shape: tuple[int, ...]) -> Real:
            return np.asarray(draw.normal(size=shape), dtype)

        self.noise = [[2 + normal(shape) for shape in shapes] for _ in range(STEPS)]
        self.weights = [sign * (np.abs(normal(shape)) + dtype.type(0.1)) for shape in shapes]
        start = [4 + normal(shape) for shape in shapes]
        self.ours = [
            Parameter(a, name=f"p{i}", dtype=dtype, backend=backend) for i, a in enumerate(start)
        ]
        self.theirs = [torch.nn.Parameter(torch.from_numpy(a.copy())) for a in start]

    def our_loss(self, t: int) -> Tensor:

        def put(a: Real, p: Parameter) -> Tensor:
            return tensor(a, dtype=p.dtype, backend=p.backend)

        rows = zip(self.ours, self.noise[t], self.weights, strict=True)
        parts = [(put(w, p) * (p - put(n, p)) ** 2).sum() for p, n, w in rows]
        return sum(parts[1:], parts[0])

    def their_loss(self, t: int) -> torch.Tensor:
        rows = zip(self.theirs, self.noise[t], self.weights, strict=True)
        parts = [(torch.from_numpy(w) * (p - torch.from_numpy(n)) ** 2).sum() for p, n, w in rows]
        return torch.stack(parts).sum()

    def error(self) -> float:
        """The largest error of a parameter, relative in the 2-norm."""
        found = []
        for ours, theirs in zip(self.ours, self.theirs, strict=True):
            wanted = theirs.detach().numpy().astype(np.float64)
            error = np.linalg.norm(ours.numpy().astype(np.float64) - wanted)
            found.append(float(error / np.linalg.norm(wanted)))
        return max(found)


def tolerance(dtype: DType, kind: type[Any] = SGD) -> float:
    """The allowed difference after 200 steps.

    PyTorch keeps NAdam's product of mu and ASGD's learning rate as float32 tensors, whatever the
    parameters' dtype; test_formulas.py compares with the formulas to 1e-10.
    """
    if dtype != np.float64:
        return 2e-6 if kind in (ASGD, NAdam) else 1e-6
    return 1e-8 if kind is NAdam else 1e-7 if kind is ASGD else 1e-12


@pytest.fixture(params=["float32", "widest"])
def dtype(request: pytest.FixtureRequest, widest: DType) -> DType:
    return widest if request.param == "widest" else np.dtype(np.float32)


@pytest.mark.parametrize(("kind", "options"), OPTIONS, ids=lambda value: str(value))
def test_optimizers(
    kind: type[Any],
    options: dict[str, Any],
    dtype: DType,
    backend: Backend,
    record_deviation: Callable[..., None],
) -> None:
    problem = Problem(dtype, backend, -1.0 if "maximize" in options else 1.0)
    deviation = compare(problem, kind, options)
    if dtype == np.float32 and backend.name != "numba":  # which leaves these sizes to NumPy
        record_deviation(kind, options, "PyTorch", backend, deviation)


@pytest.mark.parametrize(("kind", "options"), COMBINED, ids=lambda value: str(value))
def test_large_parameters(
    kind: type[Any],
    options: dict[str, Any],
    backend: Backend,
    record_deviation: Callable[..., None],
) -> None:
    sign = -1.0 if "maximize" in options else 1.0
    deviation = compare(Problem(np.dtype(np.float32), backend, sign, LARGE), kind, options)
    if backend.name == "numba":
        record_deviation(kind, options, "PyTorch", backend, deviation)


def compare(problem: Problem, kind: type[Any], options: dict[str, Any]) -> float:
    ours = kind(problem.ours, **options)
    theirs = getattr(torch.optim, kind.__name__)(problem.theirs, **options)
    for t in range(STEPS):
        with problem.our_loss(t).backward() as grads:
            ours.step(grads)
        theirs.zero_grad()
        problem.their_loss(t).backward()
        theirs.step()
    assert problem.error() <= tolerance(problem.ours[0].dtype, kind)
    return problem.error()


@pytest.mark.parametrize("kind", [SGD, AdamW], ids=["SGD", "AdamW"])
def test_groups_and_a_schedule(kind: type[Any], dtype: DType, backend: Backend) -> None:
    problem = Problem(dtype, backend)

    def schedule(t: int) -> float:
        return 0.02 * min(1.0, t / 50)

    groups = [
        ParameterGroup(problem.ours[:3], weight_decay=0.0),
        ParameterGroup(problem.ours[3:], weight_decay=0.125),
    ]
    ours = kind(groups, schedule)
    theirs = getattr(torch.optim, kind.__name__)(
        [
            {"params": problem.theirs[:3], "weight_decay": 0.0},
            {"params": problem.theirs[3:], "weight_decay": 0.125},
        ],
        lr=0.0,
    )
    for t in range(STEPS):
        with problem.our_loss(t).backward() as grads:
            ours.step(grads)
        theirs.zero_grad()
        problem.their_loss(t).backward()
        for group in theirs.param_groups:
            group["lr"] = schedule(t + 1)
        theirs.step()
    assert problem.error() <= tolerance(dtype)


def test_clipping(dtype: DType, backend: Backend) -> None:
    problem = Problem(dtype, backend)
    ours, theirs = SGD(problem.ours, 0.05), torch.optim.SGD(problem.theirs, 0.05)
    for t in range(STEPS):
        with problem.our_loss(t).backward() as grads:
            norm = float(clip_grad_norm(grads, ours, 5.0))
            clip_grad_value(grads, ours, 0.25)
            ours.step(grads)
        theirs.zero_grad()
        problem.their_loss(t).backward()
        wanted = float(torch.nn.utils.clip_grad_norm_(problem.theirs, 5.0))
        torch.nn.utils.clip_grad_value_(problem.theirs, 0.25)
        theirs.step()
        assert abs(norm - wanted) <= tolerance(dtype) * wanted
    assert problem.error() <= tolerance(dtype)


def test_there_is_every_optimizer() -> None:
    assert {kind for kind, _ in OPTIONS} == set(IN_TORCH) - {Muon}  # test_muon_torch.py tests it
