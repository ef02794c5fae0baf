"""`ClipFactors`: the factors of gradients in the update, computed before each step.

The sums of squares stay where the gradients are, so a device continues without the host. They also
show whether a gradient is not finite, so the gradients need no further check.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final, TypeAlias

import numpy as np

from rumus.optim.engine.clip_gradients import added_up, factor_of
from rumus.optim.engine.loss_scale import Scaling
from rumus.optim.engine.precision import computed_in
from rumus.optim.engine.segments import Segment
from rumus.optim.engine.stage import Stage
from rumus.optim.fused.large_norms import large_factor, large_norm, shrink, shrunk, widest
from rumus.optim.options.clip import AGC, AdaGC, ClipNorm, ZClip
from rumus.tensor import (
    Arena,
    Backend,
    Expr,
    Kernel,
    Parameter,
    Tensor,
    maximum,
    sqrt,
    where,
)
from rumus.tensor import tensor as as_tensor
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.slot_table import ALIGNMENT
from rumus.tensor.memory.updater import NonFinite

Norms: TypeAlias = ClipNorm | AGC | ZClip | AdaGC  # a `clip` that needs norms
FACTOR: Final = "clip_factor"  # the gradients' factor: an array or a scalar of the update kernel

_TOTAL = Expr.array("total")
_FACTOR = Kernel("clip_factor", {"squares": _TOTAL, "factor": factor_of(_TOTAL)}, ("total",))
_SHRUNK = Expr.array("shrunk")
_LARGE = large_factor(_TOTAL, _SHRUNK)
_LARGE_FACTOR = Kernel(
    "large_clip_factor", {"squares": _TOTAL, "factor": _LARGE}, ("total", "shrunk")
)
_SQUARE = Kernel("square", {"squares": Expr.array("x") * Expr.array("x")}, ("x",))
_ONCE = where(Expr.scalar("zero") < Expr.array("is_first"), _TOTAL, 0.0)
_SLOTS = Kernel("slot_factor", {"once": _ONCE, "factor": factor_of(_TOTAL)}, ("total", "is_first"))
_LARGE_SLOTS = Kernel("large_slot_factor", {"factor": _LARGE}, ("total", "shrunk"))


def _unit_kernel() -> Kernel:
    """AGC's factor of a unit from the sums of squares of its weights and its gradient."""
    limit = Expr.scalar("clipping") * maximum(sqrt(Expr.array("weights")), Expr.scalar("eps"))
    norm = maximum(sqrt(Expr.array("gradients")), 1e-6)  # as in the authors' code
    factor = where(limit < norm, limit / norm, 1.0)
    return Kernel("unit_factor", {"factor": factor}, ("weights", "gradients"))


_UNIT = _unit_kernel()


def _large_unit_kernel() -> Kernel:
    """AGC's factor if the sum of the gradient's squares may have overflowed."""
    limit = Expr.scalar("clipping") * maximum(sqrt(Expr.array("weights")), Expr.scalar("eps"))
    beyond = limit / sqrt(Expr.array("shrunk")) * Expr.scalar("shrink")
    within = _UNIT.outputs["factor"]
    factor = where(Expr.array("gradients") < math.inf, within, where(beyond < 1.0, beyond, 1.0))
    return Kernel("large_unit_factor", {"factor": factor}, ("weights", "gradients", "shrunk"))


_LARGE_UNIT = _large_unit_kernel()


@dataclass(slots=True, eq=False)
class Place:
    """The sum of squares over a scope, and its factor, on one backend."""

    backend: Backend
    squares: Array
    factor: Array
    shrunk: Array | None = None  # the sum of gradients multiplied by `shrink`, if used
    segments: list[int] = field(default_factory=list)
    on_host: float = 1.0  # the factor, if the host knows it


