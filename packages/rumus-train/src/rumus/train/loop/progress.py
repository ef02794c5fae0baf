"""`Progress`: the progress of a running training, for display."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from rumus.tensor import Backend
from rumus.train.base.late_values import late_values
from rumus.train.loop.environment import backend_of, device_name, memory_used
from rumus.train.loop.events import CheckpointSaved, StepEnd, TrainStart, ValidationEnd
from rumus.train.loop.run import Run

_SHORT: Final = 0.3  # of a new throughput in the mean that is shown
_RECENT: Final = 32  # losses whose course is shown


@dataclass(slots=True)
class Progress:
    """It is displayed a few times a second; numbers on a device are read even less often.

    Epochs count from 0. steps: their total number, if known.
    """

    run: Run
    device: str = ""
    epoch: int = 0
    step: int = 0
    steps: int | None = None
    steps_per_epoch: int | None = None
    loss: float | None = None
    lr: float | None = None
    gradient_norm: float | None = None
    samples_per_second: float | None = None
    steps_per_second: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    memory: int | None = None
    checkpoint: int | None = None
    losses: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))
    samples: float = 0.0
    _backend: Backend | None = None
    _started: float = 0.0
    _saved: float = 0.0
    _looked: tuple[float, int, float] = (0.0, 0, 0.0)
    _first: int = 0  # the step after which this process began

    def start(self, event: TrainStart) -> None:
        """Begin, or continue after a resume."""
        self._backend = backend_of(self.run.trainer.optimizer)
        self.device = device_name(self._backend)
        self.epoch, self.step = event.epoch, event.step
        self.metrics = event.run.position.metrics
        self._count(event.steps_per_epoch)
        self._started = now = time.perf_counter()
        self._looked = (now, event.step, 0.0)
        self._first = event.step

    def look(self, event: StepEnd, now: float, read: bool = True) -> None:
        """Record a step; with `read`, also its loss and norm, which may wait for the device."""
        self.epoch, self.step = event.epoch, event.step
        self._count(event.steps_per_epoch)
        self.lr = event.learning_rate
        if read:
            norm = event.gradient_norm()
            self.loss, *rest = late_values([event.loss, *([] if norm is None else [norm])])
            self.gradient_norm = rest[0] if rest else None
            self.losses.append(self.loss)
            self._measure(now)
            self.memory = memory_used(self._backend)

    def pause(self, seconds: float) -> None:
        """Exclude time without training from the throughput."""
        then, step, samples = self._looked
        self._looked = (then + seconds, step, samples)

    def validated(self, event: ValidationEnd) -> None:
        """Record a validation."""
        self.metrics = event.metrics
        self.pause(event.seconds)

    def saved(self, event: CheckpointSaved) -> None:
        """Record a checkpoint."""
        self.pause(event.seconds)
        if event.path is not None:
            self.checkpoint, self._saved = event.step, time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds since the start, or the resume."""
        return time.perf_counter() - self._started

    @property
    def since_checkpoint(self) -> float:
        """Seconds since the last checkpoint."""
        return time.perf_counter() - self._saved

    @property
    def remaining(self) -> float | None:
        """Seconds to the end, estimated."""
        found = []
        if self.steps is not None and self.steps_per_second:
            found.append((self.steps - self.step) / self.steps_per_second)
        if self.run.limits.seconds is not None:
            found.append(self.run.limits.seconds - self.elapsed)
        return max(0.0, min(found)) if found else None

    @property
    def fraction(self) -> float | None:
        """The share that is done, between 0 and 1."""
        found = []
        if self.steps:
            found.append(self.step / self.steps)
        if self.run.limits.seconds is not None:
            found.append(self.elapsed / self.run.limits.seconds)
        return min(1.0, max(found)) if found else None

    def _count(self, per_epoch: int | None) -> None:
        self.steps_per_epoch = per_epoch
        limits = self.run.limits
        ends = [math.inf if limits.steps is None else limits.steps]
        if limits.epochs is not None and per_epoch is not None:
            ends.append(limits.epochs * per_epoch)
        self.steps = None if min(ends) == math.inf else int(min(ends))

    def _measure(self, now: float) -> None:
        then, step, samples = self._looked
        seconds = now - then
        if seconds <= 0:
            return
        self._looked = (now, self.step, self.samples)
        if self.step == self._first + 1:
            return  # the first step compiles, and says nothing about the others
        self.steps_per_second = _mean(self.steps_per_second, (self.step - step) / seconds)
        self.samples_per_second = _mean(self.samples_per_second, (self.samples - samples) / seconds)


def _mean(old: float | None, new: float) -> float:
    return new if old is None else old + _SHORT * (new - old)


def clock(seconds: float) -> str:
    """Format a duration like a clock.

    >>> clock(3725.4), clock(200_000)
    ('1:02:05', '2 d 7:33:20')
    """
    if not math.isfinite(seconds):  # of a damaged line
        return short(seconds)
    days, rest = divmod(int(seconds), 86_400)
    shown = f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days} d {shown}" if days else shown


def size(count: int) -> str:
    """Format a number of bytes for reading.

    >>> size(3 * 2**29)
    '1.5 GiB'
    """
    units = ("bytes", "KiB", "MiB", "GiB", "TiB")
    power = min(max(count.bit_length() - 1, 0) // 10, len(units) - 1)
    return f"{count / 1024**power:.{1 if power else 0}f} {units[power]}"


def short(value: float) -> str:
    """Format a number with four digits.

    >>> short(0.000312345), short(12.0), short(1234567.0)
    ('0.0003123', '12', '1.235e+06')
    """
    return f"{value:.4g}"
