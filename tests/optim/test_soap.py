"""SOAP against formulas in NumPy, its bases, the assignment to AdamW, and refreshes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.optim import SOAP, AdamW, LossScale, MultiOptimizer, linear
from rumus.optim.algorithms.eigenbasis import eigenvectors, reflected_rows, turn
from rumus.tensor import (
    Backend,
    DType,
    GradientStore,
    Kernel,
    NumpyBackend,
    Parameter,
    StateMismatchError,
    float32,
    float64,
    tensor,
)

Real = NDArray[Any]
MATRICES: Final = ((3, 5), (5, 3), (1, 7), (8, 8), (3, 5), (12, 4), (4, 2, 3), (3, 5))
OTHERS: Final = ((4,), ())


def made(
    shapes: Sequence[tuple[int, ...]], backend: Backend, dtype: DType, steps: int
) -> tuple[list[Parameter], list[list[Real]]]:
    """Parameters, and their gradients at each step."""
    draw = np.random.default_rng(5)
    parameters = [
        Parameter(draw.normal(size=s), name=f"p{i}", dtype=dtype, backend=backend)
        for i, s in enumerate(shapes)
    ]
    gradients = [[np.asarray(draw.normal(size=s), dtype) for s in shapes] for _ in range(steps)]
    return parameters, gradients


def step(optimizer: Any, parameters: Sequence[Parameter], gradients: Sequence[Real]) -> None:
    store = GradientStore()
    for p, g in zip(parameters, gradients, strict=True):
        store.accumulate(p, tensor(g, dtype=p.dtype, backend=p.backend))
    optimizer.step(store)


def expected(
    p: Real,
    gradients: Sequence[Real],
    basis: Mapping[str, Real],
    lr: float = 3e-3,
    betas: tuple[float, float] = (0.95, 0.95),
    shampoo_beta: float | None = None,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    precondition_frequency: int = 10,
    max_precondition_dim: int = 10_000,
    maximize: bool = False,
) -> Real:
    """The paper's algorithm with its authors' additions: the order, and the bias correction.

    basis: the eigenvectors of the first factors. For a repeated eigenvalue, such as 0 in a matrix
    that is not square, any basis of its space is valid.
    """
    beta1, beta2 = betas
    beta = beta2 if shampoo_beta is None else shampoo_beta
    first, *others = [(-g if maximize else g).reshape(len(g), -1) for g in gradients]
    factors = {"L": first @ first.T, "R": first.T @ first}
    sides = [s for s, factor in factors.items() if len(factor) <= max_precondition_dim]
    factors = {side: (1 - beta) * factors[side] for side in sides}
    q = {"L": np.eye(len(first)), "R": np.eye(first.shape[1])}
    for side in sides:
        q[side] = basis[f"Q_{side}"].astype(np.float64)
    m, v, shape, p = np.zeros_like(first), np.zeros_like(first), p.shape, p.reshape(len(p), -1)
    for t, g in enumerate(others, 1):
        turned = q["L"].T @ g @ q["R"]
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * turned**2
        direction = q["L"].T @ m @ q["R"] / (np.sqrt(v) + eps)
        corrected = lr * np.sqrt(1 - beta2**t) / (1 - beta1**t)
        p = p * (1 - lr * weight_decay) - corrected * q["L"] @ direction @ q["R"].T
        for side in sides:
            outer = g @ g.T if side == "L" else g.T @ g
            factors[side] = beta * factors[side] + (1 - beta) * outer
            if t % precondition_frequency == 0:
                values = np.diag(q[side].T @ factors[side] @ q[side])
                order = np.argsort(-values, kind="stable")
                q[side] = np.linalg.qr(factors[side] @ q[side][:, order])[0]
                v = v[order] if side == "L" else v[:, order]
    return p.reshape(shape)


def deviation(
    shapes: Sequence[tuple[int, ...]],
    backend: Backend,
    dtype: DType,
    steps: int,
    options: Mapping[str, Any],
) -> float:
    """The largest relative deviation of a parameter from the formulas, in the 2-norm."""
    parameters, gradients = made(shapes, backend, dtype, steps)
    start = [p.numpy().astype(np.float64) for p in parameters]
    optimizer = SOAP(parameters, **options)
    step(optimizer, parameters, gradients[0])
    assert all((p.numpy() == a).all() for p, a in zip(parameters, start, strict=True))
    saved = optimizer.state_dict()["parameters"]
    bases = [saved[p.name]["state"] for p in parameters]
    for of_step in gradients[1:]:
        step(optimizer, parameters, of_step)
    found = []
    for i, (p, a) in enumerate(zip(parameters, start, strict=True)):
        of_parameter = [of_step[i].astype(np.float64) for of_step in gradients]
        wanted = expected(a, of_parameter, bases[i], **options)
        found.append(float(np.linalg.norm(p.numpy() - wanted) / np.linalg.norm(wanted)))
    return max(found)


OPTIONS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {
        "lr": 0.02,
        "betas": (0.8, 0.9),
        "shampoo_beta": 0.7,
        "eps": 1e-3,
        "weight_decay": 0.3,
        "precondition_frequency": 7,
        "maximize": True,
    },
    {"precondition_frequency": 1, "max_precondition_dim": 5},
)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_formula(options: dict[str, Any], backend: Backend, widest: DType) -> None:
    shapes: Sequence[tuple[int, ...]] = MATRICES
    if "max_precondition_dim" in options:  # with no side short enough, AdamW takes it
        shapes = tuple(shape for shape in MATRICES if shape != (8, 8))
    found = deviation(shapes, backend, widest, 24, options)
    assert found <= (1e-10 if widest == float64 else 1e-5)


@pytest.mark.parametrize("options", OPTIONS[:2], ids=str)
def test_200_steps_in_float32(
    options: dict[str, Any], backend: Backend, record_deviation: Callable[..., None]
) -> None:
    """The decay rounds in one direction at each step, as AdamW's does: most of the error."""
    found = deviation(MATRICES, backend, float32, 200, options)
    record_deviation(SOAP, options, "float64", backend, found)
    assert found <= 1e-5


