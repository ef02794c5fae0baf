"""Arrays in the memory of the host, for what is large and used once in a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeGuard

if TYPE_CHECKING:
    from rumus.tensor.expression.dtype import DType
    from rumus.tensor.memory.backend import Array, Backend


class ReachingHost(Protocol):
    """A backend with memory of its own, whose kernels use the host's as well."""

    def allocate_on_host(self, shape: tuple[int, ...], dtype: DType) -> Array | None:
        """Return a new array in the host's memory, None where it has none such."""
        ...


def _reaches_host(backend: object) -> TypeGuard[ReachingHost]:
    return hasattr(backend, "allocate_on_host")


def allocate_on_host(backend: Backend, shape: tuple[int, ...], dtype: DType) -> Array:
    """Return a new array in the host's memory that a backend computes with.

    A CPU has no other. TypeError for a backend that cannot use it.
    """
    if not backend.runs_ahead:
        return backend.allocate(shape, dtype)
    found = backend.allocate_on_host(shape, dtype) if _reaches_host(backend) else None
    if found is None:
        raise TypeError(
            f"{backend} cannot compute with host memory: it has neither Dawn's "
            "host-mapped-pointer nor wgpu-native's mappable-primary-buffers; leave state_device "
            'out, or use state_dtype="8bit"'
        )
    return found
