"""Clipping within the update: `clip=` against NumPy in float64, and the laws."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rumus.optim import (
    AGC,
    SGD,
    AdaGC,
    AdamW,
    Clip,
    ClipNorm,
    ClipValue,
    FusedOptimizer,
    ParameterGroup,
    ScheduleFreeSGD,
    ZClip,
    clip_grad_norm,
)
from rumus.tensor import (
    Backend,
    GradientStore,
    NonFiniteGradientError,
    NumpyBackend,
    Parameter,
    float16,
    tensor,
)

Real = NDArray[Any]
SHAPES: Final = ((), (7,), (3, 5), (2, 3, 4), (65,))
CLIPS: Final[Sequence[Clip]] = (
    ClipNorm(0.7), ClipNorm(1e3), ClipNorm(math.inf), ClipNorm(0.7, per="group"),
    ClipNorm(0.7, per="tensor"), ClipValue(0.3), AGC(0.02), AGC(10.0),
)  # fmt: skip
quick = settings(
    deadline=None,
    max_examples=8,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def parameters_on(
    backend: Backend, seed: int, shapes: Sequence[tuple[int, ...]] = SHAPES
) -> list[Parameter]:
    draw = np.random.default_rng(seed)
    return [Parameter(draw.normal(size=s), name=f"p{i}", backend=backend, dtype=np.float32)
            for i, s in enumerate(shapes)]  # fmt: skip


def store_of(parameters: Sequence[Parameter], gradients: Sequence[Real]) -> GradientStore:
    store = GradientStore()
    for p, g in zip(parameters, gradients, strict=True):
        store.accumulate(p, tensor(g, backend=p.backend, dtype=np.float32))
    return store


def clipped(clip: Clip, weights: Sequence[Real], gradients: Sequence[Real]) -> list[Real]:
    """The formulas in float64; the first two tensors are a group."""
    if isinstance(clip, ClipValue):
        return [np.clip(g, -clip.max_value, clip.max_value) for g in gradients]
    if isinstance(clip, AGC):
        return [_adaptive(clip, w, g) for w, g in zip(weights, gradients, strict=True)]
    assert isinstance(clip, ClipNorm)
    number = len(gradients)
    cuts = {"all": [0, number], "group": [0, 2, number], "tensor": list(range(number + 1))}[
        clip.per
    ]
    found: list[Real] = []
    for start, stop in pairwise(cuts):
        part = gradients[start:stop]
        norm = math.sqrt(sum(float((g * g).sum()) for g in part))
        found += [g * min(1.0, clip.max_norm / (norm + clip.eps)) for g in part]
    return found


def _adaptive(clip: AGC, w: Real, g: Real) -> Real:
    if w.ndim < 2:
        norms = np.array([np.linalg.norm(w), np.linalg.norm(g)])
        limit = clip.clipping * max(norms[0], clip.eps)
        scaled: Real = g * min(1.0, limit / norms[1])
        return scaled
    return np.stack([_adaptive(clip, a.ravel(), b.ravel()).reshape(a.shape)
                     for a, b in zip(w, g, strict=True)])  # fmt: skip


def make(clip: Clip | None, parameters: list[Parameter], **options: Any) -> SGD:
    groups = [ParameterGroup(parameters[:2]), ParameterGroup(parameters[2:])]
    return SGD(groups, 1.0, clip=clip, **options)


@pytest.mark.parametrize("clip", CLIPS, ids=repr)
@given(seed=st.integers(0, 2**16))
@quick
def test_the_update_uses_the_clipped_gradient(backend: Backend, clip: Clip, seed: int) -> None:
    parameters = parameters_on(backend, seed)
    optimizer = make(clip, parameters)
    draw = np.random.default_rng([seed, 1])
    for _ in range(2):
        weights = [p.numpy().astype(np.float64) for p in parameters]
        gradients = [np.array(draw.normal(size=s)).astype(np.float32).astype(float) for s in SHAPES]
        optimizer.step(store_of(parameters, gradients))
        wanted = clipped(clip, weights, gradients)
        for p, w, g in zip(parameters, weights, wanted, strict=True):
            np.testing.assert_allclose(p.numpy(), w - g, rtol=1e-6, atol=1e-6)
        if not isinstance(clip, ClipValue):
            norm = math.sqrt(sum(float((g * g).sum()) for g in gradients))
            assert optimizer.grad_norm.item() == pytest.approx(norm, rel=1e-6)
            assert optimizer.grad_norm.shape == ()


def test_a_large_update_equals_clipping_first(backend: Backend) -> None:
    """At sizes for which kernels run in blocks, in loops and on several threads."""
    runs = []
    for folded in (True, False):
        parameters = parameters_on(backend, 3, ((301, 333), (70_001,)))
        optimizer = AdamW(parameters, 0.1, clip=ClipNorm(1.0) if folded else None)
        for t in range(3):
            draw = np.random.default_rng(t)
            store = store_of(parameters, [draw.normal(size=p.shape) for p in parameters])
            if not folded:
                clip_grad_norm(store, optimizer, 1.0)
            optimizer.step(store)
        runs.append([p.numpy() for p in parameters])
    for one, other in zip(*runs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("per", ["all", "group", "tensor"])
@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e30])
def test_a_non_finite_norm_is_refused(backend: Backend, per: Any, poison: float) -> None:
    parameters = parameters_on(backend, 0)
    optimizer = make(ClipNorm(1.0, per=per), parameters)
    before = [p.numpy().tobytes() for p in parameters]
    gradients = [np.ones(s, np.float32) for s in SHAPES]
    gradients[2][1, 2] = poison
    store = store_of(parameters, gradients)

    def step() -> None:
        optimizer.step(store)
        optimizer.poll(wait=True)

    with pytest.raises(NonFiniteGradientError, match="'p2' hold NaN"):
        step()
    assert [p.numpy().tobytes() for p in parameters] == before
    assert optimizer.steps == 0
    optimizer.step(store_of(parameters, [np.ones(s, np.float32) for s in SHAPES]))
    assert optimizer.steps == 1


@pytest.mark.parametrize(
    "clip", [ClipNorm(1.0), ClipNorm(1.0, per="tensor"), AGC(), ClipValue(1.0)], ids=repr
)
def test_a_skipped_batch_leaves_no_trace(backend: Backend, clip: Clip) -> None:
    runs = []
    for bad in (True, False):
        parameters = parameters_on(backend, 0)
        optimizer = make(clip, parameters, nonfinite="skip")
        good = [np.full(s, 2.0, np.float32) for s in SHAPES]
        optimizer.step(store_of(parameters, good))
        if bad:
            optimizer.step(store_of(parameters, [*good[:4], np.full(SHAPES[4], np.nan)]))
        optimizer.step(store_of(parameters, good))
        assert optimizer.skipped == int(bad)
        assert optimizer.blamed == (("p4",) if bad else ())
        runs.append([p.numpy().tobytes() for p in parameters])
    assert runs[0] == runs[1]


def test_propagate_applies_any_gradient(backend: Backend) -> None:
    parameters = parameters_on(backend, 0)
    optimizer = make(ClipNorm(1.0), parameters, nonfinite="propagate")
    gradients = [np.zeros(s, np.float32) for s in SHAPES]
    gradients[1][0] = math.nan
    before = [p.numpy() for p in parameters]
    optimizer.step(store_of(parameters, gradients))
    for number, (p, was) in enumerate(zip(parameters, before, strict=True)):
        assert np.isnan(p.numpy()).sum() == (number == 1)
        assert number == 1 or (p.numpy() == was).all()


@pytest.mark.parametrize("per", ["all", "group", "tensor"])
@pytest.mark.parametrize("large", [1e25, 1e30, 3e38])
def test_propagate_clips_by_a_norm_whose_square_overflows(
    per: Any, large: float, backend: Backend
) -> None:
    first, second = parameters_on(backend, 0, ((3,), (400,)))
    gradients = [np.array([large, 2, 0], np.float32), np.full(400, 2, np.float32)]
    owned = [ParameterGroup([first]), ParameterGroup([second])]
    optimizer = SGD(owned, 1.0, clip=ClipNorm(1.0, per=per), nonfinite="propagate")
    before = [p.numpy() for p in (first, second)]
    optimizer.step(store_of([first, second], gradients))
    moved = [was - p.numpy() for p, was in zip((first, second), before, strict=True)]
    np.testing.assert_allclose(moved[0], [1, 0, 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(moved[1], 0 if per == "all" else 0.05, rtol=1e-4, atol=1e-6)
    assert optimizer.grad_norm.item() == pytest.approx(large, rel=1e-5)


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_propagate_of_an_infinite_norm_and_of_none(bad: float, backend: Backend) -> None:
    first, second = parameters_on(backend, 0, ((3,), (4,)))
    optimizer = SGD([first, second], 1.0, clip=ClipNorm(1.0), nonfinite="propagate")
    before = [p.numpy() for p in (first, second)]
    optimizer.step(store_of([first, second], [np.array([bad, 2, 0]), np.full(4, 2.0)]))
    moved = [was - p.numpy() for p, was in zip((first, second), before, strict=True)]
    kept = 2 if math.isnan(bad) else 0  # a NaN norm limits nothing
    assert np.isnan(moved[0][0])
    np.testing.assert_allclose(moved[0][1:], [kept, 0], rtol=1e-5)
    np.testing.assert_allclose(moved[1], kept, rtol=1e-5)
    np.testing.assert_equal(optimizer.grad_norm.item(), bad)


def test_propagate_clips_float64_by_norms_beyond_it() -> None:
    w = Parameter(np.zeros(3), name="w", dtype=np.float64, backend=NumpyBackend())
    optimizer = SGD([w], 1.0, clip=ClipNorm(1.0), nonfinite="propagate")
    store = GradientStore()
    store.accumulate(w, tensor(np.array([3e200, -4e200, 0]), dtype=np.float64, backend=w.backend))
    optimizer.step(store)
    np.testing.assert_allclose(w.numpy(), [-0.6, 0.8, 0], rtol=1e-12)
    assert optimizer.grad_norm.item() == pytest.approx(5e200)


def test_optional_groups_count_where_they_are_there(backend: Backend) -> None:
    first, second = parameters_on(backend, 0, ((3,), (4,)))
    groups = [ParameterGroup([first]), ParameterGroup([second], optional=True)]
    optimizer = SGD(groups, 1.0, clip=ClipNorm(1.0))
    optimizer.step(store_of([first], [np.array([0.0, 3.0, 0.0])]))
    assert optimizer.grad_norm.item() == 3
    optimizer.step(store_of([first, second], [np.array([0, 3.0, 0]), np.array([0, 0, 4.0, 0])]))
    assert optimizer.grad_norm.item() == 5


def test_moving_keeps_the_clipping(backend: Backend) -> None:
    parameters = parameters_on(backend, 0)
    clip = ClipNorm(1.0, per="tensor")
    optimizer = make(clip, parameters)
    ones = [np.ones(s, np.float32) for s in SHAPES]
    optimizer.step(store_of(parameters, ones))
    optimizer.move(parameters, NumpyBackend())
    before = [p.numpy() for p in parameters]
    optimizer.step(store_of(parameters, ones))
    wanted = clipped(clip, before, ones)
    for p, was, g in zip(parameters, before, wanted, strict=True):
        np.testing.assert_allclose(p.numpy(), was - g, rtol=1e-6, atol=1e-6)


def test_groups_on_two_backends_have_one_norm(backend: Backend) -> None:
    first = parameters_on(backend, 0, ((3,),))
    second = parameters_on(NumpyBackend(), 0, ((3,),))
    groups = [ParameterGroup(first), ParameterGroup(second)]
    optimizer = SGD(groups, 1.0, clip=ClipNorm(1.0, eps=0))
    before = first[0].numpy()
    optimizer.step(store_of([*first, *second], [np.array([3.0, 0, 0]), np.array([0, 4.0, 0])]))
    assert optimizer.grad_norm.item() == 5
    np.testing.assert_allclose(first[0].numpy(), before - [0.6, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(second[0].numpy(), before - [0, 0.8, 0], rtol=1e-6)


def test_a_change_of_decay_keeps_the_clipping(backend: Backend) -> None:
    (w,) = parameters_on(backend, 0, ((3,),))
    w.assign(np.ones(3))
    optimizer = SGD([w], 1.0, clip=ClipNorm(1.0, eps=0))
    optimizer.set(weight_decay=0.5)
    optimizer.step(store_of([w], [np.array([0.0, 4.0, 0.0])]))
    np.testing.assert_allclose(w.numpy(), [0.5, -0.5, 0.5], rtol=1e-6)


def halves_on(backend: Backend, gradients: Sequence[Real]) -> tuple[list[Parameter], GradientStore]:
    """float16 parameters, and a store with these gradients."""
    draw, store = np.random.default_rng(2), GradientStore()
    found = [
        Parameter(draw.normal(size=g.shape), name=f"p{i}", backend=backend, dtype=float16)
        for i, g in enumerate(gradients)
    ]
    for p, g in zip(found, gradients, strict=True):
        store.accumulate(p, tensor(g, backend=backend, dtype=float16))
    return found, store


@pytest.mark.parametrize("clip", CLIPS, ids=repr)
def test_master_weights_are_stepped_by_the_clipped_gradient(backend: Backend, clip: Clip) -> None:
    """The squares of these gradients are far beyond float16's range."""
    draw = np.random.default_rng(1)
    gradients = [np.float16(draw.normal(size=s) * 1000).astype(float) for s in SHAPES]
    parameters, store = halves_on(backend, gradients)
    before = [p.numpy().astype(float) for p in parameters]
    optimizer = make(clip, parameters, master_weights=True)
    optimizer.step(store)
    masters = optimizer.state_dict()["parameters"]
    for p, w, g in zip(parameters, before, clipped(clip, before, gradients), strict=True):
        master = masters[p.name]["state"]["master"]
        np.testing.assert_allclose(master, w - g, rtol=1e-6, atol=1e-6)
        assert (p.numpy() == master.astype(np.float16)).all()