def test_the_first_basis_is_that_of_the_eigenvectors(backend: Backend) -> None:
    parameters, (gradients,) = made(MATRICES, backend, float32, 1)
    optimizer = SOAP(parameters)
    step(optimizer, parameters, gradients)
    saved = optimizer.state_dict()["parameters"]
    for p, g in zip(parameters, gradients, strict=True):
        state = saved[p.name]["state"]
        flat = g.reshape(len(g), -1)
        assert list(state) == ["m", "v", "L", "Q_L", "R", "Q_R"]
        assert not state["m"].any()
        for side, outer in (("L", flat @ flat.T), ("R", flat.T @ flat)):
            np.testing.assert_allclose(state[side], 0.05 * outer, rtol=1e-5, atol=1e-6)
            q = state[f"Q_{side}"].astype(np.float64)
            np.testing.assert_allclose(q.T @ q, np.eye(len(q)), atol=1e-6)
            turned = q.T @ outer @ q
            size = np.abs(turned).max()
            np.testing.assert_allclose(turned, np.diag(np.diag(turned)), atol=1e-5 * size)
            assert (np.diff(np.diag(turned)) <= 1e-5 * size).all()


@pytest.mark.parametrize("rank", [0, 1, 5, 12])
def test_reflections_match_lapack(rank: int, backend: Backend, widest: DType) -> None:
    """Up to signs, and as far as the matrix determines it; the result is always orthonormal."""
    draw = np.random.default_rng(2)
    of_rank = draw.normal(size=(3, 12, rank)) @ draw.normal(size=(3, rank, 12))
    given = np.asarray(of_rank, widest)
    rows, out = backend.upload(given), backend.allocate(given.shape, np.dtype(widest))
    reflected_rows(backend, rows, out)
    found = backend.download(out).astype(np.float64)
    tolerance = 1e-12 if widest == float64 else 1e-5
    for x, q in zip(given.astype(np.float64), found, strict=True):
        np.testing.assert_allclose(q @ q.T, np.eye(12), atol=tolerance)
        wanted = np.linalg.qr(x.T)[0].T
        angles = np.abs((q * wanted).sum(1))[:rank]
        np.testing.assert_allclose(angles, 1, atol=100 * tolerance)


def test_power_iteration_finds_the_eigenvectors(backend: Backend) -> None:
    draw = np.random.default_rng(3)
    q = np.linalg.qr(draw.normal(size=(2, 6, 6)))[0]
    values = np.array([32.0, 16.0, 8.0, 4.0, 2.0, 1.0])
    matrices = backend.upload(((q * values) @ q.transpose(0, 2, 1)).astype(np.float32))
    basis, new = (backend.allocate((2, 6, 6), float32) for _ in range(2))
    backend.copy(backend.upload(np.eye(6, dtype=np.float32)), basis)
    for _ in range(40):
        turn(backend, matrices, basis, new)
        backend.copy(new, basis)
    found = np.sort(np.abs(q.transpose(0, 2, 1) @ backend.download(basis)).max(1))
    np.testing.assert_allclose(found, 1, atol=1e-4)
    eigenvectors(backend, matrices, new)
    np.testing.assert_allclose(
        np.abs((q * backend.download(new)).sum(1)), 1, atol=1e-5
    )  # the largest first


