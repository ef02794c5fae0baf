"""Rumus against PyTorch and JAX on an NVIDIA GPU, in one run: prints times and ratios.

    python tests/bench/gpu.py --rows copy,matmul,adamw,mlp --json figures.json

Every figure is the median of several rounds, in which the sides take turns; a round runs a step
many times and waits for the device once, at its end. A side that is not installed is left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rumus import nn
from rumus.gpu import GpuBackend, default_backend
from rumus.optim import AdamW
from rumus.tensor import Generator, GradientStore, Parameter, Tensor, tensor
from rumus.tensor.updater import NonFinite
from rumus.train import Trainer

ROUNDS = 7
Step = Callable[[], object]
Side = tuple[Step, Step]  # a step, and how to wait until the device has done it

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


def medians(sides: Mapping[str, Side], repeats: int) -> dict[str, float]:
    """Microseconds of a step of each side: the median over rounds in which they take turns."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(ROUNDS + 2):
        for name, (step, wait) in sides.items():
            wait()
            begin = time.perf_counter()
            for _ in range(repeats):
                step()
            wait()
            if number >= 2:
                found[name].append((time.perf_counter() - begin) / repeats * 1e6)
    return {name: statistics.median(times) for name, times in found.items()}


def has(module: str) -> bool:
    """Whether a peer is installed."""
    return importlib.util.find_spec(module) is not None


def rumus_adamw(
    backend: GpuBackend, shapes: Sequence[tuple[int, ...]], nonfinite: NonFinite
) -> Side:
    """AdamW over parameters whose gradients stay the same."""
    random = np.random.default_rng(0)
    parameters = [
        Parameter(random.standard_normal(shape, np.float32), name=str(i), backend=backend)
        for i, shape in enumerate(shapes)
    ]
    optimizer = AdamW(parameters, 1e-3, nonfinite=nonfinite)
    grads = GradientStore()
    for p in parameters:
        gradient = random.standard_normal(p.shape, np.float32)
        grads.accumulate(p, tensor(gradient, backend=backend))
    entries, owners, places = dict(grads._gradients), dict(grads._parameters), dict(grads._backends)

    def step() -> None:
        # The peers leave the gradients where they are; put ours back without a copy.
        grads._gradients.update(entries)
        grads._parameters.update(owners)
        grads._backends.update(places)
        optimizer.step(grads)

    return step, backend.gpu.synchronize


def torch_adamw(shapes: Sequence[tuple[int, ...]], **options: bool) -> Side:
    """PyTorch's AdamW over the same shapes."""
    import torch

    parameters = [torch.nn.Parameter(torch.randn(shape, device="cuda")) for shape in shapes]
    for p in parameters:
        p.grad = torch.randn_like(p)
    optimizer = torch.optim.AdamW(parameters, 1e-3, **options)
    return lambda: optimizer.step(), torch.cuda.synchronize


def optax_adamw(shapes: Sequence[tuple[int, ...]]) -> Side:
    """The same in JAX with optax, compiled, memory donated."""
    import jax
    import optax

    rule = optax.adamw(1e-3, weight_decay=1e-2)
    parameters = [jax.numpy.ones(shape) for shape in shapes]
    gradients = [jax.numpy.ones(shape) for shape in shapes]

    def update(p: Any, g: Any, s: Any) -> Any:
        changes, s = rule.update(g, s, p)
        return optax.apply_updates(p, changes), s

    compiled = jax.jit(update, donate_argnums=(0, 2))
    now = [parameters, rule.init(parameters)]

    def step() -> None:
        now[:] = compiled(now[0], gradients, now[1])

    return step, lambda: jax.block_until_ready(now[0])


def adamw(backend: GpuBackend) -> dict[str, dict[str, float]]:
    """AdamW over one large tensor, over GPT-2's list and over many small tensors."""
    found = {}
    cases: tuple[tuple[str, list[tuple[int, ...]], int], ...] = (
        ("AdamW 134M", [(134_217_728,)], 20),
        ("AdamW GPT-2 list", GPT2, 20),
        ("AdamW 200 x 1000", [(1000,)] * 200, 50),
    )
    for name, shapes, repeats in cases:
        # The peers look at no gradient whether it is finite; rumus does so by default.
        sides = {
            "rumus unchecked": rumus_adamw(backend, shapes, "propagate"),
            "rumus": rumus_adamw(backend, shapes, "raise"),
        }
        if has("torch"):
            sides["torch fused"] = torch_adamw(shapes, fused=True)
            sides["torch foreach"] = torch_adamw(shapes, foreach=True)
        if has("optax"):
            sides["optax jit"] = optax_adamw(shapes)
        found[name] = medians(sides, repeats)
    return found


