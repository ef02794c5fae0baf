"""Presets against the published formulas of their libraries, reimplemented in float64.

These formulas were compared with Keras 3.15.1, optax 0.2.8 and MLX 0.32.4 themselves, over the same
gradients and learning rates: they agree to 1e-9 in float64, and with MLX, which has only float32,
to 1e-6. The formulas of burn and tinygrad were read in their sources.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.optim import (
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    FusedOptimizer,
    Lion,
    NAdam,
    ParameterGroup,
    RAdam,
    RMSprop,
    load_state,
    save_state,
)
from rumus.tensor import Backend, DType, Parameter, StateMismatchError, tensor

# formulas: begin
Real = NDArray[np.float64]
STEPS: Final = 30
START: Final[Real] = np.linspace(-2.0, 2.0, 12).reshape(3, 4)
GRADIENTS: Final[list[Real]] = [
    np.random.default_rng(t).normal(0.1, 10.0 ** (t % 4 - 3), START.shape) for t in range(STEPS)
]


def lr(t: int) -> float:
    """A changing learning rate, which shows where a library multiplies by it."""
    return 0.02 / (1 + 0.1 * t)


def keras_sgd(p: Real, momentum: float = 0.0, nesterov: bool = False, decay: float = 0.0) -> Real:
    b = np.zeros_like(p)
    for t, g in enumerate(GRADIENTS, 1):
        p = p - p * decay * lr(t)
        b = b * momentum - g * lr(t)
        p = p + (b * momentum - g * lr(t) if nesterov else b)
    return p


def keras_adam(p: Real, amsgrad: bool = False, decay: float = 0.0, eps: float = 1e-7) -> Real:
    m = v = top = np.zeros_like(p)
    for t, g in enumerate(GRADIENTS, 1):
        p = p - p * decay * lr(t)
        alpha = lr(t) * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        m = m + (g - m) * (1 - 0.9)
        v = v + (g**2 - v) * (1 - 0.999)
        top = np.maximum(top, v)
        p = p - m * alpha / (np.sqrt(top if amsgrad else v) + eps)
    return p


def keras_adamax(p: Real, decay: float = 0.0, eps: float = 1e-7) -> Real:
    m = u = np.zeros_like(p)
    for t, g in enumerate(GRADIENTS, 1):
        p = p - p * decay * lr(t)
        m = m + (g - m) * (1 - 0.9)
        u = np.maximum(0.999 * u, np.abs(g))
        p = p - lr(t) * m / ((1 - 0.9**t) * (u + eps))
    return p


def inner_rmsprop(
    p: Real, eps: float, momentum: float = 0.0, centered: bool = False, decay: float = 0.0
) -> Real:
    """Keras and optax."""
    v = m = b = np.zeros_like(p)
    for t, g in enumerate(GRADIENTS, 1):
        p = p - p * decay * lr(t)
        v = 0.9 * v + (1 - 0.9) * g**2
        m = 0.9 * m + (1 - 0.9) * g
        size = v - m**2 + eps if centered else v + eps
        b = momentum * b + lr(t) * g / np.sqrt(size)
        p = p - b
    return p


def inner_adagrad(p: Real, decay: float = 0.0, start: float = 0.1, eps: float = 1e-7) -> Real:
    """Keras and optax."""
    s = np.full_like(p, start)
    for t, g in enumerate(GRADIENTS, 1):
        p = p - p * decay * lr(t)
        s = s + g**2
        p = p - lr(t) * g / np.sqrt(s + eps)
    return p


def zeiler(p: Real, rho: float, eps: float, decay: float = 0.0) -> Real:
    """Adadelta, the same everywhere except for the defaults and Keras's decay."""
    v = u = np.zeros_like(p)
    for t, g in enumerate(GRADIENTS, 1):
        p = p - p * decay * lr(t)
        v = rho * v + (1 - rho) * g**2
        d = np.sqrt(u + eps) / np.sqrt(v + eps) * g
        u = rho * u + (1 - rho) * d**2
        p = p - lr(t) * d
    return p


