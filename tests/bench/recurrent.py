"""A training step of LSTM and GRU against PyTorch's, in one run: `python recurrent.py [gpu]`.

On the CPU with two threads each; on a GPU captured, against PyTorch with cuDNN and without. The
minimum of many times is printed, since other work of the machine only adds to it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from rumus import nn
from rumus.optim import Adam
from rumus.tensor import Backend, Tensor, cpu, tensor
from rumus.train import Trainer

BATCH, LENGTH, INPUTS = 32, 64, 128
SECONDS = 3.0


def least(step: Callable[[], Any]) -> float:
    """Milliseconds of the fastest of the steps that fit into SECONDS, each read."""
    for _ in range(5):
        float(step())
    times, end = [], time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        float(step())
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def ours(kind: str, hidden: int, place: Backend) -> float:
    """A step of rumus."""
    layer = getattr(nn, kind)(INPUTS, hidden)
    optimizer = Adam(layer.parameters(), 1e-3)
    layer.to(place)
    trainer = Trainer(optimizer)
    x, y = (tensor(a, backend=place) for a in data(hidden))

    def loss(a: Tensor, b: Tensor) -> Tensor:
        return nn.mse_loss(layer(a)[0], b)

    return least(lambda: trainer.train_step(loss, x, y))


def theirs(kind: str, hidden: int, device: str) -> float:
    """A step of PyTorch."""
    layer = getattr(torch.nn, kind)(INPUTS, hidden, batch_first=True).to(device)
    optimizer = torch.optim.Adam(layer.parameters(), 1e-3)
    x, y = (torch.tensor(a).to(device) for a in data(hidden))

    def step() -> Any:
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(layer(x)[0], y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return least(step)


def data(hidden: int) -> tuple[Any, Any]:
    """Inputs and targets."""
    rng = np.random.default_rng(0)
    shapes = (BATCH, LENGTH, INPUTS), (BATCH, LENGTH, hidden)
    x, y = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    return x, y


def main() -> None:
    """Print a line for each layer and size."""
    is_gpu = "gpu" in sys.argv[1:]
    torch.set_num_threads(2)
    place: Backend = cpu()
    if is_gpu:
        from rumus.gpu import default_backend

        place = default_backend()
    for kind in ("LSTM", "GRU"):
        for hidden in (128, 512):
            mine = ours(kind, hidden, place)
            told = [f"{kind} of {hidden}: rumus {mine:.2f} ms"]
            for name, on in (("with cuDNN", True), ("without", False)) if is_gpu else (("", True),):
                torch.backends.cudnn.enabled = on
                other = theirs(kind, hidden, "cuda" if is_gpu else "cpu")
                told.append(f"PyTorch {name} {other:.2f} ms, ratio {other / mine:.2f}")
            print("; ".join(told), flush=True)


if __name__ == "__main__":
    main()
