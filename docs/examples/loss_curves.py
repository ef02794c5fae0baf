"""The losses of char_gpt.py's model on the CPU and on a GPU, from one seed, in one picture.

    pip install rumus matplotlib
    python docs/examples/loss_curves.py loss_curves.png     a few minutes without a real GPU

The three runs have the same initial weights, batches and dropout masks: random numbers do not
depend on the backend. In float32 the CPU and the GPU add in different orders, so the last bits
differ from the first step on. In float16 the parameters and all intermediate results are rounded to
11 bits, with float32 copies of the parameters for the optimizer, and a loss scale. On a GPU with
matrix units there are two more runs, with float32 products at lower precision.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import matplotlib
import numpy as np
from char_gpt import GPT, windows
from numpy.typing import NDArray

from rumus import nn
from rumus.gpu import Precision, default_backend
from rumus.optim import AdamW, ClipNorm, LossScale, cosine, warmup
from rumus.tensor import Backend, Generator, NumpyBackend, Tensor
from rumus.train import Trainer

matplotlib.use("Agg")
from matplotlib import pyplot


def losses(
    backend: Backend, rows: NDArray[np.int32], chosen: argparse.Namespace, *, is_half: bool = False
) -> NDArray[np.float64]:
    """Train from the same weights on the same batches, and return the loss of each step."""
    model = GPT(chosen.layers, chosen.size, chosen.heads, chosen.length, Generator(0)).to(backend)
    if is_half:
        model.half()
    lr = warmup(chosen.steps // 8).then(cosine(3e-3, chosen.steps, 3e-4))
    optimizer = AdamW(
        model.parameters(), lr, weight_decay=0.1, decay="matrices", clip=ClipNorm(1.0),
        master_weights=is_half,
    )  # fmt: skip
    trainer = Trainer(optimizer, loss_scale=LossScale() if is_half else None)

    def loss_of(window: Tensor) -> Tensor:
        return nn.cross_entropy_loss(model(window[:, :-1]), window[:, 1:])

    random = np.random.default_rng(0)
    found = [
        trainer.train_step(loss_of, rows[random.choice(len(rows), chosen.batch, replace=False)])
        for _ in range(chosen.steps)
    ]
    return np.array([float(loss) for loss in found])


def draw(curves: dict[str, NDArray[np.float64]], path: Path) -> None:
    """Draw the losses, and below them the distance to the first curve on a logarithmic axis."""
    figure, (top, bottom) = pyplot.subplots(
        2, 1, figsize=(8, 6.4), sharex=True, height_ratios=(3, 2), layout="constrained"
    )
    styles: list[dict[str, Any]] = [
        {"linewidth": 4, "alpha": 0.4},
        {"linewidth": 1.2},
        {"linewidth": 1, "linestyle": ":"},
        {"linewidth": 1, "linestyle": "--"},
        {"linewidth": 1, "linestyle": "-."},
    ]
    (first, reference), *others = curves.items()
    for (name, curve), style in zip(curves.items(), styles, strict=False):
        top.plot(np.arange(1, len(curve) + 1), curve, label=name, **style)
    for number, (name, curve) in enumerate(others, 1):
        apart = np.ma.masked_equal(np.abs(curve - reference), 0)  # a log axis cannot show 0
        bottom.plot(np.arange(1, len(curve) + 1), apart, f"C{number}.", label=name, markersize=4)
    top.set(title="char_gpt from one seed", ylabel="loss, nats per byte")
    bottom.set(yscale="log", xlabel="step", ylabel=f"difference from\n{first}")
    for panel in (top, bottom):
        panel.grid(alpha=0.3)
    top.legend()  # the colors below are the same
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def arguments() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description="Draw the losses of one run on two devices.")
    parser.add_argument("picture", nargs="?", type=Path, default=Path("loss_curves.png"))
    sizes = {"steps": 200, "layers": 2, "size": 64, "heads": 4, "length": 64, "batch": 8}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


def main() -> None:
    """Train on each device, and draw the losses."""
    chosen = arguments()
    rows = windows("\n".join(topics.values()).encode(), chosen.length)
    gpu = default_backend()
    curves = {
        "CPU, float32": losses(NumpyBackend(), rows, chosen),
        "GPU, float32": losses(gpu, rows, chosen),
        "GPU, float16": losses(gpu, rows, chosen, is_half=True),
    }
    levels: tuple[Precision, ...] = ("high", "medium") if gpu.gpu.units else ()
    for level in levels:
        with gpu.at_precision(level):
            curves[f"GPU, {level}"] = losses(gpu, rows, chosen)
    draw(curves, chosen.picture)
    reference = curves["CPU, float32"]
    for name, curve in curves.items():
        apart = np.abs(curve - reference).max()
        print(f"{name}: from {curve[0]:.4f} to {curve[-1]:.4f}, at most {apart:.1e} from the CPU")


if __name__ == "__main__":
    main()
