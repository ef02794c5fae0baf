"""Two adversarial networks, two optimizers, and one gradient store.

    python docs/examples/gan.py     about ten seconds on two cores

The generator turns noise into points in the plane; the discriminator tells whether points come from
a mixture of eight normal distributions or from the generator. Both share one loss, which the
discriminator minimizes and the generator maximizes, so one `backward` computes the gradients of
both. Each optimizer drains the gradients that it owns and cannot touch the others; the `with` block
checks that none are left. Goodfellow et al., "Generative adversarial nets", 2014, equation 1.

The program fails unless the samples cover every part of the mixture and most lie close to it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot
from matplotlib.patches import Circle
from numpy.typing import NDArray
from rich.progress import track

from rumus import nn
from rumus.optim import AdamW
from rumus.tensor import Generator as Random
from rumus.tensor import Tensor, concat, no_grad, tensor

MODES, RADIUS, WIDTH = 8, 2.0, 0.15  # of the mixture
NOISE = 8  # numbers per point, the generator's input
BATCH, STEPS = 256, 2000
BLUR = 0.5  # at the start; it falls to 0 at step BLURRED
BLURRED = 1600
PICTURE = Path(__file__).parent / "output" / "gan.png"

_angles = 2 * np.pi * np.arange(MODES) / MODES
CENTERS = RADIUS * np.stack([np.cos(_angles), np.sin(_angles)], axis=1)


class Generator(nn.Module):
    """Maps noise (count, NOISE) to points (count, 2)."""

    def __init__(self, random: Random) -> None:
        self.first = nn.Linear(NOISE, 64, generator=random)
        self.second = nn.Linear(64, 64, generator=random)
        self.point = nn.Linear(64, 2, generator=random)

    def forward(self, noise: Tensor) -> Tensor:
        """Return one point for each row of noise."""
        return self.point(self.second(self.first(noise).relu()).relu())


class Discriminator(nn.Module):
    """Maps points (count, 2) to verdicts (count, 1), positive for "from the mixture"."""

    def __init__(self, random: Random) -> None:
        self.layers = nn.Sequential(
            nn.Linear(2, 64, generator=random),
            nn.LeakyReLU(),
            nn.Linear(64, 64, generator=random),
            nn.LeakyReLU(),
            nn.Linear(64, 1, generator=random),
        )

    def forward(self, points: Tensor) -> Tensor:
        """Return one verdict for each point."""
        return self.layers(points)


def mixture(count: int, random: Random) -> Tensor:
    """Return points of the mixture."""
    centers = tensor(CENTERS[random.integers(0, MODES, (count,)).numpy()])
    return centers + random.normal((count, 2), std=WIDTH)


def train(generator: Generator, discriminator: Discriminator, random: Random) -> None:
    """Train the two against each other."""
    # The types say who owns what: a type checker refuses to swap the two.
    maximizer: AdamW[Generator] = AdamW(
        generator.parameters(), 1e-3, betas=(0.5, 0.9), weight_decay=0.0, maximize=True
    )
    minimizer: AdamW[Discriminator] = AdamW(
        discriminator.parameters(), 2e-3, betas=(0.5, 0.9), weight_decay=0.0
    )
    truth = np.repeat([[1.0], [0.0]], BATCH, axis=0)
    for step in track(range(STEPS), "training", disable=not sys.stdout.isatty()):
        points = concat([mixture(BATCH, random), generator(random.normal((BATCH, NOISE)))])
        # Sharp points are too easy to tell apart, so both kinds are blurred at first.
        blur = BLUR * max(0.0, 1 - step / BLURRED)
        verdicts = discriminator(points + random.normal(points.shape, std=blur))
        loss = nn.binary_cross_entropy_with_logits(verdicts, truth)
        with loss.backward() as grads:
            minimizer.step(grads)
            left = len(grads)  # the generator's gradients, untouched
            maximizer.step(grads)
        if step == 0:
            print(f"{left} gradients were left to the generator's optimizer, then {len(grads)}")
        if (step + 1) % 500 == 0:
            print(
                f"step {step + 1:5}   loss {loss.item():.4f}   (ln 2 = 0.6931: a tie)", flush=True
            )


def shares(samples: NDArray[Any]) -> NDArray[Any]:
    """Return the share of samples within three widths of each center."""
    distances = np.linalg.norm(samples[:, None] - CENTERS[None], axis=-1)
    close = distances.min(axis=1) < 3 * WIDTH
    return np.bincount(distances.argmin(axis=1)[close], minlength=MODES) / len(samples)


def draw(samples: NDArray[Any], real: NDArray[Any], path: Path) -> None:
    """Write a picture of the mixture and of the samples, side by side."""
    figure, panels = pyplot.subplots(1, 2, figsize=(9, 4.7), layout="constrained")
    titles = ("the mixture", "the generator's samples")
    for axes, points, title in zip(panels, (real, samples), titles, strict=True):
        axes.scatter(*points.T, s=4, alpha=0.35, linewidths=0, color="tab:blue")
        for center in CENTERS:
            circle = Circle(tuple(center), 3 * WIDTH, fill=False, color="tab:red", alpha=0.6)
            axes.add_patch(circle)
        axes.set_title(title, fontsize=11)
        axes.set_aspect("equal")
        axes.set(xlim=(-3.2, 3.2), ylim=(-3.2, 3.2))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> int:
    """Train, draw, and return the exit code: 0 if the samples look like the mixture."""
    mpl.use("Agg")  # draws to files and needs no screen
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE
    random = Random(0)
    generator, discriminator = Generator(random), Discriminator(random)
    train(generator, discriminator, random)
    with no_grad():
        samples = generator(random.normal((4000, NOISE))).numpy()
    draw(samples, mixture(4000, random).numpy(), path)
    found = shares(samples)
    covered = int((found > 0.25 / MODES).sum())  # at least a quarter of an equal share
    print(f"modes covered: {covered} of {MODES}; {found.sum():.1%} of the samples are close to one")
    print(f"picture: {path}")
    return 0 if covered == MODES and found.sum() >= 0.75 else 1


if __name__ == "__main__":
    sys.exit(main())
