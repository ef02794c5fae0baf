"""The GPUs of this machine, and the choice among them.

Vulkan, Metal and DX12 are used, but not OpenGL: where it is the only interface, features that the
kernels need are missing.
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
    """One GPU of this machine.

    index: its index in `devices()`.
    name: from the driver.
    kind: "DiscreteGPU", "IntegratedGPU", "VirtualGPU" or "CPU".
    interface: such as "Vulkan".
    driver: its name and version.
    uuid: the driver's UUID of the card, in hexadecimal digits, which distinguishes equal cards; ""
        if the interface has none.
    engines: the libraries that can drive it.
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
    """The GPUs in order of preference, each as seen by the installed engines."""
    cards: dict[tuple[str, ...], dict[EngineName, Adapter]] = {}
    for engine in engines:
        if not is_installed(engine):
            continue
        equal: dict[tuple[str, str], int] = {}
        for adapter in adapters(engine):
            kind = adapter.name, adapter.interface
            number = equal[kind] = equal.get(kind, -1) + 1
            # Without UUIDs, equal cards are told apart by their order.
            key = (adapter.uuid or str(number), *kind)
            cards.setdefault(key, {}).setdefault(engine, adapter)
    return sorted(cards.values(), key=lambda card: KINDS.index(_any(card).kind))


def _any(card: dict[EngineName, Adapter]) -> Adapter:
    return next(iter(card.values()))


def devices() -> list[DeviceInfo]:
    """Return the GPUs of this machine: discrete, integrated, virtual, then software ones.

    OpenGL is not used.
    """
    return [_info(index, card) for index, card in enumerate(_cards())]


def _info(index: int, card: dict[EngineName, Adapter]) -> DeviceInfo:
    found = _any(card)
    return DeviceInfo(
        index, found.name, found.kind, found.interface, found.driver, found.uuid, tuple(card)
    )


def choose(which: int | str | None = None, engine: EngineName | None = None) -> Adapter:
    """Return the GPU with this index, UUID or part of its name; by default the first.

    engine: the library that drives it. By default Dawn if it is installed and the GPU has matrix
    units, otherwise wgpu-native. Raises NoAdapterError, which says what to install if there is no
    GPU, and lists the GPUs if none matches.
    """
    if engine is not None:
        adapters(engine)  # raises if it is not installed
    cards = _cards(("wgpu",)) if engine is None else _cards()
    if any(_any(card).kind != "CPU" for card in cards) or not cards:
        cards = _cards()  # a software GPU has no matrix units, and Dawn is slow to start
    if not cards:
        raise NoAdapterError(
            "no GPU driver was found. Install your GPU's Vulkan driver; a software one is in the "
            "package mesa-vulkan-drivers (Debian, Ubuntu, Fedora). The CPU backend needs none"
        )
    fitting = [card for card in _named(cards, which) if engine is None or engine in card]
    if not fitting:
        there = "; ".join(map(str, devices()))
        wanted = "" if which is None else f" {which!r}"
        on = "" if engine is None else f" for engine={engine!r}"
        raise NoAdapterError(f"there is no GPU{wanted}{on}; available: {there}")
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
