"""Muon against formulas in NumPy, the assignment to AdamW, and the kernels per step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray
from optimizer_table import KINDS

from rumus.optim import AdamW, Muon, ParameterGroup, linear
from rumus.optim.algorithms.newton_schulz import COEFFICIENTS, orthogonalize, triples
from rumus.optim.engine.porting import Coefficients
from rumus.tensor import (
    Backend,
    DType,
    GradientStore,
    Kernel,
    NumpyBackend,
    Parameter,
    PrecisionError,
    float64,
    tensor,
)

Real = NDArray[Any]
MATRICES: Final = ((3, 5), (5, 3), (1, 7), (7, 1), (8, 8), (3, 5), (16, 4), (3, 5))
OTHERS: Final = ((4,), (), (2, 3, 2))


def expected(
    p: Real,
    gradients: Sequence[Real],
    lr: float = 1e-3,
    momentum: float = 0.95,
    nesterov: bool = True,
    weight_decay: float = 0.1,
    adjust: str = "original",
    iterations: int = 5,
    coefficients: tuple[float, float, float] = COEFFICIENTS,
    eps: float = 1e-7,
    maximize: bool = False,
) -> Real:
    """Muon as its authors write it, with tall matrices transposed."""
    rows, columns = p.shape
    tall = max(1.0, rows / columns) ** 0.5
    factor = tall if adjust == "original" else 0.2 * max(rows, columns) ** 0.5
    a, b, c = coefficients
    average = np.zeros_like(p)
    for g in (-g if maximize else g for g in gradients):
        average = momentum * average + (1 - momentum) * g
        u = momentum * average + (1 - momentum) * g if nesterov else average
        x = u.T if rows > columns else u
        x = x / max(float(np.linalg.norm(x)), eps)
        for _ in range(iterations):
            s = x @ x.T
            x = a * x + (b * s + c * s @ s) @ x
        p = p * (1 - lr * weight_decay) - lr * factor * (x.T if rows > columns else x)
    return p


def stepped(
    optimizer: Any, parameters: Sequence[Parameter], gradients: Sequence[Sequence[Real]]
) -> None:
    for of_step in gradients:
        store = GradientStore()
        for p, g in zip(parameters, of_step, strict=True):
            store.accumulate(p, tensor(g, dtype=p.dtype, backend=p.backend))
        optimizer.step(store)


def made(
    shapes: Sequence[tuple[int, ...]], backend: Backend, dtype: DType, steps: int = 6
) -> tuple[list[Parameter], list[Real], list[list[Real]]]:
    """Parameters, their elements, and the gradients at each step."""
    draw = np.random.default_rng(5)
    start = [np.asarray(draw.normal(size=s), dtype) for s in shapes]
    gradients = [[np.asarray(draw.normal(size=s), dtype) for s in shapes] for _ in range(steps)]
    parameters = [
        Parameter(a, name=f"p{i}", dtype=dtype, backend=backend) for i, a in enumerate(start)
    ]
    return parameters, start, gradients


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lr": 0.1, "momentum": 0.8, "nesterov": False},
        {"lr": 0.1, "adjust": "match_rms_adamw", "weight_decay": 0.5},
        {"lr": 0.1, "iterations": 3, "coefficients": (2.0, -1.5, 0.5), "maximize": True},
    ],
    ids=str,
)
def test_the_formula(options: dict[str, Any], backend: Backend, widest: DType) -> None:
    parameters, start, gradients = made(MATRICES, backend, widest)
    stepped(Muon(parameters, **options), parameters, gradients)
    tolerance = 1e-11 if widest == np.float64 else 2e-4
    for i, (p, a) in enumerate(zip(parameters, start, strict=True)):
        of_parameter = [of_step[i].astype(np.float64) for of_step in gradients]
        wanted = expected(a.astype(np.float64), of_parameter, **options)
        assert np.abs(p.numpy() - wanted).max() <= tolerance * np.abs(wanted).max()


@pytest.mark.parametrize("options", [{}, {"adjust": "match_rms_adamw"}], ids=str)
def test_200_steps_in_float32(
    options: dict[str, Any], backend: Backend, record_deviation: Callable[..., None]
) -> None:
    """The five iterations magnify rounding in small singular values, so the tolerance is larger."""
    parameters, start, gradients = made(MATRICES, backend, np.dtype(np.float32), 200)
    stepped(Muon(parameters, **options), parameters, gradients)
    deviations = []
    for i, (p, a) in enumerate(zip(parameters, start, strict=True)):
        of_parameter = [of_step[i].astype(np.float64) for of_step in gradients]
        wanted = expected(a.astype(np.float64), of_parameter, **options)
        deviations.append(float(np.linalg.norm(p.numpy() - wanted) / np.linalg.norm(wanted)))
    record_deviation(Muon, options, "float64", backend, max(deviations))
    assert max(deviations) <= 1e-4


def test_other_parameters_are_stepped_by_adamw(backend: Backend) -> None:
    """Bit for bit, with its own learning rate and decay, next to matrices."""
    float32 = np.dtype(np.float32)
    mixed, _, gradients = made((*OTHERS, (4, 3)), backend, float32)
    alone, _, _ = made(OTHERS, backend, float32)
    lr = linear(0.1, 0.01, 5)
    stepped(
        Muon(
            mixed,
            0.5,
            adamw_lr=lr,
            adamw_weight_decay=0.25,
            adamw_betas=(0.8, 0.9),
            matrices=lambda name, p: p.ndim == 2,
        ),
        mixed,
        gradients,
    )
    adamw = AdamW(alone, lr, weight_decay=0.25, betas=(0.8, 0.9))
    stepped(adamw, alone, [of_step[:-1] for of_step in gradients])
    for p, q in zip(mixed, alone, strict=False):
        assert p.numpy().tobytes() == q.numpy().tobytes()


def test_the_order_and_other_matrices_do_not_matter(backend: Backend) -> None:
    float32 = np.dtype(np.float32)
    together, _, gradients = made(MATRICES, backend, float32)
    apart, _, _ = made(MATRICES, backend, float32)
    stepped(Muon(together, 0.1), together, gradients)
    groups = [ParameterGroup([p]) for p in reversed(apart)]
    stepped(Muon(groups, 0.1), apart, gradients)
    for p, q in zip(together, apart, strict=True):
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_refused_step_leaves_no_trace(value: float, backend: Backend) -> None:
    """Neither in matrices nor in others, wherever the bad gradient is."""
    float32 = np.dtype(np.float32)
    shapes = (*MATRICES[:2], *OTHERS)
    for victim in (0, len(shapes) - 1):
        found = []
        for is_poisoned in (False, True):
            parameters, _, gradients = made(shapes, backend, float32)
            optimizer = Muon(parameters, 0.1, nonfinite="skip")
            stepped(optimizer, parameters, gradients[:2])
            if is_poisoned:
                bad = [g.copy() for g in gradients[2]]
                bad[victim][(0,) * bad[victim].ndim] = value
                stepped(optimizer, parameters, [bad])
                assert optimizer.blamed == (f"p{victim}",)
            stepped(optimizer, parameters, gradients[3:])
            state = optimizer.state_dict()["parameters"]
            arrays = [a for entry in state.values() for a in entry["state"].values()]
            found.append([a.tobytes() for a in (*arrays, *(p.numpy() for p in parameters))])
        assert found[0] == found[1]


def layers(backend: Backend) -> list[Parameter]:
    return [
        Parameter(np.ones((9, 4)), name="table", role="embedding", backend=backend),
        Parameter(np.ones((4, 4)), name="hidden.weight", backend=backend),
        Parameter(np.ones(4), name="hidden.bias", role="bias", backend=backend),
        Parameter(np.ones((9, 4)), name="head.weight", backend=backend),
    ]


def test_the_assignment() -> None:
    optimizer = Muon(layers(NumpyBackend()), 0.02, adamw_lr=0.003)
    text = optimizer.describe()
    first, second = text.split("group 1: ")
    assert "group 0: Muon: lr=0.02, momentum=0.95, weight_decay=0.1\n" in first
    assert "hidden.weight" in first
    assert "head.weight" in first
    assert second.startswith("AdamW: lr=0.003, weight_decay=0.1, beta1=0.9, ")
    assert "table" in second
    assert "hidden.bias" in second


@pytest.mark.parametrize(
    "chosen", ["hidden.weight", lambda name, p: p.ndim == 2 and p.shape[0] == 4]
)
def test_the_user_chooses(chosen: Any) -> None:
    parameters = layers(NumpyBackend())
    assert Muon(parameters, matrices=chosen).matrices == {parameters[1].id}


def test_bad_choices_claim_nothing() -> None:
    parameters = layers(NumpyBackend())
    with pytest.raises(ValueError, match=r"'hidden.bias' of shape \(4,\) is not a matrix"):
        Muon(parameters, matrices="hidden.*")
    with pytest.raises(ValueError, match="no parameter matches the name 'hiden"):
        Muon(parameters, matrices="hiden.weight")
    with pytest.raises(ValueError, match="adjust must be 'original', 'match_rms_adamw'"):
        Muon(parameters, adjust="none")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="iterations must be 1 or more, not 0"):
        Muon(parameters, iterations=0)
    with pytest.raises(TypeError, match="momentum must be a number"):
        Muon(parameters, momentum=lambda t: 0.9)  # type: ignore[arg-type]
    assert all(p.owner is None for p in parameters)
    optimizer = Muon(parameters)
    with pytest.raises(TypeError, match="momentum must be a number"):
        optimizer.set(momentum=lambda t: 0.9)
    optimizer.set(momentum=0.5)
    assert optimizer.hyper["momentum"] == 0.5


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
    def calls(shapes: Sequence[tuple[int, ...]]) -> int:
        backend = Counting()
        parameters = [Parameter(np.ones(s), name=f"p{i}", backend=backend)
                      for i, s in enumerate(shapes)]  # fmt: skip
        optimizer = Muon(parameters)
        grads = sum(((p * p).sum() for p in parameters[1:]), (parameters[0] ** 2).sum()).backward()
        backend.calls = 0
        optimizer.step(grads)
        return backend.calls

    two = ((4, 3), (3, 4))
    assert calls(two * 6) == calls(two)
    assert calls((*two, (5, 5))) > calls(two)


def test_the_singular_values_end_near_one(backend: Backend) -> None:
    """Also for matrices of low rank; zero stays zero."""
    draw = np.random.default_rng(7)
    matrices = [draw.normal(size=(6, 9)) * 1e3, draw.normal(size=(6, 9)) * 1e-3, np.zeros((6, 9))]
    x = backend.upload(np.asarray(matrices, np.float32))
    o = orthogonalize(backend, x, factor=2.0)
    first, second, zero = np.linalg.svd(backend.download(o), compute_uv=False)
    for found in (first, second):
        assert found.min() > 2 * 0.6
        assert found.max() < 2 * 1.25
    assert not zero.any()


def test_it_learns_a_linear_map(backend: Backend) -> None:
    """The inputs are a hundred times larger in one direction than in another."""
    draw = np.random.default_rng(8)
    x = tensor(draw.normal(size=(32, 8)) * np.geomspace(0.1, 10, 8), backend=backend)
    wanted = x @ tensor(draw.normal(size=(8, 4)), backend=backend)
    w = Parameter(np.zeros((8, 4)), backend=backend)
    steps = 150
    optimizer = Muon([w], linear(0.1, 0.0, steps), weight_decay=0.0)

    def loss() -> Any:
        return ((x @ w - wanted) ** 2).mean()

    first = float(loss())
    for _ in range(steps):
        optimizer.step(loss().backward())
    assert float(loss()) < 1e-3 * first
    assert math.isfinite(float(loss()))


def test_coefficients_for_each_iteration() -> None:
    """Two equal triples are the same as one; others match two steps by hand."""
    draw = np.random.default_rng(4)
    values, target = draw.normal(size=(5, 3)), draw.normal(size=(5, 3))

    def stepped(**options: Any) -> NDArray[Any]:
        w = Parameter(values, dtype=float64, name="w")
        optimizer = Muon([w], 1.0, weight_decay=0.0, momentum=0.0, nesterov=False, **options)
        optimizer.step((w * tensor(target, dtype=float64)).sum().backward())
        step: NDArray[Any] = values - w.numpy()
        return step

    one, other = (3.0, -3.0, 1.0), (2.0, -1.5, 0.5)
    same = [stepped(iterations=2, coefficients=c) for c in (one, [one, one])]
    assert same[0].tobytes() == same[1].tobytes()
    x = target / np.linalg.norm(target)
    for a, b, c in (one, other):
        s = x.T @ x
        x = a * x + x @ (b * s + c * s @ s)
    for adjust, factor in (("original", 5 / 3), ("spectral_unclamped", 5 / 3)):
        found = stepped(iterations=2, coefficients=[one, other], adjust=adjust)
        np.testing.assert_allclose(found, np.sqrt(factor) * x, rtol=1e-12)


def test_the_unclamped_factor_of_a_wide_matrix_is_below_one() -> None:
    steps = []
    for adjust in ("original", "spectral_unclamped"):
        w = Parameter(np.eye(2, 8), dtype=float64, name="w")
        optimizer = Muon([w], 1.0, weight_decay=0.0, adjust=adjust)
        optimizer.step((w * w).sum().backward())
        steps.append(np.eye(2, 8) - w.numpy())
    np.testing.assert_allclose(steps[1], 0.5 * steps[0], rtol=1e-12)


@pytest.mark.parametrize(
    "coefficients",
    ["quintic", (1.0, 2.0), [(1.0, 2.0, 3.0)], [(1.0, 2.0)] * 5, (1.0, 2.0, float("nan"))],
)
def test_wrong_coefficients_are_refused_at_once(coefficients: Any) -> None:
    w = Parameter(np.ones((3, 2)), name="w")
    with pytest.raises(ValueError, match="coefficients"):
        Muon([w], coefficients=coefficients)
    assert w.owner is None


def test_polar_express_is_near_to_orthogonal(backend: Backend) -> None:
    """Singular values from 0.01 to 1 come close to 1 in 9 iterations; by default they do not."""
    draw = np.random.default_rng(9)
    left, right = (np.linalg.qr(draw.normal(size=(12, 12)))[0] for _ in range(2))
    matrix = (left * np.geomspace(0.01, 1, 12)) @ right
    errors = []
    given: tuple[Coefficients, ...] = (COEFFICIENTS, "polar_express")
    for coefficients in given:
        x = backend.upload(matrix[None].astype(np.float32))
        o = orthogonalize(backend, x, iterations=9, coefficients=coefficients)
        found = np.asarray(backend.download(o))[0]
        errors.append(float(np.abs(found - left @ right).max()))
    assert errors[0] > 0.01
    assert errors[1] < 2e-5


def test_coefficients_are_rows_of_an_array() -> None:
    rows = [(2.0, -1.5, 0.5), (1.5, -0.5, 0.0)]
    given: Any
    for given in (np.array(rows), [np.array(row) for row in rows]):
        assert triples(given, 2) == rows
    given = np.array(rows[0])
    assert triples(given, 2) == [rows[0]] * 2


def test_polar_express_takes_as_many_triples_as_there_are_iterations() -> None:
    assert triples("polar_express", 3) == triples("polar_express", 10)[:3]
    assert triples("polar_express", 10)[7:] == [(1.875, -1.25, 0.375)] * 3


@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw", "spectral_unclamped"])
def test_parts_are_matrices_of_their_own(adjust: Any, backend: Backend) -> None:
    draw = np.random.default_rng(5)
    values, gradient = draw.normal(size=(12, 5)), draw.normal(size=(12, 5))
    fused = [Parameter(values, name=f"{n}.qkv", backend=backend) for n in range(2)]
    apart = [Parameter(values[n : n + 4], name=f"p{n}", backend=backend) for n in (0, 4, 8)]
    both = Muon(fused, 0.1, adjust=adjust, parts={"*.qkv": 3}), Muon(apart, 0.1, adjust=adjust)
    for _ in range(3):
        for optimizer in both:
            pieces = [gradient] * 2 if len(optimizer.parameters) == 2 else np.split(gradient, 3)
            pairs = zip(optimizer.parameters, pieces, strict=True)
            parts = [(p * tensor(g, backend=backend)).sum() for p, g in pairs]
            optimizer.step(sum(parts[1:], parts[0]).backward())
    wanted = np.concatenate([p.numpy() for p in apart])
    for p in fused:
        np.testing.assert_allclose(p.numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_impossible_parts() -> None:
    w = Parameter(np.ones((6, 2)), name="w")
    with pytest.raises(ValueError, match=r"'w' of shape \(6, 2\) cannot be split into 4 matrices"):
        Muon([w], parts={"w": 4})
    with pytest.raises(ValueError, match="no parameter matches the name 'v'"):
        Muon([w], parts={"v": 2})
    assert w.owner is None


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_option_that_an_error_advises_is_taken(kind: Any) -> None:
    half = Parameter(np.ones((4, 4), np.float16), name="h")
    with pytest.raises(PrecisionError, match="Pass master_weights=True"):
        kind([half])
    assert kind([half], master_weights=True).kind == kind.__name__


def test_a_convolution_is_stepped_as_the_matrix_of_its_outputs(backend: Backend) -> None:
    draw = np.random.default_rng(6)
    values, gradient = draw.normal(size=(6, 2, 3, 3)), draw.normal(size=(6, 18))
    kernel = Parameter(values, name="kernel", backend=backend)
    matrix = Parameter(values.reshape(6, 18), name="matrix", backend=backend)
    for p, shape in ((kernel, kernel.shape), (matrix, matrix.shape)):
        optimizer = Muon([p], 0.1)
        for _ in range(2):
            optimizer.step((p * tensor(gradient.reshape(shape), backend=backend)).sum().backward())
    assert kernel.numpy().tobytes() == matrix.numpy().tobytes()
    assert not (kernel.numpy() == values.astype(np.float32)).any()


def test_the_assignment_of_parameters_with_more_axes() -> None:
    def made() -> list[Parameter]:
        return [
            Parameter(np.ones((2, 3, 2)), name="kernel"),
            Parameter(np.ones((2, 3, 2)), name="scales", role="norm"),
        ]

    parameters = made()
    assert Muon(parameters).matrices == {parameters[0].id}
    assert Muon.like("torch", made()).matrices == frozenset()
