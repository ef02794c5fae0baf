"""The Muon of other libraries against their published formulas, reimplemented in float64.

These formulas were compared with Keras 3.15.1, optax 0.2.8 and MLX 0.32.4 themselves, over the same
gradients and learning rates: they agree to 1e-9 in float64, and with MLX, which has only float32,
to 1e-6. The formula of burn was read in its source. The formulas act on arrays in the library's
layout: the weight of a layer is (inputs, outputs) in Keras, optax and burn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.optim import Muon, load_state, save_state
from rumus.tensor import Backend, DType, GradientStore, Parameter, StateMismatchError, tensor

# formulas: begin
Real = NDArray[np.float64]
SHAPES: Final = {
    "wide": (3, 5),
    "tall": (6, 2),
    "embedding": (7, 3),
    "bias": (4,),
    "kernel": (4, 3, 3, 2),
}
STEPS: Final = 12


def drawn(name: str, t: int) -> Real:
    """The parameter at t = 0, and its gradients at later t."""
    seed = [t, *name.encode()]
    scale = 1.0 if t == 0 else 10.0 ** (t % 3 - 1)
    return np.random.default_rng(seed).normal(0.1, scale, SHAPES[name])


def lr(t: int) -> float:
    return 0.02 / (1 + 0.1 * t)


def newton_schulz(x: Real, eps: float, beside: bool) -> Real:
    norm = np.linalg.norm(x)
    x = x / (norm + eps if beside else max(float(norm), eps))
    for _ in range(5):
        s = x @ x.T
        x = 3.4445 * x + (-4.7750 * s + 2.0315 * s @ s) @ x
    return x


Gradients = list[Real]


def keras(p: Real, name: str, gradients: Gradients, decay: float = 0.004) -> Real:
    m = v = np.zeros_like(p)
    for t, g in enumerate(gradients, 1):
        p = p - p * decay * lr(t)
        if p.ndim == 2 and name != "embedding":
            m = 0.95 * m + g
            o = newton_schulz(g + 0.95 * m, 1e-7, True)
            p = p - lr(t) * o * np.sqrt(max(p.shape)) * 0.2
        else:
            m = m + (g - m) * (1 - 0.9)
            v = v + (g**2 - v) * (1 - 0.999)
            alpha = lr(t) * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            p = p - alpha * m / (np.sqrt(v) + 1e-7)
    return p


def optax(
    p: Real,
    name: str,
    gradients: Gradients,
    eps: float = 1e-8,
    nesterov: bool = True,
    decay: float = 0.0,
) -> Real:
    m = v = np.zeros_like(p)
    beta = 0.95 if p.ndim == 2 else 0.9
    for t, g in enumerate(gradients, 1):
        m = beta * m + (1 - beta) * g
        v = 0.999 * v + (1 - 0.999) * g**2
        ahead = beta * m / (1 - beta ** (t + 1)) + (1 - beta) * g / (1 - beta**t)
        m_hat = ahead if nesterov else m / (1 - beta**t)
        if p.ndim == 2:
            fan_in, fan_out = p.shape
            o = newton_schulz(m_hat, eps, True) * np.sqrt(max(1.0, fan_out / fan_in))
            p = p - lr(t) * (o + decay * p)
        else:
            p = p - lr(t) * m_hat / (np.sqrt(v / (1 - 0.999**t)) + eps)
    return p


def mlx(
    p: Real, name: str, gradients: Gradients, decay: float = 0.01, nesterov: bool = True
) -> Real:
    v = np.zeros_like(p)
    for t, g in enumerate(gradients, 1):
        g = g + decay * p
        v = 0.95 * v + (1 - 0.95) * g
        u = g * (1 - 0.95) + v * 0.95 if nesterov else v
        factor = 1.0
        if p.ndim >= 2:
            u = newton_schulz(u.reshape(len(u), -1), 1e-7, True).reshape(p.shape)
            factor = max(1.0, p.shape[-2] / p.shape[-1]) ** 0.5
        p = p - lr(t) * factor * u
    return p


def burn(p: Real, name: str, gradients: Gradients, decay: float = 0.0) -> Real:
    """Only for matrices; it takes nothing else."""
    v = np.zeros_like(p)
    rows, columns = p.shape
    for t, g in enumerate(gradients, 1):
        v = g + 0.95 * v
        o = newton_schulz(g + 0.95 * v, 1e-7, False)
        p = p * (1 - lr(t) * decay) - lr(t) * max(1.0, rows / columns) ** 0.5 * o
    return p


# formulas: end

INPUTS_FIRST: Final = ("keras", "optax", "burn")
Formula = Callable[..., Real]
Case = tuple[str, dict[str, Any], Formula, dict[str, Any]]
CASES: Final[list[Case]] = [
    ("keras", {}, keras, {}),
    ("keras", {"weight_decay": 0.1, "adamw_weight_decay": 0.1}, keras, {"decay": 0.1}),
    ("optax", {"eps": 1e-30}, optax, {"eps": 1e-30}),
    ("optax", {"eps": 1e-30, "weight_decay": 0.1}, optax, {"eps": 1e-30, "decay": 0.1}),
    ("optax", {"eps": 1e-30, "nesterov": False}, optax, {"eps": 1e-30, "nesterov": False}),
    ("mlx", {}, mlx, {}),
    ("mlx", {"weight_decay": 0.5, "nesterov": False}, mlx, {"decay": 0.5, "nesterov": False}),
    ("burn", {}, burn, {}),
    ("burn", {"weight_decay": 0.1}, burn, {"decay": 0.1}),
]


def names_of(library: str) -> list[str]:
    """The library's names; in burn embeddings are the user's choice, and go to AdamW here."""
    return ["wide", "tall"] if library == "burn" else list(SHAPES)


def turned(library: str, name: str, array: Real) -> Real:
    is_weight = name in ("wide", "tall")
    return array.T if is_weight and library in INPUTS_FIRST else array


def trained(
    library: str, options: Mapping[str, Any], scale: float, dtype: DType, backend: Backend
) -> dict[str, NDArray[Any]]:
    parameters = [
        Parameter(
            drawn(name, 0),
            name=name,
            role="embedding" if name == "embedding" else "weight",
            dtype=dtype,
            backend=backend,
        )
        for name in names_of(library)
    ]
    optimizer = Muon.like(library, parameters, lr, **options)  # type: ignore[arg-type]
    for t in range(1, STEPS + 1):
        store = GradientStore()
        for p in parameters:
            store.accumulate(p, tensor(scale * drawn(p.name, t), dtype=dtype, backend=backend))
        optimizer.step(store)
    return {p.name: p.numpy() for p in parameters}


def wanted(library: str, name: str, formula: Formula, scale: float, options: Any) -> Real:
    gradients = [turned(library, name, scale * drawn(name, t)) for t in range(1, STEPS + 1)]
    return turned(
        library, name, formula(turned(library, name, drawn(name, 0)), name, gradients, **options)
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def test_a_preset_is_the_library_s_formula(case: Case) -> None:
    library, options, formula, own = case
    found = trained(library, options, 1.0, np.dtype(np.float64), Parameter(0.0).backend)
    for name, p in found.items():
        expected = wanted(library, name, formula, 1.0, own)
        np.testing.assert_allclose(p, expected, rtol=1e-10, atol=1e-11, err_msg=name)


@pytest.mark.parametrize(("library", "formula"), [("keras", keras), ("mlx", mlx), ("burn", burn)])
def test_where_eps_counts(library: str, formula: Formula) -> None:
    """Gradients as small as eps: added to the norm or in a maximum, of the sum or the average."""
    own = {"decay": 0.0}  # otherwise the decay would dominate the gradient
    options = {"weight_decay": 0.0, "adamw_weight_decay": 0.0}
    found = trained(library, options, 1e-8, np.dtype(np.float64), Parameter(0.0).backend)
    for name, p in found.items():
        expected = wanted(library, name, formula, 1e-8, own)
        np.testing.assert_allclose(p, expected, rtol=1e-10, atol=1e-11, err_msg=name)


def test_optax_applies_eps_before_the_correction() -> None:
    """Exact after many steps; earlier the difference is of the size of eps."""
    found = trained("optax", {}, 1.0, np.dtype(np.float64), Parameter(0.0).backend)
    for name, p in found.items():
        np.testing.assert_allclose(p, wanted("optax", name, optax, 1.0, {}), rtol=0, atol=1e-7)


@pytest.mark.parametrize("case", [CASES[n] for n in (0, 2, 5, 7)], ids=lambda case: case[0])
def test_on_every_backend(case: Case, backend: Backend) -> None:
    library, options, formula, own = case
    for name, p in trained(library, options, 1.0, np.dtype(np.float32), backend).items():
        expected = wanted(library, name, formula, 1.0, own)
        assert np.linalg.norm(p - expected) <= 2e-5 * np.linalg.norm(expected)


def directions(beta: float, nesterov: bool) -> list[Real]:
    """The last direction with an average, with a sum, and with optax's corrected average."""
    gradients = [drawn("wide", t) for t in range(1, 4)]
    average = total = np.zeros_like(gradients[0])
    for t, g in enumerate(gradients, 1):
        average = beta * average + (1 - beta) * g
        total = beta * total + g
        corrected = average / (1 - beta**t)
        found = [average, total, corrected]
        if nesterov:
            ahead = beta * average / (1 - beta ** (t + 1)) + (1 - beta) * g / (1 - beta**t)
            found = [beta * average + (1 - beta) * g, beta * total + g, ahead]
    return [newton_schulz(u, 0.0, True) for u in found]


