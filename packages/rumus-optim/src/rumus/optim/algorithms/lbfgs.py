"""L-BFGS with a line search for the strong Wolfe conditions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from rumus.optim.algorithms.line_search import Trial, strong_wolfe
from rumus.optim.algorithms.vectors import Vector, Vectors
from rumus.optim.engine.closure import ClosureOptimizer, Evaluate
from rumus.optim.engine.description import description
from rumus.optim.engine.footprint import Memory, used
from rumus.optim.engine.optimizer import check_one_backend, refuse_foreign
from rumus.optim.engine.saved_state import FORMAT, check_unique, differences, entries, prepared
from rumus.optim.engine.segments import Segment, host_state, in_their_dtype, lay_out
from rumus.optim.options.group import Claimable, M_co, ParameterGroup
from rumus.optim.options.hyperparameter import Hyper, at_step, checked
from rumus.optim.options.other_names import STATE
from rumus.tensor import (
    Backend,
    GradientStore,
    NonFiniteGradientError,
    Parameter,
    Parameters,
    StateMismatchError,
    Tensor,
)
from rumus.tensor.expression.choice import check_choice
from rumus.tensor.expression.whole_number import whole_number
from rumus.tensor.graph.buffer_update import BufferUpdate
from rumus.tensor.memory.uninterrupted import Uninterrupted, put_back_after
from rumus.tensor.memory.updater import NonFinite, Outcome

CURVATURE: Final = 1e-10  # a step with a smaller s y is not stored


@dataclass(frozen=True, slots=True)
class _Pair:
    """The step, the change of the gradient, and 1 / (s y), s y / (y y)."""

    s: Vector
    y: Vector
    rho: float
    scale: float


@dataclass(frozen=True, slots=True)
class _Point:
    """The loss at one point. largest: the largest element of its gradient."""

    loss: Tensor
    value: float
    gradient: Vector
    largest: float
    slope: float  # along the search direction
    updates: Sequence[BufferUpdate]  # proposed buffer updates; those of the first point count

    @property
    def is_finite(self) -> bool:
        return all(map(math.isfinite, (self.value, self.largest, self.slope)))


@dataclass(slots=True)
class _Progress:
    """The iterations of one step so far."""

    x: Vector
    now: _Point
    pairs: list[_Pair]
    evaluations: int = 1


class LBFGS(ClosureOptimizer[M_co]):
    """Limited-memory BFGS: Newton's method with the curvature estimated from recent steps.

    The loss must be the same function at every call: the whole data set, or one fixed batch, and no
    dropout. A step needs the loss at several points, so it takes a function:

    >>> from rumus.optim import LBFGS
    >>> from rumus.tensor import Parameter, Tensor
    >>> w = Parameter([-1.0, 2.0], name="w", dtype="float64")
    >>> def loss() -> Tensor:
    ...     return (1 - w[0]) ** 2 + 100 * (w[1] - w[0] ** 2) ** 2
    >>> optimizer = LBFGS([w])
    >>> for _ in range(4):
    ...     before = optimizer.minimize_step(loss)
    >>> [round(x, 4) for x in w.tolist()]
    [1.0, 1.0]

    One step does up to `max_iter` iterations: a direction by the two-loop recursion, then a line
    search along it.

    parameters: to own; see `Optimizer`.
    lr: at least 0, the first length to try.
    max_iter: the maximum number of iterations per step.
    max_eval: the maximum number of loss evaluations per step, by default 1.25 max_iter; a started
        search may need one more.
    tolerance_grad: stop if no element of the gradient is larger.
    tolerance_change: stop if the loss, or every parameter, changes by less.
    history_size: the number of stored steps, each taking twice the memory of the parameters.
    nonfinite: how a NaN or infinite loss or gradient at the start of a step is handled: "raise" or
        "skip"; see `FusedOptimizer`. Later in the search, such a point only means that the step was
        too long.

    The defaults and the iterates are those of PyTorch with `strong_wolfe`.

    All parameters have one dtype and are on one backend; groups have no options of their own. The
    host decides, so on a GPU each evaluation is read once, and each direction twice. ValueError for
    a value out of range, TypeError for options of groups or several dtypes.

    Nocedal, Wright: Numerical Optimization (2006), algorithms 7.4, 3.5 and 3.6.
    """

    def __init__(
        self,
        parameters: Claimable[M_co],
        lr: Hyper = 1.0,
        *,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        nonfinite: NonFinite = "raise",
    ) -> None:
        check_choice("LBFGS: nonfinite", nonfinite, ("raise", "skip"))
        self.hyper = checked({"lr": lr})
        self.max_iter = _count("max_iter", max_iter)
        default = self.max_iter * 5 // 4
        self.max_eval = default if max_eval is None else _count("max_eval", max_eval)
        self.history_size = _count("history_size", history_size)
        self.tolerance_grad = _tolerance("tolerance_grad", tolerance_grad)
        self.tolerance_change = _tolerance("tolerance_change", tolerance_change)
        self.nonfinite = nonfinite
        self.blamed: tuple[str, ...] = ()
        self.segments: list[Segment] = []
        self._curvatures: list[tuple[float, float]] = []  # rho and scale of each pair
        self._vectors: Vectors | None = None
        self._is_away = False  # whether the parameters are at a trial point
        with Uninterrupted():  # its parameters are claimed and laid out, or neither
            super().__init__(parameters)
            try:
                self._check_groups()
                self.segments = lay_out(self.groups, {}, in_their_dtype(()))
            except BaseException:
                self.release()
                raise
            for segment in self.segments:
                segment.arena.adopt()

    def _check_groups(self) -> None:
        for group in self.groups:
            if group.hyper or group.optional or group.lr_scale != 1:
                raise TypeError(
                    f"LBFGS steps all parameters as one vector, but {group} has its own options"
                )
        if len(dtypes := {str(p.dtype) for p in self.parameters}) > 1:
            raise TypeError(f"LBFGS takes parameters of one dtype, not {', '.join(sorted(dtypes))}")

    def describe(self) -> str:
        """Return a table of its parameters, with shapes and roles."""
        return description(self, self.hyper, False)

    def memory(self) -> Memory:
        """Return the bytes of parameters, gradients and currently stored steps."""
        return used(self.segments)

    # The step

    def step_with(self, evaluate: Evaluate) -> Tensor:
        """Do up to `max_iter` iterations; see `ClosureOptimizer`.

        evaluate: returns the loss at the current parameters, and a store, which is drained.

        NonFiniteGradientError, with the names, for a non-finite loss or gradient at the start of
        the step; BackendMismatchError if only some of the parameters were moved.
        """
        v = self._ready()
        if unknown := self.hyper.keys() - {"lr"}:
            raise TypeError(f"LBFGS has no hyperparameter {min(unknown)!r}; it has lr")
        lr = at_step("lr", checked(self.hyper)["lr"], self.steps + 1)
        before = v.copy(self._values)

        def iterated() -> Tensor:
            now = first = self._look(v, evaluate)
            loss = now.loss.clone()
            if not now.is_finite:
                self._refuse(now)
                return loss
            progress = _Progress(before, now, self._pairs())
            for _ in range(self.max_iter):
                if not self._iterate(v, evaluate, progress, lr):
                    break
            with Uninterrupted():
                if self._is_away:
                    self._place(v, progress.x)
                self._remember(progress.pairs)
                for update in first.updates:
                    update.write()
                self.steps += 1
                self.outcome = Outcome(True)
            return loss

        return put_back_after(iterated, partial(self._put_back, v, before))

    def _put_back(self, v: Vectors, before: Vector) -> None:
        if self._is_away:
            self._place(v, before)

    def _ready(self) -> Vectors:
        """The vectors for the current arenas."""
        self.check_owning()
        check_one_backend(ParameterGroup(Parameters(self.named_parameters())))
        if self._vectors is None:
            self._vectors = Vectors([segment.arena for segment in self.segments])
        return self._vectors

    @property
    def _values(self) -> Vector:
        return [segment.arena.values for segment in self.segments]

    def _place(self, v: Vectors, x: Vector) -> None:
        """Set the parameters to the final point."""
        v.write(x, self._values)
        self._note_written()
        self._is_away = False

    def _note_written(self) -> None:
        for segment in self.segments:
            segment.arena.written()

    def _iterate(self, v: Vectors, evaluate: Evaluate, run: _Progress, lr: float) -> bool:
        """Search along one direction; return whether to try another."""
        if run.now.largest <= self.tolerance_grad:
            return False
        d = _direction(v, run.pairs, run.now.gradient)
        measured = v.dot(run.now.gradient, d), v.largest(d), v.total(run.now.gradient)
        slope, longest, total = v.read(*measured)
        if not slope <= -self.tolerance_change:
            return False

        def phi(t: float) -> Trial:
            self._is_away = True
            v.along(run.x, t, d, self._values)
            self._note_written()
            run.evaluations += 1
            point = self._look(v, evaluate, d)
            value = point.value if point.is_finite else math.inf
            return Trial(t, value, point.slope, point)

        found = strong_wolfe(
            phi,
            Trial(0.0, run.now.value, slope, run.now),
            lr if run.pairs else lr * min(1.0, 1.0 / total),
            resolution=self.tolerance_change / longest,
            limit=self.max_eval - run.evaluations,
        )
        change = abs(found.value - run.now.value)
        self._advance(v, run, found, d)
        is_moving = min(found.t * longest, change) > self.tolerance_change
        return is_moving and run.evaluations < self.max_eval

    def _advance(self, v: Vectors, run: _Progress, found: Trial, d: Vector) -> None:
        """Move to the end of a search, and store the curvature."""
        s = v.scaled(found.t, d)
        y = v.along(found.found.gradient, -1.0, run.now.gradient)
        run.x, run.now = v.along(run.x, found.t, d), found.found
        curvature, square = v.read(v.dot(y, s), v.dot(y, y))
        if curvature > CURVATURE:
            pair = _Pair(s, y, 1.0 / curvature, curvature / square)
            run.pairs = [*run.pairs, pair][-self.history_size :]

    def _look(self, v: Vectors, evaluate: Evaluate, d: Vector | None = None) -> _Point:
        """The loss at the current parameters; d: the search direction."""
        loss, grads = evaluate()
        updates = grads.keep_updates()
        gradient = self._drained(v, grads)
        largest = v.largest(gradient)
        slope = largest if d is None else v.dot(gradient, d)
        if loss.dtype == v.dtype and loss.backend is v.backend:
            found = v.read(loss._array, largest, slope)
        else:
            found = [float(loss), *v.read(largest, slope)]
        return _Point(loss, found[0], gradient, found[1], found[2], updates)

    def _drained(self, v: Vectors, grads: GradientStore) -> Vector:
        """The gradients in a store, as a new vector; they are drained."""
        refuse_foreign(grads, self)
        for parameter in self.parameters:
            grads.check(parameter)
        collected = [segment.arena.collect(grads) for segment in self.segments]
        gradient = v.copy(collected)
        for segment, flat in zip(self.segments, collected, strict=True):
            segment.arena.drain(grads, flat, str(self))
        return gradient

    def _refuse(self, at: _Point) -> None:
        """Raise for, or count, a non-finite loss or gradient at the start of the step."""
        names = self._names(at.gradient)
        if self.nonfinite == "raise":
            what = f"the gradients of {', '.join(map(repr, names))}" if names else "the loss"
            raise NonFiniteGradientError(
                f"{what} hold{'' if names else 's'} NaN or infinity at the start of the step, and "
                'nothing was updated; nonfinite="skip" would skip such a step'
            )
        with Uninterrupted():
            self.skipped += 1
            self.blamed = names
            self.outcome = Outcome(False)

    def _names(self, gradient: Vector) -> tuple[str, ...]:
        bad = {
            p.id
            for segment, flat in zip(self.segments, gradient, strict=True)
            for p, view in zip(segment.arena.parameters, segment.arena.views(flat), strict=True)
            if segment.arena.backend.first_not_finite(view) is not None
        }
        return tuple(name for name, p in self.named_parameters() if p.id in bad)

    # The stored steps: parts s0, y0, s1, y1 ... of the segments' state, oldest first

    def _pairs(self) -> list[_Pair]:
        return [
            _Pair(self._parts(f"s{n}"), self._parts(f"y{n}"), *found)
            for n, found in enumerate(self._curvatures)
        ]

    def _parts(self, name: str) -> Vector:
        return [segment.state[name] for segment in self.segments]

    def _remember(self, pairs: Sequence[_Pair]) -> None:
        for number, segment in enumerate(self.segments):
            arrays = [array for pair in pairs for array in (pair.s[number], pair.y[number])]
            segment.state = dict(zip(_names_of_parts(len(pairs)), arrays, strict=True))
        self._curvatures = [(pair.rho, pair.scale) for pair in pairs]

    def release(self) -> None:
        """Give up the parameters: another optimizer may claim them. They keep their values."""
        with Uninterrupted():
            for segment in self.segments:
                segment.arena.release()
            self.segments, self._curvatures, self._vectors = [], [], None
            super().release()

    def move(self, parameters: Sequence[Parameter], backend: Backend) -> None:
        """Move parameters and their stored steps to another backend.

        parameters: those to move.
        backend: their new backend.
        """
        before = host_state(self.segments)
        places = {p.id: backend for p in parameters}
        layout = in_their_dtype(_names_of_parts(len(self._curvatures)))
        segments = lay_out(self.groups, places, layout)
        for segment in segments:
            segment.fill(before)
        with Uninterrupted():
            for segment in segments:
                segment.arena.adopt()
            self.segments, self._vectors = segments, None

    # Saving

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the state by parameter name; see `FusedOptimizer.state_dict`."""
        self.check_owning()
        check_unique(self.named_parameters())
        for segment in self.segments:
            segment.steps = self.steps
        return {
            "format": FORMAT,
            "kind": type(self).__name__,
            "steps": self.steps,
            "skipped": self.skipped,
            "parameters": entries(self.named_parameters(), self.segments),
        }

    @STATE.as_keywords
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state; see `FusedOptimizer.load_state_dict`.

        state: what `state_dict()` returned.

        BackendMismatchError if only some of the parameters were moved.
        """
        v = self._ready()
        check_unique(self.named_parameters())
        count = _saved_pairs(state)
        names = _names_of_parts(count)
        found = differences(
            self,
            state,
            type(self).__name__,
            dict(self.named_parameters()),
            {p.id: dict.fromkeys(names, p.dtype) for p in self.parameters},
        )
        if count > self.history_size:
            found.append(f"history: saved {count} steps, here history_size={self.history_size}")
        if found:
            raise StateMismatchError("this state does not fit the LBFGS:\n  " + "\n  ".join(found))
        segments = [
            Segment(s.arena, {name: s.arena.zeros() for name in names}, s.group, 0)
            for s in self.segments
        ]
        prepared(segments, {p.id: state["parameters"][n] for n, p in self.named_parameters()})()
        curvatures = [_curvature(v, segments, n) for n in range(count)]
        with Uninterrupted():
            self.segments, self._curvatures = segments, curvatures
            self.steps, self.skipped = state["steps"], state["skipped"]


def _direction(v: Vectors, pairs: Sequence[_Pair], gradient: Vector) -> Vector:
    """Return minus the estimated inverse Hessian times the gradient: algorithm 7.4."""
    q = v.scaled(-1.0, gradient)
    alphas = []
    for pair in reversed(pairs):
        alpha = v.times(pair.rho, v.dot(pair.s, q))
        v.add_scaled(q, -1.0, alpha, pair.y)
        alphas.append(alpha)
    if pairs:
        q = v.scaled(pairs[-1].scale, q)
    for pair, alpha in zip(pairs, reversed(alphas), strict=True):
        beta = v.times(pair.rho, v.dot(pair.y, q))
        v.add_scaled(q, 1.0, v.minus(alpha, beta), pair.s)
    return q


def _curvature(v: Vectors, segments: Sequence[Segment], number: int) -> tuple[float, float]:
    """Recompute 1 / (s y) and s y / (y y) from a saved state."""
    s, y = ([segment.state[f"{part}{number}"] for segment in segments] for part in "sy")
    curvature, square = v.read(v.dot(y, s), v.dot(y, y))
    return 1.0 / curvature, curvature / square


def _names_of_parts(count: int) -> list[str]:
    return [f"{part}{n}" for n in range(count) for part in "sy"]


def _saved_pairs(state: Mapping[str, Any]) -> int:
    """The number of steps in a state; 0 if it is not a state, which `differences` reports."""
    try:
        return max((len(entry["state"]) // 2 for entry in state["parameters"].values()), default=0)
    except (AttributeError, LookupError, TypeError):
        return 0


def _count(name: str, value: object) -> int:
    count = whole_number(name, value)
    if count < 1:
        raise ValueError(f"{name} must be 1 or more, not {count}")
    return count


def _tolerance(name: str, value: float) -> float:
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be finite and >= 0, not {value!r}")
    return float(value)
