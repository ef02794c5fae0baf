"""Scaled dot-product attention and its gradients: one dispatch forward, two backward.

Names and arguments are those of `rumus.tensor.operations.attention`. Arrays are all float32 or all
float16, the numbers kept for each row float32. Any strides will do if the last axis is dense and
the batch axes merge into one; other arrays are copied first. The kernels are in
`attention_program.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from rumus.gpu.attention.attention_arrays import BOUND, NUMBERED, Stage, strided
from rumus.gpu.attention.attention_exponents import (
    HeadExponents,
    head_exponents_program,
    parts_of,
    wide_of,
)
from rumus.gpu.attention.attention_program import AttentionTile, AttentionVariant, attention_program
from rumus.gpu.attention.unit_attention_program import (
    WIDEST,
    UnitAttention,
    UnitAttentionTile,
    unit_attention_program,
)
from rumus.gpu.device.array import GPUArray, merged
from rumus.gpu.device.device import Gpu
from rumus.gpu.device.limits import DeviceLimits
from rumus.gpu.device.matrix_units import Precision
from rumus.gpu.device.pipelines import Pipeline
from rumus.gpu.device.stored import Stored
from rumus.gpu.device.turns import check_turns
from rumus.gpu.elementwise.copying import contiguous, copy_strided
from rumus.gpu.products.unit_tiles import precision_of
from rumus.tensor import float32, int32
from rumus.tensor.memory.fused import FusedName

TURNS: Final = 50  # maximum iterations of a step's loops, without those over elements of rows
FULL: Final = 264  # workgroups, two for each multiprocessor of a large device
# Measured on an NVIDIA data-center GPU, where workgroups share 48 KiB of a multiprocessor: for rows
# of at most 64 elements, for rows of at most 32, and for longer rows or too few larger tiles.
LARGE: Final = AttentionTile(16, 8, 8, 4, depth=8)
NARROW: Final = AttentionTile(8, 16, 4, 4)
MIDDLE: Final = AttentionTile(16, 8, 4, 4)
# For few narrow rows; for software GPUs; and for the 16 KiB that every device has.
SIMPLE: Final = AttentionTile(8, 8, 4, 4)
QUICK: Final = AttentionTile(8, 8, 4, 2)
SMALL: Final = AttentionTile(8, 8, 2, 2, steps=8)
# On matrix units, the first that fits, for rows of at most 64 elements and for wider ones.
UNIT_TILES: Final = UnitAttentionTile(4, 64), UnitAttentionTile(4, 32)
WIDE_UNIT_TILES: Final = (UnitAttentionTile(4, 32),)

Arrays = dict[str, GPUArray]


def attention(
    gpu: Gpu,
    q: GPUArray,
    k: GPUArray,
    v: GPUArray,
    causal: bool,
    scale: float,
    out: GPUArray,
    logsumexp: GPUArray,
) -> None:
    """out = softmax(scale q k^T) v; `logsumexp` gets log2 of each row's sum."""
    if out.size == 0:
        return
    if k.shape[-2] == 0:
        out.backend.fill(0, out)
        return
    _run("forward", gpu, {"Q": q, "K": k, "V": v, "O": out, "total": logsumexp}, causal, scale)


def attention_gradient(
    gpu: Gpu,
    q: GPUArray,
    k: GPUArray,
    v: GPUArray,
    causal: bool,
    scale: float,
    out: GPUArray,
    logsumexp: GPUArray,
    gradient: GPUArray,
    dq: GPUArray,
    dk: GPUArray,
    dv: GPUArray,
) -> None:
    """Write the gradients of q, k and v, each into memory of its own."""
    if min(q.size, k.size, v.size) == 0:
        for array in (dq, dk, dv):
            array.backend.fill(0, array)
        return
    delta = q.backend.allocate(q.shape[:-1], float32)
    arrays = {"Q": q, "K": k, "V": v, "O": out, "G": gradient, "dQ": dq, "dK": dk, "dV": dv,
              "total": logsumexp, "delta": delta}  # fmt: skip
    exponents = None
    sizes = q.shape[-1], v.shape[-1]
    if max(sizes) <= WIDEST and precision_of(gpu, q, k, v) == "medium":
        arrays |= {name: _walkable(name, "r", arrays) for name in "QKVG"}
        exponents = _look(gpu, {name: arrays[name] for name in "QKVG"})
    _run("query", gpu, arrays, causal, scale, exponents)
    _run("key", gpu, arrays, causal, scale, exponents)


ATTENTION: Final[Mapping[FusedName, Callable[..., None]]] = {
    "attention": attention,
    "attention_gradient": attention_gradient,
}


