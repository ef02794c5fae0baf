"""Operations on parameters give tensors; operations on expressions give expressions."""

from typing import assert_type

from rumus.tensor import Expr, Parameter, Tensor, tensor

weight, x = Parameter([1.0]), tensor([2.0])
assert_type(weight * x, Tensor)
assert_type(x * weight, Tensor)
assert_type(2.0 * weight, Tensor)
assert_type(-weight, Tensor)
assert_type(weight**2, Tensor)
assert_type(weight @ x, Tensor)
assert_type(weight.tanh(), Tensor)
assert_type(weight > x, Tensor)
assert_type((1 - Expr.array("p")).sqrt(), Expr)
assert (weight * x).tolist() == [2.0]
