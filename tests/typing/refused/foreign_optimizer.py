"""What trains one module is not given the optimizer of another."""

from rumus.optim import AdamW
from rumus.tensor import GradientStore, Parameters


class Generator:
    def parameters(self) -> "Parameters[Generator]":
        return Parameters({})


class Discriminator:
    def parameters(self) -> "Parameters[Discriminator]":
        return Parameters({})


def train(optimizer: AdamW[Generator], grads: GradientStore) -> None:
    optimizer.step(grads)


optimizer = AdamW(Discriminator().parameters())
# error: Argument 1 to "train" has incompatible type "AdamW[Discriminator]"; expected "AdamW[Generator]"  [arg-type]
train(optimizer, GradientStore())
