"""Datasets and transforms that worker processes can import."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

Sample = tuple[Any, ...]


class Numbers:
    """Samples (array of the index, index), without `batch`, some of them bad."""

    def __init__(self, count: int, **bad: int) -> None:
        self.count, self.bad = count, bad

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if index == self.bad.get("missing"):
            raise FileNotFoundError(f"no file {index}.bin")
        if index == self.bad.get("long"):
            return np.zeros(3), index
        if index == self.bad.get("single"):
            return (np.zeros(2),)
        if index == self.bad.get("whole"):
            return np.zeros(2, np.float32), index
        if index == self.bad.get("text"):
            return np.zeros(2), "seven"
        if index == self.bad.get("bare"):
            return np.zeros(2)  # type: ignore[return-value]
        return np.full(2, float(index)), index

    def describe(self, index: int) -> str:
        return f"{index}.bin"


def noisy(sample: Sample, generator: np.random.Generator) -> Sample:
    return sample[0] + generator.normal(size=2), *sample[1:], generator.integers(1000)


class Unpicklable(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")


def strange(sample: Sample, generator: np.random.Generator) -> Sample:
    if sample[1] == 5:
        raise Unpicklable(1, 2)
    return sample


def deadly(sample: Sample, generator: np.random.Generator) -> Sample:
    if sample[1] == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return sample


def where(sample: Sample, generator: np.random.Generator) -> Sample:
    return *sample, os.getpid()


class Sleeping:
    """Samples, the third of which takes a minute."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        time.sleep(60 if index == 2 else 0)
        return (np.zeros(2),)


class Scaled:
    """Samples of a few kilobytes that a program may change between two epochs."""

    def __init__(self, count: int, factor: float) -> None:
        self.factor = factor
        self.values = np.arange(count * 3000.0).reshape(count, 3000)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.values[index]
        return {
            "row": row * self.factor,
            "whole": row.astype(np.int32).reshape(30, 100),
            "flag": index % 2 == 0,
        }


class Refusing:
    """A transform that can be made only in this process."""

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        return sample

    def __setstate__(self, state: object) -> None:
        raise OSError("not here")

    def __getstate__(self) -> int:
        return 1


def stay() -> None:
    """Wait for a signal, in short sleeps: one just before a sleep is handled only after it."""
    for _ in range(6000):
        time.sleep(0.01)


def busy(folder: str) -> None:
    """Start a loop with worker processes that stay busy; write a file when it has started."""
    from rumus.train import DataLoader

    for _ in DataLoader(Numbers(8), 2, workers=2, processes=True):
        Path(folder, "begun").touch()
        stay()


def idle(folder: str) -> None:
    """Have worker processes wait for the next epoch; write a file with the time and their ids."""
    from rumus.train import DataLoader

    loader = DataLoader(Numbers(8), 2, workers=2, processes=True, transform=where)
    found = sorted({int(pid) for _, _, pids in loader for pid in pids})
    Path(folder, "new").write_text(" ".join(map(str, found)))
    Path(folder, "new").rename(Path(folder, "begun"))
    stay()


def open_at_exit() -> None:
    """Leave a loop open when the program ends."""
    from rumus.train import DataLoader

    loop = iter(DataLoader(Numbers(8), 2, workers=2, processes=True))
    globals()["kept"] = loop, next(loop)
