"""From WGSL to something that can be dispatched: layouts and pipelines, each made once.

Layouts are explicit and shared by all programs whose buffers are read and written in the same
pattern. Pipelines are kept for good: making one costs far more than its memory.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

import wgpu

from rumus.gpu.device.errors import LimitError, ShaderError
from rumus.gpu.device.limits import Limits
from rumus.gpu.device.native import BindGroups, Handle, shader_module

SLOT: Final = 256  # bytes of the uniform buffer for the scalars of one dispatch


@dataclass(frozen=True, slots=True)
class Program:
    """WGSL with one entry point, `main`.

    access: for each binding "r" or "w". scalars: the `struct` format of the members of `k`.
    workgroup_bytes: of workgroup memory, checked here because the driver does not.
    """

    name: str
    source: str
    access: str
    scalars: str
    workgroup_bytes: int = 0


@dataclass(slots=True, eq=False)
class Pipeline:
    """A compiled program."""

    program: Program
    owner: object
    handle: Handle
    groups: BindGroups
    packer: struct.Struct
    access: str

    def pack(self, values: tuple[float, ...]) -> bytes:
        """Return the bytes of the scalars; a float too large for float32 is infinite."""
        try:
            return self.packer.pack(*values)
        except OverflowError:
            large = 3.4028235677973366e38  # what rounds to float32's largest and a half step
            finite = (float("inf") if v >= large else float("-inf") if v <= -large else v
                      for v in values)  # fmt: skip
            return self.packer.pack(*finite)


class Pipelines:
    """All pipelines of one device, by structure."""

    def __init__(self, device: wgpu.GPUDevice, limits: Limits, trusted: bool) -> None:
        self.device = device
        self.limits = limits
        self.trusted = trusted
        self._found: dict[Hashable, Pipeline] = {}
        self._layouts: dict[str, tuple[wgpu.GPUPipelineLayout, BindGroups]] = {}

    def __len__(self) -> int:
        return len(self._found)

    def get(self, key: Hashable, make: Callable[[], Program]) -> Pipeline:
        """Return the pipeline of this key, compiling what `make` returns at the first call.

        ShaderError with the kernel's name and line if it does not compile; LimitError if it needs
        more than the device has.
        """
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = self._compile(make())
        return found

    def _compile(self, program: Program) -> Pipeline:
        self._check(program)
        layout, groups = self._layout(program.access)
        source = program.source
        if not self.limits.immediates:
            place = f"@group(0) @binding({len(program.access)}) var<uniform> k"
            source = source.replace("var<immediate> k", place)
        try:
            module = shader_module(self.device, program.name, source, self.trusted)
            compute = self.device.create_compute_pipeline(
                label=program.name, layout=layout, compute={"module": module, "entry_point": "main"}
            )
        except wgpu.GPUError as error:
            if "lost" in str(error):
                raise
            raise ShaderError(
                f"kernel {program.name!r} does not compile:\n{error}\n{numbered(source)}"
            ) from None
        packer = struct.Struct("<" + program.scalars)
        return Pipeline(program, compute, compute._internal, groups, packer, program.access)

    def _check(self, program: Program) -> None:
        scalars = struct.calcsize("<" + program.scalars)
        for what, found, limit in (
            ("buffers", len(program.access), self.limits.bindings),
            ("bytes of workgroup memory", program.workgroup_bytes, self.limits.workgroup_memory),
            ("bytes of scalars", scalars, self.limits.immediates or SLOT),
        ):
            if found > limit:
                raise LimitError(
                    f"kernel {program.name!r} needs {found} {what}; this device has {limit}. "
                    "Split it into two"
                )

    def _layout(self, access: str) -> tuple[wgpu.GPUPipelineLayout, BindGroups]:
        found = self._layouts.get(access)
        if found is None:
            found = self._layouts[access] = self._make_layout(access)
        return found

    def _make_layout(self, access: str) -> tuple[wgpu.GPUPipelineLayout, BindGroups]:
        kinds = {"r": "read-only-storage", "w": "storage"}
        buffers: list[dict[str, object]] = [{"type": kinds[letter]} for letter in access]
        if not self.limits.immediates:
            buffers.append({"type": "uniform", "has_dynamic_offset": True})
        group = self.device.create_bind_group_layout(
            entries=[
                {"binding": number, "visibility": wgpu.ShaderStage.COMPUTE, "buffer": buffer}
                for number, buffer in enumerate(buffers)
            ]
        )
        layout = self.device.create_pipeline_layout(
            bind_group_layouts=[group], immediate_size=self.limits.immediates
        )
        return layout, BindGroups(self.device, group, len(buffers))


def numbered(source: str) -> str:
    """Return a program's text with line numbers, for an error."""
    return "\n".join(f"{n:4} {line}" for n, line in enumerate(source.splitlines(), 1))
