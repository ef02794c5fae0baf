"""SOAP against that of pytorch_optimizer (kozistr).

Where it differs from ours, and from the paper: QR is in float32 whatever the parameters' dtype, so
float64 agrees to 1e-8 until the first refresh and to some 1e-5 afterwards; the decay comes after
the step, ours before it as in AdamW (none here); a convolution has a factor for each axis, and
vectors use SOAP's bias correction and skip the first step, where ours use AdamW. A basis of
eigenvectors is not unique if 0 is a repeated eigenvalue, so one side of a matrix that is not square
has no factor here.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pytest
import torch

from rumus.optim import SOAP
from rumus.tensor import Backend, DType, GradientStore, Parameter, float64, tensor

SHAPES: Final = ((4, 4), (4, 7), (9, 3), (4, 7), (1, 1))
CASES: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"lr": 0.02, "betas": (0.8, 0.9), "shampoo_beta": 0.7, "eps": 1e-3, "maximize": True},
    {"precondition_frequency": 3, "lr": 0.02},
)


@pytest.mark.parametrize("options", CASES, ids=str)
def test_the_parameters(options: dict[str, Any], backend: Backend, widest: DType) -> None:
    module = pytest.importorskip("pytorch_optimizer")
    common: dict[str, Any] = {"weight_decay": 0.0, "max_precondition_dim": 4, **options}
    draw = np.random.default_rng(3)
    start = [np.asarray(draw.normal(size=shape), widest) for shape in SHAPES]
    ours = [Parameter(p, name=f"p{n}", dtype=widest, backend=backend) for n, p in enumerate(start)]
    others = [torch.nn.Parameter(torch.tensor(p)) for p in start]
    optimizer, other = SOAP(ours, **common), module.SOAP(others, **common)
    first_refresh = common.get("precondition_frequency", 10) + 1
    for t in range(1, 26):
        grads = GradientStore()
        for p, q in zip(ours, others, strict=True):
            g = np.asarray(draw.normal(size=p.shape), widest)
            grads.accumulate(p, tensor(g, dtype=widest, backend=backend))
            q.grad = torch.tensor(g)
        optimizer.step(grads)
        other.step()
        exact = widest == float64 and t <= first_refresh
        for p, q, a in zip(ours, others, start, strict=True):
            tolerance = 1e-8 if exact else 1e-4
            np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=0, atol=tolerance)
            assert (p.numpy() == a).all() == (t == 1)
