"""`clip=AdaGC` with AdamW against kozistr's AdaGC, which is AdamW with the same clipping."""

from __future__ import annotations

from typing import Final

import numpy as np
import pytest
import torch

from rumus.optim import AdaGC, AdamW
from rumus.tensor import Backend, DType, GradientStore, Parameter, float64, tensor

STEPS: Final = 200
SHAPES: Final = ((3, 5), (7,), (65, 3))


@pytest.mark.parametrize(
    "clip",
    [AdaGC(warmup_steps=10), AdaGC(1.2, 2.0, 0.9, warmup_steps=50), AdaGC(warmup_steps=1000)],
)
def test_the_same_paths(clip: AdaGC, backend: Backend, widest: DType) -> None:
    module = pytest.importorskip("pytorch_optimizer")
    draw = np.random.default_rng(3)
    start = [np.asarray(draw.normal(size=shape), widest) for shape in SHAPES]
    ours = [Parameter(p, name=f"p{n}", dtype=widest, backend=backend) for n, p in enumerate(start)]
    others = [torch.nn.Parameter(torch.tensor(p)) for p in start]
    options = {"lr": 0.01, "eps": 1e-8, "weight_decay": 0.1}
    optimizer = AdamW(ours, **options, clip=clip)  # type: ignore[arg-type]
    other = module.AdaGC(
        others,
        beta=clip.beta,
        lambda_abs=clip.lambda_abs,
        lambda_rel=clip.lambda_rel,
        warmup_steps=clip.warmup_steps,
        **options,
    )
    for t in range(STEPS):
        grads, size = GradientStore(), 50.0 if t % 23 == 22 else 1.0
        for n, (p, q) in enumerate(zip(ours, others, strict=True)):
            own = np.asarray(np.random.default_rng([n, t]).normal(size=p.shape) * size, widest)
            grads.accumulate(p, tensor(own, dtype=widest, backend=backend))
            q.grad = torch.tensor(own)
        optimizer.step(grads)
        other.step()
    # Its norm of all gradients includes eps, and our averages are float32.
    tolerance = 2e-6 if widest == float64 else 2e-5
    for p, q in zip(ours, others, strict=True):
        np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=tolerance, atol=tolerance)
