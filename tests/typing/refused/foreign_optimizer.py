"""A function that trains one module does not accept another module's optimizer."""

from rumus import nn
from rumus.optim import AdamW
from rumus.tensor import GradientStore, Parameter


class Generator(nn.Module):
    def __init__(self) -> None:
        self.weight = Parameter([1.0])


class Discriminator(nn.Module):
    def __init__(self) -> None:
        self.weight = Parameter([1.0])


def train(optimizer: AdamW[Generator], grads: GradientStore) -> None:
    optimizer.step(grads)


optimizer = AdamW(Discriminator().parameters())
# error: Argument 1 to "train" has incompatible type "AdamW[Discriminator]"; expected "AdamW[Generator]"  [arg-type]
train(optimizer, GradientStore())
