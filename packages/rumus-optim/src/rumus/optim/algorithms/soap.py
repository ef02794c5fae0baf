"""SOAP, with AdamW for everything that is not a matrix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod
from typing import Any, ClassVar, Final, TypeAlias, Unpack

from rumus.optim import rules
from rumus.optim.algorithms.eigenbasis import eigenvectors, turn
from rumus.optim.engine.description import description
from rumus.optim.engine.footprint import Memory, Small, planned
from rumus.optim.engine.precision import computed_in
from rumus.optim.engine.reductions import arrays_of
from rumus.optim.engine.rule_state import RuleState
from rumus.optim.engine.segments import Segment
from rumus.optim.engine.update_rule import Signature, UpdateRule
from rumus.optim.fused.fused import FusedOptimizer
from rumus.optim.options.group import Claimable, M_co, ParameterGroup, as_groups
from rumus.optim.options.hyperparameter import Hyper, check
from rumus.optim.options.options import Options
from rumus.optim.rules.denominator import denominator
from rumus.tensor import Backend, Expr, Kernel, Parameter, ParamId, where
from rumus.tensor.expression.whole_number import whole_number
from rumus.tensor.graph.selection import Criterion, selected
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.section import Section
from rumus.tensor.memory.slot_table import slot_size

_ADAMW: Final = Signature.of(rules.adamw)
_ADAMW_STATE: Final = RuleState.of(UpdateRule(rules.adamw, _ADAMW.state, _ADAMW.scalars))
_GIVEN: Final = ("turned", "o")
_BESIDE: Final = 4  # arrays as large as a factor: it, its basis, and both for the next step

Named: TypeAlias = tuple[str, Parameter]


@dataclass(frozen=True, slots=True)
class _Run:
    """Consecutive matrices of one shape in flat memory. start: in elements."""

    start: int
    count: int
    rows: int
    columns: int

    def lies(self, flat: Array) -> Array:
        """The matrices as a view, [count, rows columns]."""
        size = self.rows * self.columns
        step = slot_size(size)
        found = flat[self.start : self.start + self.count * step]
        return found.reshape((self.count, step))[:, :size]

    def copied(self, backend: Backend, flat: Array) -> Array:
        """A copy of them, [count, rows, columns]."""
        x = backend.allocate((self.count, self.rows, self.columns), flat.dtype)
        backend.copy(self.lies(flat), x.reshape((self.count, self.rows * self.columns)))
        return x

    def put(self, backend: Backend, x: Array, flat: Array) -> None:
        """Write matrices in the form of `copied` to their places."""
        backend.copy(x.reshape((self.count, self.rows * self.columns)), self.lies(flat))


@dataclass(frozen=True, slots=True)
class _Stack:
    """The places of tensors of one shape, and of their factors, by side."""

    lies: _Run
    factors: Mapping[str, _Run]


@dataclass(frozen=True, slots=True)
class _Plan:
    """The computation for a segment before each step.

    seen: the kernel that writes the gradient and its average, to be rotated into the basis. scaled:
    the kernel that computes the direction from them. factors: by side, the kernels that update the
    factors with this step's products.
    """

    section: Section
    stacks: Sequence[_Stack]
    seen: Kernel
    scaled: Kernel
    factors: Mapping[str, Kernel]


class SOAP(FusedOptimizer[M_co]):
    """Adam in the eigenbasis of Shampoo's factors, where gradient directions are separated.

    L = beta L + (1 - beta) g g^T;  R = beta R + (1 - beta) g^T g;  every precondition_frequency
    steps, one power iteration: Q_L = QR(L Q_L), Q_R = QR(R Q_R);

    g' = Q_L^T g Q_R;  m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g'^2;

    p = p (1 - lr weight_decay) - lr sqrt(1 - beta2^(t-1)) / (1 - beta1^(t-1))
    Q_L ((Q_L^T m Q_R) / (sqrt(v) + eps)) Q_R^T

    This applies to parameters with 2 or more axes, as (first, all other axes). All others are
    stepped by AdamW, in the same optimizer; `describe()` shows the assignment. The first step only
    computes the eigenvectors of g g^T and g^T g, and moves no matrix.

    parameters: to own; see `Optimizer`.
    lr: at least 0.
    betas: the decay rates of the averages of g and g'^2, each in [0, 1), numbers, not schedules.
    shampoo_beta: the decay rate of L and R, in [0, 1); None for that of g'^2.
    eps: at least 0, outside the root and not bias-corrected; a number, not a schedule.
    weight_decay: at least 0, decoupled.
    precondition_frequency: the number of steps between refreshes of the basis, at least 1.
    max_precondition_dim: the longest side that gets a factor. For a longer side, Q is the identity;
        a matrix with two such sides is left to AdamW.
    matrices: a pattern for the name, or a function of name and parameter, to choose differently;
        the others are left to AdamW.
    options: see `FusedOptimizer`; they apply to matrices and all others alike. A smaller state
        dtype is refused: its rounding errors would lie along all directions, including those in
        which gradients hardly vary, where SOAP divides by a small number.

    The defaults are those of the authors' code. On a GPU the first step waits for eigenvectors from
    the host's LAPACK; later ones read nothing. If steps may be skipped, with nonfinite="skip" or a
    loss scale, the host waits at each refresh to learn how many were. All matrices of one shape are
    multiplied together: the number of kernels grows with the number of shapes.

    ValueError for a value out of range, and for chosen parameters with fewer than 2 axes; TypeError
    for a schedule of betas or eps, and for a state_dtype of fewer bits than float32.

    The formula is in `rumus.optim.rules.soap`. Vyas et al.: arXiv:2409.11321.

    >>> from rumus.optim import SOAP
    >>> from rumus.tensor import Parameter
    >>> w = Parameter([[3.0, 0.0], [0.0, 1.0]], name="weight")
    >>> optimizer = SOAP([w], 0.5, weight_decay=0.0)
    >>> for _ in range(2):  # the first moves nothing
    ...     optimizer.step((w * w).sum().backward())
    >>> [[round(x, 3) for x in row] for row in w.tolist()]
    [[2.5, 0.0], [0.0, 0.5]]
    """

    given_names: ClassVar[tuple[str, ...]] = _GIVEN
    other_scalars: ClassVar[frozenset[str]] = _ADAMW.scalars

    def __init__(
        self,
        parameters: Claimable[M_co],
        lr: Hyper = 3e-3,
        *,
        betas: tuple[float, float] = (0.95, 0.95),
        shampoo_beta: float | None = None,
        eps: float = 1e-8,
        weight_decay: Hyper = 0.01,
        precondition_frequency: int = 10,
        max_precondition_dim: int = 10_000,
        matrices: Criterion | None = None,
        **options: Unpack[Options],
    ) -> None:
        if (state_dtype := options.get("state_dtype")) not in (None, "float32"):
            raise TypeError(
                f"SOAP: state_dtype={state_dtype!r} leaves rounding errors in directions in which "
                "gradients hardly vary, where SOAP divides by a small number: leave it out"
            )
        self._every = _at_least_1("precondition_frequency", precondition_frequency)
        self._longest = _at_least_1("max_precondition_dim", max_precondition_dim)
        within = {"shampoo_beta": (0.0, 1.0, False)}
        given = shampoo_beta is not None
        self._beta = check("shampoo_beta", shampoo_beta, ranges=within) if given else None
        self._adamw = UpdateRule(rules.adamw, _ADAMW.state, _ADAMW.scalars)
        self.matrices, groups = _divided(parameters, matrices, self._longest)
        super().__init__(
            groups,
            rules.soap,
            lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            **options,
        )

    def _check_known(self, names: Mapping[str, object]) -> None:
        super()._check_known(names)
        for name in ("beta1", "beta2", "eps"):
            if callable(names.get(name)):
                raise TypeError(
                    f"SOAP: {name} must be a number, not a schedule: a GPU decides on its own "
                    "whether a step counts, and the directions are computed before that"
                )

    def describe(self) -> str:
        """Return a table of the groups stepped by SOAP and by AdamW, with their hyperparameters."""

        def used(group: ParameterGroup) -> tuple[str, frozenset[str]]:
            return ("SOAP" if self._is_matrices(group) else "AdamW"), _ADAMW.scalars

        return description(self, self.hyper, not self._is_exact, used, notes=self._notes())

    @classmethod
    def planned_memory(cls, parameters: Claimable[Any], *args: Any, **options: Any) -> Memory:
        """Return what `memory()` would be; see `FusedOptimizer.planned_memory`.

        SOAP keeps two averages, the factors and their bases, and scratch of the same size again;
        AdamW keeps two averages. Temporary memory of the products is not counted.

        parameters: as for the constructor.
        options: see `FusedOptimizer`.
        """
        probes = [Parameter([[0.0]], name="matrix"), Parameter(0.0, name="other")]
        probe = cls(probes, *args, **{**options, "matrices": None})
        small = Small.of(probe.stages)
        axes = [
            [len(a.shape) for name, a in segment.scratch.items() if name not in small.scratch]
            for segment in probe.segments
        ]
        probe.release()
        chosen, groups = _divided(parameters, options.get("matrices"), probe._longest)
        found = Memory(0, 0, 0)
        for group in groups:
            for name, parameter in group.trainable().named:
                probe._check_precision(name, parameter)
            is_matrices = any(p.id in chosen for _, p in group.named)
            state = probe._state if is_matrices else _ADAMW_STATE
            layout, codes = state.layout(probe.stages), state.codes(probe.stages)
            flat, by_row = (axes[0 if is_matrices else 1].count(n) for n in (1, 2))
            if not is_matrices:
                found += planned([group], layout, flat, by_row, codes, small=small)
                continue
            flat -= _BESIDE  # the probe has both factors
            for sides, named in _by_sides(group.trainable(), probe._longest):
                found += planned([group.only(named)], layout, flat, by_row, codes, small=small)
                found += Memory(0, 0, _BESIDE * sum(_bytes(p, sides) for _, p in named))
        return found

    # Memory

    _plans: dict[int, _Plan]  # by the number of the segment

    def _is_matrices(self, group: ParameterGroup) -> bool:
        return any(p.id in self.matrices for _, p in group.named)

    def _layout(self, places: Mapping[ParamId, Backend]) -> list[Segment]:
        found = []
        for group in self.groups:
            if not self._is_matrices(group):
                segments = self._lay_out([group], places, _ADAMW_STATE)
                for segment in segments:
                    segment.rule = self._adamw
                found += segments
                continue
            for sides, named in _by_sides(group, self._longest):
                for part in _fitting(named, sides, places):
                    for segment in self._lay_out([group.only(part)], places, self._state):
                        segment.group = group
                        segment.never_negative = frozenset("v")
                        self._add_factors(segment, sides)
                        found.append(segment)
        return found

    def _add_factors(self, segment: Segment, sides: str) -> None:
        """Add the factors of these sides and their bases to the state, and scratch for the next."""
        arena, backend = segment.arena, segment.arena.backend
        dtype = computed_in(arena.dtype)
        for name in _GIVEN:
            segment.scratch[name] = arena.zeros(dtype)
        for side in sides:
            shapes = [(n, n) for n in (_length(p, side) for p in arena.parameters)]
            for part, other in ((side, f"outer_{side}"), (f"Q_{side}", f"next_Q_{side}")):
                segment.add_part(part, shapes)
                segment.scratch[other] = backend.allocate(segment.state[part].shape, dtype)
                backend.fill(0, segment.scratch[other])

    def _averaged(self, side: str) -> Expr:
        """A factor with this step's products."""
        factor, outer = Expr.array(side), Expr.array(f"outer_{side}")
        beta = Expr.scalar("beta2" if self._beta is None else "shampoo_beta")
        return beta * factor + (1 - beta) * outer

    def _keep(self, side: str) -> Kernel:
        """The kernel that updates a factor and its basis if the step is applied."""
        is_due = (Expr.scalar("t") - 1) % Expr.scalar("precondition_frequency") <= 0
        q, new = Expr.array(f"Q_{side}"), Expr.array(f"next_Q_{side}")
        outputs = {side: self._averaged(side), f"Q_{side}": where(is_due, new, q)}
        return Kernel(f"keep_{side}", outputs, (*outputs, f"outer_{side}", f"next_Q_{side}"))

    def _own_scalars(self, segment: Segment) -> Mapping[str, float]:
        return {
            "precondition_frequency": float(self._every),
            **({} if self._beta is None else {"shampoo_beta": self._beta}),
        }

    def _give_kernels(self, segments: list[Segment]) -> None:
        super()._give_kernels(segments)
        for segment in segments:
            segment.beside += tuple(self._keep(side) for side in "LR" if side in segment.places)
        self._plans = {
            number: self._planned(segment)
            for number, segment in enumerate(segments)
            if segment.rule is None
        }

    def _planned(self, segment: Segment) -> _Plan:
        _, g = self._kernels.seen(segment)
        m, v, turned, o = map(Expr.array, ("m", "v", *_GIVEN))
        beta1, beta2 = map(Expr.scalar, ("beta1", "beta2"))
        u = m + (1 - beta1) * (g - m)
        v = beta2 * v + (1 - beta2) * turned * turned
        sides = [side for side in "LR" if side in segment.places]
        return _Plan(
            segment.section(),
            _stacks(segment, sides),
            Kernel("seen", {"turned": g, "o": u}, arrays_of(g, u)),
            Kernel("scaled", {"o": o / denominator(v, Expr.scalar("eps"))}, ("o", "turned", "v")),
            {s: Kernel("factor", {"out": self._averaged(s)}, (s, f"outer_{s}")) for s in sides},
        )

    # Before a step

    def _compute_given(self, gradients: Mapping[int, Array]) -> None:
        for number in gradients.keys() & self._plans.keys():
            segment, plan = self.segments[number], self._plans[number]
            before = self._applied_before(segment, self._is_due)
            hyper: dict[str, Any] = {**segment.group.over(self.hyper), **self._own_scalars(segment)}
            for stage in self.stages:
                hyper |= stage.scalars(number, 1)  # constant over steps, if the gradient needs it
            gradient = gradients[number]
            plan.section.run(plan.seen, gradient, plan.seen.bind(hyper))
            backend, scratch = plan.section.backend, segment.scratch
            for stack in plan.stacks:
                _multiply_out(backend, scratch, stack)
                if before > 0:
                    _turn_there(backend, segment, stack)
            if before > 0:
                plan.section.run(plan.scaled, gradient, plan.scaled.bind(hyper))
                for stack in plan.stacks:
                    _turn_back(backend, segment, stack)
            else:
                for name in _GIVEN:
                    backend.fill(0, scratch[name])
            if self._is_due(before):
                self._refresh(segment, plan, hyper, is_first=before == 0)

    def _is_due(self, before: int) -> bool:
        """Whether the step after `before` applied ones refreshes the basis."""
        return before % self._every == 0

    def _refresh(
        self, segment: Segment, plan: _Plan, hyper: Mapping[str, Any], *, is_first: bool
    ) -> None:
        """Compute the bases for the next steps, for all matrices of one size together."""
        backend, state = plan.section.backend, segment.state
        averages = {}
        for side, kernel in plan.factors.items():
            out = averages[side] = backend.allocate(state[side].shape, state[side].dtype)
            arrays = state[side], segment.scratch[f"outer_{side}"]
            backend.elementwise(kernel, arrays, kernel.bind(hyper), (out,))
        runs = [(s, run) for stack in plan.stacks for s, run in stack.factors.items()]
        for n in sorted({run.rows for _, run in runs}):
            alike = [(side, run) for side, run in runs if run.rows == n]
            shape = sum(run.count for _, run in alike), n, n
            factors, basis, new = (backend.allocate(shape, state[alike[0][0]].dtype) for _ in "123")
            for (side, run), cut in _cuts(alike):
                backend.copy(run.copied(backend, averages[side]), factors[cut])
                backend.copy(run.copied(backend, state[f"Q_{side}"]), basis[cut])
            if is_first:
                eigenvectors(backend, factors, new)
            else:
                turn(backend, factors, basis, new)
            for (side, run), cut in _cuts(alike):
                run.put(backend, new[cut], segment.scratch[f"next_Q_{side}"])


