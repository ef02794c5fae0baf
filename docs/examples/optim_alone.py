"""A regression on NumPy data, with only rumus-tensor and rumus-optim.

    pip install rumus-optim
    python docs/examples/optim_alone.py     a second

The best linear model is known in closed form: the least squares solution. Gradient descent must
find the same numbers, or the program fails.
"""

from __future__ import annotations

import sys

import numpy as np

from rumus.optim import SGD
from rumus.tensor import Parameter, tensor

SAMPLES, FEATURES, STEPS = 500, 6, 300


def main() -> int:
    """Fit, compare, and return the exit code: 0 if both solutions agree."""
    random = np.random.default_rng(0)
    x = random.normal(size=(SAMPLES, FEATURES))
    y = x @ random.normal(size=FEATURES) + 0.7 + 0.3 * random.normal(size=SAMPLES)

    inputs, targets = tensor(x), tensor(y)  # converted to float32
    weights = Parameter(np.zeros(FEATURES), name="weights")
    offset = Parameter(0.0, name="offset")
    optimizer = SGD([weights, offset], lr=0.1, momentum=0.5)
    for step in range(1, STEPS + 1):
        loss = ((inputs @ weights + offset - targets) ** 2).mean()
        with loss.backward() as grads:
            optimizer.step(grads)
        if step in (1, 10, 100, STEPS):
            print(f"step {step:3}   mean squared error {loss.item():.6f}")

    exact, *_ = np.linalg.lstsq(np.column_stack([x, np.ones(SAMPLES)]), y, rcond=None)
    found = np.append(weights.numpy(), offset.numpy())
    difference = float(np.abs(found - exact).max())
    print("least squares:", np.round(exact, 4))
    print("found:        ", np.round(found.astype(np.float64), 4))
    print(f"largest difference {difference:.1e}")
    return 0 if difference < 1e-5 else 1


if __name__ == "__main__":
    sys.exit(main())
