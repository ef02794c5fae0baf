"""A module's trainer does not accept another module's optimizer, nor replace its trainer."""

from rumus import nn
from rumus.optim import AdamW
from rumus.tensor import Parameter
from rumus.train import Trainer


class Generator(nn.Module):
    def __init__(self) -> None:
        self.weight = Parameter([1.0])


class Discriminator(nn.Module):
    def __init__(self) -> None:
        self.weight = Parameter([1.0])


def train(trainer: Trainer[Generator]) -> None:
    trainer.epoch_avg_loss()


optimizer = AdamW(Discriminator().parameters())
# error: Argument 1 to "Trainer" has incompatible type "AdamW[Discriminator]"; expected "Optimizer[Generator] | Sequence[FusedOptimizer[Generator]]"  [arg-type]
trainer: Trainer[Generator] = Trainer(optimizer)
# error: Argument 1 to "Trainer" has incompatible type "AdamW[Discriminator]"; expected "Optimizer[Generator] | Sequence[FusedOptimizer[Generator]]"  [arg-type]
train(Trainer(optimizer))
