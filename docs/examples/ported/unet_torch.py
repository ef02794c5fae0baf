"""A U-Net that finds discs in noise, in PyTorch. `unet.py` is the same for rumus."""

from __future__ import annotations

from itertools import islice

import torch
from data import blots
from program import main
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW


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
        super().__init__()
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
        y = self.back_second(torch.cat([second, self.up_second(bottom)], dim=1))
        y = self.back_first(torch.cat([first, self.up_first(y)], dim=1))
        return self.output(y)


def train(model: UNet, steps: int) -> list[float]:
    """Return the loss of each step."""
    optimizer = AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)

    def loss_of(x: Tensor, mask: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(model(x), mask)

    losses = []
    for pictures, masks in islice(blots(), steps):
        loss = loss_of(torch.from_numpy(pictures), torch.from_numpy(masks))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return [loss.item() for loss in losses]


if __name__ == "__main__":
    main(UNet(), train)
