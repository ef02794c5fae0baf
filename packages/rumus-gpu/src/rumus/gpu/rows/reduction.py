"""Reductions over any axes, mostly in one dispatch or two.

The array is viewed as [outer, length, inner] and reduced over the middle axis; if the reduced axes
are not adjacent, it is copied first. A long axis is split into chunks, whose results a second
dispatch reduces or splits again: otherwise there would be too few invocations, and each would add
too many numbers in sequence. The split depends only on the shape, so the same sum has the same bits
every time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, TypeAlias

from rumus.gpu.device.array import GPUArray, Shape
from rumus.gpu.device.device import Gpu
from rumus.gpu.device.pipelines import Program
from rumus.gpu.device.shaders import constants, prelude, shader
from rumus.gpu.device.stored import VALUE, Stored, enabling
from rumus.gpu.elementwise.copying import contiguous
from rumus.tensor import int32

Operation: TypeAlias = Literal[
    "sum", "scaled_sum", "prod", "squares", "norm", "max", "min", "argmax", "argmin",
    "first_not_finite", "exponent",
]  # fmt: skip
Stage: TypeAlias = Literal["first", "middle", "last", "only"]

WORKGROUP: Final = 64
FEW: Final = 16_384  # with fewer results, the reduced axis is split for more invocations
CHUNK: Final = 2048  # elements of one workgroup's chunk of a row
RUN: Final = 32  # elements of one invocation's chunk of a column
SHORT: Final = 256  # columns up to this length are never split: a second dispatch costs more
ONE_BY_ONE: Final = 1024  # maximum elements that one invocation reduces
NONE: Final = 0xFFFFFFFF  # "no element" among flat indices

_KEY = """
// An unsigned number that sorts like a float, with NaN above (or below) all.
fn key_of(x: f32) -> u32 {
    let bits = select(bitcast<u32>(x), 0u, bitcast<u32>(x) == 0x80000000u);
    let ordered = select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
    return select(ordered, NAN_KEY, (bits & 0x7fffffffu) > 0x7f800000u);
}

fn number(key: u32) -> f32 {
    let bits = select(~key, key & 0x7fffffffu, key >= 0x80000000u);
    return bitcast<f32>(select(bits, 0x7fc00000u, key == NAN_KEY));
}
"""
_NORM = """
// Sums of squares: of large numbers (over 2^50) times 2^-160, of small ones (under 2^-50) times
// 2^148, of the others. None leaves f32.
fn squares(x: f32) -> vec3<f32> {
    let size = abs(x);
    let large = size * 0x1p-80f;
    let small = size * 0x1p74f;
    let other = vec3<f32>(0.0, 0.0, size * size);
    let below = select(other, vec3<f32>(0.0, small * small, 0.0), size < 0x1p-50f);
    return select(below, vec3<f32>(large * large, 0.0, 0.0), size > 0x1p50f);
}

