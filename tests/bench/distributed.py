"""Weak scaling: a step of one rank and of several, each with the same number of samples.

    python tests/bench/distributed.py --ranks 2 --model gpt2 --gpu --torch

starts itself on one rank and on several with `python -m rumus.distributed`, and PyTorch DDP with
torchrun, and prints the ratios of steps per second. Without --gpu each rank has one thread. With
--batch 64 --shards 8, a batch for all ranks together, the parameters have the same digest on 1, 2,
4 and 8 ranks. --fsdp shards PyTorch's parameters, gradients and state over the ranks (FSDP2)
instead. --overhead prints what `ranks=` costs on one process, and --sums how long sums between
ranks take, with each method and with PyTorch.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rumus import nn


@dataclass(frozen=True)
class GPT:
    """A GPT: layers, width, heads, positions, tokens; and the batch of a rank, its length."""

    layers: int
    width: int
    heads: int
    positions: int
    tokens: int
    batch: int
    length: int

    def rows(self, count: int) -> tuple[Any, Any]:
        """Random text, and the next tokens."""
        text = np.random.default_rng(0).integers(0, self.tokens, (count, self.length + 1))
        return text[:, :-1].astype(np.int32), text[:, 1:].astype(np.int32)

    def ours(self) -> nn.Module:
        """The model in rumus."""
        from examples import example

        from rumus.tensor import Generator

        made = self.layers, self.width, self.heads, self.tokens, self.positions
        model: nn.Module = example("gpt2_finetune").GPT2(*made, Generator(0))
        return model

    def theirs(self) -> Any:
        """The model in PyTorch."""
        import torch_models

        made = self.layers, self.width, self.heads, self.positions, self.tokens
        return torch_models.GPT(*made, tied=True)


@dataclass(frozen=True)
class MLP:
    """A perceptron with two hidden layers; and the batch of a rank."""

    inputs: int
    hidden: int
    outputs: int
    batch: int

    def rows(self, count: int) -> tuple[Any, Any]:
        """Random numbers with random classes."""
        random = np.random.default_rng(0)
        classes = random.integers(0, self.outputs, count).astype(np.int32)
        return random.standard_normal((count, self.inputs), np.float32), classes

    def ours(self) -> nn.Module:
        """The model in rumus."""
        from rumus import nn
        from rumus.tensor import Generator

        random, hidden = Generator(0), self.hidden
        return nn.Sequential(
            nn.Linear(self.inputs, hidden, generator=random),
            nn.ReLU(),
            nn.Linear(hidden, hidden, generator=random),
            nn.ReLU(),
            nn.Linear(hidden, self.outputs, generator=random),
        )

    def theirs(self) -> Any:
        """The model in PyTorch."""
        import torch_models

        return torch_models.mlp(self.inputs, self.hidden, self.outputs)


THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
WORKS: dict[str, GPT | MLP] = {
    "gpt2": GPT(12, 768, 12, 1024, 50257, 8, 512),
    "gpt": GPT(4, 256, 4, 128, 256, 16, 128),
    "tiny": GPT(2, 32, 2, 16, 64, 4, 16),
    "mlp": MLP(784, 512, 10, 128),
}
ROUNDS = 7
MEGABYTES = (0.25, 1, 4, 16, 64, 256)


def options() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2])
    parser.add_argument("--model", choices=WORKS, default="gpt2")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--shards", type=int, help="of a batch; by default one a rank")
    parser.add_argument("--batch", type=int, help="of all ranks; by default each has its own")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--precision", choices=("highest", "high", "medium"), default="highest")
    parser.add_argument("--zero", action="store_true")
    parser.add_argument("--torch", action="store_true", help="measure PyTorch too")
    parser.add_argument("--fsdp", action="store_true", help="PyTorch with FSDP2, not DDP")
    parser.add_argument("--overhead", action="store_true", help="one process: ranks= or not")
    parser.add_argument("--sums", action="store_true", help="sums of arrays alone")
    parser.add_argument("--largest", type=float, default=256, help="megabytes of --sums")
    parser.add_argument("--side", choices=SIDES, help="what one rank runs")
    return parser.parse_args()


def median(times: list[float]) -> float:
    """The median of the steps of the second half, in seconds, when a GPU has warmed up."""
    seconds: list[float] = np.diff(times).tolist()
    return statistics.median(seconds[len(times) // 2 :])


class Training:
    """What one rank trains in rumus."""

    def __init__(self, given: argparse.Namespace, *, with_ranks: bool = True) -> None:
        from rumus import nn
        from rumus.distributed import ranks
        from rumus.optim import AdamW
        from rumus.train import ArrayDataset, DataLoader, Trainer

        self.team, self.work, self.steps = ranks(deadline=300), WORKS[given.model], 0
        self.model, self.backend = self.work.ours(), None
        if given.gpu:
            self.backend = self.team.gpu()
            self.backend.gpu.precision = given.precision  # type: ignore[attr-defined]
            self.model.to(self.backend)
        team = self.team if with_ranks else None
        count = given.batch or self.work.batch * self.team.size
        rows = ArrayDataset(*self.work.rows(count))
        self.loader = DataLoader(
            rows, count, ranks=team, shards=given.shards, backend=self.backend
        )  # fmt: skip
        self.optimizer = AdamW(self.model.parameters(), 1e-4)
        state = {"model": self.model}
        self.trainer = Trainer(self.optimizer, ranks=team, zero=given.zero, state=state)
        model = self.model
        self.loss = lambda x, y: nn.cross_entropy_loss(model(x), y)

    def fit(self, steps: int) -> list[float]:
        """Continue training; return when each step ended, including on the device."""
        from rumus.train import Callback, StepEnd

        class Clock(Callback):
            def __init__(self) -> None:
                self.times: list[float] = []

            def on_step_end(self, event: StepEnd) -> None:
                float(event.loss)
                self.times.append(perf_counter())

        clock = Clock()
        self.trainer.fit(self.loader, self.loss, steps=steps, callbacks=[clock])
        return clock.times

    @property
    def peak(self) -> int:
        """The peak bytes of arrays on the GPU, 0 on the CPU."""
        stats: Any = getattr(self.backend, "memory_stats", None)
        return 0 if stats is None else int(stats().peak)


def rumus_rank(given: argparse.Namespace) -> None:
    """Train for some steps, and print rank 0's measurements."""
    training = Training(given)
    times, team = training.fit(given.steps), training.team
    peak = max(team.gather(training.peak))
    bits = hashlib.sha256()
    for p in training.optimizer.parameters:
        bits.update(p.numpy().tobytes())
    digest = bits.hexdigest()[:12]
    if team.speaks:
        count = sum(p.size for p in training.optimizer.parameters)
        sent = team.sent / given.steps / max(1, 2 * (team.size - 1) / team.size * 4 * count)
        found = {"seconds": median(times), "sent": sent, "peak": peak, "digest": digest}
        print(json.dumps({**found, "state": training.optimizer.memory().state}), flush=True)


