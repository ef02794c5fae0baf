"""Your own optimizer: a class with `step`, generic in the module whose parameters it owns."""

from typing import TypeVar

from rumus.optim import Optimizer
from rumus.tensor import GradientStore, Parameter, Parameters

M_co = TypeVar("M_co", covariant=True)


class Perceptron:
    def __init__(self) -> None:
        self.weight = Parameter([1.0, 2.0], name="weight")

    def parameters(self) -> "Parameters[Perceptron]":
        return Parameters({"weight": self.weight})


class Halving(Optimizer[M_co]):
    """Halves what it owns, whatever the gradient is."""

    def step(self, grads: GradientStore) -> None:
        grads.drain(self.parameters, by=str(self))
        for parameter in self.parameters:
            parameter.assign(parameter.numpy() / 2)


model = Perceptron()
optimizer: Halving[Perceptron] = Halving(model.parameters())
optimizer.step((model.weight * model.weight).sum().backward())
assert model.weight.tolist() == [0.5, 1.0]