def _multiply_out(backend: Backend, scratch: Mapping[str, Array], stack: _Stack) -> None:
    """Write g g^T and g^T g."""
    g = stack.lies.copied(backend, scratch["turned"])
    for side, run in stack.factors.items():
        transposed = g.transpose((0, 2, 1))
        outer = backend.allocate((run.count, run.rows, run.rows), g.dtype)
        backend.matmul(*((g, transposed) if side == "L" else (transposed, g)), outer)
        run.put(backend, outer, scratch[f"outer_{side}"])


def _turn_there(backend: Backend, segment: Segment, stack: _Stack) -> None:
    """Q_L^T x Q_R of the gradient and of its average."""
    for name in _GIVEN:
        x = stack.lies.copied(backend, segment.scratch[name])
        for side, run in stack.factors.items():
            q = run.copied(backend, segment.state[f"Q_{side}"])
            x = _product(backend, *((q.transpose((0, 2, 1)), x) if side == "L" else (x, q)))
        stack.lies.put(backend, x, segment.scratch[name])


def _turn_back(backend: Backend, segment: Segment, stack: _Stack) -> None:
    """Q_L x Q_R^T of the direction."""
    x = stack.lies.copied(backend, segment.scratch["o"])
    for side, run in stack.factors.items():
        q = run.copied(backend, segment.state[f"Q_{side}"])
        x = _product(backend, *((q, x) if side == "L" else (x, q.transpose((0, 2, 1)))))
    stack.lies.put(backend, x, segment.scratch["o"])


