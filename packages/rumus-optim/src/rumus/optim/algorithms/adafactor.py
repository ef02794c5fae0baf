"""Adafactor."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any, ClassVar, Final, Unpack

import numpy as np

from rumus.optim import rules
from rumus.optim.engine.footprint import Memory, Small
from rumus.optim.engine.precision import computed_in
from rumus.optim.engine.reductions import arrays_of
from rumus.optim.engine.rule_state import RuleState
from rumus.optim.engine.segments import Segment, lay_out
from rumus.optim.engine.update_rule import Signature, UpdateRule
from rumus.optim.fused.fused import FusedOptimizer
from rumus.optim.options.group import Claimable, M_co, ParameterGroup, as_groups
from rumus.optim.options.hyperparameter import Hyper, check
from rumus.optim.options.options import Options
from rumus.optim.rules.factored import averaged
from rumus.tensor import Arena, Backend, DType, Expr, Kernel, Parameter, ParamId
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.section import Factors, Preparation, Section
from rumus.tensor.memory.slot_table import ALIGNMENT, slot_size

_AVERAGES: Final = ("r", "c", "mean")
_FACTORED: Final = UpdateRule(
    rules.adafactor_factored,
    (),
    Signature.of(rules.adafactor_factored, _AVERAGES).scalars,
    _AVERAGES,
)
_SMALL: Final = (*_AVERAGES, "total")  # scratch that is smaller than the tensor
_NO_STATE: Final = RuleState((), frozenset(), frozenset())  # R and C, with their own shapes


class Adafactor(FusedOptimizer[M_co]):
    """Adam's scaling from row and column means only; the state is far smaller than the parameters.

    r = r + w (mean of g^2 in each row - r);  c likewise in each column;  w = t^beta2_decay;
    v = r c / max(mean(r), eps1);  u = g / sqrt(max(v, eps1^2));
    p = p (1 - lr weight_decay) - max(eps2, rms(p)) min(lr, 1 / sqrt(t)) / max(1, rms(u) / d) u

    Rows and columns are the last two axes; tensors with fewer axes keep v itself. rms is the root
    mean square of a tensor.

    parameters: to own; see `Optimizer`.
    lr: at least 0, the largest step relative to a tensor's own size.
    beta2_decay: at most 0; the lower, the longer the average.
    eps: eps1 > 0, or None for the machine epsilon of the parameter's dtype; and eps2 >= 0, the
        minimum size of a tensor.
    d: at least 1, the limit of u's size.
    weight_decay: at least 0, decoupled.
    options: see `FusedOptimizer`; state_dtype does not affect averages of squares.

    The defaults are PyTorch's. ValueError for a value out of range.

    `planned_memory` shows how much memory is saved. In addition to the state there is one array as
    large as the largest tensor, which all share. A tensor with two or more axes has its own arena,
    and a step is 17 dispatches for each of them on a GPU; nothing is read back.

    `rumus.optim.rules.adafactor`. Shazeer, Stern: arXiv:1804.04235.

    >>> import numpy as np
    >>> from rumus.optim import Adafactor, AdamW
    >>> from rumus.tensor import Parameter
    >>> w = Parameter(np.ones((512, 256), np.float32), name="weight")
    >>> AdamW.planned_memory([w]).state // 1024, Adafactor.planned_memory([w]).state // 1024
    (1024, 534)
    >>> optimizer = Adafactor([w], 0.5)
    >>> optimizer.step((w * w).sum().backward())
    >>> round(w[0, 0].item(), 4)
    0.5
    >>> [part.shape for part in optimizer.state_dict()["parameters"]["weight"]["state"].values()]
    [(512,), (256,)]
    """

    own_scalars: ClassVar[frozenset[str]] = frozenset({"eps1"})

    def __init__(
        self,
        parameters: Claimable[M_co],
        lr: Hyper = 1e-2,
        *,
        beta2_decay: Hyper = -0.8,
        eps: tuple[float | None, Hyper] = (None, 1e-3),
        d: Hyper = 1.0,
        weight_decay: Hyper = 0.0,
        **options: Unpack[Options],
    ) -> None:
        eps1, eps2 = _two(eps)
        self._eps1 = None if eps1 is None else check("eps1", eps1)
        super().__init__(
            parameters,
            rules.adafactor,
            lr,
            beta2_decay=beta2_decay,
            eps2=eps2,
            d=d,
            weight_decay=weight_decay,
            **options,
        )

    def _check_known(self, names: Mapping[str, object]) -> None:
        super()._check_known(names)
        d = names.get("d", 1.0)
        if isinstance(d, float) and d < 1:
            raise ValueError(f"d must be at least 1, not {d}")

    _squares: dict[int, tuple[Section, Kernel]]  # by the number of the segment

    # Memory

    @classmethod
    def planned_memory(cls, parameters: Claimable[Any], *args: Any, **options: Any) -> Memory:
        """Return what `memory()` would be; see `FusedOptimizer.planned_memory`.

        Of the state it counts, only averages of rows and columns, or of the elements of one-axis
        tensors, are kept between steps.

        parameters: as for the constructor.
        options: see `FusedOptimizer`.
        """
        probes = [Parameter([[0.0]], name="matrix"), Parameter([0.0], name="vector")]
        probe = cls(probes, *args, **options)
        forms = dict(zip((True, False), probe.segments, strict=True))
        small = Small.of(probe.stages)
        size = state = 0
        largest: dict[DType, int] = {}
        for dtype, run in _arenas(parameters):
            elements, is_factored = sum(slot_size(p.size) for p in run), _is_factored(run[0])
            width = computed_in(dtype).itemsize
            largest[dtype] = max(largest.get(dtype, 0), elements * width)
            size += elements * dtype.itemsize
            own = _NO_STATE if is_factored else probe._state
            parts = own.layout(probe.stages)(dtype).values()
            state += elements * sum(part.itemsize for part in parts)
            state += _beside(run[0], elements, forms[is_factored], small.scratch) * width
            state += small.bytes(elements)
        probe.release()
        return Memory(size, size, state + sum(largest.values()))

    def _layout(self, places: Mapping[ParamId, Backend]) -> list[Segment]:
        found = []
        for group in self.groups:
            for part in _parts(group):
                if _is_factored(part.named[0][1]):
                    (segment,) = lay_out([part], places, lambda dtype: {})  # stages add their own
                    self._factor(segment)
                    segments = [segment]
                else:
                    segments = self._lay_out([part], places, self._state)
                for segment in segments:
                    segment.group = group
                    segment.never_negative = frozenset("RCv")
                found += segments
        return found

    def _factor(self, segment: Segment) -> None:
        """Give the arena of one tensor averages of its rows and columns."""
        arena, parameter = segment.arena, segment.arena.parameters[0]
        blocks, rows, columns = shape = _as_blocks(parameter)
        shapes = {"r": (blocks, rows, 1), "c": (blocks, 1, columns), "mean": (blocks, 1, 1)}
        for name, like in (("r", "r"), ("c", "c"), ("mean", "mean"), ("total", "mean")):
            segment.scratch[name] = _zeros(arena, math.prod(shapes[like]))
        segment.state["R"] = _zeros(arena, blocks * rows)
        segment.state["C"] = _zeros(arena, blocks * columns)
        lead = parameter.shape[:-2]
        segment.shapes = {"R": (*lead, rows), "C": (*lead, columns)}
        segment.factors = Factors(shape, shapes, _KEEP)
        segment.rule = _FACTORED
        segment.preparation = Preparation(arena.table, {}, None, _ADVANCE)

    def _give_kernels(self, segments: list[Segment]) -> None:
        super()._give_kernels(segments)
        self._squares = {
            number: (segment.section(), self._square(segment))
            for number, segment in enumerate(segments)
            if segment.factors is not None
        }

    def _square(self, segment: Segment) -> Kernel:
        """The square of the gradient, in scratch memory used again later."""
        _, g = self._kernels.seen(segment)
        (place,) = segment.shared
        return Kernel("square", {place: g * g}, arrays_of(g))

    def torch_options(self, values: Mapping[str, float]) -> Mapping[str, Any]:
        """Return both eps; see `FusedOptimizer.torch_options`.

        values: the hyperparameters of a group at a step.
        """
        return {"eps": (self._eps1, values["eps2"])}

    # The step

    def _own_scalars(self, segment: Segment) -> Mapping[str, float]:
        own = float(np.finfo(computed_in(segment.arena.dtype)).eps)
        found = {"eps1": own if self._eps1 is None else self._eps1}
        if segment.factors is not None:
            _, rows, columns = segment.factors.shape
            found |= {"rows": rows, "columns": columns}
        return found

    def _compute_given(self, gradients: Mapping[int, Array]) -> None:
        """Sum the squares of gradients over rows and columns.

        Whatever depends on the step number is computed later, when it is known.
        """
        for number in gradients.keys() & self._squares.keys():
            section, square = self._squares[number]
            scalars = {n: x for stage in self.stages for n, x in stage.scalars(number, 1).items()}
            section.run(square, gradients[number], square.bind(scalars))
            segment, backend = self.segments[number], section.backend
            assert segment.factors is not None
            scratch, (blocks, rows, columns) = segment.scratch, segment.factors.shape
            (place,) = square.outputs
            squares = segment.shared[place][: blocks * rows * columns]
            squares = squares.reshape((blocks, rows, columns))
            r, c = (_cut(scratch[n], blocks, m) for n, m in (("r", rows), ("c", columns)))
            backend.reduce("sum", squares, (2,), r)
            backend.reduce("sum", squares, (1,), c)
            backend.reduce("sum", r, (1,), scratch["mean"][:blocks])
            kept = _cut(segment.state["R"], blocks, rows)
            backend.reduce("sum", kept, (1,), scratch["total"][:blocks])


def _advance() -> tuple[Kernel, ...]:
    """Update the averages with this step's sums of squares."""
    r, c, mean, kept_r, kept_c, total = map(Expr.array, ("r", "c", "mean", "R", "C", "total"))
    rows, columns = Expr.scalar("rows"), Expr.scalar("columns")
    w = {"t": Expr.scalar("t"), "beta2_decay": Expr.scalar("beta2_decay")}
    return (
        Kernel("rows", {"r": averaged(kept_r, r / columns, **w)}, ("r", "R")),
        Kernel("columns", {"c": averaged(kept_c, c / rows, **w)}, ("c", "C")),
        Kernel("mean", {"mean": averaged(total, mean / columns, **w) / rows}, ("mean", "total")),
    )