def test_units_with_small_float16_values_are_distinguished(backend: Backend) -> None:
    """In float16 the squares of these gradients are 0."""
    gradients = [np.full((2, 64), 2.0**-14), np.full((70,), 2.0**-14)]
    parameters, store = halves_on(backend, gradients)
    for p in parameters:
        p.assign(np.zeros(p.shape))
    clip = AGC(0.01, eps=1e-3)
    optimizer = SGD(parameters, 1.0, clip=clip, master_weights=True)
    optimizer.step(store)
    masters = optimizer.state_dict()["parameters"]
    zeros = [np.zeros(p.shape) for p in parameters]
    for p, g in zip(parameters, clipped(clip, zeros, gradients), strict=True):
        assert np.abs(g).max() < 2.0**-15
        np.testing.assert_allclose(masters[p.name]["state"]["master"], -g, rtol=1e-6)


def test_parameters_without_elements(backend: Backend) -> None:
    for clip in (ClipNorm(1.0, per="tensor"), ClipNorm(1.0), AGC()):
        parameters = parameters_on(backend, 0, ((0,), (3,), (0, 4)))
        optimizer = SGD(parameters, 1.0, clip=clip)
        before = parameters[1].numpy()
        optimizer.step(store_of(parameters, [np.full(p.shape, 3.0) for p in parameters]))
        assert (parameters[1].numpy() < before).all()
        assert optimizer.grad_norm.item() == pytest.approx(math.sqrt(27))


