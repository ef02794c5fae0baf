"""Rumus against PyTorch on the CPU, in one run: prints the ratios and rewrites docs/benchmarks.md.

Each row times both sides in turn, A B A B, and compares the medians, so that a machine that slows
down for a while slows both. Run with `nox -s bench`; `python tests/bench/cpu.py models` measures
only the training steps of whole models, and leaves the other table as it is. `taskset -c 0 python
tests/bench/cpu.py steps` prints what a busy machine changes little: processor time on one core.
"""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_models
from examples import example
from torch.nn import functional

from rumus import nn
from rumus.optim import AdamW, NonFinite
from rumus.tensor import (
    Backend,
    Generator,
    GradientStore,
    NumbaBackend,
    NumpyBackend,
    Parameter,
    Tensor,
    tensor,
)
from rumus.train import Trainer

THREADS = 2
SETTLE = 0.1  # seconds
ROUNDS = 12  # of steps of whole models
STEPS = 20  # of a model in a row: the first ones after the sleep are slower than training is
TURNS = 120  # of single steps
PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"

Step = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """A row of the table: times in milliseconds, and the target ratio."""

    work: str
    peer: str
    rumus_ms: float
    peer_ms: float
    goal: str

    def __str__(self) -> str:
        ratio = self.peer_ms / self.rumus_ms
        return (
            f"| {self.work} | {self.rumus_ms:.3f} | {self.peer} | {self.peer_ms:.3f} "
            f"| {ratio:.2f} | {self.goal} |"
        )


def paired(first: Step, second: Step, rounds: int, repeats: int = 1) -> tuple[float, float]:
    """The median milliseconds of two alternating steps, each run `repeats` times per turn.

    The process sleeps before each turn: threads of the other side's libraries keep spinning for a
    while after their last work, and would be measured as well.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 2):
        for step, found in zip((first, second), times, strict=True):
            time.sleep(SETTLE)
            step()
            begin = time.perf_counter()
            for _ in range(repeats):
                step()
            if number >= 2:
                found.append((time.perf_counter() - begin) / repeats)
    return statistics.median(times[0]) * 1e3, statistics.median(times[1]) * 1e3


def rumus_adamw(backend: Backend, shapes: Sequence[int], nonfinite: NonFinite) -> Step:
    """One AdamW step over parameters with gradients that stay the same."""
    normal = np.random.default_rng(0).standard_normal
    parameters = [Parameter(normal(n, np.float32), backend=backend) for n in shapes]
    optimizer = AdamW(parameters, 1e-3, nonfinite=nonfinite)
    gradients = [tensor(normal(n, np.float32), backend=backend) for n in shapes]
    grads = GradientStore()
    for parameter, gradient in zip(parameters, gradients, strict=True):
        grads.accumulate(parameter, gradient)
    entries, owners, places = dict(grads._gradients), dict(grads._parameters), dict(grads._backends)

    def step() -> None:
        # PyTorch's step leaves the gradients in place; reinstall ours without a copy.
        grads._gradients.update(entries)
        grads._parameters.update(owners)
        grads._backends.update(places)
        optimizer.step(grads)

    return step


def torch_adamw(shapes: Sequence[int], **options: bool) -> Step:
    """One step of PyTorch's AdamW over the same shapes."""
    parameters = [torch.nn.Parameter(torch.randn(n)) for n in shapes]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer = torch.optim.AdamW(parameters, 1e-3, **options)
    return lambda: optimizer.step()


