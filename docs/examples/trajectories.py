"""The path that each optimizer takes through Rosenbrock's valley, as one picture.

    pip install rumus matplotlib
    python docs/examples/trajectories.py trajectories.png     ten seconds

All start at (-1.5, 1.5); the minimum is at (1, 1). The learning rates are not the defaults, which
suit networks, but values that make good progress here in 400 steps. Each optimizer owns one
parameter with two elements. Gradients are clipped to a norm of 10. Muon is missing, since it steps
only matrices.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from rumus import optim
from rumus.tensor import Parameter, float64

matplotlib.use("Agg")
from matplotlib import pyplot

STEPS = 400
OPTIMIZERS: dict[str, Callable[[list[Parameter]], Any]] = {
    "SGD": lambda p: optim.SGD(p, 2e-3),
    "SGD, momentum": lambda p: optim.SGD(p, 1e-3, momentum=0.9),
    "SGD, Nesterov": lambda p: optim.SGD(p, 1e-3, momentum=0.9, nesterov=True),
    "ASGD": lambda p: optim.ASGD(p, 2e-3),
    "schedule-free SGD": lambda p: optim.ScheduleFreeSGD(p, 0.01),
    "Rprop": lambda p: optim.Rprop(p, 0.01),
    "Adagrad": lambda p: optim.Adagrad(p, 0.5),
    "Adadelta": lambda p: optim.Adadelta(p, 50.0),
    "RMSprop": lambda p: optim.RMSprop(p, 0.01),
    "Adam": lambda p: optim.Adam(p, 0.1),
    "AMSGrad": lambda p: optim.Adam(p, 0.1, amsgrad=True),
    "AdamW": lambda p: optim.AdamW(p, 0.1),
    "Adamax": lambda p: optim.Adamax(p, 0.1),
    "NAdam": lambda p: optim.NAdam(p, 0.1),
    "RAdam": lambda p: optim.RAdam(p, 0.1),
    "AdaBelief": lambda p: optim.AdaBelief(p, 0.1),
    "Yogi": lambda p: optim.Yogi(p, 0.1),
    "Adan": lambda p: optim.Adan(p, 0.1),
    "ADOPT": lambda p: optim.ADOPT(p, 0.1),
    "LAMB": lambda p: optim.LAMB(p, 0.1, weight_decay=0.0),
    "LARS": lambda p: optim.LARS(p, 1.0, trust_coefficient=5e-3, weight_decay=0.0),
    "Adafactor": lambda p: optim.Adafactor(p, 0.5, eps=(None, 0.5)),
    "Lion": lambda p: optim.Lion(p, 0.02),
    "schedule-free AdamW": lambda p: optim.ScheduleFreeAdamW(p, 0.2),
}


def walk(make: Callable[[list[Parameter]], Any]) -> NDArray[np.float64]:
    """Return the parameter before the first step and after each one: (STEPS + 1, 2)."""
    point = Parameter(np.array([-1.5, 1.5]), name="point", dtype=float64)
    optimizer = make([point])
    found = [point.numpy()]
    for _ in range(STEPS):
        loss = (1 - point[0]) ** 2 + 100 * (point[1] - point[0] ** 2) ** 2
        with loss.backward() as grads:
            optim.clip_grad_norm(grads, optimizer, 10.0)
            optimizer.step(grads)
        found.append(point.numpy())
    return np.array(found)


def draw(panel: Any, name: str, way: NDArray[np.float64]) -> None:
    """Draw the valley, the path through it, and its end."""
    x, y = np.meshgrid(np.linspace(-2, 2, 121), np.linspace(-1, 3, 121))
    panel.contourf(x, y, np.log10((1 - x) ** 2 + 100 * (y - x * x) ** 2 + 1e-3), 24, cmap="Greys")
    panel.plot(*way.T, color="tab:red", linewidth=0.8)
    panel.plot(*way[-1], "o", color="tab:red", markersize=4)
    panel.plot(1, 1, "x", color="tab:blue")
    panel.set(title=name, xlim=(-2, 2), ylim=(-1, 3), xticks=[], yticks=[])


def main() -> None:
    """Run every optimizer, and save the picture."""
    columns = 6
    rows = -(-len(OPTIMIZERS) // columns)
    figure, panels = pyplot.subplots(rows, columns, figsize=(2 * columns, 2.2 * rows))
    for panel in panels.flat:
        panel.axis("off")
    for panel, (name, make) in zip(panels.flat, OPTIMIZERS.items(), strict=False):
        way = walk(make)
        draw(panel, name, way)
        panel.axis("on")
        print(f"{name:20} ends {np.linalg.norm(way[-1] - 1):.3f} from the minimum")
    figure.tight_layout()
    figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "trajectories.png", dpi=80)


if __name__ == "__main__":
    main()
