"""A trainer knows whose parameters it trains; the loss may be a function of a batch."""

from rumus.optim import SGD
from rumus.tensor import Parameter, Parameters, Tensor, tensor
from rumus.train import Trainer


class Line:
    def __init__(self) -> None:
        self.slope = Parameter([0.0], name="slope")

    def parameters(self) -> "Parameters[Line]":
        return Parameters({"slope": self.slope})


line = Line()
trainer: Trainer[Line] = Trainer(SGD(line.parameters(), 0.5))


def loss(x: Tensor, y: Tensor) -> Tensor:
    return ((line.slope * x - y) ** 2).mean()


trainer.train_step(loss, tensor([1.0]), tensor([3.0]))
trainer.train_step(lambda: (line.slope**2).sum())
mean: float = trainer.epoch_avg_loss()
assert mean == 9.0