def test_memory_is_what_was_planned() -> None:
    clips = (ClipNorm(1.0), ClipNorm(1.0, per="tensor"), ClipValue(1.0), AGC(), ZClip(), AdaGC())
    for clip in (*clips, None):
        for dtype in (np.float32, np.float64, np.float16):
            parameters = [Parameter(np.ones((70, 3)), dtype=dtype), Parameter([1.0], dtype=dtype)]
            options: dict[str, Any] = {"clip": clip, "master_weights": dtype == np.float16}
            planned = AdamW.planned_memory(parameters, 0.1, **options)
            assert AdamW(parameters, 0.1, **options).memory() == planned


BAD: Final[Sequence[tuple[Callable[[], object], str]]] = (
    (lambda: ClipNorm(0.0), "max_norm"),
    (lambda: ClipNorm(math.nan), "max_norm"),
    (lambda: ClipNorm(1.0, eps=-1.0), "eps"),
    (lambda: ClipNorm(1.0, per="layer"), "per must be"),  # type: ignore[arg-type]
    (lambda: ClipValue(math.inf), "max_value"),
    (lambda: AGC(-0.1), "clipping"),
    (lambda: AGC(0.1, eps=0.0), "eps"),
)


@pytest.mark.parametrize(("make_clip", "message"), BAD)
def test_bad_limits(make_clip: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_clip()


def test_a_missing_norm() -> None:
    optimizers: list[FusedOptimizer[Any]] = [
        SGD([Parameter([1.0])], 1.0),
        ScheduleFreeSGD([Parameter([1.0])], 1.0, clip=ClipValue(1.0)),
    ]
    for optimizer in optimizers:
        with pytest.raises(ValueError, match="computes no norm"):
            _ = optimizer.grad_norm
    with pytest.raises(ValueError, match="has not done a step yet"):
        _ = SGD([Parameter([1.0])], 1.0, clip=ClipNorm(1.0)).grad_norm
