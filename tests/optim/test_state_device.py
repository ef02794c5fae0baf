"""`state_device="host"`: the same bits, in host memory."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from rumus.optim import (
    EMA,
    LAMB,
    SOAP,
    Adafactor,
    AdaGC,
    AdamW,
    FusedOptimizer,
    Lion,
    MultiOptimizer,
    Muon,
    Prodigy,
    ScheduleFreeAdamW,
    load_state,
    save_state,
)
from rumus.tensor import Backend, GradientStore, NumpyBackend, Parameter, float16, tensor

SHAPES: Final = ((70, 90), (7,), (3, 40, 5))
Make = Callable[..., FusedOptimizer[Any]]
MADE: Final[dict[str, Make]] = {
    "AdamW": lambda p, **o: AdamW(p, 0.1, **o),
    "AdamW, averages": lambda p, **o: AdamW(p, 0.1, average=EMA(0.9), compensated=True, **o),
    "AdamW, clip": lambda p, **o: AdamW(p, 0.1, clip=AdaGC(warmup_steps=2), **o),
    "AdamW, 8 bits": lambda p, **o: AdamW(p, 0.1, state_dtype="8bit", **o),
    "AdamW, masters": lambda p, **o: AdamW(p, 0.1, master_weights=True, **o),
    "Lion, halves": lambda p, **o: Lion(p, 0.1, state_dtype="float16", **o),
    "Muon": lambda p, **o: Muon(p, 0.1, **o),
    "SOAP": lambda p, **o: SOAP(p, 0.1, precondition_frequency=2, max_precondition_dim=8, **o),
    "LAMB": lambda p, **o: LAMB(p, 0.1, **o),
    "Prodigy": lambda p, **o: Prodigy(p, **o),
    "schedule-free": lambda p, **o: ScheduleFreeAdamW(p, 0.1, **o),
    "Adafactor": lambda p, **o: Adafactor(p, 0.1, **o),
}


def parameters(backend: Backend, name: str = "") -> list[Parameter]:
    draw, dtype = np.random.default_rng(0), float16 if "masters" in name else np.float32
    return [
        Parameter(draw.normal(size=s), name=f"p{n}", backend=backend, dtype=dtype)
        for n, s in enumerate(SHAPES)
    ]


def step(optimizer: Any, t: int, factor: float = 1.0) -> None:
    draw, store = np.random.default_rng([3, t]), GradientStore()
    for p in optimizer.parameters:
        g = draw.normal(size=p.shape) * factor
        store.accumulate(p, tensor(g, dtype=p.dtype, backend=p.backend))
    optimizer.step(store)


def bits(optimizer: Any) -> list[bytes]:
    saved = optimizer.state_dict()["parameters"]
    parts = [saved[name]["state"] for name in saved]
    state = [np.asarray(part[key]).tobytes() for part in parts for key in sorted(part)]
    return [*(p.numpy().tobytes() for p in optimizer.parameters), *state]


@pytest.mark.parametrize("name", MADE)
def test_it_has_the_bits_of_state_on_the_device(backend: Backend, name: str) -> None:
    found = []
    for options in ({}, {"state_device": "host"}):
        optimizer = MADE[name](parameters(backend, name), nonfinite="skip", **options)
        for t in range(4):
            step(optimizer, t, np.nan if t == 2 else 1.0)
        assert optimizer.skipped == 1
        found.append(bits(optimizer))
        if options:
            told = optimizer.memory().state, optimizer.bytes_on_host
            assert told[1] == 0 if not backend.runs_ahead else 0 < told[1] <= told[0]
            assert optimizer.describe().count("state in the host's memory") == 1
            if optimizer.has_average:
                with optimizer.eval_params():
                    assert np.isfinite(optimizer.parameters[0].numpy()).all()
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["AdamW, averages", "AdamW, 8 bits", "AdamW, clip"])
def test_it_is_saved_loaded_and_moved(
    backend: Backend, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rumus.optim.engine import segments

    monkeypatch.setattr(segments, "AT_ONCE", 1024)  # it is sent through the device in pieces
    on_host = MADE[name](parameters(backend), state_device="host")
    for t in range(2):
        step(on_host, t)
    save_state(on_host, tmp_path / "state.safetensors")
    resident = MADE[name](parameters(backend))
    load_state(resident, tmp_path / "state.safetensors")
    again = MADE[name](parameters(NumpyBackend()), state_device="host")
    load_state(again, tmp_path / "state.safetensors")
    again.move(again.parameters, backend)
    others = [resident, again]
    for optimizer in others:
        for p, q in zip(optimizer.parameters, on_host.parameters, strict=True):
            p.assign(q.numpy())
    for optimizer in (on_host, *others):
        step(optimizer, 5)
    assert bits(resident) == bits(on_host)
    assert bits(again) == bits(on_host)


def test_the_device_has_no_copy_of_it(backend: Any) -> None:
    if not backend.runs_ahead:
        return
    gc.collect()
    shape, used = (512, 1024), []
    for options in ({}, {"state_device": "host"}):
        before = backend.memory_stats().used
        w = Parameter(np.zeros(shape), name="w", backend=backend)
        optimizer = AdamW([w], 0.1, **options)  # type: ignore[arg-type]
        assert optimizer.planned_memory([w], 0.1, **options) == optimizer.memory()
        used.append(backend.memory_stats().used - before)
        assert backend.gpu.bytes_on_host >= optimizer.bytes_on_host
        del optimizer, w
        gc.collect()
    state = 2 * 4 * shape[0] * shape[1]
    assert used[0] - used[1] == state
    assert backend.gpu.bytes_on_host < state  # given back


def test_a_device_that_cannot_reach_the_host_is_refused(
    backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not backend.runs_ahead:
        return
    monkeypatch.setattr(backend, "allocate_on_host", lambda shape, dtype: None)
    p = parameters(backend)
    with pytest.raises(TypeError, match="cannot compute with host memory"):
        AdamW(p, 0.1, state_device="host")
    assert AdamW(p, 0.1).steps == 0  # nothing was claimed


def test_another_place_is_refused() -> None:
    with pytest.raises(ValueError, match="state_device must be 'host' or None"):
        AdamW([Parameter([1.0])], 0.1, state_device="disk")  # type: ignore[arg-type]


def test_one_of_several_optimizers_has_it_there(backend: Backend) -> None:
    found = []
    for options in ({}, {"state_device": "host"}):
        first, *others = parameters(backend)
        both = MultiOptimizer([AdamW([first], 0.1, **options), Lion(others, 0.1)])  # type: ignore[arg-type]
        for t in range(3):
            step(both, t)
        found.append(bits(both))
    assert found[0] == found[1]
