"""Muon, with AdamW for everything that is not a matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod
from typing import Any, ClassVar, Final, Self, Unpack, get_args

from rumus.optim import rules
from rumus.optim.algorithms.newton_schulz import COEFFICIENTS, orthogonalize, triples
from rumus.optim.engine.description import description
from rumus.optim.engine.footprint import Memory, Small, planned
from rumus.optim.engine.muon_variant import RUMUS, Adjust, MuonVariant, variant
from rumus.optim.engine.porting import Coefficients, Library, PresetOptions, chosen
from rumus.optim.engine.precision import computed_in
from rumus.optim.engine.reductions import arrays_of
from rumus.optim.engine.rule_state import RuleState
from rumus.optim.engine.segments import Segment
from rumus.optim.engine.update_rule import Signature, UpdateRule
from rumus.optim.fused.fused import FusedOptimizer
from rumus.optim.options.group import Claimable, M_co, ParameterGroup, as_groups
from rumus.optim.options.hyperparameter import COMMON, Hyper, check, checked
from rumus.optim.options.options import Options
from rumus.tensor import Arena, Backend, Expr, Kernel, Parameter, ParamId
from rumus.tensor.expression.choice import check_choice
from rumus.tensor.expression.declared_type import shown
from rumus.tensor.graph.selection import Criterion, selected
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.section import Section
from rumus.tensor.memory.slot_table import slot_size

_MOST: Final = 1000  # iterations
_ADAMW: Final = Signature.of(rules.adamw)
_ADAMW_STATE: Final = RuleState.of(UpdateRule(rules.adamw, _ADAMW.state, _ADAMW.scalars))


@dataclass(frozen=True, slots=True)
class _Stack:
    """Consecutive tensors of one shape and one factor in an arena.

    start: in elements. parts: the number of matrices in each tensor; shape: of one matrix.
    """

    start: int
    count: int
    parts: int
    shape: tuple[int, int]
    factor: float


class Muon(FusedOptimizer[M_co]):
    """Momentum, orthogonalized: every direction of a weight matrix moves by the same amount.

    b = momentum b + (1 - momentum) g;  u = momentum b + (1 - momentum) g with nesterov, else b;
    o = the orthogonal matrix nearest to u;  p = p (1 - lr weight_decay) - lr factor o

    This applies to matrices: parameters with 2 axes whose role is not "embedding", and convolution
    weights, as (outputs, all other axes). All others are stepped by AdamW, in the same optimizer;
    `describe()` shows the assignment.

    parameters: to own; see `Optimizer`.
    lr: at least 0.
    momentum: in [0, 1), a number, not a schedule.
    nesterov: see momentum.
    weight_decay: at least 0, decoupled.
    adjust: "original": the factor is sqrt(max(1, rows / columns)); "match_rms_adamw": 0.2
        sqrt(max(rows, columns)), so that a step is as large as one of AdamW and lr and weight_decay
        may be those of AdamW; "spectral_unclamped": sqrt(rows / columns).
    iterations, coefficients, eps: of Newton-Schulz, see `newton_schulz.orthogonalize`; coefficients
        may be one triple, one for each iteration, or "polar_express", which brings singular values
        far nearer to 1. It runs in the parameters' dtype, at least float32, or in float16 at
        precision="medium"; both are more exact than the bfloat16 of the paper and of PyTorch.
        Matrices of one shape are orthogonalized together: the number of kernels grows with the
        number of shapes, not of layers.
    matrices: a pattern for the name, or a function of name and parameter, to choose differently;
        the last layer of a language model, for example, is better left to AdamW.
    parts: the number of stacked matrices in a parameter, by name pattern, as for the fused queries,
        keys and values of all heads: {"*.query_key_value.weight": 3 * heads}. Each is
        orthogonalized separately, with the factor of its own shape.
    adamw_lr, adamw_weight_decay: for AdamW; by default those of the matrices.
    adamw_betas, adamw_eps: as in `AdamW`. A group with its own hyperparameters uses them for all
        its parameters.
    options: see `FusedOptimizer`; they apply to matrices and all others alike.

    The defaults are PyTorch's. On a GPU a step reads nothing back. ValueError for a value out of
    range, and for chosen parameters without 2 axes.

    The formula is in `rumus.optim.rules.muon`. Jordan et al. (2024); arXiv:2502.16982.

    >>> from rumus.optim import Muon
    >>> from rumus.tensor import Parameter
    >>> w = Parameter([[3.0, 0.0], [0.0, 1.0]], name="weight")
    >>> optimizer = Muon([w], 0.5, weight_decay=0.0, iterations=12, coefficients=(2, -1.5, 0.5))
    >>> optimizer.step((w * w).sum().backward())
    >>> [[round(x, 3) for x in row] for row in w.tolist()]
    [[2.5, 0.0], [0.0, 0.5]]
    """

    packs_state = True
    given_names: ClassVar[tuple[str, ...]] = ("o",)
    other_scalars: ClassVar[frozenset[str]] = _ADAMW.scalars
    _variant: MuonVariant = RUMUS

    def __init__(
        self,
        parameters: Claimable[M_co],
        lr: Hyper = 1e-3,
        *,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: Hyper = 0.1,
        adjust: Adjust = "original",
        iterations: int = 5,
        coefficients: Coefficients = COEFFICIENTS,
        eps: float = 1e-7,
        matrices: Criterion | None = None,
        parts: Mapping[str, int] | None = None,
        adamw_lr: Hyper | None = None,
        adamw_betas: tuple[float, float] = (0.9, 0.999),
        adamw_eps: float = 1e-8,
        adamw_weight_decay: Hyper | None = None,
        **options: Unpack[Options],
    ) -> None:
        check_choice("adjust", adjust, get_args(Adjust))
        if iterations < 1:
            raise ValueError(f"iterations must be 1 or more, not {iterations}")
        if iterations > _MOST:  # each is a part of every step
            raise ValueError(f"iterations must be at most {_MOST}, not {iterations}")
        self.adjust: Adjust = adjust
        self._iterations = iterations
        self._coefficients = triples(coefficients, iterations)
        self._eps = check("eps", eps)
        self._nesterov = nesterov
        self._parts = _numbers_of_parts(parameters, {} if parts is None else parts)
        self._adamw = UpdateRule(self._variant.others, _ADAMW.state, _ADAMW.scalars)
        given = {"lr": adamw_lr, "weight_decay": adamw_weight_decay}
        own = checked({name: hyper for name, hyper in given.items() if hyper is not None}, COMMON)
        self.matrices, groups = _divided(parameters, matrices, own, self._variant)
        super().__init__(
            groups,
            self._variant.rule,
            lr,
            momentum=momentum,
            weight_decay=weight_decay,
            betas=adamw_betas,
            eps=adamw_eps,
            **options,
        )

    @classmethod
    def like(
        cls,
        library: Library,
        parameters: Claimable[M_co],
        lr: Hyper | None = None,
        **options: Unpack[PresetOptions],
    ) -> Self:
        """Return Muon as in another library; see `FusedOptimizer.like`.

        library: "torch", "keras", "optax", "mlx" or "burn".
        parameters: to own; see `Optimizer`.
        lr: instead of the library's default.
        options: as for the constructor. Parameters for AdamW go to the library's; optax gives all
            matrices to Muon, and MLX everything, where weight_decay must be a number, since it is
            part of the directions. A weight is (outputs, inputs) here; the factor for its shape is
            the library's for a layer of these sizes, whatever the layout of its weight there.

        >>> from rumus.optim import Muon
        >>> from rumus.tensor import Parameter
        >>> optimizer = Muon.like("mlx", [Parameter([[1.0, 2.0]], name="w")], lr=0.02)
        >>> optimizer.kind, optimizer.hyper["weight_decay"]
        ('muon_coupled', 0.01)
        """
        _, rate, given = chosen("Muon", library, lr, options)
        if library == "optax":  # one eps for both
            given.setdefault("adamw_eps", given["eps"])
        ported = cls.__new__(cls)
        ported._variant = variant(library, nesterov=given.get("nesterov", True))
        ported.is_ported = ported._variant.rule is not rules.muon
        Muon.__init__(ported, parameters, rate, **given)
        return ported

    def _check_known(self, names: Mapping[str, object]) -> None:
        super()._check_known(names)
        for name in ("momentum", "weight_decay") if self._variant.couples_decay else ("momentum",):
            if callable(names.get(name)):
                raise TypeError(
                    f"Muon: {name} must be a number, not a schedule: a GPU decides on its own "
                    "whether a step counts, and the directions are computed before that"
                )

    def torch_options(self, values: Mapping[str, float]) -> Mapping[str, Any]:
        """Return the Newton-Schulz options; see `FusedOptimizer.torch_options`.

        values: the hyperparameters of a group at a step.
        """
        first, *others = self._coefficients
        is_one = all(each == first for each in others)
        return {
            "nesterov": self._nesterov,
            "ns_coefficients": first if is_one else tuple(self._coefficients),
            "ns_steps": self._iterations,
            "eps": self._eps,
            "adjust_lr_fn": self.adjust,
        }

    def describe(self) -> str:
        """Return a table of the groups stepped by Muon and by AdamW, with their hyperparameters."""
        names = {True: Signature.of(rules.muon, ("o",)).scalars, False: _ADAMW.scalars}

        def used(group: ParameterGroup) -> tuple[str, frozenset[str]]:
            is_muon = self._is_matrices(group)
            return ("Muon" if is_muon else "AdamW"), names[is_muon]

        vanishes = not self._variant.couples_decay and not self._is_exact
        return description(self, self.hyper, vanishes, used, notes=self._notes())

    @classmethod
    def planned_memory(cls, parameters: Claimable[Any], *args: Any, **options: Any) -> Memory:
        """Return what `memory()` would be; see `FusedOptimizer.planned_memory`.

        Muon keeps b and o between steps; AdamW keeps two averages. Temporary memory of the
        orthogonalization is not counted.

        parameters: as for the constructor.
        options: see `FusedOptimizer`.
        """
        probes = [Parameter([[0.0]], name="matrix"), Parameter(0.0, name="other")]
        probe = cls(probes, *args, **{**options, "matrices": None, "parts": None})
        small = Small.of(probe.stages)
        axes = [
            [len(a.shape) for name, a in segment.scratch.items() if name not in small.scratch]
            for segment in probe.segments
        ]
        probe.release()
        chosen, groups = _divided(parameters, options.get("matrices"), {}, cls._variant)
        found = Memory(0, 0, 0)
        for group in groups:
            is_muon = any(p.id in chosen for _, p in group.named)
            for name, parameter in group.named:
                probe._check_precision(name, parameter)
            state = probe._state if is_muon else _ADAMW_STATE
            layout, codes = state.layout(probe.stages), state.codes(probe.stages)
            flat, by_row = (axes[0 if is_muon else 1].count(n) for n in (1, 2))
            found += planned([group], layout, flat, by_row, codes, small=small)
        return found

    _directions: dict[int, tuple[Section, Kernel]]  # by the number of the segment

    def _is_matrices(self, group: ParameterGroup) -> bool:
        return any(p.id in self.matrices for _, p in group.named)

    def _layout(self, places: Mapping[ParamId, Backend]) -> list[Segment]:
        found = []
        for group in self.groups:
            is_muon = self._is_matrices(group)
            segments = self._lay_out([group], places, self._state if is_muon else _ADAMW_STATE)
            for segment in segments:
                if is_muon:
                    segment.scratch["o"] = segment.arena.zeros(computed_in(segment.arena.dtype))
                else:
                    segment.rule = self._adamw
            found += segments
        return found

    def _give_kernels(self, segments: list[Segment]) -> None:
        super()._give_kernels(segments)
        self._directions = {
            number: (segment.section(), self._direction(segment))
            for number, segment in enumerate(segments)
            if segment.rule is None
        }

    def _direction(self, segment: Segment) -> Kernel:
        """From the gradient and the previous momentum to the matrix to orthogonalize."""
        p, g = self._kernels.seen(segment)
        b, momentum = Expr.array("b"), Expr.scalar("momentum")
        g = g + Expr.scalar("weight_decay") * p if self._variant.couples_decay else g
        u = momentum * b + (1 - momentum) * g
        u = momentum * u + (1 - momentum) * g if self._nesterov else u
        return Kernel("momentum", {"o": u}, arrays_of(u))

    def _compute_given(self, gradients: Mapping[int, Array]) -> None:
        for number in gradients.keys() & self._directions.keys():
            section, direction = self._directions[number]
            segment = self.segments[number]
            hyper: dict[str, Any] = dict(segment.group.over(self.hyper))
            for stage in self.stages:
                hyper |= stage.scalars(number, 1)  # constant over steps, if the gradient needs it
            section.run(direction, gradients[number], direction.bind(hyper))
            eps = self._eps * (1 - hyper["momentum"] if self._variant.sums else 1.0)
            for stack in self._stacks(segment.arena):
                self._orthogonalize(section.backend, segment.scratch["o"], stack, eps)

    def _stacks(self, arena: Arena) -> list[_Stack]:
        """The matrices of an arena in runs of equal shape and factor."""
        found = []
        matrices = [
            (slot.start, p.shape, parts, self._variant.factor(self.adjust, p, parts))
            for slot, p in zip(arena.slots, arena.parameters, strict=True)
            if p.ndim >= 2
            for parts in (self._parts.get(p.id, 1),)
        ]
        for (shape, parts, factor), run in groupby(matrices, key=lambda matrix: matrix[1:]):
            starts = [matrix[0] for matrix in run]
            flattened = shape[0] // parts, prod(shape[1:])
            found.append(_Stack(starts[0], len(starts), parts, flattened, factor))
        return found

    def _orthogonalize(self, backend: Backend, flat: Array, stack: _Stack, eps: float) -> None:
        """Orthogonalize matrices of one shape in a flat array."""
        rows, columns = stack.shape
        size = stack.parts * rows * columns
        step = slot_size(size)
        lies = flat[stack.start : stack.start + stack.count * step]
        lies = lies.reshape((stack.count, step))[:, :size]
        o = orthogonalize(
            backend,
            lies.reshape((stack.count, stack.parts, rows, columns)),
            iterations=self._iterations,
            coefficients=self._coefficients,
            eps=eps,
            eps_beside=self._variant.eps_beside,
            factor=stack.factor,
        )
        backend.copy(o.reshape(lies.shape), lies)


def _numbers_of_parts(parameters: Claimable[Any], parts: Mapping[str, int]) -> dict[ParamId, int]:
    """The number of matrices in each parameter. ValueError if it does not divide the parameter."""
    if not isinstance(parts, Mapping):
        raise TypeError(f"parts must be a dict of patterns and numbers, not {shown(parts)}")
    named = [pair for group in as_groups(parameters) for pair in group.named]
    found: dict[ParamId, int] = {}
    for pattern, number in parts.items():
        chosen = selected(named, pattern, None)
        for name, p in named:
            if p.id not in chosen:
                continue
            if p.ndim < 2 or number < 1 or p.shape[0] % number:
                raise ValueError(
                    f"parts: parameter {name!r} of shape {p.shape} cannot be split into {number} "
                    "matrices along its first axis"
                )
            found[p.id] = number
    return found


def _divided(
    parameters: Claimable[Any], what: Criterion | None, own: Mapping[str, Hyper], kind: MuonVariant
) -> tuple[frozenset[ParamId], list[ParameterGroup]]:
    """The matrices for Muon, and each group split in up to two: matrices by shape, and others.

    own: hyperparameters of the others.
    """
    groups = as_groups(parameters)
    chosen = _chosen([pair for group in groups for pair in group.named], what, kind)
    found = []
    for group in groups:
        matrices = [pair for pair in group.named if pair[1].id in chosen]
        others = [pair for pair in group.named if pair[1].id not in chosen]
        if matrices:
            found.append(group.only(sorted(matrices, key=lambda pair: pair[1].shape)))
        found += [group.only(others, **own)] if others else []
    return frozenset(chosen), found


def _chosen(
    named: Sequence[tuple[str, Parameter]], what: Criterion | None, kind: MuonVariant
) -> set[ParamId]:
    if what is None:
        return {p.id for _, p in named if kind.takes(p)}
    found = selected(named, what, None, "matrices")
    for name, p in named:
        if p.id in found and p.ndim < 2 and not kind.takes_all:
            raise ValueError(
                f"parameter {name!r} of shape {p.shape} is not a matrix: Muon takes 2 axes "
                "or more; leave the others to AdamW"
            )
    return found
