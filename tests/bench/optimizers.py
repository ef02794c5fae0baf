"""Muon and Prodigy on an NVIDIA GPU against PyTorch's and the authors': times and ratios.

    python tests/bench/optimizers.py --lines figures.txt

Muon steps the matrices of GPT-2's layers and AdamW everything else, with one optimizer in rumus and
two in PyTorch; PyTorch iterates in bfloat16, rumus in float32 at precision "highest" and on matrix
units at "medium". Prodigy steps 200 tensors of 1000 elements. Every figure is the median of several
rounds in which the sides take turns; each is written to the file as soon as it is known. A side
that is not installed is skipped, with a note.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import numpy as np
from steps import GPT2, stepping
from turns import Side, has, medians

from rumus.gpu import GpuBackend, Precision
from rumus.optim import Muon, Prodigy
from rumus.tensor import Parameter

TABLES = ("0", "1")  # of GPT-2's list: tokens and positions


def is_muons(name: str, p: Parameter) -> bool:
    """Whether Muon steps a parameter of GPT-2's list."""
    return p.ndim == 2 and name not in TABLES


def at(backend: GpuBackend, level: Precision | None, side: Side) -> Side:
    """A side whose steps run at another precision."""
    step, wait = side

    def precisely() -> None:
        context: AbstractContextManager[object] = nullcontext()
        with backend.at_precision(level) if level is not None else context:
            step()

    return precisely, wait


def torch_muon(shapes: Sequence[tuple[int, ...]]) -> Side:
    """PyTorch's Muon for the matrices, its fused AdamW for the rest."""
    import torch

    parameters = [torch.nn.Parameter(torch.randn(shape, device="cuda")) for shape in shapes]
    for p in parameters:
        p.grad = torch.randn_like(p)
    matrices = [p for n, p in enumerate(parameters) if p.ndim == 2 and str(n) not in TABLES]
    ids = set(map(id, matrices))
    muon = torch.optim.Muon(matrices, lr=1e-3)
    adamw = torch.optim.AdamW([p for p in parameters if id(p) not in ids], 1e-3, fused=True)

    def step() -> None:
        muon.step()
        adamw.step()

    return step, torch.cuda.synchronize


def reference_prodigy(shapes: Sequence[tuple[int, ...]]) -> Side:
    """The authors' Prodigy."""
    import importlib

    import torch

    parameters = [torch.nn.Parameter(torch.randn(shape, device="cuda")) for shape in shapes]
    for p in parameters:
        p.grad = torch.randn_like(p)
    optimizer = importlib.import_module("prodigyopt").Prodigy(parameters)
    return lambda: optimizer.step(), torch.cuda.synchronize


def muon(backend: GpuBackend) -> dict[str, float]:
    """Muon over GPT-2's list."""
    own = stepping(backend, GPT2, partial(Muon, matrices=is_muons))
    sides = {"rumus highest": at(backend, "highest", own)}
    if backend.gpu.units:
        sides["rumus medium"] = at(backend, "medium", own)
    if has("torch"):
        sides["torch"] = torch_muon(GPT2)
    return medians(sides, 3)


def prodigy(backend: GpuBackend) -> dict[str, float]:
    """Prodigy over many small tensors."""
    shapes = [(1000,)] * 200
    sides = {"rumus": stepping(backend, shapes, Prodigy)}
    if has("torch") and has("prodigyopt"):
        sides["torch"] = reference_prodigy(shapes)
    return medians(sides, 10)


ROWS: Mapping[str, Callable[[GpuBackend], dict[str, float]]] = {
    "Prodigy 200 x 1000": prodigy,
    "Muon GPT-2 list": muon,
}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="Measure Muon and Prodigy on a GPU.")
    parser.add_argument("--lines", type=Path, help="a file to which each figure is added")
    chosen = parser.parse_args()
    backend = GpuBackend()
    say(f"on {backend.gpu.name}", chosen.lines)
    for row, measured in ROWS.items():
        figures = measured(backend)
        peer = figures.pop("torch", np.nan)
        for side, figure in figures.items():
            ratio = f"{peer / figure:.2f} times" if peer > 0 else "the peer is not installed"
            say(f"{row:20} {side:14} {figure:10.0f} us  {peer:10.0f} us  {ratio}", chosen.lines)


def say(line: str, path: Path | None) -> None:
    """Print a line, and add it to a file."""
    print(line, flush=True)
    if path is not None:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    main()