def adamw_rows() -> list[Row]:
    """AdamW over one large tensor, and over many small ones."""
    rows = []
    large, small = [16_700_000], [1000] * 200
    cases: tuple[tuple[Backend, NonFinite, str, str], ...] = (
        (NumbaBackend(), "raise", "numba, gradients checked", ">= 1"),
        (NumbaBackend(), "propagate", "numba, unchecked as in PyTorch", ">= 1"),
        (NumpyBackend(), "raise", "NumPy, gradients checked", ">= 0.4"),
        (NumpyBackend(), "propagate", "NumPy, unchecked as in PyTorch", ">= 0.4"),
    )
    for backend, nonfinite, label, goal in cases:
        pair = paired(rumus_adamw(backend, large, nonfinite), torch_adamw(large, fused=True), 15, 2)
        rows.append(Row(f"AdamW, 16.7M parameters ({label})", "PyTorch fused", *pair, goal))
    for backend, nonfinite, label, _ in cases[::2]:
        for peer, options in (("fused", {"fused": True}), ("foreach", {"foreach": True})):
            step = rumus_adamw(backend, small, nonfinite)
            pair = paired(step, torch_adamw(small, **options), 20, 50)
            rows.append(Row(f"AdamW, 200 x 1000 ({label})", f"PyTorch {peer}", *pair, ""))
    return rows


