"""There is nothing to zero."""

from rumus.optim import SGD
from rumus.tensor import Parameter

# error: "SGD[Any]" has no attribute "zero_grad"  [attr-defined]
SGD([Parameter([1.0])]).zero_grad()
