"""The trainer of one module does not take the optimizer of another, nor stand in for its trainer."""

from rumus.optim import AdamW
from rumus.tensor import Parameters
from rumus.train import Trainer


class Generator:
    def parameters(self) -> "Parameters[Generator]":
        return Parameters({})


class Discriminator:
    def parameters(self) -> "Parameters[Discriminator]":
        return Parameters({})


def train(trainer: Trainer[Generator]) -> None:
    trainer.epoch_avg_loss()


optimizer = AdamW(Discriminator().parameters())
# error: Argument 1 to "Trainer" has incompatible type "AdamW[Discriminator]"; expected "Optimizer[Generator]"  [arg-type]
trainer: Trainer[Generator] = Trainer(optimizer)
# error: Argument 1 to "Trainer" has incompatible type "AdamW[Discriminator]"; expected "Optimizer[Generator]"  [arg-type]
train(Trainer(optimizer))
