"""The cost of clipping and averaging in the update on a GPU."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from rumus.gpu import GpuBackend, default_backend
from rumus.gpu.device.array import GPUArray
from rumus.gpu.device.pipelines import Pipeline
from rumus.optim import AGC, EMA, SWA, AdaGC, AdamW, ClipNorm, ClipValue, ZClip
from rumus.tensor import GradientStore, NonFiniteGradientError, Parameter, Tensor, tensor


class Seen:
    """Records the name of each dispatch that binds an array."""

    def __init__(self, array: GPUArray) -> None:
        self.array = array
        self.names: list[str] = []

    def takes(
        self, pipeline: Pipeline, arrays: Sequence[GPUArray], scalars: bytes, grid: tuple[int, int]
    ) -> bool:
        if any(array.storage is self.array.storage for array in arrays):
            self.names.append(pipeline.program.name)
        return False

    def index_checked(self, index: GPUArray, length: int) -> None:
        raise AssertionError

    def refuse_transfer(self, what: str, instead: str) -> None:
        pass  # the scalars of many steps are sent in advance


class Step:
    """AdamW over small tensors, with gradients in their slots."""

    def __init__(self, tensors: int, **options: Any) -> None:
        self.backend: GpuBackend = default_backend()
        draw = np.random.default_rng(0)
        self.parameters = [
            Parameter(draw.normal(size=9), name=f"p{i}", backend=self.backend)
            for i in range(tensors)
        ]
        self.optimizer = AdamW(self.parameters, **options)
        self.target = tensor(draw.normal(size=9), backend=self.backend)

    def gradients(self, times: float = 1.0) -> GradientStore:
        grads = GradientStore()
        for parameter in self.parameters:
            (parameter * self.target * times).sum().backward(into=grads)
        return grads

    def cost(self) -> int:
        """The dispatches of a step."""
        for _ in range(2):
            self.optimizer.step(self.gradients())
        grads = self.gradients()
        before = self.backend.stats.dispatches
        self.optimizer.step(grads)
        return self.backend.stats.dispatches - before


def test_clipping_costs_a_few_dispatches_and_averaging_none() -> None:
    plain = Step(3).cost()
    assert Step(3, clip=ClipValue(1.0)).cost() == plain
    assert Step(3, average=EMA()).cost() == plain
    assert Step(3, average=SWA()).cost() == plain
    assert Step(3, clip=ClipNorm(1.0), average=EMA()).cost() == plain + 2


@pytest.mark.parametrize("per", ["all", "group", "tensor"])
def test_they_are_the_same_for_any_number_of_tensors(per: Any) -> None:
    few, many = (Step(tensors, clip=ClipNorm(1.0, per=per)).cost() for tensors in (40, 80))
    assert few == many <= Step(1).cost() + 5


@pytest.mark.parametrize("per", ["all", "tensor"])
def test_the_gradient_is_read_for_the_norm_and_for_the_update(per: Any) -> None:
    """The check for non-finite values gets the norm, and returns at once."""
    step = Step(3, clip=ClipNorm(1.0, per=per))
    step.cost()
    grads = step.gradients()
    seen = Seen(step.optimizer.segments[0].arena.gradients)
    with step.backend.gpu.watched_by(seen):
        step.optimizer.step(grads)
    norm = "reduce_squares" if per == "all" else "slot_squares"
    assert Counter(seen.names) == Counter([norm, "finite", "adamw"])


def test_gradients_with_a_finite_norm_are_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """With another step's norm, NaN goes unnoticed; with its own it is refused."""
    step = Step(2, clip=ClipNorm(1.0))
    step.optimizer.step(step.gradients())
    (factors,) = step.optimizer.stages
    with monkeypatch.context() as patch:
        patch.setattr(factors, "prepare", lambda gradients: None)
        step.optimizer.step(step.gradients())
        assert step.optimizer.steps == 2
        step.optimizer.step(step.gradients(math.nan))
        assert step.optimizer.steps == 3
    step.optimizer.step(step.gradients(math.nan))
    with pytest.raises(NonFiniteGradientError):
        step.optimizer.poll(wait=True)


@pytest.mark.parametrize(
    "clip", [ClipNorm(1.0), ClipNorm(1.0, per="tensor"), AGC(), ZClip(), AdaGC()], ids=str
)
def test_nothing_is_read(clip: Any) -> None:
    step = Step(3, clip=clip, average=EMA())
    step.optimizer.step(step.gradients())
    before = step.backend.stats.bytes_down
    norms: list[Tensor] = []
    for _ in range(20):
        step.optimizer.step(step.gradients(times=len(norms) + 1))
        norms.append(step.optimizer.grad_norm)
    assert step.backend.stats.bytes_down == before
    found = np.array([norm.item() for norm in norms])
    np.testing.assert_allclose(found, found[0] * np.arange(1, 21), rtol=1e-6)