@pytest.mark.parametrize("nesterov", [False, True])
def test_factors_of_the_momentum_make_no_difference(nesterov: bool) -> None:
    """But optax corrects momentum and gradient differently with Nesterov: the direction differs."""
    average, total, corrected = directions(0.95, nesterov)
    np.testing.assert_allclose(total, average, rtol=1e-11, atol=1e-12)
    deviation = np.abs(corrected - average).max()
    assert deviation > 1e-3 if nesterov else deviation < 1e-12


def test_a_skipped_step_does_not_count_for_the_bias_correction(backend: Backend) -> None:
    """Only the GPU knows which step it is."""
    found = []
    for poisoned in (False, True):
        w = Parameter(drawn("wide", 0), name="w", dtype=np.dtype(np.float32), backend=backend)
        optimizer = Muon.like("optax", [w], 0.1, nonfinite="skip")
        gradients = [drawn("wide", t) for t in range(1, 5)]
        if poisoned:
            gradients.insert(1, np.full(w.shape, np.nan))
        for g in gradients:
            store = GradientStore()
            store.accumulate(w, tensor(g, dtype=w.dtype, backend=backend))
            optimizer.step(store)
        assert (optimizer.steps, optimizer.skipped) == (4, int(poisoned))
        found.append(w.numpy().tobytes())
    assert found[0] == found[1]


