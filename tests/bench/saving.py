"""The cost of a checkpoint during GPU training: seconds that the loop loses to each save.

    python tests/bench/saving.py --size 4096 --layers 6 --folder /dev/shm/saving

The same steps without checkpoints, with blocking ones and with ones that a thread reads and writes,
in turns. The time is that of the loop from its first to its last step; the rest of the last save
has its own column. Also prints the bytes of a checkpoint.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from pathlib import Path

import numpy as np

from rumus import nn
from rumus.gpu import Gpu, GpuBackend
from rumus.optim import AdamW
from rumus.tensor import Generator, Tensor
from rumus.tensor.memory.late_array import copying_late
from rumus.train import Checkpoints, Trainer
from rumus.train.checkpoints.snapshot import parts_of_model, take, taking

ROUNDS = 3


def seconds(backend: GpuBackend, options: argparse.Namespace, how: str) -> tuple[float, float, int]:
    """The seconds of the loop, those of the last save after it, and the bytes of a checkpoint."""
    random, size = Generator(0), options.size
    model = nn.Sequential(*[nn.Linear(size, size, generator=random) for _ in range(options.layers)])
    model.to(backend)
    trainer = Trainer(AdamW(model.parameters(), 1e-4), state={"model": model})
    x = np.random.default_rng(0).standard_normal((options.batch, size), np.float32)

    def loss(x: Tensor) -> Tensor:
        return (model(x) ** 2).mean()

    shutil.rmtree(options.folder, ignore_errors=True)
    checkpoints = Checkpoints(options.folder, keep_last=1, asynchronous=how == "overlapped")
    for _ in range(5):
        trainer.train_step(loss, x)
    parts = parts_of_model(trainer.optimizer, trainer.state)
    with copying_late():  # one-time costs: memory, kernels
        take(parts)
    backend.gpu.synchronize()
    begin = time.perf_counter()
    for number in range(1, options.steps + 1):
        trainer.train_step(loss, x)
        if how != "none" and number % options.every == 0:
            with taking(checkpoints):
                tree = take(parts)
            checkpoints.save(number, tree)
            del tree
    backend.gpu.synchronize()
    middle = time.perf_counter()
    checkpoints.close()
    end = time.perf_counter()
    size = checkpoints.list()[-1].size if how != "none" else 0
    shutil.rmtree(options.folder, ignore_errors=True)
    return middle - begin, end - middle, size


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=2048, help="of a layer: size x size weights")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--every", type=int, default=100, help="steps between checkpoints")
    parser.add_argument("--folder", type=Path, default=Path("saving-bench"))
    parser.add_argument("--engine", choices=("wgpu", "dawn"))
    options = parser.parse_args()
    backend = GpuBackend(Gpu(engine=options.engine))
    print(f"{backend.gpu.name} through {backend.gpu.engine}")
    kinds = ("none", "blocking", "overlapped")
    found: dict[str, list[tuple[float, float, int]]] = {how: [] for how in kinds}
    for _ in range(ROUNDS):
        for how in kinds:
            found[how].append(seconds(backend, options, how))
    loops = {how: statistics.median(loop for loop, _, _ in rows) for how, rows in found.items()}
    saves = max(1, options.steps // options.every)
    for how in kinds[1:]:
        rest = statistics.median(rest for _, rest, _ in found[how])
        lost = (loops[how] - loops["none"]) / saves
        print(
            f"{how}: {found[how][0][2] / 2**20:.0f} MiB, {lost * 1e3:.1f} ms lost for each save, "
            f"{rest * 1e3:.1f} ms behind the last step; a step takes "
            f"{loops['none'] / options.steps * 1e3:.2f} ms"
        )


if __name__ == "__main__":
    main()
