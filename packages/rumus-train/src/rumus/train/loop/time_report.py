"""`TimeReport`: prints the time taken by each part of an epoch's steps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.declared_type import shown
from rumus.train.loop.callback import Callback
from rumus.train.loop.events import EpochEnd, EpochStart, Failed, TrainEnd, TrainStart


class TimeReport(Callback):
    """Writes a line after each epoch: the shares of data, forward, backward, optimizer, reading.

    It needs `fit(profile_steps=True)`, which waits for the loss of each step, and raises ValueError
    without it. The times are the host's: on a GPU, forward and backward only submit their commands,
    "replayed" submits those of recorded steps, and "reading" waits for the GPU to finish.

    kernels: on a GPU, also time the kernels of the first full epoch on the device, which slows it
        down.
    write: called with each line.

    >>> from rumus.train import TimeReport
    >>> report = TimeReport()  # fit(..., callbacks=[report], profile_steps=True)
    """

    order = 200  # after callbacks that print the loss
    speaks = True

    @checked_arguments
    def __init__(self, kernels: bool = False, write: Callable[[str], object] = print) -> None:
        if isinstance(write, type) or not callable(write):
            raise TypeError(f"TimeReport: write must be a function, not {shown(write)}")
        self.kernels, self.write = kernels, write
        self._profiling = ExitStack()
        self._profile: Any = None

    def on_train_start(self, event: TrainStart) -> None:
        """Raise unless steps are measured."""
        if event.run.spans is None:
            raise ValueError("TimeReport needs step times: use fit(..., profile_steps=True)")

    def on_epoch_start(self, event: EpochStart) -> None:
        """Begin to time kernels, if requested and possible."""
        if self.kernels and (gpu := _gpu_of(event)) is not None:
            self.kernels = False
            self._profile = self._profiling.enter_context(gpu.profile())

    def on_epoch_end(self, event: EpochEnd) -> None:
        """Write the shares, and the table of kernels if they were timed."""
        assert event.spans is not None
        shares = event.spans.shares(event.seconds)
        told = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        host = "" if _gpu_of(event) is None else " (the host's time; reading waits for the GPU)"
        self.write(f"epoch {event.epoch + 1}: {event.seconds:.3g} s: {told}{host}")
        if self._profile is not None:
            self._profiling.close()
            self.write(str(self._profile))
            self._profile = None

    def on_train_end(self, event: TrainEnd) -> None:
        """Stop timing."""
        self._profiling.close()

    def on_error(self, event: Failed) -> None:
        """Stop timing."""
        self._profiling.close()


def _gpu_of(event: EpochStart | EpochEnd) -> Any:
    """The model's GPU; None on the CPU."""
    parameters = event.run.trainer.optimizer.parameters
    return getattr(parameters[0].backend, "gpu", None)
