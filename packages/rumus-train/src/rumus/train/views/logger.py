"""`LogTo`: sends a training's measurements to a logging service or program."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

from rumus.tensor import Tensor
from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.declared_type import shown
from rumus.tensor.expression.user_warning import warn_user
from rumus.train.base.late_values import late_values
from rumus.train.loop.callback import Callback
from rumus.train.loop.events import EpochEnd, Failed, StepEnd, TrainEnd, TrainStart, ValidationEnd

_WAITING: Final = 10_000  # entries that may wait for a slow logger
Entry: TypeAlias = tuple[dict[str, float], int]


@runtime_checkable
class Logger(Protocol):
    """Receives numbers by name: a run of Weights & Biases or Trackio, or your own object."""

    def log(self, values: Mapping[str, float], step: int, /) -> object:
        """Log the numbers of a step.

        values: numbers by name.
        step: the training step.
        """
        ...


def _takes_entry(log: Callable[..., object]) -> bool:
    try:
        signature(log).bind({}, 1)
    except ValueError:  # of a function that is not written in Python
        return True
    except TypeError:
        return False
    return True


class LoggerWarning(RuntimeWarning):
    """A logger failed or hangs; training continues without it."""


class LogTo(Callback):
    """Passes measurements to a logger: losses, rates, norms, logged values, and validations.

    logger: has `log(values, step)`, like the results of `wandb.init()` and `trackio.init()`, or is
        such a function, like `mlflow.log_metrics`. It runs in its own thread, and training never
        waits for it: if it raises or hangs, one LoggerWarning says so, and training continues.
    seconds: the interval between logged steps; all validations and epochs are logged.
    patience: how many seconds the end of training waits for pending entries.

    Raises TypeError for an object that has no `log` and is not a function.

    Names are "train/loss", "train/lr", "train/grad_norm", "train/NAME", "epoch/loss",
    "validation/NAME".

    >>> from rumus.optim import SGD
    >>> from rumus.tensor import Parameter
    >>> from rumus.train import LogTo, Trainer
    >>> weight, found = Parameter([4.0], name="weight"), []
    >>> result = Trainer(SGD([weight], 0.25)).fit(
    ...     [()], lambda: (weight * weight).sum(), epochs=1,
    ...     callbacks=[LogTo(lambda values, step: found.append((step, values["epoch/loss"]))
    ...                      if "epoch/loss" in values else None)], weight_of=lambda: 1.0)
    >>> found
    [(1, 16.0)]
    """

    order = 40
    speaks = True

    @checked_arguments
    def __init__(
        self,
        logger: Logger | Callable[[Mapping[str, float], int], object],
        *,
        seconds: float = 1.0,
        patience: float = 10.0,
    ) -> None:
        log = logger.log if isinstance(logger, Logger) else logger
        if isinstance(logger, type) or not callable(log):
            raise TypeError(
                "a logger must have log(values, step) or be such a function; "
                f"{shown(logger)} is neither"
            )
        given: Any = logger
        if isinstance(given, logging.Logger) or not _takes_entry(log):
            raise TypeError(
                f"a logger is called as log(values, step), which {shown(logger)} does not take: "
                "write a function, as lambda values, step: print(step, values)"
            )
        if not seconds >= 0 or not patience >= 0:
            raise ValueError(f"seconds and patience must not be negative: {seconds}, {patience}")
        self._log: Callable[..., object] = log
        self._name = type(logger).__name__ if isinstance(logger, Logger) else _named(log)
        self.seconds, self.patience = seconds, patience
        self._thread: _LoggingThread | None = None
        self._next = 0.0

    def on_train_start(self, event: TrainStart) -> None:
        """Start the thread."""
        self._thread = _LoggingThread(self._log)
        self._next = 0.0

    def on_step_end(self, event: StepEnd) -> None:
        """Log a step that is due."""
        now = time.perf_counter()
        if now < self._next or self._thread is None:
            return
        norm = event.gradient_norm()
        found: dict[str, Tensor] = {"loss": event.loss, **event.logged}
        if norm is not None:
            found["grad_norm"] = norm
        values = dict(zip(found, late_values([*found.values()]), strict=True))
        if event.learning_rate is not None:
            values["lr"] = event.learning_rate
        self._send("train", values, event.step)
        self._next = time.perf_counter() + self.seconds

    def on_validation_end(self, event: ValidationEnd) -> None:
        """Log a validation's metrics."""
        self._send("validation", event.metrics, event.step)

    def on_epoch_end(self, event: EpochEnd) -> None:
        """Log an epoch's results."""
        self._send("epoch", {"loss": event.loss, **event.logged}, event.step)

    def on_train_end(self, event: TrainEnd) -> None:
        """Wait for pending entries, up to `patience` seconds."""
        self._close()

    def on_error(self, event: Failed) -> None:
        """Wait for pending entries, up to `patience` seconds."""
        self._close()

    def _send(self, group: str, values: Mapping[str, float], step: int) -> None:
        thread = self._thread
        if thread is None:
            return
        named = {f"{group}/{name}": float(value) for name, value in values.items()}
        if thread.error is None and thread.send(named, step):
            return
        self._tell(thread)

    def _tell(self, thread: _LoggingThread) -> None:
        """Warn once why nothing more is logged."""
        self._thread = None
        why = "it takes nothing any more"
        if thread.error is not None:
            why = f"{type(thread.error).__name__}: {thread.error}"
        warn_user(
            f"the logger {self._name} is not called any more; training continues: {why}",
            LoggerWarning,
        )

    def _close(self) -> None:
        thread = self._thread
        if thread is None:
            return
        if not thread.finish(self.patience) or thread.error is not None:
            self._tell(thread)
        self._thread = None


class _LoggingThread:
    """Calls a logger, in order, in a daemon thread."""

    def __init__(self, log: Callable[..., object]) -> None:
        self.error: BaseException | None = None
        self._log = log
        self._entries: queue.Queue[Entry | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._run, name="rumus-log", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (entry := self._entries.get()) is not None:
            if self.error is None:
                try:
                    self._log(*entry)
                except BaseException as error:  # a SystemExit would end the thread and say nothing
                    self.error = error

    def send(self, values: dict[str, float], step: int) -> bool:
        """Queue an entry; False if the queue is full."""
        try:
            self._entries.put_nowait((values, step))
        except queue.Full:
            return False
        return True

    def finish(self, seconds: float) -> bool:
        """Wait until everything is logged; False on timeout."""
        try:
            self._entries.put(None, timeout=seconds)
        except queue.Full:
            return False
        self._thread.join(seconds)
        return not self._thread.is_alive()


def _named(function: Any) -> str:
    return str(getattr(function, "__qualname__", type(function).__name__))
