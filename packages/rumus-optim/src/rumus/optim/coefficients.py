"""`Coefficients`: what the update multiplies gradients by, worked out before each step.

The sums of squares stay where the gradients are: a device goes on without the host. They also say
whether a gradient is not finite, so that nobody has to look at the gradients once more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from rumus.optim.clip import AGC, Clip, ClipNorm, ClipValue
from rumus.optim.clipping import factor_of, total_of_squares
from rumus.optim.segments import Segment
from rumus.tensor import (
    Backend,
    Expr,
    Kernel,
    Parameter,
    Tensor,
    float32,
    float64,
    maximum,
    sqrt,
    where,
)
from rumus.tensor import tensor as as_tensor
from rumus.tensor.backend import Array

FACTOR: Final = "clip_factor"  # of the gradients, among the arrays or scalars of an update
LIMIT: Final = "clip_limit"  # of each element

_TOTAL = Expr.array("total")
_FACTOR = Kernel("clip_factor", {"squares": _TOTAL, "factor": factor_of(_TOTAL)}, ("total",))
_SQUARE = Kernel("square", {"squares": Expr.array("x") * Expr.array("x")}, ("x",))


def _unit_kernel() -> Kernel:
    """AGC's factor of a unit from the sums of squares of its weights and its gradient."""
    limit = Expr.scalar("clipping") * maximum(sqrt(Expr.array("weights")), Expr.scalar("eps"))
    norm = maximum(sqrt(Expr.array("gradients")), 1e-6)  # the authors' code has this bound
    factor = where(limit < norm, limit / norm, 1.0)
    return Kernel("unit_factor", {"factor": factor}, ("weights", "gradients"))


_UNIT = _unit_kernel()


def limited(clip: Clip, g: Expr, is_array: bool) -> Expr:
    """Return the gradient as an update uses it.

    is_array: whether the factor lies in an array; otherwise it is a scalar.
    """
    if isinstance(clip, ClipValue):
        limit = Expr.scalar(LIMIT)
        return g.maximum(-limit).minimum(limit)
    return g * (Expr.array(FACTOR) if is_array else Expr.scalar(FACTOR))


@dataclass(slots=True, eq=False)
class _Place:
    """Where on one backend the sum of squares over a scope lies, and its factor."""

    backend: Backend
    squares: Array
    factor: Array
    segments: list[int] = field(default_factory=list)
    on_host: float = 1.0  # the factor, where the host knows it


