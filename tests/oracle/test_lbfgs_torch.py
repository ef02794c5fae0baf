"""LBFGS against PyTorch's with its strong Wolfe search: the same iterates, in float64."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pytest
import torch

from rumus.optim import LBFGS
from rumus.tensor import NumpyBackend, Parameter, Tensor, float64, tensor

DRAW: Final = np.random.default_rng(6)
MATRIX: Final = DRAW.normal(size=(30, 12)) * np.geomspace(0.1, 3, 12)
TARGET: Final = DRAW.normal(size=30)


def rosenbrock(w: Any) -> Any:
    x, y = w[:-1], w[1:]
    return (100 * (y - x**2) ** 2 + (1 - x) ** 2).sum()


def our_least_squares(w: Tensor) -> Tensor:
    matrix, target = (tensor(a, dtype=float64, backend=w.backend) for a in (MATRIX, TARGET))
    return ((matrix @ w - target) ** 2).sum()


def their_least_squares(w: torch.Tensor) -> torch.Tensor:
    return ((torch.from_numpy(MATRIX) @ w - torch.from_numpy(TARGET)) ** 2).sum()


PROBLEMS: Final[dict[str, tuple[Any, Any, Any]]] = {
    "Rosenbrock, 2": (rosenbrock, rosenbrock, np.array([-1.2, 1.0])),
    "Rosenbrock, 8": (rosenbrock, rosenbrock, np.linspace(-1.5, 1.5, 8)),
    "least squares": (our_least_squares, their_least_squares, np.zeros(12)),
}


@pytest.mark.parametrize("problem", list(PROBLEMS))
@pytest.mark.parametrize(
    "options",
    [{}, {"max_iter": 1}, {"max_iter": 3, "history_size": 3, "lr": 0.5}, {"max_eval": 7}],
    ids=str,
)
def test_the_iterates(problem: str, options: dict[str, Any]) -> None:
    """Rounding differences grow along a curved valley, so the tolerance grows with the steps."""
    our_loss, their_loss, start = PROBLEMS[problem]
    ours = Parameter(start, name="w", dtype=float64, backend=NumpyBackend())
    theirs = torch.nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = LBFGS([ours], **options)
    other = torch.optim.LBFGS([theirs], line_search_fn="strong_wolfe", **options)

    def closure() -> torch.Tensor:
        other.zero_grad()
        loss: torch.Tensor = their_loss(theirs)
        loss.backward()
        return loss

    first = float(our_loss(ours))
    for _ in range(8):
        found = float(optimizer.minimize_step(lambda: our_loss(ours)))
        wanted = float(other.step(closure).detach())
        assert abs(found - wanted) <= 1e-7 * first
        np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=1e-5, atol=1e-6)