@dataclass(frozen=True, slots=True)
class Problem:
    """The facts that decide which kernel runs one stage.

    sizes: the elements of a row of queries and keys, and of values. lengths: the numbers of own and
    of other rows. heads: how many heads of own rows there are, over all batches.
    """

    stage: Stage
    stored: Stored
    sizes: tuple[int, int]
    lengths: tuple[int, int]
    heads: int
    in_fours: bool
    causal: bool


def choose(limits: DeviceLimits, problem: Problem, is_software: bool) -> AttentionVariant:
    """Return the variant for a device; rows have at most 256 elements.

    is_software: the CPU emulates the GPU, and would take seconds to compile unrolled loops.
    """
    tiles = (QUICK,) if is_software else _tiles(problem)
    variants = [variant_of(problem, tile, not is_software) for tile in (*tiles, SMALL)]
    fitting = (variant for variant in variants if variant.bytes <= limits.workgroup_memory)
    return next(fitting)


def _tiles(problem: Problem) -> tuple[AttentionTile, ...]:
    """The tiles for a problem, the best first."""
    many, few = (NARROW, SIMPLE) if max(problem.sizes) <= 32 else (LARGE, MIDDLE)
    is_full = problem.heads * -(-problem.lengths[0] // many.own) >= FULL
    return (many, few) if is_full and max(problem.sizes) <= 64 else (few,)


def variant_of(problem: Problem, tile: AttentionTile, is_unrolled: bool) -> AttentionVariant:
    """Return the variant for a problem with this tile."""
    own, other = problem.lengths
    wide = [tile.wide(size) for size in problem.sizes]
    is_whole = all(4 * w == size for w, size in zip(wide, problem.sizes, strict=True))
    has_edge = own % tile.own or other % tile.other or any(w % tile.depth for w in wide)
    is_exact = problem.in_fours and is_whole and not has_edge
    return AttentionVariant(
        problem.stage,
        tile,
        problem.stored,
        wide[0],
        wide[1],
        problem.in_fours,
        is_exact,
        problem.causal,
        is_unrolled,
    )


def _run(
    stage: Stage,
    gpu: Gpu,
    arrays: Arrays,
    causal: bool,
    scale: float,
    exponents: _Exponents | None = None,
) -> None:
    """Dispatch one stage, with copies of arrays that it cannot walk.

    exponents: those of the backward pass, which its two stages share.
    """
    bound = {
        name: arrays[name] if name in NUMBERED else _walkable(name, mode, arrays)
        for name, mode in BOUND[stage]
    }
    precision = precision_of(gpu, *(arrays[name] for name in "QKV"))
    layouts = tuple([array.key for array in bound.values()])
    key = ("attention", stage, layouts, arrays["Q"].key, causal, precision)
    plan = gpu.plan(key, partial(_plan, stage, gpu, arrays, bound, causal, precision))
    values, more = (*plan.numbers, scale, *plan.walks), list[GPUArray]()
    if plan.is_scaled and exponents is None:
        exponents = _look(gpu, {name: bound[name] for name in "QKV"})
    if plan.is_scaled and exponents is not None:
        values += exponents.parts, exponents.owners
        more = [exponents.array]
    elif plan.is_on_units:
        values += 0, 0
    gpu.dispatch(plan.pipeline, (*bound.values(), *more), values, plan.groups)
    for name, mode in BOUND[stage]:
        if mode == "w" and bound[name] is not arrays[name]:
            copy_strided(gpu, bound[name], arrays[name])


@dataclass(frozen=True, slots=True)
class _Plan:
    """The dispatch of one stage, which depends on layouts alone.

    numbers, walks: the scalars before and after the scale. is_on_units: it runs on matrix units.
    is_scaled: it takes exponents of heads.
    """

    pipeline: Pipeline
    numbers: tuple[int, ...]
    walks: tuple[int, ...]
    groups: int
    is_on_units: bool
    is_scaled: bool


def _plan(
    stage: Stage, gpu: Gpu, arrays: Arrays, bound: Arrays, causal: bool, precision: Precision
) -> _Plan:
    """Choose the kernel of a stage. Raises LimitError if the device would cut its loops short."""
    queries, keys = arrays["Q"].shape[-2], arrays["K"].shape[-2]
    sizes = arrays["Q"].shape[-1], arrays["V"].shape[-1]
    heads, kv_heads = (_heads(arrays[name]) for name in "QK")
    walks = tuple([number for name in strided(stage) for number in _walk(bound[name])])
    in_fours = not any(number % 4 for number in (*walks, *sizes))
    owners, own, other = (kv_heads, keys, queries) if stage == "key" else (heads, queries, keys)
    owners *= math.prod(arrays["Q"].shape[:-3])
    problem = Problem(stage, arrays["Q"].stored, sizes, (own, other), owners, in_fours, causal)
    variant = unit_variant(gpu, problem, precision) or choose(gpu.limits, problem, gpu.is_software)
    tiles = -(-own // variant.own)
    steps = -(-other // variant.tile.other) * (heads // kv_heads if stage == "key" else 1)
    turns = steps * (TURNS + sum(sizes) // 2)  # or less
    what, instead = f"attention over {other:,} rows", "use shorter sequences or the CPU"
    check_turns(arrays["Q"].backend, what, turns, instead)
    groups = owners * tiles
    numbers = (queries, keys, heads, heads // kv_heads, sizes[0] | sizes[1] << 16, tiles, groups)
    if isinstance(variant, UnitAttention):
        pipeline = gpu.pipeline(("attention", variant), partial(unit_attention_program, variant))
        return _Plan(pipeline, numbers, walks, groups, True, variant.is_scaled)
    pipeline = gpu.pipeline(("attention", variant), partial(attention_program, variant))
    return _Plan(pipeline, numbers, walks, groups, False, False)


def unit_variant(gpu: Gpu, problem: Problem, precision: Precision) -> UnitAttention | None:
    """Return the variant on matrix units; None if float32 arithmetic does the work."""
    units = gpu.units
    if units is None or precision != "medium" or max(problem.sizes) > WIDEST:
        return None
    shape = units.shape
    edge = math.lcm(shape.columns, shape.depth, 4)
    wide = [-(-size // edge) * edge for size in problem.sizes]
    own, other = problem.lengths
    for tile in UNIT_TILES if max(problem.sizes) <= 64 else WIDE_UNIT_TILES:
        own_rows = tile.parts * shape.rows
        is_exact = (
            problem.in_fours
            and tuple(wide) == problem.sizes
            and not own % own_rows
            and not other % tile.other
        )
        is_scaled = problem.stage != "forward" or problem.stored.name != "f16"
        variant = UnitAttention(
            problem.stage, tile, units, problem.stored, wide[0], wide[1],
            problem.in_fours, is_exact, problem.causal, is_scaled,
        )  # fmt: skip
        if variant.fits(gpu.limits):
            return variant
    return None


@dataclass(frozen=True, slots=True)
class _Exponents:
    """Exponents [array, owner, part]. owners: heads of keys, over all batches."""

    array: GPUArray
    owners: int
    parts: int


def _look(gpu: Gpu, arrays: Arrays) -> _Exponents:
    """Find the exponents of the heads of these arrays."""
    q, k, v = (arrays[name] for name in "QKV")
    heads, kv_heads = _heads(q), _heads(k)
    members, owners = heads // kv_heads, kv_heads * math.prod(q.shape[:-3])
    queries, keys, sizes = q.shape[-2], k.shape[-2], (q.shape[-1], v.shape[-1])
    walks = [number for array in arrays.values() for number in _walk(array)]
    in_fours = not any(number % 4 for number in (*walks, *sizes))
    wide = tuple([wide_of(name, sizes) for name in arrays])
    variant = HeadExponents("".join(arrays), wide, q.stored, in_fours, members > 1)
    parts = parts_of(max(queries * members, keys), max(wide))
    found = q.backend.allocate((len(arrays), owners, parts), int32)
    numbers = queries, keys, kv_heads, members, sizes[0] | sizes[1] << 16, owners, parts, found.size
    pipeline = gpu.pipeline(("attention", variant), partial(head_exponents_program, variant))
    gpu.dispatch(pipeline, (*arrays.values(), found), (*numbers, *walks), found.size)
    return _Exponents(found, owners, parts)


def _heads(array: GPUArray) -> int:
    return array.shape[-3] if array.ndim > 2 else 1


def _walkable(name: str, mode: str, arrays: Arrays) -> GPUArray:
    """The array itself, a dense copy, or a temporary for an output."""
    array = arrays[name]
    is_dense = array.strides[-1] == 1 or array.shape[-1] == 1
    is_one_batch = len(merged(array.shape[:-3], array.strides[:-3])) < 2
    fits = is_dense and is_one_batch and min(array.strides) >= 0
    if mode == "r":
        return array if fits else contiguous(array)
    inputs = (arrays[other].storage for other in "QKVG" if other in arrays)
    if fits and array.storage not in inputs:
        return array
    return array.backend.allocate(array.shape, array.dtype)


def _walk(array: GPUArray) -> tuple[int, int, int, int]:
    """Its start, and its strides from batch to batch, head to head and row to row."""
    runs = merged(array.shape[:-3], array.strides[:-3])
    head = array.strides[-3] if array.ndim > 2 else 0
    return array.rest, runs[0][1] if runs else 0, head, array.strides[-2]