def keras_nadam(p: Real, decay: float = 0.0) -> Real:
    m = v = np.zeros_like(p)
    product = 1.0
    for t, g in enumerate(GRADIENTS, 1):
        p = p - p * decay * lr(t)
        now, after = (0.9 * (1 - 0.5 * 0.96**s) for s in (t, t + 1))
        product *= now
        m = m + (g - m) * (1 - 0.9)
        v = v + (g**2 - v) * (1 - 0.999)
        m_hat = after * m / (1 - product * after) + (1 - now) * g / (1 - product)
        p = p - m_hat * lr(t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-7)
    return p


def corrected_adam(p: Real, eps: float = 1e-8, decay: float = 0.0) -> Real:
    """The paper's: optax, burn and tinygrad; optax and tinygrad add the decay to the update."""
    m = v = np.zeros_like(p)
    for t, g in enumerate(GRADIENTS, 1):
        m = 0.9 * m + (1 - 0.9) * g
        v = 0.999 * v + (1 - 0.999) * g**2
        update = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + eps)
        p = p - lr(t) * (update + decay * p)
    return p


def optax_adamax(p: Real, eps: float = 1e-8) -> Real:
    m = u = np.zeros_like(p)
    for t, g in enumerate(GRADIENTS, 1):
        m = 0.9 * m + (1 - 0.9) * g
        u = np.maximum(np.abs(g) + eps, 0.999 * u)
        p = p - lr(t) * m / (1 - 0.9**t) / u
    return p


def optax_nadam(p: Real, eps: float = 1e-8) -> Real:
    m = v = np.zeros_like(p)
    for t, g in enumerate(GRADIENTS, 1):
        m = 0.9 * m + (1 - 0.9) * g
        v = 0.999 * v + (1 - 0.999) * g**2
        m_hat = 0.9 * m / (1 - 0.9 ** (t + 1)) + (1 - 0.9) * g / (1 - 0.9**t)
        p = p - lr(t) * m_hat / (np.sqrt(v / (1 - 0.999**t)) + eps)
    return p


def optax_radam(p: Real, eps: float = 1e-8) -> Real:
    m = v = np.zeros_like(p)
    infinite = 2 / (1 - 0.999) - 1
    for t, g in enumerate(GRADIENTS, 1):
        m = 0.9 * m + (1 - 0.9) * g
        v = 0.999 * v + (1 - 0.999) * g**2
        m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.999**t)
        rho = infinite - 2 * t * 0.999**t / (1 - 0.999**t)
        if rho >= 5:
            r = np.sqrt((rho - 4) * (rho - 2) * infinite / ((infinite - 4) * (infinite - 2) * rho))
            m_hat = r * m_hat / (np.sqrt(v_hat) + eps)
        p = p - lr(t) * m_hat
    return p


def mlx_adam(p: Real, decay: float = 0.0, eps: float = 1e-8) -> Real:
    m = v = np.zeros_like(p)
    for t, g in enumerate(GRADIENTS, 1):
        p = p * (1 - lr(t) * decay)
        m = 0.9 * m + (1 - 0.9) * g
        v = 0.999 * v + (1 - 0.999) * g**2
        p = p - lr(t) * m / (np.sqrt(v) + eps)
    return p


def mlx_adamax(p: Real, eps: float = 1e-8) -> Real:
    m = u = np.zeros_like(p)
    for t, g in enumerate(GRADIENTS, 1):
        m = 0.9 * m + (1 - 0.9) * g
        u = np.maximum(0.999 * u, np.abs(g))
        p = p - lr(t) * m / (u + eps)
    return p


def outer_rmsprop(p: Real, eps: float = 1e-8, momentum: float = 0.0) -> Real:
    """MLX, which has no momentum, and burn."""
    v = b = np.zeros_like(p)
    for t, g in enumerate(GRADIENTS, 1):
        v = 0.99 * v + (1 - 0.99) * g**2
        b = momentum * b + g / (np.sqrt(v) + eps)
        p = p - lr(t) * b
    return p


def outer_adagrad(p: Real, eps: float) -> Real:
    """MLX and burn."""
    s = np.zeros_like(p)
    for t, g in enumerate(GRADIENTS, 1):
        s = s + g**2
        p = p - lr(t) * g / (np.sqrt(s) + eps)
    return p


