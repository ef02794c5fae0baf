"""From WGSL to dispatches: layouts and pipelines, each made once.

Layouts are explicit and shared by all programs that read and write their buffers in the same
pattern. Pipelines are kept forever: making one costs far more than its memory.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

from rumus.gpu.device.limits import DeviceLimits
from rumus.gpu.engine.errors import EngineError, LimitError, ShaderError
from rumus.gpu.engine.protocol import BindGroups, Device, Handle, Layout

SLOT: Final = 256  # bytes of the uniform buffer for the scalars of one dispatch


@dataclass(frozen=True, slots=True)
class Program:
    """WGSL with one entry point, `main`.

    access: for each binding "r" or "w". scalars: the `struct` format of the members of `k`.
    workgroup_bytes: of workgroup memory, checked here because the driver does not.
    features: of `Feature`; their directives are prepended. Raises LimitError on a device without
        them.
    """

    name: str
    source: str
    access: str
    scalars: str
    workgroup_bytes: int = 0
    features: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class Pipeline:
    """A compiled program. is_uniform: it takes its scalars from a uniform buffer."""

    program: Program
    owner: object
    handle: Handle
    groups: BindGroups
    packer: struct.Struct
    access: str
    is_uniform: bool

    def pack(self, values: tuple[float, ...]) -> bytes:
        """Return the bytes of the scalars; a float too large for float32 is infinite."""
        try:
            return self.packer.pack(*values)
        except OverflowError:
            large = 3.4028235677973366e38  # float32's largest plus half a step: rounds to infinity
            finite = (float("inf") if v >= large else float("-inf") if v <= -large else v
                      for v in values)  # fmt: skip
            return self.packer.pack(*finite)


class Pipelines:
    """All pipelines of one device, by structure."""

    def __init__(self, device: Device, limits: DeviceLimits, trusted: bool) -> None:
        self.device = device
        self.limits = limits
        self.trusted = trusted
        self._found: dict[Hashable, Pipeline] = {}
        self._layouts: dict[tuple[str, bool], Layout] = {}

    def __len__(self) -> int:
        return len(self._found)

    def get(self, key: Hashable, make: Callable[[], Program]) -> Pipeline:
        """Return the pipeline of this key, compiling the result of `make` at the first call.

        Raises ShaderError, with the kernel's name and line, if it does not compile; LimitError if
        it needs more than the device has.
        """
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = self._compile(make())
        return found

    def _compile(self, program: Program) -> Pipeline:
        self._check(program)
        packer = struct.Struct("<" + program.scalars)
        is_uniform = packer.size > self.limits.immediates
        layout = self._layout(program.access, is_uniform)
        source = self.device.preamble(program.features) + program.source
        if is_uniform:
            place = f"@group(0) @binding({len(program.access)}) var<uniform> k"
            source = source.replace("var<immediate> k", place)
        try:
            compiled = self.device.pipeline(program.name, source, layout, self.trusted)
        except EngineError as error:
            raise ShaderError(
                f"kernel {program.name!r} does not compile:\n{error}\n{numbered(source)}"
            ) from None
        groups, access = layout.groups, program.access
        return Pipeline(program, compiled, compiled.handle, groups, packer, access, is_uniform)

    def _check(self, program: Program) -> None:
        scalars = struct.calcsize("<" + program.scalars)
        for what, found, limit in (
            ("buffers", len(program.access), self.limits.bindings),
            ("bytes of workgroup memory", program.workgroup_bytes, self.limits.workgroup_memory),
            ("bytes of scalars", scalars, SLOT),
        ):
            if found > limit:
                raise LimitError(
                    f"kernel {program.name!r} needs {found} {what}; this device has {limit}. "
                    "Split it into two"
                )
        if missing := [name for name in program.features if name not in self.device.features]:
            raise LimitError(
                f"kernel {program.name!r} needs {', '.join(missing)}, which this device lacks"
            )

    def _layout(self, access: str, is_uniform: bool) -> Layout:
        found = self._layouts.get((access, is_uniform))
        if found is None:
            found = self.device.layout(access, is_uniform, self.limits.immediates)
            self._layouts[access, is_uniform] = found
        return found


def numbered(source: str) -> str:
    """Return a program's text with line numbers, for an error."""
    return "\n".join(f"{n:4} {line}" for n, line in enumerate(source.splitlines(), 1))