def layers() -> list[Parameter]:
    roles = ("weight", "embedding", "bias", "weight")
    shapes = ((3, 2), (3, 2), (3,), (3, 2, 2))
    return [
        Parameter(np.ones(shape), name=f"p{i}", role=role)  # type: ignore[arg-type]
        for i, (shape, role) in enumerate(zip(shapes, roles, strict=True))
    ]


@pytest.mark.parametrize(
    ("library", "names"),
    [("torch", "p0"), ("keras", "p0"), ("burn", "p0"), ("optax", "p0p1"), ("mlx", "p0p1p2p3")],
)
def test_the_assignment_to_adamw(library: Any, names: str) -> None:
    parameters = layers()
    optimizer = Muon.like(library, parameters, 0.1)
    assert optimizer.matrices == {p.id for p in parameters if p.name in names}
    assert ("AdamW" in optimizer.describe()) == (library != "mlx")


@pytest.mark.parametrize(
    ("library", "decay", "adamw"),
    [
        ("keras", 0.004, (0.004, 1e-7)),
        ("optax", 0.0, (0.0, 1e-8)),
        ("burn", 0.0, (1e-4, 1e-5)),
    ],
)
def test_defaults(library: Any, decay: float, adamw: tuple[float, float]) -> None:
    optimizer = Muon.like(library, layers(), None if library == "keras" else 0.5)
    assert optimizer.hyper["lr"] == (1e-3 if library == "keras" else 0.5)
    assert (optimizer.hyper["weight_decay"], optimizer.hyper["momentum"]) == (decay, 0.95)
    others = optimizer.groups[-1].over(optimizer.hyper)
    assert (others["weight_decay"], others["eps"]) == adamw


def test_pytorch_is_what_the_class_is() -> None:
    plain, like = Muon(layers()), Muon.like("torch", layers())
    assert (plain.hyper, plain.rule, plain.kind) == (like.hyper, like.rule, like.kind)


def test_the_user_chooses_what_mlx_leaves_to_its_adamw() -> None:
    parameters = layers()
    optimizer = Muon.like("mlx", parameters, 0.1, matrices=lambda name, p: p.ndim >= 2)
    store = GradientStore()
    for p in parameters:
        store.accumulate(p, tensor(np.ones(p.shape)))
    optimizer.step(store)
    first = 0.1 / np.sqrt(0.001)  # no bias correction
    assert parameters[2].numpy()[0] == pytest.approx(1 - 0.1 * 0.01 - 0.1 * first, rel=1e-5)


def refused(error: type[Exception], message: str, library: Any, **options: Any) -> None:
    w = Parameter([[1.0]], name="w")
    with pytest.raises(error, match=message):
        Muon.like(library, [w], **options)
    assert w.owner is None


def test_refused_input() -> None:
    refused(
        ValueError, "Muon has presets for 'torch', 'keras', 'optax', 'mlx', 'burn'$", "tinygrad"
    )
    refused(ValueError, "mlx has no default learning rate", "mlx")
    refused(TypeError, "betas", "keras", betas=(0.9, 0.99))
    refused(TypeError, "weight_decay must be a number", "mlx", lr=0.1, weight_decay=lr)
    refused(ValueError, "adjust must be", "optax", lr=0.1, adjust="none")


def test_the_state_of_other_mathematics_is_not_loaded(tmp_path: Any) -> None:
    optax_s, mlx_s = (Muon.like(lib, layers()[:1], 0.1) for lib in ("optax", "mlx"))
    save_state(optax_s, tmp_path / "s")
    load_state(optax_s, tmp_path / "s")
    with pytest.raises(StateMismatchError, match="kind: saved muon_corrected, here muon_coupled"):
        load_state(mlx_s, tmp_path / "s")
    with pytest.raises(StateMismatchError, match="kind"):
        load_state(Muon(layers()[:1]), tmp_path / "s")