def sharded(model: Any) -> Any:
    """Shard a GPT of PyTorch over the ranks, block by block."""
    from torch.distributed.fsdp import fully_shard

    for block in model.blocks:
        fully_shard(block)
    return fully_shard(model)


def torch_rank(given: argparse.Namespace) -> None:
    """The same in PyTorch, with DistributedDataParallel over NCCL or Gloo."""
    import torch
    from torch.nn import functional

    rank, count = int(os.environ["LOCAL_RANK"]), int(os.environ["WORLD_SIZE"])
    work = WORKS[given.model]
    device = torch.device("cuda", rank) if given.gpu else torch.device("cpu")
    torch.distributed.init_process_group("nccl" if given.gpu else "gloo")
    torch.set_float32_matmul_precision("high" if given.precision == "medium" else "highest")
    model = work.theirs().to(device)
    wrapped = sharded(model) if given.fsdp else torch.nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=given.gpu or None)
    samples = given.batch or work.batch * count
    x, y = (torch.tensor(each)[rank::count].to(device) for each in work.rows(samples))
    x = x if x.is_floating_point() else x.long()
    y = y.long().flatten()
    times = []
    for _ in range(given.steps):
        loss = functional.cross_entropy(wrapped(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
        times.append(perf_counter())
    peak = torch.cuda.max_memory_allocated() if given.gpu else 0
    if rank == 0:
        found = {"seconds": median(times), "sent": 1.0, "peak": peak, "state": 0}
        print(json.dumps(found), flush=True)
    torch.distributed.destroy_process_group()


def timed(act: Callable[[], object]) -> float:
    """The median time of some calls, in seconds."""
    times = []
    for _ in range(ROUNDS + 2):
        start = perf_counter()
        act()
        times.append(perf_counter() - start)
    return statistics.median(times[2:])


def rumus_sums(given: argparse.Namespace) -> None:
    """Sums through memory that all ranks map, and by messages; their bits are compared."""
    from rumus.distributed import ranks
    from rumus.distributed.message_sum import MessageSum
    from rumus.distributed.processes import mpi_link
    from rumus.distributed.shared_sum import SharedSum
    from rumus.tensor import cpu

    team, link = ranks(deadline=60), mpi_link()
    backend: Any = team.gpu() if given.gpu else cpu()
    for size in (size for size in MEGABYTES if size <= given.largest):
        length = int(size * 2**18)
        host = np.random.default_rng(link.rank).standard_normal(length, np.float32)
        ways = {
            "messages": MessageSum(link, link._comm, backend),
            "mapped": SharedSum.of(link, backend, length, host.dtype),
        }
        line, bits = {"megabytes": size}, set()
        for name, way in ways.items():
            if way is None:
                continue
            array = backend.upload(host)

            def add_up(way: Any = way, array: Any = array) -> None:
                way.add_up(array)
                if given.gpu:
                    backend.gpu.synchronize()

            add_up()
            bits.add(backend.download(array).tobytes())
            line[name] = max(team.gather(timed(add_up)))
        assert len(set(team.gather(frozenset(bits)))) == 1 == len(bits), "the bits differ"
        if team.speaks:
            print(json.dumps(line), flush=True)


def torch_sums(given: argparse.Namespace) -> None:
    """All-reduce of PyTorch, by NCCL or Gloo."""
    import torch

    rank = int(os.environ["LOCAL_RANK"])
    device = torch.device("cuda", rank) if given.gpu else torch.device("cpu")
    torch.distributed.init_process_group("nccl" if given.gpu else "gloo")
    for size in (size for size in MEGABYTES if size <= given.largest):
        array = torch.zeros(int(size * 2**18), device=device)

        def add_up(array: Any = array) -> None:
            torch.distributed.all_reduce(array)
            if given.gpu:
                torch.cuda.synchronize()

        seconds = timed(add_up)
        if rank == 0:
            print(json.dumps({"megabytes": size, "all-reduce": seconds}), flush=True)
    torch.distributed.destroy_process_group()


SIDES: dict[str, Callable[[argparse.Namespace], None]] = {
    "rumus": rumus_rank,
    "torch": torch_rank,
    "rumus-sums": rumus_sums,
    "torch-sums": torch_sums,
}


def run(side: str, ranks: int) -> list[dict[str, Any]]:
    """Measure one side on this many ranks."""
    program = [str(Path(__file__)), *sys.argv[1:], "--side", side]
    launch = ["-m", "rumus.distributed", "-n", str(ranks)]
    if side.startswith("torch"):
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    env = {**os.environ}
    if "--gpu" not in sys.argv:  # a rank is then a thread, even if there is only one rank
        env |= dict.fromkeys(THREADS, "1")
    ended = subprocess.run(
        [sys.executable, *launch, *program], stdout=subprocess.PIPE, text=True, env=env
    )
    found = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    if ended.returncode or not found:
        raise SystemExit(f"{side} on {ranks} ranks: exit code {ended.returncode}: {ended.stdout}")
    return found


def scaling(given: argparse.Namespace) -> None:
    """Print a line per side and number of ranks."""
    print(f"{given.model}, {given.precision}{', zero' * given.zero}: a step in ms; weak scaling")
    for side in ("rumus", "torch") if given.torch else ("rumus",):
        (alone,) = run(side, 1)
        for ranks in (1, *given.ranks):
            (found,) = (alone,) if ranks == 1 else run(side, ranks)
            told = f"{side:6} {ranks}: {found['seconds'] * 1e3:.2f}"
            if ranks > 1:
                ratio = alone["seconds"] / found["seconds"]
                told += f" {ratio:.3f}, {ranks * ratio:.2f} of the samples a second; bytes sent, "
                told += f"of the least: {found['sent']:.2f}"
            if given.gpu:
                told += f"; peak {found['peak'] / 2**20:.0f} MiB a GPU"
            if "digest" in found:
                told += f"; parameters {found['digest']}"
            if found["state"]:
                told += f", state {found['state'] / 2**20:.1f} MiB a rank"
            print(told, flush=True)


def overhead(given: argparse.Namespace) -> None:
    """Print the cost of `ranks=` on one process, alternating with the plain trainer."""
    sides = [Training(given, with_ranks=with_ranks) for with_ranks in (False, True)]
    found: list[list[float]] = [[], []]
    for number in range(ROUNDS + 1):
        for side, times in zip(sides, found, strict=True):
            side.optimizer.poll(wait=True)
            side.steps += given.steps
            seconds = median(side.fit(side.steps))
            times += [seconds * 1e6] * (number > 0)
    plain, ranked = (statistics.median(times) for times in found)
    differences = [b - a for a, b in zip(*found, strict=True)]
    print(
        f"{given.model}: {plain:.1f} us a step of the plain trainer, {ranked:.1f} with ranks=: "
        f"{statistics.median(differences):+.1f} us ({min(differences):+.1f} to "
        f"{max(differences):+.1f})",
        flush=True,
    )


def sums(given: argparse.Namespace) -> None:
    """Print a line per size."""
    for ranks in given.ranks:
        for side in ("rumus-sums", "torch-sums") if given.torch else ("rumus-sums",):
            for line in run(side, ranks):
                size = line.pop("megabytes")
                told = [f"{name} {seconds * 1e3:.2f} ms" for name, seconds in line.items()]
                print(f"{side} {ranks} ranks, {size:g} MiB:", ", ".join(told), flush=True)


def main() -> None:
    """Run the requested benchmark, on one rank and on several."""
    given = options()
    if given.side is not None:
        SIDES[given.side](given)
    elif given.overhead:
        overhead(given)
    elif given.sums:
        sums(given)
    else:
        scaling(given)


if __name__ == "__main__":
    main()
