"""The elementwise vocabulary that tensors and expressions share.

A subclass says what applying one operation means: `Expr` builds a node, `Tensor` runs a kernel of
one node. Written once here, `a * b + c.tanh()` reads the same in a model and in an update rule.
"""

from __future__ import annotations

from typing import Self, TypeAlias


class Arithmetic:
    """Operators and elementwise functions in terms of one method, `_apply`."""

    __slots__ = ()

    def _apply(self, operation: str, *operands: Self | float) -> Self:
        raise NotImplementedError

    def __add__(self, other: Self | float) -> Self:
        return self._apply("add", self, other)

    def __radd__(self, other: float) -> Self:
        return self._apply("add", other, self)

    def __sub__(self, other: Self | float) -> Self:
        return self._apply("sub", self, other)

    def __rsub__(self, other: float) -> Self:
        return self._apply("sub", other, self)

    def __mul__(self, other: Self | float) -> Self:
        return self._apply("mul", self, other)

    def __rmul__(self, other: float) -> Self:
        return self._apply("mul", other, self)

    def __truediv__(self, other: Self | float) -> Self:
        return self._apply("div", self, other)

    def __rtruediv__(self, other: float) -> Self:
        return self._apply("div", other, self)

    def __pow__(self, exponent: Self | float) -> Self:
        # The square is by far the commonest power, and a product is exact where pow need not be.
        if isinstance(exponent, (int, float)) and exponent == 2:
            return self * self
        return self._apply("pow", self, exponent)

    def __rpow__(self, base: float) -> Self:
        return self._apply("pow", base, self)

    def __neg__(self) -> Self:
        return self._apply("mul", self, -1)

    def __pos__(self) -> Self:
        return self

    def __abs__(self) -> Self:
        return self._apply("abs", self)

    def __lt__(self, other: Self | float) -> Self:
        return self._apply("lt", self, other)

    def __le__(self, other: Self | float) -> Self:
        return self._apply("le", self, other)

    def __gt__(self, other: Self | float) -> Self:
        return self._apply("lt", other, self)

    def __ge__(self, other: Self | float) -> Self:
        return self._apply("le", other, self)

    def __and__(self, other: Self | float) -> Self:
        return self._apply("minimum", self, other)

    def __or__(self, other: Self | float) -> Self:
        return self._apply("maximum", self, other)

    def __invert__(self) -> Self:
        return self._apply("eq", self, 0)

    def abs(self) -> Self:
        """The absolute value; its derivative at 0 is 0."""
        return self._apply("abs", self)

    def sign(self) -> Self:
        """-1, 0 or 1."""
        return self._apply("sign", self)

    def exp(self) -> Self:
        """The exponential."""
        return self._apply("exp", self)

    def log(self) -> Self:
        """The natural logarithm; -inf at 0, NaN below."""
        return self._apply("log", self)

    def log1p(self) -> Self:
        """log(1 + x), exact for small x."""
        return self._apply("log1p", self)

    def expm1(self) -> Self:
        """exp(x) - 1, exact for small x."""
        return self._apply("expm1", self)

    def sqrt(self) -> Self:
        """The square root; NaN below 0."""
        return self._apply("sqrt", self)

    def sin(self) -> Self:
        """The sine of an angle in radians."""
        return self._apply("sin", self)

    def cos(self) -> Self:
        """The cosine of an angle in radians."""
        return self._apply("cos", self)

    def tanh(self) -> Self:
        """The hyperbolic tangent."""
        return self._apply("tanh", self)

    def erf(self) -> Self:
        """The error function, 2/sqrt(pi) times the integral of exp(-t^2) from 0 to x."""
        return self._apply("erf", self)

    def sigmoid(self) -> Self:
        """1 / (1 + exp(-x)), without overflow at either end."""
        return self._apply("sigmoid", self)

    def softplus(self) -> Self:
        """log(1 + exp(x)), without overflow; its derivative is the sigmoid."""
        return self._apply("softplus", self)

    def relu(self) -> Self:
        """max(x, 0), NaN stays NaN; the derivative at 0 is 0."""
        return self._apply("relu", self)

    def maximum(self, other: Self | float) -> Self:
        """The larger of the two, NaN if either is; equal values share the gradient."""
        return self._apply("maximum", self, other)

    def minimum(self, other: Self | float) -> Self:
        """The smaller of the two, NaN if either is; equal values share the gradient."""
        return self._apply("minimum", self, other)

    def where(self, a: Self | float, b: Self | float) -> Self:
        """`a` where this condition holds, `b` elsewhere."""
        return self._apply("where", self, a, b)


Operand: TypeAlias = "Arithmetic | float"
