"""Weak scaling: a step of one rank beside that of several, each with the same number of samples.

    python tests/bench/distributed.py --ranks 2 --model gpt2 --gpu --torch

starts itself on one rank and on several with `python -m rumus.distributed`, PyTorch DDP likewise
with torchrun, and prints the ratios of steps a second. Without --gpu each rank has one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Size:
    """A GPT: layers, width, heads, positions, tokens; and the batch of a rank, its length."""

    layers: int
    width: int
    heads: int
    positions: int
    tokens: int
    batch: int
    length: int


THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
SIZES = {
    "gpt2": Size(12, 768, 12, 1024, 50257, 8, 512),
    "gpt": Size(4, 256, 4, 128, 256, 16, 128),
    "tiny": Size(2, 32, 2, 16, 64, 4, 16),
}


def options() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--model", choices=SIZES, default="gpt2")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--precision", choices=("highest", "high", "medium"), default="highest")
    parser.add_argument("--zero", action="store_true")
    parser.add_argument("--torch", action="store_true", help="measure PyTorch DDP too")
    parser.add_argument("--side", choices=("rumus", "torch"), help="what one rank runs")
    return parser.parse_args()


def text(size: Size, ranks: int) -> Any:
    """Random tokens: as many rows as all ranks have in a batch."""
    shape = (size.batch * ranks, size.length + 1)
    return np.random.default_rng(0).integers(0, size.tokens, shape).astype(np.int32)


def median(times: list[float]) -> float:
    """The median of the steps of the second half, in seconds: a GPU has warmed up by then."""
    return float(np.median(np.diff(times)[len(times) // 2 :]))


def rumus_rank(given: argparse.Namespace) -> None:
    """Train for some steps, and print what rank 0 has measured."""
    from examples import example

    from rumus import nn
    from rumus.distributed import ranks
    from rumus.optim import AdamW
    from rumus.tensor import Generator, Tensor
    from rumus.train import ArrayDataset, Callback, DataLoader, StepEnd, Trainer

    team, size = ranks(deadline=300), SIZES[given.model]
    made = size.layers, size.width, size.heads, size.tokens, size.positions
    model = example("gpt2_finetune").GPT2(*made, Generator(0))
    backend = None
    if given.gpu:
        backend = team.gpu()
        backend.gpu.precision = given.precision  # type: ignore[attr-defined]
        model.to(backend)

    class Clock(Callback):
        """Notes when each step has ended, on the device too."""

        def __init__(self) -> None:
            self.times: list[float] = []

        def on_step_end(self, event: StepEnd) -> None:
            float(event.loss)
            self.times.append(perf_counter())

    def loss_fn(rows: Tensor) -> Tensor:
        return nn.cross_entropy_loss(model(rows[:, :-1]), rows[:, 1:])

    clock, rows = Clock(), ArrayDataset(text(size, team.size))
    loader = DataLoader(rows, size.batch * team.size, ranks=team, backend=backend)
    trainer = Trainer(
        AdamW(model.parameters(), 1e-4), ranks=team, zero=given.zero, state={"model": model}
    )
    trainer.fit(loader, loss_fn, steps=given.steps, callbacks=[clock])
    if team.speaks:
        count = sum(p.size for p in trainer.optimizer.parameters)
        sent = team.sent / given.steps / max(1, 2 * (team.size - 1) / team.size * 4 * count)
        print(json.dumps({"seconds": median(clock.times), "sent": sent}), flush=True)


def torch_rank(given: argparse.Namespace) -> None:
    """The same in PyTorch, with DistributedDataParallel over NCCL or Gloo."""
    import torch
    import torch_models
    from torch.nn import functional

    rank, count = int(os.environ["LOCAL_RANK"]), int(os.environ["WORLD_SIZE"])
    size = SIZES[given.model]
    device = torch.device("cuda", rank) if given.gpu else torch.device("cpu")
    torch.distributed.init_process_group("nccl" if given.gpu else "gloo")
    torch.set_float32_matmul_precision("high" if given.precision == "medium" else "highest")
    made = size.layers, size.width, size.heads, size.positions, size.tokens
    model = torch_models.GPT(*made, tied=True).to(device)
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=given.gpu or None)
    rows = torch.tensor(text(size, count)).long()[rank::count].to(device)
    times = []
    for _ in range(given.steps):
        scores = wrapped(rows[:, :-1])
        loss = functional.cross_entropy(scores, rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
        times.append(perf_counter())
    if rank == 0:
        print(json.dumps({"seconds": median(times), "sent": 1.0}), flush=True)
    torch.distributed.destroy_process_group()


def measured(side: str, ranks: int) -> dict[str, float]:
    """What one side measures on so many ranks."""
    program = [str(Path(__file__)), *sys.argv[1:], "--side", side]
    launch = {
        "rumus": ["-m", "rumus.distributed", "-n", str(ranks)],
        "torch": ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"],
    }[side]
    env = {**os.environ}
    if "--gpu" not in sys.argv:  # a rank is a thread then, also where there is one rank
        env |= dict.fromkeys(THREADS, "1")
    command = [sys.executable, *launch, *program]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=env)
    lines = [line for line in run.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise SystemExit(f"{side} on {ranks} ranks has ended with {run.returncode}: {run.stdout}")
    found: dict[str, float] = json.loads(lines[-1])
    return found


def main() -> None:
    """Run both sides on one rank and on several."""
    given = options()
    if given.side is not None:
        {"rumus": rumus_rank, "torch": torch_rank}[given.side](given)
        return
    print(
        f"{given.model}, {given.precision}: ms a step on 1 and on {given.ranks} ranks; weak scaling"
    )
    for side in ("rumus", "torch") if given.torch else ("rumus",):
        one, several = measured(side, 1), measured(side, given.ranks)
        ratio = one["seconds"] / several["seconds"]
        times = f"{one['seconds'] * 1e3:.1f} {several['seconds'] * 1e3:.1f}"
        told = f"{times} {ratio:.3f}, {given.ranks * ratio:.2f} of the samples a second"
        print(f"{side:6} {told}; bytes sent, of the least: {several['sent']:.2f}")


if __name__ == "__main__":
    main()
