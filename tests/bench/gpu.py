"""Rumus against PyTorch and JAX on an NVIDIA GPU, in one run: prints times and ratios.

    python tests/bench/gpu.py --rows copy,transfer,matmul,adamw,mlp,gpt,gpt2,cnn --json figures.json

Every figure is the median of several rounds in which the sides take turns; a round runs a step many
times and waits for the device once, at its end. A side that is not installed is skipped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gpu_models
import numpy as np
from steps import GPT2, stepping
from turns import Side, has, medians

from rumus.gpu import Gpu, GPUArray, GpuBackend, Precision
from rumus.optim import AdamW
from rumus.tensor import Generator, tensor


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

    wait: Any = jax.block_until_ready  # some releases of JAX have no types
    return step, lambda: wait(now[0])


def adamw(backend: GpuBackend) -> dict[str, dict[str, float]]:
    """AdamW over one large tensor, over GPT-2's list and over many small tensors."""
    found = {}
    cases: tuple[tuple[str, list[tuple[int, ...]], int], ...] = (
        ("AdamW 134M", [(134_217_728,)], 20),
        ("AdamW GPT-2 list", GPT2, 20),
        ("AdamW 200 x 1000", [(1000,)] * 200, 50),
    )
    for name, shapes, repeats in cases:
        # The peers do not check gradients for non-finite values; rumus does by default.
        sides = {
            "rumus unchecked": stepping(backend, shapes, partial(AdamW, nonfinite="propagate")),
            "rumus": stepping(backend, shapes, AdamW),
        }
        if has("torch"):
            sides["torch fused"] = torch_adamw(shapes, fused=True)
            sides["torch foreach"] = torch_adamw(shapes, foreach=True)
        if has("optax"):
            sides["optax jit"] = optax_adamw(shapes)
        found[name] = medians(sides, repeats)
    return found


def copy(backend: GpuBackend) -> dict[str, dict[str, float]]:
    """Copying 512 MiB: the bandwidth that everything else is compared with."""
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


def multiply_at(
    backend: GpuBackend, level: Precision, a: GPUArray, b: GPUArray, out: GPUArray
) -> None:
    """A product at another precision."""
    with backend.at_precision(level):
        backend.matmul(a, b, out)


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
        levels: tuple[Precision, ...] = ("high", "medium") if backend.gpu.units else ()
        for level in levels:
            at_level = partial(multiply_at, backend, level, x, y, out)
            sides[f"rumus {level}"] = at_level, backend.gpu.synchronize
        if has("torch"):
            import torch

            c, d = (torch.tensor(h, device="cuda") for h in host)
            c, d = (c.T if layout == "TN" else c), (d.T if layout == "NT" else d)
            e = torch.empty(n, n, device="cuda")

            def multiply(tf32: bool, c: Any = c, d: Any = d, e: Any = e) -> None:
                torch.backends.cuda.matmul.allow_tf32 = tf32
                torch.matmul(c, d, out=e)

            sides["cuBLAS"] = partial(multiply, False), torch.cuda.synchronize
            sides["cuBLAS TF32"] = partial(multiply, True), torch.cuda.synchronize
        found[f"matmul 4096 {layout}"] = medians(sides, 50)
    return found


def transfer(backend: GpuBackend) -> dict[str, dict[str, float]]:
    """256 MiB to the device and back, as users write it, next to the same lines in PyTorch."""
    host = np.random.default_rng(0).standard_normal(1 << 26, np.float32)
    to: dict[str, Side] = {}
    back: dict[str, Side] = {}
    others = (
        [backend] if backend.gpu.engine == "wgpu" else [backend, GpuBackend(Gpu(engine="wgpu"))]
    )
    for each in others:
        name = "rumus" if each is backend else "rumus wgpu"
        there = each.upload(host)
        to[name] = partial(each.upload, host), each.gpu.synchronize
        back[name] = partial(each.download, there), each.gpu.synchronize
    if has("torch"):
        import torch

        ours, pinned = torch.from_numpy(host), torch.from_numpy(host).pin_memory()
        theirs = ours.cuda()
        wait = torch.cuda.synchronize
        to |= {"torch": (lambda: ours.cuda(), wait), "torch pinned": (lambda: pinned.cuda(), wait)}
        back |= {
            "torch": (lambda: theirs.cpu(), wait),
            "torch pinned": (lambda: pinned.copy_(theirs), wait),
        }
    return {"256 MiB from the host": medians(to, 4), "256 MiB to the host": medians(back, 4)}


KERNELS = {"copy": copy, "transfer": transfer, "matmul": matmul, "adamw": adamw}


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """The figures as Markdown: microseconds, and each peer's time over rumus's first."""
    lines = ["| work | side | us | peer / rumus |", "|---|---|---|---|"]
    for work, times in found.items():
        ours = next(iter(times.values()))
        lines += [f"| {work} | {side} | {us:.1f} | {us / ours:.2f} |" for side, us in times.items()]
    return "\n".join(lines)


def main() -> None:
    """Run the requested rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default=",".join((*KERNELS, *gpu_models.works())))
    parser.add_argument("--profile", action="store_true", help="of each model, by kernel")
    parser.add_argument("--engine", choices=("wgpu", "dawn"), help="by default, the better one")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    backend, works = GpuBackend(Gpu(engine=options.engine)), gpu_models.works()
    print(
        f"{backend.gpu.name} through {backend.gpu.engine}; copy moves 2 x 512 MiB; "
        "matmul 4096 is 137.4 GFLOP"
    )
    found: dict[str, dict[str, float]] = {}
    for row in options.rows.split(","):
        if row in KERNELS:
            found |= KERNELS[row](backend)
        else:
            found |= gpu_models.measure(works[row], options.profile, options.engine)
        print(table(found), flush=True)
        if options.json:
            options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