class Coefficients:
    """The factors of the gradients in `segments`, under a `clip` that needs norms."""

    def __init__(self, clip: ClipNorm | AGC, segments: Sequence[Segment]) -> None:
        self.clip = clip
        self.segments = segments
        self.is_measured = False  # whether there is a norm yet
        self._is_uniform = isinstance(clip, ClipNorm) and clip.per != "tensor"
        self._scopes: dict[int, dict[int, _Place]] = {}
        for number, segment in enumerate(segments):
            self._include(number, segment)

    def _include(self, number: int, segment: Segment) -> None:
        by_group = isinstance(self.clip, ClipNorm) and self.clip.per == "group"
        backend = segment.arena.backend
        places = self._scopes.setdefault(id(segment.group) if by_group else 0, {})
        if id(backend) not in places:
            dtype = float32 if backend.runs_ahead else float64
            arrays = [backend.allocate((), dtype) for _ in range(2)]
            places[id(backend)] = _Place(backend, *arrays)
        place = places[id(backend)]
        place.segments.append(number)
        segment.squares = place.squares
        if not self._is_uniform:
            segment.scratch[FACTOR] = segment.arena.zeros()
        elif backend.runs_ahead:
            segment.scratch[FACTOR] = place.factor

    def of(self, number: int) -> float:
        """Return the factor of a segment whose update takes it as a scalar."""
        places = [p for scope in self._scopes.values() for p in scope.values()]
        return next(place.on_host for place in places if number in place.segments)

    def compute(self, gradients: Mapping[int, Array]) -> None:
        """Work out the factors of flat gradients, given by the number of the segment."""
        for places in self._scopes.values():
            present = [p for p in places.values() if any(n in gradients for n in p.segments)]
            self._measure(present, gradients)
        if not self._is_uniform:
            for number, gradient in gradients.items():
                self._fill(self.segments[number], gradient)
        self.is_measured = True

    def _measure(self, places: Sequence[_Place], gradients: Mapping[int, Array]) -> None:
        """The sum of squares over one scope, and the factor that follows from it."""
        totals = [
            total_of_squares(p.backend, [gradients[n] for n in p.segments if n in gradients])
            for p in places
        ]
        if len(places) > 1:  # on several backends: the sums are read
            pairs = list(zip(places, totals, strict=True))
            whole = sum(float(place.backend.download(total)) for place, total in pairs)
            for place, total in pairs:
                place.backend.fill(whole, total)
        scalars = _FACTOR.bind(self._limits())
        for place, total in zip(places, totals, strict=True):
            backend = place.backend
            backend.elementwise(_FACTOR, (total,), scalars, (place.squares, place.factor))
            if self._is_uniform and not backend.runs_ahead:
                place.on_host = float(backend.download(place.factor))

    def _limits(self) -> dict[str, float]:
        if isinstance(self.clip, AGC):
            return {"max_norm": math.inf, "eps": 0.0}
        return {"max_norm": self.clip.max_norm, "eps": self.clip.eps}

    def _fill(self, segment: Segment, gradient: Array) -> None:
        """Write the factor of each tensor, or of each unit, to all of its elements."""
        arena = segment.arena
        triples = zip(
            arena.parameters,
            arena.views(gradient),
            arena.views(segment.scratch[FACTOR]),
            strict=True,
        )
        for parameter, view, factors in triples:
            if isinstance(self.clip, AGC):
                found = self._of_units(self.clip, parameter, view)
            else:
                found = self._of_tensor(arena.backend, view)
            arena.backend.copy(found, factors.reshape((*found.shape[:1], -1)))

    def _of_tensor(self, backend: Backend, gradient: Array) -> Array:
        total = backend.sum_of_squares(gradient)
        squares, factor = (backend.allocate((), total.dtype) for _ in range(2))
        backend.elementwise(_FACTOR, (total,), _FACTOR.bind(self._limits()), (squares, factor))
        return factor.reshape((1, 1))

    def _of_units(self, clip: AGC, parameter: Parameter, gradient: Array) -> Array:
        backend = parameter._backend
        sums = [_unit_squares(backend, x) for x in (parameter._array, gradient)]
        factor = backend.allocate(sums[0].shape, parameter.dtype)
        scalars = _UNIT.bind({"clipping": clip.clipping, "eps": clip.eps})
        backend.elementwise(_UNIT, sums, scalars, (factor,))
        return factor.reshape((-1, 1))

    def norm(self) -> Tensor:
        """Return the joint norm of the gradients that were measured last."""
        firsts = [next(iter(places.values())) for places in self._scopes.values()]
        if len({id(place.backend) for place in firsts}) > 1:
            parts = [float(place.backend.download(place.squares)) for place in firsts]
            return as_tensor(math.sqrt(sum(parts)))
        return _sum(Tensor(place.squares, place.backend) for place in firsts).sqrt()


def _sum(tensors: Iterable[Tensor]) -> Tensor:
    first, *others = tensors
    for other in others:
        first = first + other
    return first


def _unit_squares(backend: Backend, array: Array) -> Array:
    """The sum of squares of each unit: of each row, or of all of a vector."""
    units = array.shape[0] if len(array.shape) > 1 else 1
    rows = array.reshape((units, array.size // units))
    squares = backend.allocate(rows.shape, array.dtype)
    backend.elementwise(_SQUARE, (rows,), (), (squares,))
    out = backend.allocate((units,), array.dtype)
    backend.reduce("sum", squares, (1,), out)
    return out
