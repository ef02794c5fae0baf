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
    """Return whether an engine's library is there."""
    return engine == "wgpu" or find_spec("wgpudawn") is not None


def adapters(engine: EngineName) -> Sequence[Adapter]:
    """Return the GPUs that an engine sees; importing Dawn's library only when it is asked for.

    NoAdapterError where the engine does not exist or is not installed.
    """
    if engine not in ENGINES:
        raise NoAdapterError(f"engine={engine!r}: there is 'wgpu' and 'dawn', or None for either")
    if engine == "wgpu":
        return wgpu_native.adapters()
    if not is_installed(engine):
        raise NoAdapterError(f"engine='dawn': Dawn is not installed; {INSTALL} brings it")
    from rumus.gpu.engine import dawn

    return dawn.adapters()
