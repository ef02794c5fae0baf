"""Recomputed activations: the same bits as stored activations."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rumus import nn
from rumus.tensor import (
    Backend,
    Generator,
    GraphError,
    NumpyBackend,
    Parameter,
    Tensor,
    no_grad,
    tensor,
)
from rumus.tensor.graph.autograd import Node

CPU = NumpyBackend()


def model(backend: Backend, dropout: float = 0.3) -> nn.Sequential:
    random = Generator(0)
    return nn.Sequential(
        nn.Linear(5, 8, generator=random, backend=backend),
        nn.Tanh(),
        nn.Dropout(dropout, generator=Generator(1)),
        nn.Linear(8, 5, generator=random, backend=backend),
    )


def gradients(parts: list[nn.Sequential], x: Parameter, again: bool) -> list[bytes]:
    """The gradients of x and all parameters, after two passes, to check generator positions."""
    found = []
    for _ in range(2):
        y: Tensor = x
        for part in parts:
            y = nn.checkpoint(part, y) if again else part(y)
        grads = (y * y).sum().backward()
        found += [
            grads[p].numpy().tobytes() for p in (x, *(p for m in parts for p in m.parameters()))
        ]
    return found


def test_the_gradients_are_those_of_a_plain_pass(backend: Backend) -> None:
    x = Parameter(Generator(2).normal((3, 5), backend=backend))
    kept = gradients([model(backend), model(backend)], x, again=False)
    assert gradients([model(backend), model(backend)], x, again=True) == kept


def test_a_parameter_used_inside_and_outside(backend: Backend) -> None:
    w = Parameter(Generator(2).normal((4, 4), backend=backend), name="w")
    x = Generator(3).normal((2, 4), backend=backend)

    def twice(x: Tensor) -> Tensor:
        return (x @ w).tanh() @ w

    plain = ((twice(x) @ w).sum().backward())[w].numpy()
    again = ((nn.checkpoint(twice, x) @ w).sum().backward())[w].numpy()
    np.testing.assert_allclose(again, plain, rtol=1e-5, atol=1e-6)


def nodes(result: Tensor) -> int:
    found, stack = set(), [result._node]
    while stack:
        node = stack.pop()
        if isinstance(node, Node) and node not in found:
            found.add(node)
            stack += node.inputs
    return len(found)


def test_nothing_but_the_inputs_is_kept() -> None:
    x = Parameter(Generator(2).normal((3, 5), backend=CPU))
    deep = nn.Sequential(*(nn.Tanh() for _ in range(50)))
    assert nodes(deep(x)) == 50
    assert nodes(nn.checkpoint(deep, x)) == 1


def test_generators_of_a_function_are_given() -> None:
    random = Generator(5)
    drop = nn.Dropout(0.5, generator=random)
    x = Parameter(Generator(2).normal((40,), backend=CPU))
    y = nn.checkpoint(lambda x: drop(x) * 2, x, generators=[random])
    after = random.state()
    grads = y.sum().backward()
    np.testing.assert_array_equal(grads[x].numpy() != 0, y.numpy() != 0)
    assert random.state() == after


def test_without_a_graph_it_is_a_call() -> None:
    x = tensor([1.0, 2.0], backend=CPU)
    assert not nn.checkpoint(lambda x: x * 2, x).requires_grad
    with no_grad():
        assert nn.checkpoint(lambda x: x * 2, Parameter(x)).tolist() == [2.0, 4.0]


def test_results_that_are_not_tensors_are_refused() -> None:
    wrong: Any = lambda x: (x, x)
    with pytest.raises(TypeError, match="must return a tensor"):
        nn.checkpoint(wrong, tensor([1.0], backend=CPU))


def test_a_function_that_computes_other_numbers_is_refused() -> None:
    """For example one that draws from a generator that cannot be rewound."""
    draws: list[Callable[[], float]] = [
        np.random.default_rng(0).random,
        random.Random(0).random,
        iter([1.0, 2.0]).__next__,
    ]
    for draw in draws:
        x = Parameter([1.0, 2.0], name="x", backend=CPU)
        result = nn.checkpoint(lambda x, draw=draw: x * draw(), x).sum()
        with pytest.raises(GraphError, match="different numbers the second time"):
            result.backward()
