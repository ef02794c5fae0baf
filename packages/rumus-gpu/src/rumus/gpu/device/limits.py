"""The capabilities of a device that matter to the kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rumus.gpu.engine.protocol import Device

IMMEDIATES: Final = 128  # bytes, at most; larger sets of scalars go to a uniform buffer


@dataclass(frozen=True, slots=True)
class DeviceLimits:
    """The limits for kernels and arrays."""

    binding: int  # bytes that a kernel can address in one buffer, hence the largest array
    bindings: int  # buffers of one kernel
    alignment: int  # of the offset at which a buffer is bound, in bytes
    workgroup_memory: int
    workgroup_size: int
    workgroups: int  # in one dimension of a grid
    immediates: int  # bytes; kernels with more scalars take them from a uniform buffer

    @staticmethod
    def of(device: Device, immediates: bool, binding: int | None) -> DeviceLimits:
        """Read a device's limits. binding: a lower limit for arrays, for tests."""
        found = device.limits
        largest = min(
            found["max-buffer-size"], found["max-storage-buffer-binding-size"], 2**31 - 256
        )
        has_immediates = immediates and "immediates" in device.features
        return DeviceLimits(
            binding=largest if binding is None else min(largest, binding),
            bindings=found["max-storage-buffers-per-shader-stage"],
            alignment=max(16, found["min-storage-buffer-offset-alignment"]),
            workgroup_memory=found["max-compute-workgroup-storage-size"],
            workgroup_size=found["max-compute-invocations-per-workgroup"],
            workgroups=found["max-compute-workgroups-per-dimension"],
            immediates=min(IMMEDIATES, found["max-immediate-size"]) if has_immediates else 0,
        )

    def grid(self, groups: int) -> tuple[int, int]:
        """Return a grid of at least `groups` workgroups, in two dimensions if one is too short."""
        rows = -(-groups // self.workgroups)
        return -(-groups // rows), rows