def _product(backend: Backend, a: Array, b: Array) -> Array:
    out = backend.allocate((a.shape[0], a.shape[1], b.shape[2]), a.dtype)
    backend.matmul(a, b, out)
    return out


def _cuts(runs: Sequence[tuple[str, _Run]]) -> Iterator[tuple[tuple[str, _Run], slice]]:
    """Each run with its part of a stack of all of them."""
    start = 0
    for side, run in runs:
        yield (side, run), slice(start, start + run.count)
        start += run.count


def _stacks(segment: Segment, sides: Sequence[str]) -> list[_Stack]:
    """The matrices of an arena in runs of one shape."""
    arena, found, first = segment.arena, [], 0
    for (rows, columns), run in groupby(map(_shape, arena.parameters)):
        count = len(list(run))
        starts = {side: segment.places[side][first][0] for side in sides}
        lengths = {"L": rows, "R": columns}
        factors = {s: _Run(at, count, lengths[s], lengths[s]) for s, at in starts.items()}
        found.append(_Stack(_Run(arena.slots[first].start, count, rows, columns), factors))
        first += count
    return found


def _shape(parameter: Parameter) -> tuple[int, int]:
    return parameter.shape[0], prod(parameter.shape[1:])


def _length(parameter: Parameter, side: str) -> int:
    return _shape(parameter)[side == "R"]


