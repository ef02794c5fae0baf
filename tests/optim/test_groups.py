"""Groups: scaled learning rates, decay only for matrices, and their description."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rumus.optim import (
    SGD,
    Adam,
    AdamW,
    FusedOptimizer,
    Memory,
    ParameterGroup,
    RAdam,
    ScheduleFreeSGD,
    linear,
    warmup,
)
from rumus.tensor import Backend, NumpyBackend, Parameter, Parameters, float32


def made(backend: Backend, *shapes: tuple[int, ...]) -> list[Parameter]:
    return [
        Parameter(np.ones(shape, np.float32), name=f"p{i}", backend=backend)
        for i, shape in enumerate(shapes)
    ]


def step(optimizer: FusedOptimizer[Any]) -> None:
    parts = [(p * p).sum() for p in optimizer.parameters]
    optimizer.step(sum(parts[1:], parts[0]).backward())


@pytest.mark.parametrize(
    "lr", [0.25, linear(0.25, 0.5, 3), lambda t: 0.25 * t], ids=["number", "schedule", "function"]
)
@pytest.mark.parametrize("kind", [SGD, AdamW, RAdam, ScheduleFreeSGD])
def test_a_scaled_group_is_one_with_a_smaller_rate(kind: Any, lr: Any, backend: Backend) -> None:
    scaled, smaller = made(backend, (3,), (2, 2)), made(backend, (3,), (2, 2))
    less = (lambda t: lr(t) * 0.5) if callable(lr) else lr * 0.5
    first = kind([ParameterGroup(scaled[:1]), ParameterGroup(scaled[1:], lr_scale=0.5)], lr)
    second = kind([ParameterGroup(smaller[:1]), ParameterGroup(smaller[1:], lr=less)], lr)
    for _ in range(3):
        step(first)
        step(second)
    for a, b in zip(scaled, smaller, strict=True):
        assert a.numpy().tobytes() == b.numpy().tobytes()
    assert scaled[0].numpy()[0] != scaled[1].numpy()[0, 0]


def test_the_scale_is_for_the_rate_of_the_group_too() -> None:
    a, b = made(Parameter(0.0).backend, (1,), (1,))
    frozen = Parameter([1.0], name="frozen", requires_grad=False)
    group = ParameterGroup([b, frozen], lr=0.25, lr_scale=0.5)
    optimizer = SGD([ParameterGroup([a], lr_scale=0.0), group], 0.25)
    step(optimizer)
    assert (a.item(), b.item()) == (1.0, 0.75)
    for bad in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="lr_scale"):
            ParameterGroup([a], lr_scale=bad)


@pytest.mark.parametrize("amsgrad", [False, True])
def test_decay_for_matrices(amsgrad: bool, backend: Backend) -> None:
    shapes = ((3,), (2, 2), (), (2, 1, 2))
    matrices, split = made(backend, *shapes), made(backend, *shapes)
    first = AdamW(matrices, 0.1, weight_decay=0.5, decay="matrices", amsgrad=amsgrad)
    groups = [
        ParameterGroup([split[1], split[3]], weight_decay=0.5),
        ParameterGroup([split[0], split[2]], weight_decay=0.0),
    ]
    second = AdamW(groups, 0.1, weight_decay=0.25, amsgrad=amsgrad)
    for _ in range(3):
        step(first)
        step(second)
    for a, b in zip(matrices, split, strict=True):
        assert a.numpy().tobytes() == b.numpy().tobytes()
    assert matrices[0].numpy()[0] > matrices[1].numpy()[0, 0]
    assert len(first.groups) == 2


def test_decay_for_matrices_keeps_what_a_group_says(backend: Backend) -> None:
    a, b, c = made(backend, (2,), (2,), (2, 2))
    groups = [
        ParameterGroup([a], weight_decay=0.5, optional=True, lr_scale=0.5),
        ParameterGroup([b, c], betas=(0.5, 0.5)),
    ]
    found = AdamW(groups, 0.1, weight_decay=0.25, decay="matrices").groups
    assert [[name for name, _ in g.named] for g in found] == [["p0"], ["p2"], ["p1"]]
    assert [g.hyper.get("weight_decay") for g in found] == [0.5, None, 0.0]
    assert [g.hyper.get("beta1") for g in found] == [None, 0.5, 0.5]
    assert [(g.optional, g.lr_scale) for g in found] == [(True, 0.5), (False, 1.0), (False, 1.0)]
    wrong: Any = "biases"
    with pytest.raises(ValueError, match="'biases'"):
        AdamW([Parameter([1.0])], decay=wrong)


def test_describe_shows_the_groups() -> None:
    weight = Parameter(np.ones((2, 3), np.float32), name="weight")
    bias = Parameter(np.ones(3, np.float32), name="bias", role="bias")
    named: Parameters[Any] = Parameters({"layer.weight": weight, "layer.bias": bias})
    groups = [
        ParameterGroup(named.where("*.weight")),
        ParameterGroup(named.where(role="bias"), lr_scale=0.5, weight_decay=0.0, optional=True),
    ]
    lines = AdamW(groups, warmup(10).then(1e-2)).describe().split("\n")
    assert lines[0].startswith("AdamW (made at test_groups.py:")
    assert lines[0].endswith("2 parameters, 9 elements")
    lr = "warmup(10).then(constant(0.01))"
    assert lines[1].startswith("group 0: ")
    assert {f"lr={lr}", "beta2=0.999", "weight_decay=0.01"} <= set(lines[1][9:].split(", "))
    assert lines[2].split() == ["name", "shape", "role", "dtype"]
    assert lines[3] == "  layer.weight  (2, 3)  weight  float32"
    assert {f"lr={lr} * 0.5", "weight_decay=0", "optional"} <= set(lines[4][9:].split(", "))
    assert lines[6] == "  layer.bias  (3,)   bias  float32"
    assert len(lines) == 7


def test_describe_warns_of_a_decay_that_vanishes() -> None:
    def text(kind: Any, lr: Any, decay: float, dtype: Any = float32, **options: Any) -> str:
        group = ParameterGroup([Parameter(np.ones(2), name="w", dtype=dtype)], **options)
        return str(kind([group], lr, weight_decay=decay).describe())

    assert "warning: at step 1, lr x weight_decay = 5e-08" in text(AdamW, 5e-6, 1e-2)
    assert "warning" not in text(AdamW, 7e-6, 1e-2)
    assert "warning" in text(AdamW, 7e-6, 1e-2, lr_scale=0.5)
    assert "warning" not in text(AdamW, 5e-6, 0.0)
    assert "warning" not in text(AdamW, 5e-6, 1e-2, np.float64)
    assert "warning" not in text(Adam, 5e-6, 1e-2)  # there it is part of the gradient
    w = Parameter([1.0], name="w", dtype=float32)
    optimizer = AdamW([w], linear(1e-2, 1e-6, 2))
    assert "warning" not in optimizer.describe()
    step(optimizer)
    assert "warning: at step 2" in optimizer.describe()


@pytest.mark.parametrize(
    ("kind", "options", "parts"),
    [(SGD, {}, 0), (SGD, {"momentum": 0.9}, 1), (Adam, {}, 2), (AdamW, {"amsgrad": True}, 3)],
)
def test_memory(kind: Any, options: dict[str, Any], parts: int, backend: Backend) -> None:
    parameters = made(backend, (3,), (65,), (2, 2), (7,))
    parameters[3].requires_grad = False
    groups = [ParameterGroup(parameters[:2]), ParameterGroup(parameters[2:], optional=True)]
    size = 4 * (64 + 128 + 64)
    expected = Memory(size, size, parts * size)
    assert kind.planned_memory(groups, 0.1, **options) == expected
    assert all(p.owner is None for p in parameters)
    optimizer = kind(groups, 0.1, **options)
    assert optimizer.memory() == expected
    assert expected.total == (2 + parts) * size
    assert optimizer.planned_memory(parameters, 0.1, **options) == expected


def test_the_work_of_a_first_step_is_proportional_to_the_groups(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each group was compared with each other one: 1,600 of them took seconds."""
    looked = []
    over = ParameterGroup.over

    def counting(group: ParameterGroup, hyper: Any) -> Any:
        looked.append(group)
        return over(group, hyper)

    monkeypatch.setattr(ParameterGroup, "over", counting)
    counts = []
    for size in (20, 40):
        parameters = made(NumpyBackend(), *[(2,)] * size)
        looked.clear()
        step(AdamW([ParameterGroup([p], lr=0.1 / (i + 1)) for i, p in enumerate(parameters)], 0.1))
        counts.append(len(looked))
    assert counts[1] < 2.2 * counts[0]