def digits_batch() -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.float32]], list[int]]:
    """64 handwritten digits."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return (images[:64] / 16).astype(np.float32), labels[:64].tolist()


def rumus_digits(backend: Backend, *, capture: bool = True) -> tuple[Step, Step]:
    """A training step of the digits classifier: through Trainer, and by hand."""
    images, labels = digits_batch()
    x, y = tensor(images, backend=backend), tensor(labels, backend=backend)

    def model() -> nn.Sequential:
        generator = Generator(0)
        layers = nn.Sequential(
            nn.Linear(64, 128, generator=generator),
            nn.ReLU(),
            nn.Linear(128, 128, generator=generator),
            nn.ReLU(),
            nn.Linear(128, 10, generator=generator),
        )
        layers.to(backend)
        return layers

    first, second = model(), model()
    trainer = Trainer(AdamW(first.parameters(), 1e-3), capture=capture)
    optimizer = AdamW(second.parameters(), 1e-3)

    def loss_of(layers: nn.Sequential, x: Tensor, y: Tensor) -> Tensor:
        return nn.cross_entropy_loss(layers(x), y)

    def by_hand() -> float:
        loss = loss_of(second, x, y)
        with loss.backward() as grads:
            optimizer.step(grads)
        return float(loss)

    return lambda: trainer.train_step(lambda x, y: loss_of(first, x, y), x, y), by_hand


def torch_digits(**options: bool) -> Step:
    """The same step in PyTorch, eager."""
    images, labels = digits_batch()
    model = torch_models.mlp(64, 128, 10)
    return torch_training(model, torch.tensor(images), torch.tensor(labels), **options)


def jax_digits() -> Step:
    """The same step by jax.jit, with optax."""
    import jax
    import optax

    images, labels = digits_batch()
    x, y = jax.numpy.asarray(images), jax.numpy.asarray(labels)
    draw, sizes = np.random.default_rng(0).uniform, (64, 128, 128, 10)
    weights = [draw(-1, 1, size).astype(np.float32) / size[0] ** 0.5 for size in pairwise(sizes)]
    parameters = [(jax.numpy.asarray(w), jax.numpy.zeros(w.shape[1])) for w in weights]
    optimizer = optax.adamw(1e-3)

    def loss_of(parameters: Any, x: Any, y: Any) -> Any:
        for number, (weight, bias) in enumerate(parameters):
            x = x @ weight + bias
            x = jax.nn.relu(x) if number < 2 else x
        return optax.softmax_cross_entropy_with_integer_labels(x, y).mean()

    def step(parameters: Any, state: Any, x: Any, y: Any) -> Any:
        loss, gradients = jax.value_and_grad(loss_of)(parameters, x, y)
        updates, state = optimizer.update(gradients, state, parameters)
        return optax.apply_updates(parameters, updates), state, loss

    compiled, now = jax.jit(step), [parameters, optimizer.init(parameters)]

    def run() -> float:
        *now[:], loss = compiled(*now, x, y)
        return float(loss)

    return run


def digits_rows() -> list[Row]:
    """The training step of the digits classifier, next to PyTorch, and JAX if it is installed."""
    rows = []
    for label, backend, goal in (
        ("numba", NumbaBackend(), ">= 2"), ("NumPy", NumpyBackend(), ">= 1.5")
    ):  # fmt: skip
        peers = {
            "PyTorch eager": (torch_digits(), ""),
            "PyTorch eager, fused AdamW": (torch_digits(fused=True), goal),
        }
        if find_spec("jax") is not None and find_spec("optax") is not None:
            peers["jax.jit, optax"] = jax_digits(), ">= 1"
        for peer, (other, reach) in peers.items():
            pair = paired(rumus_digits(backend)[0], other, 20, 100)
            rows.append(Row(f"digits MLP step ({label})", peer, *pair, reach))
    return rows


def lowest(times: Sequence[int]) -> float:
    """The mean of the lowest tenth, in microseconds."""
    return statistics.mean(sorted(times)[: len(times) // 10]) / 1e3


def print_single_steps() -> None:
    """Print the lowest tenth of single digits steps of each side: processor time and wall time."""
    sides = {
        "NumPy": rumus_digits(NumpyBackend())[0],
        "numba": rumus_digits(NumbaBackend())[0],
        "PyTorch eager, fused AdamW": torch_digits(fused=True),
    }
    if find_spec("jax") is not None and find_spec("optax") is not None:
        sides["jax.jit, optax"] = jax_digits()
    clocks = time.process_time_ns, time.perf_counter_ns
    times: dict[str, tuple[list[int], list[int]]] = {name: ([], []) for name in sides}
    for turn in range(TURNS + 3):
        for name, step in sides.items():
            for _ in range(STEPS):
                before = [clock() for clock in clocks]
                step()
                for clock, start, found in zip(clocks, before, times[name], strict=True):
                    found += [clock() - start] if turn >= 3 else []
    for name, (busy, wall) in times.items():
        print(f"{name:28} {lowest(busy):7.1f} us of processor time, {lowest(wall):7.1f} us")


def trainer_overhead() -> float:
    """Microseconds that an uncaptured `train_step` adds to the same loop by hand.

    The median of differences of short turns: it is a hundredth of a step, less than the machine's
    speed varies within a second.
    """
    step, by_hand = rumus_digits(NumbaBackend(), capture=False)
    found = []
    for _ in range(200):
        begin = time.perf_counter()
        for _ in range(20):
            step()
        middle = time.perf_counter()
        for _ in range(20):
            by_hand()
        found.append((2 * middle - begin - time.perf_counter()) / 20)
    return statistics.median(found) * 1e6


def import_seconds(module: str) -> float:
    """The median seconds that importing a module adds to a fresh interpreter."""
    program = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter()-t)"
    run = [sys.executable, "-c", program]
    found = [float(subprocess.run(run, capture_output=True, check=True).stdout) for _ in range(7)]
    return statistics.median(found)


def import_row() -> Row:
    """How long an import takes."""
    times = import_seconds("rumus.train") * 1e3, import_seconds("torch") * 1e3
    return Row("`import rumus.train`", "`import torch`", *times, ">= 8; under 200 ms")


def rumus_cnn(backend: Backend) -> Step:
    """A step of the network of docs/examples/digits_cnn.py, 64 pictures of 8 x 8."""
    images, labels = digits_batch()
    x = tensor(images.reshape(64, 1, 8, 8), backend=backend)
    y = tensor(labels, backend=backend)
    model = example("digits_cnn").Network(Generator(0))
    model.to(backend)
    trainer = Trainer(AdamW(model.parameters(), 1e-3))
    return lambda: trainer.train_step(lambda x, y: nn.cross_entropy_loss(model(x), y), x, y)


def torch_cnn() -> Step:
    """The same network in PyTorch, eager."""
    images, labels = digits_batch()
    x, y = torch.tensor(images).reshape(64, 1, 8, 8), torch.tensor(labels)
    return torch_training(torch_models.digits_cnn(), x, y)


LAYERS, SIZE, HEADS, LENGTH, TEXTS, BYTES = 2, 128, 4, 64, 8, 256


def text_batch() -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    """Random bytes: as many texts, one byte longer than the model's input."""
    return np.random.default_rng(0).integers(0, BYTES, (TEXTS, LENGTH + 1)).astype(np.int32)


