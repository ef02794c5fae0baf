"""Muon against PyTorch's, which would run its iterations in bfloat16 if it were let to."""

from __future__ import annotations

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
def test_muon(
    options: dict[str, Any], backend: Backend, widest: DType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    draw = np.random.default_rng(4)
    start = [np.asarray(draw.normal(size=shape), widest) for shape in SHAPES]
    ours = [Parameter(a, name=f"p{i}", dtype=widest, backend=backend) for i, a in enumerate(start)]
    theirs = [torch.nn.Parameter(torch.from_numpy(a.copy())) for a in start]
    optimizer = Muon(ours, **options)
    names = {"adjust": "adjust_lr_fn"}
    other = torch.optim.Muon(theirs, **{names.get(k, k): v for k, v in options.items()})
    for _ in range(STEPS):
        grads = GradientStore()
        for p, q in zip(ours, theirs, strict=True):
            g = np.asarray(draw.normal(size=p.shape), widest)
            grads.accumulate(p, tensor(g, dtype=widest, backend=backend))
            q.grad = torch.from_numpy(g)
        optimizer.step(grads)
        other.step()
    tolerance = 1e-11 if widest == np.float64 else 1e-4
    for p, q in zip(ours, theirs, strict=True):
        wanted = q.detach().numpy()
        assert np.linalg.norm(p.numpy() - wanted) <= tolerance * np.linalg.norm(wanted)