def test_other_parameters_are_stepped_by_adamw(backend: Backend) -> None:
    """Bit for bit, from the first step on, next to matrices; so are matrices that are too large."""
    shapes = (*OTHERS, (9, 8))
    mixed, gradients = made((*shapes, (4, 3)), backend, float32, 5)
    alone, _ = made(shapes, backend, float32, 0)
    options: dict[str, Any] = {"lr": linear(0.1, 0.01, 5), "weight_decay": 0.25}
    soap = SOAP(mixed, betas=(0.8, 0.9), max_precondition_dim=7, **options)
    adamw = AdamW(alone, betas=(0.8, 0.9), **options)
    for of_step in gradients:
        step(soap, mixed, of_step)
        step(adamw, alone, of_step[:-1])
    for p, q in zip(mixed, alone, strict=False):
        assert p.numpy().tobytes() == q.numpy().tobytes()
    first, second = soap.describe().split("group 1: ")
    assert "group 0: SOAP: lr=linear(0.1, 0.01, 5)" in first
    assert "(4, 3)" in first
    assert second.startswith("AdamW: ")


def test_other_matrices_do_not_matter(backend: Backend) -> None:
    together, gradients = made(MATRICES, backend, float32, 8)
    options: dict[str, Any] = {"lr": 0.1, "precondition_frequency": 2}
    all_of_them = SOAP(together, **options)
    for of_step in gradients:
        step(all_of_them, together, of_step)
    apart, _ = made(MATRICES, backend, float32, 0)
    for i, p in enumerate(apart):
        optimizer = SOAP([p], **options)
        for of_step in gradients:
            step(optimizer, [p], [of_step[i]])
        np.testing.assert_allclose(p.numpy(), together[i].numpy(), rtol=1e-4, atol=1e-4)


def bits(optimizer: Any) -> list[bytes]:
    state = optimizer.state_dict()["parameters"]
    arrays = [a for entry in state.values() for a in entry["state"].values()]
    return [a.tobytes() for a in (*arrays, *(p.numpy() for p in optimizer.parameters))]


@pytest.mark.parametrize("has_scale", [False, True])
@pytest.mark.parametrize("together", [False, True])
def test_a_refused_step_moves_no_refresh(has_scale: bool, together: bool, backend: Backend) -> None:
    """Wherever the bad batches are; a device reports them to the host later."""
    shapes = ((3, 5), (4, 4), (2,))

    def trained(bad: Sequence[int]) -> list[bytes]:
        parameters, gradients = made(shapes, backend, float32, 9)
        optimizer: Any = SOAP(parameters[:2], 0.1, precondition_frequency=3, nonfinite="skip")
        if together:
            optimizer = MultiOptimizer([AdamW(parameters[2:], nonfinite="skip"), optimizer])
        given = parameters if together else parameters[:2]
        if has_scale:
            optimizer.scale_losses(LossScale(initial=1.0, minimum=1.0))
        for t, of_step in enumerate(gradients):
            if t in bad:
                step(optimizer, given, [np.full_like(g, np.nan) for g in of_step[: len(given)]])
            step(optimizer, given, of_step[: len(given)])
        assert optimizer.skipped == len(bad)
        return bits(optimizer)

    wanted = trained([])
    for bad in ([0], [1], [3], [4], [0, 3, 6]):
        assert trained(bad) == wanted, bad


def test_resuming_from_a_saved_state_bit_for_bit(backend: Backend) -> None:
    """Before and after a refresh; a state with other factors is refused."""
    for at in (0, 3, 4):
        parameters, gradients = made(MATRICES, backend, float32, 8)
        optimizer = SOAP(parameters, 0.1, precondition_frequency=3)
        for of_step in gradients[:at]:
            step(optimizer, parameters, of_step)
        saved, values = optimizer.state_dict(), [p.numpy() for p in parameters]
        others = [Parameter(a, name=f"p{i}", backend=backend) for i, a in enumerate(values)]
        other = SOAP(others, 0.1, precondition_frequency=3)
        other.load_state_dict(saved)
        for of_step in gradients[at:]:
            step(optimizer, parameters, of_step)
            step(other, others, of_step)
        assert bits(other) == bits(optimizer)
    apart = SOAP(made(MATRICES, backend, float32, 0)[0], max_precondition_dim=5)
    with pytest.raises(StateMismatchError, match=r"'p3': saved state \['L', 'Q_L'"):
        apart.load_state_dict(saved)


