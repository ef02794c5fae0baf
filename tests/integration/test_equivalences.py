"""Changes that must not affect an optimizer, for every one of them, compared bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from optimizer_table import KINDS

from rumus.optim import ParameterGroup
from rumus.tensor import Backend, GradientStore, NumpyBackend, Parameter, move_parameters, tensor

SHAPES: Final = st.lists(st.sampled_from([(), (1,), (5,), (3, 4), (2, 3, 3), (70,)]), min_size=2,
                         max_size=5)  # fmt: skip
few = settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
of_every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def parameters_of(shapes: Sequence[tuple[int, ...]], backend: Backend) -> list[Parameter]:
    draw = np.random.default_rng(1)
    return [
        Parameter(draw.normal(size=shape), name=f"p{i}", backend=backend)
        for i, shape in enumerate(shapes)
    ]


def steps(optimizer: Any, parameters: Sequence[Parameter], numbers: range) -> None:
    """Steps with gradients that depend only on a parameter's name and the step number."""
    for t in numbers:
        grads = GradientStore()
        for p in parameters:
            gradient = np.random.default_rng([t, int(p.name[1:])]).normal(size=p.shape)
            grads.accumulate(p, tensor(gradient, backend=p.backend))
        optimizer.step(grads)


def bits(parameters: Sequence[Parameter]) -> dict[str, bytes]:
    return {p.name: p.numpy().tobytes() for p in parameters}


@of_every_kind
@few
@given(shapes=SHAPES, data=st.data())
def test_several_groups_are_one(kind: Any, shapes: Any, data: st.DataObject) -> None:
    together, apart = (parameters_of(shapes, NumpyBackend()) for _ in range(2))
    cut = data.draw(st.integers(1, len(shapes) - 1))
    steps(kind(together), together, range(6))
    steps(kind([ParameterGroup(apart[:cut]), ParameterGroup(apart[cut:])]), apart, range(6))
    assert bits(together) == bits(apart)


@of_every_kind
@few
@given(shapes=SHAPES, data=st.data())
def test_the_order_of_the_parameters_does_not_matter(
    kind: Any, shapes: Any, data: st.DataObject
) -> None:
    ordered, permuted = (parameters_of(shapes, NumpyBackend()) for _ in range(2))
    order = data.draw(st.permutations(range(len(shapes))))
    steps(kind(ordered), ordered, range(6))
    steps(kind([permuted[i] for i in order]), permuted, range(6))
    assert bits(ordered) == bits(permuted)


@of_every_kind
@few
@given(shapes=SHAPES, stop=st.integers(0, 6))
def test_saving_and_resuming_is_not_stopping(kind: Any, shapes: Any, stop: int) -> None:
    straight, first, second = (parameters_of(shapes, NumpyBackend()) for _ in range(3))
    steps(kind(straight), straight, range(6))
    stopped, resumed = kind(first), kind(second)
    steps(stopped, first, range(stop))
    for p, q in zip(first, second, strict=True):
        q.assign(p.numpy())
    resumed.load_state_dict(stopped.state_dict())
    steps(resumed, second, range(stop, 6))
    assert bits(straight) == bits(second)


@of_every_kind
def test_starting_on_the_cpu_makes_no_difference(kind: Any) -> None:
    """Up to rounding: both add in the same order, but compute roots differently."""
    from rumus.gpu import default_backend

    shapes = [(), (5,), (3, 4), (70,)]
    moved, there = parameters_of(shapes, NumpyBackend()), parameters_of(shapes, default_backend())
    optimizer = kind(moved)
    steps(optimizer, moved, range(3))
    move_parameters(moved, default_backend())
    steps(optimizer, moved, range(3, 6))
    steps(kind(there), there, range(6))
    for p, q in zip(moved, there, strict=True):
        close(p.numpy(), q.numpy())


def close(found: NDArray[Any], wanted: NDArray[Any]) -> None:
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)