def velocity_sgd(
    p: Real, momentum: float = 0.0, dampening: float = 0.0, nesterov: bool = False
) -> Real:
    """optax, MLX, tinygrad and burn: the learning rate is outside the velocity."""
    b = np.zeros_like(p)
    for t, g in enumerate(GRADIENTS, 1):
        b = g if t == 1 else momentum * b + (1 - dampening) * g
        p = p - lr(t) * (g + momentum * b if nesterov else b)
    return p


# formulas: end

MOMENTUM: Final = {"momentum": 0.9}
NESTEROV: Final = {"momentum": 0.9, "nesterov": True}
Case = tuple[type[FusedOptimizer[Any]], str, dict[str, Any], Callable[[Real], Real]]
CASES: Final[list[Case]] = [
    (SGD, "keras", {}, keras_sgd),
    (SGD, "keras", {"weight_decay": 0.1}, lambda p: keras_sgd(p, decay=0.1)),
    (SGD, "keras", MOMENTUM, lambda p: keras_sgd(p, 0.9)),
    (SGD, "keras", NESTEROV | {"weight_decay": 0.1}, lambda p: keras_sgd(p, 0.9, True, 0.1)),
    (SGD, "optax", MOMENTUM, lambda p: velocity_sgd(p, 0.9)),
    (SGD, "optax", NESTEROV, lambda p: velocity_sgd(p, 0.9, nesterov=True)),
    (SGD, "mlx", MOMENTUM, lambda p: velocity_sgd(p, 0.9)),
    (SGD, "tinygrad", NESTEROV, lambda p: velocity_sgd(p, 0.9, nesterov=True)),
    (SGD, "burn", {}, velocity_sgd),
    (SGD, "burn", MOMENTUM, lambda p: velocity_sgd(p, 0.9, 0.1)),
    (SGD, "burn", NESTEROV, lambda p: velocity_sgd(p, 0.9, 0.1, True)),
    (Adam, "keras", {}, keras_adam),
    (Adam, "keras", {"amsgrad": True}, lambda p: keras_adam(p, True)),
    (Adam, "keras", {"eps": 1e-3, "weight_decay": 0.1}, lambda p: keras_adam(p, False, 0.1, 1e-3)),
    (Adam, "optax", {}, corrected_adam),
    (Adam, "mlx", {}, mlx_adam),
    (Adam, "mlx", {"eps": 1e-2}, lambda p: mlx_adam(p, eps=1e-2)),
    (Adam, "burn", {}, lambda p: corrected_adam(p, 1e-5)),
    (Adam, "tinygrad", {}, corrected_adam),
    (AdamW, "keras", {}, lambda p: keras_adam(p, decay=0.004)),
    (AdamW, "optax", {}, lambda p: corrected_adam(p, decay=1e-4)),
    (AdamW, "mlx", {}, lambda p: mlx_adam(p, 0.01)),
    (AdamW, "burn", {}, lambda p: corrected_adam(p, 1e-5, 1e-4)),
    (AdamW, "tinygrad", {}, lambda p: corrected_adam(p, decay=0.01)),
    (Adamax, "keras", {}, keras_adamax),
    (Adamax, "keras", {"eps": 1e-2, "weight_decay": 0.1}, lambda p: keras_adamax(p, 0.1, 1e-2)),
    (Adamax, "optax", {"eps": 1e-2}, lambda p: optax_adamax(p, 1e-2)),
    (Adamax, "mlx", {"eps": 1e-2}, lambda p: mlx_adamax(p, 1e-2)),
    (RMSprop, "keras", {}, lambda p: inner_rmsprop(p, 1e-7)),
    (
        RMSprop,
        "keras",
        {"eps": 1e-3, "weight_decay": 0.1, **MOMENTUM},
        lambda p: inner_rmsprop(p, 1e-3, 0.9, decay=0.1),
    ),
    (RMSprop, "optax", {}, lambda p: inner_rmsprop(p, 1e-8)),
    (RMSprop, "optax", {"centered": True}, lambda p: inner_rmsprop(p, 1e-8, centered=True)),
    (
        RMSprop,
        "optax",
        {"centered": True, "eps": 1e-3, **MOMENTUM},
        lambda p: inner_rmsprop(p, 1e-3, 0.9, True),
    ),
    (RMSprop, "mlx", {}, outer_rmsprop),
    (RMSprop, "burn", {}, lambda p: outer_rmsprop(p, 1e-5, 0.9)),
    (Adagrad, "keras", {"weight_decay": 0.1}, lambda p: inner_adagrad(p, 0.1)),
    (Adagrad, "optax", {}, inner_adagrad),
    (
        Adagrad,
        "optax",
        {"initial_accumulator_value": 0.5, "eps": 1e-2},
        lambda p: inner_adagrad(p, start=0.5, eps=1e-2),
    ),
    (Adagrad, "mlx", {}, lambda p: outer_adagrad(p, 1e-8)),
    (Adagrad, "burn", {}, lambda p: outer_adagrad(p, 1e-5)),
    (Adadelta, "keras", {"weight_decay": 0.1}, lambda p: zeiler(p, 0.95, 1e-7, 0.1)),
    (Adadelta, "optax", {}, lambda p: zeiler(p, 0.9, 1e-6)),
    (Adadelta, "mlx", {}, lambda p: zeiler(p, 0.9, 1e-6)),
    (NAdam, "keras", {}, keras_nadam),
    (NAdam, "keras", {"weight_decay": 0.1}, lambda p: keras_nadam(p, 0.1)),
    (NAdam, "optax", {}, optax_nadam),
    (NAdam, "optax", {"eps": 1e-2}, lambda p: optax_nadam(p, 1e-2)),
    (RAdam, "optax", {}, optax_radam),
    (RAdam, "optax", {"eps": 1e-2}, lambda p: optax_radam(p, 1e-2)),
]
RATES: Final = {
    ("SGD", "keras"): 1e-2,
    ("AdamW", "keras"): 1e-3,
    ("Adam", "tinygrad"): 1e-3,
    ("Adamax", "keras"): 1e-3,
    ("RMSprop", "keras"): 1e-3,
    ("Adagrad", "keras"): 1e-3,
    ("Adadelta", "keras"): 1e-3,
    ("NAdam", "keras"): 1e-3,
    ("Adadelta", "torch"): 1.0,
    ("NAdam", "torch"): 2e-3,
}


