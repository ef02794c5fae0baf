"""`Vectors`: linear algebra on all of an optimizer's parameters, as one vector.

A vector is one flat array per arena. The gaps between parameters are 0 in all of them, so a dot
product is one reduction per array.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, Literal, TypeAlias

import numpy as np

from rumus.tensor import Arena, Backend, Expr, Kernel
from rumus.tensor.memory.backend import Array

Vector: TypeAlias = list[Array]

_X, _Y, _FACTOR = Expr.array("x"), Expr.array("y"), Expr.scalar("factor")
_PRODUCT: Final = Kernel("product", {"out": _X * _Y}, ("x", "y"))
_SIZE: Final = Kernel("absolute", {"out": _X.abs()})
_JOINED: Final = {
    "sum": Kernel("sum", {"x": _X + _Y}, ("x", "y")),
    "max": Kernel("maximum", {"x": _X.maximum(_Y)}, ("x", "y")),
}
_SCALED: Final = Kernel("scaled", {"out": _FACTOR * _X})
_ALONG: Final = Kernel("along", {"out": _X + _FACTOR * _Y}, ("x", "y"))
_STEP: Final = Kernel(
    "add_scaled", {"x": _X + _FACTOR * Expr.array("scale") * _Y}, ("x", "scale", "y")
)


class Vectors:
    """Operations on vectors laid out like these arenas, all of one dtype and backend.

    A scalar result is an array without axes; `read` brings it to the host.
    """

    def __init__(self, arenas: Sequence[Arena]) -> None:
        self.backend: Backend = arenas[0].backend
        self.dtype = arenas[0].dtype
        self._sizes = [arena.size for arena in arenas]
        self._scratch = self.empty()

    def empty(self) -> Vector:
        """Return an uninitialized vector."""
        return [self.backend.allocate((size,), self.dtype) for size in self._sizes]

    def copy(self, x: Vector) -> Vector:
        """Return a copy."""
        out = self.empty()
        self.write(x, out)
        return out

    def write(self, x: Vector, out: Vector) -> None:
        """Copy the elements of one vector into another."""
        for source, into in zip(x, out, strict=True):
            self.backend.copy(source, into)

    def along(self, x: Vector, factor: float, y: Vector, out: Vector | None = None) -> Vector:
        """Return x + factor y, in `out` if it is given."""
        out = self.empty() if out is None else out
        scalars = _ALONG.bind({"factor": factor})
        for a, b, into in zip(x, y, out, strict=True):
            self.backend.elementwise(_ALONG, (a, b), scalars, (into,))
        return out

    def scaled(self, factor: float, x: Vector) -> Vector:
        """Return factor x."""
        out, scalars = self.empty(), _SCALED.bind({"factor": factor})
        for a, into in zip(x, out, strict=True):
            self.backend.elementwise(_SCALED, (a,), scalars, (into,))
        return out

    def add_scaled(self, x: Vector, factor: float, scale: Array, y: Vector) -> None:
        """x = x + factor scale y, in place; scale: a scalar result."""
        scalars = _STEP.bind({"factor": factor})
        for a, b in zip(x, y, strict=True):
            self.backend.elementwise(_STEP, (a, scale, b), scalars, (a,))

    def dot(self, x: Vector, y: Vector) -> Array:
        """Return the sum of the products of the elements."""
        for a, b, into in zip(x, y, self._scratch, strict=True):
            self.backend.elementwise(_PRODUCT, (a, b), (), (into,))
        return self._reduced("sum")

    def total(self, x: Vector) -> Array:
        """Return the sum of the absolute elements."""
        self._absolute(x)
        return self._reduced("sum")

    def largest(self, x: Vector) -> Array:
        """Return the largest absolute element; NaN if one is NaN."""
        self._absolute(x)
        return self._reduced("max")

    def minus(self, x: Array, y: Array) -> Array:
        """Return x - y of two scalar results."""
        out = self.backend.allocate((), self.dtype)
        self.backend.elementwise(_ALONG, (x, y), _ALONG.bind({"factor": -1.0}), (out,))
        return out

    def times(self, factor: float, x: Array) -> Array:
        """Return factor x of a scalar result."""
        out = self.backend.allocate((), self.dtype)
        self.backend.elementwise(_SCALED, (x,), _SCALED.bind({"factor": factor}), (out,))
        return out

    def read(self, *scalars: Array) -> list[float]:
        """Return scalar results as numbers: one read for all of them."""
        together = self.backend.allocate((len(scalars),), self.dtype)
        for number, scalar in enumerate(scalars):
            self.backend.copy(scalar.reshape((1,)), together[number : number + 1])
        values: list[float] = np.asarray(self.backend.download(together), np.float64).tolist()
        return values

    def _absolute(self, x: Vector) -> None:
        for a, into in zip(x, self._scratch, strict=True):
            self.backend.elementwise(_SIZE, (a,), (), (into,))

    def _reduced(self, operation: Literal["sum", "max"]) -> Array:
        """Reduce the scratch arrays to one number."""
        found = [self.backend.allocate((), self.dtype) for _ in self._scratch]
        for array, out in zip(self._scratch, found, strict=True):
            self.backend.reduce(operation, array, (0,), out)
        for before, out in pairwise(found):
            self.backend.elementwise(_JOINED[operation], (out, before), (), (out,))
        return found[-1]
