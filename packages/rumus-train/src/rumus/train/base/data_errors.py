"""Errors between a dataset and its batches."""

from __future__ import annotations

from rumus.tensor.expression.printable import PrintableError


class SampleError(PrintableError, RuntimeError):
    """A sample could not be read or transformed, or does not fit the others of its batch.

    message: the text.
    index: the sample's number in the loader's dataset, or None if it was one of several. The
        original error is the `__cause__`.
    """

    def __init__(self, message: str, index: int | None = None) -> None:
        super().__init__(message, index)
        self.message = message
        self.index = index

    def __str__(self) -> str:
        return self.message


class WorkerError(PrintableError, RuntimeError):
    """A loader's worker process could not be started, or ended too early."""
