"""A loss function returns the tensor with its graph, not a number."""

from rumus.optim import SGD
from rumus.tensor import Parameter
from rumus.train import Trainer

weight = Parameter([1.0])
trainer = Trainer(SGD([weight]))


def loss() -> float:
    return float((weight * weight).sum())


# error: Argument 1 to "train_step" of "Trainer" has incompatible type "Callable[[], float]"; expected "Callable[..., Tensor | Mapping[str, Any]]"  [arg-type]
trainer.train_step(loss)
# error: Argument 1 to "train_step" of "Trainer" has incompatible type "Callable[[], float]"; expected "Callable[..., Tensor | Mapping[str, Any]]"  [arg-type]
# error: Incompatible return value type (got "float", expected "Tensor | Mapping[str, Any]")  [return-value]
trainer.train_step(lambda: 0.5)
