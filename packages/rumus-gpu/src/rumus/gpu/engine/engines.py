"""The engines of this machine: wgpu-native always, Dawn where wgpudawn is installed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final, get_args

from rumus.gpu.engine import wgpu_native
from rumus.gpu.engine.errors import NoAdapterError
from rumus.gpu.engine.protocol import Adapter, EngineName

ENGINES: Final[tuple[EngineName, ...]] = get_args(EngineName)
INSTALL: Final = 'pip install "rumus-gpu[dawn]"'


def is_installed(engine: EngineName) -> bool:
    """Return whether an engine's library is installed."""
    return engine == "wgpu" or find_spec("wgpudawn") is not None


def adapters(engine: EngineName) -> Sequence[Adapter]:
    """Return the GPUs that an engine sees. Dawn's library is imported on first use.

    Raises NoAdapterError for an unknown engine and for one that is not installed.
    """
    if engine not in ENGINES:
        raise NoAdapterError(f"engine must be 'wgpu', 'dawn' or None, not {engine!r}")
    if engine == "wgpu":
        return wgpu_native.adapters()
    if not is_installed(engine):
        raise NoAdapterError(f"engine='dawn' is not installed; run {INSTALL}")
    from rumus.gpu.engine import dawn

    return dawn.adapters()
