"""A tensor cannot be trained: an optimizer owns parameters."""

from rumus.optim import SGD
from rumus.tensor import tensor

# error: Argument 1 to "SGD" has incompatible type "list[Tensor]"; expected "Parameters[Any] | Sequence[Parameter] | Sequence[ParameterGroup]"  [arg-type]
SGD([tensor([1.0])], lr=0.1)
