"""A U-Net that finds discs in noise. `unet_torch.py` is the same program in PyTorch.

Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation",
arXiv:1505.04597, with a batch norm behind each convolution.
"""

from __future__ import annotations

from itertools import islice

from data import blots
from program import main

from rumus import nn
from rumus.optim import AdamW
from rumus.tensor import Tensor, concat, seed
from rumus.train import Trainer


def double(inputs: int, outputs: int) -> nn.Sequential:
    """Return two convolutions that keep the size."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class UNet(nn.Module):
    """Maps pictures to a logit per pixel: halved twice, then upsampled with skip connections."""

    def __init__(self, width: int = 16) -> None:
        self.first = double(1, width)
        self.second = double(width, 2 * width)
        self.bottom = double(2 * width, 4 * width)
        self.up_second = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.back_second = double(4 * width, 2 * width)
        self.up_first = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.back_first = double(2 * width, width)
        self.output = nn.Conv2d(width, 1, 1)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, 1, height, width), multiples of 4, to the same shape."""
        first = self.first(x)
        second = self.second(self.pool(first))
        bottom = self.bottom(self.pool(second))
        y = self.back_second(concat([second, self.up_second(bottom)], axis=1))
        y = self.back_first(concat([first, self.up_first(y)], axis=1))
        return self.output(y)


def train(model: UNet, steps: int) -> list[float]:
    """Return the loss of each step."""
    optimizer = AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    trainer = Trainer(optimizer)

    def loss_of(x: Tensor, mask: Tensor) -> Tensor:
        return nn.binary_cross_entropy_with_logits(model(x), mask)

    losses = []
    for pictures, masks in islice(blots(), steps):
        losses.append(trainer.train_step(loss_of, pictures, masks))
    return [loss.item() for loss in losses]


if __name__ == "__main__":
    seed(0)  # of the initial weights
    main(UNet(), train)