@dataclass(frozen=True, slots=True, eq=False)
class _Slots:
    """The sums of squares of a segment's tensors, one per row of its arena.

    is_first: 1 in a tensor's first row, else 0. once: the sums where is_first is 1, else 0.
    """

    squares: Array
    is_first: Array
    once: Array

    @classmethod
    def of(cls, arena: Arena) -> _Slots:
        table, backend = arena.table, arena.backend
        is_first = np.zeros((table.rows, 1), computed_in(arena.dtype))
        is_first[table.filled[:, 0] // ALIGNMENT] = 1
        squares = backend.allocate(is_first.shape, is_first.dtype)
        once = backend.allocate(is_first.shape, widest(backend))
        return cls(squares, backend.upload(is_first), once)


def _scope_of(clip: Norms) -> str:
    """Whose norm is limited."""
    if isinstance(clip, ClipNorm):
        return clip.per
    return {AGC: "unit", ZClip: "all", AdaGC: "tensor"}[type(clip)]


class ClipFactors(Stage):
    """A `clip` that needs norms: g is multiplied by the factor of its tensor, its group or all."""

    arrays: ClassVar[Sequence[str]] = (FACTOR,)

    factor: ClassVar[Kernel] = _FACTOR
    large: ClassVar[Kernel] = _LARGE_FACTOR  # `factor` if the sum of squares may have overflowed

    def __init__(self, clip: Norms, nonfinite: NonFinite) -> None:
        self.clip: Norms = clip
        # Otherwise a step with a non-finite sum of squares is refused and needs no factor.
        self._takes_all = nonfinite == "propagate"
        self.is_measured = False  # whether a norm was measured
        self._per = _scope_of(clip)
        self._start((), None)

    def _start(self, segments: Sequence[Segment], scaling: Scaling | None) -> None:
        self.segments, self.scaling = segments, scaling
        self._scopes: dict[int, dict[int, Place]] = {}
        self._slots: dict[int, _Slots] = {}
        self._shrunk_slots: dict[int, Array] = {}  # the sums of shrunk squares, where they matter

    def place(self, segments: Sequence[Segment], scaling: Scaling | None) -> None:
        """Give segments memory for sums of squares and, if they are in an array, for factors.

        scaling: the loss scale, if any; the factors do not include it.
        """
        self._start(segments, scaling)
        self.is_measured = False
        for number, segment in enumerate(segments):
            self._include(number, segment)

    def gradient(self, g: Expr, p: Expr, there: Collection[str]) -> Expr:
        """Return the gradient times its factor."""
        return g * (Expr.array(FACTOR) if FACTOR in there else Expr.scalar(FACTOR))

    def bounds(self) -> float:
        """Return the limit of the norm."""
        return self.clip.max_norm if isinstance(self.clip, (ClipNorm, ZClip)) else math.inf

    def scalars(self, number: int, t: int) -> Mapping[str, float]:
        """Return the factor of a segment whose update takes it as a scalar."""
        places = [p for scope in self._scopes.values() for p in scope.values()]
        return {FACTOR: next(place.on_host for place in places if number in place.segments)}

    def _include(self, number: int, segment: Segment) -> None:
        backend = segment.arena.backend
        places = self._scopes.setdefault(id(segment.group) if self._per == "group" else 0, {})
        if id(backend) not in places:
            arrays = [backend.allocate((), widest(backend)) for _ in range(2)]
            places[id(backend)] = Place(backend, *arrays)
        place = places[id(backend)]
        place.segments.append(number)
        segment.squares = place.squares
        if self._per == "unit":
            segment.scratch[FACTOR] = segment.arena.zeros(computed_in(segment.arena.dtype))
        elif self._per == "tensor":
            slots = self._slots[number] = _Slots.of(segment.arena)
            squares = slots.squares
            segment.scratch[FACTOR] = backend.allocate(squares.shape, squares.dtype)
        elif backend.runs_ahead:
            segment.scratch[FACTOR] = place.factor

    def prepare(self, gradients: Mapping[int, Array]) -> None:
        """Compute the factors of flat gradients, given by segment number."""
        for places in self._scopes.values():
            present = [p for p in places.values() if any(n in gradients for n in p.segments)]
            self._measure(present, gradients)
        if isinstance(self.clip, AGC):
            for number, gradient in gradients.items():
                self._fill(self.clip, self.segments[number], gradient)
        self.is_measured = True

    def _measure(self, places: Sequence[Place], gradients: Mapping[int, Array]) -> None:
        """The sum of squares over one scope, and its factor."""
        totals = [
            added_up(p.backend, [self._sum(n, gradients[n]) for n in p.segments if n in gradients])
            for p in places
        ]
        if len(places) > 1:  # on several backends: read the sums
            pairs = list(zip(places, totals, strict=True))
            whole = sum(float(place.backend.download(total)) for place, total in pairs)
            for place, total in pairs:
                place.backend.fill(whole, total)
        if self._takes_all:
            self._measure_large(places, totals, gradients)
        for place, total in zip(places, totals, strict=True):
            self._write_factor(place, total)
            if self._per in ("all", "group") and not place.backend.runs_ahead:
                place.on_host = float(place.backend.download(place.factor))

    def _write_factor(self, place: Place, total: Array) -> None:
        """Write the sum of squares and the factor to their places."""
        backend, found = place.backend, (place.squares, place.factor)
        kernel = self.factor if place.shrunk is None else self.large
        sums = (total,) if place.shrunk is None else (total, place.shrunk)
        scalars = kernel.bind(self._limits(backend))
        backend.elementwise(kernel, (*sums, *self._known(place)), scalars, found)

    def _known(self, place: Place) -> Sequence[Array]:
        """The state numbers that the factor kernels read in addition to sums."""
        return ()

    def _measure_large(
        self, places: Sequence[Place], totals: Sequence[Array], gradients: Mapping[int, Array]
    ) -> None:
        """The sums of shrunk squares, computed whenever the host cannot rule them out."""
        needed = [
            p.backend.runs_ahead or not math.isfinite(float(p.backend.download(total)))
            for p, total in zip(places, totals, strict=True)
        ]
        for place in places:
            backend, numbers = place.backend, [n for n in place.segments if n in gradients]
            place.shrunk = None
            if any(needed):
                sums = [self._shrunk_sum(n, gradients[n]) for n in numbers]
                place.shrunk = added_up(backend, sums)
        if len(places) > 1 and any(needed):
            exact = [float(p.backend.download(p.shrunk)) / shrink(p.backend) for p in places]
            for place in places:
                own = shrink(place.backend)
                place.backend.fill(sum(x * own for x in exact) * own, place.shrunk)

    def _shrunk_sum(self, number: int, gradient: Array) -> Array:
        """The sum of a segment's shrunk squares; also computes its tensors' factors."""
        segment, slots = self.segments[number], self._slots.get(number)
        backend = segment.arena.backend
        small = shrunk(backend, gradient)
        if slots is not None:
            sums = backend.allocate(slots.squares.shape, small.dtype)
            backend.slot_sums(small, segment.arena.table, sums, squared=True)
            self._shrunk_slots[number] = sums
            scalars = _LARGE_SLOTS.bind(self._limits(backend))
            given = slots.squares, sums
            backend.elementwise(_LARGE_SLOTS, given, scalars, (segment.scratch[FACTOR],))
        return backend.sum_of_squares(small)

    def _sum(self, number: int, gradient: Array) -> Array:
        """The sum of squares of a segment's gradients; also computes its tensors' factors."""
        segment, slots = self.segments[number], self._slots.get(number)
        backend = segment.arena.backend
        if slots is None:
            return self._unscaled(backend, backend.sum_of_squares(gradient))
        backend.slot_sums(gradient, segment.arena.table, slots.squares, squared=True)
        self._unscaled(backend, slots.squares)
        scalars = _SLOTS.bind(self._limits(backend))
        given, found = (slots.squares, slots.is_first), (slots.once, segment.scratch[FACTOR])
        backend.elementwise(_SLOTS, given, scalars, found)
        total = backend.allocate((), slots.once.dtype)
        backend.reduce("sum", slots.once.reshape(-1), (0,), total)
        return total

    def _unscaled(self, backend: Backend, squares: Array) -> Array:
        """`squares`, divided in place by the square of the loss scale."""
        if self.scaling is not None:
            self.scaling.unscale_squares(backend, squares)
        return squares

    def _limits(self, backend: Backend) -> dict[str, float]:
        """The scalars of the kernels of factors."""
        clip, max_norm, eps = self.clip, math.inf, 0.0
        if isinstance(clip, (ClipNorm, ZClip)):
            max_norm, eps = clip.max_norm, clip.eps
        return {"max_norm": max_norm, "eps": eps, "zero": 0.0, "shrink": shrink(backend)}

    def _fill(self, clip: AGC, segment: Segment, gradient: Array) -> None:
        """Write the factor of each unit to all of its elements."""
        arena = segment.arena
        backend = arena.backend
        small = arena.views(shrunk(backend, gradient) if self._takes_all else gradient)
        views = arena.views(gradient), small, arena.views(segment.scratch[FACTOR])
        for parameter, view, less, factors in zip(arena.parameters, *views, strict=True):
            if parameter.size:
                sums = [self._unscaled(backend, _unit_squares(backend, view))]
                sums += [_unit_squares(backend, less)] if self._takes_all else []
                found = _of_units(clip, parameter, sums)
                backend.copy(found, factors.reshape((*found.shape[:1], -1)))

    def norm(self) -> Tensor:
        """Return the joint norm of the last measured gradients."""
        firsts = [next(iter(places.values())) for places in self._scopes.values()]
        if len({id(place.backend) for place in firsts}) > 1:
            return as_tensor(math.hypot(*(_norm_of(place).item() for place in firsts)))
        if any(place.shrunk is not None for place in firsts):
            return _large_norm(firsts)
        return _sum(Tensor(place.squares, place.backend) for place in firsts).sqrt()


def joint_norm(stages: Iterable[Stage], optimizer: object) -> Tensor:
    """Return the norm that clipping measured last. ValueError if there is none."""
    found = [stage for stage in stages if isinstance(stage, ClipFactors)]
    if not found:
        raise ValueError(
            f"{optimizer} computes no norm: make it with clip=ClipNorm(...); "
            "ClipNorm(math.inf) only measures"
        )
    if not found[0].is_measured:
        raise ValueError(f"{optimizer} has not done a step yet, so there is no norm")
    return found[0].norm()


def _large_norm(places: Sequence[Place]) -> Tensor:
    """The joint norm of scopes on one backend, scaled by the largest: squares may overflow."""
    norms = [_norm_of(place) for place in places]
    largest, *others = norms
    for norm in others:
        largest = largest.maximum(norm)
    joint = largest * _sum((norm / largest) ** 2 for norm in norms).sqrt()
    return (largest > 0).where((largest < math.inf).where(joint, largest), largest)


def _norm_of(place: Place) -> Tensor:
    if place.shrunk is None:
        return Tensor(place.squares, place.backend).sqrt()
    return Tensor(large_norm(place.backend, place.squares, place.shrunk), place.backend)


def _sum(tensors: Iterable[Tensor]) -> Tensor:
    first, *others = tensors
    for other in others:
        first = first + other
    return first


def _of_units(clip: AGC, parameter: Parameter, squares: Sequence[Array]) -> Array:
    """AGC's factor of each unit, [units, 1].

    squares: the sums of squares of its gradient, and of the gradient times `shrink` if those of the
        gradient may have overflowed.
    """
    backend = parameter._backend
    sums = [_unit_squares(backend, parameter._array), *squares]
    factor = backend.allocate(sums[0].shape, sums[0].dtype)
    kernel = _UNIT if len(squares) == 1 else _LARGE_UNIT
    limits = {"clipping": clip.clipping, "eps": clip.eps, "shrink": shrink(backend)}
    backend.elementwise(kernel, sums, kernel.bind(limits), (factor,))
    return factor.reshape((-1, 1))


def _unit_squares(backend: Backend, array: Array) -> Array:
    """The sum of squares of each unit: a row, or a whole vector. At least float32."""
    units = array.shape[0] if len(array.shape) > 1 else 1
    dtype = computed_in(array.dtype)
    wide = backend.allocate(array.shape, dtype)
    backend.copy(array, wide)
    rows = wide.reshape((units, array.size // units))
    backend.elementwise(_SQUARE, (rows,), (), (rows,))
    out = backend.allocate((units,), dtype)
    backend.reduce("sum", rows, (1,), out)
    return out
