"""ResNet-18 on pictures of CIFAR's shape. `resnet18_torch.py` is the same program in PyTorch.

The names are torchvision's, so its files load: `ResNet().load_file("resnet18.safetensors")`.
He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from data import colored
from program import main

from rumus import nn
from rumus.optim import SGD
from rumus.tensor import Tensor, seed
from rumus.train import Trainer


class BasicBlock(nn.Module):
    """Two convolutions, added to their input."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, height, width)."""
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y))
        return (y + self.downsample(x)).relu()


class ResNet(nn.Module):
    """Maps pictures to class scores. small_pictures: the first layer keeps their size."""

    def __init__(
        self,
        layers: Sequence[int] = (2, 2, 2, 2),
        width: int = 64,
        classes: int = 10,
        small_pictures: bool = True,
    ) -> None:
        self.small_pictures = small_pictures
        if small_pictures:
            self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        else:
            self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = self.stage(width, width, layers[0], 1)
        self.layer2 = self.stage(width, 2 * width, layers[1], 2)
        self.layer3 = self.stage(2 * width, 4 * width, layers[2], 2)
        self.layer4 = self.stage(4 * width, 8 * width, layers[3], 2)
        self.fc = nn.Linear(8 * width, classes)

    def stage(self, inputs: int, outputs: int, count: int, stride: int) -> nn.Sequential:
        """Return blocks; the first one changes the size."""
        blocks = [BasicBlock(inputs, outputs, stride)]
        blocks += [BasicBlock(outputs, outputs) for _ in range(count - 1)]
        return nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, 3, height, width) to (batch, classes)."""
        x = self.bn1(self.conv1(x)).relu()
        if not self.small_pictures:
            x = self.maxpool(x)
        x = self.layer1(x)
        x = self.layer2(x)
        x = self.layer3(x)
        x = self.layer4(x)
        return self.fc(x.mean((2, 3)))


def train(model: ResNet, steps: int) -> list[float]:
    """Return the loss of each step."""
    optimizer = SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    trainer = Trainer(optimizer)

    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        return nn.cross_entropy_loss(model(x), y)

    losses = []
    for pictures, classes in islice(colored(), steps):
        losses.append(trainer.train_step(loss_of, pictures, classes))
    return [loss.item() for loss in losses]


if __name__ == "__main__":
    seed(0)  # of the initial weights
    main(ResNet(width=16), train)
