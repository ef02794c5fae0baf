"""Muon against PyTorch's, which would otherwise run its iterations in bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest
import torch

from rumus.optim import Muon
from rumus.tensor import Backend, DType, GradientStore, Parameter, tensor

STEPS: Final = 20
SHAPES: Final = ((3, 5), (5, 3), (1, 7), (17, 16), (3, 5))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lr": 0.02, "weight_decay": 0.3, "momentum": 0.8},
        {"lr": 0.02, "nesterov": False},
        {"lr": 0.02, "adjust": "match_rms_adamw"},
    ],
    ids=str,
)
@pytest.mark.parametrize("precision", ["float32", "widest"])
def test_muon(
    options: dict[str, Any],
    precision: str,
    backend: Backend,
    widest: DType,
    monkeypatch: pytest.MonkeyPatch,
    record_deviation: Callable[..., None],
) -> None:
    dtype = np.dtype(np.float32) if precision == "float32" else widest
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    draw = np.random.default_rng(4)
    start = [np.asarray(draw.normal(size=shape), dtype) for shape in SHAPES]
    ours = [Parameter(a, name=f"p{i}", dtype=dtype, backend=backend) for i, a in enumerate(start)]
    theirs = [torch.nn.Parameter(torch.from_numpy(a.copy())) for a in start]
    optimizer = Muon(ours, **options)
    names = {"adjust": "adjust_lr_fn"}
    other = torch.optim.Muon(theirs, **{names.get(k, k): v for k, v in options.items()})
    for _ in range(STEPS):
        grads = GradientStore()
        for p, q in zip(ours, theirs, strict=True):
            g = np.asarray(draw.normal(size=p.shape), dtype)
            grads.accumulate(p, tensor(g, dtype=dtype, backend=backend))
            q.grad = torch.from_numpy(g)
        optimizer.step(grads)
        other.step()
    deviations = []
    for p, q in zip(ours, theirs, strict=True):
        wanted = q.detach().numpy()
        deviations.append(float(np.linalg.norm(p.numpy() - wanted) / np.linalg.norm(wanted)))
    if dtype == np.float32:
        record_deviation(Muon, options, "PyTorch", backend, max(deviations))
    assert max(deviations) <= (1e-11 if dtype == np.float64 else 1e-4)
