"""Nor has a parameter; so there is nothing to zero."""

from rumus.tensor import Parameter

weight = Parameter([1.0])
# error: "Parameter" has no attribute "grad"  [attr-defined]
weight.grad
# error: "Parameter" has no attribute "grad"  [attr-defined]
weight.grad = None
