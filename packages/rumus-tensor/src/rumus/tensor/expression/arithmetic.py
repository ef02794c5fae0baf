"""The elementwise vocabulary that tensors and expressions share.

A subclass defines what applying one operation means: `Expr` builds a node, `Tensor` runs a kernel
of one node. So `a * b + c.tanh()` reads the same in a model and in an update rule.
"""

from __future__ import annotations

from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Arithmetic(Generic[T]):
    """Operators and elementwise functions in terms of one method, `_apply`.

    T: the result of an operation. It is not `Self`: a parameter times a number is a plain tensor.
    """

    __slots__ = ()

    def _apply(self, operation: str, *operands: Self | T | float) -> T:
        raise NotImplementedError

    def __add__(self, other: T | float) -> T:
        return self._apply("add", self, other)

    def __radd__(self, other: float) -> T:
        return self._apply("add", other, self)

    def __sub__(self, other: T | float) -> T:
        return self._apply("sub", self, other)

    def __rsub__(self, other: float) -> T:
        return self._apply("sub", other, self)

    def __mul__(self, other: T | float) -> T:
        return self._apply("mul", self, other)

    def __rmul__(self, other: float) -> T:
        return self._apply("mul", other, self)

    def __truediv__(self, other: T | float) -> T:
        return self._apply("div", self, other)

    def __rtruediv__(self, other: float) -> T:
        return self._apply("div", other, self)

    def __floordiv__(self, other: T | float) -> T:
        return self._apply("floor_divide", self, other)

    def __rfloordiv__(self, other: float) -> T:
        return self._apply("floor_divide", other, self)

    def __mod__(self, other: T | float) -> T:
        return self._apply("mod", self, other)

    def __rmod__(self, other: float) -> T:
        return self._apply("mod", other, self)

    def __pow__(self, exponent: T | float) -> T:
        # Squares are by far the most common power, and a product is exact where pow need not be.
        if isinstance(exponent, (int, float)) and exponent == 2:
            return self._apply("mul", self, self)
        # NumPy computes a root, PyTorch too: pow(-inf, 0.5) would be inf, with derivative 0.
        if isinstance(exponent, float) and exponent == 0.5:
            return self._apply("sqrt", self)
        return self._apply("pow", self, exponent)

    def __rpow__(self, base: float) -> T:
        return self._apply("pow", base, self)

    def __neg__(self) -> T:
        return self._apply("mul", self, -1)

    def __pos__(self) -> Self:
        return self

    def __abs__(self) -> T:
        return self._apply("abs", self)

    def __lt__(self, other: T | float) -> T:
        return self._apply("lt", self, other)

    def __le__(self, other: T | float) -> T:
        return self._apply("le", self, other)

    def __gt__(self, other: T | float) -> T:
        return self._apply("lt", other, self)

    def __ge__(self, other: T | float) -> T:
        return self._apply("le", other, self)

    def __and__(self, other: T | float) -> T:
        return self._apply("minimum", self, other)

    def __or__(self, other: T | float) -> T:
        return self._apply("maximum", self, other)

    def __invert__(self) -> T:
        return self._apply("eq", self, 0)

    def abs(self) -> T:
        """The absolute value; its derivative at 0 is 0."""
        return self._apply("abs", self)

    def sign(self) -> T:
        """-1, 0 or 1."""
        return self._apply("sign", self)

    def exp(self) -> T:
        """The exponential."""
        return self._apply("exp", self)

    def log(self) -> T:
        """The natural logarithm; -inf at 0, NaN below."""
        return self._apply("log", self)

    def log1p(self) -> T:
        """log(1 + x), accurate for small x."""
        return self._apply("log1p", self)

    def expm1(self) -> T:
        """exp(x) - 1, accurate for small x."""
        return self._apply("expm1", self)

    def sqrt(self) -> T:
        """The square root; NaN below 0."""
        return self._apply("sqrt", self)

    def sin(self) -> T:
        """The sine of an angle in radians."""
        return self._apply("sin", self)

    def cos(self) -> T:
        """The cosine of an angle in radians."""
        return self._apply("cos", self)

    def tanh(self) -> T:
        """The hyperbolic tangent."""
        return self._apply("tanh", self)

    def erf(self) -> T:
        """The error function, 2/sqrt(pi) times the integral of exp(-t^2) from 0 to x."""
        return self._apply("erf", self)

    def sigmoid(self) -> T:
        """1 / (1 + exp(-x)), without overflow at either end."""
        return self._apply("sigmoid", self)

    def softplus(self) -> T:
        """log(1 + exp(x)), without overflow; its derivative is the sigmoid."""
        return self._apply("softplus", self)

    def relu(self) -> T:
        """max(x, 0), NaN stays NaN; the derivative at 0 is 0."""
        return self._apply("relu", self)

    def floor(self) -> T:
        """The largest integer not above x; no gradient flows through it."""
        return self._apply("floor", self)

    def ceil(self) -> T:
        """The smallest integer not below x; no gradient flows through it."""
        return self._apply("mul", self._apply("floor", self._apply("mul", self, -1)), -1)

    def maximum(self, other: T | float) -> T:
        """The larger of the two, NaN if either is NaN; equal values share the gradient.

        If one is a number, the tensor gets all of it.
        """
        return self._apply("maximum", self, other)

    def minimum(self, other: T | float) -> T:
        """The smaller of the two, NaN if either is NaN; equal values share the gradient.

        If one is a number, the tensor gets all of it.
        """
        return self._apply("minimum", self, other)

    def where(self, a: T | float, b: T | float) -> T:
        """`a` where this condition holds, `b` elsewhere."""
        return self._apply("where", self, a, b)
