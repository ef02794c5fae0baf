"""Master weights, state in another dtype, and updates that rounding would lose."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray
from optimizer_table import ELEMENTWISE

from rumus import optim
from rumus.optim import (
    ASGD,
    SGD,
    Adam,
    AdamW,
    AveragingOptimizer,
    FusedOptimizer,
    Lion,
    Memory,
    ParameterGroup,
    ScheduleFreeAdamW,
)
from rumus.tensor import (
    Backend,
    DType,
    Expr,
    GradientStore,
    NonFiniteGradientError,
    NumpyBackend,
    Parameter,
    PrecisionError,
    StateMismatchError,
    float16,
    float32,
    float64,
    tensor,
)

Real: TypeAlias = NDArray[Any]
LARGE: Final = 20_011  # numba compiles a loop from this size on


def values(size: int, seed: int = 0) -> Real:
    return np.random.default_rng(seed).normal(size=size).astype(np.float16)


def parameters(backend: Backend, dtype: DType, sizes: tuple[int, ...] = (7, 70)) -> list[Parameter]:
    """The same values in any dtype, with odd sizes: the second starts inside the arena."""
    return [Parameter(values(n, seed=n), dtype=dtype, name=f"p{n}", backend=backend) for n in sizes]


def store(owned: list[Parameter], seed: int, scale: float = 1.0) -> GradientStore:
    """Gradients from `backward`, exact in float16, so they are the same in any dtype."""
    grads = GradientStore()
    for p in owned:
        g = (values(p.size, seed * 1000 + p.size) * np.float16(scale)).astype(np.float16)
        (p * tensor(g, dtype=p.dtype, backend=p.backend)).sum().backward(into=grads)
    return grads


def state(optimizer: FusedOptimizer[Any], part: str) -> list[Real]:
    entries = optimizer.state_dict()["parameters"].values()
    return [entry["state"][part] for entry in entries]


def stepped(optimizer: FusedOptimizer[Any], grads: GradientStore) -> None:
    """Do a step; return its outcome."""
    optimizer.step(grads)
    optimizer.poll(wait=True)


def assert_same(first: FusedOptimizer[Any], second: FusedOptimizer[Any]) -> None:
    """Compare the bits of parameters and state."""
    for p, q in zip(first.parameters, second.parameters, strict=True):
        assert p.numpy().tobytes() == q.numpy().tobytes()
    mine, other = first.state_dict()["parameters"], second.state_dict()["parameters"]
    for name, entry in mine.items():
        assert entry["steps"] == other[name]["steps"]
        for part, array in entry["state"].items():
            assert array.tobytes() == other[name]["state"][part].tobytes(), (name, part)


# Master weights


@pytest.mark.parametrize("kind", ELEMENTWISE, ids=lambda kind: kind.__name__)
def test_master_weights_are_trained_as_float32_is(kind: Any, backend: Backend) -> None:
    halves, singles = parameters(backend, float16), parameters(backend, float32)
    optimizer, plain = kind(halves, 1e-4, master_weights=True), kind(singles, 1e-4)
    for t in range(4):
        optimizer.step(store(halves, t))
        plain.step(store(singles, t))
    for p, q, master in zip(halves, singles, state(optimizer, "master"), strict=True):
        assert master.dtype == np.float32
        assert master.tobytes() == q.numpy().tobytes()
        assert (p.numpy() == q.numpy().astype(np.float16)).all()


def test_many_master_weights(backend: Backend) -> None:
    halves, singles = (parameters(backend, d, (LARGE, 9)) for d in (float16, float32))
    optimizer, plain = AdamW(halves, 1e-4, master_weights=True), AdamW(singles, 1e-4)
    for t in range(3):
        optimizer.step(store(halves, t))
        plain.step(store(singles, t))
    for p, q, master in zip(halves, singles, state(optimizer, "master"), strict=True):
        np.testing.assert_array_equal(master, q.numpy())
        np.testing.assert_array_equal(p.numpy(), q.numpy().astype(np.float16))


def test_small_steps_are_not_lost(backend: Backend) -> None:
    w = Parameter(np.ones(3), dtype=float16, name="w", backend=backend)
    optimizer = SGD([w], 1e-4, master_weights=True)
    for _ in range(20):
        optimizer.step(w.sum().backward())
    assert w.numpy()[0] == np.float16(1 - 20e-4)


def test_float16_without_master_weights_names_the_option(backend: Backend) -> None:
    w = Parameter(np.ones(3), dtype=float16, name="w", backend=backend)
    with pytest.raises(PrecisionError, match=r"'w' is float16.*master_weights=True"):
        AdamW([w])
    with pytest.raises(PrecisionError, match="master_weights=True"):
        AdamW.planned_memory([w])
    assert w.owner is None


def test_float32_parameters_beside_float16_have_no_copy(backend: Backend) -> None:
    half, single = parameters(backend, float16, (5,))[0], parameters(backend, float32, (6,))[0]
    optimizer = AdamW([half, single], master_weights=True)
    optimizer.step(store([half, single], 1))
    entries = optimizer.state_dict()["parameters"]
    assert set(entries["p5"]["state"]) == {"m", "v", "master"}
    assert set(entries["p6"]["state"]) == {"m", "v"}


@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
def test_a_gradient_beyond_float16_changes_nothing(nonfinite: Any, backend: Backend) -> None:
    owned = parameters(backend, float16, (7, 70))
    optimizer = AdamW(owned, master_weights=True, nonfinite=nonfinite, compensated=True)
    optimizer.step(store(owned, 1))
    optimizer.poll(wait=True)
    before = [p.numpy().tobytes() for p in owned], optimizer.state_dict()["parameters"]
    grads = store(owned[:1], 2)
    (owned[1] * tensor(np.full(70, 60000.0, np.float16), backend=backend) * 2).sum().backward(
        into=grads
    )
    if nonfinite == "raise":
        with pytest.raises(NonFiniteGradientError, match="p70"):
            stepped(optimizer, grads)
    else:
        optimizer.step(grads)
        assert (optimizer.skipped, optimizer.blamed) == (1, ("p70",))
    assert [p.numpy().tobytes() for p in owned] == before[0]
    after = optimizer.state_dict()["parameters"]
    for name, entry in before[1].items():
        for part, array in entry["state"].items():
            assert array.tobytes() == after[name]["state"][part].tobytes()


OPTIONS: Final[dict[str, Any]] = {
    "master_weights": True,
    "state_dtype": "float16",
    "compensated": True,
}


@pytest.mark.parametrize("dtype", [float16, float32], ids=str)
@pytest.mark.parametrize("parameters_first", [True, False])
def test_it_resumes_bit_for_bit(parameters_first: bool, dtype: DType, backend: Backend) -> None:
    owned = parameters(backend, dtype)
    still = AdamW(owned, 1e-4, **OPTIONS)
    for t in range(3):
        still.step(store(owned, t))
    saved, weights = still.state_dict(), [p.numpy() for p in owned]
    others = [Parameter(np.zeros(p.shape, p.dtype), name=p.name, backend=backend) for p in owned]
    resumed = AdamW(others, 1e-4, **OPTIONS)
    resumed.step(store(others, 9))

    def load_parameters() -> None:
        for p, value in zip(others, weights, strict=True):
            p.assign(value)

    if parameters_first:
        load_parameters()
    resumed.load_state_dict(saved)
    if not parameters_first:
        load_parameters()
    for t in range(3, 6):
        still.step(store(owned, t))
        resumed.step(store(others, t))
    assert_same(still, resumed)


def test_a_changed_parameter_is_followed(backend: Backend) -> None:
    changed, kept = owned = parameters(backend, float16)
    optimizer = SGD(owned, 1e-5, master_weights=True, compensated=True)
    for t in range(3):
        optimizer.step(store(owned, t))
    before = state(optimizer, "master")[1]
    changed.assign(np.array([0.0, 0.5, 0.0, 0.5, 0.0, 0.5, 0.0], np.float16))
    grads = GradientStore()
    for p in owned:
        (p * tensor(np.zeros(p.shape, np.float16), backend=backend)).sum().backward(into=grads)
    optimizer.step(grads)
    assert changed.tolist() == [0.0, 0.5, 0.0, 0.5, 0.0, 0.5, 0.0]
    assert state(optimizer, "master")[0].tolist() == changed.tolist()
    assert state(optimizer, "compensation")[0][::2].tolist() == [0.0] * 4
    np.testing.assert_allclose(state(optimizer, "master")[1], before, rtol=1e-7)
    assert kept.numpy().tobytes() == before.astype(np.float16).tobytes()


def test_a_move_keeps_all_state(backend: Backend) -> None:
    owned, stay = parameters(NumpyBackend(), float16), parameters(NumpyBackend(), float16)
    moved, still = AdamW(owned, 1e-4, **OPTIONS), AdamW(stay, 1e-4, **OPTIONS)
    for t in range(2):
        moved.step(store(owned, t))
        still.step(store(stay, t))
    moved.move(owned, backend)
    assert_same(moved, still)
    moved.step(store(owned, 3))
    still.step(store(stay, 3))
    for a, b in zip(state(moved, "master"), state(still, "master"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", [ASGD, ScheduleFreeAdamW])
def test_the_average_of_master_weights(kind: Any, backend: Backend) -> None:
    halves, singles = parameters(backend, float16), parameters(backend, float32)
    optimizer, plain = kind(halves, 1e-3, master_weights=True), kind(singles, 1e-3)
    for t in range(3):
        optimizer.step(store(halves, t))
        plain.step(store(singles, t))
    before = [p.numpy() for p in halves]
    with optimizer.eval_params(), plain.eval_params():
        for p, q in zip(halves, singles, strict=True):
            assert (p.numpy() == q.numpy().astype(np.float16)).all()
    optimizer.step(store(halves, 3))
    plain.step(store(singles, 3))
    for master, q, old in zip(state(optimizer, "master"), singles, before, strict=True):
        assert (master == q.numpy()).all()
        assert (master != old).any()


# The dtype of the state


def test_state_of_float16(backend: Backend) -> None:
    owned, exact = parameters(backend, float32), parameters(NumpyBackend(), float64)
    optimizer, oracle = Lion(owned, 1e-3, state_dtype="float16"), SGD(exact, 0.1, momentum=0.9)
    assert {m.dtype for m in state(optimizer, "m")} == {np.dtype(np.float16)}
    optimizer.release()
    momentum = SGD(owned, 0.1, momentum=0.9, state_dtype="float16")
    for t in range(20):
        momentum.step(store(owned, t))
        oracle.step(store(exact, t))
    for p, q in zip(owned, exact, strict=True):
        np.testing.assert_allclose(p.numpy(), q.numpy(), atol=20 * 0.1 * 2**-8)
        assert abs(p.numpy() - q.numpy()).max() > 1e-6  # it is not secretly float32


def test_squares_are_not_converted(backend: Backend) -> None:
    tiny, same = parameters(backend, float32), parameters(backend, float32)
    optimizer, plain = Adam(tiny, state_dtype="float16"), Adam(same)
    for t in range(5):  # whose squares are below float16's smallest number
        optimizer.step(store(tiny, t, 1e-4))
        plain.step(store(same, t, 1e-4))
    assert {v.dtype for v in state(optimizer, "v")} == {np.dtype(np.float32)}
    assert {m.dtype for m in state(optimizer, "m")} == {np.dtype(np.float16)}
    for p, q in zip(tiny, same, strict=True):
        np.testing.assert_allclose(p.numpy(), q.numpy(), atol=5e-4)


PARTS: Final[dict[str, set[str]]] = {  # the parts that "float16" stores in float16
    "AdaBelief": {"m"},
    "Adadelta": set(),
    "Adagrad": set(),
    "Adam": {"m"},
    "AdamW": {"m"},
    "Adamax": {"m", "u"},
    "Adan": {"m", "d", "g_before"},
    "AdEMAMix": {"m", "slow"},
    "ADOPT": {"m"},
    "LaProp": {"m"},
    "Lion": {"m"},
    "NAdam": {"m"},
    "RAdam": {"m"},
    "RMSprop": set(),
    "Rprop": {"g_before", "step"},
    "SGD": set(),
    "Yogi": {"m"},
}


@pytest.mark.parametrize("kind", ELEMENTWISE, ids=lambda kind: kind.__name__)
def test_detection_of_squares(kind: Any) -> None:
    w = Parameter(np.ones(3), name="w")
    if issubclass(kind, AveragingOptimizer):
        with pytest.raises(PrecisionError, match="average"):
            kind([w], state_dtype="float16")
        assert w.owner is None
        return
    optimizer = kind([w], state_dtype="float16")
    parts = optimizer.state_dict()["parameters"]["w"]["state"]
    assert {name for name, a in parts.items() if a.dtype == np.float16} == PARTS[kind.__name__]


def test_float32_state_of_float64() -> None:
    w = Parameter(np.ones(3), dtype=float64, name="w")
    optimizer = AdamW([w], state_dtype="float32")
    optimizer.step(w.sum().backward())
    parts = optimizer.state_dict()["parameters"]["w"]["state"]
    assert {a.dtype for a in parts.values()} == {np.dtype(np.float32)}
    assert w.dtype == float64


# Compensated updates


def test_updates_that_vanish_are_kept(backend: Backend) -> None:
    lost, kept = (Parameter(np.ones(5), name="w", backend=backend) for _ in range(2))
    plain, compensated = AdamW([lost], 1e-6), AdamW([kept], 1e-6, compensated=True)
    zero = tensor(np.zeros(5), backend=backend)
    for _ in range(500):
        plain.step((lost * zero).sum().backward())
        compensated.step((kept * zero).sum().backward())
    assert lost.tolist() == [1.0] * 5
    total = kept.numpy().astype(np.float64) + state(compensated, "compensation")[0]
    np.testing.assert_allclose(total, math.exp(-5e-6), rtol=1e-11)


def test_updates_that_vanish_are_kept_in_a_large_kernel(backend: Backend) -> None:
    w = Parameter(np.ones(LARGE), name="w", backend=backend)
    optimizer = AdamW([w], 1e-6, compensated=True)
    zero = tensor(np.zeros(LARGE), backend=backend)
    for _ in range(20):
        optimizer.step((w * zero).sum().backward())
    total = w.numpy().astype(np.float64) + state(optimizer, "compensation")[0]
    np.testing.assert_allclose(total, math.exp(-20e-8), rtol=1e-12)


@pytest.mark.parametrize("kind", ELEMENTWISE, ids=lambda kind: kind.__name__)
def test_compensated_updates_are_nearer_to_float64(kind: Any, backend: Backend) -> None:
    owned, exact = parameters(backend, float32), parameters(NumpyBackend(), float64)
    optimizer, oracle = kind(owned, 1e-3, compensated=True), kind(exact, 1e-3)
    for t in range(10):
        optimizer.step(store(owned, t))
        oracle.step(store(exact, t))
    pairs = zip(owned, exact, state(optimizer, "compensation"), strict=True)
    for p, q, lost in pairs:
        total = p.numpy().astype(np.float64) + lost
        np.testing.assert_allclose(total, q.numpy(), rtol=0, atol=3e-8)
        assert (abs(lost) <= np.spacing(abs(p.numpy()))).all()
        assert lost.any()


def test_compensated_with_decays(backend: Backend) -> None:
    kinds: list[tuple[Any, dict[str, Any]]] = [
        (SGD, {"weight_decay": 0.1, "momentum": 0.9}),
        (optim.NAdam, {"weight_decay": 0.1, "decoupled_weight_decay": True}),
        (optim.RAdam, {"weight_decay": 0.1, "decoupled_weight_decay": True}),
        (Lion, {"weight_decay": 0.1}),
        (optim.Adan, {"weight_decay": 0.1}),
        (ScheduleFreeAdamW, {"weight_decay": 0.1}),
    ]
    for kind, options in kinds:
        owned, exact = parameters(backend, float32), parameters(NumpyBackend(), float64)
        optimizer = kind(owned, 1e-3, compensated=True, **options)
        oracle = kind(exact, 1e-3, **options)
        for t in range(5):
            optimizer.step(store(owned, t))
            oracle.step(store(exact, t))
        for p, q, lost in zip(owned, exact, state(optimizer, "compensation"), strict=True):
            total = p.numpy().astype(np.float64) + lost
            np.testing.assert_allclose(total, q.numpy(), rtol=0, atol=3e-8)


def test_rules_of_other_forms(backend: Backend) -> None:
    w = Parameter(np.ones(3), name="w", backend=backend)

    def masked(p: Expr, g: Expr, *, lr: Expr) -> dict[str, Expr]:
        return {"p": (g > 0).where(p / (1 + lr) - lr * g, p)}

    def multiplied(p: Expr, g: Expr, *, lr: Expr) -> dict[str, Expr]:
        return {"p": p * (lr * g).exp()}

    def twice(p: Expr, g: Expr, *, lr: Expr) -> dict[str, Expr]:
        return {"p": lr * g - p}

    optimizer = FusedOptimizer([w], masked, 0.5, compensated=True)
    optimizer.step(w.sum().backward())
    np.testing.assert_allclose(w.numpy(), 1 / 1.5 - 0.5, rtol=1e-6)
    optimizer.release()
    for rule in (multiplied, twice):
        with pytest.raises(TypeError, match=f"{rule.__name__} must return p plus or minus"):
            FusedOptimizer([w], rule, 0.5, compensated=True)
        assert w.owner is None


# Descriptions


def test_names_that_are_taken() -> None:
    def rule(p: Expr, g: Expr, master: Expr, *, lr: Expr) -> dict[str, Expr]:
        return {"p": p - lr * g, "master": master}

    w = Parameter(np.ones(3), name="w")
    with pytest.raises(TypeError, match="'master'"):
        FusedOptimizer([w], rule, master_weights=True)
    FusedOptimizer([w], rule)


def test_an_unknown_state_dtype() -> None:
    w = Parameter(np.ones(3), name="w")
    unknown: Any = "bfloat16"
    with pytest.raises(ValueError, match=r"float16.*float32.*bfloat16"):
        AdamW([w], state_dtype=unknown)
    assert w.owner is None


@pytest.mark.parametrize("dtype", [float16, float32], ids=str)
@pytest.mark.parametrize("compensated", [False, True])
@pytest.mark.parametrize("state_dtype", [None, "float16", "float32"])
def test_memory_is_as_planned(dtype: DType, compensated: bool, state_dtype: Any) -> None:
    owned = [Parameter(np.ones((64, n)), dtype=dtype, name=f"p{n}") for n in (3, 5)]
    options: dict[str, Any] = {"compensated": compensated, "state_dtype": state_dtype}
    planned = AdamW.planned_memory(owned, master_weights=True, **options)
    size = 64 * 8
    m = 2 if state_dtype == "float16" else 4
    bytes_of_state = m + 4 + 4 * (dtype == float16) + 4 * compensated
    weights = size * dtype.itemsize
    assert planned == Memory(weights, weights, size * bytes_of_state)
    assert AdamW(owned, master_weights=True, **options).memory() == planned


def test_a_description_says_so() -> None:
    w = Parameter(np.ones(3), dtype=float16, name="w")
    text = AdamW([w], **OPTIONS).describe()
    assert "float32 master weights" in text
    assert "state: m float16, v float32" in text
    assert "compensated updates" in text
    plain = Parameter(np.ones(3), name="plain")
    assert "warning" in AdamW([plain], 1e-7).describe()
    other = Parameter(np.ones(3), name="other")
    assert "warning" not in AdamW([other], 1e-7, compensated=True).describe()


def test_every_difference_of_a_saved_state_is_listed(backend: Backend) -> None:
    makers: list[Callable[[Parameter], FusedOptimizer[Any]]] = [
        lambda w: AdamW([w], state_dtype="float16"),
        lambda w: AdamW([w]),
        lambda w: AdamW([w], compensated=True),
    ]
    optimizers = [make(Parameter(np.ones(3), name="w", backend=backend)) for make in makers]
    for (first, second), message in zip(
        pairwise(optimizers),
        ("'w': state 'm' is float16, here float32", r"saved state \['m', 'v'\], here .*comp"),
        strict=True,
    ):
        with pytest.raises(StateMismatchError, match=message):
            second.load_state_dict(first.state_dict())


def test_options_of_a_group_of_optional_parameters(backend: Backend) -> None:
    owned = parameters(backend, float16)
    optimizer = AdamW([ParameterGroup(owned, optional=True)], 1e-2, **OPTIONS)
    before = owned[1].numpy()
    optimizer.step(store(owned[:1], 1))
    assert (owned[1].numpy() == before).all()
    assert (owned[0].numpy() != values(7, 7)).any()