def rumus_gpt(backend: Backend) -> Step:
    """A step of the model of docs/examples/char_gpt.py, without dropout."""
    text = tensor(text_batch(), backend=backend)
    model = example("char_gpt").GPT(LAYERS, SIZE, HEADS, LENGTH, Generator(0))
    for block in model.blocks:
        block.dropout.p = block.attention.dropout.p = 0.0
    model.to(backend)
    trainer = Trainer(AdamW(model.parameters(), 1e-3))
    return lambda: trainer.train_step(
        lambda text: nn.cross_entropy_loss(model(text[:, :-1]), text[:, 1:]), text
    )


def torch_gpt() -> Step:
    """A step of the GPT in PyTorch, eager."""
    text = torch.tensor(text_batch()).long()
    model = torch_models.GPT(LAYERS, SIZE, HEADS, LENGTH, BYTES)
    return torch_training(model, text[:, :-1], text[:, 1:].flatten())


def torch_training(
    model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, **options: bool
) -> Step:
    """A training step with PyTorch's AdamW that reads the loss, as `train_step` does."""
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, **options)

    def step() -> None:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def model_rows() -> list[Row]:
    """The training steps of two whole models."""
    rows = []
    for label, backend, goal in (
        ("numba", NumbaBackend(), ">= 1"),
        ("NumPy", NumpyBackend(), ""),
    ):
        for work, ours, theirs in (
            ("digits CNN step, batch 64", rumus_cnn, torch_cnn),
            ("GPT step, 2 layers, 128 wide, 8 x 64", rumus_gpt, torch_gpt),
        ):
            pair = paired(ours(backend), theirs(), ROUNDS, STEPS)
            rows.append(Row(f"{work} ({label})", "PyTorch eager", *pair, goal))
    return rows


def report(rows: Sequence[Row], end: Sequence[str] = ()) -> str:
    """The table as Markdown."""
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {THREADS} threads"
    versions = (
        f"Python {platform.python_version()}, NumPy {np.__version__}, torch {torch.__version__}"
    )
    lines = [
        f"{datetime.date.today()}: {machine}; {versions}. Medians in milliseconds, both sides in "
        "turn. Ratio: peer / rumus, above 1 is faster.",
        "",
        "| work | rumus | peer | peer's time | ratio | to reach |",
        "|---|---|---|---|---|---|",
        *map(str, rows),
        *end,
    ]
    return "\n".join(lines)


def small_work() -> str:
    """The table of optimizers, the small classifier and the import."""
    rows = [*adamw_rows(), *digits_rows(), import_row()]
    overhead = trainer_overhead()
    return report(
        rows,
        [
            "",
            f"`Trainer.train_step` takes {overhead:.1f} microseconds longer than the same step by "
            "hand (to reach: at most 20).",
        ],
    )


TABLES: dict[str, Callable[[], str]] = {
    "cpu": small_work,
    "models": lambda: report(model_rows()),
}


def main(chosen: Sequence[str]) -> None:
    """Measure these tables, or all; print them and write them to the page."""
    if chosen == ["steps"]:
        torch.set_num_threads(1)
        print_single_steps()
        return
    torch.set_num_threads(THREADS)
    for name in chosen or TABLES:
        table = TABLES[name]()
        print(table)
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, rest = PAGE.read_text().split(begin)
        PAGE.write_text(f"{before}{begin}\n{table}\n{end}{rest.split(end)[1]}")


if __name__ == "__main__":
    main(sys.argv[1:])
