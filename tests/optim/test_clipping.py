"""Clipping: exactly the owned gradients, and all or nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rumus.optim import SGD, ParameterGroup, clip_grad_norm, clip_grad_value
from rumus.tensor import (
    Backend,
    DrainedGradientError,
    GradientStore,
    MissingGradientError,
    NonFiniteGradientError,
    OwnershipError,
    Parameter,
    Tensor,
    tensor,
)

SHAPES: Final = ((), (1,), (7,), (3, 5), (65,), (130, 129))
quick = settings(
    deadline=None,
    max_examples=25,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
CLIPS: Final[dict[str, Callable[..., object]]] = {"norm": clip_grad_norm, "value": clip_grad_value}


def problem(backend: Backend, seed: int = 0) -> tuple[list[Parameter], list[Any], Tensor]:
    """Parameters, their later gradients, and the loss."""
    draw = np.random.default_rng(seed)
    parameters = [
        Parameter(draw.normal(size=s), name=f"p{i}", backend=backend) for i, s in enumerate(SHAPES)
    ]
    gradients = [draw.normal(size=s).astype(np.float32) for s in SHAPES]
    pairs = zip(parameters, gradients, strict=True)
    parts = [(p * tensor(g, backend=backend)).sum() for p, g in pairs]
    return parameters, gradients, sum(parts[1:], parts[0])


@given(seed=st.integers(0, 2**16), owned=st.integers(1, 6), limit=st.floats(1e-3, 1e3))
@quick
def test_norm(backend: Backend, seed: int, owned: int, limit: float) -> None:
    parameters, gradients, loss = problem(backend, seed)
    optimizer, store = SGD(parameters[:owned], 0.1), loss.backward()
    norm = clip_grad_norm(store, optimizer, limit)
    flat = np.concatenate([g.reshape(-1) for g in gradients[:owned]]).astype(np.float64)
    wanted = float(np.linalg.norm(flat))
    assert float(norm) == pytest.approx(wanted, rel=1e-6)
    factor = min(1.0, limit / (wanted + 1e-6))
    for i, (p, g) in enumerate(zip(parameters, gradients, strict=True)):
        scaled = g * factor if i < owned else g
        np.testing.assert_allclose(store[p].numpy(), scaled, rtol=2e-6)
        assert i < owned or (store[p].numpy() == g).all()


@given(seed=st.integers(0, 2**16), owned=st.integers(1, 6), limit=st.floats(1e-3, 4.0))
@quick
def test_value(backend: Backend, seed: int, owned: int, limit: float) -> None:
    parameters, gradients, loss = problem(backend, seed)
    optimizer, store = SGD(parameters[:owned], 0.1), loss.backward()
    clip_grad_value(store, optimizer, limit)
    for i, (p, g) in enumerate(zip(parameters, gradients, strict=True)):
        edge = np.float32(limit)
        assert (store[p].numpy() == (np.clip(g, -edge, edge) if i < owned else g)).all()


def test_below_the_limit_nothing_changes(backend: Backend) -> None:
    w = Parameter([3.0, 4.0], name="w", backend=backend)
    optimizer = SGD([w], 0.1)
    store = (w * tensor([3.0, 4.0], backend=backend)).sum().backward()
    assert float(clip_grad_norm(store, optimizer, 5.1)) == 5.0
    assert store[w].tolist() == [3.0, 4.0]
    assert float(clip_grad_norm(store, optimizer, 2.5, eps=0.0)) == 5.0
    assert store[w].tolist() == [1.5, 2.0]
    clip_grad_value(store, optimizer, 1.75)
    assert store[w].tolist() == [1.5, 1.75]


def test_a_norm_of_zero(backend: Backend) -> None:
    w = Parameter([1.0], name="w", backend=backend)
    optimizer = SGD([w], 0.1)
    store = (w * 0.0).sum().backward()
    assert float(clip_grad_norm(store, optimizer, 1.0, eps=0.0)) == 0.0
    assert store[w].tolist() == [0.0]


@pytest.mark.parametrize("clip", list(CLIPS))
def test_a_tied_parameter_counts_once(clip: str, backend: Backend) -> None:
    w = Parameter([3.0], name="w", backend=backend)
    optimizer = SGD([w], 0.1)
    store = (w * 1.0 + w * 3.0).sum().backward()
    CLIPS[clip](store, optimizer, 2.0)
    assert store[w].item() == pytest.approx(2.0, rel=1e-6)


def test_accumulated_gradients_and_memory_that_is_not_the_arena(backend: Backend) -> None:
    """A second store has its own memory while the first is alive; it is clipped as well."""
    w, v = (Parameter([1.0, 1.0], name=n, backend=backend) for n in "wv")
    optimizer = SGD([w, v], 1.0)
    first = (w * 3.0 + v * 0.0).sum().backward()
    second = (w * 1.0 + v * 1.0).sum().backward()
    (w * 2.0 + v * 2.0).sum().backward(into=second)
    assert second[w].tolist() == [3.0, 3.0]
    assert float(clip_grad_norm(second, optimizer, 3.0, eps=0.0)) == 6.0
    assert [second[p].tolist() for p in (w, v)] == [[1.5, 1.5], [1.5, 1.5]]
    assert first[w].tolist() == [3.0, 3.0]
    optimizer.step(second)
    assert [p.tolist() for p in (w, v)] == [[-0.5, -0.5], [-0.5, -0.5]]
    assert first[w].tolist() == [3.0, 3.0]


def test_accumulation_over_several_batches_is_the_gradient_of_the_sum(backend: Backend) -> None:
    parameters, _, loss = problem(backend)
    again, _, other = problem(backend)
    optimizer, reference = SGD(parameters, 0.1), SGD(again, 0.1)
    store = GradientStore()
    loss.backward(into=store)
    (2.0 * sum((p.sum() for p in parameters[1:]), parameters[0].sum())).backward(into=store)
    whole = (other + 2.0 * sum((p.sum() for p in again[1:]), again[0].sum())).backward()
    norm, wanted = clip_grad_norm(store, optimizer, 1.0), clip_grad_norm(whole, reference, 1.0)
    assert float(norm) == pytest.approx(float(wanted), rel=1e-6)
    optimizer.step(store)
    reference.step(whole)
    for p, q in zip(parameters, again, strict=True):
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_a_non_finite_norm_is_named(value: float, backend: Backend) -> None:
    """Immediately if the host sees it, otherwise by the step; a number's square may overflow."""
    parameters, gradients, loss = problem(backend)
    optimizer, store = SGD(parameters, 0.1), loss.backward()
    store.accumulate(parameters[2], tensor(np.full(7, value, np.float32), backend=backend))
    before = [p.numpy() for p in parameters]

    def clip() -> None:
        norm = clip_grad_norm(store, optimizer, 1e-3)
        assert backend.runs_ahead
        optimizer.step(store)
        assert not np.isfinite(norm.numpy())

    with pytest.raises(NonFiniteGradientError, match="p2") as caught:
        clip()
    assert "p3" not in str(caught.value)
    assert all((p.numpy() == q).all() for p, q in zip(parameters, before, strict=True))
    if not backend.runs_ahead:
        pairs = zip(parameters, gradients, strict=True)
        assert all((store[p].numpy() == g).all() for i, (p, g) in enumerate(pairs) if i != 2)


