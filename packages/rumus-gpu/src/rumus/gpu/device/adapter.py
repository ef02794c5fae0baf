"""The GPUs of this machine: what there is, and which one to take.

Drivers are asked for Vulkan, Metal and DX12. OpenGL is left out: where it is the only interface,
the features that the kernels need are missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from rumus.gpu.engine.engines import ENGINES, adapters, is_installed
from rumus.gpu.engine.errors import NoAdapterError
from rumus.gpu.engine.protocol import KINDS, Adapter, EngineName


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """One GPU: its place in the order of choice, its name, what kind it is.

    index: its number among those that `devices()` lists.
    name: as the driver tells it.
    kind: "DiscreteGPU", "IntegratedGPU", "VirtualGPU" or "CPU".
    interface: such as "Vulkan".
    driver: its name and version.
    uuid: the driver's own for this card, in hexadecimal digits: what tells two equal cards apart;
        "" where the interface has none.
    engines: the libraries that see it.
    """

    index: int
    name: str
    kind: str  # DiscreteGPU, IntegratedGPU, VirtualGPU or CPU
    interface: str  # Vulkan, Metal or D3D12
    driver: str
    uuid: str = ""
    engines: tuple[EngineName, ...] = ("wgpu",)

    def __str__(self) -> str:
        uuid = f", {self.uuid}" if self.uuid else ""
        engines = " and ".join(self.engines)
        return (
            f"[{self.index}] {self.name} ({self.kind}, {self.interface}, {self.driver}{uuid}; "
            f"{engines})"
        )


@cache
def _cards(engines: Sequence[EngineName] = ENGINES) -> Sequence[dict[EngineName, Adapter]]:
    """The GPUs, the one to prefer first: each as those of the engines see it that are installed."""
    cards: dict[tuple[str, ...], dict[EngineName, Adapter]] = {}
    for engine in engines:
        if not is_installed(engine):
            continue
        equal: dict[tuple[str, str], int] = {}
        for adapter in adapters(engine):
            kind = adapter.name, adapter.interface
            number = equal[kind] = equal.get(kind, -1) + 1
            # By its number among equal ones only where it has no name of its own.
            key = (adapter.uuid or str(number), *kind)
            cards.setdefault(key, {}).setdefault(engine, adapter)
    return sorted(cards.values(), key=lambda card: KINDS.index(_any(card).kind))


def _any(card: dict[EngineName, Adapter]) -> Adapter:
    return next(iter(card.values()))


def devices() -> list[DeviceInfo]:
    """Return the GPUs of this machine, the one to prefer first.

    Discrete ones before integrated, virtual and software ones; OpenGL is left out.
    """
    return [_info(index, card) for index, card in enumerate(_cards())]


def _info(index: int, card: dict[EngineName, Adapter]) -> DeviceInfo:
    found = _any(card)
    return DeviceInfo(
        index, found.name, found.kind, found.interface, found.driver, found.uuid, tuple(card)
    )


def choose(which: int | str | None = None, engine: EngineName | None = None) -> Adapter:
    """Return the GPU of this index or UUID, or whose name contains this text; or the first.

    engine: the library that drives it. By default Dawn where it is installed and the GPU has matrix
    units, and wgpu-native everywhere else.
    NoAdapterError says what to install where there is none, and what there is where none fits.
    """
    if engine is not None:
        adapters(engine)  # raises where it is not installed
    cards = _cards(("wgpu",)) if engine is None else _cards()
    if any(_any(card).kind != "CPU" for card in cards) or not cards:
        cards = _cards()  # a software GPU has no matrix units, and Dawn takes its time to start
    if not cards:
        raise NoAdapterError(
            "no GPU driver was found. Install your GPU's Vulkan driver; a software one is in the "
            "package mesa-vulkan-drivers (Debian, Ubuntu, Fedora). The CPU backend works without"
        )
    fitting = [card for card in _named(cards, which) if engine is None or engine in card]
    if not fitting:
        there = "; ".join(map(str, devices()))
        wanted = "" if which is None else f" {which!r}"
        on = "" if engine is None else f" for engine={engine!r}"
        raise NoAdapterError(f"there is no GPU{wanted}{on}; there is {there}")
    return _on(fitting[0], engine)


def _named(
    cards: Sequence[dict[EngineName, Adapter]], which: int | str | None
) -> Sequence[dict[EngineName, Adapter]]:
    """The GPUs that `which` may mean."""
    if which is None:
        return cards
    if isinstance(which, int):
        return cards[which : which + 1] if which >= 0 else ()
    wanted = which.lower()
    by_uuid = [card for card in cards if _any(card).uuid == wanted.replace("-", "")]
    return by_uuid or [card for card in cards if wanted in _any(card).name.lower()]


def _on(card: dict[EngineName, Adapter], engine: EngineName | None) -> Adapter:
    """A GPU as one engine sees it."""
    if engine is not None:
        return card[engine]
    if "dawn" in card and (card["dawn"].matrix_units or "wgpu" not in card):
        return card["dawn"]
    return card["wgpu"]
