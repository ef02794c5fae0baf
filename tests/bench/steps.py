"""Steps of a rumus optimizer for benchmarks: only shapes, with gradients that stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from turns import Side

from rumus.gpu import GpuBackend
from rumus.optim import FusedOptimizer
from rumus.tensor import Backend, GradientStore, Parameter, tensor

# GPT-2 124M: the shapes of its parameters.
GPT2 = [
    (50257, 768),
    (1024, 768),
    *[
        shape
        for _ in range(12)
        for shape in (
            *[(768,)] * 2, (768, 2304), (2304,), (768, 768), (768,),
            *[(768,)] * 2, (768, 3072), (3072,), (3072, 768), (768,),
        )
    ],
    *[(768,)] * 2,
]  # fmt: skip


def stepping(
    backend: Backend,
    shapes: Sequence[tuple[int, ...]],
    make: Callable[[list[Parameter]], FusedOptimizer[Any]],
) -> Side:
    """An optimizer over parameters, named by their numbers, whose gradients stay the same."""
    random = np.random.default_rng(0)
    parameters = [
        Parameter(random.standard_normal(shape, np.float32), name=str(i), backend=backend)
        for i, shape in enumerate(shapes)
    ]
    optimizer = make(parameters)
    grads = GradientStore()
    for p in parameters:
        gradient = random.standard_normal(p.shape, np.float32)
        grads.accumulate(p, tensor(gradient, backend=backend))
    entries, owners, places = dict(grads._gradients), dict(grads._parameters), dict(grads._backends)

    def step() -> None:
        # The peers leave the gradients in place; reinstall ours without a copy.
        grads._gradients.update(entries)
        grads._parameters.update(owners)
        grads._backends.update(places)
        optimizer.step(grads)

    return step, backend.gpu.synchronize if isinstance(backend, GpuBackend) else lambda: None