_ADVANCE: Final = _advance()
_KEEP: Final = (
    Kernel("keep_rows", {"R": Expr.array("r")}, ("R", "r")),
    Kernel("keep_columns", {"C": Expr.array("c")}, ("C", "c")),
)


def _zeros(arena: Arena, size: int) -> Array:
    flat = arena.backend.allocate((slot_size(size),), computed_in(arena.dtype))
    arena.backend.fill(0, flat)
    return flat


def _cut(flat: Array, blocks: int, length: int) -> Array:
    return flat[: blocks * length].reshape((blocks, length))


def _is_factored(parameter: Parameter) -> bool:
    return parameter.ndim >= 2 and parameter.size > 0


def _as_blocks(parameter: Parameter) -> tuple[int, int, int]:
    *lead, rows, columns = parameter.shape
    return math.prod(lead), rows, columns


def _parts(group: ParameterGroup) -> list[ParameterGroup]:
    """Each factored tensor as its own group, and the rest as one, in order of first appearance."""
    parts: dict[ParamId | None, list[tuple[str, Parameter]]] = {}
    for name, p in group.named:
        parts.setdefault(p.id if _is_factored(p) else None, []).append((name, p))
    return [group.only(named) for named in parts.values()]


def _arenas(parameters: Claimable[Any]) -> Iterator[tuple[DType, list[Parameter]]]:
    """The parameters of each future arena, with their dtype."""
    for group in as_groups(parameters):
        for part in _parts(group.trainable()):
            by_dtype: dict[DType, list[Parameter]] = {}
            for _, p in part.named:
                by_dtype.setdefault(p.dtype, []).append(p)
            for dtype, run in by_dtype.items():
                yield from (
                    (dtype, each) for each in ([[p] for p in run] if part.optional else [run])
                )


def _beside(first: Parameter, elements: int, probe: Segment, others: Collection[str]) -> int:
    """The elements of averages and scratch of an arena with `elements` elements.

    probe: a segment of the same kind. others: scratch that does not count here.
    """
    small = {*_SMALL, *others}
    axes = [len(array.shape) for name, array in probe.scratch.items() if name not in small]
    found = axes.count(1) * elements + axes.count(2) * (elements // ALIGNMENT)
    if probe.factors is None:
        return found
    blocks, rows, columns = _as_blocks(first)
    averages = slot_size(blocks * rows) + slot_size(blocks * columns)
    return found + 2 * averages + 2 * slot_size(blocks)


def _two(eps: Any) -> tuple[float | None, Hyper]:
    if not isinstance(eps, (tuple, list)) or len(eps) != 2:
        raise TypeError(f"Adafactor: eps must be two numbers, as (None, 1e-3), not {eps!r}")
    return eps[0], eps[1]
