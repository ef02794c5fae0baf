"""Gradients against finite differences, for layers and losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.tensor import Backend, DType, NumpyBackend, Parameter, Tensor, float64, tensor

# Maps a dtype and a backend to parameters and a function without arguments that uses them.
Case: TypeAlias = Callable[[DType, Backend], tuple[Sequence[Parameter], Callable[[], Tensor]]]
STEP = 1e-6


class CheckGradients(Protocol):
    def __call__(self, case: Case) -> None: ...


def numerical(parameter: Parameter, loss: Callable[[], Tensor]) -> NDArray[Any]:
    """The gradient of a float64 parameter by central differences, element by element."""
    values = parameter.numpy()
    gradient = np.empty_like(values)
    for place in np.ndindex(*values.shape):
        sides = []
        for step in (STEP, -STEP):
            moved = values.copy()
            moved[place] += step
            parameter.assign(moved)
            sides.append(float(loss()))
        gradient[place] = (sides[0] - sides[1]) / (2 * STEP)
    parameter.assign(values)
    return gradient


def weighted(result: Tensor) -> Tensor:
    """A number that weights each element of a result differently."""
    weights = np.cos(np.arange(result.size)).reshape(result.shape)
    return (result * tensor(weights, dtype=result.dtype, backend=result.backend)).sum()


@pytest.fixture
def check_gradients(backend: Backend, widest: DType) -> CheckGradients:
    """Compare the gradients of `backend` with float64 finite differences on NumPy."""

    def check(case: Case) -> None:
        parameters, compute = case(widest, backend)
        grads = weighted(compute()).backward()
        reference, recompute = case(float64, NumpyBackend())
        tolerance = 1e-6 if widest == float64 else 2e-3
        for parameter, beside in zip(parameters, reference, strict=True):
            wanted = numerical(beside, lambda: weighted(recompute()))
            assert grads[parameter].dtype == widest
            np.testing.assert_allclose(
                grads[parameter].numpy(), wanted, rtol=tolerance, atol=tolerance
            )

    return check