def test_unowned_gradients_may_be_anything(backend: Backend) -> None:
    parameters, gradients, loss = problem(backend)
    optimizer, store = SGD(parameters[1:], 0.1), loss.backward()
    store.accumulate(parameters[0], tensor(np.nan, backend=backend))
    norm = clip_grad_norm(store, optimizer, 1.0)
    wanted = np.linalg.norm(np.concatenate([g.reshape(-1) for g in gradients[1:]]))
    assert float(norm) == pytest.approx(float(wanted), rel=1e-6)


@pytest.mark.parametrize("clip", list(CLIPS))
@pytest.mark.parametrize(
    ("limit", "error"),
    [
        (0.0, ValueError),
        (-1.0, ValueError),
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        ("1", TypeError),
        (True, TypeError),
        (None, TypeError),
    ],
)
def test_limits(clip: str, limit: Any, error: type[Exception], backend: Backend) -> None:
    if (clip, limit) == ("norm", float("inf")):
        return  # infinity only measures
    parameters, gradients, loss = problem(backend)
    optimizer, store = SGD(parameters, 0.1), loss.backward()
    with pytest.raises(error, match=f"max_{clip}"):
        CLIPS[clip](store, optimizer, limit)
    assert all((store[p].numpy() == g).all() for p, g in zip(parameters, gradients, strict=True))


def test_an_infinite_norm_only_measures(backend: Backend) -> None:
    parameters, gradients, loss = problem(backend)
    optimizer, store = SGD(parameters, 0.1), loss.backward()
    norm = clip_grad_norm(store, optimizer, float("inf"))
    exact = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradients))
    assert float(norm) == pytest.approx(exact, rel=1e-6)
    assert all((store[p].numpy() == g).all() for p, g in zip(parameters, gradients, strict=True))


@pytest.mark.parametrize("eps", [-1.0, float("nan"), float("inf")])
def test_eps(eps: float, backend: Backend) -> None:
    parameters, _, loss = problem(backend)
    with pytest.raises(ValueError, match="eps"):
        clip_grad_norm(loss.backward(), SGD(parameters, 0.1), 1.0, eps=eps)


@pytest.mark.parametrize("clip", list(CLIPS))
def test_missing_gradients(clip: str, backend: Backend) -> None:
    parameters, gradients, loss = problem(backend)
    extra = Parameter([1.0], name="extra", backend=backend)
    optimizer, store = SGD([*parameters, extra], 0.1), loss.backward()
    with pytest.raises(MissingGradientError, match="extra"):
        CLIPS[clip](store, optimizer, 1e-3)
    assert all((store[p].numpy() == g).all() for p, g in zip(parameters, gradients, strict=True))
    optimizer.release()
    with pytest.raises(OwnershipError, match="released"):
        CLIPS[clip](store, optimizer, 1e-3)
    second = SGD([ParameterGroup(parameters), ParameterGroup([extra], optional=True)], 0.1)
    CLIPS[clip](store, second, 1e-3)
    second.step(store)
    with pytest.raises(DrainedGradientError, match="SGD"):
        CLIPS[clip](store, second, 1e-3)
