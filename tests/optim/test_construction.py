"""Making an optimizer: what it refuses, and that grouping and order do not matter."""

from __future__ import annotations

import copy
import pickle
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optimizer_table import ROWS

from rumus.optim import (
    ADOPT,
    ASGD,
    SGD,
    AdaBelief,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Adan,
    FusedOptimizer,
    Lion,
    NAdam,
    ParameterGroup,
    RAdam,
    RMSprop,
    Rprop,
    ScheduleFreeAdamW,
    ScheduleFreeSGD,
    Yogi,
)
from rumus.tensor import (
    Backend,
    BackendMismatchError,
    NumpyBackend,
    OwnershipError,
    Parameter,
    Parameters,
    tensor,
    zeros,
)

# The others sum over all parameters, group by group and on a GPU in their order, and need every
# gradient.
SEPARATE: Final = [kind for kind, row in ROWS.items() if not row.is_joint]
SHAPES: Final = ((), (3,), (64,), (65,), (2, 3), (5, 13), (1,))
quick = settings(
    deadline=None,
    max_examples=6,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def made(backend: Backend, seed: int) -> list[Parameter]:
    draw = np.random.default_rng(seed)
    return [
        Parameter(draw.normal(size=s), name=f"p{i}", backend=backend) for i, s in enumerate(SHAPES)
    ]


def trained(parameters: list[Parameter], optimizer: FusedOptimizer[Any], seed: int) -> list[bytes]:
    """The bits of parameters and state after three steps."""
    draw = np.random.default_rng(seed)
    for _ in range(3):
        factors = [tensor(draw.normal(size=p.shape), backend=p.backend) for p in parameters]
        parts = [(p * p * f).sum() for p, f in zip(parameters, factors, strict=True)]
        optimizer.step(sum(parts[1:], parts[0]).backward())
    entries = optimizer.state_dict()["parameters"]
    state = [entries[p.name]["state"][key] for p in parameters for key in entries[p.name]["state"]]
    return [a.tobytes() for a in [*(p.numpy() for p in parameters), *state]]


@pytest.mark.parametrize("kind", SEPARATE)
@given(seed=st.integers(0, 2**16), cuts=st.sets(st.integers(1, len(SHAPES) - 1)))
@quick
def test_groups_without_options_are_one_group(
    kind: str, backend: Backend, seed: int, cuts: set[int]
) -> None:
    whole, split = made(backend, seed), made(backend, seed)
    edges = [0, *sorted(cuts), len(SHAPES)]
    groups = [ParameterGroup(split[a:b]) for a, b in pairwise(edges)]
    expected = trained(whole, ROWS[kind](whole), seed)
    assert trained(split, ROWS[kind](groups), seed) == expected


@pytest.mark.parametrize("kind", SEPARATE)
@given(seed=st.integers(0, 2**16), order=st.permutations(range(len(SHAPES))))
@quick
def test_the_order_does_not_matter(
    kind: str, backend: Backend, seed: int, order: list[int]
) -> None:
    straight, mixed = made(backend, seed), made(backend, seed)
    expected = trained(straight, ROWS[kind](straight), seed)
    assert trained(mixed, ROWS[kind]([mixed[i] for i in order]), seed) == expected


@pytest.mark.parametrize("kind", SEPARATE)
def test_optional_groups_are_the_same_while_nothing_is_missing(kind: str, backend: Backend) -> None:
    plain, optional = made(backend, 1), made(backend, 1)
    expected = trained(plain, ROWS[kind](plain), 1)
    group = ParameterGroup(optional, optional=True)
    assert trained(optional, ROWS[kind]([group]), 1) == expected


def test_generators_tuples_and_named_parameters(backend: Backend) -> None:
    a, b = (Parameter([1.0], name=n, backend=backend) for n in "ab")
    everything: list[Any] = [(p for p in (a, b)), (a, b), Parameters({"x": a, "y": b})]
    names = []
    for given_ in everything:
        optimizer = SGD(given_, 0.1)
        names.append([name for name, _ in optimizer.named_parameters()])
        optimizer.release()
    assert names == [["a", "b"], ["a", "b"], ["x", "y"]]
    unnamed = SGD([Parameter([1.0]), Parameter([2.0])], 0.1)
    assert [name for name, _ in unnamed.named_parameters()] == ["parameter 0", "parameter 1"]


def test_frozen_parameters_are_not_claimed(backend: Backend) -> None:
    w = Parameter([1.0], name="w", backend=backend)
    frozen = Parameter([1.0], name="frozen", backend=backend, requires_grad=False)
    optimizer = AdamW([w, frozen], 0.1, weight_decay=0.5)
    optimizer.step((w * frozen).sum().backward())
    assert optimizer.parameters == (w,)
    assert frozen.owner is None
    assert frozen.tolist() == [1.0]
    with pytest.raises(ValueError, match="frozen"):
        SGD([frozen], 0.1)


@pytest.mark.parametrize(
    ("given_", "error", "message"),
    [
        ([], ValueError, "no parameters"),
        ((), ValueError, "no parameters"),
        (Parameters([]), ValueError, "no parameters"),
        (iter(()), ValueError, "no parameters"),
        ("weights", TypeError, "sequence of parameters.*str"),
        (b"weights", TypeError, "sequence of parameters.*bytes"),
        ([zeros((2,))], TypeError, "item 0 is Tensor"),
        (zeros((2,)), TypeError, "Tensor"),
        ([1.0], TypeError, "item 0 is float"),
        ([None], TypeError, "item 0 is NoneType"),
        ([np.zeros(2)], TypeError, "item 0 is ndarray"),
        ({"w": 1}, TypeError, "item 0 is the name 'w': pass Parameters"),
        (None, TypeError, "NoneType"),
        (3, TypeError, "int"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_no_parameters(given_: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SGD(given_, 0.1)


def test_mixtures_and_bare_parameters(backend: Backend) -> None:
    a, b = (Parameter([1.0], name=n, backend=backend) for n in "ab")
    wrong: Any = [ParameterGroup([a]), b]
    with pytest.raises(TypeError, match="mixture"):
        SGD(wrong, 0.1)
    bare: Any = a
    with pytest.raises(TypeError, match="Parameter"):
        SGD(bare, 0.1)
    tensors: Any = [a, b * 1.0]
    with pytest.raises(TypeError, match="item 1 is Tensor"):
        SGD(tensors, 0.1)
    assert a.owner is None
    with pytest.raises(ValueError, match="group 1 has no parameters"):
        SGD([ParameterGroup([a]), ParameterGroup([])], 0.1)
    assert a.owner is None


def test_two_backends_in_one_group(backend: Backend) -> None:
    a = Parameter([1.0], name="a", backend=backend)
    b = Parameter([1.0], name="b", backend=NumpyBackend())
    with pytest.raises(BackendMismatchError, match=r"'a'.*'b'"):
        AdamW([a, b], 0.1)
    assert a.owner is None
    optimizer = AdamW([ParameterGroup([a]), ParameterGroup([b])], 0.1)
    optimizer.step(((a.to(b.backend) - b * 2.0) ** 2).sum().backward())
    assert a.tolist() == pytest.approx([1.099], rel=1e-5)
    assert b.tolist() == pytest.approx([0.899], rel=1e-5)


BAD: Final[list[tuple[type[Any], dict[str, Any], type[Exception], str]]] = [
    *[
        (kind, {name: value}, ValueError, name)
        for value in (-1.0, float("nan"), float("inf"), -float("inf"))
        for kind, name in [
            (SGD, "lr"),
            (SGD, "momentum"),
            (SGD, "weight_decay"),
            (Adam, "lr"),
            (Adam, "eps"),
            (Adam, "weight_decay"),
            (AdamW, "lr"),
            (AdamW, "eps"),
            (AdamW, "weight_decay"),
        ]
    ],
    *[
        (kind, {name: value}, TypeError, name)
        for value in (True, False, "0.1", None, [0.1], 1j)
        for kind, name in [
            (SGD, "lr"),
            (SGD, "momentum"),
            (SGD, "dampening"),
            (SGD, "weight_decay"),
            (Adam, "lr"),
            (AdamW, "eps"),
            (AdamW, "weight_decay"),
        ]
    ],
    (SGD, {"dampening": float("nan")}, ValueError, "dampening"),
    (SGD, {"momentum": 0.9, "dampening": float("inf")}, ValueError, "dampening"),
    (SGD, {"nesterov": True}, ValueError, "nesterov"),
    (SGD, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, ValueError, "nesterov"),
    (Adam, {"betas": (1.0, 0.9)}, ValueError, "beta1"),
    (Adam, {"betas": (0.9, 1.0)}, ValueError, "beta2"),
    (Adam, {"betas": (-0.1, 0.9)}, ValueError, "beta1"),
    (AdamW, {"betas": (0.9, float("nan"))}, ValueError, "beta2"),
    (AdamW, {"betas": (0.9,)}, TypeError, "betas"),
    (AdamW, {"betas": 0.9}, TypeError, "betas"),
    (AdamW, {"betas": "ab"}, TypeError, "betas"),
    (AdamW, {"betas": (True, 0.9)}, TypeError, "beta1"),
    (Adam, {"betas": (0.9, 0.9, 0.9)}, TypeError, "beta3"),
    (Adan, {"betas": (0.9, 0.9)}, TypeError, "beta3"),
    (Adan, {"betas": (0.9, 0.9, 1.0)}, ValueError, "beta3"),
    *[
        (kind, {name: value}, ValueError, name)
        for value in (-1e-9, float("nan"), float("inf"))
        for kind, name in [
            (Adagrad, "lr_decay"),
            (Adagrad, "initial_accumulator_value"),
            (Adagrad, "eps"),
            (RMSprop, "alpha"),
            (RMSprop, "momentum"),
            (Adadelta, "rho"),
            (Adamax, "lr"),
            (NAdam, "momentum_decay"),
            (RAdam, "eps"),
            (Rprop, "lr"),
            (ASGD, "lambd"),
            (ASGD, "alpha"),
            (ASGD, "t0"),
            (Lion, "weight_decay"),
            (AdaBelief, "eps"),
            (Yogi, "initial_accumulator_value"),
            (ADOPT, "eps"),
            (ScheduleFreeSGD, "beta1"),
            (ScheduleFreeSGD, "warmup_steps"),
            (ScheduleFreeAdamW, "weight_lr_power"),
        ]
    ],
    (RMSprop, {"alpha": 1.0}, ValueError, "alpha"),
    (RMSprop, {"momentum": False}, TypeError, "momentum"),
    (Adadelta, {"rho": 1.0}, ValueError, "rho"),
    (ScheduleFreeSGD, {"beta1": 1.0}, ValueError, "beta1"),
    (ScheduleFreeAdamW, {"r": float("nan")}, ValueError, "r must"),
    (Rprop, {"etas": (1.0, 1.2)}, ValueError, "eta_minus"),
    (Rprop, {"etas": (0.5, 0.9)}, ValueError, "eta_plus"),
    (Rprop, {"etas": 0.5}, TypeError, "etas"),
    (Rprop, {"step_sizes": (-1.0, 50.0)}, ValueError, "step_min"),
    (Rprop, {"step_sizes": (1.0, 0.5)}, ValueError, "smallest, largest"),
    (Rprop, {"step_sizes": None}, TypeError, "step_sizes"),
    (AdamW, {"nonfinite": "ignore"}, ValueError, "nonfinite"),
    (SGD, {"learning_rate": 0.1}, TypeError, "learning_rate"),
    (Adam, {"momentum": 0.9}, TypeError, "momentum"),
    (AdamW, {"beta1": 0.9}, TypeError, "beta1"),
]


@pytest.mark.parametrize(("kind", "options", "error", "message"), BAD, ids=str)
def test_bad_hyperparameters(
    kind: type[Any], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    w = Parameter([1.0], name="w")
    with pytest.raises(error, match=message):
        kind([w], **options)
    assert w.owner is None


def test_bad_hyperparameters_of_a_group() -> None:
    w = Parameter([1.0], name="w")
    with pytest.raises(ValueError, match="lr"):
        ParameterGroup([w], lr=-1.0)
    with pytest.raises(TypeError, match="momentum"):
        Adam([ParameterGroup([w], momentum=0.9)], 0.1)
    assert w.owner is None


def test_owning_a_group_does_not_change_it() -> None:
    w, frozen = Parameter([1.0], name="w"), Parameter([1.0], name="f", requires_grad=False)
    group = ParameterGroup([w, frozen], lr=0.5)
    optimizer = SGD([group], 0.1)
    assert optimizer.parameters == (w,)
    assert [name for name, _ in group.named] == ["w", "f"]
    with pytest.raises(OwnershipError, match="'w'"):
        SGD([group], 0.1)


@pytest.mark.parametrize("act", [copy.copy, copy.deepcopy, pickle.dumps])
def test_an_optimizer_is_not_copied(act: Any) -> None:
    parameter = Parameter([1.0], name="w")
    optimizer = AdamW([parameter], 0.1)
    with pytest.raises(TypeError, match=r"AdamW is not copied or pickled.*state_dict\(\)"):
        act(optimizer)
    assert parameter.owner is optimizer
