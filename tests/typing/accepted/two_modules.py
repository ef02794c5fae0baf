"""Two modules, two optimizers, one store: each optimizer drains its own."""

from rumus import nn
from rumus.optim import AdamW
from rumus.tensor import GradientStore, Parameter


class Generator(nn.Module):
    def __init__(self) -> None:
        self.weight = Parameter([1.0], name="weight")


class Discriminator(nn.Module):
    def __init__(self) -> None:
        self.weight = Parameter([1.0], name="weight")


def train(
    generator: AdamW[Generator], discriminator: AdamW[Discriminator], grads: GradientStore
) -> None:
    generator.step(grads)
    discriminator.step(grads)


generator, discriminator = Generator(), Discriminator()
loss = (generator.weight * discriminator.weight).sum()
train(AdamW(generator.parameters()), AdamW(discriminator.parameters(), 0.01), loss.backward())
