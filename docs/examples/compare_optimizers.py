"""Eight optimizers with their defaults on a small GPT and on a network for digits, in one picture.

    pip install rumus matplotlib scikit-learn
    python docs/examples/compare_optimizers.py optimizers.png     a few minutes on two cores

Each trains the models of char_gpt.py and digits_cnn.py from the same weights, with the same batches
and without a schedule. The program prints after how many steps the mean of the last 20 losses falls
below a bound, and what it is at the end. Defaults are only a starting point: Lion's and Muon's
learning rates suit longer runs, Prodigy finds its own, and the others gain from a search.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import matplotlib
import numpy as np
from char_gpt import GPT, windows
from digits_cnn import Network, load
from numpy.typing import NDArray

from rumus import nn, optim
from rumus.tensor import Generator, Parameters, Tensor
from rumus.train import DataLoader, Trainer

matplotlib.use("Agg")
from matplotlib import pyplot

MEAN = 20  # losses
BOUNDS = {"small GPT": 2.6, "digits CNN": 0.1}  # nats per byte, nats per digit
OPTIMIZERS: dict[str, Callable[[Parameters[Any]], optim.FusedOptimizer[Any]]] = {
    "AdamW": optim.AdamW,
    "cautious AdamW": partial(optim.AdamW, cautious=True),
    "Lion": optim.Lion,
    "Muon": optim.Muon,
    "Muon, steps of AdamW": partial(optim.Muon, adjust="match_rms_adamw"),
    "SOAP": optim.SOAP,
    "Prodigy": optim.Prodigy,
    "schedule-free AdamW": optim.ScheduleFreeAdamW,
}

# A model, its loss function, and an endless iterator of batches.
Task = tuple[nn.Module, Callable[..., Tensor], Iterator[tuple[Any, ...]]]


def small_gpt() -> Task:
    """Two layers of 64 that predict the next byte of a text about Python."""
    rows = windows("\n".join(topics.values()).encode(), 32)
    model = GPT(2, 64, 4, 32, Generator(0))

    def loss(window: Tensor) -> Tensor:
        return nn.cross_entropy_loss(model(window[:, :-1]), window[:, 1:])

    draw = np.random.default_rng(0)
    return model, loss, iter(lambda: (rows[draw.choice(len(rows), 16, replace=False)],), None)


def digits_cnn() -> Task:
    """Three convolutions that classify digits of 8 x 8 pixels."""
    model = Network(Generator(0))
    loader = DataLoader(load()[0], 64, shuffle=True, drop_last=True, seed=0)

    def loss(images: Tensor, digits: Tensor) -> Tensor:
        return nn.cross_entropy_loss(model(images), digits)

    def batches() -> Iterator[tuple[Any, ...]]:
        while True:
            yield from loader

    return model, loss, batches()


TASKS: dict[str, Callable[[], Task]] = {"small GPT": small_gpt, "digits CNN": digits_cnn}


def means(task: Callable[[], Task], name: str, steps: int) -> NDArray[np.float64]:
    """Train, and return the mean of the last losses at each step that has enough of them."""
    model, loss, batches = task()
    trainer = Trainer(OPTIMIZERS[name](model.parameters()), state={"model": model})
    losses = [trainer.train_step(loss, *next(batches)) for _ in range(steps)]
    sums = np.cumsum([0.0, *map(float, losses)])
    found: NDArray[np.float64] = (sums[MEAN:] - sums[:-MEAN]) / MEAN
    return found


def report(curves: dict[str, dict[str, NDArray[np.float64]]]) -> None:
    """Print when each optimizer fell below the bound, and its last loss."""
    for task, by_name in curves.items():
        print(f"{task}: steps to a loss of {BOUNDS[task]}, and the last loss")
        for name, curve in by_name.items():
            under = np.flatnonzero(curve < BOUNDS[task])
            reached = str(under[0] + MEAN) if under.size else "-"
            print(f"  {name:22} {reached:>5}   {curve[-1]:.3f}")


def draw(curves: dict[str, dict[str, NDArray[np.float64]]], path: Path) -> None:
    """Draw one panel per task: losses on a logarithmic axis, and the bound as a dotted line."""
    figure, panels = pyplot.subplots(1, len(curves), figsize=(11, 4.6), layout="constrained")
    for panel, (task, by_name) in zip(panels, curves.items(), strict=True):
        for name, curve in by_name.items():
            panel.plot(np.arange(MEAN, MEAN + len(curve)), curve, label=name, linewidth=1.3)
        panel.axhline(BOUNDS[task], color="0.5", linestyle=":", linewidth=1)
        panel.set(title=task, xlabel="step", ylabel=f"mean of the last {MEAN} losses")
        panel.set_yscale("log")
        panel.yaxis.set_major_formatter("{x:g}")
        if max(curve[0] for curve in by_name.values()) < 10 * BOUNDS[task]:
            panel.yaxis.set_minor_formatter("{x:g}")  # less than a decade has few major ticks
        panel.grid(alpha=0.3, which="both")
    panels[0].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def main() -> None:
    """Train with each optimizer, print the table and draw the picture."""
    parser = argparse.ArgumentParser(description="Compare optimizers with their defaults.")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    chosen = parser.parse_args()
    curves = {
        task: {name: means(make, name, chosen.steps) for name in OPTIMIZERS}
        for task, make in TASKS.items()
    }
    report(curves)
    draw(curves, chosen.picture)


if __name__ == "__main__":
    main()