def trained(case: Case, dtype: DType, backend: Backend) -> NDArray[Any]:
    kind, library, options, _ = case
    w = Parameter(START, name="w", dtype=dtype, backend=backend)
    optimizer = kind.like(library, [w], lr, **options)  # type: ignore[arg-type]
    for g in GRADIENTS:
        optimizer.step((w * tensor(g, dtype=dtype, backend=backend)).sum().backward())
    return w.numpy()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0].__name__}-{case[1]}-{case[2]}")
def test_a_preset_is_the_library_s_formula(case: Case) -> None:
    found = trained(case, np.dtype(np.float64), Parameter(0.0).backend)
    np.testing.assert_allclose(found, case[3](START), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("case", CASES[::3], ids=lambda case: f"{case[0].__name__}-{case[1]}")
def test_on_every_backend(case: Case, backend: Backend) -> None:
    found = trained(case, np.dtype(np.float32), backend)
    wanted = case[3](START)
    assert np.linalg.norm(found - wanted) <= 2e-6 * np.linalg.norm(wanted)


def test_the_formulas_differ() -> None:
    """If the table says that the mathematics differs, a preset differs from the plain optimizer."""
    backend = Parameter(0.0).backend
    for kind, library, options, formula in CASES:
        w = Parameter(START, name="w", dtype=np.dtype(np.float64), backend=backend)
        optimizer = kind.like(library, [w], lr, **options)  # type: ignore[arg-type]
        if optimizer.is_ported:
            assert optimizer.kind not in ("Adam", "AdamW", kind.__name__)
            assert np.abs(formula(START) - START).max() > 1e-3


@pytest.mark.parametrize(("which", "rate"), RATES.items(), ids=str)
def test_default_learning_rates(which: tuple[str, str], rate: float) -> None:
    kinds = {case[0].__name__: case[0] for case in CASES}
    optimizer = kinds[which[0]].like(which[1], [Parameter([1.0], name="w")])  # type: ignore[arg-type]
    assert optimizer.hyper["lr"] == rate


def test_pytorch_is_what_the_class_is() -> None:
    for kind in (SGD, Adam, AdamW, Adamax, RMSprop, Adagrad, Adadelta, NAdam, RAdam):
        ours, theirs = (Parameter([1.0], name="w") for _ in range(2))
        plain, like = kind([ours]), kind.like("torch", [theirs])
        assert (plain.hyper, plain.rule, plain.kind) == (like.hyper, like.rule, like.kind)


def refused(error: type[Exception], message: str, kind: Any, library: str, **options: Any) -> None:
    w = Parameter([1.0], name="w")
    with pytest.raises(error, match=message):
        kind.like(library, [w], **options)
    assert w.owner is None


def test_refused_input() -> None:
    refused(ValueError, "'torch', 'keras', 'optax', 'mlx', 'burn', 'tinygrad'", AdamW, "jax")
    refused(ValueError, "RAdam.* for 'torch', 'optax'", RAdam, "keras")
    refused(ValueError, "Lion.*no library", Lion, "mlx")
    refused(ValueError, "optax has no default learning rate", AdamW, "optax")
    refused(TypeError, "momentum", AdamW, "keras", momentum=0.9)
    refused(TypeError, "momentum", AdamW, "torch", momentum=0.9)
    refused(TypeError, "AdamW has no option 'adjust'", AdamW, "keras", adjust="original")
    refused(TypeError, "AdamW has no option 'adamw_lr'", AdamW, "torch", adamw_lr=0.1)
    refused(TypeError, "amsgrad is not", Adam, "mlx", lr=0.1, amsgrad=True)
    refused(ValueError, "beta2", Adam, "mlx", lr=0.1, betas=(0.9, 1.0))
    refused(ValueError, "decay must be", AdamW, "keras", decay="some")
    refused(ValueError, "nonfinite", AdamW, "keras", nonfinite="ignore")
    refused(TypeError, "lr_decay", Adagrad, "optax", lr=0.1, lr_decay=0.1)


def test_disabled_switches_do_not_matter() -> None:
    optimizer = Adam.like("mlx", [Parameter([1.0], name="w")], 0.1, amsgrad=False)
    assert optimizer.kind == "adam_uncorrected"


def test_groups_and_decay_of_matrices() -> None:
    matrix = Parameter(np.ones((2, 2)), name="matrix")
    bias = Parameter(np.ones(2), name="bias")
    optimizer = AdamW.like("keras", [matrix, bias], decay="matrices", weight_decay=0.5)
    assert [group.hyper for group in optimizer.groups] == [{}, {"weight_decay": 0.0}]
    optimizer.release()
    optimizer = AdamW.like("mlx", [ParameterGroup([matrix], lr=0.5), ParameterGroup([bias])], 0.25)
    optimizer.step((matrix.sum() + bias.sum()).backward())
    first = 0.1 / np.sqrt(0.001)  # no bias correction
    assert matrix.numpy()[0, 0] == pytest.approx(1 - 0.5 * 0.01 - 0.5 * first, rel=1e-5)
    assert bias.numpy()[0] == pytest.approx(1 - 0.25 * 0.01 - 0.25 * first, rel=1e-5)


def test_maximize_and_skip_reach_the_preset() -> None:
    w = Parameter([1.0], name="w")
    optimizer = AdamW.like("keras", [w], 0.5, weight_decay=0.0, maximize=True, nonfinite="skip")
    optimizer.step((w * w).sum().backward())
    assert w.item() > 1.4
    optimizer.step((w * float("nan")).sum().backward())
    assert (optimizer.steps, optimizer.skipped) == (1, 1)


def test_the_state_of_other_mathematics_is_not_loaded(tmp_path: Any) -> None:
    keras, mlx = (AdamW.like(lib, [Parameter([1.0], name="w")], 0.1) for lib in ("keras", "mlx"))
    save_state(keras, tmp_path / "s")
    load_state(keras, tmp_path / "s")
    with pytest.raises(StateMismatchError, match="kind: saved adam_outer_eps_decoupled"):
        load_state(mlx, tmp_path / "s")
    with pytest.raises(StateMismatchError, match="kind"):
        load_state(AdamW([Parameter([1.0], name="w")]), tmp_path / "s")
