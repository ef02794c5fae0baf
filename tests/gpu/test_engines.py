"""Which engine drives a GPU: the choice, equal cards, and two engines in one program."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import pytest

from rumus.gpu import Gpu, GpuBackend, NoAdapterError, devices
from rumus.gpu.device import adapter as module
from rumus.gpu.device.adapter import choose
from rumus.gpu.engine import engines
from rumus.gpu.engine.protocol import EngineName, MatrixUnit
from rumus.tensor import BackendMismatchError, tensor

UNIT: Final = MatrixUnit(16, 16, 16, "f16", "f32", (32, 32))


def card(engine: EngineName, name: str, kind: str, uuid: str, units: Sequence[Any] = ()) -> Any:
    """An adapter, as far as the choice depends on it."""
    return SimpleNamespace(engine=engine, name=name, kind=kind, interface="Vulkan", driver="1",
                           uuid=uuid, matrix_units=tuple(units), features=frozenset())  # fmt: skip


class Machine:
    """The adapters that engines see; `started` lists the engines that were asked."""

    def __init__(self, **cards: Sequence[Any]) -> None:
        self.cards = cards
        self.started: list[EngineName] = []

    def adapters(self, engine: EngineName) -> Sequence[Any]:
        self.started.append(engine)
        return self.cards[engine]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Two identical cards with matrix units, as both engines see them, and a software GPU."""
    found = Machine(
        wgpu=[
            card("wgpu", "Card", "DiscreteGPU", "aa11"),
            card("wgpu", "Card", "DiscreteGPU", "bb22"),
            card("wgpu", "Software", "CPU", "cc33"),
        ],
        dawn=[
            card("dawn", "Card", "DiscreteGPU", "bb22", [UNIT]),
            card("dawn", "Card", "DiscreteGPU", "aa11", [UNIT]),
        ],
    )
    monkeypatch.setattr(module, "adapters", found.adapters)
    monkeypatch.setattr(module, "is_installed", lambda engine: engine in found.cards)
    module._cards.cache_clear()
    yield found
    module._cards.cache_clear()


def test_equal_cards_are_told_apart_by_uuid(machine: Machine) -> None:
    assert [info.uuid for info in devices()] == ["aa11", "bb22", "cc33"]
    assert devices()[1].engines == ("wgpu", "dawn")
    for uuid in ("aa11", "bb22"):
        assert choose(uuid).uuid == choose(uuid, "wgpu").uuid == uuid
    assert choose("BB-22", "dawn").uuid == "bb22"


def test_dawn_is_chosen_for_matrix_units(machine: Machine) -> None:
    assert choose().engine == "dawn"
    assert choose(engine="wgpu").engine == "wgpu"
    assert choose("software").engine == "wgpu"
    for each in machine.cards["dawn"]:
        each.matrix_units = ()
    assert choose().engine == "wgpu"


def test_dawn_is_not_started_for_a_software_gpu_alone(machine: Machine) -> None:
    machine.cards["wgpu"] = machine.cards["wgpu"][2:]
    assert choose().name == "Software"
    assert machine.started == ["wgpu"]


def test_dawn_is_chosen_if_it_is_the_only_engine(machine: Machine) -> None:
    machine.cards["wgpu"] = []
    assert choose().engine == "dawn"


def test_an_engine_that_does_not_see_the_card(machine: Machine) -> None:
    with pytest.raises(NoAdapterError, match=r"no GPU 'soft' for engine='dawn'; available: \[0\]"):
        choose("soft", "dawn")


def test_a_missing_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(NoAdapterError, match=r"'dawn' is not installed; run pip .*\[dawn\]"):
        Gpu(engine="dawn")
    with pytest.raises(NoAdapterError, match="engine must be 'wgpu', 'dawn' or None, not 'vulkan'"):
        Gpu(engine="vulkan")  # type: ignore[arg-type]


@pytest.mark.needs_gpu
def test_two_engines_in_one_program() -> None:
    if not any("dawn" in info.engines for info in devices()):
        pytest.skip("Dawn is not installed, or finds no GPU")
    first, second = (GpuBackend(Gpu(engine=engine)) for engine in engines.ENGINES)
    host = np.arange(12, dtype=np.float32).reshape(3, 4)
    x, y = tensor(host, backend=first), tensor(host, backend=second)
    for _ in range(3):
        x, y = x + 1.0, y + 1.0
    assert (x.numpy() == host + 3).all()
    assert (y.to(first) == x).numpy().all()
    with pytest.raises(BackendMismatchError):
        x @ y.T


LOSING: Final = """
import sys
import numpy as np
from rumus.gpu import DeviceLostError, Gpu, GpuBackend, GpuError
from rumus.gpu.device.late_read import LateRead
backend = GpuBackend(Gpu(engine=sys.argv[1]))
array = backend.upload(np.ones(1000, np.float32))
late = LateRead(backend.gpu, array)
late.start()
backend.gpu.device.destroy()
for read in (lambda: late.take(wait=True), lambda: backend.download(array), late.start):
    try:
        read()
    except GpuError:  # or the data read before the loss
        pass
try:
    backend.upload(np.ones(10, np.float32))
    backend.gpu.synchronize()
except GpuError:
    print("told")
"""


@pytest.mark.needs_gpu
@pytest.mark.parametrize("engine", engines.ENGINES)
def test_a_device_that_is_lost_while_its_memory_is_read(engine: EngineName) -> None:
    if not any(engine in info.engines for info in devices()):
        pytest.skip(f"{engine} is not installed, or finds no GPU")
    ran = subprocess.run(
        [sys.executable, "-c", LOSING, engine],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert "told" in ran.stdout
