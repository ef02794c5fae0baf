"""`Segment`: an arena with its parameters' state, and how groups are laid out in segments."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rumus.optim.engine.division import Division
from rumus.optim.engine.packed_state import (
    AT_ONCE,
    SMALLEST,
    Codes,
    allocated,
    forms,
    host_parts,
    pack,
    targets,
    unpacked_whole,
)
from rumus.optim.engine.precision import computed_in
from rumus.optim.engine.stage import Stage
from rumus.optim.engine.update_rule import UpdateRule
from rumus.optim.options.group import ParameterGroup
from rumus.tensor import Arena, Backend, DType, Kernel, Parameter, ParamId, float32
from rumus.tensor.graph.arena import fitting
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.late_array import host_copy, is_copying_late
from rumus.tensor.memory.packing import Packing
from rumus.tensor.memory.section import Factors, Numbers, Preparation, Section, after
from rumus.tensor.memory.slot_table import ALIGNMENT, SlotTable, slot_size

# The state of parameters as NumPy arrays, by parameter id, then by name.
HostState: TypeAlias = dict[ParamId, dict[str, NDArray[Any]]]
# Where a parameter's share of a state part starts in flat memory, and its shape.
Place: TypeAlias = tuple[int, tuple[int, ...]]


@dataclass(slots=True, eq=False)
class Segment:
    """An arena with the state of its parameters, stepped by one kernel.

    scratch: arrays, flat or with one element in all or per slot, that are written before each step
    for the kernel to read. rule: its own rule, if not the optimizer's. kernel: its rule and the
    stages as one kernel. seen: each parameter's count of outside changes when the stages' arrays
    last matched it; empty if they may not match. preparation: what the updater computes before the
    step. squares, factors, too_large, numbers, beside: see `Section`. shared: scratch in memory
    that other segments also use. shapes: the shapes of state parts that all parameters share.
    by_tensor: the parts that are one number per parameter, repeated for each row of its slot.
    places: for parts in which each parameter has its own shape, where its share starts, and that
    shape. packing: the state that is kept as codes. joint: names the reduction that sums over all
    segments of its optimizer. division: how processes divide the state; `state` is this process's
    part then. on_host: whether flat state is in host memory.
    """

    arena: Arena
    state: dict[str, Array]  # flat, by name
    group: ParameterGroup
    steps: int  # the number applied before its updater was made
    scratch: dict[str, Array] = field(default_factory=dict)
    rule: UpdateRule | None = None
    kernel: Kernel | None = None
    preparation: Preparation | None = None
    seen: list[int] = field(default_factory=list)
    squares: Array | None = None
    shared: dict[str, Array] = field(default_factory=dict)
    factors: Factors | None = None
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    places: dict[str, tuple[Place, ...]] = field(default_factory=dict)
    packing: Packing | None = None
    division: Division | None = None
    too_large: float = math.inf
    numbers: Numbers | None = None
    joint: str | None = None
    by_tensor: set[str] = field(default_factory=set)
    never_negative: frozenset[str] = frozenset()
    beside: tuple[Kernel, ...] = ()
    on_host: bool = False

    @property
    def part(self) -> slice | None:
        """The range of the arena that is stepped here; None for all of it."""
        return None if self.division is None else self.division.part(self.arena.size)

    @property
    def values(self) -> Array:
        """The parameter values that are stepped here, flat."""
        return self.arena.values if self.part is None else self.arena.values[self.part]

    def add_numbers(self, names: Iterable[str], dtype: DType | None = None) -> None:
        """Add state: one number for all parameters under each name, starting at 0."""
        for name in names:
            self._add_number(name, ALIGNMENT, dtype or computed_in(self.arena.dtype))

    def add_numbers_by_tensor(self, names: Iterable[str]) -> None:
        """Add state: one float32 for each parameter under each name, starting at 0."""
        for name in names:
            self._add_number(name, whole_vectors(self.arena.table.rows), float32)
            self.by_tensor.add(name)

    def _add_number(self, name: str, size: int, dtype: DType) -> None:
        number = self.arena.backend.allocate((size,), dtype)
        self.arena.backend.fill(0, number)
        self.state[name], self.shapes[name] = number, ()

    def add_part(self, name: str, shapes: Sequence[tuple[int, ...]]) -> None:
        """Add state: an array for each parameter, in its shape of `shapes`, starting at 0."""
        table, backend = SlotTable([math.prod(shape) for shape in shapes]), self.arena.backend
        flat = backend.allocate((table.size,), computed_in(self.arena.dtype))
        backend.fill(0, flat)
        self.state[name] = flat
        self.places[name] = tuple(zip(table.starts, shapes, strict=True))

    def divide(self, division: Division) -> None:
        """Keep only the state of this process's part of the arena."""
        self.division = division
        self.keep(self.state)

    def keep(self, whole: Mapping[str, Array]) -> None:
        """If the state is divided, keep this process's part of the whole state."""
        if self.part is not None:
            self.state = {
                name: self._copied(flat[self.part]) if self._is_like_arena(name) else flat
                for name, flat in whole.items()
            }

    def _copied(self, array: Array) -> Array:
        copy = allocated(self.arena.backend, array.shape, array.dtype, self.on_host)
        self.arena.backend.copy(array, copy)
        return copy

    def zeros(self, dtype: DType) -> Array:
        """Return a new flat array for state, all 0."""
        return _zeros(self.arena, dtype, self.on_host)

    def _is_like_arena(self, name: str) -> bool:
        """Whether a part of the state has one element per parameter element."""
        return name not in self.shapes and name not in self.places

    @property
    def bytes_on_host(self) -> int:
        """The bytes in host memory if the state is there."""
        flat = [array for name, array in self.state.items() if self._is_like_arena(name)]
        parts = self.packing.parts.values() if self.packing is not None else ()
        flat += [array for part in parts for array in (part.codes, part.scales)]
        return sum(int(array.size) * np.dtype(array.dtype).itemsize for array in flat)

    def uploaded(self, host: NDArray[Any]) -> Array | NDArray[Any]:
        """Return a source for `write`: uploaded, unless the state is in host memory."""
        return host if self.on_host else self.arena.backend.upload(host)

    def write(self, source: Array | NDArray[Any], place: Array) -> None:
        """Write a source from `uploaded` to a part of the state."""
        backend = self.arena.backend
        if not self.on_host:
            backend.copy(source, place)
        elif source.shape != place.shape:
            backend.copy(backend.upload(source), place)
        else:
            flat, target = source.reshape(-1), place.reshape(-1)
            for at in range(0, flat.size, AT_ONCE):
                piece = slice(at, at + AT_ONCE)
                backend.copy(backend.upload(flat[piece]), target[piece])

    def whole(self, name: str) -> Array:
        """Return a flat part of the state, gathered if processes divide it."""
        own = self.state[name]
        if self.division is None or self.part is None or name in self.shapes:
            return own
        flat = self.arena.zeros(own.dtype)
        self.arena.backend.copy(own, flat[self.part])
        self.division.collect(self.arena.backend, flat)
        return flat

    def fits(self) -> None:
        """Note that the stages' arrays match the parameters as they are now."""
        self.seen = self._changes()

    def follow(self, stages: Sequence[Stage]) -> None:
        """Update the stages' arrays if others have changed the parameters."""
        if self.seen != (now := self._changes()):
            assigned = [n for n, count in enumerate(self.seen) if count != now[n]]
            for stage in stages:
                stage.follow(self, assigned)
            self.seen = now

    def assigned(self) -> list[Parameter]:
        """Return the parameters that others have changed since the stages' arrays followed."""
        pairs = zip(self.arena.parameters, self.seen, strict=False)
        return [p for p, count in pairs if p._version.count != count]

    def _changes(self) -> list[int]:
        return [p._version.count for p in self.arena.parameters]  # steps are not counted

    def bind(self, kernel: Kernel, scalars: Mapping[str, float]) -> tuple[float, ...]:
        """Return the scalars that its preparation, `kernel` and its other kernels take."""
        bound = kernel.bind(scalars)
        before = self.preparation.kernels if self.preparation is not None else ()
        others = (*after(self.factors, self.numbers), *self.beside)
        if not before and not others:
            return bound
        both = (before, others)
        first, last = ([n for k in kernels for n in k.bind(scalars)] for kernels in both)
        return (*first, *bound, *last)

    def section(self) -> Section:
        """Return what an updater needs to know about it."""
        arena = self.arena
        starts = tuple(slot.start for slot in arena.slots)
        arrays = {"p": self.values, **self.state, **self.scratch, **self.shared}
        own = self.kernel, self.preparation, self.squares, self.factors, self.packing
        return Section(
            arena.backend,
            arrays,
            arena.gradients,
            starts,
            *own,
            self.part,
            self.too_large,
            self.numbers,
            self.beside,
        )

    def fill(self, state: HostState) -> None:
        """Replace its state with its parameters' entries in `state`."""
        arena = self.arena
        for name, flat in self.state.items():
            host = np.zeros(flat.shape, flat.dtype)
            for parameter, view in zip(arena.parameters, self.views(name, host), strict=True):
                view[...] = state[parameter.id][name]
            self.write(self.uploaded(host), flat)
        if self.packing is not None:
            for number, parameter in enumerate(arena.parameters):
                for saved, place in targets(arena, self.packing, number, state[parameter.id]):
                    self.write(self.uploaded(saved), place)

    def forms(self, number: int) -> dict[str, tuple[DType, tuple[int, ...]]]:
        """Return the dtype and the shape of each part of the state of one of its parameters."""
        parameter = self.arena.parameters[number]
        shapes = {name: self.shapes.get(name, parameter.shape) for name in self.state}
        shapes |= {name: places[number][1] for name, places in self.places.items()}
        found = {name: (flat.dtype, shapes[name]) for name, flat in self.state.items()}
        if self.packing is None:
            return found
        return found | forms(self.packing.parts, parameter.shape, parameter.size)

    def views(self, name: str, flat: Array) -> list[Array]:
        """Return views of each parameter's share of a flat state part, in that share's shape.

        For a part with one number per parameter, the view is all of its rows.
        """
        if (places := self.places.get(name)) is not None:
            return [flat[at : at + math.prod(shape)].reshape(shape) for at, shape in places]
        shape = self.shapes.get(name)
        if shape is None:
            return self.arena.views(flat)
        if name in self.by_tensor:
            return [flat[rows] for rows in self._rows()]
        return [flat[: math.prod(shape)].reshape(shape)] * len(self.arena.parameters)

    def _rows(self) -> list[slice]:
        """The rows of each parameter's slot."""
        slots = [(s.start // ALIGNMENT, slot_size(s.size) // ALIGNMENT) for s in self.arena.slots]
        return [slice(first, first + count) for first, count in slots]

    def host_views(self, name: str) -> list[NDArray[Any]]:
        """Return each parameter's share as a NumPy copy, in that share's shape.

        All are read at once, or later within `copying_late`.
        """
        backend, whole = self.arena.backend, self.whole(name)
        if is_copying_late(backend) and name not in self.by_tensor:
            return [host_copy(view, backend) for view in self.views(name, whole)]
        views = self.views(name, backend.download(whole))
        if name in self.by_tensor:
            return [np.asarray(rows[0] if rows.size else 0, rows.dtype) for rows in views]
        return [view.copy() for view in views]


def whole_vectors(size: int) -> int:
    """Round up to a multiple of four, since small kernels process four elements at a time."""
    return -(-size // 4) * 4


# Maps the parameters' dtype to the dtype of each part of their state, by name.
StateLayout: TypeAlias = Callable[[DType], Mapping[str, DType]]


def in_their_dtype(names: Iterable[str]) -> StateLayout:
    """Return the layout of state in its parameters' dtype."""
    parts = tuple(names)
    return lambda dtype: dict.fromkeys(parts, dtype)


@dataclass(frozen=True, slots=True)
class ArenaPlan:
    """Parameters that share an arena. dtypes: of each part of their state that is not packed."""

    group: ParameterGroup
    parameters: list[Parameter]
    backend: Backend
    dtypes: Mapping[str, DType]
    is_packed: bool


def runs(
    groups: Iterable[ParameterGroup],
    places: Mapping[ParamId, Backend],
    layout: StateLayout,
    codes: Codes,
) -> Iterator[ArenaPlan]:
    """Yield the arenas of `lay_out`. codes: the parts that large parameters keep packed."""
    for group in groups:
        found: dict[tuple[DType, int, int, bool], list[Parameter]] = {}
        backends: dict[int, Backend] = {}
        for position, (_, p) in enumerate(group.named):
            backend = places.get(p.id, p.backend)
            backends[id(backend)] = backend
            apart = position if group.optional else -1
            is_packed = bool(codes) and p.size >= SMALLEST
            found.setdefault((p.dtype, id(backend), apart, is_packed), []).append(p)
        for (dtype, place, _, is_packed), parameters in found.items():
            dtypes = {n: d for n, d in layout(dtype).items() if not (is_packed and n in codes)}
            widest = max((dtype, *dtypes.values()), key=lambda each: each.itemsize)
            for part in fitting(parameters, widest, backends[place].max_array_bytes):
                yield ArenaPlan(group, part, backends[place], dtypes, is_packed)


def lay_out(
    groups: Sequence[ParameterGroup],
    places: Mapping[ParamId, Backend],
    layout: StateLayout,
    codes: Codes = MappingProxyType({}),
    *,
    on_host: bool = False,
) -> list[Segment]:
    """Return new arenas for the parameters of `groups`, with zeroed state as in `layout`.

    places: the new backends of parameters that change theirs. The parameters are not touched: their
    elements are copied. Each optional one gets its own segment. codes: the parts of the state that
    large parameters keep packed, in separate segments. on_host: whether the state is in host
    memory.
    """
    segments, packed = [], []
    for run in runs(groups, places, layout, codes):
        arena = Arena(run.parameters, run.parameters[0].dtype, run.backend)
        state = {name: _zeros(arena, dtype, on_host) for name, dtype in run.dtypes.items()}
        segment = Segment(arena, state, run.group, 0, on_host=on_host)
        segments.append(segment)
        packed += [segment] if run.is_packed else []
    packings = pack([segment.arena for segment in packed], codes, on_host=on_host)
    for segment, packing in zip(packed, packings, strict=True):
        segment.packing = packing
    return segments


def in_one_piece(segments: Iterable[Segment]) -> None:
    """Make segments unpack all of their state at once: their kernels read one value per slot."""
    packed = [(s, s.packing) for s in segments if s.packing is not None]
    whole = unpacked_whole([(segment.arena.backend, packing) for segment, packing in packed])
    for (segment, _), packing in zip(packed, whole, strict=True):
        segment.packing = packing


def _zeros(arena: Arena, dtype: DType, on_host: bool) -> Array:
    flat = allocated(arena.backend, (arena.size,), dtype, on_host)
    arena.backend.fill(0, flat)
    return flat


def state_views(
    segments: Sequence[Segment], states: Sequence[Mapping[str, Array]]
) -> dict[ParamId, dict[str, Array]]:
    """Return views of each parameter's state in its shape, by parameter id.

    states: the whole state of each segment, flat.
    """
    found: dict[ParamId, dict[str, Array]] = {}
    for segment, state in zip(segments, states, strict=True):
        by_name = {name: segment.views(name, flat) for name, flat in state.items()}
        for number, parameter in enumerate(segment.arena.parameters):
            found[parameter.id] = {name: views[number] for name, views in by_name.items()}
    return found


def host_state(segments: Iterable[Segment]) -> HostState:
    """Return a NumPy copy of each parameter's state."""
    found: HostState = {p.id: {} for segment in segments for p in segment.arena.parameters}
    for segment in segments:
        arena = segment.arena
        for name in segment.state:
            for parameter, view in zip(arena.parameters, segment.host_views(name), strict=True):
                found[parameter.id][name] = view
        if segment.packing is not None:
            parts = host_parts(arena, segment.packing)
            for parameter, own in zip(arena.parameters, parts, strict=True):
                found[parameter.id] |= own
    return found
