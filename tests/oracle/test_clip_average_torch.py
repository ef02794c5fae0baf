"""Clipping and averages in the update against PyTorch, which does them separately."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.optim import swa_utils

from rumus.optim import EMA, SWA, AdamW, Average, ClipNorm, ClipValue, ParameterGroup
from rumus.tensor import Backend, DType, GradientStore, Parameter, tensor

Real = NDArray[Any]
STEPS: Final = 60
SHAPES: Final = ((), (7,), (3, 5), (257,), (65, 3))


def torch_clips(clip: ClipNorm | ClipValue, theirs: list[torch.Tensor]) -> list[float]:
    """Clip as PyTorch does; return the norms before clipping."""
    if isinstance(clip, ClipValue):
        torch.nn.utils.clip_grad_value_(theirs, clip.max_value)
        return []
    parts = {"all": [theirs], "group": [theirs[:2], theirs[2:]], "tensor": [[p] for p in theirs]}
    return [float(torch.nn.utils.clip_grad_norm_(part, clip.max_norm)) for part in parts[clip.per]]


class Pair:
    """The same parameters here and in PyTorch, and the same gradients for both."""

    def __init__(self, dtype: DType, backend: Backend, **options: Any) -> None:
        draw = np.random.default_rng(3)
        start = [np.asarray(draw.normal(size=s), dtype) for s in SHAPES]
        self.ours = [
            Parameter(a, name=f"p{i}", dtype=dtype, backend=backend) for i, a in enumerate(start)
        ]
        self.module = torch.nn.ParameterList([torch.from_numpy(a.copy()) for a in start])
        self.theirs = list(self.module.parameters())
        groups = [ParameterGroup(self.ours[:2]), ParameterGroup(self.ours[2:])]
        self.optimizer = AdamW(groups, 0.01, **options)
        self.reference = torch.optim.AdamW(self.theirs, 0.01)

    def step(self, t: int, clip: ClipNorm | ClipValue | None = None) -> list[float]:
        draw, store = np.random.default_rng([5, t]), GradientStore()
        for p, q in zip(self.ours, self.theirs, strict=True):
            gradient = np.asarray(draw.normal(size=p.shape), p.dtype)
            store.accumulate(p, tensor(gradient, dtype=p.dtype, backend=p.backend))
            q.grad = torch.from_numpy(gradient.copy())
        self.optimizer.step(store)
        norms = [] if clip is None else torch_clips(clip, self.theirs)
        self.reference.step()
        return norms

    def error(self, theirs: list[torch.Tensor]) -> float:
        """The largest error of a parameter, relative in the 2-norm."""
        found = []
        for p, q in zip(self.ours, theirs, strict=True):
            wanted = q.detach().numpy().astype(np.float64)
            error = np.linalg.norm(p.numpy().astype(np.float64) - wanted)
            found.append(float(error / np.linalg.norm(wanted)))
        return max(found)


def tolerance(dtype: DType) -> float:
    return 1e-12 if dtype == np.float64 else 1e-6


@pytest.fixture(params=["float32", "widest"])
def dtype(request: pytest.FixtureRequest, widest: DType) -> DType:
    return widest if request.param == "widest" else np.dtype(np.float32)


@pytest.mark.parametrize(
    "clip",
    [ClipNorm(3.0), ClipNorm(3.0, per="group"), ClipNorm(3.0, per="tensor"), ClipValue(0.5)],
    ids=str,
)
def test_clipping(clip: ClipNorm | ClipValue, dtype: DType, backend: Backend) -> None:
    pair = Pair(dtype, backend, clip=clip)
    for t in range(STEPS):
        norms = pair.step(t, clip)
        if norms:
            wanted = float(np.linalg.norm(norms))
            assert pair.optimizer.grad_norm.item() == pytest.approx(wanted, rel=1e-6)
    assert pair.error(pair.theirs) <= tolerance(dtype)


AVERAGES: Final[tuple[tuple[Callable[[], Average], dict[str, Any]], ...]] = (
    (lambda: EMA(0.95), {"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.95)}),
    (SWA, {}),  # get_swa_multi_avg_fn has its weights in float32
    (lambda: SWA(start=11, every=5), {}),
)


@pytest.mark.parametrize(("make", "options"), AVERAGES, ids=["EMA", "SWA", "SWA-late"])
def test_averages(
    make: Callable[[], Average], options: dict[str, Any], dtype: DType, backend: Backend
) -> None:
    average = make()
    pair = Pair(dtype, backend, average=average)
    model = swa_utils.AveragedModel(pair.module, **options)
    for t in range(1, STEPS + 1):
        pair.step(t)
        if average.weight(t):
            model.update_parameters(pair.module)
    with average.applied():
        assert pair.error(list(model.module.parameters())) <= tolerance(dtype)
    assert pair.error(pair.theirs) <= tolerance(dtype)