def _sides(parameter: Parameter, longest: int) -> str:
    """The sides of a matrix that have a factor."""
    return "".join(side for side in "LR" if _length(parameter, side) <= longest)


def _bytes(parameter: Parameter, sides: str) -> int:
    """The bytes of a parameter's factors."""
    elements = sum(slot_size(_length(parameter, side) ** 2) for side in sides)
    return elements * computed_in(parameter.dtype).itemsize


def _by_sides(group: ParameterGroup, longest: int) -> Iterator[tuple[str, list[Named]]]:
    """The matrices of a group by the sides that have factors, sorted by shape."""
    found: dict[str, list[Named]] = {}
    for name, p in sorted(group.named, key=lambda pair: _shape(pair[1])):
        found.setdefault(_sides(p, longest), []).append((name, p))
    yield from sorted(found.items())


def _fitting(
    named: Iterable[Named], sides: str, places: Mapping[ParamId, Backend]
) -> Iterator[list[Named]]:
    """Split matrices into runs whose factors of a side fit into one array."""
    part: list[Named] = []
    size = 0
    for name, p in named:
        needed = max(_bytes(p, side) for side in sides)
        if part and size + needed > places.get(p.id, p.backend).max_array_bytes:
            yield part
            part, size = [], 0
        part.append((name, p))
        size += needed
    yield part


