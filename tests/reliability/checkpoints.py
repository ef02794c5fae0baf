"""Kills a training at random times, times a save, and rewrites the tables of docs/reliability.md.

    python tests/reliability/checkpoints.py report.xml

The report is that of `pytest --junitxml`; `nox -s reliability` runs the tests and this.
"""

from __future__ import annotations

import datetime
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import numpy as np

from rumus.optim import AdamW
from rumus.tensor import Parameter, tensor
from rumus.train import Checkpoints, NoCheckpointError, Trainer

PAGE: Final = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- reliability: begin -->", "<!-- reliability: end -->"
RUNS: Final = 100
LARGE: Final = 250_000_000  # bytes of the state that is timed
COMMAND: Final = "nox -s reliability"


class Training:
    """A small training; each step depends on all earlier ones."""

    def __init__(self) -> None:
        self.weight = Parameter(np.ones((100, 100), np.float32), name="weight")
        self.trainer = Trainer(AdamW([self.weight], lr=0.01))
        self.step = 0

    def train_step(self) -> None:
        """Do one step; its data is a function of its number."""
        data = np.random.default_rng(self.step).normal(size=(100, 100)).astype(np.float32)
        self.trainer.train_step(lambda: ((self.weight @ tensor(data)) ** 2).mean())
        self.step += 1

    def state(self) -> dict[str, Any]:
        """Return everything that later steps depend on."""
        optimizer: Any = self.trainer.optimizer
        model = {"weight": self.weight.numpy()}
        return {"model": model, "optimizer": optimizer.state_dict(), "trainer": {"step": self.step}}

    def go_on(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        optimizer: Any = self.trainer.optimizer
        optimizer.load_state_dict(state["optimizer"])
        self.weight.assign(tensor(state["model"]["weight"]))
        self.step = state["trainer"]["step"]


def train(folder: str, asynchronous: bool) -> None:
    """Train until killed: resume, save at each step, print which was saved."""
    checkpoints = Checkpoints(folder, on_error="raise", asynchronous=asynchronous)
    training = Training()
    with suppress(NoCheckpointError):
        training.go_on(checkpoints.load().state)
    while True:
        training.train_step()
        checkpoints.save(training.step, training.state())
        # An asynchronous save is known to be complete when the next one has started.
        print(training.step - asynchronous, flush=True)


def digest(state: dict[str, Any]) -> str:
    """Return a hash of a state's arrays and numbers."""
    text = json.dumps(state, default=lambda array: array.tobytes().hex(), sort_keys=True)
    return sha256(text.encode()).hexdigest()


@dataclass
class Kills:
    """The results of the killed trainings."""

    saves: int = 0
    in_a_save: int = 0  # kills that left an unfinished checkpoint
    failed: list[str] = field(default_factory=list)
    undisturbed: Training = field(default_factory=Training)

    def check(self, folder: Path, said: int) -> None:
        """Hold that the newest checkpoint is valid, late enough, and equal to the undisturbed."""
        names = [path.name for path in folder.iterdir()]
        self.in_a_save += any(name.endswith(".tmp") for name in names)
        checkpoints = Checkpoints(folder)
        try:
            for each in checkpoints.list():
                checkpoints.verify(each.path)
            loaded = checkpoints.load()
        except Exception as error:  # whatever it is, it belongs in the table
            self.failed.append(repr(error))
            return
        if loaded.step < said or loaded.skipped:
            self.failed.append(f"step {said} was saved, {loaded.step} loaded")
        while self.undisturbed.step < loaded.step:
            self.undisturbed.train_step()
        if digest(loaded.state) != digest(self.undisturbed.state()):
            self.failed.append(f"step {loaded.step} is not that of the undisturbed training")
        self.saves = loaded.step


def start(folder: str, asynchronous: bool) -> tuple[int, int]:
    """Fork a training; return its process, and the pipe by which it says what is saved.

    Forked rather than started: that takes half as long as all of its training.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    try:
        os.dup2(writing, sys.stdout.fileno())
        train(folder, asynchronous)
    finally:
        os._exit(1)


def kill_trainings(asynchronous: bool) -> tuple[int, int, list[str]]:
    """Kill trainings at random times after their first save; each resumes the previous one.

    Return the kills in the middle of a save, the saves, and what was wrong.
    """
    chance, kills = random.Random(0), Kills()
    with tempfile.TemporaryDirectory() as name:
        for _ in range(RUNS):
            child, reading = start(name, asynchronous)
            with open(reading, encoding="ascii") as told:
                while (first := told.readline()) == "0\n":
                    pass  # no save is confirmed yet
                time.sleep(chance.uniform(0, 0.1))
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                lines = (first + told.read()).splitlines(keepends=True)
            kills.check(Path(name), int([line for line in lines if line[-1] == "\n"][-1]))
    return kills.in_a_save, kills.saves, kills.failed


def time_saving() -> Iterator[str]:
    """Yield how fast a large state is saved and loaded, as medians of seven runs."""
    arrays = {str(n): np.random.default_rng(n).random(LARGE // 80) for n in range(10)}
    times: dict[str, list[float]] = {"write and fsync": [], "save": [], "load": []}
    with tempfile.TemporaryDirectory(dir=".") as name:
        checkpoints = Checkpoints(Path(name) / "checkpoints", keep_last=1, on_error="raise")
        for step in range(8):
            times["write and fsync"].append(_plain_write(Path(name) / f"{step}", arrays))
            start = time.perf_counter()
            checkpoints.save(step, {"model": arrays})
            times["save"].append(time.perf_counter() - start)
            start = time.perf_counter()
            checkpoints.load()
            times["load"].append(time.perf_counter() - start)
    yield "| 250 MB of float64 | median | slowest | |\n|---|---:|---:|---:|"
    for what, seconds in times.items():
        middle = float(np.median(seconds[1:]))
        slowest, speed = max(seconds[1:]), LARGE / middle / 1e6
        yield f"| {what} | {middle:.2f} s | {slowest:.2f} s | {speed:.0f} MB/s |"


def _plain_write(path: Path, arrays: dict[str, np.ndarray[Any, Any]]) -> float:
    """Return how long writing only the bytes takes, without a format and a hash."""
    start = time.perf_counter()
    with path.open("wb") as file:
        for array in arrays.values():
            file.write(array.data)
        file.flush()
        os.fsync(file.fileno())
    seconds = time.perf_counter() - start
    path.unlink()
    return seconds


def faults(report: str) -> Iterator[str]:
    """Yield the table of faults that the tests injected."""
    yield "| what happens | cases | valid checkpoint loaded | of these the new one |"
    yield "|---|---:|---:|---:|"
    total = 0
    for each in ElementTree.parse(report).iter("property"):
        if each.get("name") == "reliability":
            row, cases, new = json.loads(each.get("value", ""))
            yield f"| {row} | {cases:,} | {cases:,} | {'' if new is None else new} |"
            total += cases
    yield f"| all | {total:,} | {total:,} | |"


def killed() -> Iterator[str]:
    """Yield the table of killed trainings."""
    yield "| saving | kills | in the middle of a save | saves | newest valid and bit-exact |"
    yield "|---|---:|---:|---:|---:|"
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        ways = (False, True)
        found = list(pool.map(kill_trainings, ways))
    for asynchronous, (in_a_save, saves, failed) in zip(ways, found, strict=True):
        if failed:
            raise SystemExit("\n".join(failed))
        how = "in a thread" if asynchronous else "at once"
        yield f"| {how} | {RUNS} | {in_a_save} | {saves:,} | {RUNS} |"


def main(report: str) -> None:
    """Write the tables between their markers in the page."""
    made = f"Made by `{COMMAND}` on {datetime.date.today()}."
    lines = [made, "", *faults(report), "", *killed(), "", *time_saving()]
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise SystemExit(f"{PAGE.name} has no {BEGIN} ... {END}")
    page = f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}"
    PAGE.write_text(page, encoding="utf-8")
    print(*lines, sep="\n")


if __name__ == "__main__":
    main(sys.argv[1])