def copy(backend: GpuBackend) -> dict[str, dict[str, float]]:
    """Copying 512 MiB: the bandwidth that everything else is measured by."""
    source = Generator(0).words((1 << 27,), backend=backend)
    out = backend.allocate(source.shape, source.dtype)
    rumus = (lambda: backend.copy(source._array, out)), backend.gpu.synchronize
    sides: dict[str, Side] = {"rumus": rumus}
    if has("torch"):
        import torch

        a = torch.randn(1 << 27, device="cuda")
        b = torch.empty_like(a)
        sides["torch"] = (lambda: b.copy_(a)), torch.cuda.synchronize
    return {"copy 512 MiB": medians(sides, 20)}


def matmul(backend: GpuBackend) -> dict[str, dict[str, float]]:
    """Products of float32 matrices, in the three layouts of a training step."""
    found = {}
    random = np.random.default_rng(0)
    n = 4096
    host = [random.standard_normal((n, n), np.float32) for _ in range(2)]
    a, b = (tensor(h, backend=backend) for h in host)
    out = backend.allocate((n, n), a.dtype)
    for layout, left, right in (("NN", a, b), ("NT", a, b.T), ("TN", a.T, b)):
        x, y = left._array, right._array
        sides: dict[str, Side] = {
            "rumus": (partial(backend.matmul, x, y, out), backend.gpu.synchronize)
        }
        if has("torch"):
            import torch

            torch.backends.cuda.matmul.allow_tf32 = False
            c, d = (torch.tensor(h, device="cuda") for h in host)
            c, d = (c.T if layout == "TN" else c), (d.T if layout == "NT" else d)
            e = torch.empty(n, n, device="cuda")
            multiply = partial(torch.matmul, c, d, out=e)
            sides["cuBLAS"] = multiply, torch.cuda.synchronize
        found[f"matmul 4096 {layout}"] = medians(sides, 10)
    return found


def rumus_mlp(backend: GpuBackend, capture: bool) -> Side:
    """A training step of an MLP 784-512-512-10 over 128 rows."""
    random = Generator(0)
    model = nn.Sequential(
        nn.Linear(784, 512, generator=random),
        nn.ReLU(),
        nn.Linear(512, 512, generator=random),
        nn.ReLU(),
        nn.Linear(512, 10, generator=random),
    )
    model.to(backend)
    x = random.normal((128, 784), backend=backend)
    y = random.integers(0, 10, (128,), backend=backend)
    trainer = Trainer(AdamW(model.parameters(), 1e-3), capture=capture)

    def loss_fn(x: Tensor, y: Tensor) -> Tensor:
        return nn.cross_entropy_loss(model(x), y)

    return lambda: trainer.train_step(loss_fn, x, y), backend.gpu.synchronize


def torch_mlp(graph: bool) -> Side:
    """The same in PyTorch, eager or as a CUDA graph."""
    import torch
    from torch.nn import functional

    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(784, 512),
        torch.nn.ReLU(),
        torch.nn.Linear(512, 512),
        torch.nn.ReLU(),
        torch.nn.Linear(512, 10),
    ).cuda()
    x, y = torch.randn(128, 784, device="cuda"), torch.randint(0, 10, (128,), device="cuda")
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True, capturable=graph)

    def step() -> None:
        optimizer.zero_grad(set_to_none=not graph)
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    if not graph:
        return step, torch.cuda.synchronize
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        step()
    alive = model, optimizer, x, y  # the graph reads their memory, and does not hold it

    def replay() -> object:
        recorded.replay()
        return alive

    return replay, torch.cuda.synchronize


def mlp(backend: GpuBackend) -> dict[str, dict[str, float]]:
    """A whole training step: eager and captured."""
    sides = {
        "rumus captured": rumus_mlp(backend, capture=True),
        "rumus eager": rumus_mlp(backend, capture=False),
    }
    if has("torch"):
        sides["torch eager"] = torch_mlp(graph=False)
        sides["torch CUDA graph"] = torch_mlp(graph=True)
    return {"MLP step": medians(sides, 100)}


ROWS = {"copy": copy, "matmul": matmul, "adamw": adamw, "mlp": mlp}


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """The figures as Markdown: microseconds, and each peer's time over rumus's first."""
    lines = ["| work | side | us | peer / rumus |", "|---|---|---|---|"]
    for work, times in found.items():
        ours = next(iter(times.values()))
        lines += [f"| {work} | {side} | {us:.1f} | {us / ours:.2f} |" for side, us in times.items()]
    return "\n".join(lines)


def main() -> None:
    """Run the rows that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    backend = default_backend()
    print(f"{backend.gpu.name}; copy moves 2 x 512 MiB; matmul 4096 is 137.4 GFLOP")
    found: dict[str, dict[str, float]] = {}
    for row in options.rows.split(","):
        found |= ROWS[row](backend)
        print(table(found), flush=True)
        if options.json:
            options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
