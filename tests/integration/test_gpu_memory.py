"""Long training on the GPU takes no more memory than short training."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from rumus import nn
from rumus.gpu import Gpu, GpuBackend
from rumus.optim import AdamW
from rumus.tensor import Generator, Tensor
from rumus.train import Trainer

EPOCH = 500  # steps; a loss waits on the device until the end of its epoch
WINDOWS = 5


def resident_kilobytes() -> int:
    """The memory of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


class Run:
    """A tiny classifier with dropout, on its own device."""

    def __init__(self, *, capture: bool) -> None:
        self.gpu = GpuBackend(Gpu())
        generator = Generator(0)
        self.model = nn.Sequential(
            nn.Linear(4, 8, generator=generator),
            nn.ReLU(),
            nn.Dropout(0.2, generator=generator),
            nn.Linear(8, 3, generator=generator),
        ).to(self.gpu)
        self.trainer = Trainer(AdamW(self.model.parameters(), 1e-3), capture=capture)
        random = np.random.default_rng(0)
        self.inputs = random.standard_normal((64, 16, 4)).astype(np.float32)
        self.targets = random.integers(0, 3, (64, 16)).astype(np.int32)
        self.done = 0

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return nn.cross_entropy_loss(self.model(inputs), targets)

    def train(self, until: int) -> tuple[int, int, int, int]:
        """Go on to this step; return bytes and blocks on the device, pipelines, kilobytes here."""
        while self.done < until:
            batch = self.done % len(self.inputs)
            self.trainer.train_step(self.loss, self.inputs[batch], self.targets[batch])
            self.done += 1
            if self.done % EPOCH == 0:
                assert np.isfinite(self.trainer.epoch_avg_loss())
        self.gpu.gpu.synchronize()  # pending work of a slow device takes memory, too
        gc.collect()
        stats = self.gpu.memory_stats()
        return stats.used, stats.blocks, self.gpu.stats.pipelines, resident_kilobytes()


@pytest.mark.needs_gpu
@pytest.mark.parametrize(("capture", "window"), [(True, 4000), (False, 500)])
def test_memory_is_flat(capture: bool, window: int) -> None:
    """In its own process: leftovers of other tests affect how much Python requests next."""
    command = [sys.executable, __file__, *map(str, (int(capture), window))]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    seen, replayed = json.loads(done.stdout)
    seen = seen[1:]  # the first window fills the pool of blocks
    assert all(on_device == seen[0][:-1] for *on_device, _ in seen)
    # Allocators take a piece of memory now and then; a leak grows in every window.
    resident = [kilobytes for *_, kilobytes in seen]
    assert min(later - before for before, later in pairwise(resident)) < 100
    assert replayed == (WINDOWS * window - 2 if capture else 0)


if __name__ == "__main__":
    CAPTURE, WINDOW = map(int, sys.argv[1:])
    RUN = Run(capture=bool(CAPTURE))
    SEEN = [RUN.train(window * WINDOW) for window in range(1, WINDOWS + 1)]
    print(json.dumps([SEEN, RUN.trainer.counts.captured]))
