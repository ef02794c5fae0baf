"""Gradients that a vjp adds to its input's earlier ones, instead of separate additions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from rumus.tensor import (
    Backend,
    Kernel,
    NumpyBackend,
    Parameter,
    Tensor,
    layer_norm,
    rms_norm,
    tensor,
)
from rumus.tensor.graph.autograd import SoFar
from rumus.tensor.graph.tensor import result_of
from rumus.tensor.memory.backend import Array
from rumus.tensor.operations.norms import layer_norm_primitive

Function = Callable[[Tensor, Any], Tensor]


def normal(*shape: int) -> Any:
    return np.random.default_rng(3).standard_normal(shape)


PATTERNS: dict[str, Function] = {
    "a residual path": lambda x, norm: x + norm(x).tanh(),
    "three ways": lambda x, norm: x * 2.0 + norm(x).tanh() + norm(x + 1.0) * norm(x),
    "one after another": lambda x, norm: norm(x + norm(x)) + x,
    "a view of it": lambda x, norm: x.reshape(-1) + norm(x).reshape(-1) + norm(x).flatten(),
    "only the norm": lambda x, norm: norm(x),
}


@pytest.mark.parametrize("is_leaf", [True, False])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_sum_is_that_of_the_parts(pattern: str, is_leaf: bool, backend: Backend) -> None:
    gradients = []
    for norm, where, dtype in (
        (layer_norm_primitive, NumpyBackend(), np.float64),
        (layer_norm, backend, np.float32),
        (layer_norm, backend, np.float32),
    ):
        p = Parameter(normal(300, 64), dtype=dtype, backend=where)
        weights = tensor(np.cos(np.arange(300 * 64)), dtype=dtype, backend=where)
        result = PATTERNS[pattern](p if is_leaf else p * 1.0, norm)
        gradients.append((result.reshape(-1) * weights).sum().backward()[p].numpy())
    assert gradients[1].tobytes() == gradients[2].tobytes()
    np.testing.assert_allclose(gradients[1], gradients[0], rtol=2e-5, atol=2e-5)


class Counting(NumpyBackend):
    """A backend that records the names of its kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def elementwise(
        self, kernel: Kernel, arrays: Sequence[Array], scalars: Sequence[float],
        out: Sequence[Array],
    ) -> None:  # fmt: skip
        self.names.append(kernel.name)
        super().elementwise(kernel, arrays, scalars, out)


@pytest.mark.parametrize("norm", [layer_norm, rms_norm])
def test_a_residual_path_takes_no_addition(norm: Callable[[Tensor], Tensor]) -> None:
    backend = Counting()
    x = Parameter(normal(5, 6), backend=backend) * 1.0
    loss = (x + norm(x)).sum()
    backend.names.clear()
    loss.backward()
    assert not {"add", "accumulate"} & set(backend.names)


def doubled(first: Tensor, second: Tensor, seen: list[Any]) -> Tensor:
    """first + second, with a vjp that can add to both gradients."""
    backend = first.backend

    def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array]:
        seen.append([into.is_own if isinstance(into, SoFar) else None for into in destinations])
        shares = []
        for into in destinations:
            if isinstance(into, SoFar) and into.is_own:
                np.add(into.array, gradient, into.array)
                shares.append(into.array)
            else:
                shares.append(into.array + gradient if isinstance(into, SoFar) else gradient)
        return shares

    out = first._array + second._array
    return result_of("doubled", out, backend, (first, second), vjp, adding=(0, 1))


def test_a_repeated_input_is_added_to_once() -> None:
    p = Parameter([1.0, 2.0])
    x, seen = p * 1.0, list[Any]()
    result = doubled(x, x, seen) + x * 3.0
    assert result.sum().backward()[p].tolist() == [5.0, 5.0]
    assert seen == [[False, None]]


def test_only_memory_of_its_own_is_changed_in_place() -> None:
    """The gradient that `+` passes to both sides is one array."""
    p, q, seen = Parameter([1.0, 2.0]), Parameter([1.0, 2.0]), list[Any]()
    x, y = p * 1.0, q * 1.0
    result = doubled(x, doubled(x, y, seen), seen) + (x + y)
    grads = result.sum().backward()
    assert grads[p].tolist() == [3.0, 3.0]
    assert grads[q].tolist() == [2.0, 2.0]
    assert seen == [[False, None], [True, False]]


def test_a_parameter_is_added_to_in_its_slot() -> None:
    p, seen = Parameter([1.0, 2.0]), list[Any]()
    result = doubled(p, p * 2.0, seen) + p * 3.0
    grads = result.sum().backward()
    assert grads[p].tolist() == [6.0, 6.0]
    assert seen == [[True, None]]


def test_a_second_pass_adds_to_the_store() -> None:
    p = Parameter(normal(4, 6))
    grads = (p + layer_norm(p)).sum().backward()
    once = grads[p].numpy()
    (p + layer_norm(p)).sum().backward(into=grads)
    np.testing.assert_allclose(grads[p].numpy(), 2 * once, rtol=1e-6)
