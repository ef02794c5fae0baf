"""Copies between any two layouts: one invocation for each element.

The slow path, for layouts that no elementwise kernel can walk: transposes, slices, broadcasts over
a middle axis. Axes are merged where both sides allow it, to keep strides few.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from rumus.gpu.device.array import GPUArray, merged
from rumus.gpu.device.device import Gpu
from rumus.gpu.device.layout import broadcast_strides
from rumus.gpu.device.pipelines import Program
from rumus.gpu.device.shaders import prelude
from rumus.gpu.device.stored import Stored, converted, enabling

WORKGROUP: Final = 256
RANK: Final = 8  # maximum axes per kernel, limited by the space for scalars


def dense(array: GPUArray) -> GPUArray:
    """Return `array` itself if it is dense, at any offset, otherwise a dense copy."""
    return array if array.is_contiguous else contiguous(array)


def contiguous(array: GPUArray) -> GPUArray:
    """Return `array` itself if it is dense from the start of a binding, otherwise a copy."""
    if array.is_flat:
        return array
    copy = array.backend.allocate(array.shape, array.dtype)
    copy_strided(array.backend.gpu, array, copy)
    copy.was_copied_from(array)
    return copy


def is_writable(out: GPUArray, *inputs: GPUArray | None) -> bool:
    """Whether a kernel can write it: it is contiguous and shares no buffer with its inputs."""
    taken = [array.storage for array in inputs if array is not None]
    return out.is_contiguous and out.storage not in taken


@contextmanager
def writable(out: GPUArray, *inputs: GPUArray | None, keeps: bool = False) -> Iterator[GPUArray]:
    """Yield memory that a kernel can write: `out`, or a temporary that is copied to it afterwards.

    keeps: the kernel adds to the contents of `out`.
    """
    if is_writable(out, *inputs):
        yield out
        return
    target = out.backend.allocate(out.shape, out.dtype)
    if keeps:
        out.backend.copy(out, target)
    yield target
    out.backend.copy(target, out)


def copy_strided(gpu: Gpu, source: GPUArray, out: GPUArray) -> None:
    """Write `source`, broadcast and cast, into `out`, whatever their strides."""
    if out.size == 0:
        return
    if source.storage is out.storage and (source.key, source.offset) != (out.key, out.offset):
        source = _moved_away(gpu, source)
    walked = broadcast_strides(source.shape, source.strides, out.shape)
    runs = merged(out.shape, walked, out.strides)
    if len(runs) > RANK:
        _copy_slices(gpu, source, out)
        return
    runs = runs or ((1, 0, 0),)
    is_aliased = source.storage is out.storage
    key = ("copy", len(runs), source.stored.name, out.stored.name, is_aliased)
    make = partial(copy_program, len(runs), source.stored, out.stored, is_aliased)
    pipeline = gpu.pipeline(key, make)
    numbers = [number & 0xFFFFFFFF for run in runs for number in run]
    values = (out.size, source.rest, out.rest, *numbers)
    gpu.dispatch(pipeline, (source, out), values, -(-out.size // WORKGROUP))


def _moved_away(gpu: Gpu, source: GPUArray) -> GPUArray:
    """A copy of an array that may overlap the memory about to be written."""
    copy = source.backend.allocate(source.shape, source.dtype)
    copy_strided(gpu, source, copy)
    return copy


def _copy_slices(gpu: Gpu, source: GPUArray, out: GPUArray) -> None:
    """Copy index by index along the first axis, for arrays with too many unmergeable axes."""
    strides = broadcast_strides(source.shape, source.strides, out.shape)
    whole = source.view(out.shape, strides)
    for index in range(out.shape[0]):
        copy_strided(gpu, whole[index], out[index])


def copy_program(rank: int, source: Stored, out: Stored, is_aliased: bool) -> Program:
    """Return the WGSL of a copy over `rank` axes; the last varies fastest."""
    members = ["size: u32", "from_start: u32", "to_start: u32"]
    body = ["var rest = i;", "var source = k.from_start;", "var target_ = k.to_start;"]
    for axis in reversed(range(rank)):
        body.append(f"let x{axis} = rest % k.length{axis};" if axis else "let x0 = rest;")
        if axis:
            body.append(f"rest = rest / k.length{axis};")
        body.append(f"source = source + x{axis} * k.from{axis};")
        body.append(f"target_ = target_ + x{axis} * k.to{axis};")
    for axis in range(rank):
        members += [f"length{axis}: u32", f"from{axis}: u32", f"to{axis}: u32"]
    value = converted(source.load("from_[source]", 1), source.kind, out.kind, 1)
    body.append(f"to_[target_] = {out.store(value, 1)};")
    text = _text(members, body, source, out, "read_write" if is_aliased else "read")
    return Program("copy", text, "ww" if is_aliased else "rw", "I" * len(members))


def _text(members: list[str], body: list[str], source: Stored, out: Stored, mode: str) -> str:
    lines = "\n".join(f"    {line}" for line in body)
    return (
        f"{enabling(source, out)}struct Scalars {{\n"
        + "".join(f"    {m},\n" for m in members)
        + "}\n\n"
        "var<immediate> k: Scalars;\n"
        f"@group(0) @binding(0) var<storage, {mode}> from_: array<{source.wgsl}>;\n"
        f"@group(0) @binding(1) var<storage, read_write> to_: array<{out.wgsl}>;\n\n"
        f"{prelude(lines)}\n@compute @workgroup_size({WORKGROUP})\nfn main(\n"
        "    @builtin(workgroup_id) group: vec3<u32>,\n"
        "    @builtin(num_workgroups) groups: vec3<u32>,\n"
        "    @builtin(local_invocation_index) local: u32,\n) {\n"
        f"    let i = (group.y * groups.x + group.x) * {WORKGROUP}u + local;\n"
        "    if (i >= k.size) {\n        return;\n    }\n"
        f"{lines}\n}}\n"
    )
