"""`backward` frees what a node kept before it reaches the next one."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from rumus.tensor import (
    Backend,
    GradientStore,
    NumpyBackend,
    Parameter,
    Tensor,
    gather,
    linear,
    tensor,
)
from rumus.tensor.graph.arena import Arena
from rumus.tensor.graph.autograd import ACCUMULATE
from rumus.tensor.graph.tensor import result_of
from rumus.tensor.memory.backend import Array


class Chain:
    """Operations that each keep an array, and check in their vjp what the others still hold."""

    def __init__(self) -> None:
        self.kept: list[weakref.ref[Any]] = []
        self.gradients: list[weakref.ref[Any]] = []
        self.alive: list[tuple[int, int]] = []  # at each vjp: kept arrays, and older gradients

    def link(self, x: Tensor, *others: Tensor) -> Tensor:
        kept, backend = np.ones(5, np.float32), x.backend
        self.kept.append(weakref.ref(kept))

        def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array]:
            older = (reference() for reference in self.gradients)
            others_alive = sum(array is not None and array is not gradient for array in older)
            self.alive.append((sum(r() is not None for r in self.kept), others_alive))
            shares = [gradient * kept for _ in (x, *others)]
            self.gradients += map(weakref.ref, shares)
            return shares

        saved = Tensor(kept, backend)
        return result_of("link", x._array.copy(), backend, (x, *others), vjp, saved=(saved,))


def test_nothing_is_kept_for_a_step_too_long() -> None:
    chain = Chain()
    x: Tensor = Parameter(np.zeros(5, np.float32), backend=NumpyBackend())
    for _ in range(6):
        x = chain.link(x)
    total = x.sum()
    del x
    total.backward()
    assert chain.alive == [(kept, 0) for kept in range(6, 0, -1)]


def test_branches_keep_only_pending_gradients() -> None:
    """y = link(a, b) with a, b = links of x: only b's gradient waits."""
    chain = Chain()
    p = Parameter(np.zeros(5, np.float32), backend=NumpyBackend())
    x = chain.link(p)
    y = chain.link(chain.link(x), chain.link(x))
    total = y.sum()
    del x, y
    total.backward()
    # Latest first: the sum's node, the two branches (one waits), and then the added gradients.
    assert chain.alive == [(4, 0), (3, 1), (2, 1), (1, 0)]


class Recorder(NumpyBackend):
    """Records the sizes of allocations, and the kernels that run."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.kernels: list[str] = []

    def allocate(self, shape: Any, dtype: Any) -> Array:
        array = super().allocate(shape, dtype)
        self.sizes.append(array.size)
        return array

    def elementwise(self, kernel: Any, *arguments: Any) -> None:
        self.kernels.append(kernel.name)
        super().elementwise(kernel, *arguments)


VOCABULARY, WIDTH = 40, 6


def tied(table: Parameter) -> Tensor:
    """A loss that looks up rows of a table, and also multiplies by the table."""
    numbers = tensor([3, 1, 3, 39], backend=table.backend)
    return linear(gather(table, numbers).tanh(), table).softmax().exp().sum()


def values(backend: Backend) -> Parameter:
    table = np.random.default_rng(0).standard_normal((VOCABULARY, WIDTH))
    return Parameter(table, backend=backend, name="table")


def test_a_tied_table_gets_the_sum_of_its_uses(backend: Backend) -> None:
    table = values(backend)
    arena = Arena([table], table.dtype, backend)
    arena.adopt()
    grads = tied(table).backward()
    assert grads.array(table) is arena.slots[0].gradient
    double = Parameter(table.numpy().astype(np.float64))
    exact = tied(double).backward()[double].numpy()
    np.testing.assert_allclose(grads[table].numpy(), exact, rtol=1e-4, atol=1e-6)


def test_a_tied_table_takes_no_second_array_and_no_addition() -> None:
    backend = Recorder()
    table = values(backend)
    arena = Arena([table], table.dtype, backend)
    arena.adopt()
    loss = tied(table)
    backend.sizes.clear()
    grads = loss.backward()
    assert VOCABULARY * WIDTH not in backend.sizes
    assert ACCUMULATE.name not in backend.kernels
    assert grads.array(table) is arena.slots[0].gradient


@pytest.mark.parametrize("looks_up_last", [False, True])
def test_a_table_that_is_used_before_and_after(looks_up_last: bool, backend: Backend) -> None:
    """Whatever the order on the tape, and in a store that already has a gradient, it is the sum."""
    table = values(backend)
    numbers = tensor([3, 1, 3, 39], backend=backend)

    def look_up() -> Tensor:
        return gather(table, numbers).tanh().sum()

    def multiply() -> Tensor:
        return (linear(tensor(np.ones((2, WIDTH), np.float32), backend=backend), table) ** 2).sum()

    uses = (multiply, look_up) if looks_up_last else (look_up, multiply)
    first, second = (use() for use in uses)
    parts = [use().backward()[table].numpy() for use in uses]
    store = GradientStore()
    loss = first + second
    loss.backward(store)
    np.testing.assert_allclose(store[table].numpy(), parts[0] + parts[1], rtol=1e-5, atol=1e-6)
    (look_up() + multiply()).backward(store)
    wanted = 2 * (parts[0] + parts[1])
    np.testing.assert_allclose(store[table].numpy(), wanted, rtol=1e-5, atol=1e-6)
