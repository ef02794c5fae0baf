"""Slow links: workers that train separately and synchronize every 50 steps (local SGD, DiLoCo).

    python docs/examples/diloco.py                               one process plays all workers
    python -m rumus.distributed -n 4 docs/examples/diloco.py     one rank per worker, same numbers

All workers start from the same parameters, and each does `--every` steps on its own part of the
text. The mean of their displacements is then the gradient of an outer optimizer, which owns copies
of the parameters; all workers continue from its result. With `--outer-lr 1 --momentum 0` this
averages the workers (Stich: arXiv:1805.09767); with Nesterov's momentum it is DiLoCo (Douillard et
al.: arXiv:2311.08105). The workers exchange far less than with a sum at every step, but the
training differs: docs/distributed.md has the losses.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pydoc_data.topics import topics

import numpy as np
from char_gpt import GPT, windows
from numpy.typing import NDArray

from rumus import nn
from rumus.distributed import Ranks, ranks
from rumus.optim import SGD, AdamW, ClipNorm
from rumus.tensor import Generator, GradientStore, Parameter, Tensor, no_grad, tensor
from rumus.train import ArrayDataset, DataLoader, Trainer

LENGTH = 64


class Worker:
    """A model that trains on its own part of the text."""

    def __init__(self, number: int, rows: NDArray[np.int32], batch: int) -> None:
        self.model = GPT(2, 64, 4, LENGTH, Generator(0))
        optimizer = AdamW(self.model.parameters(), 2e-3, clip=ClipNorm(1.0))
        self.parameters = optimizer.parameters
        self.trainer = Trainer(optimizer, state={"model": self.model})
        self.loader = DataLoader(ArrayDataset(rows), batch, shuffle=True, seed=number)
        self._batches = self._endless()

    def _endless(self) -> Iterator[tuple[NDArray[np.int32]]]:
        while True:
            yield from self.loader

    def loss(self, rows: Tensor) -> Tensor:
        """Return the mean loss of predicting the next bytes."""
        return nn.cross_entropy_loss(self.model(rows[:, :-1]), rows[:, 1:])

    def start_at(self, start: Sequence[Parameter]) -> None:
        """Set the parameters to the outer optimizer's."""
        for own, outer in zip(self.parameters, start, strict=True):
            own.assign(outer.detach())

    def train(self, start: Sequence[Parameter], steps: int) -> list[NDArray[np.float32]]:
        """Do some steps from the outer optimizer's parameters; return start minus end."""
        self.start_at(start)
        for _ in range(steps):
            self.trainer.train_step(self.loss, *next(self._batches))
        return [outer.numpy() - own.numpy()
                for own, outer in zip(self.parameters, start, strict=True)]  # fmt: skip


def mean_way(
    team: Ranks, workers: dict[int, Worker], start: Sequence[Parameter], steps: int
) -> list[NDArray[np.float32]]:
    """Let all workers train; return the mean of start minus end, summed in the workers' order."""
    own = {number: worker.train(start, steps) for number, worker in workers.items()}
    ways = {number: way for rank in team.gather(own) for number, way in rank.items()}
    ordered = [ways[number] for number in sorted(ways)]
    return [np.mean(np.stack(parts), axis=0) for parts in zip(*ordered, strict=True)]


def held_out_loss(worker: Worker, start: Sequence[Parameter], rows: NDArray[np.int32]) -> float:
    """The loss on held-out text at the outer optimizer's parameters."""
    worker.start_at(start)
    worker.model.eval()
    with no_grad():
        loss = worker.loss(tensor(rows)).item()
    worker.model.train()
    return loss


def arguments() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description="Train with workers that rarely synchronize.")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=300, help="steps of each worker")
    parser.add_argument("--every", type=int, default=50, help="steps between synchronizations")
    parser.add_argument("--batch", type=int, default=4, help="rows of a worker's batch")
    parser.add_argument("--outer-lr", type=float, default=0.7)
    parser.add_argument("--momentum", type=float, default=0.5)
    return parser.parse_args()


def main() -> int:
    """Train, print the loss after each synchronization, and return the exit code."""
    given, team = arguments(), ranks()
    rows = windows("\n".join(topics[name] for name in sorted(topics)).encode(), LENGTH)
    cut = len(rows) * 19 // 20
    mine = range(team.rank, given.workers, team.size)
    workers = {n: Worker(n, rows[n : cut : given.workers], given.batch) for n in mine}
    reader = workers[team.rank]
    copies = [Parameter(p.numpy(), name=p.name) for p in reader.parameters]
    outer = SGD(copies, given.outer_lr, momentum=given.momentum, nesterov=given.momentum > 0)
    for done in range(given.every, given.steps + 1, given.every):
        grads = GradientStore()
        for p, way in zip(copies, mean_way(team, workers, copies, given.every), strict=True):
            grads.accumulate(p, tensor(way, backend=p.backend))
        outer.step(grads)
        loss = held_out_loss(reader, copies, rows[cut:])
        if team.speaks:
            print(f"step {done:4} of {given.workers} workers: {loss:.3f} nats per byte", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