def _divided(
    parameters: Claimable[Any], what: Criterion | None, longest: int
) -> tuple[frozenset[ParamId], list[ParameterGroup]]:
    """The matrices for SOAP, and each group split in up to two: matrices, and others."""
    groups = as_groups(parameters)
    chosen = _chosen([pair for group in groups for pair in group.named], what, longest)
    found = []
    for group in groups:
        both = (
            [pair for pair in group.named if (pair[1].id in chosen) is is_matrix]
            for is_matrix in (True, False)
        )
        found += [group.only(part) for part in both if part]
    return frozenset(chosen), found


def _chosen(named: Sequence[Named], what: Criterion | None, longest: int) -> set[ParamId]:
    wanted = None if what is None else selected(named, what, None, "matrices")
    found = set()
    for name, p in named:
        if wanted is not None and p.id in wanted and p.ndim < 2:
            raise ValueError(
                f"parameter {name!r} of shape {p.shape} is not a matrix: SOAP takes 2 axes "
                "or more; leave the others to AdamW"
            )
        is_wanted = wanted is None or p.id in wanted
        if is_wanted and p.ndim >= 2 and p.size > 0 and _sides(p, longest):
            found.add(p.id)
    return found


def _at_least_1(name: str, value: int) -> int:
    count = whole_number(name, value)
    if count < 1:
        raise ValueError(f"{name} must be 1 or more, not {count}")
    return count
