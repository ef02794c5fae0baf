"""`LiveView`: shows a running training, on a terminal or in a log."""

from __future__ import annotations

import os
import sys
import time
from typing import Final, Protocol, TextIO

from rumus.tensor import run_seed
from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.printable import printable_lines
from rumus.tensor.memory.uninterrupted import is_of_handler, suppressed
from rumus.train.base.notebook import in_notebook
from rumus.train.loop.callback import Callback
from rumus.train.loop.events import (
    CheckpointSaved,
    EpochEnd,
    Failed,
    StepEnd,
    TrainEnd,
    TrainStart,
    ValidationEnd,
)
from rumus.train.loop.progress import Progress, clock, short, size

_READ: Final = 1.0  # seconds between two reads of numbers on a device


class View(Protocol):
    """A display of progress."""

    interval: float  # seconds between two times

    def show(self, progress: Progress) -> None:
        """Show the progress."""
        ...

    def say(self, line: str, progress: Progress) -> None:
        """Show a line that stays."""
        ...

    def close(self, progress: Progress) -> None:
        """Show it for the last time."""
        ...


class LiveView(Callback):
    """Shows the progress of a training.

    Epoch and step, loss, learning rate, gradient norm, throughput, remaining time, validation and
    best, device and memory, and the last checkpoint.

    On a terminal it is a panel that updates four times a second (extra `rich`), or a single line
    without that package; elsewhere it prints a line every `seconds`, and one per epoch.

    stream: by default stderr, or in a notebook a panel that is redrawn.
    seconds: the time between two lines or redraws.
    says_seed: begin with the program's seed.

    It honors NO_COLOR. Between two updates a step costs less than a microsecond, and numbers on a
    GPU are read once a second. If the stream can no longer be written, the view ends, not the
    training.

    Raises ValueError if `seconds` is not positive, TypeError for a stream without `write`.
    """

    order = 50
    speaks = True
    shows_progress = True

    @checked_arguments
    def __init__(
        self, stream: TextIO | None = None, *, seconds: float = 10.0, says_seed: bool = False
    ) -> None:
        if stream is not None and not hasattr(stream, "write"):
            raise TypeError(f"stream must be a text stream, such as sys.stdout, not {stream!r}")
        if not seconds > 0:
            raise ValueError(f"seconds must be positive, not {seconds!r}")
        self.stream, self.seconds, self.says_seed = stream, seconds, says_seed
        self._view: View | None = None
        self._progress: Progress | None = None
        self._samples = self._of_epoch = 0.0
        self._next = self._next_read = 0.0

    def on_train_start(self, event: TrainStart) -> None:
        """Show where it starts."""
        stream = sys.stderr if self.stream is None else self.stream
        self._progress = progress = Progress(event.run)
        progress.start(event)
        self._view = view = self._view_for(stream)
        self._samples = self._of_epoch = 0.0
        now = time.perf_counter()
        if view is not None:
            self._next = now + min(view.interval, 0.5)  # soon, the first time
        self._next_read = 0.0
        if self.says_seed:
            self._say(f"seed {run_seed()}")
        if event.resumed_from is not None:
            self._say(f"resumed from {event.resumed_from.name}, epoch {event.epoch + 1}")

    def _view_for(self, stream: TextIO | None) -> View | None:
        if self.stream is None and in_notebook():
            from rumus.train.views.notebook_view import NotebookView

            return NotebookView()
        # A program without a console, or a service whose streams are closed, has no stderr.
        return None if stream is None or stream.closed else view_for(stream, self.seconds)

    def on_step_end(self, event: StepEnd) -> None:
        """Show a step that is due."""
        self._samples += event.samples
        self._of_epoch += event.samples
        now = time.perf_counter()
        if now < self._next or self._progress is None or self._view is None:
            return
        interval, progress = self._view.interval, self._progress
        progress.samples = self._samples
        read = not event.loss.backend.runs_ahead or now >= self._next_read
        progress.look(event, now, read)
        if read:
            self._next_read = now + _READ
        self._shown()
        self._next = time.perf_counter() + interval

    def on_validation_end(self, event: ValidationEnd) -> None:
        """Show its metrics."""
        if self._progress is not None:
            self._progress.validated(event)

    def on_epoch_end(self, event: EpochEnd) -> None:
        """Show an epoch's results."""
        if self._progress is not None:
            self._progress.epoch, self._progress.step = event.epoch, event.step
            self._say(epoch_line(event, self._of_epoch))
        self._of_epoch = 0.0

    def on_checkpoint(self, event: CheckpointSaved) -> None:
        """Show the checkpoint."""
        if self._progress is not None:
            self._progress.saved(event)

    def on_train_end(self, event: TrainEnd) -> None:
        """Show why it ended."""
        if self._progress is not None:
            self._progress.step = event.step
            self._say(f"ended after {event.step:,} steps, {clock(event.seconds)}: {event.reason}")
        self._close()

    def on_error(self, event: Failed) -> None:
        """Leave the terminal as it was; the error speaks for itself."""
        self._close()

    def _shown(self) -> None:
        if self._view is not None and self._progress is not None:
            try:
                self._view.show(self._progress)
            except (OSError, ValueError) as error:  # nobody reads it any more
                if is_of_handler(error):
                    raise
                self._view = None

    def _say(self, line: str) -> None:
        if self._view is not None and self._progress is not None:
            try:
                self._view.say(line, self._progress)
            except (OSError, ValueError) as error:
                if is_of_handler(error):
                    raise
                self._view = None

    def _close(self) -> None:
        view, self._view = self._view, None
        if view is not None and self._progress is not None:
            with suppressed(OSError, ValueError):
                view.close(self._progress)
        self._progress = None


