"""A tensor has no gradient of its own: `backward` returns a store."""

from rumus.tensor import tensor

# error: "Tensor" has no attribute "grad"  [attr-defined]
tensor([1.0]).grad
