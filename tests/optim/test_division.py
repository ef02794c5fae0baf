"""Processes that divide an optimizer's state give the same bits as one with the whole state.

Threads stand in for the processes.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pytest

from rumus.optim import (
    AGC,
    EMA,
    LAMB,
    SGD,
    AdamW,
    ClipNorm,
    ClipValue,
    FusedOptimizer,
    Lion,
    Muon,
    ScheduleFreeAdamW,
    ZClip,
)
from rumus.tensor import Backend, NumpyBackend, Parameter, float16, float32, tensor

SIZE = 3
STEPS = 4
SHAPES = ((300, 7), (5,), (40, 40))


class Parts:
    """The division of one thread."""

    def __init__(self, number: int, meet: Barrier, shared: list[Any]) -> None:
        self.number, self.meet, self.shared = number, meet, shared

    def part(self, size: int, number: int | None = None) -> slice:
        at = self.number if number is None else number
        rows = size // 64
        return slice(rows * at // SIZE * 64, rows * (at + 1) // SIZE * 64)

    def collect(self, backend: Backend, whole: Any) -> None:
        self.shared[self.number] = whole
        self.meet.wait()
        parts = [backend.download(each) for each in self.shared]
        self.meet.wait()
        for number, host in enumerate(parts):
            part = self.part(host.size, number)
            backend.copy(backend.upload(host[part]), whole[part])
        self.meet.wait()


Make = Callable[[list[Parameter]], FusedOptimizer[Any]]
MADE: dict[str, Make] = {
    "AdamW, clip, EMA": lambda p: AdamW(p, 0.1, clip=ClipNorm(0.5), average=EMA(0.9)),
    "AdamW, ZClip": lambda p: AdamW(p, 0.1, clip=ZClip(z_thresh=0.1, warmup_steps=2)),
    "Lion, values": lambda p: Lion(p, 0.1, clip=ClipValue(0.1)),
    "SGD, compensated": lambda p: SGD(p, 0.1, momentum=0.9, compensated=True),
    "schedule-free": lambda p: ScheduleFreeAdamW(p, 0.1),
    "master weights": lambda p: AdamW(p, 0.1, master_weights=True),
}


def parameters(is_half: bool, backend: Backend) -> list[Parameter]:
    draw, dtype = np.random.default_rng(0), float16 if is_half else float32
    return [
        Parameter(draw.normal(size=shape).astype(dtype), name=f"p{n}", backend=backend)
        for n, shape in enumerate(SHAPES)
    ]


def stepped(optimizer: FusedOptimizer[Any], division: Parts | None) -> dict[str, Any]:
    """Do some steps; return the saved state, and the evaluated parameters."""
    draw = np.random.default_rng(1)
    state = None
    for step in range(STEPS):
        loss = tensor(0.0, dtype=float32, backend=optimizer.parameters[0].backend)
        for p in optimizer.parameters:
            gradient = draw.normal(size=p.shape)
            factor = tensor(gradient, dtype=p.dtype, backend=p.backend)
            loss = loss + (p * factor).astype(float32).sum()
        optimizer.step(loss.backward())
        if division is not None:
            for segment in optimizer.segments:
                division.collect(segment.arena.backend, segment.arena.values)
        if step == 1:
            state = optimizer.state_dict()
            optimizer.load_state_dict(state)  # which keeps only its own part
    found = {"state": optimizer.state_dict(), "p": [p.numpy() for p in optimizer.parameters]}
    if optimizer.has_average:
        with optimizer.eval_params():
            found["average"] = [p.numpy() for p in optimizer.parameters]
    return found


@pytest.mark.parametrize("name", MADE)
def test_divided_state_changes_no_bit(name: str, backend: Backend) -> None:
    is_half = name == "master weights"
    whole = MADE[name](parameters(is_half, backend))
    meet, shared = Barrier(SIZE), [None] * SIZE

    def process(number: int) -> tuple[dict[str, Any], int]:
        optimizer = MADE[name](parameters(is_half, backend))
        division = Parts(number, meet, shared)
        optimizer.divide(division)
        return stepped(optimizer, division), optimizer.memory().state

    expected = stepped(whole, None)
    with ThreadPoolExecutor(SIZE) as threads:
        runs = list(threads.map(process, range(SIZE)))
    for found, _ in runs:
        np.testing.assert_equal(found, expected)
    numbers = sum(
        4 * s.state[name].size for s in whole.segments for name in s.shapes
    )  # each has all of it
    assert sum(state for _, state in runs) == whole.memory().state + (SIZE - 1) * numbers


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda p: LAMB(p, 0.1), "it measures whole tensors before a step"),
        (lambda p: Muon(p, 0.1), "computed from whole tensors"),
        (lambda p: AdamW(p, 0.1, clip=AGC(0.1)), "clip_factor is computed from whole tensors"),
        (lambda p: AdamW(p, 0.1, clip=ClipNorm(1.0, per="tensor")), "clip_factor is computed"),
        (lambda p: AdamW(p, 0.1, state_dtype="8bit"), "blocks of 8-bit codes"),
    ],
)
def test_optimizers_of_whole_tensors_are_refused(make: Make, why: str) -> None:
    p = [Parameter(np.ones((64, 64), np.float32), name="p")]
    optimizer = make(p)
    with pytest.raises(TypeError, match=rf"the state of .* cannot be divided: .*{why}"):
        optimizer.divide(Parts(0, Barrier(1), [None]))
    assert all(segment.division is None for segment in optimizer.segments)


def test_a_moved_optimizer_stays_divided() -> None:
    parts = Parts(0, Barrier(1), [None])
    optimizer = SGD(parameters(False, NumpyBackend()), 0.1, momentum=0.9)
    before = optimizer.memory().state
    optimizer.divide(parts)
    parts.shared = [None]
    parts.collect = lambda backend, whole: None  # type: ignore[method-assign]
    optimizer.move(optimizer.parameters, NumpyBackend())
    assert optimizer.memory().state <= before / SIZE
    with pytest.raises(TypeError, match="it is already divided"):
        optimizer.divide(parts)
