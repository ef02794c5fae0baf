"""Sends signals to trainings at random moments and checks the results: docs/reliability.md.

    PYTHONPATH=tests/support python tests/reliability/signals.py

Each training is a process in its own group, forked from one that has imported everything. It
reports each step through a pipe, and saves after every third. Nothing is lost if it ends with the
signal's exit code, and its newest checkpoint is of the last reported step, or of the next one,
which it could not report, with the weight of an undisturbed training.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from typing import Final, NamedTuple

import numpy as np
from reliability_page import write_block

from rumus.optim import SGD
from rumus.tensor import Parameter, Tensor
from rumus.train import (
    ArrayDataset,
    Callback,
    Checkpoints,
    DataLoader,
    Every,
    StepEnd,
    Trainer,
    TrainStart,
)

MOMENTS: Final = 250  # per route to a training, next to workers of each kind; signals alternate
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
WITHIN: Final = 0.6  # seconds from the start, during which worker processes also start
AT_ONCE: Final = 2
DATA: Final = np.random.default_rng(0).standard_normal((400, 2)).astype(np.float32)


class Case(NamedTuple):
    """A signal: sent to the process or the group, at a moment, next to workers of a kind."""

    number: int
    to_group: bool
    processes: bool
    moment: float

    @property
    def row(self) -> tuple[str, str]:
        """The target of the signal, and the workers."""
        to = "the group" if self.to_group else "the process"
        return to, "processes" if self.processes else "threads"


class Telling(Callback):
    """Writes a line when the training starts and after each step."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def on_train_start(self, event: TrainStart) -> None:
        """Report that signals are handled from now on."""
        os.write(self.descriptor, b"0\n")

    def on_step_end(self, event: StepEnd) -> None:
        """Report which step is done."""
        os.write(self.descriptor, f"{event.step}\n".encode())


def train(folder: str, steps: int, *, processes: bool, callbacks: list[Callback]) -> bytes:
    """Train for this many steps; return the weight."""
    weight = Parameter([0.0, 0.0], name="weight")

    def loss(x: Tensor) -> Tensor:
        time.sleep(0.002)
        return ((weight - x) ** 2).mean()

    loader = DataLoader(
        ArrayDataset(DATA),
        4,
        shuffle=True,
        seed=0,
        workers=1 if processes else 2,
        processes=processes,
    )
    Trainer(SGD([weight], 0.01)).fit(
        loader, loss, steps=steps, checkpoints=Checkpoints(folder), save_every=Every(steps=3),
        callbacks=callbacks,
    )  # fmt: skip
    return weight.numpy().tobytes()


def start(case: Case, folder: str) -> tuple[int, int]:
    """Fork a training; return its process and the pipe on which it reports steps."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    code = 99  # for a training that runs to its end, or into an error
    try:
        os.setpgid(0, 0)
        train(folder, 10**6, processes=case.processes, callbacks=[Telling(writing)])
    except SystemExit as ended:
        code = int(str(ended.code))
    finally:
        os._exit(code)


def attempt(case: Case) -> str:
    """Send the signal; return what is wrong with the result, or ""."""
    with tempfile.TemporaryDirectory() as folder:
        child, reading = start(case, folder)
        with open(reading, "rb") as told:
            told.readline()
            time.sleep(case.moment)
            (os.killpg if case.to_group else os.kill)(child, case.number)
            last = int((told.read().split() or [b"0"])[-1])
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code != 128 + case.number:
            return f"{case}: it ended with {code}"
        if any(saved.problem for saved in Checkpoints(folder).list()):
            return f"{case}: a damaged checkpoint"
        newest = Checkpoints(folder).load()
        if newest.step not in (last, last + 1):
            return f"{case}: step {last} was done, {newest.step} saved"
        found = newest.state["parameters"]["weight"].tobytes()
    return "" if found == undisturbed(newest.step) else f"{case}: another weight"


def undisturbed(steps: int) -> bytes:
    """The weight after this many steps of an undisturbed training."""
    if steps == 0:
        return np.zeros(2, np.float32).tobytes()
    with tempfile.TemporaryDirectory() as folder:
        return train(folder, steps, processes=False, callbacks=[])


def cases() -> list[Case]:
    """Equally many moments for each route, next to workers of each kind; signals alternate."""
    chosen = random.Random(2026)
    return [
        Case(SIGNALS[position % len(SIGNALS)], to_group, processes, chosen.uniform(0, WITHIN))
        for to_group in (False, True)
        for processes in (False, True)
        for position in range(MOMENTS)
    ]


def main() -> None:
    """Try everything, write the table; exit code 1 if anything was lost."""
    tried = cases()
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(AT_ONCE, mp_context=context) as pool:
        wrong = list(pool.map(attempt, tried))
    sent = Counter(case.row for case in tried)
    lost = Counter(case.row for case, why in zip(tried, wrong, strict=True) if why)
    lines = ["| sent to | workers | moments | lost |", "|---|---|---:|---:|"]
    for row, number in sent.items():
        lines.append(f"| {' | '.join(row)} | {number:,} | {lost[row]} |")
    lines.append(f"| all | | {len(tried):,} | {lost.total()} |")
    write_block("signals", lines)
    print(*filter(None, wrong), sep="\n", file=sys.stderr)
    raise SystemExit(bool(lost))


if __name__ == "__main__":
    main()
