"""Train a classifier of handwritten digits, and draw how it went.

    python docs/examples/digits.py                     on a GPU if there is one, else on the CPU
    python docs/examples/digits.py --gpu picture.png   on a GPU only

1797 images of 8 x 8 pixels come with scikit-learn. A quarter of them is held out: the model is not
trained on it, and every accuracy is measured on it. The program fails if less than 97 % of these
are recognized.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot
from numpy.typing import NDArray
from rich.progress import track
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from rumus import nn
from rumus.gpu import GpuBackend, NoAdapterError, devices
from rumus.optim import AdamW
from rumus.tensor import Backend, Generator, Tensor, no_grad, tensor
from rumus.train import Trainer

REQUIRED = 0.97  # of the held-out digits
BATCH = 32
PICTURE = Path(__file__).parent / "output" / "digits.png"


# The data


@dataclass
class Digits:
    """Images as (count, 64) numbers in [0, 1], and the digit that each one shows."""

    images: NDArray[Any]
    digits: NDArray[Any]


def load(seed: int) -> tuple[Digits, Digits]:
    """Return the training and the test data, with all ten digits equally frequent in both."""
    images, digits = load_digits(return_X_y=True)
    seen, unseen, seen_digits, unseen_digits = train_test_split(
        images / 16, digits, test_size=0.25, stratify=digits, random_state=seed
    )
    return Digits(seen, seen_digits), Digits(unseen, unseen_digits)


def batches(data: Digits, random: Generator, backend: Backend) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the data once, in random order, in batches on the model's backend."""
    order = random.permutation(len(data.digits))
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        yield tensor(data.images[rows], backend=backend), tensor(data.digits[rows], backend=backend)


# The model


def build(random: Generator) -> nn.Sequential:
    """Return a model that maps 64 pixels to a score for each of the ten digits."""
    return nn.Sequential(
        nn.Dropout(0.1, generator=random),
        nn.Linear(64, 256, generator=random),
        nn.ReLU(),
        nn.Dropout(0.3, generator=random),
        nn.Linear(256, 128, generator=random),
        nn.ReLU(),
        nn.Dropout(0.3, generator=random),
        nn.Linear(128, 10, generator=random),
    )


def backend_of(model: nn.Module) -> Backend:
    """Return the backend of the model's parameters."""
    return next(iter(model.parameters())).backend


def place(model: nn.Module, insist: bool) -> str:
    """Move the model to a GPU if there is one, and return the name of its device.

    A software GPU is slower than the CPU that it runs on, so it is used only if you insist.
    """
    if insist or any(device.kind != "CPU" for device in devices()):
        try:
            model.to_gpu()
        except NoAdapterError as error:
            sys.exit(f"--gpu: {error}")
    backend = backend_of(model)
    return f"gpu, {backend.gpu.name}" if isinstance(backend, GpuBackend) else backend.name


def predict(model: nn.Sequential, data: Digits) -> NDArray[Any]:
    """Return the digit with the highest score for each image; dropout does nothing here."""
    model.eval()
    with no_grad():
        scores = model(tensor(data.images, backend=backend_of(model)))
    model.train()
    return scores.argmax(axis=-1).numpy()


# The training


@dataclass
class History:
    """The data to draw: two numbers per epoch, and the predictions after the last one."""

    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    predicted: NDArray[Any] = field(default_factory=lambda: np.zeros(0, np.int32))


def train(model: nn.Sequential, epochs: int, seen: Digits, unseen: Digits, seed: int) -> History:
    """Train, and print the loss and the accuracy after each epoch."""
    steps = epochs * math.ceil(len(seen.digits) / BATCH)

    def learning_rate(step: int) -> float:
        """Half a cosine wave from 0.003 down to 0."""
        return 0.003 * 0.5 * (1 + math.cos(math.pi * step / steps))

    def loss_of(images: Tensor, digits: Tensor) -> Tensor:
        return nn.cross_entropy_loss(model(images), digits)

    optimizer = AdamW(model.parameters(), lr=learning_rate)  # from here on it owns the parameters
    trainer = Trainer(optimizer)
    random = Generator(seed, stream=1)
    history = History()
    # A progress bar only in a terminal, not in a file or a pipe.
    for epoch in track(range(1, epochs + 1), "training", disable=not sys.stdout.isatty()):
        for images, digits in batches(seen, random, backend_of(model)):
            trainer.train_step(loss_of, images, digits, weight=len(digits))
        loss = trainer.epoch_avg_loss()
        history.predicted = predict(model, unseen)
        accuracy = float(np.mean(history.predicted == unseen.digits))
        print(f"epoch {epoch:3}   loss {loss:.4f}   test accuracy {accuracy:7.2%}", flush=True)
        history.losses.append(loss)
        history.accuracies.append(accuracy)
    return history