def test_dead_inputs_leave_the_basis_orthonormal(backend: Backend) -> None:
    """Rank-deficient factors, as from inputs that are always 0, and from no gradient at all."""
    draw = np.random.default_rng(4)
    w = Parameter(draw.normal(size=(6, 9)), name="w", backend=backend)
    still = Parameter(np.ones((4, 4)), name="still", backend=backend)
    optimizer = SOAP([w, still], 0.1, weight_decay=0.0, precondition_frequency=1)
    for _ in range(6):
        g = draw.normal(size=(6, 1)) @ draw.normal(size=(1, 9))
        g[:, ::2] = 0
        step(optimizer, [w, still], [g, np.zeros((4, 4))])
    saved = optimizer.state_dict()["parameters"]
    for entry in saved.values():
        for side in "LR":
            q = entry["state"][f"Q_{side}"].astype(np.float64)
            np.testing.assert_allclose(q.T @ q, np.eye(len(q)), atol=1e-5)
    assert (still.numpy() == 1).all()
    assert np.isfinite(w.numpy()).all()


def test_it_learns_a_linear_map(backend: Backend) -> None:
    """The inputs are large in directions that are not axes: AdamW gets nowhere near as far."""
    draw = np.random.default_rng(8)
    turned = np.linalg.qr(draw.normal(size=(8, 8)))[0]
    x = tensor(draw.normal(size=(32, 8)) * np.geomspace(0.1, 10, 8) @ turned, backend=backend)
    wanted = x @ tensor(draw.normal(size=(8, 4)), backend=backend)
    losses = []
    for kind in (SOAP, AdamW):
        w = Parameter(np.zeros((8, 4)), backend=backend)
        optimizer: Any = kind([w], linear(0.1, 0.0, 150), weight_decay=0.0)
        for _ in range(150):
            loss = ((x @ w - wanted) ** 2).mean()
            optimizer.step(loss.backward())
        losses.append(float(loss))
    assert losses[0] < 0.05 * losses[1]


def test_bad_choices_claim_nothing() -> None:
    def layers() -> list[Parameter]:
        return [Parameter(np.ones((4, 4)), name="weight"), Parameter(np.ones(4), name="bias")]

    parameters = layers()
    for options, error, text in (
        ({"precondition_frequency": 0}, ValueError, "precondition_frequency must be 1 or more"),
        ({"precondition_frequency": 2.5}, TypeError, "precondition_frequency must be a whole"),
        ({"max_precondition_dim": 0}, ValueError, "max_precondition_dim must be 1 or more"),
        ({"shampoo_beta": 1.0}, ValueError, r"shampoo_beta must be finite and in \[0"),
        ({"betas": (lambda t: 0.9, 0.9)}, TypeError, "beta1 must be a number"),
        ({"eps": lambda t: 0.1}, TypeError, "eps must be a number"),
        ({"state_dtype": "8bit"}, TypeError, "SOAP: state_dtype='8bit' leaves rounding"),
        ({"state_dtype": "float16"}, TypeError, "SOAP: state_dtype='float16' leaves rounding"),
        ({"matrices": "bias"}, ValueError, r"'bias' of shape \(4,\) is not a matrix"),
    ):
        with pytest.raises(error, match=text):
            SOAP(parameters, **options)
    assert all(p.owner is None for p in parameters)
    optimizer = SOAP(parameters, matrices=lambda name, p: name == "weight")
    assert optimizer.matrices == {parameters[0].id}
    with pytest.raises(TypeError, match="beta2 must be a number"):
        optimizer.set(beta2=lambda t: 0.9)


def test_the_planned_memory() -> None:
    parameters = [
        Parameter(np.zeros(s, np.float32), name=str(s)) for s in ((70, 70), (5, 90), (9,), (3, 2))
    ]
    wanted = SOAP.planned_memory(parameters, max_precondition_dim=80)
    assert SOAP(parameters, max_precondition_dim=80).memory() == wanted


class Counting(NumpyBackend):
    """Counts the dispatches a GPU would need."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def elementwise(self, kernel: Kernel, *arguments: Any) -> None:
        self.calls += 1
        super().elementwise(kernel, *arguments)

    def matmul(self, *arguments: Any, **others: Any) -> None:
        self.calls += 1
        super().matmul(*arguments, **others)

    def copy(self, *arguments: Any) -> None:
        self.calls += 1
        super().copy(*arguments)


def test_the_kernels_grow_with_the_shapes_and_not_with_the_layers() -> None:
    """Those of an ordinary step, and those of a refresh."""

    def calls(shapes: Sequence[tuple[int, ...]]) -> list[int]:
        backend, found = Counting(), []
        parameters, gradients = made(shapes, backend, float32, 4)
        optimizer = SOAP(parameters, precondition_frequency=2)
        for of_step in gradients:
            backend.calls = 0
            step(optimizer, parameters, of_step)
            found.append(backend.calls - len(shapes))  # gradients copied to their slots
        return found[1:]

    two = ((4, 3), (3, 4))
    assert calls(two * 6) == calls(two)
    assert calls((*two, (5, 5))) > calls(two)