fn root(sums: vec3<f32>) -> f32 {
    let all = sums.x + sums.y + sums.z;
    if ((bitcast<u32>(all) & 0x7fffffffu) > 0x7f800000u) {
        return all;
    }
    // Scaled before a square: a compiler may join two steps to one of 2^-160, which is 0.
    let other = sqrt(sums.z);
    if (sums.x > 0.0) {
        let scaled = other * 0x1p-80f;
        return sqrt(sums.x + scaled * scaled) * 0x1p80f;
    }
    if (sums.z < 0x1p-80f) {
        let scaled = other * 0x1p74f;
        return sqrt(sums.y + scaled * scaled) * 0x1p-74f;
    }
    let scaled = sqrt(sums.y) * 0x1p-74f;
    return sqrt(sums.z + scaled * scaled);
}
"""
# Kind of element -> to an unsigned number of the same order, and back.
_KEYS: Final = {
    "f": ("key_of(x)", "number(value)"),
    "i": ("bitcast<u32>(x) ^ 0x80000000u", "bitcast<i32>(value ^ 0x80000000u)"),
    "b": ("select(0u, 1u, x)", "(value != 0u)"),
}


@dataclass(frozen=True, slots=True)
class _Family:
    """One operation on one kind of element: WGSL for the parts that reduce.wgsl leaves open.

    load: of an element `x` at position `r` of the reduced axis. combine: of two values `a` and `b`.
    result: of the final `value`. is_closed: whether results of parts are elements like any other.
    """

    value: str
    neutral: str
    load: str
    combine: str
    result: str
    functions: str = ""
    is_closed: bool = False


def _family(operation: Operation, kind: str) -> _Family:
    """The family of an operation on floats ("f"), integers ("i") or booleans ("b")."""
    if operation == "scaled_sum":
        return _Family("f32", "f32(0)", "x", "a + b", "value * k.factor")
    if operation == "sum":
        value = "f32" if kind == "f" else "i32"
        return _Family(value, f"{value}(0)", "x", "a + b", "value")
    if operation == "prod":
        value = "f32" if kind == "f" else "i32"
        return _Family(value, f"{value}(1)", "x", "a * b", "value")
    if operation == "squares":
        return _Family("f32", "f32(0)", "x * x", "a + b", "value")
    if operation == "norm":
        return _Family("vec3<f32>", "vec3<f32>(0)", "squares(x)", "a + b", "root(value)", _NORM,
                       is_closed=True)  # fmt: skip
    if operation == "exponent":  # the largest biased exponent of a finite element
        found = "((bitcast<u32>(x) >> 23u) & 255u)"
        load = f"select({found}, 0u, {found} == 255u)"
        return _Family("u32", "0u", load, "max(a, b)", "i32(value)")
    if operation == "first_not_finite":
        is_bad = "(bitcast<u32>(x) & 0x7f800000u) == 0x7f800000u"
        return _Family(
            "u32", f"{NONE}u", f"select({NONE}u, r, {is_bad})", "min(a, b)", "i32(value)"
        )
    to_key, from_key = _KEYS[kind]
    if operation in ("argmax", "argmin"):
        # The smallest element has the largest complemented key; NaN wins in both.
        nan, load = ("0xffffffffu", f"vec2<u32>({to_key}, r)")
        if operation == "argmin":
            nan, load = "0u", f"vec2<u32>(~({to_key}), r)"
        better = "select(b, a, a.x > b.x || (a.x == b.x && a.y < b.y))"
        return _Family("vec2<u32>", f"vec2<u32>(0u, {NONE}u)", load, better, "i32(value.y)",
                       _key(nan))  # fmt: skip
    neutral, nan = ("0u", "0xffffffffu") if operation == "max" else (f"{NONE}u", "0u")
    return _Family("u32", neutral, to_key, f"{operation}(a, b)", from_key, _key(nan))


def _key(nan: str) -> str:
    return f"const NAN_KEY = {nan};\n{_KEY}"


def ordered_key(kind: str) -> tuple[str, str]:
    """Return WGSL functions, and an expression for an unsigned number that sorts like element `x`.

    NaN sorts last, whatever its sign.
    """
    return _key("0xffffffffu"), _KEYS[kind][0]


def reduce_program(
    operation: Operation, source: Stored, out: Stored, lanes: int, stage: Stage
) -> Program:
    """Return the WGSL of one dispatch: from elements or partial values, to either."""
    family = _family(operation, source.kind)
    size = {"vec2<u32>": 8, "vec3<f32>": 16}.get(family.value, 4)
    text = "\n".join(_parts(family, source, out, lanes, stage)) + shader("reduce")
    return Program(f"reduce_{operation}", text, "rw", "IIIIIIIf", size * lanes)


def _parts(family: _Family, source: Stored, out: Stored, lanes: int, stage: Stage) -> Iterator[str]:
    """The text before reduce.wgsl."""
    value, is_end, is_start = family.value, stage in ("last", "only"), stage in ("first", "only")
    between = "f32" if family.is_closed else value
    stored = source.wgsl if is_start else between
    element = f"element({source.load('stored', 1)}, r)" if is_start else "stored"
    part = "value"
    if family.is_closed:
        element, part = element if is_start else "element(stored, r)", family.result
    result = out.store(family.result, 1) if is_end else part
    yield enabling(source, out)
    yield constants(LANES=lanes, WORKGROUP=WORKGROUP if lanes == 1 else lanes)
    yield f"const NEUTRAL = {family.neutral};\nalias Stored = {stored};\nalias Value = {value};"
    yield f"alias Result = {out.wgsl if is_end else between};\n{family.functions}"
    yield prelude(result)
    yield f"fn element(x: {VALUE[source.kind]}, r: u32) -> Value {{\n    return {family.load};\n}}"
    yield f"fn load(stored: Stored, r: u32) -> Value {{\n    return {element};\n}}"
    yield f"fn combine(a: Value, b: Value) -> Value {{\n    return {family.combine};\n}}"
    yield f"fn result(value: Value) -> Result {{\n    return {result};\n}}\n"


def reduce(
    gpu: Gpu,
    operation: Operation,
    array: GPUArray,
    axes: Shape,
    out: GPUArray,
    factor: float = 1.0,
) -> None:
    """Reduce `array` over `axes` into `out`.

    `array` has at least one element, and `out` is contiguous, in its own memory. factor: multiplies
    a scaled sum.
    """
    _reduce(gpu, operation, array, axes, out, factor)
    if operation.startswith("arg"):  # known without reading, in case it is used as an index
        length = math.prod(array.shape[axis] for axis in axes)
        out.bounds = out.storage.writes, 0, max(0, length - 1)


def scaled_sum(gpu: Gpu, array: GPUArray, axes: Shape, factor: float, out: GPUArray) -> None:
    """Write the sums over `axes`, times a factor, to memory that was allocated for them."""
    if out.size and not array.size:
        out.backend.fill(0, out)
    elif out.size:
        reduce(gpu, "scaled_sum", array, axes, out, factor)


def _reduce(
    gpu: Gpu, operation: Operation, array: GPUArray, axes: Shape, out: GPUArray, factor: float
) -> None:
    source, outer, length, inner = _as_block(array, axes)
    types, is_partial = (source.stored, out.stored), False
    while True:
        lanes, chunk = _cut(outer, length, inner)
        chunks = -(-length // chunk)
        if chunks == 1:
            end = _Step(source, out, outer, length, inner, lanes, chunk)
            _run(gpu, operation, types, "last" if is_partial else "only", end, factor)
            return
        words = outer * chunks * inner * (2 if operation.startswith("arg") else 1)
        between = out.backend.allocate((words,), int32)
        step = _Step(source, between, outer, length, inner, lanes, chunk)
        _run(gpu, operation, types, "middle" if is_partial else "first", step)
        source, length, is_partial = between, chunks, True


@dataclass(frozen=True, slots=True)
class _Step:
    """One dispatch over [outer, length, inner]."""

    source: GPUArray
    target: GPUArray
    outer: int
    length: int
    inner: int
    lanes: int
    chunk: int


def _run(
    gpu: Gpu,
    operation: Operation,
    types: tuple[Stored, Stored],
    stage: Stage,
    step: _Step,
    factor: float = 1.0,
) -> None:
    make = partial(reduce_program, operation, *types, step.lanes, stage)
    key = ("reduce", operation, types[0].name, types[1].name, step.lanes, stage)
    chunks = -(-step.length // step.chunk)
    results = step.outer * chunks * step.inner
    groups = results if step.lanes > 1 else -(-results // WORKGROUP)
    values = (step.outer, step.length, step.inner, chunks, step.chunk,
              step.source.rest, step.target.rest, factor)  # fmt: skip
    gpu.dispatch(gpu.pipeline(key, make), (step.source, step.target), values, groups)


def _as_block(array: GPUArray, axes: Shape) -> tuple[GPUArray, int, int, int]:
    """View an array as [outer, length, inner]; copy it first if the axes are not adjacent."""
    kept = tuple(axis for axis in range(array.ndim) if axis not in axes)
    length = math.prod(array.shape[axis] for axis in axes)
    if not axes:
        return contiguous(array), array.size, 1, 1
    if axes == tuple(range(axes[0], axes[-1] + 1)) and array.is_contiguous:
        outer = math.prod(array.shape[: axes[0]])
        return array, outer, length, math.prod(array.shape[axes[-1] + 1 :])
    moved = contiguous(array.transpose((*kept, *axes)))
    return moved, array.size // length, length, 1


def _cut(outer: int, length: int, inner: int) -> tuple[int, int]:
    """The lanes that share a row, and the elements of a chunk of the axis."""
    results = outer * inner
    if inner == 1 and length > RUN and (results < FEW or length > ONE_BY_ONE):
        lanes = 64 if length <= CHUNK else 256
        most = max(min(256, FEW // results), -(-length // (ONE_BY_ONE * 256)))
        return lanes, -(-length // min(-(-length // CHUNK), most))
    if length <= SHORT:
        return 1, length
    wanted = min(-(-length // RUN), max(1, 4 * FEW // results))
    return 1, -(-length // max(wanted, -(-length // ONE_BY_ONE)))
