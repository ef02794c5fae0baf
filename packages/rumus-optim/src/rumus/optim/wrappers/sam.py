"""SAM: takes the gradient where the loss is highest nearby."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from rumus.optim.engine.clip_gradients import total_of_squares
from rumus.optim.engine.closure import ClosureOptimizer, Evaluate
from rumus.optim.engine.optimizer import refuse_foreign
from rumus.optim.fused.fused import FusedOptimizer
from rumus.optim.options.group import M_co
from rumus.optim.options.hyperparameter import check
from rumus.optim.options.other_names import STEP
from rumus.optim.wrappers.wrapper import Wrapper
from rumus.tensor import (
    Arena,
    BackendMismatchError,
    DType,
    Expr,
    GradientStore,
    Kernel,
    Tensor,
    float64,
    sqrt,
    where,
)
from rumus.tensor.graph.buffer_update import BufferUpdate
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.uninterrupted import put_back_after

_P, _G, _T = Expr.array("p"), Expr.array("g"), Expr.array("t")
_FACTOR, _IS_BAD = Expr.array("factor"), Expr.array("is_bad")
_SCALE: Final = Kernel("sam_scale", {"t": _P.abs() + Expr.scalar("eta")}, ("p",))
_SCALED: Final = Kernel("sam_scaled", {"out": _T * _G}, ("t", "g"))
_CLIMB: Final = Kernel("sam_climb", {"p": _P + _FACTOR * _G}, ("p", "factor", "g"))
_CLIMB_SCALED: Final = Kernel(
    "sam_climb_scaled",
    {"p": _P + _FACTOR * where(_IS_BAD > 0.5, 1.0, _T) * _G},
    ("p", "factor", "is_bad", "t", "g"),
)
_HELD = where(_P.abs() < math.inf, 0.0, math.nan)
_MARK: Final = Kernel("sam_mark", {"g": where(_IS_BAD > 0.5, _HELD, _G)}, ("g", "is_bad", "p"))


def _factor_kernel() -> Kernel:
    """From the sum of squares to the distance of the climb, and whether it is non-finite.

    If so, the step is skipped later, and the offending parameters are those that are non-finite
    after the climb: 0 times NaN or infinity is NaN. If only the sum has overflowed, a large factor
    makes large elements infinite.
    """
    total = Expr.array("total")
    climb = Expr.scalar("rho") / (sqrt(total) + 1e-12)
    beyond = where(total <= math.inf, Expr.scalar("huge"), 0.0)
    outputs = {
        "factor": where(total < math.inf, climb, beyond),
        "is_bad": where(total < math.inf, 0.0, 1.0),
    }
    return Kernel("sam_factor", outputs, ("total",))


_FACTORS: Final = _factor_kernel()


class SAM(Wrapper[M_co], ClosureOptimizer[M_co]):
    """Sharpness-aware minimization: steps by the gradient from the worst point within rho.

    e = rho g / ||g||;  the base's step with the gradient at p + e, from p

    A step computes and differentiates the loss twice, so it takes a function:

    >>> from rumus.optim import SAM, SGD
    >>> from rumus.tensor import Parameter
    >>> w = Parameter([1.0], name="w")
    >>> optimizer = SAM(SGD([w], 0.25), rho=0.5)
    >>> loss = optimizer.minimize_step(lambda: (w * w).sum())  # the gradient at 1.5 is 3
    >>> w.tolist(), loss.item()
    ([0.25], 1.0)

    base: any fused optimizer but the averaging ones, or a Lookahead. It still owns the parameters,
        and its state is what is saved: SAM has none, so a second one of the same base, with another
        rho, steps as if it were the only one.
    rho, eta: at least 0. The norm is over all parameters of the base, which are on one backend.
    adaptive: ASAM, where the neighborhood grows with each weight: e = rho t^2 g / ||t g||, t = |p|
        + eta; rho is then usually ten times as large.

    Between the passes the parameters are displaced; they are restored bit for bit before the base's
    step, and after any failure. A non-finite gradient in either pass is handled by the base's
    `nonfinite`. On a GPU nothing is read. A step needs memory for one copy of the parameters (two
    if adaptive).

    Foret et al.: arXiv:2010.01412, algorithm 1; Kwon et al.: arXiv:2102.11600. The default rho is
    the paper's. Raises ValueError for a value out of range, TypeError for another base.
    """

    def __init__(
        self,
        base: FusedOptimizer[M_co] | Wrapper[M_co],
        rho: float = 0.05,
        *,
        adaptive: bool = False,
        eta: float = 0.01,
    ) -> None:
        self.rho = _at_least_0("rho", rho)
        self.eta = _at_least_0("eta", eta)
        self.adaptive = adaptive
        if isinstance(base, SAM):
            raise TypeError(f"SAM wraps an optimizer that steps with gradients, not {base}")
        super().__init__(base)
        self.fused.norm_is_taken = True

    def __str__(self) -> str:
        return f"SAM(rho={self.rho:g}{', adaptive' if self.adaptive else ''}) of {self.base}"

    @STEP.as_keywords
    def step(self, grads: GradientStore) -> None:  # type: ignore[override]
        """Raise ClosureNeededError: the gradients at one point are not enough.

        grads: what `backward` returned.
        """
        ClosureOptimizer.step(self, grads)

    def step_with(self, evaluate: Evaluate) -> Tensor:
        """Run one step; see `ClosureOptimizer.minimize_step`.

        evaluate: returns the loss at the current parameters, and a store, which is drained.
        """
        self._check_ready()
        first, grads = evaluate()
        updates = grads.keep_updates()  # the buffer updates at the step's starting point
        loss = first.clone()
        refuse_foreign(grads, self)
        gradients = self.fused.collected(grads)
        arenas = {n: self.fused.segments[n].arena for n in gradients}
        for number, gradient in gradients.items():
            arenas[number].drain(grads, gradient, str(self))
        self.base.step(self._gradients_of_worst(arenas, gradients, updates, evaluate))
        return loss

    def _check_ready(self) -> None:
        self.fused.check_owning()
        names = {id(p.backend): p.backend.name for p in self.parameters}
        if len(names) > 1:
            raise BackendMismatchError(
                f"SAM takes the norm over all parameters, which are on "
                f"{', '.join(names.values())}; move the whole model with .to(...)"
            )

    def _gradients_of_worst(
        self,
        arenas: Mapping[int, Arena],
        gradients: Mapping[int, Array],
        updates: Sequence[BufferUpdate],
        evaluate: Evaluate,
    ) -> GradientStore:
        """The gradients at p + e, with these buffer updates; the parameters are back at p."""
        kept = [(arena, _copied(arena)) for arena in arenas.values()]

        def look() -> GradientStore:
            factors = self._climb(arenas, gradients)
            _, grads = evaluate()
            grads.take_updates()
            grads.propose(updates)
            refuse_foreign(grads, self)
            for parameter in (p for arena in arenas.values() for p in arena.parameters):
                grads.check(parameter)
            if self.fused.nonfinite != "propagate":
                self._mark(grads, factors)
            return grads

        return put_back_after(look, partial(_put_back, kept))

    def _climb(
        self, arenas: Mapping[int, Arena], gradients: Mapping[int, Array]
    ) -> dict[DType, tuple[Array, Array]]:
        """Go to p + e; return, by dtype, the distance moved, and whether it is non-finite."""
        if not arenas:
            return {}
        backend = next(iter(arenas.values())).backend
        scales = {n: self._scale(arena) for n, arena in arenas.items()} if self.adaptive else {}
        measured = [self._product(arenas[n], scales.get(n), g) for n, g in gradients.items()]
        total = total_of_squares(backend, measured)
        dtypes = {arena.dtype for arena in arenas.values()}
        factors = {dtype: self._factors(arenas, total, dtype) for dtype in dtypes}
        for number, arena in arenas.items():
            factor, is_bad = factors[arena.dtype]
            p, g, t = arena.values, measured[list(arenas).index(number)], scales.get(number)
            if t is None:
                backend.elementwise(_CLIMB, (p, factor, g), (), (p,))
            else:
                backend.elementwise(_CLIMB_SCALED, (p, factor, is_bad, t, g), (), (p,))
            arena.written()
        return factors

    def _scale(self, arena: Arena) -> Array:
        t = arena.backend.allocate((arena.size,), arena.dtype)
        arena.backend.elementwise(_SCALE, (arena.values,), _SCALE.bind({"eta": self.eta}), (t,))
        return t

    def _product(self, arena: Arena, t: Array | None, gradient: Array) -> Array:
        """The vector whose norm is taken: the gradient, or t g."""
        if t is None:
            return gradient
        out = arena.backend.allocate((arena.size,), arena.dtype)
        arena.backend.elementwise(_SCALED, (t, gradient), (), (out,))
        return out

    def _factors(
        self, arenas: Mapping[int, Arena], total: Array, dtype: DType
    ) -> tuple[Array, Array]:
        backend = next(iter(arenas.values())).backend
        found = [backend.allocate((), total.dtype) for _ in range(2)]
        huge = 1e160 if dtype == float64 else 1e25
        scalars = _FACTORS.bind({"rho": self.rho, "huge": huge})
        backend.elementwise(_FACTORS, (total,), scalars, found)
        if dtype != total.dtype:
            cast = [backend.allocate((), dtype) for _ in found]
            for source, into in zip(found, cast, strict=True):
                backend.copy(source, into)
            found = cast
        return found[0], found[1]

    def _mark(self, grads: GradientStore, factors: Mapping[DType, tuple[Array, Array]]) -> None:
        """If the first gradient was non-finite, make the second so in the same places."""
        for segment in self.fused.segments:
            arena = segment.arena
            if arena.dtype not in factors:
                continue
            is_bad = factors[arena.dtype][1]
            if arena.holds(grads):
                pairs = [(arena.gradients, arena.values)]
            else:
                present = [p for p in arena.parameters if p in grads]
                pairs = [(grads.array(p), p._array) for p in present]
            for g, p in pairs:
                arena.backend.elementwise(_MARK, (g, is_bad, p), (), (g,))


def _copied(arena: Arena) -> Array:
    copy = arena.backend.allocate(arena.values.shape, arena.dtype)
    arena.backend.copy(arena.values, copy)
    return copy


def _put_back(kept: Sequence[tuple[Arena, Array]]) -> None:
    """Restore the parameters bit for bit."""
    for arena, copy in kept:
        arena.backend.copy(copy, arena.values)
        arena.written()


def _at_least_0(name: str, value: float) -> float:
    if check(name, value) < 0:
        raise ValueError(f"{name} must be finite and >= 0, not {value}")
    return float(value)
