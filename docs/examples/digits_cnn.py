"""A small convolutional network for handwritten digits.

    pip install rumus scikit-learn
    python docs/examples/digits_cnn.py             on a GPU if there is one, else on the CPU
    python docs/examples/digits_cnn.py --gpu       on a GPU only

1797 images of 8 x 8 pixels, a quarter held out. In every epoch each training image is shifted by up
to a pixel and gets a little noise, so that the network cannot memorize it. The program fails if
less than 98.5 % of the held-out digits are recognized.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from rumus import nn
from rumus.gpu import devices
from rumus.optim import AdamW, cosine, warmup
from rumus.tensor import Generator, Tensor
from rumus.train import ArrayDataset, DataLoader, Trainer

REQUIRED, EPOCHS, BATCH = 0.985, 12, 64

Sample = tuple[NDArray[np.float32], NDArray[np.int32]]


class Network(nn.Module):
    """Three convolutions with batch norm, one max pool, one average pool, ten scores."""

    def __init__(self, random: Generator) -> None:
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1, bias=False, generator=random),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1, bias=False, generator=random),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1, bias=False, generator=random),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
        )
        self.scores = nn.Sequential(
            nn.Flatten(), nn.Dropout(0.2, generator=random), nn.Linear(256, 10, generator=random)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map (batch, 1, 8, 8) to scores of the digits, (batch, 10)."""
        scores: Tensor = self.scores(self.features(images))
        return scores


def load() -> tuple[ArrayDataset, ArrayDataset]:
    """Return the training and the test data: images (1, 8, 8) in [0, 1], and digits."""
    images, digits = load_digits(return_X_y=True)
    pictures = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    seen, unseen, seen_digits, unseen_digits = train_test_split(
        pictures, digits.astype(np.int32), test_size=0.25, stratify=digits, random_state=0
    )
    return ArrayDataset(seen, seen_digits), ArrayDataset(unseen, unseen_digits)


def moved(sample: Sample, random: np.random.Generator) -> Sample:
    """Shift an image by up to a pixel along each axis, and add noise."""
    image, digit = sample
    down, right = random.integers(0, 3, 2)
    around = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    part = around[:, down : down + 8, right : right + 8]
    noise = random.normal(0, 0.03, part.shape).astype(np.float32)
    return part + noise, digit


def main() -> int:
    """Train, and return the exit code: 0 if enough unseen digits are recognized."""
    parser = argparse.ArgumentParser(description="Train a network for handwritten digits.")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--gpu", action="store_true", help="require a GPU; any kind will do")
    chosen = parser.parse_args()

    seen, unseen = load()
    model = Network(Generator(0))
    if chosen.gpu or any(device.kind != "CPU" for device in devices()):
        model.to_gpu()
    loader = DataLoader(seen, BATCH, shuffle=True, drop_last=True, seed=0, transform=moved)
    steps = chosen.epochs * len(loader)
    lr = warmup(50).then(cosine(4e-3, max(steps - 50, 1)))
    trainer = Trainer(AdamW(model.parameters(), lr, weight_decay=0.05), state={"model": model})
    print(f"backend: {next(iter(model.parameters())).backend.name}\n{model}")

    def loss_of(images: Tensor, digits: Tensor) -> Tensor:
        return nn.cross_entropy_loss(model(images), digits, label_smoothing=0.05)

    def accuracy(images: Tensor, digits: Tensor) -> dict[str, Tensor]:
        return {"accuracy": (model(images).argmax(axis=-1) == digits).astype("float32").mean()}

    start = time.perf_counter()
    result = trainer.fit(
        loader, loss_of, epochs=chosen.epochs, validate=(DataLoader(unseen, 450), accuracy)
    )
    accuracies = [entry["val_accuracy"] for entry in result.history if "val_accuracy" in entry]
    losses = [entry["loss"] for entry in result.history if "loss" in entry]
    for epoch, (loss, share) in enumerate(zip(losses, accuracies, strict=True), 1):
        print(f"epoch {epoch:3}   loss {loss:.4f}   test accuracy {share:7.2%}")
    found = accuracies[-1]
    print(f"trained in {time.perf_counter() - start:.1f} s")
    print(f"final test accuracy {found:.2%}; required: at least {REQUIRED:.1%}")
    return 0 if found >= REQUIRED else 1


if __name__ == "__main__":
    sys.exit(main())
