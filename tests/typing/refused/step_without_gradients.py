"""A step takes the gradients to drain, and nothing else."""

from rumus.optim import SGD
from rumus.tensor import Parameter

weight = Parameter([1.0])
optimizer = SGD([weight])
# error: Missing positional argument "grads" in call to "step" of "SteppedOptimizer"  [call-arg]
optimizer.step()
# error: Argument 1 to "step" of "SteppedOptimizer" has incompatible type "Tensor"; expected "GradientStore"  [arg-type]
optimizer.step((weight * weight).sum())
