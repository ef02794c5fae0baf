"""LAMB and LARS: their measurements of each tensor, and that none of them persist."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.optim import LAMB, LARS, ParameterGroup
from rumus.tensor import Backend, GradientStore, Parameter, tensor

Kind: TypeAlias = type[LAMB[Any]] | type[LARS[Any]]
KINDS: Final[list[Kind]] = [LAMB, LARS]
SHAPES: Final = ((3, 5), (), (64,), (65,), (7, 9), (1,))
EMPTY: Final = ((3,), (0, 4), (2,))


def made(backend: Backend, shapes: Sequence[tuple[int, ...]] = SHAPES) -> list[Parameter]:
    draw = np.random.default_rng(3)
    return [
        Parameter(draw.normal(size=shape).astype(np.float32), name=f"p{n}", backend=backend)
        for n, shape in enumerate(shapes)
    ]


def stepped(optimizer: Any, parameters: Sequence[Parameter], t: int, bad: float = 0.0) -> None:
    """A step with random gradients; `bad` is added to one element of the first."""
    draw = np.random.default_rng(t)
    store = GradientStore()
    for n, p in enumerate(parameters):
        gradient: NDArray[Any] = np.asarray(draw.normal(size=p.shape), np.float32)
        if n == 0:
            gradient[(0,) * p.ndim] += np.float32(bad)
        store.accumulate(p, tensor(gradient, backend=p.backend))
    optimizer.step(store)


def values(parameters: Sequence[Parameter]) -> list[bytes]:
    return [p.numpy().tobytes() for p in parameters]


@pytest.mark.parametrize("kind", KINDS)
def test_other_tensors_do_not_matter(kind: Kind, backend: Backend) -> None:
    """Next to others in one arena, or each in its own: bit for bit."""
    together, apart = made(backend), made(backend)
    first, second = kind(together), kind([ParameterGroup([p]) for p in apart])
    for t in range(3):
        stepped(first, together, t)
        stepped(second, apart, t)
    assert values(together) == values(apart)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_proportional_to_the_norm(kind: Kind, backend: Backend) -> None:
    """Twice the tensor, twice the step, whatever the gradient is."""
    small, large = made(backend), made(backend)
    for p in large:
        p.assign(2 * p.numpy())
    before = [p.numpy() for p in small]
    for parameters in (small, large):
        stepped(kind(parameters, 0.5, weight_decay=0.0), parameters, 0)
    for start, p, q in zip(before, small, large, strict=True):
        np.testing.assert_allclose(q.numpy() - 2 * start, 2 * (p.numpy() - start), rtol=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_without_the_ratio(kind: Kind, backend: Backend) -> None:
    """A tensor of zeros has norm 0, and moves in both."""
    w, b = made(backend, ((4, 3), (3,)))
    b.assign(np.zeros(3))
    groups = [ParameterGroup([w]), ParameterGroup([b], adapt=0, weight_decay=0)]
    stepped(kind(groups, 0.25), [w, b], 0)
    alone = made(backend, ((4, 3), (3,)))
    alone[1].assign(np.zeros(3))
    stepped(kind(alone, 0.25), alone, 0)
    assert values([w, b]) == values(alone)
    assert b.numpy().all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_refused_step_leaves_no_trace(kind: Kind, value: float, backend: Backend) -> None:
    found = []
    for is_poisoned in (False, True):
        parameters = made(backend)
        optimizer = kind(parameters, nonfinite="skip")
        for t in range(4):
            stepped(optimizer, parameters, t)
            if is_poisoned:
                stepped(optimizer, parameters, 9, bad=value)
        entries = optimizer.state_dict()["parameters"].values()
        arrays = [a.tobytes() for entry in entries for a in entry["state"].values()]
        found.append((arrays, values(parameters), optimizer.steps))
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", KINDS)
def test_propagate_computes_the_same(kind: Kind, backend: Backend) -> None:
    """The host issues the commands then, also for a GPU."""
    checked, unchecked = made(backend), made(backend)
    first, second = kind(checked, 0.1), kind(unchecked, 0.1, nonfinite="propagate")
    for t in range(3):
        stepped(first, checked, t)
        stepped(second, unchecked, t)
    for p, q in zip(checked, unchecked, strict=True):
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-6, atol=1e-7)
    stepped(second, unchecked, 9, bad=np.nan)
    assert np.isnan(unchecked[0].numpy()).all()  # its norm is NaN
    assert all(np.isfinite(p.numpy()).all() for p in unchecked[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_without_elements(kind: Kind, backend: Backend) -> None:
    parameters = made(backend, EMPTY)
    before = values(parameters)
    stepped(kind(parameters), parameters, 0)
    assert [a != b for a, b in zip(before, values(parameters), strict=True)] == [True, False, True]


@pytest.mark.parametrize("kind", KINDS)
def test_memory_is_as_planned(kind: Kind, backend: Backend) -> None:
    parameters = made(backend)
    planned = kind.planned_memory(parameters)
    assert kind(parameters).memory() == planned


@pytest.mark.parametrize("adapt", [-0.5, 1.5])
def test_adapt_is_a_share(adapt: float) -> None:
    with pytest.raises(ValueError, match="adapt"):
        LAMB([Parameter([1.0])], adapt=adapt)