def view_for(stream: TextIO, seconds: float) -> View:
    """Return a display for a stream: a panel, a line that is redrawn, or lines for a log."""
    if not stream.isatty() or os.environ.get("TERM", "") in ("dumb", ""):
        return LinesView(stream, seconds)
    from rumus.train.views.live_panel import PanelView

    try:
        return PanelView(stream)
    except ImportError:
        return LineView(stream)


class LinesView:
    """Plain lines, for a log."""

    def __init__(self, stream: TextIO, seconds: float) -> None:
        self.stream, self.interval = stream, seconds

    def show(self, progress: Progress) -> None:
        """Write a line."""
        self._write(progress_line(progress))

    def say(self, line: str, progress: Progress) -> None:
        """Write a line."""
        self._write(line)

    def close(self, progress: Progress) -> None:
        """All is said."""

    def _write(self, line: str) -> None:
        self.stream.write(encodable(line, self.stream) + "\n")
        self.stream.flush()


class LineView:
    """One line of a terminal, redrawn; permanent lines go above it."""

    interval = 0.25

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def show(self, progress: Progress) -> None:
        """Draw the line, cut to the width of the terminal."""
        from shutil import get_terminal_size

        width = get_terminal_size().columns - 1
        line = encodable(progress_line(progress), self.stream)
        self._write(f"\r{line[:width]}\x1b[K")

    def say(self, line: str, progress: Progress) -> None:
        """Put a line in place of the other, which comes again below."""
        self._write(f"\r{encodable(line, self.stream)}\x1b[K\n")

    def close(self, progress: Progress) -> None:
        """Leave the cursor at the beginning of a line."""
        self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


def encodable(line: str, stream: TextIO) -> str:
    """Return a line with question marks for unencodable characters, without control characters."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    line = printable_lines(line)
    return line.encode(encoding, "replace").decode(encoding)


def place(progress: Progress) -> str:
    """Where it is: epoch and step."""
    epochs, steps = progress.run.limits.epochs, progress.steps
    of = "" if epochs is None else f"/{epochs}"
    total = "" if steps is None else f"/{steps:,}"
    return f"epoch {progress.epoch + 1}{of}  step {progress.step:,}{total}"


def progress_line(progress: Progress) -> str:
    """Return all known values in one line."""
    found = [place(progress)]
    if progress.fraction is not None:
        found[0] += f" ({progress.fraction:.0%})"
    numbers = {
        "loss": progress.loss, "lr": progress.lr, "gradient norm": progress.gradient_norm
    }  # fmt: skip
    found += [f"{name} {short(value)}" for name, value in numbers.items() if value is not None]
    if progress.samples_per_second is not None:
        found.append(f"{progress.samples_per_second:,.0f} samples/s")
    if progress.metrics:
        found.append(f"validation {validation(progress)}")
    if progress.memory is not None:
        found.append(f"memory {size(progress.memory)}")
    if progress.checkpoint is not None:
        found.append(f"checkpoint {progress.checkpoint:,}")
    if progress.remaining is not None:
        found.append(f"{clock(progress.remaining)} left")
    return "  ".join(found)


def validation(progress: Progress) -> str:
    """What the last validation found, with the best of the monitored metric."""
    found = [f"{name} {short(value)}" for name, value in progress.metrics.items()]
    best = progress.run.position.best
    return ", ".join(found) + ("" if best is None else f" (best {short(best)})")


def epoch_line(event: EpochEnd, samples: float) -> str:
    """Return what an epoch came to. samples: those of the seconds that the event has."""
    found = [f"epoch {event.epoch + 1} done: mean loss {short(event.loss)}"]
    if event.metrics_step == event.step:  # an earlier validation was told of in its own epoch
        found += [f"validation {name} {short(value)}" for name, value in event.metrics.items()]
    if event.seconds > 0:
        found.append(f"{samples / event.seconds:,.0f} samples/s")
    return "  ".join([*found, f"in {clock(event.seconds)}"])
