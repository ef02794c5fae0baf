"""Gradients at which a quotient, a root or a product could go wrong in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from optimizer_table import KINDS

from rumus.optim import FusedOptimizer, Lion, RMSprop, Rprop
from rumus.tensor import Backend, Parameter, tensor


def trained(optimizer: FusedOptimizer[Any], w: Parameter, gradient: Any, steps: int = 20) -> Any:
    """The parameter after steps with the same gradient."""
    factor = tensor(np.asarray(gradient, np.float32), backend=w.backend)
    for _ in range(steps):
        optimizer.step((w * factor).sum().backward())
    return w.numpy()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_gradient_no_step(kind: type[FusedOptimizer[Any]], backend: Backend) -> None:
    """Where the gradient is 0 from the beginning nothing moves but by a decay, and stays finite."""
    w = Parameter([1.0, -2.0, 0.0], name="w", backend=backend)
    # By default, theirs. LAMB goes its whole way if only the decay says where to.
    decays = {"AdamW": 3e-4, "ASGD": 3e-4, "Muon": 3e-3, "LAMB": 0.02, "LARS": 0.06}
    decay = decays.get(kind.__name__, 0.0)
    optimizer = kind([w])  # type: ignore[call-arg]
    np.testing.assert_allclose(trained(optimizer, w, [0.0] * 3), [1.0, -2.0, 0.0], rtol=decay)
    state = optimizer.state_dict()["parameters"]["w"]["state"]
    assert all(np.isfinite(array).all() for array in state.values())


@pytest.mark.parametrize("size", [1e-18, 1e-6, 1e6, 1e18])
@pytest.mark.parametrize(
    "kind", [k for k in KINDS if not k.__name__.endswith("SGD")], ids=lambda kind: kind.__name__
)
def test_gradients_of_any_size(
    kind: type[FusedOptimizer[Any]], size: float, backend: Backend
) -> None:
    """They go down, and neither overflow nor vanish into NaN; SGD has no bound to test."""
    w = Parameter([1.0, -2.0], name="w", backend=backend)
    after = trained(kind([w]), w, [size, -size])  # type: ignore[call-arg]
    assert np.isfinite(after).all()
    assert after[0] <= 1.0
    assert after[1] >= -2.0


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_variance_does_not_fall_below_0(momentum: float, backend: Backend) -> None:
    """For a gradient that does not change, v - m^2 is 0 but for rounding of either sign."""
    draw = np.random.default_rng(0)
    w = Parameter(np.zeros(257), name="w", backend=backend)
    optimizer = RMSprop([w], alpha=0.5, eps=1.0, centered=True, momentum=momentum)
    assert np.isfinite(trained(optimizer, w, draw.normal(size=257), steps=60)).all()


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_only_the_sign_counts(size: float, backend: Backend) -> None:
    """Rprop's product of two gradients would be 0 or infinite in float32; their signs are not."""
    small, plain = (Parameter([1.0, 1.0], name=n, backend=backend) for n in ("small", "plain"))
    found = trained(Rprop([small]), small, [size, -size], steps=5)
    assert found.tolist() == trained(Rprop([plain]), plain, [1.0, -1.0], steps=5).tolist()
    a, b = (Parameter([1.0, 1.0], name=n, backend=backend) for n in "ab")
    lion = trained(Lion([a]), a, [size, -size], steps=5)
    assert lion.tolist() == trained(Lion([b]), b, [1.0, -1.0], steps=5).tolist()
