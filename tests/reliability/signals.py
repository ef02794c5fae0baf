"""Sends signals to trainings at random moments and looks at what is left: docs/reliability.md.

    PYTHONPATH=tests/support python tests/reliability/signals.py

Each training is a process with a group of its own, forked from one that has imported everything.
It tells of each step through a pipe, and saves after every third. Nothing is lost if it ends with
the code of the signal, and its newest checkpoint is of the last step that it told of, or of the one
that it did not come to tell of, with the weight that an undisturbed training has there.
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
from functools import partial
from typing import Final, NamedTuple

import numpy as np
from reliability_page import write_block

from rumus.optim import SGD
from rumus.tensor import NumpyBackend, Parameter, Tensor
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
AT_ONCE: Final = 2 * (os.cpu_count() or 1)  # half of their time they sleep
LIMIT: Final = 120  # seconds after which a training counts as hanging, and is ended
MOST_STEPS: Final = 4000  # more than a training comes to before its signal
DATA: Final = np.random.default_rng(0).standard_normal((400, 2)).astype(np.float32)


class Case(NamedTuple):
    """A signal on its way: to the process or the group, at a moment, beside workers of a kind."""

    number: int
    to_group: bool
    processes: bool
    moment: float

    @property
    def row(self) -> tuple[str, str]:
        """Where the signal goes, and the workers."""
        to = "the group" if self.to_group else "the process"
        return to, "processes" if self.processes else "threads"


class Telling(Callback):
    """Writes a line when the training starts and after each step."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def on_train_start(self, event: TrainStart) -> None:
        """Say that signals are handled from now on."""
        os.write(self.descriptor, b"0\n")

    def on_step_end(self, event: StepEnd) -> None:
        """Say which step is done."""
        os.write(self.descriptor, f"{event.step}\n".encode())


class Weights(Callback):
    """Notes the weight at the start and after each step."""

    def __init__(self) -> None:
        self.found: list[bytes] = []

    def on_train_start(self, event: TrainStart) -> None:
        """Note the first."""
        self._note(event)

    def on_step_end(self, event: StepEnd) -> None:
        """Note the next."""
        self._note(event)

    def _note(self, event: TrainStart | StepEnd) -> None:
        (weight,) = event.run.trainer.optimizer.parameters
        self.found.append(weight.numpy().tobytes())


def train(
    steps: int, callback: Callback, folder: str | None = None, *, processes: bool = False
) -> None:
    """Train for so many steps; slowly, and with checkpoints, if there is a folder."""
    # Without compiled loops: their threads and their lists start anew in each forked training.
    weight = Parameter([0.0, 0.0], name="weight", backend=NumpyBackend())

    def loss(x: Tensor) -> Tensor:
        if folder is not None:
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
        loader, loss, steps=steps, callbacks=[callback],
        checkpoints=None if folder is None else Checkpoints(folder),
        save_every=None if folder is None else Every(steps=3),
    )  # fmt: skip


def undisturbed() -> list[bytes]:
    """The weight after each number of steps of a training that no signal meets."""
    weights = Weights()
    train(MOST_STEPS, weights)
    return weights.found


def start(case: Case, folder: str) -> tuple[int, int]:
    """Fork a training; return its process and the pipe by which it tells of steps."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    code = 99  # of a training that comes to an end, or to an error
    try:
        os.setpgid(0, 0)
        signal.alarm(LIMIT)
        for number in SIGNALS:  # nohup, for one, has them ignored, and the training heeds that
            signal.signal(number, signal.SIG_DFL)
        train(MOST_STEPS, Telling(writing), folder, processes=case.processes)
    except SystemExit as ended:
        code = int(str(ended.code))
    finally:
        os._exit(code)


def attempt(case: Case, weights: list[bytes]) -> str:
    """Send the signal; return what is wrong with what is left, "" if nothing is."""
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
    return "" if found == weights[newest.step] else f"{case}: another weight"


def cases() -> list[Case]:
    """As many moments for each way, beside workers of each kind, with the signals in turn."""
    chosen = random.Random(2026)
    return [
        Case(SIGNALS[position % len(SIGNALS)], to_group, processes, chosen.uniform(0, WITHIN))
        for to_group in (False, True)
        for processes in (False, True)
        for position in range(MOMENTS)
    ]


def main() -> None:
    """Try all, write the table; exit code 1 if anything was lost."""
    tried = cases()
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(AT_ONCE, mp_context=context) as pool:
        wrong = list(pool.map(partial(attempt, weights=undisturbed()), tried, chunksize=4))
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