# The picture


def draw(history: History, unseen: Digits, path: Path) -> None:
    """Write a picture of the curves, the first unseen digits, and the misclassified ones."""
    figure = pyplot.figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=[4, 5])[0]
    draw_curves(left.subplots(2, 1, sharex=True), history)
    wrong = np.flatnonzero(history.predicted != unseen.digits)
    some, mistaken = right.subfigures(2, 1, height_ratios=[3, 2])
    some.suptitle("unseen digits, and what the model says", fontsize=11)
    mistaken.suptitle(f"mistakes: {len(wrong)} of {len(unseen.digits)}", fontsize=11)
    draw_images(some.subplots(3, 9), history, unseen, np.arange(len(unseen.digits)))
    draw_images(mistaken.subplots(2, 9), history, unseen, wrong)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def draw_curves(panels: NDArray[Any], history: History) -> None:
    """Draw the loss above and the test accuracy below, epoch by epoch."""
    above, below = panels
    epochs = range(1, len(history.losses) + 1)
    above.plot(epochs, history.losses, color="tab:blue")
    above.set_ylim(bottom=0)
    above.set_title("average loss of each epoch", fontsize=11)
    below.plot(epochs, [100 * accuracy for accuracy in history.accuracies], color="tab:green")
    below.axhline(100 * REQUIRED, color="gray", linestyle="dotted", linewidth=1)
    below.set_title(f"test accuracy in %, at last {100 * history.accuracies[-1]:.2f}", fontsize=11)
    below.set_xlabel("epoch")
    for axes in (above, below):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)


def draw_images(grid: NDArray[Any], history: History, unseen: Digits, rows: NDArray[Any]) -> None:
    """Fill a grid with as many images as fit, with the prediction above each."""
    for axes in grid.flat:
        axes.axis("off")
    for axes, row in zip(grid.flat, rows, strict=False):
        axes.imshow(unseen.images[row].reshape(8, 8), cmap="gray_r")
        said, true = history.predicted[row], unseen.digits[row]
        text, color = (f"{said}", "black") if said == true else (f"{said}, is {true}", "tab:red")
        axes.set_title(text, color=color, fontsize=9, pad=2)


# The program


def arguments() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description="Train a classifier of handwritten digits.")
    parser.add_argument("picture", nargs="?", type=Path, default=PICTURE, help="the PNG to write")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the split, weights and order")
    parser.add_argument("--gpu", action="store_true", help="require a GPU; any kind will do")
    chosen = parser.parse_args()
    if chosen.epochs < 1:
        parser.error("--epochs must be at least 1")
    return chosen


def main() -> int:
    """Train, draw, and return the exit code: 0 if enough unseen digits are recognized."""
    chosen = arguments()
    mpl.use("Agg")  # draws to files and needs no screen
    seen, unseen = load(chosen.seed)
    model = build(Generator(chosen.seed))
    device = place(model, chosen.gpu)
    print(f"{len(seen.digits)} digits to train on, {len(unseen.digits)} to test on")
    print(f"backend: {device}\n{model}")

    start = time.perf_counter()
    history = train(model, chosen.epochs, seen, unseen, chosen.seed)
    seconds = time.perf_counter() - start
    draw(history, unseen, chosen.picture)

    accuracy = history.accuracies[-1]
    print(f"trained in {seconds:.1f} s; picture: {chosen.picture}")
    print(f"final test accuracy {accuracy:.2%}; required: at least {REQUIRED:.0%}")
    return 0 if accuracy >= REQUIRED else 1


if __name__ == "__main__":
    sys.exit(main())
